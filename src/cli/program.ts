/**
 * The program `switchyard`: its commands, its help, and what becomes of a mistake on the command line.
 *
 * @module
 */

import { Command, CommanderError } from 'commander';
import { normaliseRunArgv } from '../config/argv.ts';
import { versionLine } from '../version.ts';
import type { CommandFactory, ExitCode, Io } from './command.ts';
import { type RunDeps, runCommand } from './run.ts';
import { versionCommand } from './version.ts';

const EXAMPLES = `
Examples:
  switchyard run --config /var/lib/kube-proxy/config.conf
  switchyard render -f manifests/ --node node-1
  switchyard cleanup
  switchyard help run`;

/** What the program is made of besides its own words. */
export interface ProgramDeps {
  readonly run: RunDeps;
  /** Further commands, in the order of the help. */
  readonly commands: readonly CommandFactory[];
}

/**
 * The program with all its commands, not run yet.
 *
 * @param exit - Told the exit code when a command is done.
 */
export function createProgram(io: Io, exit: (code: ExitCode) => void, deps: ProgramDeps): Command {
  const program = new Command('switchyard')
    .description('A kube-proxy written in TypeScript')
    .version(versionLine(), '-V, --version', 'Print the version')
    .helpOption('-h, --help', 'Show help')
    .helpCommand('help [command]', 'Show help of a command')
    .addHelpText('after', EXAMPLES)
    .addCommand(runCommand(io, exit, deps.run));
  for (const make of deps.commands) program.addCommand(make(io, exit));
  program.addCommand(versionCommand(io, exit));
  prepare(program, io);
  return program;
}

/**
 * Runs one command line.
 *
 * @param argv - Arguments after the program's name.
 * @returns The exit code. Mistakes on the command line are on standard error, as usage and one line.
 */
export async function runProgram(argv: readonly string[], io: Io, deps: ProgramDeps): Promise<ExitCode> {
  let code: ExitCode = 0;
  const exit = (c: ExitCode) => {
    code = c;
  };
  const program = createProgram(io, exit, deps);

  const isRun = argv[0] === 'run';
  try {
    await program.parseAsync(isRun ? ['run', ...normaliseRunArgv(argv.slice(1))] : argv, { from: 'user' });
    return code;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    const named = argv.slice(0, 1).filter((name) => program.commands.some((c) => c.name() === name));
    const command = ['switchyard', ...named].join(' ');
    // A program without a command has printed its help, and there is nothing to add.
    if (error.code !== 'commander.help') {
      io.stderr.write(`Usage: ${command} ${isRun ? '[flags]' : '[options]'}   (${command} --help shows them)\n`);
      io.stderr.write(`Error: ${error.message.replace(/^error: /, '')}\n`);
    }
    return isRun ? 1 : 2;
  }
}

/** Gives a command and those below it our streams, and makes mistakes throw and not end the process. */
function prepare(command: Command, io: Io): void {
  command.exitOverride().configureOutput({
    writeOut: (text) => io.stdout.write(text),
    writeErr: (text) => io.stderr.write(text),
    outputError: () => {},
    getOutHasColors: () => io.colours.stdout,
    getErrHasColors: () => io.colours.stderr,
    getOutHelpWidth: () => 110,
    getErrHelpWidth: () => 110,
  });
  for (const child of command.commands) prepare(child, io);
}
