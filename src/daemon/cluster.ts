/**
 * The cluster this node belongs to: what is watched, and where events go.
 *
 * @module
 */

import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Config } from '../config/types.ts';
import type { Log } from '../proxier/proxier.ts';
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
  SERVICE_CIDRS,
  SERVICES,
  type Source,
  type SourceHandlers,
  type SourceStatus,
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
  const client = createApiClient({ cluster, clock, userAgent, onAnswered: (request) => counts.add(request) });
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

/** Logs how the watches are doing: one line when one is lost, with since when and why, one when it is back. */
export function logStatus(log: Log): NonNullable<SourceHandlers['onStatus']> {
  return (status: SourceStatus) => {
    switch (status.state) {
      case 'connected':
        log.info({ kind: status.kind, server: status.server }, 'watching');
        return;
      case 'disconnected':
        log.warn(
          { kind: status.kind, since: new Date(status.sinceMs).toISOString(), why: status.why },
          'cannot watch, trying again; rules stay as they are',
        );
        return;
      case 'absent':
        log.info({ kind: status.kind, why: status.why }, 'not served by this cluster');
        return;
      case 'broken-file':
        log.warn({ file: status.file, document: status.document, why: status.why }, 'cannot read');
    }
  };
}
