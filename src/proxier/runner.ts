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
  #urgent = false;
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
  }

  /** Asks for a run. Never blocks; asking twice before it starts is asking once. */
  request(): void {
    this.#requested = true;
    this.#wake();
  }

  /** Asks for a run that does not wait for the minimum interval: the first one of all, or after a loss. */
  requestNow(): void {
    this.#urgent = true;
    this.request();
  }

  /**
   * Runs until `signal` aborts. Called once; requests made before are honoured.
   *
   * @throws What a run throws.
   */
  async loop(signal: AbortSignal): Promise<void> {
    const { minIntervalMs, retryIntervalMs, maxIntervalMs } = this.#options;
    let dueMs = this.#clock.now() + maxIntervalMs;
    while (!signal.aborted) {
      await this.#sleepUntil(dueMs, () => this.#requested, signal);
      if (signal.aborted) return;
      this.#requested = false;
      this.#urgent = false;
      const outcome = await this.#run(signal);
      dueMs = this.#clock.now() + (outcome === 'ok' ? maxIntervalMs : Math.min(retryIntervalMs, maxIntervalMs));
      await this.#sleepUntil(this.#clock.now() + minIntervalMs, () => this.#urgent, signal);
    }
  }

  /** Resolves at a time, or earlier when a request makes `isWoken` true or `signal` aborts. */
  async #sleepUntil(atMs: number, isWoken: () => boolean, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !isWoken() && this.#clock.now() < atMs) {
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      await this.#clock.sleep(atMs - this.#clock.now(), AbortSignal.any([signal, woken.signal]));
    }
    this.#wake = () => {};
  }
}
