/**
 * The rules of one service as text, in the order they are read in a chain. Pure.
 *
 * @module
 */

import { TABLES } from '../../iptables/chain.ts';
import { formatRestore } from '../../iptables/format.ts';
import type { ServiceRules } from './render.ts';

/** Lines of an input of `iptables-restore --noflush`; a table without rules is left out. */
export function formatService({ owned, shared }: ServiceRules): readonly string[] {
  return TABLES.flatMap((table) => {
    const chains = table === 'nat' ? [...owned] : [];
    const rules = [
      ...shared.filter((part) => part.table === table).map((part) => [part.chain, part.rules] as const),
      ...chains,
    ];
    if (rules.length === 0) return [];
    return [
      `*${table}`,
      ...chains.map(([chain]) => `:${chain} - [0:0]`),
      ...rules.flatMap(([chain, list]) => list.map((rule) => `-A ${chain} ${formatRestore(rule)}`)),
      'COMMIT',
    ];
  });
}
