/**
 * Runs a program to its end and fails loudly.
 *
 * @module
 */

import { spawnSync } from 'node:child_process';

/** @throws {Error} If the program cannot start or ends with a status other than 0. */
export function run(file: string, ...args: string[]): string {
  return runWith('', file, ...args);
}

/** As `run`, with text on standard input. */
export function runWith(input: string, file: string, ...args: string[]): string {
  const r = spawnSync(file, args, { input, encoding: 'utf8', maxBuffer: 1 << 30 });
  if (r.error) throw r.error;
  if (r.status !== 0) throw new Error(`Cannot run "${file} ${args.join(' ')}": ${r.stderr.trim()}`);
  return r.stdout;
}
