/**
 * From the command line to the configuration: reads the file that `--config` names, joins it with the flags, checks.
 *
 * @module
 */

import { type ConfigOverrides, combine, flagsIgnoredBesideFile } from './combine.ts';
import { decodeFile } from './decode.ts';
import type { FlagValues } from './flags.ts';
import { type Config, ConfigError } from './types.ts';
import { validate } from './validate.ts';

export interface LoadedConfig {
  readonly config: Config;
  /** What was given and has no effect, one sentence each. */
  readonly warnings: readonly string[];
  /** What the file held, for `watchConfigFile`; undefined without `--config`. */
  readonly fileContent: string | undefined;
}

export interface LoadDeps {
  /** @returns The content of a file, as UTF-8. */
  readonly readFile: (path: string) => Promise<string>;
}

/**
 * Loads the configuration.
 *
 * @throws {ConfigError} If the file cannot be read or decoded, or anything in file or flags must not be so.
 */
export async function loadConfig(
  flags: FlagValues,
  deps: LoadDeps,
  overrides: ConfigOverrides = {},
): Promise<LoadedConfig> {
  const path = flags.config ?? '';
  if (path === '') {
    const config = validate(combine(flags, undefined, overrides));
    return { config, warnings: [], fileContent: undefined };
  }
  let content: string;
  try {
    content = await deps.readFile(path);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError([`Cannot read the configuration file "${path}": ${why}`], { cause });
  }
  const { file, warnings } = decodeFile(content, path);
  const ignored = flagsIgnoredBesideFile(flags);
  const aboutFlags = ignored.length === 0 ? [] : [`Ignoring ${ignored.join(', ')}: --config replaces them`];
  const config = validate(combine(flags, file, overrides));
  return { config, warnings: [...warnings, ...aboutFlags], fileContent: content };
}
