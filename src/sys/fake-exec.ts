/**
 * Programs in memory: each name stands for a function that may keep state.
 *
 * @module
 */

import { type Command, type Exec, ExecError } from './exec.ts';

/** What a program was started with. `stdin` is whole, however it was given. */
export interface FakeCall {
  readonly argv: readonly [string, ...string[]];
  readonly stdin: string;
}

export interface FakeResult {
  readonly status?: number;
  readonly stdout?: string;
  readonly stderr?: string;
}

/** `hang`: it runs until its time is over. */
export type FakeProgram = (call: FakeCall) => FakeResult | 'hang' | Promise<FakeResult>;

export class FakeExec implements Exec {
  readonly #programs: ReadonlyMap<string, FakeProgram>;
  /** Every start, in order, those that could not start included. */
  readonly calls: FakeCall[] = [];

  /** @param programs - By name; any other name cannot be started. */
  constructor(programs: Readonly<Record<string, FakeProgram>>) {
    this.#programs = new Map(Object.entries(programs));
  }

  async run({ argv, stdin, timeoutMs }: Command, signal?: AbortSignal): Promise<string> {
    const input = stdin === undefined || typeof stdin === 'string' ? (stdin ?? '') : [...stdin].join('');
    const call: FakeCall = { argv, stdin: input };
    this.calls.push(call);
    const nothing = { stdout: '', stderr: '' };
    if (signal?.aborted) throw new ExecError(argv, { code: 'ABORTED' }, nothing);
    const program = this.#programs.get(argv[0]);
    if (program === undefined) throw new ExecError(argv, { code: 'NOT_STARTED' }, nothing);
    const result = await program(call);
    if (result === 'hang') throw new ExecError(argv, { code: 'TIMED_OUT', timeoutMs }, nothing);
    const { status = 0, stdout = '', stderr = '' } = result;
    if (status !== 0) throw new ExecError(argv, { code: 'EXITED', status }, { stdout, stderr });
    return stdout;
  }
}
