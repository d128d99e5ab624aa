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
import type { Command, NftFamily, SetObject } from '../../netlink/nftables/transaction.ts';
import type { Clock } from '../../sys/clock.ts';
import { TABLE } from './base-chains.ts';

/** Time between two looks: half of what a repair may take to begin. */
const POLL_MS = 250;
/** A loss this soon after the last one is somebody who writes again and again; each repair then waits longer. */
const CALM_MS = 10_000;
const MAX_DELAY_MS = 30_000;

interface Listener {
  readonly onLost: (reason: string) => void;
  lastMs: number;
  /** From one loss told to the next. */
  delayMs: number;
}

export class TableWatch {
  readonly #nftables: Nftables;
  readonly #clock: Clock;
  #watcher: NftWatcher | undefined;
  /** What happened up to this generation is ours, or was heard. Undefined: no table was read yet. */
  #accounted: number | undefined;
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

  /** Does all commands or none. */
  commit(family: NftFamily, commands: readonly Command[]): CommitResult {
    this.#hear();
    const before = this.#nftables.generation();
    const result = this.#nftables.commit([{ family, table: TABLE, commands }]);
    // One more is ours. If there are two, the other one is somebody else's.
    if (result.kind === 'committed' && this.#accounted !== undefined && result.generation !== before) this.#accounted++;
    return result;
  }

  /** Begins to hear. To be called when what there is to write at the start is written: nobody needs to hear of that. */
  listen(): void {
    if (this.#watcher !== undefined || this.#listeners.size === 0) return;
    this.#watcher = this.#nftables.watch();
    const now = this.#nftables.generation();
    if (this.#accounted !== undefined && this.#accounted !== now) {
      this.#loseAll('rules of somebody changed while the first ones were written');
    }
    this.#accounted = now;
  }

  /** Tells of changes by others in the table of `family`, until `signal` aborts. */
  async monitor(family: NftFamily, onLost: (reason: string) => void, signal: AbortSignal): Promise<void> {
    this.#listeners.set(family, { onLost, lastMs: Number.NEGATIVE_INFINITY, delayMs: 0 });
    try {
      while (!signal.aborted) {
        await this.#clock.sleep(POLL_MS, signal);
        if (!signal.aborted) this.poll();
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
    for (const [family, reason] of this.#lost) {
      const listener = this.#listeners.get(family);
      if (listener === undefined || nowMs < listener.lastMs + listener.delayMs) continue;
      const isCalm = nowMs - listener.lastMs > listener.delayMs + CALM_MS;
      listener.delayMs = isCalm ? POLL_MS : Math.min(2 * listener.delayMs, MAX_DELAY_MS);
      listener.lastMs = nowMs;
      this.#lost.delete(family);
      listener.onLost(reason);
    }
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
