/**
 * Who wants what: every chain, set and element in the table has owners, and of elements that several services want (one address
 * and port in two of them) the first owner's are there. Kept between syncs, so that a change costs what it touches. Pure.
 *
 * @module
 */

import type { SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { ObjectKey } from '../../proxier/types.ts';
import type { ChainContent, Objects, SetContent } from './layout.ts';

/** Owner of what is there without any service. Comes before every service. */
export const STATIC = '';

export type Owner = ObjectKey | typeof STATIC;

/** What can be wanted as one. */
export type Item =
  | { readonly kind: 'set'; readonly set: SetObject }
  | { readonly kind: 'chain'; readonly content: ChainContent }
  | { readonly kind: 'element'; readonly set: SetObject; readonly element: SetElement }
  /** Elements that begin with the same `fields` fields, and have one owner for that. */
  | {
      readonly kind: 'elements';
      readonly set: SetObject;
      readonly fields: number;
      readonly elements: readonly SetElement[];
    };

/** Says which thing it is, of all in a table, whatever is in it. */
export type ItemKey = string;

/** The key of an element among those of its set, or the first fields of it. */
export function elementText({ key }: Pick<SetElement, 'key'>, fields: number = key.length): string {
  return (fields < key.length ? key.slice(0, fields) : key).join(' . ');
}

/** Everything an owner wants, in the order of creation. */
export function itemsOf(objects: Objects): Map<ItemKey, Item> {
  const items = new Map<ItemKey, Item>();
  eachItem(objects, (key, item) => items.set(key, item));
  return items;
}

/** Gives everything an owner wants to `take`, in the order of creation; keeps nothing. */
export function eachItem({ sets, chains, elements }: Objects, take: (key: ItemKey, item: Item) => void): void {
  for (const set of sets) take(`s ${set.name}`, { kind: 'set', set });
  for (const content of chains) take(`c ${content.chain.name}`, { kind: 'chain', content });
  for (const content of elements) eachElement(content, take);
}

function eachElement({ set, elements, claimFields }: SetContent, take: (key: ItemKey, item: Item) => void): void {
  const keyOf = (text: string): ItemKey => `e ${set.name} ${text}`;
  if (claimFields === undefined) {
    for (const element of elements) take(keyOf(elementText(element)), { kind: 'element', set, element });
    return;
  }
  const groups = new Map<ItemKey, SetElement[]>();
  for (const element of elements) {
    const key = keyOf(elementText(element, claimFields));
    const group = groups.get(key);
    if (group !== undefined) group.push(element);
    else groups.set(key, [element]);
  }
  for (const [key, group] of groups) take(key, { kind: 'elements', set, fields: claimFields, elements: group });
}

/** True if two things of one key are the same in every respect. */
export function sameItem(a: Item, b: Item): boolean {
  return a === b || textOf(a) === textOf(b);
}

function textOf(item: Item): string {
  switch (item.kind) {
    case 'set':
      return JSON.stringify(item.set);
    case 'chain':
      return JSON.stringify(item.content);
    case 'element':
      return contentText(item.element);
    case 'elements':
      return item.elements.map((element) => `${elementText(element)}\n${contentText(element)}`).join('\n');
  }
}

/** What is in an element besides its key, whoever wrote it. */
export function contentText({ data, comment }: SetElement): string {
  const value =
    data === undefined ? '' : 'kind' in data ? `${data.kind} ${'chain' in data ? data.chain : ''}` : data.join(' . ');
  return `${value}\n${comment ?? ''}`;
}

/** Owners by thing. */
export class Claims {
  /** One owner, or several: by far most things have one. A chain that every service uses may have thousands. */
  readonly #owners = new Map<ItemKey, Owner | Set<Owner>>();

  countOf(key: ItemKey): number {
    const owners = this.#owners.get(key);
    return owners === undefined ? 0 : typeof owners === 'string' ? 1 : owners.size;
  }

  /** Owners of a thing, in no order. Costs as many as they are. */
  ownersOf(key: ItemKey): readonly Owner[] {
    const owners = this.#owners.get(key);
    if (owners === undefined) return [];
    return typeof owners === 'string' ? [owners] : [...owners];
  }

  /** @returns True if nobody wanted it before. */
  add(key: ItemKey, owner: Owner): boolean {
    const owners = this.#owners.get(key);
    if (owners === undefined) this.#owners.set(key, owner);
    else if (typeof owners === 'object') owners.add(owner);
    else if (owners !== owner) this.#owners.set(key, new Set([owners, owner]));
    return owners === undefined;
  }

  remove(key: ItemKey, owner: Owner): void {
    const owners = this.#owners.get(key);
    if (owners === owner) this.#owners.delete(key);
    if (typeof owners !== 'object') return;
    owners.delete(owner);
    const [only] = owners;
    if (owners.size === 1 && only !== undefined) this.#owners.set(key, only);
  }
}
