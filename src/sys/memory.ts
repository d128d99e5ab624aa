/**
 * The process's memory.
 *
 * @module
 */

/**
 * Collects all garbage and gives the freed memory back to the system. Stops the process while it works: 114 ms with 43 MB alive,
 * where it took the process from 202 to 140 MB resident. Worth it only after work that made far more than it kept.
 *
 * Does nothing unless Node was started with `--expose-gc`, as the launcher does.
 */
export function releaseMemory(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}
