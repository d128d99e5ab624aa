/**
 * The layouts by name.
 *
 * @module
 */

import { CHAINS_LAYOUT } from './chains-layout.ts';
import type { Layout, LayoutName } from './layout.ts';
import { MAPS_LAYOUT } from './maps-layout.ts';

/** Every layout there is. */
export const LAYOUTS: Readonly<Record<LayoutName, Layout>> = { chains: CHAINS_LAYOUT, maps: MAPS_LAYOUT };

export function layoutOf(name: LayoutName): Layout {
  return LAYOUTS[name];
}
