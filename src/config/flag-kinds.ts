/**
 * Kinds of flags: how the text after a flag's name becomes a value. Texts are read as Go's flag package reads them.
 *
 * @module
 */

import { parseIP } from '../proxier/addr.ts';
import { splitHostPort } from './addresses.ts';
import { parseDurationMs } from './durations.ts';
import type { VModuleItem } from './types.ts';

/** One flag of `run`. */
export interface Flag<T> {
  /** What stands for the value in the help; '' for a flag that is on or off. */
  readonly metavar: string;
  /** The text a bare `--flag` stands for; undefined if a value must follow. */
  readonly bare: string | undefined;
  /**
   * @param previous - Value of an earlier use of the same flag: lists grow, other kinds ignore it.
   * @throws {SyntaxError} Saying what the text must be.
   */
  parse(text: string, previous: T | undefined): T;
  readonly help: string;
  /** Default as the help shows it; '' shows none. */
  readonly default: string;
  /** Field of KubeProxyConfiguration that says the same, as in `iptables.masqueradeBit`; '' for none. */
  readonly field: string;
  readonly group: FlagGroup;
  /** One letter, for `-v`. */
  readonly short?: string;
}

export type FlagGroup =
  | 'Configuration:'
  | 'API server:'
  | 'Node and addresses:'
  | 'Proxying:'
  | 'IPVS:'
  | 'Connection tracking:'
  | 'Logging:'
  | 'Accepted without effect:';

/** What a row of the table says besides the kind. */
export interface FlagText {
  readonly help: string;
  readonly group: FlagGroup;
  readonly default?: string;
  readonly field?: string;
  readonly short?: string;
}

function flag<T>(metavar: string, parse: Flag<T>['parse'], text: FlagText, bare?: string): Flag<T> {
  return { metavar, bare, parse, default: '', field: '', ...text };
}

export const textFlag = (metavar: string, text: FlagText): Flag<string> => flag(metavar, (s) => s, text);

export const boolFlag = (text: FlagText): Flag<boolean> => flag('', parseBool, text, 'true');

/** A text that may be left out: `--flag` alone means `bare`. */
export const optionalTextFlag = (metavar: string, bare: string, text: FlagText): Flag<string> =>
  flag(metavar, (s) => s, text, bare);

export const intFlag = (text: FlagText): Flag<number> => flag('<n>', parseInteger, text);

export const numberFlag = (text: FlagText): Flag<number> =>
  flag(
    '<n>',
    (s) => {
      if (s.trim() !== s || s === '' || !Number.isFinite(Number(s))) throw new SyntaxError('must be a number');
      return Number(s);
    },
    text,
  );

export const durationFlag = (text: FlagText): Flag<number> =>
  flag(
    '<duration>',
    (s) => {
      try {
        return parseDurationMs(s);
      } catch (cause) {
        throw new SyntaxError('must be a duration such as 30s or 1h30m', { cause });
      }
    },
    text,
  );

/** Comma separated; a second use of the flag adds to the first. */
export const listFlag = (metavar: string, text: FlagText): Flag<readonly string[]> =>
  flag(metavar, (s, previous) => [...(previous ?? []), ...(s === '' ? [] : s.split(','))], text);

/** An address, or '', which is as if not given. */
export const ipFlag = (text: FlagText): Flag<string> =>
  flag(
    '<ip>',
    (s) => {
      if (s !== '' && parseIP(s) === undefined) throw new SyntaxError('must be an IP address');
      return s;
    },
    text,
  );

/** An address with or without a port, or '', which is as if not given. */
export const ipPortFlag = (text: FlagText): Flag<string> =>
  flag(
    '<ip:port>',
    (s) => {
      const host = parseIP(s) === undefined ? splitHostPort(s) : undefined;
      const isPort = host !== undefined && /^\d{1,5}$/.test(host.port) && Number(host.port) < 65536;
      if (s !== '' && parseIP(s) === undefined && !(isPort && parseIP(host.host) !== undefined)) {
        throw new SyntaxError('must be an IP address or ip:port, as in 0.0.0.0:10256 or [::]:10256');
      }
      return s;
    },
    text,
  );

/** `Name=true,Other=false`; a second use of the flag adds to the first. */
export const gatesFlag = (text: FlagText): Flag<Readonly<Record<string, boolean>>> =>
  flag(
    '<Name=bool,...>',
    (s, previous) => {
      const pairs = s.split(',').filter((pair) => pair.trim() !== '');
      const gates = pairs.map((pair): [string, boolean] => {
        const at = pair.indexOf('=');
        if (at < 1) throw new SyntaxError(`must be Name=true or Name=false, and "${pair}" is not`);
        return [pair.slice(0, at).trim(), parseBool(pair.slice(at + 1).trim())];
      });
      return { ...previous, ...Object.fromEntries(gates) };
    },
    text,
  );

/** `pattern=N,other=N`. */
export const vmoduleFlag = (text: FlagText): Flag<readonly VModuleItem[]> =>
  flag<readonly VModuleItem[]>(
    '<pattern=N,...>',
    (s) =>
      s
        .split(',')
        .filter((pair) => pair !== '')
        .map((pair) => {
          const match = /^([^=]+)=(\d{1,9})$/.exec(pair);
          if (match === null) throw new SyntaxError(`must be pattern=N, and "${pair}" is not`);
          return { filePattern: match[1] ?? '', verbosity: Number(match[2]) };
        }),
    text,
  );

function parseBool(text: string): boolean {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false;
  throw new SyntaxError('must be true or false');
}

/** Decimal, or with 0x, 0o, 0b; a leading 0 alone is octal. */
function parseInteger(text: string): number {
  const match = /^([-+]?)(\d+|0[xX][\da-fA-F]+|0[oO][0-7]+|0[bB][01]+)$/.exec(text);
  const digits = match?.[2] ?? '';
  const octal = /^0[0-7]+$/.test(digits);
  const n = octal ? Number.parseInt(digits, 8) : Number(digits);
  if (match === null || (!octal && /^0\d/.test(digits)) || n >= 2 ** 31) {
    throw new SyntaxError('must be a whole number of 32 bits');
  }
  return match[1] === '-' ? -n : n;
}
