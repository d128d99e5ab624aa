/**
 * Files as a source: a file, a folder of them, or standard input. The same events as from an API server, and the same
 * patience: while something is broken, what was last good from it stays.
 *
 * @module
 */

import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { ApiObject } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import { Decoder } from './decode.ts';
import { FileWatch } from './file-watch.ts';
import type { FileProblem, ManifestDecoder, Manifests } from './manifests.ts';
import type { WatchedKind } from './selectors.ts';
import type { Source, SourceHandlers } from './source.ts';

/** Between the first sign of a change and reading: whoever writes several files is then done. */
const SETTLE_MS = 100;
/** Also without a sign: not every file system tells. */
const POLL_MS = 10_000;
const MANIFEST = /^[^.].*\.(ya?ml|json)$/;

export interface ManifestOptions {
  /** Files, folders (their `.yaml`, `.yml` and `.json`, not below) and `-`, standard input. */
  readonly paths: readonly string[];
  readonly kinds: readonly WatchedKind[];
  readonly stdin?: NodeJS.ReadableStream;
}

export interface FileSourceOptions extends ManifestOptions {
  readonly clock: Clock;
}

/**
 * Reads manifests once.
 *
 * @returns What is in them; a file or folder that cannot be read is among the problems.
 */
export async function readManifests(options: ManifestOptions): Promise<Manifests> {
  const files = await Files.create(options);
  await files.read();
  return files.manifests();
}

/** Files as a source that follows their changes. */
export function createFileSource(options: FileSourceOptions): Source {
  return {
    run: async (handlers, signal) => {
      const { clock, kinds, paths } = options;
      const files = await Files.create(options);
      const delivery = new Delivery(handlers);
      using watch = new FileWatch(paths.filter((path) => path !== '-'));
      let isSynced = false;
      let isChanged = false;
      while (!signal.aborted) {
        await watch.renew();
        if (await files.read(isChanged)) delivery.deliver(files);
        if (!isSynced && files.areKnown) {
          isSynced = true;
          for (const { kind } of kinds) handlers.onEvent({ type: 'synced', kind });
        }
        await clock.sleep(POLL_MS, AbortSignal.any([signal, watch.changed]));
        isChanged = watch.changed.aborted;
        if (isChanged) await clock.sleep(SETTLE_MS, signal);
      }
    },
  };
}

/** What one file held when it was last read. */
interface FileState {
  /** Changes with the file, but for a second write of as many bytes in the same tick of the kernel's clock. */
  readonly version: string;
  readonly digest: string;
  readonly manifests: Manifests;
  /** By kind and key; with those of before where the file is broken now. */
  readonly objects: ReadonlyMap<string, ApiObject>;
}

const NOTHING: Manifests = { objects: [], invalid: [], problems: [], ignored: new Map() };

function idOf(object: { readonly kind: string; readonly key: string }): string {
  return `${object.kind} ${object.key}`;
}

class Files {
  readonly #options: ManifestOptions;
  readonly #decoder: ManifestDecoder;
  /** By path, in the order in which later ones win. */
  #states = new Map<string, FileState>();
  /** The files of each folder when it could last be read. */
  readonly #folders = new Map<string, readonly string[]>();
  /** Paths of the options that could be read at least once. */
  readonly #known = new Set<string>();
  #stdin: string | undefined;

  private constructor(options: ManifestOptions, decoder: ManifestDecoder) {
    this.#options = options;
    this.#decoder = decoder;
  }

  /** Loads the YAML parser, 13 MB resident: a daemon that reads the API server does not pay for it. */
  static async create(options: ManifestOptions): Promise<Files> {
    const { ManifestDecoder } = await import('./manifests.ts');
    return new Files(options, new ManifestDecoder(options.kinds, new Decoder()));
  }

  /** True when every path was readable at least once: only then is what they hold known. */
  get areKnown(): boolean {
    return this.#options.paths.every((path) => this.#known.has(path));
  }

  get states(): ReadonlyMap<string, FileState> {
    return this.#states;
  }

