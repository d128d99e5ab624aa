/**
 * An HTTP server that answers nothing by itself: a test takes each request and answers it. So a test says what the
 * server does, in order, and waits for nothing but requests and events.
 *
 * @module
 */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSecureServer, type ServerOptions } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import type { InvalidObject, WatchEvent } from '../../src/proxier/types.ts';
import type { SourceHandlers, SourceStatus } from '../../src/watch/source.ts';

/** Long enough for a loaded machine; only a test that fails waits for it. */
const PATIENCE_MS = 10_000;

/** Resolves when `isSo` holds. What makes it so calls `look`. */
class Waiters {
  readonly #waiting = new Set<() => void>();

  look(): void {
    for (const check of this.#waiting) check();
  }

  until<T>(what: string, find: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const check = () => {
        const found = find();
        if (found === undefined) return;
        clearTimeout(timer);
        this.#waiting.delete(check);
        resolve(found);
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(check);
        reject(new Error(`Cannot see ${what}: waited ${PATIENCE_MS} ms`));
      }, PATIENCE_MS);
      this.#waiting.add(check);
      check();
    });
  }
}

/** One request, to be answered. */
export class Asked {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, body: string, response: ServerResponse) {
    const url = new URL(request.url ?? '/', 'http://host');
    this.method = request.method ?? '';
    this.path = url.pathname;
    this.query = Object.fromEntries(url.searchParams);
    this.headers = request.headers;
    this.body = body;
    this.#response = response;
  }

  get isWatch(): boolean {
    return this.query['watch'] === 'true';
  }

  /** True once the client has closed the connection. */
  get isClosed(): boolean {
    return this.#response.destroyed || this.#response.closed;
  }

  json(value: unknown, status = 200, headers: Record<string, string> = {}): void {
    this.#response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(value));
  }

  bytes(body: Buffer | string, headers: Record<string, string> = {}): void {
    this.#response.writeHead(200, headers).end(body);
  }

  list(version: string, items: readonly unknown[], next?: string): void {
    this.json({ kind: 'List', metadata: { resourceVersion: version, ...(next && { continue: next }) }, items });
  }

  status(code: number, reason: string, headers: Record<string, string> = {}): void {
    this.json({ kind: 'Status', status: 'Failure', code, reason, message: `${reason}.` }, code, headers);
  }

  /** Answers with the head alone, so that the watch is open. */
  open(): this {
    this.#response.writeHead(200, { 'Content-Type': 'application/json' }).flushHeaders();
    return this;
  }

  line(type: string, object: unknown): this {
    return this.write(`${JSON.stringify({ type, object })}\n`);
  }

  write(raw: string): this {
    this.#response.write(raw);
    return this;
  }

  end(): void {
    this.#response.end();
  }

  /** Cuts the connection in the middle. */
  cut(): void {
    this.#response.destroy();
  }
}

export class ScriptedApi {
  readonly url: string;
  readonly #server: ReturnType<typeof createServer>;
  readonly #queue: Asked[] = [];
  readonly #waiters = new Waiters();
  readonly #sockets = new Set<Socket>();
  /** Connections that were opened so far. */
  connections = 0;

  private constructor(server: ReturnType<typeof createServer>, scheme: string) {
    this.#server = server;
    this.url = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('connection', (socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    server.on('request', async (request, response) => {
      this.#queue.push(new Asked(request, await text(request), response));
      this.#waiters.look();
    });
  }

  /** @param tls - Undefined: plain HTTP. */
  static async start(tls?: ServerOptions): Promise<ScriptedApi> {
    const server = tls === undefined ? createServer() : createSecureServer(tls);
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    return new ScriptedApi(server, tls === undefined ? 'http' : 'https');
  }

  /** The next request, of those that match. */
  asked(isWanted: (asked: Asked) => boolean = () => true): Promise<Asked> {
    return this.#waiters.until('a request', () => {
      const index = this.#queue.findIndex(isWanted);
      return index === -1 ? undefined : this.#queue.splice(index, 1)[0];
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }
}

/** What a source delivered, as one line each. */
export class Recorder implements SourceHandlers {
  readonly log: string[] = [];
  readonly events: WatchEvent[] = [];
  readonly invalid: InvalidObject[] = [];
  readonly statuses: SourceStatus[] = [];
  readonly #waiters = new Waiters();

  onEvent(event: WatchEvent): void {
    this.events.push(event);
    if (event.type === 'upsert') this.#say(`upsert ${event.object.key} ${event.object.resourceVersion}`.trim());
    else this.#say(event.type === 'delete' ? `delete ${event.key}` : `synced ${event.kind}`);
  }

  onInvalid(report: InvalidObject): void {
    this.invalid.push(report);
    this.#say(`invalid ${report.key} ${report.field}`);
  }

  onStatus(status: SourceStatus): void {
    this.statuses.push(status);
    this.#waiters.look();
  }

  /** What was said since the last call, once `last` was said. */
  async until(last: string): Promise<readonly string[]> {
    const end = await this.#waiters.until(`"${last}" after ${JSON.stringify(this.log)}`, () => {
      const index = this.log.indexOf(last);
      return index === -1 ? undefined : index;
    });
    return this.log.splice(0, end + 1);
  }

  /** The first status told that is in this state. Takes it and those before it. */
  async status<S extends SourceStatus['state']>(state: S): Promise<Extract<SourceStatus, { state: S }>> {
    return this.#waiters.until(`status ${state} in ${JSON.stringify(this.statuses)}`, () => {
      const index = this.statuses.findIndex((status) => status.state === state);
      if (index === -1) return undefined;
      return this.statuses.splice(0, index + 1).at(-1) as Extract<SourceStatus, { state: S }>;
    });
  }

  #say(line: string): void {
    this.log.push(line);
    this.#waiters.look();
  }
}
