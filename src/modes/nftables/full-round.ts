/**
 * One attempt of a full sync: what the table that was found lacks of everything wanted, transaction by transaction. Pure but for what
 * it remembers of the services it rendered.
 *
 *     little to do:  everything in one transaction
 *     much to do:    new static things ─► services, some at a time ─► changed static things, in one ─► what nobody wants
 *
 * A service is whole after the transaction it is in; until the static rules change, packets take the way they took before, so
 * that another layout, or one of kube-proxy's tables, is replaced without a gap.
 *
 * @module
 */

import type { Command, SetObject } from '../../netlink/nftables/transaction.ts';
import { compareText, type ObjectKey, type ServicePlan } from '../../proxier/types.ts';
import type { Refusal } from '../mode.ts';
import { TABLE_COMMENT } from './base-chains.ts';
import { Claims, eachItem, type Item, type Owner, STATIC } from './claims.ts';
import type { FoundTable } from './found-table.ts';
import type { Layout, Objects } from './layout.ts';
import { commandsOf, type Operation, type OwnedCommand } from './operations.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';

/** One transaction. */
export interface Batch {
  readonly commands: readonly OwnedCommand[];
  /** It only takes away what nothing refers to. */
  readonly isCleanup: boolean;
}

/** How the table is written: into what there is, or anew in one transaction, whatever it was before. */
export type Start = 'as found' | 'anew';

const ADD_TABLE: Command = { verb: 'add', object: 'table', comment: TABLE_COMMENT };
const DELETE_TABLE: Command = { verb: 'delete', object: 'table' };

/** Things taken away in one transaction. */
const CLEANUP_OPERATIONS = 1000;

export class FullRound {
  readonly #layout: Layout;
  readonly #options: NftablesOptions;
  readonly #facts: NftablesFacts;
  readonly #found: FoundTable;
  readonly statics: Objects;
  readonly applied = new Map<ObjectKey, ServicePlan>();
  readonly claims = new Claims();
  /** Sets that are wanted. */
  readonly #sets = new Map<string, SetObject>();

  constructor(
    { layout, ...options }: NftablesOptions & { readonly layout: Layout },
    facts: NftablesFacts,
    found: FoundTable,
  ) {
    this.#layout = layout;
    this.#options = options;
    this.#facts = facts;
    this.#found = found;
    this.statics = layout.renderStatic(options, facts);
  }

  /** Renders service by service, in the order of their keys, as they are asked for. */
  *render(
    services: ReadonlyMap<ObjectKey, ServicePlan>,
    choose: (key: ObjectKey, plan: ServicePlan) => ServicePlan | undefined,
    refuse: (refusal: Refusal) => void,
  ): Generator<readonly [ObjectKey, Objects]> {
    for (const key of [...services.keys()].sort(compareText)) {
      const plan = services.get(key);
      if (plan === undefined) continue;
      for (let chosen = choose(key, plan); chosen !== undefined; chosen = choose(key, plan)) {
        let objects: Objects;
        try {
          objects = this.#layout.renderService(chosen, this.#options, this.#facts);
        } catch (error) {
          refuse(renderRefusal(key, error));
          continue;
        }
        this.applied.set(key, chosen);
        yield [key, objects];
        break;
      }
    }
  }

  /**
   * Transactions in order; those without commands are left out.
   *
   * @param size - Services in one.
   * @throws {IncompatibleError} If the table cannot become what it must be.
   */
  *batches(services: Iterable<readonly [ObjectKey, Objects]>, size: number, start: Start): Generator<Batch> {
    const first = start === 'anew' ? [ADD_TABLE, DELETE_TABLE, ADD_TABLE] : this.#found.exists ? [] : [ADD_TABLE];
    let head = first.map((command) => ({ owner: STATIC, command }) satisfies OwnedCommand);
    const batch = (operations: readonly Operation[], isCleanup = false): Batch => {
      const commands = [...head, ...commandsOf(operations)];
      head = [];
      return { commands, isCleanup };
    };
    const { early, late } = this.#staticOperations();
    let pending = early;
    let count = 0;
    let isChunked = false;
    for (const [key, objects] of services) {
      const operations = this.#operationsOf(key, objects);
      if (operations.length === 0) continue;
      pending.push(...operations);
      if (++count < size || start === 'anew') continue;
      yield batch(pending);
      pending = [];
      count = 0;
      isChunked = true;
    }
    const leftovers = this.#found.leftovers((name) => this.#sets.get(name));
    const isMuch = leftovers.reduce((sum, step) => sum + step.length, 0) > CLEANUP_OPERATIONS;
    if (!isChunked && !isMuch) {
      yield* nonEmpty(batch([...pending, ...late, ...leftovers.flat()]));
      return;
    }
    yield* nonEmpty(batch(pending));
    yield* nonEmpty(batch(late));
    for (const step of leftovers) {
      for (let at = 0; at < step.length; at += CLEANUP_OPERATIONS) {
        yield* nonEmpty(batch(step.slice(at, at + CLEANUP_OPERATIONS), true));
      }
    }
  }

  /** New things that packets do not meet yet, and all others. In a table that packets do not meet, everything is new. */
  #staticOperations(): { readonly early: Operation[]; readonly late: Operation[] } {
    const operations = this.#operationsOf(STATIC, this.statics);
    if (this.#found.isIdle) return { early: operations, late: [] };
    const isNew = (operation: Operation) =>
      operation.kind === 'addSet' ||
      (operation.kind === 'addChain' && operation.content.chain.base === undefined) ||
      operation.kind === 'addElement';
    return { early: operations.filter(isNew), late: operations.filter((operation) => !isNew(operation)) };
  }

  /** What is to be done for those things of an owner that nobody before it has. */
  #operationsOf(owner: Owner, objects: Objects): Operation[] {
    const operations: Operation[] = [];
    eachItem(objects, (key, item) => {
      if (this.claims.add(key, owner)) operations.push(...this.#take(item, owner));
    });
    return operations;
  }

  #take(item: Item, owner: Owner): readonly Operation[] {
    if (item.kind === 'set') this.#sets.set(item.set.name, item.set);
    return this.#found.operationsFor(item, owner);
  }
}

function nonEmpty(batch: Batch): readonly Batch[] {
  return batch.commands.length > 0 ? [batch] : [];
}

/** A plan that cannot be rendered is refused like one whose objects are. Rethrows what is not about the plan. */
export function renderRefusal(service: ObjectKey, error: unknown): Refusal {
  if (!(error instanceof RangeError || error instanceof SyntaxError)) throw error;
  return { service, rule: '', reason: error.message };
}
