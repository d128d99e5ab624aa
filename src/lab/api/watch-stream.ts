/**
 * One open watch: an HTTP answer that goes on.
 *
 * Events of one turn of the event loop are written together. Bookmarks go the way of the events, so that none overtakes one.
 *
 * @module
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, createGzip, type Gzip } from 'node:zlib';
import type { Clock } from '../../sys/clock.ts';
import type { Chaos } from './chaos.ts';

/** A client that is this far behind is cut off. */
const MAX_BUFFERED_BYTES = 256 * 1024 * 1024;

export interface WatchStreamDeps {
  readonly clock: Pick<Clock, 'sleep'>;
  readonly chaos: Chaos;
}

export class WatchStream {
  readonly resource: string;
  /** The client asked for bookmarks. */
  readonly bookmarks: boolean;
  readonly #response: ServerResponse;
  readonly #gzip: Gzip | undefined;
  readonly #deps: WatchStreamDeps;
  readonly #closed = new AbortController();
  #pending: string[] = [];
  #writing = false;
  #ending = false;
  #silent = false;

  constructor(
    response: ServerResponse,
    options: { readonly resource: string; readonly bookmarks: boolean; readonly gzip: boolean },
    deps: WatchStreamDeps,
  ) {
    this.resource = options.resource;
    this.bookmarks = options.bookmarks;
    this.#response = response;
    this.#deps = deps;
    response.on('close', () => this.#closed.abort());
    // A client may go at any time; `close` follows.
    response.on('error', () => {});
    response.writeHead(200, {
      'Content-Type': 'application/json',
      'Cache-Control': 'no-cache, private',
      ...(options.gzip && { 'Content-Encoding': 'gzip', Vary: 'Accept-Encoding' }),
    });
    if (options.gzip) {
      this.#gzip = createGzip({ level: 1, flush: constants.Z_SYNC_FLUSH });
      this.#gzip.on('data', (chunk: Buffer) => response.write(chunk));
      this.#gzip.on('end', () => response.end());
    }
    response.flushHeaders();
  }

  /** Aborts when the connection is gone, whoever ended it. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** Sends a line, which ends in a newline. */
  send(line: string): void {
    this.#pending.push(line);
    if (this.#writing) return;
    this.#writing = true;
    queueMicrotask(() => void this.#flush());
  }

  async #flush(): Promise<void> {
    const { clock, chaos } = this.#deps;
    while (this.#pending.length > 0) {
      if (chaos.eventsMs > 0) await clock.sleep(chaos.eventsMs, this.closed);
      if (this.closed.aborted) return;
      const text = this.#pending
        .splice(0)
        .map((line) => this.#garbled(line))
        .join('');
      if (this.#silent) continue;
      if (this.#gzip) this.#gzip.write(text);
      else this.#response.write(text);
      if (this.#response.writableLength > MAX_BUFFERED_BYTES) this.drop();
    }
    this.#writing = false;
    if (this.#ending) this.#end();
  }

  #garbled(line: string): string {
    const { chaos } = this.#deps;
    // Bookmarks come by the clock: which of the watches lost its line would be chance.
    if (line.startsWith('{"type":"BOOKMARK"')) return line;
    if (chaos.takeGarble('line')) return `${line.slice(0, line.length >> 1)}\n`;
    if (!chaos.takeGarble('types')) return line;
    const event: { object?: { metadata?: object } } = JSON.parse(line);
    const metadata = { ...event.object?.metadata, labels: ['not', 'a', 'map'] };
    return `${JSON.stringify({ ...event, object: { ...event.object, metadata, spec: 'garbled', ports: 7 } })}\n`;
  }

  /** Ends the stream in good order, after what was sent. */
  finish(): void {
    this.#ending = true;
    if (!this.#writing) this.#end();
  }

  #end(): void {
    if (this.#gzip) this.#gzip.end();
    else this.#response.end();
  }

  /** Cuts the connection. */
  drop(): void {
    this.#response.destroy();
  }

  /** Sends the end of the server's half of the connection without the end of the answer. */
  halfClose(): void {
    this.#response.socket?.end();
  }

  /** Never sends anything again. */
  silence(): void {
    this.#silent = true;
  }
}

/** True if the client takes gzip. */
export function acceptsGzip(request: IncomingMessage): boolean {
  return /\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))/.test(String(request.headers['accept-encoding'] ?? ''));
}
