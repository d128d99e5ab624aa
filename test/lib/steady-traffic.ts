/**
 * Steady traffic through a lab: clients in several namespaces (see `steady-client.ts`) that run while something is done to
 * the proxy, and must not notice.
 *
 * @module
 */

import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { Namespace } from '../../src/lab/namespace.ts';
import type { SteadyOptions, SteadyReport } from './steady-client.ts';

const PROGRAM = fileURLToPath(new URL('./steady-client.ts', import.meta.url));
const READY_MS = 20_000;
/** TCP_TIMEOUT_INIT of the kernel is 1 s; the pause is measured between two connections. */
const SYN_LOSS_MS = 950;
/** Enough to see what is wrong. */
const FAILURES_TOLD = 12;

const decode = (line: string) => JSON.parse(line) as SteadyReport | { readonly ready: true };

export interface SteadyTraffic {
  /** Ends it and gives what it has seen. */
  stop(): Promise<SteadyReport>;
}

/**
 * Starts a client; resolves when each target has answered once.
 *
 * @throws {Error} If one does not.
 */
export async function startTraffic(from: Namespace, options: SteadyOptions): Promise<SteadyTraffic> {
  const ready = Promise.withResolvers<void>();
  const reported = Promise.withResolvers<SteadyReport>();
  reported.promise.catch(() => {});
  let text = '';
  let pid = 0;
  from.onEvent((said) => {
    // Whatever else runs in this namespace has spoken before, or is another process.
    if (said.pid !== pid) return;
    if (said.event === 'exit') {
      const error = new Error(`Cannot send traffic from ${from.name}: the client ended (${said.status}): ${text}`);
      ready.reject(error);
      reported.reject(error);
      return;
    }
    text += said.text;
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) {
      const message = line.startsWith('{') ? decode(line) : undefined;
      if (message === undefined) text = `${line}\n${text}`;
      else if ('ready' in message) ready.resolve();
      else reported.resolve(message);
    }
  });
  pid = (await from.ask('start', { argv: [process.execPath, PROGRAM, JSON.stringify(options)] })).pid;
  const stop = async () => {
    await from.ask('signal', { pid, signal: 'SIGTERM' });
    return await reported.promise;
  };
  const timer = setTimeout(() => {
    stop().then(
      (report) => ready.reject(new Error(`Cannot start traffic from ${from.name}: ${describeReport(report)}`)),
      ready.reject,
    );
  }, READY_MS);
  await ready.promise.finally(() => clearTimeout(timer));
  return { stop };
}

/** One line, and what failed: which target, when and how. */
export function describeReport(report: SteadyReport): string {
  const {
    opened,
    answered,
    failures,
    slow,
    synRetransmits,
    longestPauseMs,
    slowestConnectMs,
    slowestAnswerMs,
    echoes,
    runMs,
  } = report;
  const told = [...failures, ...slow]
    .slice(0, FAILURES_TOLD)
    .map(
      ({ target, atMs, how, afterMs }) => `\n  ${new Date(atMs).toISOString()} ${target}: ${how} after ${afterMs} ms`,
    );
  return [
    `${opened} connections in ${runMs} ms, ${answered} answered, ${failures.length} failed, ${synRetransmits} SYNs sent again,`,
    `${echoes} echoes; longest pause ${longestPauseMs} ms, slowest handshake ${slowestConnectMs} ms, answer ${slowestAnswerMs} ms`,
    ...told,
  ].join(' ');
}

/** Asserts that nothing was noticed, at the pace that was asked for. */
export function assertUnnoticed(t: Test, name: string, { everyMs }: SteadyOptions, report: SteadyReport): void {
  const { opened, answered, failures, synRetransmits, slowestConnectMs, longestPauseMs, runMs } = report;
  // A lost SYN is sent again after a second. Others in the namespace send some, too, and on a busy machine the client itself
  // does not look for a while: what it took longer than that counts.
  const isLost = synRetransmits > 0 && slowestConnectMs - longestPauseMs >= SYN_LOSS_MS;
  const isFine = failures.length === 0 && answered === opened && !isLost;
  t.ok(isFine, `${name}: ${describeReport(report)}`);
  t.ok(opened >= (0.95 * runMs) / everyMs, `${name}: a connection every ${everyMs} ms`);
}
