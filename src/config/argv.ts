/**
 * The command line as Kubernetes components read it, brought into the form commander reads: `_` in names of flags is
 * `-`; on/off flags take a value only after `=`; `-v=2`; empty positional arguments do not count.
 *
 * @module
 */

import { FLAG_NAMES, FLAGS, type FlagName, isFlagName } from './flags.ts';

const SHORT: ReadonlyMap<string, FlagName> = new Map(
  FLAG_NAMES.flatMap((name) => {
    const flag = FLAGS[name];
    return 'short' in flag && flag.short !== undefined ? [[flag.short, name] as const] : [];
  }),
);

/**
 * Rewrites the arguments after `run`.
 *
 * @returns Every known flag as one `--name=value`; what is not known as it came, but for `_` in its name.
 */
export function normaliseRunArgv(argv: readonly string[]): readonly string[] {
  const out: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i] ?? '';
    if (arg === '--') return [...out, ...argv.slice(i).filter((rest) => rest !== '')];
    if (arg === '') continue;
    const short = /^-([a-zA-Z])(?:=?(.*))$/s.exec(arg);
    const shortName = SHORT.get(short?.[1] ?? '');
    const long = /^--([^=]+)(?:=(.*))?$/s.exec(arg);
    const name = shortName ?? long?.[1]?.replaceAll('_', '-');
    if (name === undefined) {
      out.push(arg);
      continue;
    }
    let value = shortName === undefined ? long?.[2] : short?.[2] || undefined;
    if (isFlagName(name)) {
      value ??= FLAGS[name].bare;
      if (value === undefined && i + 1 < argv.length) {
        i += 1;
        value = argv[i];
      }
    }
    out.push(value === undefined ? `--${name}` : `--${name}=${value}`);
  }
  return out;
}
