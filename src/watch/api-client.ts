/**
 * Requests to the API server: HTTP and TLS, who we are, and which of several servers answers. Streams give their bytes
 * as they come, unpacked; nothing here reads an object.
 *
 * @module
 */

import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { Clock } from '../sys/clock.ts';
import { ApiError, statusError, statusOf } from './api-error.ts';
import { Connector, type Exchange } from './connector.ts';
import type { ApiCluster } from './credentials.ts';
import { readCredentials } from './credentials.ts';
import type { RequestListener } from './request-counts.ts';

/** An answer that is one JSON object is never larger. */
const MAX_BODY_BYTES = 16 * 2 ** 20;
/** Of an error's body, what is read. */
const MAX_ERROR_BYTES = 2 ** 16;
/** The API server's own limit for a request that is no watch. */
const ANSWER_TIMEOUT_MS = 60_000;

export interface StreamOptions {
  /** Nothing at all for this long: the connection counts as dead. */
  readonly idleTimeoutMs: number;
}

/** An answer whose body has just begun. */
export interface ApiStream {
  /** Base URL of the server that answers. */
  readonly server: string;
  /**
   * The body, unpacked. Ends when the server ends it; leaving the loop early closes the connection.
   *
   * @throws {ApiError} With `BROKEN` if it breaks off, `TIMED_OUT` if nothing comes for `idleTimeoutMs`.
   */
  readonly chunks: AsyncIterable<Buffer>;
}

export interface ApiClient {
  /** Each method @throws {ApiError} if no server answers, or the answer is no success. */
  stream(path: string, options: StreamOptions, signal?: AbortSignal): Promise<ApiStream>;
  get(path: string, signal?: AbortSignal): Promise<unknown>;
  post(path: string, body: unknown, signal?: AbortSignal): Promise<unknown>;
  /** @param contentType - As in `application/merge-patch+json`. */
  patch(path: string, body: unknown, contentType: string, signal?: AbortSignal): Promise<unknown>;
  /** Closes connections that nobody uses. */
  close(): void;
}

export interface ApiClientOptions {
  readonly cluster: ApiCluster;
  readonly clock: Clock;
  /** As in `switchyard/1.0.0 (linux/amd64)`. */
  readonly userAgent: string;
  /** Told about each attempt, when its answer begins or it fails. Stopped ones are not told. */
  readonly onAnswered?: RequestListener;
  /** Told the time that the server gives with each answer, in milliseconds since the epoch, in whole seconds. */
  readonly onServerTime?: (timeMs: number) => void;
}

/** How we name ourselves to the API server. @param arch - As Node has it; Kubernetes says amd64 for x64. */
export function formatUserAgent(version: string, arch: string): string {
  return `switchyard/${version} (linux/${arch === 'x64' ? 'amd64' : arch})`;
}

/** The head of an answer, and who gave it. */
interface Answered {
  readonly server: string;
  readonly answer: IncomingMessage;
}

interface Request {
  readonly method: 'GET' | 'POST' | 'PATCH';
  readonly path: string;
  readonly body?: string;
  readonly contentType?: string;
}

/** Creates a client. It connects when it is first asked. */
export function createApiClient(options: ApiClientOptions): ApiClient {
  return new HttpApiClient(options);
}

class HttpApiClient implements ApiClient {
  readonly #options: ApiClientOptions;
  readonly #connector: Connector;
  /** Index of the server that answered last. */
  #current = 0;

  constructor(options: ApiClientOptions) {
    this.#options = options;
    this.#connector = new Connector(options.clock);
  }

  async stream(path: string, options: StreamOptions, signal?: AbortSignal): Promise<ApiStream> {
    const answered = await this.#ask({ method: 'GET', path }, signal);
    return { server: answered.server, chunks: this.#chunks(answered, options.idleTimeoutMs, signal) };
  }

  get(path: string, signal?: AbortSignal): Promise<unknown> {
    return this.#json({ method: 'GET', path }, signal);
  }

  post(path: string, body: unknown, signal?: AbortSignal): Promise<unknown> {
    return this.#json({ method: 'POST', path, body: JSON.stringify(body), contentType: 'application/json' }, signal);
  }

  patch(path: string, body: unknown, contentType: string, signal?: AbortSignal): Promise<unknown> {
    return this.#json({ method: 'PATCH', path, body: JSON.stringify(body), contentType }, signal);
  }

  close(): void {
    this.#connector.close();
  }

  async #json(request: Request, signal?: AbortSignal): Promise<unknown> {
    const answered = await this.#ask(request, signal);
    const body = await this.#read(answered, MAX_BODY_BYTES, signal);
    try {
      return JSON.parse(body);
    } catch (cause) {
      throw new ApiError(`Cannot read the answer to ${describe(request)}: no JSON`, { code: 'BROKEN' }, { cause });
    }
  }

