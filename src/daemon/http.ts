/**
 * The daemon's two HTTP servers: listen on an address, and keep trying when that fails.
 *
 * @module
 */

import type { IncomingMessage, RequestListener, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { splitHostPort } from '../config/addresses.ts';
import { isUnspecified, parseIP } from '../proxier/addr.ts';
import type { Log } from '../proxier/proxier.ts';
import type { Clock } from '../sys/clock.ts';
import { http } from '../sys/http.ts';
import type { Listener, Listeners } from '../sys/listeners.ts';

/** Time between two tries to listen. */
export const LISTEN_RETRY_MS = 5_000;

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Answers a request; path without query. Throwing gives a 500. */
export type Answerer = (request: {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  /** The Accept header; '' if there is none. */
  readonly accept: string;
  /** Of the other end of the connection; '' if it is gone. */
  readonly remoteAddress: string;
  /** Reads the body. @throws {RangeError} If it is longer than 64 KiB. */
  readonly body: () => Promise<string>;
}) => Answer | Promise<Answer>;

/** Text as Go's HTTP library sends it. */
export function textAnswer(status: number, body: string): Answer {
  return {
    status,
    headers: { 'Content-Type': 'text/plain; charset=utf-8', 'X-Content-Type-Options': 'nosniff' },
    body,
  };
}

/** What a path that nothing serves gets. */
export const NOT_FOUND = textAnswer(404, '404 page not found\n');

/** Nothing here takes more than a number. */
const MAX_BODY_BYTES = 64 * 1024;

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) throw new RangeError(`Cannot read a body: must be at most ${MAX_BODY_BYTES} bytes`);
  }
  return Buffer.concat(chunks).toString();
}

function listener(answer: Answerer, log: Log): RequestListener {
  return async (request, response) => {
    try {
      const [path = '/', query = ''] = (request.url ?? '/').split('?', 2);
      const { status, headers, body } = await answer({
        method: request.method ?? 'GET',
        path,
        query: new URLSearchParams(query),
        accept: request.headers.accept ?? '',
        remoteAddress: request.socket.remoteAddress ?? '',
        body: () => readBody(request),
      });
      response.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) });
      response.end(request.method === 'HEAD' ? undefined : body);
    } catch (error) {
      log.error({ url: request.url, err: error }, 'request failed');
      if (!response.headersSent) response.writeHead(500, { 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${http.STATUS_CODES[500]}\n`);
    }
  };
}

function listen(server: Server, address: string): Promise<AddressInfo> {
  const { host, port } = splitHostPort(address) ?? { host: '', port: '' };
  const ip = parseIP(host)?.ip;
  // As Go listens: 0.0.0.0 and :: are every address of both families, which is what Node takes no host for.
  const at = ip !== undefined && isUnspecified(ip) ? {} : { host };
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ ...at, port: Number(port) }, () => {
      server.off('error', reject);
      const bound = server.address();
      if (bound === null || typeof bound === 'string')
        reject(new TypeError(`Cannot listen on "${address}": not ip:port`));
      else resolve(bound);
    });
  });
}

export interface HttpOptions {
  /** For logs: `health`, `metrics`. */
  readonly name: string;
  /** `ip:port`, IPv6 in brackets. An unspecified address of either family stands for all addresses of both. */
  readonly address: string;
  readonly answer: Answerer;
  /** Fail instead of trying again. */
  readonly hardFail: boolean;
  readonly onListening?: (address: AddressInfo) => void;
}

const isTaken = (error: unknown) => error instanceof Error && 'code' in error && error.code === 'EADDRINUSE';

/** Who has the port, for the log; nothing if that cannot be found out. */
function describeRival(by: Listener | undefined): Readonly<Record<string, string>> {
  if (by === undefined) return {};
  return {
    takenBy: by.pid === undefined ? 'a process that cannot be seen from here' : `${by.program} (process ${by.pid})`,
    todo: "if it is another proxy, stop it: two on one node undo each other's work",
  };
}

/**
 * Serves until `signal` aborts.
 *
 * @throws {Error} If the address cannot be listened on and `hardFail` is set. Otherwise that is logged and tried again.
 */
export async function serveHttp(
  options: HttpOptions,
  { clock, log, listeners }: { readonly clock: Clock; readonly log: Log; readonly listeners?: Listeners },
  signal: AbortSignal,
): Promise<void> {
  const { name, address, answer, hardFail, onListening } = options;
  let toldWhy = '';
  while (!signal.aborted) {
    const server = http.createServer(listener(answer, log));
    try {
      const at = await listen(server, address);
      log.info({ server: name, address: at.address, port: at.port }, 'listening');
      onListening?.(at);
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        if (signal.aborted) resolve();
        else signal.addEventListener('abort', () => resolve(), { once: true });
      });
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      const error = new Error(`Cannot serve ${name} on "${address}": ${why}`, { cause });
      if (hardFail) throw error;
      // A port that stays taken is told once.
      const level = why === toldWhy ? 'debug' : 'error';
      toldWhy = why;
      const rival = isTaken(cause) ? describeRival(listeners?.on(Number(splitHostPort(address)?.port))) : {};
      log[level](
        { server: name, err: error, ...rival, retryMs: LISTEN_RETRY_MS },
        'not listening, will be tried again',
      );
      await clock.sleep(LISTEN_RETRY_MS, signal);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  }
}
