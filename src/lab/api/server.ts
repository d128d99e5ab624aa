/**
 * A Kubernetes API server in memory: enough of one for a service proxy and for kubectl.
 *
 *     request ─► token ─► chaos ─► /lab/… │ discovery │ watch │ list, get, create, update, patch, delete
 *
 * Besides the Kubernetes API there is `/lab/`: `apply`, `replace`, `delete` (POST a list of objects), `chaos` (POST switches),
 * `stats` (GET). They are what the methods of `ApiServer` are, for other processes.
 *
 * @module
 */

import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { isIPv6 } from 'node:net';
import { stringify } from 'yaml';
import { type Clock, realClock } from '../../sys/clock.ts';
import { Chaos, commandChaos } from './chaos.ts';
import { discover } from './discovery.ts';
import { type Exchange, readJson, sendFailure, sendText } from './exchange.ts';
import { type KubeObject, toKubeObject } from './object.ts';
import { ObjectsApi, parseResourcePath } from './objects-api.ts';
import { openApiV3 } from './openapi.ts';
import { Registry } from './registry.ts';
import { resourceOfKind } from './resources.ts';
import { ApiError, badRequest, methodNotAllowed, noSuchPath, unauthorized } from './status.ts';
import { WatchApi } from './watch-api.ts';

export interface ApiServerOptions {
  /** Address to listen on. Default 127.0.0.1. */
  readonly host?: string;
  /** Default 0: any free port. */
  readonly port?: number;
  /** PEM texts; with them the server speaks HTTPS. `ca` goes into the kubeconfig; default: the certificate itself. */
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
  /** Bearer token every request must carry. Default: none is needed. */
  readonly token?: string;
  /** Ranges of cluster IPs, the default family first. Default 10.43.0.0/16 and fd00:10:43::/112. */
  readonly serviceCIDRs?: readonly string[];
  readonly nodePorts?: { readonly from: number; readonly to: number };
  /** Changes kept for each resource, for watches to resume. Default 20,000. */
  readonly historyLimit?: number;
  /** Time between bookmarks. Default 5,000 ms. */
  readonly bookmarkMs?: number;
  /** Default true. */
  readonly streamingLists?: boolean;
  /** Default false, as real API servers. */
  readonly gzipWatches?: boolean;
  readonly clock?: Clock;
}

/** One request that was answered or is being answered. */
export interface RequestRecord {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly userAgent: string;
  /** HTTP code; 0 until the answer has begun. */
  readonly code: number;
}

export interface ApiStats {
  readonly requests: number;
  /** By method and path without query, as in `GET /api/v1/services`; watches are counted as `WATCH …`. */
  readonly byPath: Readonly<Record<string, number>>;
  /** By plural of the resource. */
  readonly openWatches: Readonly<Record<string, number>>;
  readonly resourceVersion: number;
}

/** `admit`: defaults, checks, allocations. `asGiven`: stored as it is, even what no API server would take. */
export type LoadMode = 'admit' | 'asGiven';

export interface ApiServer {
  /** As in `http://127.0.0.1:40123`. */
  readonly url: string;
  readonly chaos: Chaos;
  /** A kubeconfig file for this server, as YAML. */
  kubeconfig(): string;
  /** Creates or replaces objects, their status too. @returns The resourceVersion after it. @throws {ApiError} 422. */
  apply(objects: readonly unknown[], mode?: LoadMode): string;
  /** Deletes objects, told by kind, namespace and name; those that are not there are left out. @returns As `apply`. */
  delete(objects: readonly unknown[]): string;
  /** Makes a set of objects the whole of the cluster, but for namespaces and events. By default as given. */
  replaceAll(objects: readonly unknown[], mode?: LoadMode): string;
  /** Objects of a kind in the order of their keys. Not to be changed. */
  list(kind: string, apiVersion?: string): readonly KubeObject[];
  /** Sends every watch that takes one a bookmark now. */
  bookmark(): void;
  stats(): ApiStats;
  /** The last requests, oldest first; at most 1,000. */
  requests(): readonly RequestRecord[];
  /** Ends every connection and stops listening. */
  close(): Promise<void>;
}

