/**
 * The nf_tables of a namespace in memory: refuses what the kernel refuses, with the same errno, and does a commit whole or not at all.
 *
 * @module
 */

import { kernelFailure } from '../ack.ts';
import { NetlinkError } from '../error.ts';
import { encodeBatch } from './encode.ts';
import { FakeTable } from './fake-table.ts';
import type {
  CommitOptions,
  CommitResult,
  ElementList,
  Nftables,
  NftWatcher,
  ReadOptions,
  RefusedCommand,
  TableChange,
  TableContent,
} from './nftables.ts';
import { ruleKey } from './rule-key.ts';
import type { Command, NftFamily, SetElement, SetObject, Transaction } from './transaction.ts';

const ENOENT = 2;

interface Queue {
  changes: Map<string, TableChange>;
  generation: number | undefined;
  overrun: boolean;
}

export class FakeNftables implements Nftables {
  /** Every commit so far, those refused, too. */
  readonly commits: (readonly Transaction[])[] = [];
  /** How often a table was read. */
  reads = 0;
  /** How often one set was read alone. */
  elementReads = 0;
  /** Every call fails with this while it is set. */
  failure: NetlinkError | undefined;
  /** Commands the kernel is to refuse, by name of the errno. */
  refuses: (command: Command) => string | undefined = () => undefined;
  readonly #tables = new Map<string, FakeTable>();
  readonly #queues = new Set<Queue>();
  #generation = 1;

  commit(transactions: readonly Transaction[], options: CommitOptions = {}): CommitResult {
    this.commits.push(transactions);
    return this.#commit(transactions, options, true);
  }

  /** A commit by another program. */
  commitByOthers(transactions: readonly Transaction[]): CommitResult {
    return this.#commit(transactions, {}, false);
  }

  /** Every watcher loses what it has not heard yet. */
  overrun(): void {
    for (const queue of this.#queues) {
      queue.changes.clear();
      queue.overrun = true;
    }
  }

  hasTable(family: NftFamily, table: string): boolean {
    this.#check();
    return this.#tables.has(`${family} ${table}`);
  }

  hasChain(family: NftFamily, table: string, chain: string): boolean {
    this.#check();
    return this.#tables.get(`${family} ${table}`)?.chains.has(chain) === true;
  }

  readTable(family: NftFamily, table: string, { elementsOf }: ReadOptions = {}): TableContent | undefined {
    this.#check();
    this.reads++;
    const there = this.#tables.get(`${family} ${table}`);
    if (there === undefined) return undefined;
    const elements = new Map<string, readonly SetElement[]>();
    for (const [name, { set }] of there.sets) {
      if (elementsOf?.(set) === true) elements.set(name, this.#elements(there, name));
    }
    return {
      generation: this.#generation,
      comment: there.comment,
      chains: new Map(
        [...there.chains].map(([name, { chain, rules }]) => [
          name,
          { chain, ruleKeys: rules.map((rule) => ruleKey(rule, family)) },
        ]),
      ),
      sets: new Map([...there.sets].map(([name, { set }]) => [name, set])),
      elements,
    };
  }

  readElements(family: NftFamily, table: string, set: SetObject): ElementList {
    this.#check();
    this.elementReads++;
    const there = this.#tables.get(`${family} ${table}`);
    if (there?.sets.has(set.name) !== true) {
      throw new NetlinkError(`read the table "${table}"`, kernelFailure({ errno: ENOENT, text: undefined }));
    }
    return { generation: this.#generation, elements: this.#elements(there, set.name) };
  }

  generation(): number {
    this.#check();
    return this.#generation;
  }

  watch(): NftWatcher {
    this.#check();
    const queue: Queue = { changes: new Map(), generation: undefined, overrun: false };
    this.#queues.add(queue);
    return {
      drain() {
        const { changes, generation, overrun } = queue;
        Object.assign(queue, { changes: new Map(), generation: undefined, overrun: false });
        return { changes: [...changes.values()], generation, overrun };
      },
      close: () => {
        this.#queues.delete(queue);
      },
    };
  }

  close(): void {}

  #check(): void {
    if (this.failure !== undefined) throw this.failure;
  }

  #elements(table: FakeTable, name: string): SetElement[] {
    const there = table.sets.get(name);
    if (there === undefined) return [];
    const { set, elements } = there;
    if (!set.flags?.includes('timeout')) return [...elements.values()];
    // Time stands still here. A timeout is told where it is not that of the set.
    return [...elements.values()].map(({ timeoutMs, ...element }) => {
      const own = timeoutMs === undefined || timeoutMs === (set.timeoutSeconds ?? 0) * 1000 ? {} : { timeoutMs };
      const expiresMs = element.expiresMs ?? timeoutMs;
      return { ...element, ...own, ...(expiresMs === undefined ? {} : { expiresMs }) };
    });
  }