  /** Asks the current server, then the others in their order, until one answers. */
  async #ask(request: Request, signal?: AbortSignal): Promise<Answered> {
    const { servers } = this.#options.cluster;
    for (let tried = 1; ; tried++) {
      const server = servers[this.#current] ?? servers[0];
      try {
        return { server, answer: await this.#askOne(server, request, signal) };
      } catch (error) {
        if (!mayAnotherHelp(error, request)) throw error;
        this.#leave(server);
        if (tried >= servers.length) throw error;
      }
    }
  }

  /** Goes on to the next server, unless another request has done so already. */
  #leave(server: string): void {
    const { servers } = this.#options.cluster;
    if (servers[this.#current] === server) this.#current = (this.#current + 1) % servers.length;
  }

  async #askOne(server: string, request: Request, signal?: AbortSignal): Promise<IncomingMessage> {
    const credentials = await readCredentials(this.#options.cluster);
    const exchange: Exchange = {
      url: new URL(server.replace(/\/+$/, '') + request.path),
      server,
      method: request.method,
      headers: {
        ...credentials.headers,
        Accept: 'application/json',
        'Accept-Encoding': 'gzip',
        'User-Agent': this.#options.userAgent,
        ...(request.contentType !== undefined && { 'Content-Type': request.contentType }),
      },
      body: request.body,
      tls: credentials.tls,
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
    };
    const { clock } = this.#options;
    const startMs = clock.now();
    const told = (code: string) => {
      const seconds = (clock.now() - startMs) / 1000;
      this.#options.onAnswered?.({ method: request.method, host: exchange.url.host, code }, seconds);
    };
    const answer = await this.#connector.exchange(exchange, signal).catch((error: unknown) => {
      if (!signal?.aborted) told('<error>');
      throw error;
    });
    const status = answer.statusCode ?? 0;
    told(`${status}`);
    const timeMs = Date.parse(answer.headers.date ?? '');
    if (!Number.isNaN(timeMs)) this.#options.onServerTime?.(timeMs);
    if (status >= 200 && status < 300) return answer;
    const text = await this.#read({ server, answer }, MAX_ERROR_BYTES, signal).catch(() => '');
    throw statusError(describe(request), parseOrUndefined(text), {
      status,
      retryAfterMs: retryAfter(answer.headers['retry-after']),
    });
  }

  async #read(answered: Answered, maxBytes: number, signal?: AbortSignal): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.#chunks(answered, ANSWER_TIMEOUT_MS, signal)) {
      bytes += chunk.length;
      if (bytes > maxBytes) {
        throw new ApiError(`Cannot read an answer of ${answered.server}: more than ${maxBytes} bytes, must be less`, {
          code: 'BROKEN',
        });
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString();
  }

  async *#chunks(
    { server, answer }: Answered,
    idleTimeoutMs: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Buffer, void> {
    const { clock } = this.#options;
    const body = unpack(answer);
    const abort = () => body.destroy(new ApiError(`Cannot read from ${server}: stopped`, { code: 'ABORTED' }));
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    const done = new AbortController();
    let lastMs = clock.now();
    const watchdog = async () => {
      for (let left = idleTimeoutMs; left > 0; left = lastMs + idleTimeoutMs - clock.now()) {
        await clock.sleep(left, done.signal);
        if (done.signal.aborted) return;
      }
      const message = `Cannot read from ${server}: nothing for ${idleTimeoutMs} ms`;
      body.destroy(new ApiError(message, { code: 'TIMED_OUT', server, timeoutMs: idleTimeoutMs }));
      // What is silent for one is silent for all: the next request connects anew, and to another server.
      this.#connector.forgetIdle();
      this.#leave(server);
    };
    const watching = watchdog();
    try {
      for await (const chunk of body) {
        lastMs = clock.now();
        yield chunk;
      }
    } catch (cause) {
      if (cause instanceof ApiError) throw cause;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new ApiError(`Cannot read from ${server}: ${why}`, { code: 'BROKEN' }, { cause });
    } finally {
      done.abort();
      signal?.removeEventListener('abort', abort);
      answer.destroy();
      await watching;
    }
  }
}

function describe(request: Request): string {
  return `${request.method} ${request.path.split('?', 1)[0]}`;
}

/** Only what surely never reached a server is sent twice, unless asking twice is the same as asking once. */
function mayAnotherHelp(error: unknown, request: Request): boolean {
  if (!(error instanceof ApiError)) return false;
  if (error.failure.code === 'UNREACHABLE') return true;
  if (request.method !== 'GET') return false;
  return (
    error.failure.code === 'TIMED_OUT' || error.failure.code === 'BROKEN' || [502, 503, 504].includes(statusOf(error))
  );
}

/** The body as the server meant it. */
function unpack(answer: IncomingMessage): Readable {
  if (answer.headers['content-encoding'] !== 'gzip') return answer;
  const gunzip = createGunzip();
  // The error, if any, comes out of the stream that is read.
  pipeline(answer, gunzip, () => {});
  return gunzip;
}

function retryAfter(header: string | undefined): number | undefined {
  return header !== undefined && /^\d{1,6}$/.test(header) ? Number(header) * 1000 : undefined;
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A proxy's HTML: the status says enough.
    return undefined;
  }
}
