/**
 * What packets wrote about things that are there no more is taken out of the sets they write to. The rules do not rely on it: they
 * look whether the thing is there. But they do so after the packet is on its way, and drop it; so sooner is better.
 *
 * @module
 */

import type { CommitResult } from '../../netlink/nftables/nftables.ts';
import type { Command, SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { Learned } from './layout.ts';
import type { Operation } from './operations.ts';

/** One table. */
export interface LearnedTable {
  readElements(set: SetObject): readonly SetElement[];
  commit(commands: readonly Command[]): CommitResult;
}

/** Entries that end by themselves between reading and writing make the kernel refuse; those that are left are tried again. */
const TRIES = 3;

/**
 * Forgets what was learned about elements that operations took out. Costs as much as there is learned, and nothing if none of the
 * operations is about something learned.
 *
 * @returns How many entries were taken out.
 */
export function forget(learned: Learned, operations: readonly Operation[], table: LearnedTable): number {
  const gone = new Map<string, SetElement[]>();
  for (const operation of operations) {
    if (operation.kind !== 'deleteElement' || !learned.about.has(operation.set.name)) continue;
    const elements = gone.get(operation.set.name);
    if (elements === undefined) gone.set(operation.set.name, [operation.element]);
    else elements.push(operation.element);
  }
  if (gone.size === 0) return 0;
  let count = 0;
  for (const set of learned.sets) {
    const isStale = learned.staleIn(set, gone);
    count += remove(set, table.readElements(set).filter(isStale), table);
  }
  return count;
}

function remove(set: SetObject, entries: readonly SetElement[], table: LearnedTable): number {
  let elements = entries;
  for (let tries = 0; tries < TRIES && elements.length > 0; tries++) {
    const result = table.commit([{ verb: 'delete', object: 'element', set, elements }]);
    if (result.kind === 'committed') return elements.length;
    if (result.kind === 'outdated') continue;
    const ended = new Set(result.refused.map(({ element }) => element));
    elements = elements.filter((_, i) => !ended.has(i));
  }
  return 0;
}
