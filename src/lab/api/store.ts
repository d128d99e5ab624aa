/**
 * Objects in memory under one resourceVersion counter, with the history that watches resume from.
 *
 * An object is serialised at most once, however many lists and watches show it.
 *
 * @module
 */

import { compareText } from '../../proxier/types.ts';
import { type KubeObject, keyOf } from './object.ts';

/** A stored version of an object. */
export class Entry {
  readonly key: string;
  readonly object: KubeObject;
  readonly resourceVersion: number;
  #body: string | undefined;

  constructor(object: KubeObject, resourceVersion: number) {
    this.key = keyOf(object);
    this.object = object;
    this.resourceVersion = resourceVersion;
  }

  /** The object's JSON without its first brace, kind and apiVersion: lists leave these two out of their items. */
  get body(): string {
    if (this.#body === undefined) {
      const { apiVersion: _apiVersion, kind: _kind, ...rest } = this.object;
      this.#body = JSON.stringify(rest).slice(1);
    }
    return this.#body;
  }

  /** The whole object's JSON. */
  get json(): string {
    const { kind, apiVersion } = this.object;
    return `{"kind":${JSON.stringify(kind)},"apiVersion":${JSON.stringify(apiVersion)},${this.body}`;
  }
}

export type ChangeType = 'ADDED' | 'MODIFIED' | 'DELETED';

/** One change of one object, and its line in a watch. */
export class Change {
  readonly resourceVersion: number;
  /** What was there before; undefined on create. */
  readonly before: Entry | undefined;
  /** What is there after; undefined on delete. */
  readonly after: Entry | undefined;
  readonly #lines = new Map<ChangeType, string>();
  #gone: Entry | undefined;

  constructor(resourceVersion: number, before: Entry | undefined, after: Entry | undefined) {
    this.resourceVersion = resourceVersion;
    this.before = before;
    this.after = after;
  }

  /** The entry an event of this type shows: a deleted object in its last state, with the version of the deletion. */
  entry(type: ChangeType): Entry {
    if (type !== 'DELETED' && this.after) return this.after;
    if (this.#gone === undefined) {
      const last = this.before ?? this.after;
      if (last === undefined)
        throw new TypeError('Cannot show a change: it has no object, must have one before or after');
      const metadata = { ...last.object.metadata, resourceVersion: String(this.resourceVersion) };
      this.#gone = new Entry({ ...last.object, metadata }, this.resourceVersion);
    }
    return this.#gone;
  }

  line(type: ChangeType): string {
    let line = this.#lines.get(type);
    if (line === undefined) {
      line = `{"type":"${type}","object":${this.entry(type).json}}\n`;
      this.#lines.set(type, line);
    }
    return line;
  }
}

interface Shelf {
  readonly entries: Map<string, Entry>;
  /** Entries in the order of their keys; undefined after one came or went. */
  sorted: Entry[] | undefined;
  readonly history: Change[];
  /** Watches can resume from this version and later ones. */
  oldest: number;
  readonly listeners: Set<(change: Change) => void>;
}

export class Store {
  readonly #shelves = new Map<string, Shelf>();
  readonly #historyLimit: number;
  #resourceVersion = 1;

  /** @param historyLimit - Changes kept for each storage; up to twice as many are held. */
  constructor(storages: Iterable<string>, historyLimit: number) {
    this.#historyLimit = historyLimit;
    for (const storage of storages) {
      this.#shelves.set(storage, { entries: new Map(), sorted: [], history: [], oldest: 0, listeners: new Set() });
    }
  }

  /** The version of the latest change of anything. */
  get resourceVersion(): number {
    return this.#resourceVersion;
  }

  #shelf(storage: string): Shelf {
    const shelf = this.#shelves.get(storage);
    if (shelf === undefined) throw new RangeError(`Cannot find storage "${storage}": must be one of the server's`);
    return shelf;
  }

  get(storage: string, key: string): Entry | undefined {
    return this.#shelf(storage).entries.get(key);
  }

  /** Every entry, in the order of keys. The list is the store's own: it is valid until the next change. */
  sorted(storage: string): readonly Entry[] {
    const shelf = this.#shelf(storage);
    shelf.sorted ??= [...shelf.entries.values()].sort((a, b) => compareText(a.key, b.key));
    return shelf.sorted;
  }

  /** Stores an object, which belongs to the store from here on, under the next resourceVersion. */
  put(storage: string, object: KubeObject): Entry {
    const shelf = this.#shelf(storage);
    const before = shelf.entries.get(keyOf(object));
    object.metadata.resourceVersion = String(++this.#resourceVersion);
    const entry = new Entry(object, this.#resourceVersion);
    shelf.entries.set(entry.key, entry);
    shelf.sorted = undefined;
    this.#record(shelf, new Change(this.#resourceVersion, before, entry));
    return entry;
  }

  /** @returns The object as it was, with the version of its deletion; undefined if there is none. */
  remove(storage: string, key: string): Entry | undefined {
    const shelf = this.#shelf(storage);
    const before = shelf.entries.get(key);
    if (before === undefined) return undefined;
    shelf.entries.delete(key);
    shelf.sorted = undefined;
    const change = new Change(++this.#resourceVersion, before, undefined);
    this.#record(shelf, change);
    return change.entry('DELETED');
  }

  #record(shelf: Shelf, change: Change): void {
    shelf.history.push(change);
    // Cut in batches: to shift one off a long list for each change would cost its length each time.
    if (shelf.history.length > 2 * this.#historyLimit) {
      const cut = shelf.history.splice(0, shelf.history.length - this.#historyLimit);
      shelf.oldest = cut.at(-1)?.resourceVersion ?? shelf.oldest;
    }
    for (const listener of shelf.listeners) listener(change);
  }

  /** Oldest version a watch of this storage can resume from. */
  oldest(storage: string): number {
    return this.#shelf(storage).oldest;
  }

  /** Changes after a version, oldest first; undefined if they are compacted away. */
  changesSince(storage: string, resourceVersion: number): readonly Change[] | undefined {
    const { history, oldest } = this.#shelf(storage);
    if (resourceVersion < oldest) return undefined;
    let low = 0;
    let high = history.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((history[middle]?.resourceVersion ?? 0) > resourceVersion) high = middle;
      else low = middle + 1;
    }
    return history.slice(low);
  }

  /** Calls `listener` with every later change. @returns What ends it. */
  listen(storage: string, listener: (change: Change) => void): () => void {
    const { listeners } = this.#shelf(storage);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** Forgets all history. No version that a client can know of now can be resumed from. */
  compact(): void {
    this.#resourceVersion++;
    for (const shelf of this.#shelves.values()) {
      shelf.history.length = 0;
      shelf.oldest = this.#resourceVersion;
    }
  }
}
