/**
 * What can be done with the nf_tables of one network namespace: change them whole or not at all, read one table, and hear of
 * changes. `kernel-nftables.ts` does it, `fake-nftables.ts` plays it in memory.
 *
 * Nothing here waits: the kernel answers within the call. A commit of tens of thousands of objects takes seconds in which
 * nothing else runs; who has many cuts them into several.
 *
 * @module
 */

import type { ChainObject, NftFamily, SetElement, SetObject, Transaction } from './transaction.ts';

/** A command the kernel would not do. What depended on it (a rule in a chain that was refused) is refused, too. */
export interface RefusedCommand {
  /** Index of the transaction in the commit. */
  readonly transaction: number;
  /** Index in its commands. */
  readonly command: number;
  /** Index in the elements of the command, if it is known which of them is at fault. */
  readonly element?: number;
  /** Name of the errno, for example `EEXIST`. */
  readonly errno: string;
  /** Text of the kernel, where it has one. */
  readonly message?: string;
}

export type CommitResult =
  /** All of it is in force. `generation` is the one read right after it. */
  | { readonly kind: 'committed'; readonly generation: number }
  /** Nothing has changed. */
  | { readonly kind: 'refused'; readonly refused: readonly RefusedCommand[] }
  /** Nothing has changed: the ruleset is not of the generation asked for any more. */
  | { readonly kind: 'outdated' };

export interface CommitOptions {
  /** Only if the ruleset of the namespace (any table, any family) still is of this generation. */
  readonly onlyIfGeneration?: number;
}

/** A chain as the kernel has it. */
export interface TableChain {
  /** Undefined: one that no `ChainObject` describes (another hook, another policy). */
  readonly chain: ChainObject | undefined;
  /** In order; each comparable with `ruleKey()` of a rule. */
  readonly ruleKeys: readonly string[];
}

/** One table, as it was at one moment. */
export interface TableContent {
  readonly generation: number;
  readonly comment: string | undefined;
  readonly chains: ReadonlyMap<string, TableChain>;
  /** By name; anonymous ones left out. Undefined: one that no `SetObject` describes. Compare with `sameSet()`. */
  readonly sets: ReadonlyMap<string, SetObject | undefined>;
  /** Elements of the sets that were asked for, by name. */
  readonly elements: ReadonlyMap<string, readonly SetElement[]>;
}

export interface ReadOptions {
  /** Whether the elements of this set are wanted. Without it, none are. */
  readonly elementsOf?: (set: SetObject) => boolean;
}

export interface ElementList {
  readonly generation: number;
  readonly elements: readonly SetElement[];
}

/** Someone changed a table. */
export interface TableChange {
  readonly family: NftFamily;
  readonly table: string;
  /** By a commit of this very `Nftables`. */
  readonly own: boolean;
}

/** What was heard since the last time. */
export interface Notices {
  /** Each table and writer once, of the families there are words for. */
  readonly changes: readonly TableChange[];
  /** The last generation heard of; undefined if none was. */
  readonly generation: number | undefined;
  /** True: the queue was full and something was lost, anything may have changed. */
  readonly overrun: boolean;
}

/** Hears of every commit in the namespace from its creation on. */
export interface NftWatcher {
  /** Empties the queue; does not wait. */
  drain(): Notices;
  close(): void;
}

/** @throws {NetlinkError} From every method, if there is no talking to the kernel or it refuses the caller (EPERM). */
export interface Nftables {
  /**
   * Does all commands of all transactions in order, or none. Transactions of several families and tables may share a commit. A command
   * that says what cannot be (an address of the other family, a name too long) is refused with EINVAL before the kernel sees it.
   */
  commit(transactions: readonly Transaction[], options?: CommitOptions): CommitResult;
  /** Takes microseconds, however large the ruleset is. False as well for a kernel without nf_tables, or without the family. */
  hasTable(family: NftFamily, table: string): boolean;
  /** As `hasTable`. */
  hasChain(family: NftFamily, table: string, chain: string): boolean;
  /** @returns Undefined if there is no such table. */
  readTable(family: NftFamily, table: string, options?: ReadOptions): TableContent | undefined;
  /** The elements of one set. @throws {NetlinkError} KERNEL ENOENT if there is none of this name. */
  readElements(family: NftFamily, table: string, set: SetObject): ElementList;
  /** Of the whole ruleset of the namespace; each commit that carries something, by anyone, makes the next one. */
  generation(): number;
  watch(): NftWatcher;
  close(): void;
}