  #commit(transactions: readonly Transaction[], { onlyIfGeneration }: CommitOptions, own: boolean): CommitResult {
    this.#check();
    const { unencodable } = encodeBatch(transactions);
    if (unencodable.length > 0) return { kind: 'refused', refused: unencodable };
    const hasCommands = transactions.some(({ commands }) => commands.length > 0);
    if (hasCommands && onlyIfGeneration !== undefined && onlyIfGeneration !== this.#generation)
      return { kind: 'outdated' };
    const attempt = new Attempt(this.#tables);
    const refused = attempt.run(transactions, this.refuses);
    if (refused.length > 0) {
      attempt.takeBack();
      return { kind: 'refused', refused };
    }
    attempt.keep();
    if (attempt.changed.size > 0) this.#announce(attempt.changed, own);
    return { kind: 'committed', generation: this.#generation };
  }

  #announce(changed: ReadonlyMap<string, { readonly family: NftFamily; readonly table: string }>, own: boolean): void {
    this.#generation++;
    for (const queue of this.#queues) {
      queue.generation = this.#generation;
      for (const [key, { family, table }] of changed) queue.changes.set(`${key} ${own}`, { family, table, own });
    }
  }
}

/** One commit on its way. */
class Attempt {
  readonly changed = new Map<string, { readonly family: NftFamily; readonly table: string }>();
  readonly #tables: Map<string, FakeTable>;
  readonly #before: ReadonlyMap<string, FakeTable>;
  readonly #touched = new Set<FakeTable>();

  constructor(tables: Map<string, FakeTable>) {
    this.#tables = tables;
    this.#before = new Map(tables);
  }

  keep(): void {
    for (const table of this.#touched) table.keep();
  }

  takeBack(): void {
    for (const table of this.#touched) table.takeBack();
    this.#tables.clear();
    for (const [key, table] of this.#before) this.#tables.set(key, table);
  }

  /** @returns What was refused; the others are done, as far as they can be without those. */
  run(transactions: readonly Transaction[], refuses: (command: Command) => string | undefined): RefusedCommand[] {
    const refused: RefusedCommand[] = [];
    for (const [index, transaction] of transactions.entries()) {
      for (const [i, command] of transaction.commands.entries()) {
        const errno = refuses(command);
        const outcome =
          errno === undefined ? this.#do(transaction, command) : ({ done: false, errno } as const satisfies object);
        if (outcome.done) {
          if (outcome.changed) this.changed.set(keyOf(transaction), transaction);
          continue;
        }
        const element = 'element' in outcome ? outcome.element : undefined;
        const place = { transaction: index, command: i, errno: outcome.errno };
        refused.push(element === undefined ? place : { ...place, element });
      }
    }
    return refused;
  }

  #do(transaction: Transaction, command: Command) {
    const key = keyOf(transaction);
    const table = this.#tables.get(key);
    if (command.object === 'table' && command.verb === 'add') {
      if (table === undefined) this.#tables.set(key, new FakeTable(transaction.family, command.comment));
      return { done: true, changed: table === undefined } as const;
    }
    if (table === undefined) return { done: false, errno: 'ENOENT' } as const;
    if (command.object === 'table') {
      this.#tables.delete(key);
      return { done: true, changed: true } as const;
    }
    this.#touched.add(table);
    return table.do(command);
  }
}

function keyOf({ family, table }: Transaction): string {
  return `${family} ${table}`;
}
