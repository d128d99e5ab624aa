/**
 * What `iptables-restore` says when it refuses its input. The tools have no other form than text, so this file, and
 * no other, decides by text; they do not call setlocale(), so it is always English. Seen with 1.8.9, both flavours.
 *
 *     legacy   iptables-restore: line 3 failed                                              status 1
 *     nft      iptables-nft-restore: line 3 failed: Bad rule (does a matching rule …).      status 1
 *     nft      line 3: RULE_APPEND failed (Invalid argument): rule in chain A               status 4, a line a culprit
 *     both     Error occurred at line: 3                                                    status 2, before any change
 *
 * The legacy flavour gives a table to the kernel at its COMMIT, so what the kernel refuses has the line of the COMMIT. The nft
 * flavour notices a missing jump target one line late.
 *
 * @module
 */

import { ExecError } from '../sys/exec.ts';

export interface RefusedLine {
  /** 1 is the first line of the input. */
  readonly line: number;
  /** What the tool said about it, on one line. */
  readonly reason: string;
}

/** The input was refused as it stands: giving it again gives the same. */
export class RestoreRefusedError extends Error {
  override readonly name = 'RestoreRefusedError';
  /** In the order the tool named them; empty if it named none. */
  readonly lines: readonly RefusedLine[];
  /** Everything the tool said, on one line. */
  readonly reason: string;

  constructor(lines: readonly RefusedLine[], reason: string, options?: ErrorOptions) {
    super(`Cannot restore rules: ${reason || 'the tool says nothing'}`, options);
    this.lines = lines;
    this.reason = reason;
  }
}

/** True if the tool gave up waiting for another one that holds the lock of the tables. */
export function saysLocked(error: unknown): boolean {
  return (
    error instanceof ExecError &&
    error.failure.code === 'EXITED' &&
    error.failure.status === 4 &&
    error.stderr.includes('holding the xtables lock')
  );
}

/** True if a jump target was missing, which the line named need not be about. */
export function saysMissingTarget(reason: string): boolean {
  return /Couldn't load target|Chain '[^']*' does not exist/.test(reason);
}

const LINE = /(?:^|\s)line (\d+)(?: failed|: [A-Z_]+ failed)|Error occurred at line: (\d+)/;

/** Takes standard error of a restore apart. */
export function parseRestoreError(stderr: string): { lines: RefusedLine[]; reason: string } {
  const said = stderr
    .split('\n')
    .map((line) => line.replace(/^\S*-restore v\S+ \([a-z_]+\): ?/, '').trim())
    .filter((line) => line !== '' && !line.startsWith('Try `'));
  const reason = said.join('; ');
  const lines: RefusedLine[] = [];
  for (const [i, text] of said.entries()) {
    const found = LINE.exec(text);
    const line = Number(found?.[1] ?? found?.[2]);
    if (found === null) continue;
    // A line that does not parse is named on a line of its own, after what is wrong with it.
    const why = found[2] !== undefined && i > 0 ? `${said[i - 1]}` : text;
    lines.push({ line, reason: why });
  }
  return { lines, reason };
}
