/**
 * One kind, listed and watched:
 *
 *     list ──► watch from the list's version ──► ends by itself: watch from the last version
 *      ▲                │
 *      └── too old (410), twice not to be understood or      everything else that fails: back off, then the same again
 *          silent, or versions that go back
 *
 * Handlers see each version of an object once. A re-list delivers only what differs from what was delivered, and
 * deletes what is gone.
 *
 * A server whose data was restored from a backup, or begun anew, counts versions from a smaller number. A watch from the
 * number we know is then served without an error, and without what happened before that number is reached again.
 *
 * @module
 */

import type { Clock } from '../sys/clock.ts';
import type { ApiClient, ApiStream } from './api-client.ts';
import { ApiError, isExpired, statusError, statusOf } from './api-error.ts';
import { Backoff } from './backoff.ts';
import type { Decoder } from './decode.ts';
import { DecodeError, isJsonObject, type JsonObject, optionalObject, optionalString } from './decode-error.ts';
import { Deliveries } from './deliveries.ts';
import { LineSplitter } from './lines.ts';
import { ListSplitter } from './list-stream.ts';
import type { WatchedKind } from './selectors.ts';
import type { SourceHandlers } from './source.ts';

const PAGE_ITEMS = 500;
/** A list whose bytes stop for this long is broken. */
const LIST_IDLE_MS = 60_000;
/** Asked of the server: it ends a watch after 5 to 10 minutes, so that watches spread over the servers. */
const MIN_WATCH_S = 300;
/** An API server sends a bookmark a minute; a watch silent for longer than two has lost its server. */
const WATCH_IDLE_MS = 150_000;
/** A watch that ends sooner and brought nothing counts as a failure: else two ends that disagree spin. */
const SHORT_WATCH_MS = 1000;
/** How long until a kind that the server does not have is asked for again; up to twice as long by chance. */
const ABSENT_RETRY_MS = 300_000;
/** A server may ask for patience, but not for more than this: rules would grow old on the word of one answer. */
const MAX_RETRY_AFTER_MS = 60_000;
/** A version too old is listed anew at once, if it is the first in this time. */
const EXPIRED_AGAIN_MS = 60_000;
/** Statuses of a server that is busy, starting or not yet knows us: the version we are at is not to blame. */
const SERVER_TROUBLE: readonly number[] = [401, 403, 408, 429, 500, 502, 503];

export interface ReflectorOptions {
  readonly watched: WatchedKind;
  readonly client: ApiClient;
  readonly decoder: Decoder;
  readonly clock: Clock;
  /** Gives numbers in [0, 1). */
  readonly random: () => number;
  readonly handlers: SourceHandlers;
}

export class Reflector {
  readonly #options: ReflectorOptions;
  readonly #backoff: Backoff;
  readonly #deliveries: Deliveries;
  /** Version to watch from. Undefined: list first. */
  #version: string | undefined;
  /** The first list may come from a server's cache, later ones must not be older than what we know. */
  #mayListOld = true;
  /** After the token of a next page expired: the whole list in one answer. */
  #listWhole = false;
  /** The watch from the last list has brought nothing yet. */
  #isFresh = false;
  /** Failures in a row that say the watch itself is not understood. */
  #misunderstood = 0;
  /** A watch is open that has brought nothing yet. */
  #isSilent = false;
  /** The latest version any answer had. */
  #latest = '';
  /** What was last told to `onStatus`. */
  #told = '';
  #downSinceMs: number | undefined;
  /** When a version was last found too old. */
  #expiredMs = Number.NEGATIVE_INFINITY;

  constructor(options: ReflectorOptions) {
    this.#options = options;
    this.#backoff = new Backoff(options.clock, options.random);
    this.#deliveries = new Deliveries(options.watched.kind, options.decoder, options.handlers);
  }

