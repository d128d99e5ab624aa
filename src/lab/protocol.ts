/**
 * What the lab asks of the process it keeps in each namespace (`agent.ts`), and what comes back. One question, one
 * answer, told apart by `id`, over Node's IPC channel. When the channel closes the agent ends.
 *
 * @module
 */

import type { Sysctl } from './links.ts';

/** A port a pod answers on. HTTP tells who answered; TCP and UDP tell the same in one line and then echo. */
export interface ServedPort {
  readonly kind: 'http' | 'tcp' | 'udp';
  readonly port: number;
}

/** What a pod says about a request: who it is and what it sees. */
export interface PodAnswer {
  readonly pod: string;
  /** Address and port the request was sent to, as the pod sees it. */
  readonly address: string;
  readonly port: number;
  /** Address and port the request came from, as the pod sees it: the node's when it was masqueraded. */
  readonly client: string;
  readonly clientPort: number;
}

export interface RequestSpec {
  readonly kind: ServedPort['kind'];
  readonly address: string;
  readonly port: number;
  /** HTTP only. */
  readonly path: string;
  readonly timeoutMs: number;
  /** Address to send from; the kernel's choice when undefined. */
  readonly from: string | undefined;
  /** Port to send from; the kernel's choice when 0. */
  readonly fromPort: number;
}

/** How a request ended, with the milliseconds it took. */
export type RequestOutcome =
  /** Someone answered. `status` and `headers` are HTTP's, 200 and none for the others; `text` is the whole body or line. */
  | {
      readonly kind: 'answered';
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly text: string;
      readonly ms: number;
    }
  /** Told at once that nobody is there: a reset, or ICMP port unreachable. */
  | { readonly kind: 'refused'; readonly code: string; readonly ms: number }
  /** Another error of the socket, such as EHOSTUNREACH or ECONNRESET. */
  | { readonly kind: 'failed'; readonly code: string; readonly ms: number }
  /** Nothing came within the time-out. */
  | { readonly kind: 'timeout'; readonly ms: number };

/** What came over a connection that is held open. */
export type LineOutcome =
  | { readonly kind: 'line'; readonly text: string }
  /** It is closed, by whom or why tells `code`, as in ECONNRESET. */
  | { readonly kind: 'ended'; readonly code: string }
  | { readonly kind: 'timeout' };

/** A program that the agent started has said something or has ended. */
export type AgentEvent =
  | { readonly event: 'output'; readonly pid: number; readonly text: string }
  | {
      readonly event: 'exit';
      readonly pid: number;
      readonly status: number | null;
      readonly signal: string | null;
    };

/** Every question: its arguments and its answer. */
export interface Operations {
  /** Writes sysctls. */
  sysctl: { readonly args: readonly Sysctl[]; readonly result: null };
  /** Writes a file, making its folder. */
  write: { readonly args: { readonly path: string; readonly text: string }; readonly result: null };
  /** Answers as the pod `pod` on these ports, on every address. */
  serve: {
    readonly args: { readonly pod: string; readonly ports: readonly ServedPort[] };
    readonly result: null;
  };
  /** Listens on a TCP address here; the listening socket itself comes with the answer. */
  listen: { readonly args: { readonly address: string; readonly port: number }; readonly result: null };
  request: { readonly args: RequestSpec; readonly result: RequestOutcome };
  /** Opens a TCP connection and keeps it; answers the pod's greeting and a number to name the connection by. */
  open: { readonly args: RequestSpec; readonly result: { readonly id: number; readonly greeting: LineOutcome } };
  /** Says a line over an open connection and waits for one. */
  say: {
    readonly args: { readonly id: number; readonly text: string; readonly timeoutMs: number };
    readonly result: LineOutcome;
  };
  /** Closes an open connection. */
  hangup: { readonly args: { readonly id: number }; readonly result: null };
  /** Starts a program; its output and its end come as events. Answers its process id inside the namespace. */
  start: {
    readonly args: { readonly argv: readonly [string, ...string[]] };
    readonly result: { readonly pid: number };
  };
  /** Sends a signal to a program it started. One that has ended already is no error. */
  signal: { readonly args: { readonly pid: number; readonly signal: NodeJS.Signals }; readonly result: null };
}

export type Operation = keyof Operations;

export type Question = {
  [K in Operation]: { readonly id: number; readonly op: K; readonly args: Operations[K]['args'] };
}[Operation];

/** First word of an agent: the process id under which /proc knows it. */
export interface Hello {
  readonly hello: { readonly pid: number };
}

export type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: string };

export type FromAgent = Hello | Answer | AgentEvent;

/** The agent is the same source tree in another process: what it sends is of these types. */
export const decodeFromAgent = (message: unknown) => message as FromAgent;
/** As `decodeFromAgent`, the other way. */
export const decodeQuestion = (message: unknown) => message as Question;
/** The result of an answer to a question of operation `K`. */
export const decodeResult = <K extends Operation>(_op: K, result: unknown) => result as Operations[K]['result'];