const RECORDS = 1000;

/** A client that deletes a namespace and what is in it, as `kubectl delete -f` does, still finds the rest. */
const NAMESPACE_GRACE_MS = 500;

const NAMESPACES = ['default', 'kube-node-lease', 'kube-public', 'kube-system'];

/** Starts a server. @throws {SyntaxError} If a service CIDR is none. Rejects if the address cannot be listened on. */
export async function createApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const { host = '127.0.0.1', port = 0, tls, token, clock = realClock } = options;
  const closing = new AbortController();
  const registry = new Registry(
    {
      serviceCIDRs: options.serviceCIDRs ?? ['10.43.0.0/16', 'fd00:10:43::/112'],
      nodePorts: options.nodePorts ?? { from: 30000, to: 32767 },
      historyLimit: options.historyLimit ?? 20_000,
    },
    { clock, afterGrace: (finish) => void clock.sleep(NAMESPACE_GRACE_MS, closing.signal).then(finish) },
  );
  const objects = new ObjectsApi(registry, clock);
  const watches: WatchApi = new WatchApi(
    registry,
    {
      bookmarkMs: options.bookmarkMs ?? 5000,
      streamingLists: options.streamingLists ?? true,
      gzipWatches: options.gzipWatches ?? false,
    },
    { clock, chaos: () => chaos },
  );
  const chaos: Chaos = new Chaos(watches, {
    compact: () => {
      registry.store.compact();
      objects.lists.expire();
    },
  });
  for (const name of NAMESPACES) registry.ensureNamespace(name);

  const byPath: Record<string, number> = {};
  const records: (Omit<RequestRecord, 'code'> & { code: number })[] = [];
  let requests = 0;

  const apply = (given: readonly unknown[], mode: LoadMode = 'admit') => {
    for (const object of given) registry.load(object, mode);
    return String(registry.store.resourceVersion);
  };
  const remove = (given: readonly unknown[]) => {
    for (const value of given) {
      const { kind, apiVersion, metadata } = toKubeObject(value);
      const resource = resourceOfKind(kind, apiVersion);
      const namespace = resource?.namespaced ? metadata.namespace || 'default' : '';
      const key = namespace === '' ? metadata.name : `${namespace}/${metadata.name}`;
      if (resource && registry.store.get(resource.storage, key)) {
        registry.remove({ resource, namespace, name: metadata.name });
      }
    }
    return String(registry.store.resourceVersion);
  };
  const replaceAll = (given: readonly unknown[], mode: LoadMode = 'asGiven') => {
    registry.replaceAll(given, mode);
    return String(registry.store.resourceVersion);
  };
  const stats = (): ApiStats => ({
    requests,
    byPath: { ...byPath },
    openWatches: watches.open,
    resourceVersion: registry.store.resourceVersion,
  });

  async function lab(exchange: Exchange): Promise<void> {
    const { request, path, query } = exchange;
    const answer = (value: object) => sendText(exchange, 200, JSON.stringify(value));
    if (path === '/lab/stats') return await answer(stats());
    if (request.method !== 'POST') throw methodNotAllowed();
    const body = await readJson(request);
    if (path === '/lab/chaos') {
      if (typeof body !== 'object' || body === null) throw badRequest('Cannot set chaos: the body must be an object');
      return await answer(commandChaos(chaos, { ...body }));
    }
    const given: readonly unknown[] = Array.isArray(body) ? body : [body];
    const mode = query.get('mode');
    const chosen: [LoadMode] | [] = mode === 'admit' || mode === 'asGiven' ? [mode] : [];
    switch (path) {
      case '/lab/apply':
        return await answer({ resourceVersion: apply(given, ...chosen) });
      case '/lab/replace':
        return await answer({ resourceVersion: replaceAll(given, ...chosen) });
      case '/lab/delete':
        return await answer({ resourceVersion: remove(given) });
      default:
        throw noSuchPath();
    }
  }

  async function route(exchange: Exchange): Promise<void> {
    const { path, query, request } = exchange;
    if (path.startsWith('/lab/')) return await lab(exchange);
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) throw unauthorized();
    const refusal = chaos.takeRefusal(path);
    if (refusal) {
      const { status: code, retryAfterSeconds } = refusal;
      const reason = code === 429 ? 'TooManyRequests' : code === 503 ? 'ServiceUnavailable' : 'InternalError';
      const error = new ApiError({ code, reason, message: 'refused on purpose' });
      const headers = retryAfterSeconds === undefined ? {} : { 'Retry-After': String(retryAfterSeconds) };
      return await sendFailure(exchange, error, headers);
    }
    if (chaos.answersMs > 0) await clock.sleep(chaos.answersMs, closing.signal);
    if (request.method === 'GET') {
      if (['/healthz', '/livez', '/readyz'].includes(path)) {
        exchange.response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' }).end('ok');
        return;
      }
      const document = discover(path);
      if (document) return await sendText(exchange, 200, JSON.stringify(document));
      const openApi = path.startsWith('/openapi/v3') ? openApiV3(path) : undefined;
      if (openApi !== undefined) return await sendText(exchange, 200, openApi);
    }
    const resourcePath = parseResourcePath(path);
    if (resourcePath === undefined) throw noSuchPath();
    const watch = query.get('watch');
    if (request.method === 'GET' && (watch === 'true' || watch === '1') && !resourcePath.subresource) {
      watches.start(exchange, resourcePath);
    } else await objects.handle(exchange, resourcePath);
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '/', search = ''] = (request.url ?? '/').split('?', 2);
    const query = new URLSearchParams(search);
    const exchange: Exchange = { request, response, path, query, chaos };
    const verb = query.get('watch') === 'true' || query.get('watch') === '1' ? 'WATCH' : (request.method ?? '');
    requests++;
    byPath[`${verb} ${path}`] = (byPath[`${verb} ${path}`] ?? 0) + 1;
    const userAgent = request.headers['user-agent'] ?? '';
    const record = { method: request.method ?? '', url: request.url ?? '', userAgent, code: 0 };
    records.push(record);
    if (records.length > 2 * RECORDS) records.splice(0, RECORDS);
    try {
      await route(exchange);
    } catch (error) {
      // Nothing more can be told to a client that has its answer's head already.
      if (response.headersSent) return void response.destroy();
      const failure =
        error instanceof ApiError
          ? error
          : new ApiError({
              code: error instanceof URIError ? 400 : 500,
              reason: error instanceof URIError ? 'BadRequest' : 'InternalError',
              message: error instanceof Error ? error.message : String(error),
            });
      await sendFailure(exchange, failure);
    } finally {
      record.code = response.headersSent ? response.statusCode : 0;
    }
  }

  const handler = (request: IncomingMessage, response: ServerResponse) => void serve(request, response);
  const server = tls ? createHttpsServer({ key: tls.key, cert: tls.cert }, handler) : createHttpServer(handler);
  // Watches are requests that last.
  server.requestTimeout = 0;
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const address = server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  const url = `${tls ? 'https' : 'http'}://${isIPv6(host) ? `[${host}]` : host}:${bound}`;
  const bookmarks = watches.run(closing.signal);

  return {
    url,
    chaos,
    kubeconfig: () => {
      const authority = tls && { 'certificate-authority-data': Buffer.from(tls.ca ?? tls.cert).toString('base64') };
      return stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'lab', cluster: { server: url, ...authority } }],
        users: [{ name: 'lab', user: token === undefined ? {} : { token } }],
        contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'lab' } }],
        'current-context': 'lab',
      });
    },
    apply,
    delete: remove,
    replaceAll,
    list: (kind, apiVersion) => {
      const resource = resourceOfKind(kind, apiVersion);
      if (resource === undefined) throw new RangeError(`Cannot list "${kind}": the server does not know the kind`);
      return registry.store.sorted(resource.storage).map((entry) => entry.object);
    },
    bookmark: () => watches.bookmark(),
    stats,
    requests: () => records.slice(-RECORDS).map((record) => ({ ...record })),
    close: async () => {
      closing.abort();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await Promise.all([closed, bookmarks]);
    },
  };
}
