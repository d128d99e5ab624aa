/**
 * How long to wait after a failure: 0.8 s doubling to 30 s, each up to twice as long by chance, so that the nodes of
 * a cluster do not come back at once. spec: daemon.md §10.
 *
 * @module
 */

import type { Clock } from '../sys/clock.ts';

export const FIRST_DELAY_MS = 800;
export const LONGEST_DELAY_MS = 30_000;
/** This long without a failure, and the next one counts as the first. */
export const RESET_AFTER_MS = 120_000;

export class Backoff {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #random: () => number;
  #delayMs = FIRST_DELAY_MS;
  /** When the last delay ends. */
  #endsAtMs = Number.NEGATIVE_INFINITY;

  /** @param random - Gives numbers in [0, 1). */
  constructor(clock: Pick<Clock, 'now'>, random: () => number) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Counts a failure. @returns How long to wait, in milliseconds. */
  next(): number {
    const now = this.#clock.now();
    if (now - this.#endsAtMs >= RESET_AFTER_MS) this.#delayMs = FIRST_DELAY_MS;
    const delay = this.#delayMs * (1 + this.#random());
    this.#delayMs = Math.min(this.#delayMs * 2, LONGEST_DELAY_MS);
    this.#endsAtMs = now + delay;
    return delay;
  }
}