  /** Lists and watches until `signal` aborts. @throws Only what a handler throws. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (this.#version === undefined) this.#version = await this.#list(signal);
        await this.#watch(this.#version, signal);
      } catch (error) {
        if (signal.aborted && error instanceof ApiError) return;
        await this.#recover(error, signal);
      }
    }
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    if (!(error instanceof ApiError)) throw error;
    const { clock, random, watched } = this.#options;
    const status = statusOf(error);
    const listing = this.#version === undefined;
    if (isExpired(error)) {
      this.#mayListOld = false;
      this.#version = undefined;
      // Too old is no failure of the server: list at once. But a version too old as soon as it is listed is one.
      const isFirst = clock.now() - this.#expiredMs > EXPIRED_AGAIN_MS;
      this.#expiredMs = clock.now();
      if (!listing && !this.#isFresh && isFirst) return;
    }
    if (listing && watched.optional && (status === 404 || status === 403) && this.#deliveries.isEmpty) {
      this.#deliveries.markSynced();
      this.#tell({ state: 'absent', kind: watched.kind, why: error.message });
      await clock.sleep(ABSENT_RETRY_MS * (1 + random()), signal);
      return;
    }
    const isLost = isMisunderstanding(error) || (this.#isSilent && error.failure.code === 'TIMED_OUT');
    if (!listing && isLost && ++this.#misunderstood >= 2) this.#version = undefined;
    const asked =
      error.failure.code === 'STATUS'
        ? Math.min(error.failure.retryAfterMs ?? 0, MAX_RETRY_AFTER_MS) * (1 + random() / 2)
        : 0;
    const retryInMs = Math.max(this.#backoff.next(), asked);
    this.#downSinceMs ??= clock.now();
    this.#tell({
      state: 'disconnected',
      kind: watched.kind,
      sinceMs: this.#downSinceMs,
      why: error.message,
      retryInMs,
    });
    await clock.sleep(retryInMs, signal);
  }

  /** @returns The version of the list, to watch from. */
  async #list(signal: AbortSignal): Promise<string> {
    let version = await this.#listOnce(signal);
    if (isOlder(version, this.#latest)) {
      // What an object's version says of it held for the numbers of before: everything is told again.
      this.#deliveries.forgetVersions();
      version = await this.#listOnce(signal);
    }
    this.#latest = version;
    return version;
  }

  async #listOnce(signal: AbortSignal): Promise<string> {
    const { client, watched } = this.#options;
    const pass = this.#deliveries.beginList();
    let next = '';
    let version = '';
    do {
      const query = new URLSearchParams(selectorsOf(watched));
      if (!this.#listWhole) query.set('limit', `${PAGE_ITEMS}`);
      if (next !== '') query.set('continue', next);
      else if (this.#mayListOld) query.set('resourceVersion', '0');
      const head = await client
        .stream(`${watched.path}?${query}`, { idleTimeoutMs: LIST_IDLE_MS }, signal)
        .then((answer) => this.#readPage(answer, pass))
        .catch((error) => {
          if (next !== '' && isExpired(error)) this.#listWhole = true;
          throw error;
        });
      next = head.next;
      version = head.version;
    } while (next !== '');
    pass.end();
    this.#mayListOld = false;
    this.#listWhole = false;
    this.#misunderstood = 0;
    this.#isFresh = true;
    return version;
  }

  async #readPage(answer: ApiStream, pass: { item(value: unknown): void }) {
    const splitter = new ListSplitter((text) => pass.item(parseWire(text, 'an item of a list')));
    for await (const chunk of answer.chunks) readWire(() => splitter.push(chunk));
    const head = readWire(() => splitter.end());
    if (!isJsonObject(head)) throw broken('a list', 'it is no object');
    if (head['kind'] === 'Status') throw statusError('list', head, undefined);
    return readWire(() => {
      const metadata = optionalObject(head, 'metadata', '');
      return {
        version: optionalString(metadata, 'resourceVersion', 'metadata'),
        next: optionalString(metadata, 'continue', 'metadata'),
      };
    });
  }

  async #watch(from: string, signal: AbortSignal): Promise<void> {
    const { client, clock, random, watched } = this.#options;
    const query = new URLSearchParams({
      ...selectorsOf(watched),
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: from,
      timeoutSeconds: `${Math.floor(MIN_WATCH_S * (1 + random()))}`,
    });
    const path = `${watched.path}?${query}`;
    const answer = await client.stream(path, { idleTimeoutMs: WATCH_IDLE_MS }, signal);
    const startMs = clock.now();
    this.#downSinceMs = undefined;
    this.#tell({ state: 'connected', kind: watched.kind, server: answer.server });
    let lines = 0;
    this.#isSilent = true;
    const splitter = new LineSplitter((line) => {
      lines++;
      this.#isSilent = false;
      this.#onLine(parseWire(line, 'a line of a watch'));
    });
    for await (const chunk of answer.chunks) readWire(() => splitter.push(chunk));
    if (splitter.isInLine) throw broken('a watch', 'it ends within a line');
    if (lines === 0 && clock.now() - startMs < SHORT_WATCH_MS) throw broken('a watch', 'it ends as soon as it begins');
  }

