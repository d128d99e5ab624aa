/**
 * One HTTP request and the head of its answer, over connections that are kept. TLS settings may change from request to
 * request; connections made under old ones are let go.
 *
 * @module
 */

import type { Agent, ClientRequest, IncomingMessage } from 'node:http';
import https from 'node:https';
import type { Clock } from '../sys/clock.ts';
import { http } from '../sys/http.ts';
import { ApiError } from './api-error.ts';
import type { ReadCredentials } from './credentials.ts';

const CONNECT_TIMEOUT_MS = 10_000;
/** Unused connections are closed before the server does it: Go's default is 90 s idle, proxies have 60 s and less. */
const KEEP_UNUSED_MS = 30_000;
/** First probe of TCP on a silent connection. */
const TCP_KEEP_ALIVE_MS = 30_000;

export interface Exchange {
  readonly url: URL;
  /** What errors call the server. */
  readonly server: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
  readonly tls: ReadCredentials['tls'];
  /** From the end of the request to the head of the answer. */
  readonly answerTimeoutMs: number;
}

const KEEP = { keepAlive: true, keepAliveMsecs: TCP_KEEP_ALIVE_MS, timeout: KEEP_UNUSED_MS };

export class Connector {
  readonly #clock: Clock;
  readonly #plain = new http.Agent(KEEP);
  #secure = new https.Agent(KEEP);
  #secureFor = '';

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Sends a request.
   *
   * @returns The answer, whatever its status. Its body is the caller's to read or destroy; `signal` no longer counts.
   * @throws {ApiError} `UNREACHABLE`, `TIMED_OUT`, `BROKEN` (connected, but no answer) or `ABORTED`.
   */
  async exchange(exchange: Exchange, signal?: AbortSignal): Promise<IncomingMessage> {
    try {
      return await this.#once(exchange, signal);
    } catch (error) {
      // A kept connection that the server closes while we write to it. Nothing was read: once more, on a fresh one.
      if (!(error instanceof StaleConnection)) throw error;
      this.forgetIdle();
      return await this.#once(exchange, signal);
    }
  }

  /** Closes the connections that no request uses. */
  forgetIdle(): void {
    for (const agent of [this.#plain, this.#secure]) {
      for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
    }
  }

  close(): void {
    this.#plain.destroy();
    this.#secure.destroy();
  }

  #agent(exchange: Exchange): Agent {
    if (exchange.url.protocol !== 'https:') return this.#plain;
    const id = JSON.stringify(exchange.tls);
    if (id !== this.#secureFor) {
      this.forgetIdle();
      this.#secure = new https.Agent({ ...KEEP, ...exchange.tls });
      this.#secureFor = id;
    }
    return this.#secure;
  }

  #create(exchange: Exchange): ClientRequest {
    const { url, server, method, headers, body } = exchange;
    try {
      return (url.protocol === 'https:' ? https : http).request(url, {
        method,
        headers: body === undefined ? headers : { ...headers, 'Content-Length': `${Buffer.byteLength(body)}` },
        agent: this.#agent(exchange),
      });
    } catch (cause) {
      // A certificate or key that is none: perhaps a file that is half written. Node says so at once, not as an event.
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new ApiError(`Cannot use the credentials for ${server}: ${why}`, { code: 'CREDENTIALS' }, { cause });
    }
  }

  #once(exchange: Exchange, signal?: AbortSignal): Promise<IncomingMessage> {
    const { url, server, body } = exchange;
    return new Promise((resolve, reject) => {
      const answered = new AbortController();
      let connected = false;
      let timedOut: ApiError | undefined;
      const request = this.#create(exchange);
      // Not the request's own `signal`: aborted just after the answer, it destroys a connection that nobody listens to
      // any more, and the error of that ends the process (Node 24).
      const abort = () => request.destroy();
      signal?.addEventListener('abort', abort);
      const settle = () => {
        answered.abort();
        signal?.removeEventListener('abort', abort);
      };
      const limit = async (timeoutMs: number, isDone: () => boolean, what: string) => {
        await this.#clock.sleep(timeoutMs, answered.signal);
        if (answered.signal.aborted || isDone()) return;
        const message = `Cannot ${what} ${server}: nothing for ${timeoutMs} ms`;
        // A request that never got a connection never reached the server.
        const failure = connected
          ? ({ code: 'TIMED_OUT', server, timeoutMs } as const)
          : ({ code: 'UNREACHABLE', server } as const);
        timedOut = new ApiError(message, failure);
        request.destroy(timedOut);
        this.forgetIdle();
      };
      void limit(CONNECT_TIMEOUT_MS, () => connected, 'connect to');
      void limit(CONNECT_TIMEOUT_MS + exchange.answerTimeoutMs, () => false, 'get an answer from');
      request.on('socket', (socket) => {
        if (!socket.connecting && request.reusedSocket) connected = true;
        else
          socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', () => {
            connected = true;
          });
      });
      request.on('response', (answer) => {
        settle();
        // The body has its own reader and limits; until one is there, its error must not be nobody's.
        answer.on('error', () => {});
        resolve(answer);
      });
      request.on('error', (cause) => {
        settle();
        if (timedOut) reject(timedOut);
        else if (signal?.aborted) reject(new ApiError(`Cannot ask ${server}: stopped`, { code: 'ABORTED' }, { cause }));
        else if (request.reusedSocket && isReset(cause)) reject(new StaleConnection(server, cause));
        else reject(explain(server, cause, connected));
      });
      if (signal?.aborted) abort();
      else request.end(body);
    });
  }
}

class StaleConnection extends ApiError {
  constructor(server: string, cause: Error) {
    super(`Cannot ask ${server}: it closed the connection`, { code: 'BROKEN' }, { cause });
  }
}

function isReset(error: Error): boolean {
  return 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
}

function explain(server: string, cause: Error, connected: boolean): ApiError {
  // Node gives an AggregateError without a message when every address of a name refuses.
  const why = cause.message || (cause instanceof AggregateError ? cause.errors.map(String).join('; ') : cause.name);
  return connected
    ? new ApiError(`Cannot get an answer from ${server}: ${why}`, { code: 'BROKEN' }, { cause })
    : new ApiError(`Cannot connect to ${server}: ${why}`, { code: 'UNREACHABLE', server }, { cause });
}
