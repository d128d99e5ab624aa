/**
 * What is to be done with things of the table, and the order in which the kernel takes it: what is named is there before, and what
 * goes is named by nothing any more. Pure.
 *
 * @module
 */

import type { Command, SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { Owner } from './claims.ts';
import type { ChainContent } from './layout.ts';

/** One thing to do, and on whose behalf: whoever is to blame if the kernel refuses it. */
export type Operation = { readonly owner: Owner } & (
  | { readonly kind: 'addSet'; readonly set: SetObject }
  | { readonly kind: 'deleteSet'; readonly set: Pick<SetObject, 'name' | 'data'> }
  | { readonly kind: 'addChain'; readonly content: ChainContent }
  /** The chain stays, its rules are replaced. */
  | { readonly kind: 'rewriteChain'; readonly content: ChainContent }
  | { readonly kind: 'emptyChain'; readonly name: string }
  | { readonly kind: 'deleteChain'; readonly name: string }
  | { readonly kind: 'addElement'; readonly set: SetObject; readonly element: SetElement }
  | { readonly kind: 'deleteElement'; readonly set: SetObject; readonly element: SetElement }
);

export interface OwnedCommand {
  readonly owner: Owner;
  readonly command: Command;
}

/**
 * Puts operations in order.
 *
 *     new sets → new chains → changed and old chains emptied → rules → elements out → elements in → old sets → old chains
 *
 * All of one transaction is in force at once, so the order matters to the kernel's checks and not to packets. Emptying comes before
 * rules because a set written in a rule has a name, which must be free; elements go before others come because ranges must not
 * overlap; sets go before chains because what is in them may lead to these.
 */
export function commandsOf(operations: readonly Operation[]): OwnedCommand[] {
  const newSets: OwnedCommand[] = [];
  const newChains: OwnedCommand[] = [];
  const flushed: OwnedCommand[] = [];
  const rules: OwnedCommand[] = [];
  const out = new ElementCommands('delete');
  const into = new ElementCommands('add');
  const oldChains: OwnedCommand[] = [];
  const oldSets: OwnedCommand[] = [];
  const addRules = (owner: Owner, content: ChainContent) => {
    for (const rule of content.rules) rules.push({ owner, command: { verb: 'add', object: 'rule', rule } });
  };
  const flush = (owner: Owner, name: string) =>
    flushed.push({ owner, command: { verb: 'flush', object: 'chain', name } });
  for (const operation of operations) {
    const { owner } = operation;
    switch (operation.kind) {
      case 'addSet':
        newSets.push({ owner, command: { verb: 'add', object: 'set', set: operation.set } });
        break;
      case 'deleteSet': {
        const { name, data } = operation.set;
        oldSets.push({ owner, command: { verb: 'delete', object: 'set', name, isMap: data !== undefined } });
        break;
      }
      case 'addChain':
        newChains.push({ owner, command: { verb: 'add', object: 'chain', chain: operation.content.chain } });
        addRules(owner, operation.content);
        break;
      case 'rewriteChain':
        flush(owner, operation.content.chain.name);
        addRules(owner, operation.content);
        break;
      case 'emptyChain':
        flush(owner, operation.name);
        break;
      case 'deleteChain':
        flush(owner, operation.name);
        oldChains.push({ owner, command: { verb: 'delete', object: 'chain', name: operation.name } });
        break;
      case 'addElement':
        into.push(owner, operation.set, operation.element);
        break;
      case 'deleteElement':
        out.push(owner, operation.set, operation.element);
        break;
    }
  }
  return [...newSets, ...newChains, ...flushed, ...rules, ...out.commands, ...into.commands, ...oldSets, ...oldChains];
}

/** Elements of one set and owner that come one after the other make one command. */
class ElementCommands {
  readonly commands: OwnedCommand[] = [];
  readonly #verb: 'add' | 'delete';
  #last: { readonly owner: Owner; readonly set: SetObject; readonly elements: SetElement[] } | undefined;

  constructor(verb: 'add' | 'delete') {
    this.#verb = verb;
  }

  push(owner: Owner, set: SetObject, element: SetElement): void {
    if (this.#last?.owner === owner && this.#last.set.name === set.name) {
      this.#last.elements.push(element);
      return;
    }
    const elements = [element];
    this.#last = { owner, set, elements };
    this.commands.push({ owner, command: { verb: this.#verb, object: 'element', set, elements } });
  }
}
