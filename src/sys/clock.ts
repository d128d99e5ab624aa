/**
 * Time as an effect: the real clock, and the interface that tests replace.
 *
 * @module
 */

export interface Clock {
  /**
   * Milliseconds since the epoch, with fractions where the system has them. Goes on evenly: a clock that is set after the start of
   * the process does not move it, so that intervals are right.
   */
  now(): number;
  /** Resolves after `ms`, or at once when `signal` aborts. Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** The longest that a timer of Node can be: one that is asked for more goes off at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export const realClock: Clock = {
  now: () => performance.timeOrigin + performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      let leftMs = ms;
      let timer: NodeJS.Timeout | undefined;
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const arm = () => {
        // A deadline that has just passed is a time of less than nothing.
        const sliceMs = Math.min(Math.max(0, leftMs), MAX_TIMER_MS);
        leftMs -= sliceMs;
        timer = setTimeout(leftMs > 0 ? arm : done, sliceMs);
      };
      arm();
      signal?.addEventListener('abort', done, { once: true });
    }),
};
