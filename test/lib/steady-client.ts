/**
 * A client that never pauses: a new TCP connection every few milliseconds, to one target after the other, and one
 * connection to each target that is held and spoken over. Runs as its own program in a namespace of the lab, where
 * `steady-traffic.ts` starts it.
 *
 *     node steady-client.ts '{"everyMs":5,"targets":[{"name":"…","address":"…","port":80}]}'
 *
 * Prints `{"ready":true}` when each target has answered once, and on SIGTERM what it has seen.
 *
 * @module
 */

import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';

export interface SteadyTarget {
  readonly name: string;
  readonly address: string;
  readonly port: number;
}

export interface SteadyOptions {
  readonly everyMs: number;
  readonly targets: readonly SteadyTarget[];
}

/** Something that must not have happened. */
export interface SteadyFailure {
  readonly target: string;
  /** Start of the connection, or the time of the word that got no answer; milliseconds since the epoch. */
  readonly atMs: number;
  /** `ECONNREFUSED`, `no answer` …; of a held connection `cut: …`. */
  readonly how: string;
  readonly afterMs: number;
}

export interface SteadyReport {
  readonly opened: number;
  readonly answered: number;
  readonly failures: readonly SteadyFailure[];
  /** Answered, but late. */
  readonly slow: readonly SteadyFailure[];
  /** SYNs that this namespace had to send again: each is a packet that got lost on its way, or its answer. */
  readonly synRetransmits: number;
  /** Longest time between two connections being opened. */
  readonly longestPauseMs: number;
  /** Until the handshake was done, which needs no process but this one. */
  readonly slowestConnectMs: number;
  readonly slowestAnswerMs: number;
  /** Words that came back over held connections. */
  readonly echoes: number;
  readonly runMs: number;
}

/** Silence on a connection that is there. A busy machine takes its time; a lost connection never answers. */
const ANSWER_MS = 10_000;
/** An answer on this machine takes a millisecond; a handshake that lost a packet takes a second. */
const SLOW_MS = 900;
/** Time between two words over one held connection. */
const ECHO_MS = 200;

const wallMs = () => performance.timeOrigin + performance.now();

function readSynRetransmits(): number {
  const [names = '', values = ''] = readFileSync('/proc/self/net/netstat', 'latin1').split('\n');
  return Number(values.split(' ')[names.split(' ').indexOf('TCPSynRetrans')]);
}

class SteadyClient {
  readonly #options: SteadyOptions;
  readonly #failures: SteadyFailure[] = [];
  readonly #slow: SteadyFailure[] = [];
  readonly #answeredTargets = new Set<SteadyTarget>();
  readonly #syns = readSynRetransmits();
  readonly #startMs = wallMs();
  #opened = 0;
  #answered = 0;
  #echoes = 0;
  #slowestMs = 0;
  #slowestConnectMs = 0;
  #longestPauseMs = 0;
  #lastOpenMs = this.#startMs;
  #stopped = false;

  constructor(options: SteadyOptions) {
    this.#options = options;
  }

  /** Opens as many as are due: a timer that comes late does not slow the pace. */
  run(onReady: () => void): void {
    const { everyMs, targets } = this.#options;
    for (const target of targets) this.#hold(target);
    let isReady = false;
    const timer = setInterval(() => {
      if (this.#stopped) {
        clearInterval(timer);
        return;
      }
      const due = Math.floor((wallMs() - this.#startMs) / everyMs);
      while (this.#opened < due) {
        const target = targets[this.#opened % targets.length];
        if (target !== undefined) this.#open(target);
      }
      if (!isReady && this.#answeredTargets.size === targets.length) {
        isReady = true;
        onReady();
      }
    }, everyMs);
  }

  /** Lets what is under way come to its end. */
  async stop(): Promise<SteadyReport> {
    this.#stopped = true;
    const runMs = wallMs() - this.#startMs;
    const deadline = wallMs() + ANSWER_MS;
    while (this.#answered + this.#failures.length < this.#opened && wallMs() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return {
      opened: this.#opened,
      answered: this.#answered,
      failures: this.#failures,
      slow: this.#slow,
      synRetransmits: readSynRetransmits() - this.#syns,
      longestPauseMs: Math.round(this.#longestPauseMs),
      slowestConnectMs: Math.round(this.#slowestConnectMs),
      slowestAnswerMs: Math.round(this.#slowestMs),
      echoes: this.#echoes,
      runMs: Math.round(runMs),
    };
  }

  #open(target: SteadyTarget): void {
    const atMs = wallMs();
    this.#opened++;
    this.#longestPauseMs = Math.max(this.#longestPauseMs, atMs - this.#lastOpenMs);
    this.#lastOpenMs = atMs;
    const socket = connect({ host: target.address, port: target.port });
    let isDone = false;
    const end = (how?: string) => {
      if (isDone) return;
      isDone = true;
      const afterMs = wallMs() - atMs;
      if (how === undefined) {
        this.#answered++;
        this.#slowestMs = Math.max(this.#slowestMs, afterMs);
        if (afterMs >= SLOW_MS) this.#note(this.#slow, target, atMs, 'answered late');
        this.#answeredTargets.add(target);
      } else this.#note(this.#failures, target, atMs, how);
      // No TIME_WAIT: of thousands of them the port would run out.
      socket.resetAndDestroy();
    };
    socket.setTimeout(ANSWER_MS, () => end('no answer'));
    socket.on('connect', () => {
      this.#slowestConnectMs = Math.max(this.#slowestConnectMs, wallMs() - atMs);
    });
    socket.on('data', () => end());
    socket.on('close', () => end('closed without a word'));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
  }

  /** Holds one connection and speaks over it until the end. */
  #hold(target: SteadyTarget): void {
    const socket = connect({ host: target.address, port: target.port });
    let saidMs = wallMs();
    let isCut = false;
    const cut = (how: string) => {
      if (!isCut && !this.#stopped) this.#note(this.#failures, target, saidMs, `cut: ${how}`);
      isCut = true;
      socket.destroy();
    };
    const say = (line: Socket) => {
      if (this.#stopped) {
        socket.destroy();
        return;
      }
      saidMs = wallMs();
      line.write('still there?\n');
    };
    socket.setTimeout(ANSWER_MS, () => cut('no answer'));
    socket.on('data', () => {
      this.#echoes++;
      setTimeout(say, ECHO_MS, socket).unref();
    });
    socket.on('close', () => cut('closed'));
    socket.on('error', (error: NodeJS.ErrnoException) => cut(error.code ?? error.message));
  }

  #note(list: SteadyFailure[], target: SteadyTarget, atMs: number, how: string): void {
    list.push({
      target: target.name,
      atMs: Math.round(atMs),
      how,
      afterMs: Math.round(wallMs() - atMs),
    });
  }
}

/** The text is what `steady-traffic.ts` has written. */
const decodeOptions = (text: string) => JSON.parse(text) as SteadyOptions;

const [, , given] = process.argv;
// Others import the types of this file only.
if (given !== undefined && import.meta.main) {
  const tell = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);
  const client = new SteadyClient(decodeOptions(given));
  process.on('SIGTERM', () => {
    client.stop().then((report) => {
      tell(report);
      process.exit(0);
    });
  });
  client.run(() => tell({ ready: true }));
}
