/**
 * Writes to the table of each family, and notices when somebody else does: the kernel announces every commit to a socket, which is
 * emptied a few times a second. Both families share one, since both hear everything.
 *
 * The kernel counts commits. While all that were counted are ours, nothing can have been missed: that is what is looked at when
 * announcements were lost, which our own large commits may bring about, and at the start, when nobody listened yet.
 *
 * @module
 */

import type { CommitResult, Nftables, NftWatcher, TableContent } from '../../netlink/nftables/nftables.ts';
import type { Command, NftFamily, SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { Clock } from '../../sys/clock.ts';
import { TABLE } from './base-chains.ts';

/** Time between two looks: half of what a repair may take to begin. */
const POLL_MS = 250;
/** Somebody who writes again and again is answered so often at once, and then once in a while. */
const REPAIRS_AT_ONCE = 10;
const REPAIR_PERIOD_MS = 5_000;

interface Listener {
  readonly onLost: (reason: string) => void;
  /** Repairs that may be asked for, with fractions, at `atMs`. */
  repairs: number;
  atMs: number;
}

export class TableWatch {
  readonly #nftables: Nftables;
  readonly #clock: Clock;
  #watcher: NftWatcher | undefined;
  /** What happened up to this generation is ours, or was heard. Undefined: no table was read yet. */
  #accounted: number | undefined;
  #hasBegun = false;
  #polledMs = Number.NEGATIVE_INFINITY;
  readonly #listeners = new Map<NftFamily, Listener>();
  /** What was noticed and not told yet. */
  readonly #lost = new Map<NftFamily, string>();

  constructor(nftables: Nftables, clock: Clock) {
    this.#nftables = nftables;
    this.#clock = clock;
  }

  /** Reads what the kernel has. What others did to it before is no news any more. */
  read(family: NftFamily, elementsOf: (set: SetObject) => boolean): TableContent | undefined {
    this.#hear();
    this.#lost.delete(family);
    const generation = this.#nftables.generation();
    const content = this.#nftables.readTable(family, TABLE, { elementsOf });
    this.#accounted ??= generation;
    return content;
  }

  /** Elements of one set. @throws {NetlinkError} If there is no such set. */
  readElements(family: NftFamily, set: SetObject): readonly SetElement[] {
    return this.#nftables.readElements(family, TABLE, set).elements;
  }

  /** Does all commands or none. */
  commit(family: NftFamily, commands: readonly Command[]): CommitResult {
    this.#hear();
    const before = this.#nftables.generation();
    const result = this.#nftables.commit([{ family, table: TABLE, commands }]);
    // One more is ours. If there are two, the other one is somebody else's.
    if (result.kind === 'committed' && this.#accounted !== undefined && result.generation !== before) this.#accounted++;
    return result;
  }

  /** What there was to write at the start is written: from now on it is worth hearing what happens. */
  begin(): void {
    this.#hasBegun = true;
    this.#listen();
  }

  /** Tells of changes by others in the table of `family`, until `signal` aborts. */
  async monitor(family: NftFamily, onLost: (reason: string) => void, signal: AbortSignal): Promise<void> {
    this.#listeners.set(family, { onLost, repairs: REPAIRS_AT_ONCE, atMs: this.#clock.now() });
    this.#listen();
    try {
      while (!signal.aborted) {
        await this.#clock.sleep(POLL_MS, signal);
        // The other family may just have done it.
        if (!signal.aborted && this.#clock.now() - this.#polledMs >= POLL_MS / 2) this.poll();
      }
    } finally {
      this.#listeners.delete(family);
      if (this.#listeners.size === 0) {
        this.#watcher?.close();
        this.#watcher = undefined;
      }
    }
  }

  /** Hears what there is to hear and tells of it. */
  poll(): void {
    this.#hear();
    const nowMs = this.#clock.now();
    this.#polledMs = nowMs;
    for (const [family, reason] of this.#lost) {
      const listener = this.#listeners.get(family);
      if (listener === undefined) continue;
      listener.repairs += (nowMs - listener.atMs) / REPAIR_PERIOD_MS;
      listener.repairs = Math.min(listener.repairs, REPAIRS_AT_ONCE);
      listener.atMs = nowMs;
      if (listener.repairs < 1) continue;
      listener.repairs--;
      this.#lost.delete(family);
      listener.onLost(reason);
    }
  }

  #listen(): void {
    if (!this.#hasBegun || this.#watcher !== undefined || this.#listeners.size === 0) return;
    this.#watcher = this.#nftables.watch();
    const now = this.#nftables.generation();
    if (this.#accounted !== now) this.#loseAll('somebody changed rules while nobody listened');
    this.#accounted = now;
  }

  #hear(): void {
    if (this.#watcher === undefined) return;
    const { changes, generation, overrun } = this.#watcher.drain();
    for (const { family, table, own } of changes) {
      if (table === TABLE && !own) this.#lost.set(family, `somebody else changed the table ${family} ${TABLE}`);
    }
    if (overrun) {
      const now = this.#nftables.generation();
      if (now !== this.#accounted) this.#loseAll('announcements of changes were lost');
      this.#accounted = now;
    } else if (generation !== undefined) this.#accounted = Math.max(generation, this.#accounted ?? 0);
  }

  #loseAll(reason: string): void {
    for (const family of this.#listeners.keys()) this.#lost.set(family, reason);
  }
}
