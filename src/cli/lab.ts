/**
 * `lab`: a little cluster on this machine, in namespaces of its own. `lab demo` shows the tutorial's Services at work.
 *
 * @module
 */

import { Command, InvalidArgumentError, Option } from 'commander';
import { BUILT_MODES, type ModeName } from '../modes/mode.ts';
import type { ExitCode, Io } from './command.ts';

/** Modes whose rules the lab can read. */
const LAB_MODES = BUILT_MODES.filter((mode) => mode === 'iptables' || mode === 'nftables');

interface DemoOptions {
  readonly mode: ModeName;
  readonly json?: boolean;
}

interface UpOptions {
  readonly mode: ModeName;
  readonly pods: number;
}

function parsePods(text: string): number {
  const pods = Number(text);
  if (!Number.isInteger(pods) || pods < 1 || pods > 8) throw new InvalidArgumentError('It must be 1 to 8.');
  return pods;
}

/** Runs what needs a lab; says in one line why it ended early. */
async function sayingWhyNot<T extends ExitCode>(io: Io, run: () => Promise<T>): Promise<T | 2> {
  try {
    return await run();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    io.stderr.write(io.signal.aborted ? 'lab: interrupted, everything cleaned up\n' : `lab: ${why}\n`);
    return 2;
  }
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
  return await sayingWhyNot(io, async () => ((await runDemo(options.mode, report, io.signal)) ? 0 : 1));
}

/** Keeps a lab until it is interrupted. @returns 0, or 2 if it could not be built; one line says why. */
export async function runLabUp(options: UpOptions, io: Io): Promise<ExitCode> {
  const { runUp } = await import('../lab/up.ts');
  return await sayingWhyNot(io, async () => {
    await runUp(options, (text) => void io.stdout.write(text), io.signal);
    return 0;
  });
}

/** `switchyard lab` and its commands. */
export function labCommand(io: Io, exit: (code: ExitCode) => void): Command {
  const modeOption = () => new Option('--mode <mode>', 'Mode of the proxy').choices([...LAB_MODES]).default('iptables');
  const demo = new Command('demo')
    .description('Show the Services of the tutorial at work: real requests, and the rules they met')
    .addOption(modeOption())
    .option('--json', 'Print one JSON document: checks and requests with their chains')
    .action(async (options: DemoOptions) => exit(await runLabDemo(options, io)));
  const up = new Command('up')
    .description('Keep a node with the Services of the tutorial until Ctrl-C, and print how to get into it')
    .addOption(modeOption())
    .addOption(new Option('--pods <number>', 'Pods on the node, 1 to 8').argParser(parsePods).default(2))
    .action(async (options: UpOptions) => exit(await runLabUp(options, io)));
  return new Command('lab')
    .description('A node, pods and a client in network namespaces of their own, with the real proxy on the node')
    .addCommand(demo)
    .addCommand(up);
}
