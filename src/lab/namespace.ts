/**
 * Network namespaces, each held alive by an agent process (`agent.ts`).
 *
 * They have no name in the file system. The first one, the node's, is also a mount and a process namespace (and a user
 * namespace for an ordinary user): when its agent ends, the kernel ends every process in the lab, and with the last
 * process go namespaces, links, rules and mounts. The agent ends when the lab's process closes its channel or dies.
 *
 * @module
 */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Server } from 'node:net';
import { fileURLToPath } from 'node:url';
import { type Command, type Exec, ExecError, realExec } from '../sys/exec.ts';
import { type AgentEvent, decodeFromAgent, decodeResult, type Operation, type Operations } from './protocol.ts';

/** Beside this file, and compiled if this file is. */
const AGENT = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './agent.ts' : './agent.js', import.meta.url));

/** Why the lab cannot be built on this machine, in one line. */
export class LabUnavailableError extends Error {
  override readonly name = 'LabUnavailableError';
}

export interface Namespace {
  readonly name: string;
  /** Process id of the agent, as /proc outside shows it. */
  readonly pid: number;
  /** What to write before a command to run it in the namespace. */
  readonly enter: readonly string[];
  /** Runs programs in the namespace. */
  readonly exec: Exec;
  /**
   * Asks the agent to do something inside.
   *
   * @throws {Error} With the agent's words, or if it has ended.
   */
  ask<K extends Operation>(op: K, args: Operations[K]['args']): Promise<Operations[K]['result']>;
  /** Listens inside and hands the listening socket out: connections made inside arrive at the caller's process. */
  listen(address: string, port: number): Promise<Server>;
  /** Calls `listener` for every word of the programs the agent started. */
  onEvent(listener: (event: AgentEvent) => void): void;
  /** Ends the agent and waits until it is gone. */
  close(): Promise<void>;
}

/** Path by which `ip` names the namespace. */
export function namespacePath(namespace: Pick<Namespace, 'pid'>): string {
  return `/proc/${namespace.pid}/ns/net`;
}

/** Arguments that make a program run in the namespaces of process `pid`. */
function enterArgv(pid: number, asUser: boolean): [string, ...string[]] {
  // By path, since --target alone would also ask for namespaces that are shared with the outside.
  const user = asUser ? ['--user', '--preserve-credentials'] : [];
  return ['nsenter', '--target', String(pid), ...user, '--mount', '--net', '--pid', '--'];
}

interface Pending {
  readonly op: Operation;
  readonly resolve: (reply: { result: unknown; handle: unknown }) => void;
  readonly reject: (error: Error) => void;
}

/** Starts an agent by `prefix` and waits for its first word. */
function startAgent(name: string, prefix: readonly [string, ...string[]], asUser: boolean): Promise<Namespace> {
  const [file, ...args] = prefix;
  // A session of its own: Ctrl-C on the terminal reaches the lab's process, which then ends the agents in order.
  const child: ChildProcess = spawn(file, [...args, process.execPath, AGENT], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { PATH: process.env['PATH'] },
  });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });

  const pending = new Map<number, Pending>();
  const listeners: ((event: AgentEvent) => void)[] = [];
  let nextId = 1;
  let closing = false;
  let ended = false;
  const gone = new Promise<void>((resolve) => {
    child.on('error', (error) => {
      stderr += error.message;
    });
    const end = () => {
      ended = true;
      for (const { op, reject } of pending.values()) reject(endedError(op));
      pending.clear();
      resolve();
    };
    child.on('close', end);
    // After our own disconnect() Node never says 'close'.
    child.on('exit', () => closing && end());
  });
  const endedError = (op: string) =>
    new Error(`Cannot ${op} in namespace "${name}": its agent has ended${stderr && `: ${stderr.trim()}`}`);

  const ask = (op: Operation, args: unknown) =>
    new Promise<{ result: unknown; handle: unknown }>((resolve, reject) => {
      if (ended || !child.connected) return reject(endedError(op));
      const id = nextId++;
      pending.set(id, { op, resolve, reject });
      child.send({ id, op, args });
    });

  return new Promise((resolve, reject) => {
    gone.then(() => reject(new LabUnavailableError(stderr.trim() || `${file} ended without a word`)));
    child.on('message', (message, handle) => {
      const said = decodeFromAgent(message);
      if ('hello' in said) {
        resolve({
          name,
          pid: said.hello.pid,
          enter: enterArgv(said.hello.pid, asUser),
          exec: execIn(said.hello.pid, asUser),
          ask: async (op, args) => decodeResult(op, (await ask(op, args)).result),
          listen: async (address, port) => {
            const { handle } = await ask('listen', { address, port });
            return decodeServer(handle);
          },
          onEvent: (listener) => void listeners.push(listener),
          close: async () => {
            closing = true;
            if (child.connected) child.disconnect();
            await gone;
          },
        });
      } else if ('event' in said) {
        for (const listener of listeners) listener(said);
      } else {
        const asked = pending.get(said.id);
        pending.delete(said.id);
        if ('error' in said) asked?.reject(new Error(`Cannot ${asked.op} in namespace "${name}": ${said.error}`));
        else asked?.resolve({ result: said.result, handle });
      }
    });
  });
}

/** Node passes a listening socket as a net.Server; its channel's types do not say which answer carries one. */
const decodeServer = (handle: unknown) => handle as Server;

function execIn(pid: number, asUser: boolean): Exec {
  const prefix = enterArgv(pid, asUser);
  return {
    run: async (command: Command, signal) => {
      try {
        return await realExec.run({ ...command, argv: [...prefix, ...command.argv] }, signal);
      } catch (error) {
        if (!(error instanceof ExecError)) throw error;
        // The caller's own words, without the way into the namespace.
        throw new ExecError(command.argv, error.failure, error, { cause: error });
      }
    },
  };
}

/** True if this process may make namespaces as it is; an ordinary user needs a user namespace first. */
function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/**
 * Makes the node's namespace: network, mounts and processes of its own, /run empty.
 *
 * @throws {LabUnavailableError} If the system does not let this user make namespaces, or the tools are missing.
 */
export async function createNodeNamespace(name: string): Promise<Namespace> {
  const asUser = !isRoot();
  const user = asUser ? ['--user', '--map-root-user'] : [];
  try {
    const node = await startAgent(
      name,
      ['unshare', ...user, '--mount', '--net', '--pid', '--fork', '--kill-child', '--'],
      asUser,
    );
    // xtables.lock is in /run: without one of its own, a lab would wait for the machine's iptables and others labs'.
    await node.exec.run({ argv: ['mount', '-t', 'tmpfs', 'tmpfs', '/run'], timeoutMs: 5_000 });
    return node;
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n', 1)[0] : String(error);
    const must = asUser
      ? 'run it as root, or on a kernel that lets users make user namespaces (kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0, kernel.apparmor_restrict_unprivileged_userns=0)'
      : 'root must have CAP_SYS_ADMIN (in a container: --privileged)';
    throw new LabUnavailableError(`Cannot make network namespaces: ${why}; ${must}`, { cause: error });
  }
}

/** Makes a network namespace that lives inside the node's mount and process namespaces. */
export function createNamespace(name: string, node: Namespace): Promise<Namespace> {
  const asUser = !isRoot();
  return startAgent(name, [...enterArgv(node.pid, asUser), 'unshare', '--net', '--'], asUser);
}
