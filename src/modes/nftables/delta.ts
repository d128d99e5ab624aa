/**
 * What a change of some owners does to a table that holds what all of them wanted before. Looks at these owners only, and at
 * those who want the same elements. Pure.
 *
 * @module
 */

import type { SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import { compareText } from '../../proxier/types.ts';
import {
  type Claims,
  contentText,
  elementText,
  type Item,
  type ItemKey,
  itemsOf,
  type Owner,
  STATIC,
  sameItem,
} from './claims.ts';
import type { Objects } from './layout.ts';
import type { Operation } from './operations.ts';

/** One owner, what it wanted and what it wants now. Undefined: nothing. */
export interface Change {
  readonly owner: Owner;
  readonly before: Objects | undefined;
  readonly after: Objects | undefined;
}

export interface Delta {
  readonly operations: readonly Operation[];
  /** Makes the claims what they are once the operations are done. */
  settle(): void;
}

type Items = ReadonlyMap<ItemKey, Item>;

const NOTHING: Items = new Map();

/**
 * Finds the difference.
 *
 * @param changes - Each owner at most once.
 * @param claims - Of everything in the table. Changed by `settle` only.
 * @param objectsOf - What an owner without a change wants.
 * @throws {RangeError} If a set or chain would have to become one of another kind, which the kernel does not do.
 */
export function deltaOf(changes: readonly Change[], claims: Claims, objectsOf: (owner: Owner) => Objects): Delta {
  const before = new Map<Owner, Items>();
  const after = new Map<Owner, Items>();
  for (const change of changes) {
    before.set(change.owner, change.before ? itemsOf(change.before) : NOTHING);
    after.set(change.owner, change.after ? itemsOf(change.after) : NOTHING);
  }
  const touched = touchedBy(before, after);
  const itemOf = (items: Map<Owner, Items>, owner: Owner, key: ItemKey): Item | undefined => {
    if (!items.has(owner)) {
      const unchanged = itemsOf(objectsOf(owner));
      before.set(owner, unchanged);
      after.set(owner, unchanged);
    }
    return items.get(owner)?.get(key);
  };
  const operations: Operation[] = [];
  for (const [key, owners] of touched) {
    let [was, is] = [ownersWith(before, owners, key), ownersWith(after, owners, key)];
    if (isShared(key)) {
      // All owners want the same, so as long as somebody else does, it stays.
      if (claims.countOf(key) > was.length) continue;
    } else if (claims.countOf(key) > was.length) {
      const others = claims.ownersOf(key).filter((owner) => !owners.has(owner));
      was = [...was, ...others].sort(compareText);
      is = [...is, ...others].sort(compareText);
    }
    const [first] = was;
    const [next] = is;
    const had = first === undefined ? undefined : itemOf(before, first, key);
    const has = next === undefined ? undefined : itemOf(after, next, key);
    operations.push(...replace(had, has, next ?? first ?? STATIC));
  }
  const settle = () => {
    for (const [key, owners] of touched) {
      for (const owner of owners) {
        if (after.get(owner)?.has(key)) claims.add(key, owner);
        else claims.remove(key, owner);
      }
    }
  };
  return { operations: withoutElementsOfOldSets(operations), settle };
}

/** Chains and sets may be several owners' without being anybody's more than another's. */
function isShared(key: ItemKey): boolean {
  return !key.startsWith('e');
}

/** Those of the owners who have a thing, in order. */
function ownersWith(items: ReadonlyMap<Owner, Items>, owners: ReadonlySet<Owner>, key: ItemKey): Owner[] {
  return [...owners].filter((owner) => items.get(owner)?.has(key)).sort(compareText);
}

/** Keys of which something changes for some owner, with those owners. */
function touchedBy(before: ReadonlyMap<Owner, Items>, after: ReadonlyMap<Owner, Items>): Map<ItemKey, Set<Owner>> {
  const touched = new Map<ItemKey, Set<Owner>>();
  const touch = (key: ItemKey, owner: Owner) => {
    const owners = touched.get(key);
    if (owners === undefined) touched.set(key, new Set([owner]));
    else owners.add(owner);
  };
  for (const [owner, had] of before) {
    const has = after.get(owner) ?? NOTHING;
    for (const [key, item] of had) {
      const now = has.get(key);
      if (now === undefined || !sameItem(item, now)) touch(key, owner);
    }
    for (const key of has.keys()) if (!had.has(key)) touch(key, owner);
  }
  return touched;
}

/** What makes one thing of the table another one of the same key. @throws {RangeError} If the kernel cannot. */
function replace(was: Item | undefined, is: Item | undefined, owner: Owner): readonly Operation[] {
  if (is === undefined) return was === undefined ? [] : removal(was, owner);
  if (was === undefined) return creation(is, owner);
  if (was === is || sameItem(was, is)) return [];
  switch (is.kind) {
    case 'set':
      if (was.kind !== 'set' || kindOfSet(was.set) !== kindOfSet(is.set)) break;
      return [{ owner, kind: 'addSet', set: is.set }];
    case 'chain':
      if (was.kind !== 'chain') break;
      if (JSON.stringify(was.content.chain.base) !== JSON.stringify(is.content.chain.base)) break;
      return [{ owner, kind: 'rewriteChain', content: is.content }];
    case 'element':
    case 'elements':
      return replaceElements(elementsOf(was), elementsOf(is), is.set, owner);
  }
  throw new RangeError(`Cannot change ${JSON.stringify(was)} in place: it must become ${JSON.stringify(is)}`);
}

/** Of an existing set the kernel changes the timeout, and keeps the comment silently. */
function kindOfSet({ key, data, flags, size }: SetObject): string {
  return JSON.stringify([key, data, flags, size]);
}

function elementsOf(item: Item): readonly SetElement[] {
  return item.kind === 'element' ? [item.element] : item.kind === 'elements' ? item.elements : [];
}

/** What makes some elements of a set others: one that changes goes and comes. */
export function replaceElements(
  was: Iterable<SetElement>,
  is: readonly SetElement[],
  set: SetObject,
  owner: Owner,
): readonly Operation[] {
  const had = new Map(Array.from(was, (element) => [elementText(element), element]));
  const operations: Operation[] = [];
  for (const element of is) {
    const text = elementText(element);
    const old = had.get(text);
    if (old !== undefined && contentText(old) === contentText(element)) had.delete(text);
    else operations.push({ owner, kind: 'addElement', set, element });
  }
  for (const element of had.values()) operations.push({ owner, kind: 'deleteElement', set, element });
  return operations;
}

/** What brings a thing into the table. */
export function creation(item: Item, owner: Owner): readonly Operation[] {
  switch (item.kind) {
    case 'set':
      return [{ owner, kind: 'addSet', set: item.set }];
    case 'chain':
      return [{ owner, kind: 'addChain', content: item.content }];
    case 'element':
    case 'elements':
      return elementsOf(item).map((element) => ({ owner, kind: 'addElement', set: item.set, element }));
  }
}

function removal(item: Item, owner: Owner): readonly Operation[] {
  switch (item.kind) {
    case 'set':
      return [{ owner, kind: 'deleteSet', set: item.set }];
    case 'chain':
      return [{ owner, kind: 'deleteChain', name: item.content.chain.name }];
    case 'element':
    case 'elements':
      return elementsOf(item).map((element) => ({ owner, kind: 'deleteElement', set: item.set, element }));
  }
}

/** A set goes with all that is in it. */
function withoutElementsOfOldSets(operations: readonly Operation[]): readonly Operation[] {
  const old = new Set(operations.flatMap((o) => (o.kind === 'deleteSet' ? [o.set.name] : [])));
  if (old.size === 0) return operations;
  return operations.filter((o) => o.kind !== 'deleteElement' || !old.has(o.set.name));
}
