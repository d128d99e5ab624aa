/**
 * Notices that files changed, whatever way: written in place, replaced by a rename, or swapped by a symbolic link as
 * kubelet does with ConfigMaps. It says that something changed and not what: the reader looks for itself.
 *
 * @module
 */

import { type FSWatcher, watch } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

export class FileWatch {
  readonly #paths: readonly string[];
  /** By folder; a folder that was replaced is watched anew under its new identity. */
  readonly #watchers = new Map<string, { readonly identity: string; readonly watcher: FSWatcher }>();
  #changed = new AbortController();

  constructor(paths: readonly string[]) {
    this.#paths = paths;
  }

  /** Aborts at the first change since `renew` was last called. */
  get changed(): AbortSignal {
    return this.#changed.signal;
  }

  /** Watches what the paths lead to now, and awaits the next change. Call it before looking at the files. */
  async renew(): Promise<void> {
    if (this.#changed.signal.aborted) this.#changed = new AbortController();
    const folders = new Map<string, string>();
    for (const path of this.#paths) {
      for (const folder of [path, dirname(path), dirname(await realpath(path).catch(() => path))]) {
        const identity = await identify(folder);
        if (identity !== undefined) folders.set(folder, identity);
      }
    }
    for (const [folder, { identity, watcher }] of this.#watchers) {
      if (folders.get(folder) === identity) continue;
      watcher.close();
      this.#watchers.delete(folder);
    }
    for (const [folder, identity] of folders) if (!this.#watchers.has(folder)) this.#watch(folder, identity);
  }

  [Symbol.dispose](): void {
    for (const { watcher } of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #watch(folder: string, identity: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#changed.abort());
      watcher.on('error', () => this.#drop(folder));
      this.#watchers.set(folder, { identity, watcher });
    } catch {
      // No more inotify watches, or the folder is gone again: the reader also looks from time to time.
    }
  }

  #drop(folder: string): void {
    this.#watchers.get(folder)?.watcher.close();
    this.#watchers.delete(folder);
  }
}

/** Undefined for what is no folder. */
async function identify(folder: string): Promise<string | undefined> {
  try {
    const found = await stat(folder);
    return found.isDirectory() ? `${found.dev} ${found.ino}` : undefined;
  } catch {
    return undefined;
  }
}
