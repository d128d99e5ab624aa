/**
 * One real request over one new connection, from the namespace of the process that runs it.
 *
 * @module
 */

import { createSocket } from 'node:dgram';
import { get } from 'node:http';
import { connect, isIPv6 } from 'node:net';
import { text } from 'node:stream/consumers';
import { assertNever } from '../proxier/types.ts';
import type { PodAnswer, RequestOutcome, RequestSpec } from './protocol.ts';

type Ending =
  | {
      readonly kind: 'answered';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly text: string;
    }
  | { readonly kind: 'error'; readonly code: string }
  | { readonly kind: 'timeout' };

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error);
}

function askHttp(spec: RequestSpec, signal: AbortSignal): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const request = get(
      {
        host: spec.address,
        port: spec.port,
        path: spec.path,
        agent: false,
        signal,
        ...(spec.from === undefined ? {} : { localAddress: spec.from }),
        ...(spec.fromPort === 0 ? {} : { localPort: spec.fromPort }),
      },
      (response) => {
        const status = response.statusCode ?? 0;
        const headers = Object.fromEntries(
          Object.entries(response.headers).map(([name, value]) => [name, String(value)]),
        );
        text(response).then((body) => resolve({ kind: 'answered', status, headers, text: body }), reject);
      },
    );
    request.on('error', reject);
  });
}

function askTcp(spec: RequestSpec, signal: AbortSignal): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: spec.address,
      port: spec.port,
      signal,
      ...(spec.from === undefined ? {} : { localAddress: spec.from }),
      ...(spec.fromPort === 0 ? {} : { localPort: spec.fromPort }),
    });
    let said = '';
    socket.setEncoding('utf8');
    socket.on('error', reject);
    socket.on('data', (chunk: string) => {
      said += chunk;
      if (said.includes('\n')) socket.destroy();
    });
    socket.on('close', () => resolve({ kind: 'answered', status: 200, text: said }));
  });
}

function askUdp(spec: RequestSpec, signal: AbortSignal): Promise<Ending> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: isIPv6(spec.address) ? 'udp6' : 'udp4' });
    const end = (done: () => void) => {
      signal.removeEventListener('abort', onAbort);
      socket.close();
      done();
    };
    const onAbort = () => end(() => reject(signal.reason));
    signal.addEventListener('abort', onAbort);
    socket.on('error', (error) => end(() => reject(error)));
    socket.on('message', (said) => end(() => resolve({ kind: 'answered', status: 200, text: said.toString() })));
    socket.bind(spec.fromPort, spec.from, () => {
      // Connected, so that ICMP port unreachable comes back as an error.
      socket.connect(spec.port, spec.address, () => socket.send('who is there?\n'));
    });
  });
}

function ask(spec: RequestSpec, signal: AbortSignal): Promise<Ending> {
  switch (spec.kind) {
    case 'http':
      return askHttp(spec, signal);
    case 'tcp':
      return askTcp(spec, signal);
    case 'udp':
      return askUdp(spec, signal);
    default:
      return assertNever(spec.kind, 'a request of kind');
  }
}

/** Sends one request and waits for its end; never throws for what the network does. */
export async function sendRequest(spec: RequestSpec): Promise<RequestOutcome> {
  const startedMs = performance.now();
  const deadline = AbortSignal.timeout(spec.timeoutMs);
  const ending = await ask(spec, deadline).catch(
    (error: unknown): Ending => (deadline.aborted ? { kind: 'timeout' } : { kind: 'error', code: errorCode(error) }),
  );
  const ms = Math.round((performance.now() - startedMs) * 10) / 10;
  if (ending.kind === 'error') {
    return { kind: ending.code === 'ECONNREFUSED' ? 'refused' : 'failed', code: ending.code, ms };
  }
  return { ...ending, ms };
}

/** What a pod said, or undefined if the request was not answered by a pod of the lab. */
export function decodePodAnswer(outcome: RequestOutcome): PodAnswer | undefined {
  if (outcome.kind !== 'answered') return undefined;
  try {
    const said: unknown = JSON.parse(outcome.text);
    return typeof said === 'object' && said !== null && 'pod' in said ? (said as PodAnswer) : undefined;
  } catch {
    // Not JSON: someone else answered.
    return undefined;
  }
}
