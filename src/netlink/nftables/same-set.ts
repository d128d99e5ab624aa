/**
 * When two descriptions of a set are of one kind of set.
 *
 * @module
 */

import type { FieldType, SetObject } from './transaction.ts';

/** What the kernel gives a set without a size once a rule adds to it (net/netfilter/nft_dynset.c). */
export const DYNAMIC_SET_SIZE = 65_535;

function sameFields(a: SetObject['data'], b: SetObject['data']): boolean {
  const text = (data: 'verdict' | readonly FieldType[] | undefined) => (typeof data === 'object' ? data.join() : data);
  return text(a) === text(b);
}

function sizeOf({ size, flags }: SetObject): number | undefined {
  return size === DYNAMIC_SET_SIZE && flags?.includes('dynamic') ? undefined : size;
}

/**
 * True if a set read is the one wanted: name, types, flags, timeout, size and comment. The size that a dynamic set without one gets
 * is none.
 */
export function sameSet(a: SetObject, b: SetObject): boolean {
  return sameSetKind(a, b) && a.timeoutSeconds === b.timeoutSeconds && a.comment === b.comment;
}

/** As `sameSet`, but for what can be another without making the set anew: its timeout. The comment stays what it was. */
export function sameSetKind(a: SetObject, b: SetObject): boolean {
  return (
    a.name === b.name &&
    sameFields(a.key, b.key) &&
    sameFields(a.data, b.data) &&
    (a.flags ?? []).toSorted().join() === (b.flags ?? []).toSorted().join() &&
    sizeOf(a) === sizeOf(b)
  );
}
