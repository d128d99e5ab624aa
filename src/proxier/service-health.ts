/**
 * Health-check node ports: for every load-balanced Service with `externalTrafficPolicy: Local`, a small HTTP server
 * that tells the balancer whether this node has an endpoint of it. One instance per IP family.
 *
 * @module
 */

import type { Server } from 'node:http';
import { http } from '../sys/http.ts';
import { HEALTH_HEADERS } from './health.ts';
import { compareText, type ObjectKey } from './types.ts';

/** Addresses to listen on: one wildcard socket, or the node's own addresses. `[::]` takes IPv6 only. */
export type ListenHosts = readonly string[];

export interface ServiceHealthOptions {
  readonly hosts: ListenHosts;
  /** The proxy keeps up (the `/livez` sense). */
  readonly isProxyHealthy: () => boolean;
  /** A port that could not be opened. It is tried again at the next sync. */
  readonly onListenFailed: (service: ObjectKey, port: number, error: Error) => void;
}

/** One open Service. */
interface Listening {
  readonly port: number;
  readonly servers: readonly Server[];
  /** Distinct local ready endpoint addresses. */
  localEndpoints: number;
}

/** The body, indented by tabs and without a final newline, as balancers' logs have known it. */
export function serviceHealthBody(service: ObjectKey, localEndpoints: number, serviceProxyHealthy: boolean): string {
  const slash = service.indexOf('/');
  const names = { namespace: service.slice(0, slash), name: service.slice(slash + 1) };
  return JSON.stringify({ service: names, localEndpoints, serviceProxyHealthy }, null, '\t');
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, ipv6Only: host.includes(':') }, () => {
      server.off('error', reject);
      // A server that listens may still meet errors of single sockets; they are the client's loss.
      server.on('error', () => {});
      resolve();
    });
  });
}

/** Stops listening at once; requests under way are cut after their answer. */
function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** The servers of one family. Calls must not overlap: the sync of the family makes them. */
export class ServiceHealth {
  readonly #options: ServiceHealthOptions;
  readonly #open = new Map<ObjectKey, Listening>();

  constructor(options: ServiceHealthOptions) {
    this.#options = options;
  }

  /**
   * Opens and closes servers so that exactly `want` is open, as far as the ports can be had.
   *
   * @param want - Health-check node port by Service.
   */
  async syncServices(want: ReadonlyMap<ObjectKey, number>): Promise<void> {
    for (const [service, { port, servers }] of [...this.#open]) {
      if (want.get(service) === port) continue;
      this.#open.delete(service);
      await Promise.all(servers.map(close));
    }
    for (const [service, port] of [...want].sort(([a], [b]) => compareText(a, b))) {
      if (!this.#open.has(service)) await this.#listen(service, port);
    }
  }

  /** @param counts - Local ready endpoint addresses by Service; one that is absent has none. */
  syncEndpoints(counts: ReadonlyMap<ObjectKey, number>): void {
    for (const [service, listening] of this.#open) listening.localEndpoints = counts.get(service) ?? 0;
  }

  /** Where a Service's servers listen, as `host port`; empty if it has none. */
  addresses(service: ObjectKey): readonly { readonly host: string; readonly port: number }[] {
    return (this.#open.get(service)?.servers ?? []).flatMap((server) => {
      const at = server.address();
      return at === null || typeof at === 'string' ? [] : [{ host: at.address, port: at.port }];
    });
  }

  /** Closes every server. */
  async close(): Promise<void> {
    await this.syncServices(new Map());
  }

  async #listen(service: ObjectKey, port: number): Promise<void> {
    const servers: Server[] = [];
    try {
      for (const host of this.#options.hosts) {
        const server = http.createServer((_request, response) => {
          const listening = this.#open.get(service);
          if (listening === undefined) {
            // The Service went while the request was under way.
            response.writeHead(200).end();
            return;
          }
          const healthy = this.#options.isProxyHealthy();
          const { localEndpoints } = listening;
          const body = serviceHealthBody(service, localEndpoints, healthy);
          response
            .writeHead(localEndpoints > 0 && healthy ? 200 : 503, {
              ...HEALTH_HEADERS,
              'Content-Length': Buffer.byteLength(body),
              'X-Load-Balancing-Endpoint-Weight': String(localEndpoints),
            })
            .end(body);
        });
        servers.push(server);
        await listen(server, host, port);
      }
      this.#open.set(service, { port, servers, localEndpoints: 0 });
    } catch (error) {
      // All addresses or none: a balancer must not see one node twice and differently.
      await Promise.all(servers.map(close));
      this.#options.onListenFailed(service, port, error instanceof Error ? error : new Error(String(error)));
    }
  }
}
