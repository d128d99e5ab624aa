/**
 * The program `switchyard` as a process: the real streams, signals and exit code around `program.ts`.
 *
 * @module
 */

import { levelOfVerbosity } from '../log.ts';
import { BUILT_MODES } from '../modes/mode.ts';
import { realClock } from '../sys/clock.ts';
import type { Io } from './command.ts';
import { COMMANDS } from './commands.ts';
import { runProgram } from './program.ts';

/** After the first signal the program ends by itself; one that does not is ended after this time, or by a second one. */
const STOP_MS = 10_000;

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 143);
    stop.abort();
    setTimeout(() => {
      process.stderr.write(`Error: not ended ${STOP_MS / 1000} s after ${signal}\n`);
      process.exit(process.argv[2] === 'run' ? 1 : 2);
    }, STOP_MS).unref();
  });
}

// `switchyard render | head`: a reader that has enough is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

// Nobody reads the log any more: that is no reason to leave the node without a proxy.
process.stderr.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

const hasColours = (stream: NodeJS.WriteStream) => stream.isTTY === true && !process.env['NO_COLOR'];

const io: Io = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  colours: { stdout: hasColours(process.stdout), stderr: hasColours(process.stderr) },
  signal: stop.signal,
};

const code = await runProgram(process.argv.slice(2), io, {
  run: {
    clock: realClock,
    builtModes: BUILT_MODES,
    runDaemon: async (config, log, signal) => {
      const { runDaemon } = await import('../daemon.ts');
      const setVerbosity = (verbosity: number) => {
        log.level = levelOfVerbosity(verbosity);
      };
      await runDaemon(config, { log, setVerbosity }, signal);
    },
  },
  commands: COMMANDS,
}).catch((error: unknown) => {
  process.stderr.write(`Error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 2;
});

// Pipes are written behind our back: wait for them, then end although a socket may still be open.
await new Promise<void>((done) => process.stdout.write('', () => done()));
process.exit(code);
