/**
 * What a layout is: how plans become objects of the table. Both layouts live in the same table with the same base chains, one at a
 * time, and are pure; who brings the kernel in line does not know which one it has.
 *
 * @module
 */

import type { ChainObject, RuleObject, SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { ServicePlan } from '../../proxier/types.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';

export type LayoutName = 'chains' | 'maps';

/** A chain and all that is in it. */
export interface ChainContent {
  readonly chain: ChainObject;
  /** Each of this chain, in order. */
  readonly rules: readonly RuleObject[];
}

/** Elements of one set. */
export interface SetContent {
  readonly set: SetObject;
  readonly elements: readonly SetElement[];
  /**
   * How many fields of the key say who has an element; default: all. With fewer, all elements that begin with the same fields are
   * of one owner: ranges of two of them may overlap, and the kernel takes no overlaps.
   */
  readonly claimFields?: number;
}

/** Objects someone wants: the static part, or one service. In the order in which they are created. */
export interface Objects {
  /**
   * Chains. Two owners may want a chain of one name if they want the same in it (a chain per number of endpoints): it exists as
   * long as one of them does.
   */
  readonly chains: readonly ChainContent[];
  readonly sets: readonly SetObject[];
  /**
   * At most one element of a key and set within one owner. If several owners want the same key of a set, the first of them in the
   * order of `compareText` of their keys has it.
   */
  readonly elements: readonly SetContent[];
}

/** What packets themselves write into sets of the table, and what it is about. */
export interface Learned {
  /** Sets packets write to. What they wrote is nobody's, and no full sync takes it out. */
  readonly sets: readonly SetObject[];
  /** Names of sets; where an element of one of these goes, entries about it are stale. */
  readonly about: ReadonlySet<string>;
  /** Tells the entries of one of `sets` that are about something gone. */
  staleIn(set: SetObject, gone: ReadonlyMap<string, readonly SetElement[]>): (entry: SetElement) => boolean;
}

export interface Layout {
  readonly name: LayoutName;
  /** Undefined: packets write only to sets that go with what they are about. */
  readonly learned?: Learned;
  /** Everything that is there without any service: table comment aside, base chains and shared sets too. */
  renderStatic(options: NftablesOptions, facts: NftablesFacts): Objects;
  /** @throws {RangeError} If the plan cannot be expressed; the service is left out and this is the reason. */
  renderService(plan: ServicePlan, options: NftablesOptions, facts: NftablesFacts): Objects;
}
