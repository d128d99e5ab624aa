/**
 * The flag table as commander options, and commander's result as typed values.
 *
 * @module
 */

import { InvalidArgumentError, Option } from 'commander';
import type { Flag } from '../config/flag-kinds.ts';
import { FLAG_NAMES, FLAGS, type FlagName, type FlagValues, isFlagName } from '../config/flags.ts';

/** One option for each flag. All take a value: `normaliseRunArgv` gives one to flags that stand alone. */
export function runOptions(): readonly Option[] {
  return FLAG_NAMES.map((name) => {
    const flag: Flag<unknown> = FLAGS[name];
    const names = flag.short === undefined ? `--${name}` : `-${flag.short}, --${name}`;
    const note = flag.default === '' ? '' : ` (default: ${flag.default})`;
    return new Option(`${names} <${name}>`, `${flag.help}${note}`).helpGroup(flag.group).argParser((text, previous) => {
      try {
        return flag.parse(text, previous);
      } catch (error) {
        throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
      }
    });
  });
}

/** The flag as the help shows it: `--cleanup`, `--config <file>`. Undefined for options that are not flags of `run`. */
export function flagTerm(option: Option): string | undefined {
  const name = option.long?.slice(2) ?? '';
  if (!isFlagName(name)) return undefined;
  const { metavar, bare, short }: Flag<unknown> = FLAGS[name];
  const value = metavar === '' ? '' : bare === undefined ? ` ${metavar}` : `[=${metavar.slice(1, -1)}]`;
  return `${short === undefined ? '' : `-${short}, `}--${name}${value}`;
}

/** Every flag of the command line with its value, in the words of the table. */
export function decodeFlagValues(options: Readonly<Record<string, unknown>>): FlagValues {
  const given = FLAG_NAMES.map((name): [FlagName, unknown] => [name, options[attributeName(name)]]);
  // Each value was made by the `parse` of the flag of the same name.
  return Object.fromEntries(given.filter(([, value]) => value !== undefined)) as FlagValues;
}

/** Where commander keeps the value of `--some-flag`: `someFlag`. */
const attributeName = (name: FlagName) => new Option(`--${name}`).attributeName();
