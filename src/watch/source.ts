/**
 * Where objects come from: the API server or files. Both deliver the same events to the same handlers.
 *
 * @module
 */

import type { InvalidObject, Kind, WatchEvent } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import { type ApiClient, createApiClient } from './api-client.ts';
import type { ApiCluster } from './credentials.ts';
import { Decoder } from './decode.ts';
import { Reflector } from './reflector.ts';
import type { WatchedKind } from './selectors.ts';

export type { ApiClient } from './api-client.ts';
export { createApiClient, formatUserAgent } from './api-client.ts';
export { ApiError } from './api-error.ts';
export { clusterFromFlags } from './cluster.ts';
export type { ApiCluster } from './credentials.ts';
export { createFileSource, readManifests } from './files.ts';
export type { FileProblem, Manifests } from './manifests.ts';
export { type RequestCount, RequestCounts, type RequestListener } from './request-counts.ts';
export type { WatchedKind } from './selectors.ts';
export { ENDPOINT_SLICES, NODES, nodeNamed, proxyKinds, SERVICE_CIDRS, SERVICES } from './selectors.ts';

/** How a source is doing. For logs: each is told once when it begins, and again when its reason changes. */
export type SourceStatus =
  /** A list is read and its watch is open. */
  | { readonly state: 'connected'; readonly kind: Kind; readonly server: string }
  | {
      readonly state: 'disconnected';
      readonly kind: Kind;
      /** Since when nothing comes, in milliseconds since the epoch. */
      readonly sinceMs: number;
      readonly why: string;
      readonly retryInMs: number;
    }
  /** The server has no such API, or does not let us read it: as if there were no objects of this kind. */
  | { readonly state: 'absent'; readonly kind: Kind; readonly why: string }
  /** A file, or one document of it, cannot be read. What was last good from it stays. */
  | { readonly state: 'broken-file'; readonly file: string; readonly document: number; readonly why: string }
  /** Objects in a file that nobody here reads, by `apiVersion kind`. Told once for each file that has them. */
  | { readonly state: 'ignored'; readonly file: string; readonly counts: ReadonlyMap<string, number> };

export interface SourceHandlers {
  onEvent(event: WatchEvent): void;
  /** Once for each object that does not decode, and again when something else is wrong with it. */
  onInvalid(report: InvalidObject): void;
  onStatus?(status: SourceStatus): void;
}

export interface Source {
  /**
   * Delivers events until `signal` aborts. What can pass (no server, no permission, a broken file) is told to
   * `onStatus` and tried again; it never ends a source.
   *
   * @throws Whatever a handler throws: then everything of this source stops.
   */
  run(handlers: SourceHandlers, signal: AbortSignal): Promise<void>;
}

export interface ApiSourceOptions {
  readonly cluster: ApiCluster;
  readonly kinds: readonly WatchedKind[];
  readonly clock: Clock;
  readonly userAgent: string;
  /** Gives numbers in [0, 1). */
  readonly random: () => number;
  /** Undefined: a client of its own. With one that others use too, they share connections and fail-over. */
  readonly client?: ApiClient;
}

/** The API server as source: one list and watch for each kind, side by side. */
export function createApiSource(options: ApiSourceOptions): Source {
  return {
    run: async (handlers, signal) => {
      const client = options.client ?? createApiClient(options);
      const decoder = new Decoder();
      const stop = new AbortController();
      const ended = AbortSignal.any([signal, stop.signal]);
      const runs = options.kinds.map((watched) =>
        new Reflector({ watched, client, decoder, clock: options.clock, random: options.random, handlers }).run(ended),
      );
      try {
        await Promise.all(runs);
      } finally {
        stop.abort();
        await Promise.allSettled(runs);
        if (options.client === undefined) client.close();
      }
    },
  };
}
