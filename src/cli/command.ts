/**
 * What every command shares: its streams and its exit codes.
 *
 * @module
 */

import type { Readable, Writable } from 'node:stream';
import type { Command } from 'commander';

/** What a command may touch. Tests pass strings in and read strings out. */
export interface Io {
  readonly stdin: Readable;
  readonly stdout: Pick<Writable, 'write'>;
  readonly stderr: Pick<Writable, 'write'>;
  /** Standard output (standard error) is a terminal that may get colours. */
  readonly colours: { readonly stdout: boolean; readonly stderr: boolean };
  /** Aborts on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
}

/**
 * 0: done. 1: done, and the answer is "no" (a difference, an object that is not valid). 2: could not do it.
 * `run` knows 0 and 1 only, as kube-proxy does.
 */
export type ExitCode = 0 | 1 | 2;

/**
 * Makes one command of the program. The file it stands in is loaded by every start of `switchyard run` too, so it
 * imports whatever is big inside its action.
 *
 * @param exit - Told the exit code when the action is done.
 */
export type CommandFactory = (io: Io, exit: (code: ExitCode) => void) => Command;
