/**
 * `run`: the daemon. Reads the configuration, and from then on `src/daemon.ts` has the word.
 *
 * @module
 */

import { readFile, writeFile } from 'node:fs/promises';
import { Command } from 'commander';
import { FLAG_NAMES, type FlagValues } from '../config/flags.ts';
import { type LoadedConfig, loadConfig } from '../config/load.ts';
import { type Config, ConfigError } from '../config/types.ts';
import { watchConfigFile } from '../config/watch-file.ts';
import { formatConfigYaml } from '../config/write.ts';
import { createLogger, type Logger } from '../log.ts';
import type { ModeName } from '../modes/mode.ts';
import type { Clock } from '../sys/clock.ts';
import { versionInfo, versionLine } from '../version.ts';
import type { ExitCode, Io } from './command.ts';
import { decodeFlagValues, flagTerm, runOptions } from './run-flags.ts';

/** What `run` hands over to. */
export interface RunDeps {
  /** Modes this build can run; `mode` of the configuration must be one. */
  readonly builtModes: readonly ModeName[];
  /** Runs until `signal` aborts; rules stay. Rejects when it cannot go on. */
  readonly runDaemon: (config: Config, log: Logger, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
}

const EXAMPLES = `
Examples:
  switchyard run --config /var/lib/kube-proxy/config.conf
  switchyard run --kubeconfig ~/.kube/config --cluster-cidr 10.42.0.0/16 -v 2
  switchyard run --config config.conf --write-config-to effective.yaml

Runs until SIGTERM or SIGINT; the rules stay. Exit code: 0, or 1 when it cannot run or go on, and when the
content of the configuration file changes (start it again then, as a DaemonSet does).`;

/**
 * Runs the daemon, or does the one thing that `--version` or `--write-config-to` asks for.
 *
 * @returns 0 when asked to end, 1 when it cannot start or go on; the reason is on standard error.
 */
export async function runRun(flags: FlagValues, io: Io, deps: RunDeps): Promise<ExitCode> {
  if (flags.version !== undefined && flags.version !== 'false') {
    io.stdout.write(flags.version === 'raw' ? `${JSON.stringify(versionInfo())}\n` : `${versionLine()}\n`);
    return 0;
  }
  let loaded: LoadedConfig;
  try {
    loaded = await loadConfig(flags, { readFile: (path) => readFile(path, 'utf8') });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const problem of error.problems) io.stderr.write(`Error: ${problem}\n`);
    return 1;
  }
  const { config, warnings, fileContent } = loaded;
  const log = await createLogger(config, { stream: io.stderr, terminal: io.colours.stderr });
  for (const warning of warnings) log.warn(warning);
  for (const name of FLAG_NAMES) {
    if (flags[name] !== undefined) log.debug(`FLAG: --${name}=${JSON.stringify(flags[name])}`);
  }
  try {
    const writeTo = flags['write-config-to'] ?? '';
    if (writeTo !== '') {
      await writeFile(writeTo, formatConfigYaml(config));
      log.info({ path: writeTo }, 'wrote the configuration');
      return 0;
    }
    if (!deps.builtModes.includes(config.mode) && !config.cleanup) {
      throw new Error(`Cannot run mode "${config.mode}": not built yet, must be one of ${deps.builtModes.join(', ')}`);
    }
    return await untilEnd(config, fileContent, log, io.signal, deps);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.fatal(
      { reason, stack: log.isLevelEnabled('debug') && error instanceof Error ? error.stack : undefined },
      'command failed',
    );
    return 1;
  }
}

/** The daemon and the watch of its file, until one of them or the user ends. */
async function untilEnd(
  config: Config,
  fileContent: string | undefined,
  log: Logger,
  signal: AbortSignal,
  { runDaemon, clock }: RunDeps,
): Promise<ExitCode> {
  const stop = new AbortController();
  const end = AbortSignal.any([signal, stop.signal]);
  let changed = false;
  const onChange = () => {
    changed = true;
    log.error(
      { path: config.configFile },
      'the content of the configuration file was updated, ending to be started again',
    );
    stop.abort();
  };
  const watching =
    fileContent === undefined
      ? undefined
      : watchConfigFile(config.configFile, onChange, end, { clock, initial: fileContent });
  try {
    await runDaemon(config, log, end);
  } finally {
    stop.abort();
    await watching;
  }
  return changed ? 1 : 0;
}

export function runCommand(io: Io, exit: (code: ExitCode) => void, deps: RunDeps): Command {
  const command = new Command('run')
    .description("Watch the cluster's Services and program this node's kernel, in place of kube-proxy")
    .usage('[flags]')
    .configureHelp({ optionTerm: (option) => flagTerm(option) ?? option.flags })
    .helpOption('-h, --help', 'Show this help')
    .addHelpText('after', EXAMPLES)
    .action(async (options: Readonly<Record<string, unknown>>) =>
      exit(await runRun(decodeFlagValues(options), io, deps)),
    );
  for (const option of runOptions()) command.addOption(option);
  return command;
}
