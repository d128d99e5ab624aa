/**
 * Streams for a command that a test runs in its own process.
 *
 * @module
 */

import { Readable } from 'node:stream';
import type { Io } from '../../src/cli/command.ts';

/** `out` collects what the command writes. */
export function makeIo(stdin: string, signal: AbortSignal = new AbortController().signal) {
  const out = { stdout: '', stderr: '' };
  const into = (name: keyof typeof out) => ({
    write: (chunk: unknown) => {
      out[name] += String(chunk);
      return true;
    },
  });
  const io: Io = {
    stdin: Readable.from([Buffer.from(stdin)]),
    stdout: into('stdout'),
    stderr: into('stderr'),
    colours: { stdout: false, stderr: false },
    signal,
  };
  return { io, out };
}
