/**
 * The layouts by name.
 *
 * @module
 */

import { CHAINS_LAYOUT } from './chains-layout.ts';
import type { Layout, LayoutName } from './layout.ts';

const LAYOUTS: Readonly<Partial<Record<LayoutName, Layout>>> = { chains: CHAINS_LAYOUT };

/** @throws {RangeError} If it is not built. */
export function layoutOf(name: LayoutName): Layout {
  const layout = LAYOUTS[name];
  if (layout === undefined)
    throw new RangeError(`Cannot use nftables.layout "${name}": must be one of ${Object.keys(LAYOUTS).join(', ')}`);
  return layout;
}
