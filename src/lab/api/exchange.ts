/**
 * One request and its answer, as the handlers see them.
 *
 * @module
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { gzip as gzipWithCallback } from 'node:zlib';
import type { Chaos } from './chaos.ts';
import { ApiError, badRequest } from './status.ts';
import { acceptsGzip } from './watch-stream.ts';

const gzip = promisify(gzipWithCallback);

/** Bodies below this are sent as they are. */
const GZIP_FROM_BYTES = 1400;

/** As large as a body may be; `/lab/replace` takes whole clusters. */
const MAX_BODY_BYTES = 256 * 1024 * 1024;

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Path without the query, as it came. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly chaos: Chaos;
}

/** Reads a whole body as text. @throws {ApiError} 413. */
export async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    if (!Buffer.isBuffer(chunk)) continue;
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) {
      throw new ApiError({ code: 413, reason: 'RequestEntityTooLarge', message: 'Request entity too large' });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Reads a body of JSON. @throws {ApiError} 400, 413. */
export async function readJson(request: IncomingMessage): Promise<unknown> {
  const text = await readBody(request);
  try {
    return JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw badRequest(`Cannot read the body: it is no JSON (${why}), must be JSON`);
  }
}

/**
 * Sends an answer of JSON text, compressed if the client takes that.
 *
 * @param list - Lists can be garbled by chaos; single objects and failures never are.
 */
export async function sendText(
  exchange: Pick<Exchange, 'request' | 'response' | 'chaos'>,
  code: number,
  text: string,
  { list = false, headers = {} }: { list?: boolean; headers?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const { request, response, chaos } = exchange;
  const plain = Buffer.from(text);
  const compressed = plain.length >= GZIP_FROM_BYTES && acceptsGzip(request);
  const body = compressed ? await gzip(plain, { level: 1 }) : plain;
  response.writeHead(code, {
    'Content-Type': 'application/json',
    'Cache-Control': 'no-cache, private',
    'Content-Length': body.length,
    ...(compressed && { 'Content-Encoding': 'gzip', Vary: 'Accept-Encoding' }),
    ...headers,
  });
  if (!list || !chaos.takeGarble('gzip')) {
    response.end(body);
    return;
  }
  response.write(body.subarray(0, body.length >> 1), () => response.destroy());
}

/** Sends a failure as a Status. */
export async function sendFailure(
  exchange: Pick<Exchange, 'request' | 'response' | 'chaos'>,
  error: ApiError,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  await sendText(exchange, error.failure.code, JSON.stringify(error.toStatus()), { headers });
}
