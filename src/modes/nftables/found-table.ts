/**
 * The table as it was found, compared thing by thing with what is wanted. What nobody asks for is left over. Pure.
 *
 * @module
 */

import type { TableContent } from '../../netlink/nftables/nftables.ts';
import { ruleKey } from '../../netlink/nftables/rule-key.ts';
import { sameSetKind } from '../../netlink/nftables/same-set.ts';
import type { NftFamily, SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import { elementText, type Item, type Owner, STATIC } from './claims.ts';
import { creation, replaceElements } from './delta.ts';
import type { Operation } from './operations.ts';

/** Something has our name and is of another kind, which no operation changes: the table must be made anew. */
export class IncompatibleError extends Error {
  override readonly name = 'IncompatibleError';
}

export class FoundTable {
  /** There is one. */
  readonly exists: boolean;
  /** Packets meet nothing of it: no hook of the kernel leads here. */
  readonly isIdle: boolean;
  readonly #family: NftFamily;
  /** What nobody has asked for yet. */
  readonly #chains: Map<string, { readonly base: string; readonly ruleKeys: readonly string[] }>;
  readonly #sets: Map<string, SetObject | undefined>;
  readonly #elements = new Map<string, Map<string, SetElement>>();
  readonly #beginnings = new Map<string, ReadonlyMap<string, readonly SetElement[]>>();

  /** @param content - Undefined: there is no table. */
  constructor(family: NftFamily, content: TableContent | undefined) {
    this.#family = family;
    this.exists = content !== undefined;
    const chains = [...(content?.chains ?? [])];
    this.#chains = new Map(
      chains.map(([name, { chain, ruleKeys }]) => [name, { base: chain ? baseText(chain.base) : '?', ruleKeys }]),
    );
    this.isIdle = [...this.#chains.values()].every(({ base }) => base === baseText(undefined));
    this.#sets = new Map(content?.sets);
    for (const [name, elements] of content?.elements ?? []) {
      this.#elements.set(name, new Map(elements.map((element) => [elementText(element), element])));
    }
  }

  /**
   * What is to be done for one thing that is wanted. To be asked once for each.
   *
   * @throws {IncompatibleError}
   */
  operationsFor(item: Item, owner: Owner): readonly Operation[] {
    switch (item.kind) {
      case 'set': {
        const { set } = item;
        if (!this.#sets.has(set.name)) return creation(item, owner);
        const found = this.#sets.get(set.name);
        this.#sets.delete(set.name);
        // A comment stays what it was, whatever the kernel is told.
        if (found !== undefined && sameSetKind(found, set)) {
          return found.timeoutSeconds === set.timeoutSeconds ? [] : creation(item, owner);
        }
        throw new IncompatibleError(`Cannot use set "${set.name}" as it is: it must be made anew`);
      }
      case 'chain': {
        const { chain, rules } = item.content;
        const found = this.#chains.get(chain.name);
        if (found === undefined) return creation(item, owner);
        this.#chains.delete(chain.name);
        if (found.base !== baseText(chain.base)) {
          throw new IncompatibleError(`Cannot use chain "${chain.name}" as it is: it must be made anew`);
        }
        const keys = rules.map((rule) => ruleKey(rule, this.#family));
        const isSame = keys.length === found.ruleKeys.length && keys.every((key, i) => key === found.ruleKeys[i]);
        return isSame ? [] : [{ owner, kind: 'rewriteChain', content: item.content }];
      }
      case 'element': {
        const { set, element } = item;
        const text = elementText(element);
        const elements = this.#elements.get(set.name);
        const found = elements?.get(text);
        elements?.delete(text);
        return replaceElements(found ? [found] : [], [element], set, owner);
      }
      case 'elements': {
        const { set, fields } = item;
        const beginnings = this.#elementsBy(set.name, fields);
        const found = beginnings.get(item.elements[0] ? elementText(item.elements[0], fields) : '') ?? [];
        for (const element of found) this.#elements.get(set.name)?.delete(elementText(element));
        return replaceElements(found, item.elements, set, owner);
      }
    }
  }

  /** Elements of a set by their first fields. */
  #elementsBy(set: string, fields: number): ReadonlyMap<string, readonly SetElement[]> {
    let found = this.#beginnings.get(set);
    if (found === undefined) {
      found = Map.groupBy(this.#elements.get(set)?.values() ?? [], (element) => elementText(element, fields));
      this.#beginnings.set(set, found);
    }
    return found;
  }

  /**
   * What takes away all that nobody asked for, step by step: within a step nothing depends on order.
   *
   * @param setOf - A set that stays, by name.
   */
  leftovers(setOf: (name: string) => SetObject | undefined): readonly (readonly Operation[])[] {
    const owner = STATIC;
    const elements: Operation[] = [];
    for (const [name, left] of this.#elements) {
      const set = setOf(name);
      // Those of a set that goes go with it.
      if (set === undefined) continue;
      for (const element of left.values()) elements.push({ owner, kind: 'deleteElement', set, element });
    }
    const chains = [...this.#chains.keys()];
    return [
      elements,
      chains.map((name) => ({ owner, kind: 'emptyChain', name })),
      [...this.#sets].map(([name, set]) => ({ owner, kind: 'deleteSet', set: set ?? { name } })),
      chains.map((name) => ({ owner, kind: 'deleteChain', name })),
    ];
  }
}

function baseText(
  base: { readonly type: string; readonly hook: string; readonly priority: number } | undefined,
): string {
  return base === undefined ? '' : `${base.type} ${base.hook} ${base.priority}`;
}
