/**
 * `lab`: a little cluster on this machine, in namespaces of its own. `lab demo` shows the tutorial's Services at work.
 *
 * @module
 */

import { Command } from 'commander';
import type { ExitCode, Io } from './command.ts';

interface DemoOptions {
  readonly json?: boolean;
}

/**
 * Runs the demonstration.
 *
 * @returns 0: every check passed. 1: one did not. 2: it could not be done, or was interrupted; one line says why.
 */
export async function runLabDemo(options: DemoOptions, io: Io): Promise<ExitCode> {
  const { runDemo } = await import('../lab/run.ts');
  const { jsonReporter, textReporter } = await import('../lab/report.ts');
  const write = (text: string) => void io.stdout.write(text);
  const report = options.json ? jsonReporter(write) : textReporter(write, io.colours.stdout);
  try {
    return (await runDemo(report, io.signal)) ? 0 : 1;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    io.stderr.write(io.signal.aborted ? 'lab: interrupted, everything cleaned up\n' : `lab: ${why}\n`);
    return 2;
  }
}

/** `switchyard lab` and its commands. */
export function labCommand(io: Io, exit: (code: ExitCode) => void): Command {
  const demo = new Command('demo')
    .description('Show the Services of the tutorial at work: real requests, and the rules they met')
    .option('--json', 'Print one JSON document: checks and requests with their chains')
    .action(async (options: DemoOptions) => exit(await runLabDemo(options, io)));
  return new Command('lab')
    .description('A node, pods and a client in network namespaces of their own, with the real proxy on the node')
    .addCommand(demo);
}
