/**
 * Everything there is to be, as commands that make it out of nothing: for people and tests. Pure.
 *
 * @module
 */

import type { Command, SetElement } from '../../netlink/nftables/transaction.ts';
import { compareText, type Family, type ServicePlan } from '../../proxier/types.ts';
import { TABLE_COMMENT } from './base-chains.ts';
import type { Layout, Objects, SetContent } from './layout.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';

/** What of one service is in the kernel when all services are. */
export interface ServiceCommands {
  readonly service: ServicePlan['service'];
  readonly commands: readonly Command[];
}

/** Commands in an order in which nothing is named before it is there. */
export interface Creation {
  readonly statics: readonly Command[];
  /** In the order of the services' keys. What several services want is with the first of them. */
  readonly services: readonly ServiceCommands[];
}

/**
 * Renders a whole table.
 *
 * @throws {RangeError} If a plan cannot be expressed.
 */
export function createAll(
  layout: Layout,
  plans: Iterable<ServicePlan>,
  options: NftablesOptions,
  facts: NftablesFacts,
): Creation {
  const sorted = [...plans].sort((a, b) => compareText(a.service, b.service));
  const taken = new Taken();
  return {
    statics: [
      { verb: 'add', object: 'table', comment: TABLE_COMMENT },
      ...taken.create(layout.renderStatic(options, facts)),
    ],
    services: sorted.map((plan) => ({
      service: plan.service,
      commands: taken.create(layout.renderService(plan, options, facts)),
    })),
  };
}

/** The word of nft(8) for a family. */
export function nftFamily(family: Family): 'ip' | 'ip6' {
  return family === 'IPv4' ? 'ip' : 'ip6';
}

/** What is there already. */
class Taken {
  readonly #sets = new Set<string>();
  readonly #chains = new Set<string>();
  /** Set name → the fields of a key that say whose an element is → whose. */
  readonly #claims = new Map<string, Map<string, Objects>>();

  /** Commands for those of the objects that are not there yet. */
  create(objects: Objects): Command[] {
    const { sets, chains, elements } = objects;
    const newChains = chains.filter(({ chain }) => isNew(this.#chains, chain.name));
    return [
      ...sets.filter((set) => isNew(this.#sets, set.name)).map((set): Command => ({ verb: 'add', object: 'set', set })),
      ...newChains.map(({ chain }): Command => ({ verb: 'add', object: 'chain', chain })),
      ...newChains.flatMap(({ rules }) => rules.map((rule): Command => ({ verb: 'add', object: 'rule', rule }))),
      ...elements.flatMap((content) => this.#createElements(content, objects)),
    ];
  }

  #createElements({ set, elements, claimFields = set.key.length }: SetContent, owner: Objects): Command[] {
    let claims = this.#claims.get(set.name);
    if (claims === undefined) {
      claims = new Map();
      this.#claims.set(set.name, claims);
    }
    const owned: SetElement[] = [];
    for (const element of elements) {
      const claim = element.key.slice(0, claimFields).join(' . ');
      const first = claims.get(claim) ?? owner;
      claims.set(claim, first);
      if (first === owner) owned.push(element);
    }
    return owned.length === 0 ? [] : [{ verb: 'add', object: 'element', set, elements: owned }];
  }
}

/** Adds `name`. @returns False if it was there. */
function isNew(names: Set<string>, name: string): boolean {
  if (names.has(name)) return false;
  names.add(name);
  return true;
}
