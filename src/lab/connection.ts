/**
 * TCP connections that stay open between questions, to see what a change of rules does to them.
 *
 * @module
 */

import { connect, type Socket } from 'node:net';
import type { LineOutcome, RequestSpec } from './protocol.ts';

interface Held {
  readonly socket: Socket;
  /** Lines that came and nobody has asked for yet. */
  readonly lines: string[];
  /** Told when a line came or the connection ended. */
  wake(): void;
  ended: string | undefined;
}

const held = new Map<number, Held>();
let nextId = 1;

/** Next line that comes in, or why none will. */
async function nextLine(connection: Held, timeoutMs: number): Promise<LineOutcome> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const line = connection.lines.shift();
    if (line !== undefined) return { kind: 'line', text: line };
    if (connection.ended !== undefined) return { kind: 'ended', code: connection.ended };
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) return { kind: 'timeout' };
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, leftMs);
      connection.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Connects, and waits for the line with which a pod greets. */
export async function openConnection(spec: RequestSpec): Promise<{ id: number; greeting: LineOutcome }> {
  const socket = connect({
    host: spec.address,
    port: spec.port,
    ...(spec.from === undefined ? {} : { localAddress: spec.from }),
    ...(spec.fromPort === 0 ? {} : { localPort: spec.fromPort }),
  });
  const connection: Held = { socket, lines: [], wake: () => {}, ended: undefined };
  let rest = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    connection.lines.push(...lines);
    connection.wake();
  });
  const end = (code: string) => {
    connection.ended ??= code;
    connection.wake();
  };
  socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
  socket.on('close', () => end('closed'));
  const id = nextId++;
  held.set(id, connection);
  return { id, greeting: await nextLine(connection, spec.timeoutMs) };
}

/**
 * Says a line over an open connection and waits for the next line that comes back.
 *
 * @throws {RangeError} If there is no such connection.
 */
export async function sayOver(id: number, text: string, timeoutMs: number): Promise<LineOutcome> {
  const connection = held.get(id);
  if (connection === undefined) throw new RangeError(`Cannot say something over connection ${id}: it was never opened`);
  connection.socket.write(`${text}\n`);
  return await nextLine(connection, timeoutMs);
}

/** Closes a connection. One that was never opened is no error. */
export function closeConnection(id: number): void {
  held.get(id)?.socket.destroy();
  held.delete(id);
}
