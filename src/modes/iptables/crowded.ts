/**
 * Shared chains from which many rules go at once (a namespace is deleted, a cluster scaled down) are rewritten after all. Pure.
 *
 * For each `-D` the tool goes through the chain rule by rule: at 10,000 services 12 ms each, where writing all of KUBE-SERVICES anew
 * takes 1.3 s (iptables 1.8.9, docs/decisions/0003). Both grow with the length of the chain, so the bound is a plain number.
 *
 * @module
 */

import { formatRestore } from '../../iptables/format.ts';
import { compareText, type ObjectKey } from '../../proxier/types.ts';
import type { Edit, OwnedEdits } from './delta.ts';
import type { ServiceRules } from './render.ts';
import type { StaticChain } from './static.ts';

/** More rules than this to be deleted from one shared chain by one input: the chain is rewritten. */
export const MAX_DELETES = 100;

/** Edits with crowded chains set apart. */
export interface Rewritten {
  /** The parts given, one for one, without their edits of crowded chains. */
  readonly parts: readonly OwnedEdits[];
  /**
   * Empties the crowded chains and writes them anew: belongs into one input, which must not be divided, with `parts` or behind
   * those that write the chains jumped to. Empty if no chain is crowded.
   */
  readonly rewrite: readonly OwnedEdits[];
}

/**
 * The same edits, but for shared chains that lose more than `MAX_DELETES` rules: those are emptied and written anew.
 *
 * @param parts - Edits of one sync.
 * @param statics - The static part wanted: its rules stand behind those of the services.
 * @param wanted - Asked for only if a chain is rewritten: every service as it is wanted, in any order.
 */
export function rewriteCrowded(
  parts: readonly OwnedEdits[],
  statics: readonly StaticChain[],
  wanted: () => Iterable<readonly [ObjectKey, ServiceRules]>,
): Rewritten {
  const deletes = new Map<string, number>();
  for (const { edits } of parts) {
    for (const edit of edits) if (edit.op === 'delete') deletes.set(keyOf(edit), (deletes.get(keyOf(edit)) ?? 0) + 1);
  }
  const crowded = statics.filter(
    ({ kind, table, name }) => kind === 'shared' && (deletes.get(`${table} ${name}`) ?? 0) > MAX_DELETES,
  );
  if (crowded.length === 0) return { parts, rewrite: [] };

  const keys = new Set(crowded.map(({ table, name }) => `${table} ${name}`));
  const append = ({ table, name }: StaticChain, rules: StaticChain['rules']): Edit[] =>
    rules.map((rule): Edit => ({ op: 'append', table, chain: name, body: formatRestore(rule) }));
  const declares = crowded.map(({ table, name }): Edit => ({ op: 'declare', table, chain: name }));
  const rewrite: OwnedEdits[] = [{ owner: 'static', edits: declares }];
  for (const [owner, { shared }] of [...wanted()].sort(([a], [b]) => compareText(a, b))) {
    const edits = shared.flatMap(({ table, chain, rules }) => {
      const of = crowded.find((c) => c.table === table && c.name === chain);
      return of === undefined ? [] : append(of, rules);
    });
    if (edits.length > 0) rewrite.push({ owner, edits });
  }
  rewrite.push({ owner: 'static', edits: crowded.flatMap((chain) => append(chain, chain.rules)) });
  const rest = parts.map(({ owner, edits }) => ({ owner, edits: edits.filter((edit) => !keys.has(keyOf(edit))) }));
  return { parts: rest, rewrite };
}

function keyOf({ table, chain }: Edit): string {
  return `${table} ${chain}`;
}
