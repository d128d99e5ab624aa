/**
 * A daemon that is killed leaves its restore running. What that one writes after the next daemon has read the tables would be
 * there twice, or stay although its service is gone, until the tables are read again an hour later. So the next one waits.
 *
 * In a pod the case cannot come up: with the first process of a process namespace everything in it ends.
 *
 * @module
 */

import type { Clock } from '../sys/clock.ts';
import type { Processes } from '../sys/processes.ts';

/** A restore that takes longer than this hangs, or comes again and again from somebody else who uses the same words. */
const DEADLINE_MS = 60_000;
const POLL_MS = 50;

export interface PredecessorDeps {
  readonly processes: Processes;
  readonly clock: Clock;
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
}

/** True for the command line of a restore as a service proxy starts it, whichever flavour. */
function isRestore(argv: readonly string[]): boolean {
  // With an interpreter before it, the program is the second word.
  const isProgram = argv.slice(0, 2).some((word) => /(?:^|[/-])ip6?tables(?:-\w+)*-restore$/.test(word));
  return isProgram && argv.includes('--noflush') && argv.includes('--counters');
}

/** Resolves when no such restore runs in this network namespace, after a minute, or when `signal` aborts. */
export async function waitForPredecessor(
  { processes, clock, log }: PredecessorDeps,
  signal?: AbortSignal,
): Promise<void> {
  const deadline = clock.now() + DEADLINE_MS;
  for (let told = false; ; told = true) {
    const running = processes.here().filter(isRestore);
    if (running.length === 0 || signal?.aborted) return;
    if (clock.now() >= deadline) {
      log.warn({ running }, 'somebody restores rules for a minute already; going on');
      return;
    }
    if (!told)
      log.info({ running }, 'rules are being restored, perhaps by a proxy that was killed; waiting for the end');
    await clock.sleep(POLL_MS, signal);
  }
}