  /**
   * Reads what changed.
   *
   * @param isChanged - Something did for sure: the files are read even if they look the same.
   * @returns Whether they hold anything else than before.
   */
  async read(isChanged = false): Promise<boolean> {
    const states = new Map<string, FileState>();
    for (const path of this.#options.paths) {
      for (const [file, state] of path === '-' ? await this.#readStdin() : await this.#readPath(path, isChanged)) {
        states.delete(file);
        states.set(file, state);
      }
    }
    const before = [...this.#states];
    this.#states = states;
    return (
      before.length !== states.size ||
      before.some(([file, { objects, manifests }]) => {
        const state = states.get(file);
        return state?.objects !== objects || state.manifests !== manifests;
      })
    );
  }

  manifests(): Manifests {
    const all = [...this.#states.values()].map((state) => state.manifests);
    const ignored = new Map<string, number>();
    for (const m of all) for (const [id, count] of m.ignored) ignored.set(id, (ignored.get(id) ?? 0) + count);
    return {
      objects: all.flatMap((m) => m.objects),
      invalid: all.flatMap((m) => m.invalid),
      problems: all.flatMap((m) => m.problems),
      ignored,
    };
  }

  async #readStdin(): Promise<[string, FileState][]> {
    this.#stdin ??= await text(this.#options.stdin ?? process.stdin);
    this.#known.add('-');
    return [['-', this.#states.get('-') ?? this.#decode('-', '-', this.#stdin)]];
  }

  async #readPath(path: string, isChanged: boolean): Promise<[string, FileState][]> {
    try {
      if (!(await stat(path)).isDirectory()) {
        const state = await this.#readFile(path, isChanged);
        this.#known.add(path);
        return [[path, state]];
      }
      const names = (await readdir(path)).filter((name) => MANIFEST.test(name)).sort();
      this.#folders.set(
        path,
        names.map((name) => join(path, name)),
      );
    } catch (cause) {
      const kept = (this.#folders.get(path) ?? []).flatMap((file) => this.#kept(file));
      const why = cause instanceof Error ? cause.message : String(cause);
      return [...kept, [path, this.#unreadable(path, why)]];
    }
    const states: [string, FileState][] = [];
    for (const file of this.#folders.get(path) ?? []) {
      try {
        states.push([file, await this.#readFile(file, isChanged)]);
      } catch (cause) {
        // Gone between the two looks is gone; the next look sees it no more.
        if (isMissing(cause)) continue;
        states.push([file, this.#unreadable(file, cause instanceof Error ? cause.message : String(cause))]);
      }
    }
    this.#known.add(path);
    return states;
  }

  #kept(file: string): [string, FileState][] {
    const state = this.#states.get(file);
    return state === undefined ? [] : [[file, state]];
  }

  async #readFile(file: string, isChanged: boolean): Promise<FileState> {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
    const version = [dev, ino, size, mtimeNs, ctimeNs].join(' ');
    const known = this.#states.get(file);
    if (!isChanged && known?.version === version) return known;
    const content = await readFile(file, 'utf8');
    // Touched, or written anew as it was.
    if (known?.digest === digestOf(content)) return { ...known, version };
    return this.#decode(file, version, content);
  }

  #decode(file: string, version: string, content: string): FileState {
    const manifests = this.#decoder.decode(content, file);
    const before = this.#states.get(file)?.objects;
    const objects = new Map<string, ApiObject>();
    // A document that cannot be read may hold any of those that are missing now: all of them stay.
    if (manifests.problems.length > 0) for (const [id, object] of before ?? []) objects.set(id, object);
    for (const invalid of manifests.invalid) {
      const last = before?.get(idOf(invalid));
      if (last !== undefined) objects.set(idOf(invalid), last);
    }
    for (const object of manifests.objects) objects.set(idOf(object), object);
    return { version, digest: digestOf(content), manifests, objects };
  }

  /** The state of a path that cannot be read now: what was last good stays. The same object while nothing changes. */
  #unreadable(file: string, why: string): FileState {
    const before = this.#states.get(file);
    const problem: FileProblem = { file, document: 0, why };
    if (before?.manifests.problems.some((p) => p.document === 0 && p.why === why)) return before;
    const manifests = { ...NOTHING, problems: [problem] };
    return { version: '', digest: '', manifests, objects: before?.objects ?? new Map() };
  }
}

function digestOf(content: string): string {
  return createHash('sha256').update(content).digest('base64');
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

/** What the handlers know, and the difference to what the files hold now. */
class Delivery {
  readonly #handlers: SourceHandlers;
  #delivered = new Map<string, ApiObject>();
  readonly #told = new Map<string, Manifests>();

  constructor(handlers: SourceHandlers) {
    this.#handlers = handlers;
  }

  deliver(files: Files): void {
    const now = new Map<string, ApiObject>();
    for (const [file, state] of files.states) {
      this.#report(file, state);
      for (const [id, object] of state.objects) now.set(id, object);
    }
    for (const file of this.#told.keys()) if (!files.states.has(file)) this.#told.delete(file);
    for (const [id, object] of now) {
      const known = this.#delivered.get(id);
      if (known !== undefined && JSON.stringify(known) === JSON.stringify(object)) now.set(id, known);
      else this.#handlers.onEvent({ type: 'upsert', object });
    }
    for (const [id, { kind, key }] of this.#delivered) {
      if (!now.has(id)) this.#handlers.onEvent({ type: 'delete', kind, key });
    }
    this.#delivered = now;
  }

  /** What is wrong with a file is told when the file changes, not at each look. */
  #report(file: string, { manifests }: FileState): void {
    if (this.#told.get(file) === manifests) return;
    this.#told.set(file, manifests);
    for (const invalid of manifests.invalid) this.#handlers.onInvalid(invalid);
    for (const problem of manifests.problems) this.#handlers.onStatus?.({ state: 'broken-file', ...problem });
    if (manifests.ignored.size > 0) this.#handlers.onStatus?.({ state: 'ignored', file, counts: manifests.ignored });
  }
}
