/**
 * Lists in pages. All pages of a list show the moment of its first page.
 *
 * @module
 */

import { compareText } from '../../proxier/types.ts';
import { ApiError, badRequest, expired } from './status.ts';
import type { Entry, Store } from './store.ts';

export interface ListRequest {
  readonly storage: string;
  readonly matches: (entry: Entry) => boolean;
  /** True if `matches` lets everything through, so that the rest of a page can be counted. */
  readonly matchesAll: boolean;
  /** 0: everything at once. */
  readonly limit: number;
  /** Token of the page before, '' for the first. */
  readonly continueToken: string;
  readonly resourceVersion: string;
  readonly resourceVersionMatch: string;
}

export interface Page {
  readonly entries: readonly Entry[];
  readonly resourceVersion: number;
  /** '' on the last page. */
  readonly continueToken: string;
  readonly remaining: number | undefined;
}

interface Snapshot {
  readonly storage: string;
  readonly resourceVersion: number;
  readonly entries: readonly Entry[];
}

/** Half-read lists that are remembered; the one that was begun first is forgotten first. */
const SNAPSHOTS = 64;

/** A token names a half-read list and how far it was read; one without a list goes on in what is there now. */
interface Token {
  readonly snapshot: number;
  readonly after: string;
}

function encode(token: Token): string {
  return Buffer.from(JSON.stringify(token)).toString('base64url');
}

function decode(text: string): Token {
  try {
    const token: unknown = JSON.parse(Buffer.from(text, 'base64url').toString());
    if (typeof token === 'object' && token !== null && 'snapshot' in token && 'after' in token) {
      return { snapshot: Number(token.snapshot), after: String(token.after) };
    }
  } catch {
    // Told below: a token is opaque to clients, they can only have changed it.
  }
  throw badRequest('continue key is not valid');
}

function parseVersion(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw badRequest(`Invalid value: ${JSON.stringify(text)}: invalid resource version`);
  return Number(text);
}

function invalidQuery(message: string): ApiError {
  return new ApiError({ code: 422, reason: 'Invalid', message: `ListOptions.meta.k8s.io "" is invalid: ${message}` });
}

export class Lists {
  readonly #store: Store;
  readonly #snapshots = new Map<number, Snapshot>();
  #nextSnapshot = 1;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Makes every token given out so far expire. */
  expire(): void {
    this.#snapshots.clear();
  }

  /**
   * Reads one page.
   *
   * @throws {ApiError} 400 (malformed), 410 (expired), 422 (options that exclude each other), 504 (a version of the future).
   */
  page(request: ListRequest): Page {
    const { limit, continueToken, resourceVersion, resourceVersionMatch } = request;
    if (resourceVersionMatch !== '' && resourceVersion === '') {
      throw invalidQuery(
        'resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided',
      );
    }
    if (continueToken !== '') {
      if (resourceVersion !== '' && resourceVersion !== '0') {
        throw badRequest('specifying resource version is not allowed when using continue');
      }
      return this.#next(request, decode(continueToken));
    }
    const now = this.#store.resourceVersion;
    const wanted = resourceVersion === '' ? 0 : parseVersion(resourceVersion);
    if (wanted > now) {
      throw new ApiError({
        code: 504,
        reason: 'Timeout',
        message: `Too large resource version: ${wanted}, current: ${now}`,
        details: {
          causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
          retryAfterSeconds: 1,
        },
      });
    }
    // The API server answers version 0 from its cache, and ignores the limit then.
    const unlimited = limit === 0 || resourceVersion === '0';
    if (resourceVersionMatch === 'Exact' && wanted !== now) {
      throw expired(`The resourceVersion for the provided list is too old: only ${now} is kept.`);
    }
    const entries = this.#store.sorted(request.storage).filter(request.matches);
    const snapshot = { storage: request.storage, resourceVersion: now, entries };
    return this.#cut(request, snapshot, undefined, 0, unlimited ? entries.length : limit);
  }

  #cut(request: ListRequest, snapshot: Snapshot, id: number | undefined, from: number, limit: number): Page {
    const { entries, resourceVersion } = snapshot;
    const page = from === 0 && limit >= entries.length ? entries : entries.slice(from, from + limit);
    const last = page.at(-1);
    const rest = entries.length - from - page.length;
    if (rest === 0 || last === undefined) {
      return { entries: page, resourceVersion, continueToken: '', remaining: undefined };
    }
    const kept = id ?? this.#nextSnapshot++;
    this.#snapshots.set(kept, snapshot);
    for (const oldest of this.#snapshots.keys()) {
      if (this.#snapshots.size <= SNAPSHOTS) break;
      this.#snapshots.delete(oldest);
    }
    const continueToken = encode({ snapshot: kept, after: last.key });
    return { entries: page, resourceVersion, continueToken, remaining: request.matchesAll ? rest : undefined };
  }

  #next(request: ListRequest, token: Token): Page {
    let snapshot = this.#snapshots.get(token.snapshot);
    let id: number | undefined = token.snapshot;
    if (token.snapshot === 0) {
      const entries = this.#store.sorted(request.storage).filter(request.matches);
      snapshot = { storage: request.storage, resourceVersion: this.#store.resourceVersion, entries };
      id = undefined;
    }
    if (snapshot === undefined) {
      throw expired(
        'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.',
        encode({ snapshot: 0, after: token.after }),
      );
    }
    if (snapshot.storage !== request.storage) throw badRequest('continue key is not valid');
    const { entries } = snapshot;
    let from = 0;
    let high = entries.length;
    while (from < high) {
      const middle = (from + high) >> 1;
      if (compareText(entries[middle]?.key ?? '', token.after) > 0) high = middle;
      else from = middle + 1;
    }
    return this.#cut(request, snapshot, id, from, request.limit === 0 ? entries.length - from : request.limit);
  }
}
