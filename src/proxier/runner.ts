/**
 * Decides when to sync: at once on request, then at most once per minimum interval, again soon after a failure,
 * and now and then without any request. It knows nothing of what a sync does.
 *
 * ```
 *   request ──► run ──► wait minInterval ──► (requested meanwhile? run) … no request ──► run after maxInterval
 *                └ failed ──► run after retryInterval, unless a request comes first
 * ```
 *
 * @module
 */

import type { Clock } from '../sys/clock.ts';

export interface RunnerOptions {
  /** Least time from the end of one run to the start of the next. */
  readonly minIntervalMs: number;
  /** Time from the end of a failed run to the next one without a request. */
  readonly retryIntervalMs: number;
  /** Time from the end of a run to the next one without a request. */
  readonly maxIntervalMs: number;
}

/** What a run came to. A run that throws ends the loop: a crash is not a failed sync. */
export type RunOutcome = 'ok' | 'failed';

/**
 * The bounded-frequency loop. Requests while a run or the minimum interval after it lasts become one run.
 *
 * @throws {RangeError} From the constructor, if `maxIntervalMs` is less than `minIntervalMs`.
 */
export class Runner {
  readonly #options: RunnerOptions;
  readonly #run: (signal: AbortSignal) => Promise<RunOutcome>;
  readonly #clock: Clock;
  #requested = false;
  /** When to run without a request, in milliseconds since the epoch. */
  #dueMs: number;
  #wake: () => void = () => {};

  constructor(options: RunnerOptions, run: (signal: AbortSignal) => Promise<RunOutcome>, clock: Clock) {
    if (options.maxIntervalMs < options.minIntervalMs) {
      throw new RangeError(
        `Cannot run every ${options.maxIntervalMs} ms: the longest interval must be at least the shortest, ${options.minIntervalMs} ms`,
      );
    }
    this.#options = options;
    this.#run = run;
    this.#clock = clock;
    this.#dueMs = clock.now() + options.maxIntervalMs;
  }

  /** Asks for a run. Never blocks; asking twice before it starts is asking once. */
  request(): void {
    this.#requested = true;
    this.#wake();
  }

  /** Asks for a run after the retry interval, for work outside the loop that failed. A successful run cancels it. */
  retryLater(): void {
    const { retryIntervalMs, maxIntervalMs } = this.#options;
    this.#dueMs = Math.min(this.#dueMs, this.#clock.now() + Math.min(retryIntervalMs, maxIntervalMs));
    this.#wake();
  }

  /**
   * Runs until `signal` aborts. Called once.
   *
   * @throws What a run throws.
   */
  async loop(signal: AbortSignal): Promise<void> {
    const { minIntervalMs, retryIntervalMs, maxIntervalMs } = this.#options;
    this.#dueMs = Math.min(this.#dueMs, this.#clock.now() + maxIntervalMs);
    while (!signal.aborted) {
      await this.#untilDue(signal);
      if (signal.aborted) return;
      this.#requested = false;
      // Set before the run, so that a retryLater() during it is not lost.
      this.#dueMs = Number.POSITIVE_INFINITY;
      const outcome = await this.#run(signal);
      const nextMs = outcome === 'ok' ? maxIntervalMs : Math.min(retryIntervalMs, maxIntervalMs);
      this.#dueMs = outcome === 'ok' ? this.#clock.now() + nextMs : Math.min(this.#dueMs, this.#clock.now() + nextMs);
      await this.#clock.sleep(minIntervalMs, signal);
    }
  }

  /** Resolves on a request, at the due time (which may move earlier meanwhile), or on abort. */
  async #untilDue(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !this.#requested && this.#clock.now() < this.#dueMs) {
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      await this.#clock.sleep(this.#dueMs - this.#clock.now(), AbortSignal.any([signal, woken.signal]));
    }
    this.#wake = () => {};
  }
}
