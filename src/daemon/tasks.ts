/**
 * Things that run side by side and end together.
 *
 * @module
 */

/** A group whose members all stop when one of them fails, or when the group is told to. */
export class Tasks {
  readonly #stop = new AbortController();
  readonly #failed = Promise.withResolvers<never>();
  readonly #running = new Set<Promise<void>>();
  /** Aborts when a member fails, `stop` is called, or the outer signal aborts. */
  readonly signal: AbortSignal;

  constructor(outer: AbortSignal) {
    this.signal = AbortSignal.any([outer, this.#stop.signal]);
    // It is looked at by `race` and `end`; a failure nobody waits for yet is not unhandled.
    this.#failed.promise.catch(() => {});
  }

  /** Starts a member. Its failure is the group's, unless the group is stopping anyway. */
  start(task: (signal: AbortSignal) => Promise<void>): void {
    const running = task(this.signal)
      .catch((error: unknown) => {
        if (!this.signal.aborted) this.#failed.reject(error);
        this.#stop.abort();
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  /**
   * Waits for something beside the members.
   *
   * @throws The first failure of a member, if it comes first.
   */
  race<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#failed.promise]);
  }

  /**
   * Resolves when all members have ended.
   *
   * @throws The first failure, after all have ended.
   */
  async end(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    await Promise.race([this.#failed.promise, Promise.resolve()]);
  }

  /** Stops all members and waits for their end. Failures are not told. */
  async stop(): Promise<void> {
    this.#stop.abort();
    while (this.#running.size > 0) await Promise.all(this.#running);
  }
}