  #onLine(line: unknown): void {
    const type = isJsonObject(line) ? line['type'] : undefined;
    const object = isJsonObject(line) ? line['object'] : undefined;
    const version = versionOf(object);
    // A delete may show the object as it last was; of the rest, only what was told already may be told again.
    const mayBeOld = type === 'DELETED' || type === 'ERROR' || this.#deliveries.isDelivered(object);
    if (!mayBeOld && isOlder(version, this.#latest)) {
      const message = `versions went back from ${this.#latest} to ${version}`;
      throw statusError('watch', { code: 410, reason: 'Expired', message }, undefined);
    }
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
        this.#deliveries.upsert(object);
        break;
      case 'DELETED':
        this.#deliveries.remove(object);
        break;
      case 'BOOKMARK':
        break;
      case 'ERROR':
        throw statusError('watch', object, undefined);
      default:
        throw broken('a watch', 'a line is no event');
    }
    if (version !== '' && !isOlder(version, this.#latest)) {
      this.#version = version;
      this.#latest = version;
    }
    this.#misunderstood = 0;
    this.#isFresh = false;
  }

  /** Tells a state when it begins or its reason changes, not at each attempt. */
  #tell(status: Parameters<NonNullable<SourceHandlers['onStatus']>>[0]): void {
    const now = `${status.state} ${'why' in status ? status.why : ''}`;
    if (now === this.#told) return;
    this.#told = now;
    this.#options.handlers.onStatus?.(status);
  }
}

function selectorsOf({ labelSelector, fieldSelector }: WatchedKind): Record<string, string> {
  return { ...(labelSelector && { labelSelector }), ...(fieldSelector && { fieldSelector }) };
}

/** True if asking the same again may fail for ever: only a new list gets past it. */
function isMisunderstanding(error: ApiError): boolean {
  const { failure } = error;
  if (failure.code === 'STATUS') return failure.isEvent || !SERVER_TROUBLE.includes(failure.status);
  return failure.code === 'BROKEN' && error.cause instanceof SyntaxError;
}

/** Versions of objects that do not decode count too: a resume must not bring them again. */
function versionOf(object: unknown): string {
  const metadata: JsonObject = isJsonObject(object) && isJsonObject(object['metadata']) ? object['metadata'] : {};
  const version = metadata['resourceVersion'];
  return typeof version === 'string' ? version : '';
}

/**
 * True if both versions are decimal numbers, which they are in every server of Kubernetes, and the first is smaller.
 * Other texts have no order.
 */
function isOlder(version: string, than: string): boolean {
  if (!/^[1-9]\d*$/.test(version) || !/^[1-9]\d*$/.test(than)) return false;
  return version.length === than.length ? version < than : version.length < than.length;
}

function broken(what: string, why: string): ApiError {
  const cause = new SyntaxError(why);
  return new ApiError(`Cannot read ${what}: ${why}`, { code: 'BROKEN' }, { cause });
}

/** Parses a text of the wire. @throws {ApiError} With `BROKEN`: the answer as a whole is not to be trusted. */
function parseWire(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ApiError(`Cannot read ${what}: no JSON`, { code: 'BROKEN' }, { cause });
  }
}

function readWire<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof SyntaxError || cause instanceof DecodeError)) throw cause;
    throw new ApiError(cause.message, { code: 'BROKEN' }, { cause });
  }
}
