/**
 * Watches the configuration file for new content. Editing in place, replacing by rename and the symlink swap of a
 * ConfigMap volume (`..data`) all count; touching without changing does not.
 *
 * @module
 */

import { watch } from 'node:fs';
import { readFile, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Clock, realClock } from '../sys/clock.ts';

/** Writers that truncate first get this long to finish. */
const SETTLE_MS = 200;
/** How often the file is read although nothing was noticed: a watch can be lost, or impossible (inotify limits). */
const POLL_MS = 60_000;

/**
 * Calls `onChange` once when the content of a file is no longer what it was, and ends.
 *
 * A file that is missing or unreadable has not changed: an atomic swap passes through that state.
 *
 * @param initial - Content that counts as unchanged; what the file holds at the call if left out.
 * @returns When it called `onChange`, or when `signal` aborts.
 */
export async function watchConfigFile(
  path: string,
  onChange: () => void,
  signal: AbortSignal,
  { clock = realClock, initial }: { readonly clock?: Clock; readonly initial?: string } = {},
): Promise<void> {
  const read = () => readFile(path, 'utf8').catch(() => undefined);
  const known = initial ?? (await read());
  while (!signal.aborted) {
    // Watched first and read then, so that no change falls between.
    const noticed = await nextEvent(path, clock, signal);
    const now = await read();
    if (now === undefined || now === known) {
      await noticed.wait();
      if (!signal.aborted) await clock.sleep(SETTLE_MS, signal);
      continue;
    }
    noticed.stop();
    await clock.sleep(SETTLE_MS, signal);
    const settled = await read();
    if (signal.aborted) return;
    if (settled !== undefined && settled !== known) return onChange();
  }
}

/**
 * Begins to watch the folder of the file, and of the file it links to.
 *
 * @returns `wait` ends with the first event, after `POLL_MS`, or with `signal`; it stops the watch.
 */
async function nextEvent(path: string, clock: Clock, signal: AbortSignal) {
  const done = new AbortController();
  const end = AbortSignal.any([signal, done.signal]);
  const folders = new Set([dirname(path), dirname(await realpath(path).catch(() => path))]);
  for (const folder of folders) {
    try {
      watch(folder, { signal: end, persistent: false }, () => done.abort()).on('error', () => {});
    } catch {
      // No watch to be had: the file is read every POLL_MS all the same.
    }
  }
  return {
    stop: () => done.abort(),
    wait: async () => {
      await clock.sleep(POLL_MS, end);
      done.abort();
    },
  };
}
