/**
 * Other programs: started with an argument array, never through a shell.
 *
 * @module
 */

import { spawn } from 'node:child_process';

export interface Command {
  /** Program and arguments. Nothing in it is expanded. */
  readonly argv: readonly [string, ...string[]];
  /** Text, or chunks of text written one after the other with back-pressure. */
  readonly stdin?: string | Iterable<string>;
  readonly timeoutMs: number;
}

export interface Exec {
  /**
   * Runs a program to its end.
   *
   * @returns Its standard output, as UTF-8.
   * @throws {ExecError} If it cannot start, ends with a status other than 0, or outlives `timeoutMs` and is killed.
   */
  run(command: Command, signal?: AbortSignal): Promise<string>;
}

export type ExecFailure =
  | { readonly code: 'NOT_STARTED' }
  | { readonly code: 'EXITED'; readonly status: number }
  | { readonly code: 'KILLED'; readonly signal: string }
  | { readonly code: 'TIMED_OUT'; readonly timeoutMs: number }
  | { readonly code: 'ABORTED' };

export class ExecError extends Error {
  override readonly name = 'ExecError';
  readonly argv: readonly string[];
  readonly failure: ExecFailure;
  readonly stdout: string;
  /** Everything the program wrote to standard error; the first line is also in `message`. */
  readonly stderr: string;

  constructor(
    argv: readonly string[],
    failure: ExecFailure,
    output: { readonly stdout: string; readonly stderr: string },
    options?: ErrorOptions,
  ) {
    const why = output.stderr.trim().split('\n', 1)[0] || JSON.stringify(failure);
    super(`Cannot run "${argv.join(' ')}": ${why}`, options);
    this.argv = argv;
    this.failure = failure;
    this.stdout = output.stdout;
    this.stderr = output.stderr;
  }
}

/** True if the error is a program that ran to its end with this status. */
export function exitedWith(error: unknown, status: number): error is ExecError {
  return error instanceof ExecError && error.failure.code === 'EXITED' && error.failure.status === status;
}

async function feed(stdin: NodeJS.WritableStream, input: string | Iterable<string>): Promise<void> {
  if (typeof input === 'string') {
    stdin.end(input);
    return;
  }
  for (const chunk of input) {
    if (!stdin.writable) return;
    if (!stdin.write(chunk)) {
      await new Promise<void>((resume) => {
        const done = () => {
          stdin.off('drain', done).off('close', done);
          resume();
        };
        stdin.on('drain', done).on('close', done);
      });
    }
  }
  stdin.end();
}

export const realExec: Exec = {
  run: ({ argv, stdin, timeoutMs }, signal) =>
    new Promise((resolve, reject) => {
      const [file, ...args] = argv;
      const stdout: string[] = [];
      let stderr = '';
      const fail = (failure: ExecFailure, cause?: unknown) =>
        reject(new ExecError(argv, failure, { stdout: stdout.join(''), stderr }, { cause }));
      // Not spawn's own `timeout`: when a program cannot start, its timer keeps the process alive.
      const deadline = AbortSignal.timeout(timeoutMs);
      const child = spawn(file, args, {
        killSignal: 'SIGKILL',
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      });
      child.on('error', (cause) => {
        if (deadline.aborted) fail({ code: 'TIMED_OUT', timeoutMs }, cause);
        else if (signal?.aborted) fail({ code: 'ABORTED' }, cause);
        else fail({ code: 'NOT_STARTED' }, cause);
      });
      // Out of file descriptors there are no pipes: the error event tells, and there is nothing else to listen to.
      if (child.stdout === null || child.stdout === undefined) return;
      child.stdout.setEncoding('utf8').on('data', (s: string) => {
        stdout.push(s);
      });
      child.stderr.setEncoding('utf8').on('data', (s: string) => {
        stderr += s;
      });
      child.on('close', (status, killedBy) => {
        if (status === 0) resolve(stdout.join(''));
        else if (status !== null) fail({ code: 'EXITED', status });
        else fail({ code: 'KILLED', signal: killedBy ?? 'unknown' });
      });
      // A program that ends without reading its input breaks the pipe. Its status says why; the broken pipe does not.
      child.stdin.on('error', () => {});
      feed(child.stdin, stdin ?? '').catch((cause) => {
        child.kill('SIGKILL');
        fail({ code: 'NOT_STARTED' }, cause);
      });
    }),
};
