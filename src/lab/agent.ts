/**
 * The process the lab keeps in each namespace. It holds the namespace alive, and does there what has to be done from
 * inside: sockets, sysctls, files, programs. The node's agent is the first process of the lab's process namespace, so
 * when it ends the kernel kills everything in the lab; and it ends when the channel to the lab closes, however the
 * lab's own process ended.
 *
 * Runs as its own program: `node agent.ts`, with an IPC channel.
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { dirname } from 'node:path';
import { assertNever } from '../proxier/types.ts';
import { closeConnection, openConnection, sayOver } from './connection.ts';
import { servePod } from './pod-server.ts';
import { type Answer, decodeQuestion, type FromAgent, type Question } from './protocol.ts';
import { sendRequest } from './request.ts';

interface Reply {
  readonly result: unknown;
  readonly handle?: Server;
}

const DONE: Reply = { result: null };

function tell(message: FromAgent, handle?: Server): void {
  // A closed channel ends this process anyway ('disconnect').
  process.send?.(message, handle, {}, () => handle?.close());
}

/** Addresses of this namespace that others can reach. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((a) => !a.internal && !a.address.startsWith('fe80:'))
    .map((a) => a.address);
}

const started = new Map<number, (signal: NodeJS.Signals) => void>();

async function start(argv: readonly [string, ...string[]]): Promise<number> {
  const [file, ...args] = argv;
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  await once(child, 'spawn');
  const pid = child.pid ?? 0;
  started.set(pid, (signal) => child.kill(signal));
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => tell({ event: 'output', pid, text }));
  }
  child.on('close', (status, signal) => {
    started.delete(pid);
    tell({ event: 'exit', pid, status, signal });
  });
  return pid;
}

async function answer(question: Question): Promise<Reply> {
  switch (question.op) {
    case 'sysctl':
      for (const { path, value, optional } of question.args) {
        if (!optional || existsSync(`/proc/sys/${path}`)) writeFileSync(`/proc/sys/${path}`, value);
      }
      return DONE;
    case 'write':
      mkdirSync(dirname(question.args.path), { recursive: true });
      writeFileSync(question.args.path, question.args.text);
      return DONE;
    case 'serve':
      await servePod(question.args.pod, ownAddresses(), question.args.ports);
      return DONE;
    case 'listen': {
      const handle = createServer();
      await once(handle.listen(question.args.port, question.args.address), 'listening');
      return { result: null, handle };
    }
    case 'request':
      return { result: await sendRequest(question.args) };
    case 'open':
      return { result: await openConnection(question.args) };
    case 'say':
      return { result: await sayOver(question.args.id, question.args.text, question.args.timeoutMs) };
    case 'hangup':
      closeConnection(question.args.id);
      return DONE;
    case 'start':
      return { result: { pid: await start(question.args.argv) } };
    case 'signal':
      started.get(question.args.pid)?.(question.args.signal);
      return DONE;
    default:
      return assertNever(question, 'a question');
  }
}

process.on('disconnect', () => process.exit(0));
process.on('message', (message) => {
  const question = decodeQuestion(message);
  answer(question).then(
    ({ result, handle }) => tell({ id: question.id, result } satisfies Answer, handle),
    (error: unknown) => tell({ id: question.id, error: error instanceof Error ? error.message : String(error) }),
  );
});
// Inside a process namespace process.pid counts from 1; /proc was mounted outside of it and shows the outer numbers.
tell({ hello: { pid: Number(readlinkSync('/proc/self')) } });
