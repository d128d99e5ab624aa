/**
 * What the kernel alone takes for the same objects: transactions made here, in a namespace of its own.
 *
 * @module
 */

import { runWith } from './run.ts';
import { median } from './world.ts';

/** Times in ms. All in one namespace that goes away with the call. */
export function bareKernel(
  services: number,
  endpoints: number,
  layout: string,
): { readonly bareColdMs: number; readonly bareChangeMs: number } {
  const script = new URL('./bare-nft-times.ts', import.meta.url).pathname;
  const out = runWith('', 'unshare', '-n', process.execPath, script, String(services), String(endpoints), layout);
  const times = JSON.parse(out) as { readonly cold: readonly number[]; readonly changes: readonly number[] };
  return {
    bareColdMs: Math.round(times.cold.reduce((a, b) => a + b, 0)),
    bareChangeMs: Math.round(median(times.changes) * 10) / 10,
  };
}
