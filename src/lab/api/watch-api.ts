/**
 * Watches: from a version on, by selectors, with bookmarks.
 *
 * An object that begins to match arrives as ADDED and one that ceases to as DELETED, whatever happened to it.
 *
 * @module
 */

import type { Clock } from '../../sys/clock.ts';
import type { Chaos, OpenWatches } from './chaos.ts';
import type { Exchange } from './exchange.ts';
import type { JsonObject } from './object.ts';
import { type Form, parseAccept, parseMatches, type ResourcePath } from './objects-api.ts';
import type { Registry } from './registry.ts';
import { apiVersionOf, type Resource } from './resources.ts';
import type { Matches } from './selectors.ts';
import { ApiError, badRequest, expired } from './status.ts';
import { Change, type ChangeType, type Entry } from './store.ts';
import { toTable } from './table.ts';
import { acceptsGzip, WatchStream } from './watch-stream.ts';

export interface WatchApiOptions {
  /** Time between bookmarks. */
  readonly bookmarkMs: number;
  /** Streaming lists (sendInitialEvents) are served; otherwise they are refused as by servers without them. */
  readonly streamingLists: boolean;
  /** Watches are compressed for clients that take gzip. Real API servers never do. */
  readonly gzipWatches: boolean;
}

/** What a watch sends first. */
interface Beginning {
  readonly changes: readonly Change[];
  /** They are the list that the client asked for, and it wants to be told its end. */
  readonly initial: boolean;
}

/** What a change is to a watch with a selector; undefined if it is nothing. */
function typeFor(change: Change, matches: Matches): ChangeType | undefined {
  const before = change.before !== undefined && matches(change.before.object);
  const after = change.after !== undefined && matches(change.after.object);
  if (after) return before ? 'MODIFIED' : 'ADDED';
  return before ? 'DELETED' : undefined;
}

export class WatchApi implements OpenWatches {
  readonly #registry: Registry;
  readonly #options: WatchApiOptions;
  readonly #clock: Clock;
  readonly #chaos: () => Chaos;
  readonly #open = new Map<WatchStream, (resourceVersion: number, initial: boolean) => string>();

  constructor(
    registry: Registry,
    options: WatchApiOptions,
    deps: { readonly clock: Clock; readonly chaos: () => Chaos },
  ) {
    this.#registry = registry;
    this.#options = options;
    this.#clock = deps.clock;
    this.#chaos = deps.chaos;
  }

  /** Open watches, by plural of the resource. */
  get open(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const { resource } of this.#open.keys()) counts[resource] = (counts[resource] ?? 0) + 1;
    return counts;
  }

