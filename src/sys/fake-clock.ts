/**
 * A clock advanced by hand. Nothing happens on it by itself: `advance` wakes the sleepers that are due, in the
 * order of their time, and lets what they started run before the next one wakes.
 *
 * @module
 */

import type { Clock } from './clock.ts';

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/** One turn of the event loop: every promise that can settle without time or I/O has settled after it. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

export class FakeClock implements Clock {
  #now: number;
  readonly #sleepers = new Set<Sleeper>();

  /** @param startMs - First value of `now()`, in milliseconds since the epoch. */
  constructor(startMs = Date.UTC(2026, 0, 2, 3, 4, 5)) {
    this.#now = startMs;
  }

  /** How many sleeps have neither ended nor been aborted. 0 after a stop: nothing is left behind. */
  get sleeping(): number {
    return this.#sleepers.size;
  }

  now(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const wake = () => {
        this.#sleepers.delete(sleeper);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      const sleeper: Sleeper = { at: this.#now + Math.max(0, ms), wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', wake, { once: true });
    });
  }

  /** Moves the clock on by `ms`, sleeper by sleeper. `advance(0)` lets pending work run. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (let next = this.#due(end); next !== undefined; next = this.#due(end)) {
      this.#now = Math.max(this.#now, next.at);
      next.wake();
      await settle();
    }
    this.#now = end;
  }

  #due(end: number): Sleeper | undefined {
    let first: Sleeper | undefined;
    for (const s of this.#sleepers) if (s.at <= end && (first === undefined || s.at < first.at)) first = s;
    return first;
  }
}
