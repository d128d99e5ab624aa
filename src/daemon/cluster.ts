/**
 * The cluster this node belongs to: what is watched, and where events go.
 *
 * @module
 */

import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Config } from '../config/types.ts';
import type { Clock } from '../sys/clock.ts';
import { version } from '../version.ts';
import { statusOf } from '../watch/api-error.ts';
import {
  clusterFromFlags,
  createApiClient,
  createApiSource,
  createFileSource,
  ENDPOINT_SLICES,
  formatUserAgent,
  nodeNamed,
  type RequestCount,
  RequestCounts,
  type RequestListener,
  SERVICE_CIDRS,
  SERVICES,
  type Source,
  type WatchedKind,
} from '../watch/source.ts';
import type { EventApi } from './events.ts';

/** The API server, as far as the daemon needs it. */
export interface ClusterAccess {
  /** The one Node of this name. */
  nodeSource(name: string): Source;
  /** Services, EndpointSlices and ServiceCIDRs. */
  readonly serviceSource: Source;
  readonly events: EventApi;
  /** Requests so far. */
  requests(): readonly RequestCount[];
  /** Time of the API server less our own, in milliseconds, to the second; undefined while it has not said. */
  clockSkewMs?(): number | undefined;
  /** Tells the only listener about each request, also those that were made before. */
  onRequest?(listener: RequestListener): void;
  close(): void;
}

/**
 * Reads who and where the API server is, or which manifests stand in for it. Connects to nothing yet.
 *
 * @throws {Error} If the kubeconfig, or the service account of the pod, cannot be read.
 */
export async function openCluster(config: Config, clock: Clock): Promise<ClusterAccess> {
  if (config.manifests.length > 0) return await openManifests(config.manifests, clock);
  const { kubeconfig } = config.clientConnection;
  const cluster = await clusterFromFlags({ kubeconfig, servers: config.apiServers, env: process.env });
  const userAgent = formatUserAgent(version(), process.arch);
  const counts = new RequestCounts();
  let skewMs: number | undefined;
  const client = createApiClient({
    cluster,
    clock,
    userAgent,
    onAnswered: (request, seconds) => counts.add(request, seconds),
    onServerTime: (timeMs) => {
      skewMs = timeMs - clock.now();
    },
  });
  const source = (kinds: readonly WatchedKind[]) =>
    createApiSource({ cluster, kinds, clock, userAgent, random: Math.random, client });
  return {
    nodeSource: (name) => source([nodeNamed(name)]),
    serviceSource: source([SERVICES, ENDPOINT_SLICES, SERVICE_CIDRS]),
    events: {
      post: async (path, body, signal) => void (await client.post(path, body, signal)),
      patch: async (path, body, signal) =>
        void (await client.patch(path, body, 'application/merge-patch+json', signal)),
      // 429 asks for patience; every other 4xx would be said again.
      isFinal: (error) => statusOf(error) >= 400 && statusOf(error) < 500 && statusOf(error) !== 429,
    },
    requests: () => counts.all(),
    clockSkewMs: () => skewMs,
    onRequest: (listener) => counts.listen(listener),
    close: () => client.close(),
  };
}

/** Manifests in place of an API server: nobody is there to take events. */
async function openManifests(paths: readonly string[], clock: Clock): Promise<ClusterAccess> {
  // Read once, since both sources look for their kinds in it.
  const piped = paths.includes('-') ? await text(process.stdin) : '';
  const source = (kinds: readonly WatchedKind[]) =>
    createFileSource({ paths, kinds, clock, stdin: Readable.from([piped]) });
  return {
    nodeSource: (name) => source([nodeNamed(name)]),
    serviceSource: source([SERVICES, ENDPOINT_SLICES, SERVICE_CIDRS]),
    events: { post: async () => {}, patch: async () => {}, isFinal: () => true },
    requests: () => [],
    close: () => {},
  };
}
