/**
 * Takes the iptables rules of this mode away. spec: ipvs.md §15.
 *
 * @module
 */

import { type RemovedRules, removeChains } from '../../iptables/remove.ts';
import type { Tools } from '../../iptables/tools.ts';
import { CHAINS, JUMPS } from './rules.ts';

/** Cleans up one family. An error in one table does not keep the other from being cleaned; a second call finds nothing to do. */
export function removeIpvsRules(
  tools: Pick<Tools, 'family' | 'save' | 'restore'>,
  signal?: AbortSignal,
): Promise<RemovedRules> {
  const isOurs = (table: string, chain: string) => CHAINS.some(([of, name]) => of === table && name === chain);
  return removeChains(tools, { isOurs, jumps: JUMPS }, signal);
}