  /** Sends bookmarks until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#clock.sleep(this.#options.bookmarkMs, signal);
      if (!signal.aborted) this.bookmark();
    }
  }

  /** Sends a bookmark to every watch that takes one, now. */
  bookmark(): void {
    for (const [stream, bookmark] of this.#open) {
      if (stream.bookmarks) stream.send(bookmark(this.#registry.store.resourceVersion, false));
    }
  }

  #each(what: 'drop' | 'halfClose' | 'silence' | 'finish'): number {
    for (const stream of this.#open.keys()) stream[what]();
    return this.#open.size;
  }

  drop(): number {
    return this.#each('drop');
  }

  halfClose(): number {
    return this.#each('halfClose');
  }

  silence(): number {
    return this.#each('silence');
  }

  finish(): number {
    return this.#each('finish');
  }

  /** The lines of one watch, in the form it asked for. */
  #writer(resource: Resource, { table, include }: Form) {
    const { convert, columns, kind } = resource;
    let withColumns = true;
    const show = (type: string, entry: Entry): string => {
      if (!table) return `{"type":"${type}","object":${JSON.stringify(convert?.fromStored(entry.object))}}\n`;
      const metadata = { resourceVersion: String(entry.resourceVersion) };
      const object = toTable(columns, [entry.object], { metadata, include, nowMs: this.#clock.now(), withColumns });
      withColumns = false;
      return `${JSON.stringify({ type, object })}\n`;
    };
    const whole = !table && convert === undefined;
    return {
      event: (type: ChangeType, change: Change) => (whole ? change.line(type) : show(type, change.entry(type))),
      bookmark: (resourceVersion: number, initial: boolean) => {
        const annotations = { 'k8s.io/initial-events-end': 'true' };
        const metadata: JsonObject = { resourceVersion: String(resourceVersion), ...(initial && { annotations }) };
        const object = table
          ? toTable(columns, [], { metadata, include, nowMs: this.#clock.now(), withColumns: false })
          : { kind, apiVersion: apiVersionOf(resource), metadata };
        return `${JSON.stringify({ type: 'BOOKMARK', object })}\n`;
      },
    };
  }

  /** What a watch begins with: the state now, or the changes since a version. @throws {ApiError} 400, 410, 422. */
  #begin(path: ResourcePath, query: URLSearchParams): Beginning {
    const { store } = this.#registry;
    const { storage } = path.resource;
    const resourceVersion = query.get('resourceVersion') ?? '';
    const match = query.get('resourceVersionMatch') ?? '';
    const initial = query.get('sendInitialEvents') === 'true';
    const refusal = !query.has('sendInitialEvents')
      ? match === ''
        ? ''
        : 'resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided'
      : !this.#options.streamingLists
        ? 'sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled'
        : match === 'NotOlderThan'
          ? ''
          : 'resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan';
    if (refusal) {
      const message = `ListOptions.meta.k8s.io "" is invalid: ${refusal}`;
      throw new ApiError({ code: 422, reason: 'Invalid', message });
    }
    if (!/^\d{0,15}$/.test(resourceVersion)) {
      throw badRequest(`Invalid value: ${JSON.stringify(resourceVersion)}: invalid resource version`);
    }
    const fromNow = initial || (!query.has('sendInitialEvents') && (resourceVersion === '' || resourceVersion === '0'));
    if (fromNow) {
      return { changes: store.sorted(storage).map((e) => new Change(e.resourceVersion, undefined, e)), initial };
    }
    const since = resourceVersion === '' ? store.resourceVersion : Number(resourceVersion);
    const changes = store.changesSince(storage, since);
    if (changes) return { changes, initial };
    throw expired(`too old resource version: ${since} (${store.oldest(storage)})`);
  }

  /** Answers a watch; returns when it has begun. @throws {ApiError} What is to be sent as the Status. */
  start(exchange: Exchange, path: ResourcePath): void {
    const { request, response, query } = exchange;
    const { resource } = path;
    const form = parseAccept(request.headers.accept ?? '', query);
    const matches = parseMatches(path, query);
    const { event, bookmark } = this.#writer(resource, form);
    const timeout = query.get('timeoutSeconds') ?? '';
    if (!/^\d{0,9}$/.test(timeout)) throw badRequest(`Cannot use timeoutSeconds "${timeout}": must be a whole number`);
    let begin: Beginning | ApiError;
    try {
      begin = this.#begin(path, query);
    } catch (error) {
      const asEvent = error instanceof ApiError && error.failure.code === 410 && this.#chaos().expiredAs === 'event';
      if (!asEvent) throw error;
      begin = error;
    }
    const stream = new WatchStream(
      response,
      {
        resource: resource.plural,
        bookmarks: query.get('allowWatchBookmarks') === 'true',
        gzip: this.#options.gzipWatches && acceptsGzip(request),
      },
      { clock: this.#clock, chaos: this.#chaos() },
    );
    if (begin instanceof ApiError) {
      stream.send(`${JSON.stringify({ type: 'ERROR', object: begin.toStatus() })}\n`);
      stream.finish();
      return;
    }
    const deliver = (change: Change) => {
      const type = typeFor(change, matches);
      if (type !== undefined) stream.send(event(type, change));
    };
    for (const change of begin.changes) deliver(change);
    if (begin.initial && stream.bookmarks) stream.send(bookmark(this.#registry.store.resourceVersion, true));
    const stop = this.#registry.store.listen(resource.storage, deliver);
    this.#open.set(stream, bookmark);
    stream.closed.addEventListener('abort', () => {
      stop();
      this.#open.delete(stream);
    });
    if (Number(timeout) > 0) {
      void this.#clock.sleep(Number(timeout) * 1000, stream.closed).then(() => stream.finish());
    }
  }
}
