/**
 * Durations in the spelling of Go, as flags and KubeProxyConfiguration use them: `30s`, `1h15m30.918s`, `-1.5h`.
 *
 * @module
 */

const NS_PER_MS = 1_000_000n;
/** int64, which Go keeps a duration in: about 292 years. */
const MAX_NS = (1n << 63n) - 1n;

/** Both letters that are written for micro: U+00B5 (micro sign) and U+03BC (Greek mu). */
const UNITS_NS: ReadonlyMap<string, bigint> = new Map([
  ['ns', 1n],
  ['us', 1_000n],
  ['\u00b5s', 1_000n],
  ['\u03bcs', 1_000n],
  ['ms', NS_PER_MS],
  ['s', 1_000_000_000n],
  ['m', 60_000_000_000n],
  ['h', 3_600_000_000_000n],
]);

const PART = /(\d*)(?:\.(\d*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/y;

/**
 * Parses a duration.
 *
 * @returns Milliseconds; whole nanoseconds are kept as a fraction. Exact to the nanosecond below 104 days.
 * @throws {SyntaxError} If `text` is not a signed sequence of decimal numbers with units (`0` needs none).
 * @throws {RangeError} If it is longer than 292 years.
 */
export function parseDurationMs(text: string): number {
  const negative = text.startsWith('-');
  const body = text.replace(/^[-+]/, '');
  if (body === '0') return 0;
  let ns = 0n;
  PART.lastIndex = 0;
  while (PART.lastIndex < body.length || body === '') {
    const part = PART.exec(body);
    const [, whole = '', fraction = '', unitName = ''] = part ?? [];
    const unit = UNITS_NS.get(unitName);
    if (unit === undefined || whole + fraction === '') {
      throw new SyntaxError(
        `Cannot parse duration "${text}": must be numbers with units h, m, s, ms, us or ns, as in "1m30s"`,
      );
    }
    ns += BigInt(whole || '0') * unit;
    // More digits than 18 are below a nanosecond in every unit.
    const digits = fraction.slice(0, 18);
    ns += (BigInt(digits || '0') * unit) / 10n ** BigInt(digits.length);
  }
  if (ns > MAX_NS) throw new RangeError(`Cannot parse duration "${text}": longer than 292 years`);
  const ms = Number(ns / NS_PER_MS) + Number(ns % NS_PER_MS) / 1e6;
  return negative ? -ms : ms;
}

/**
 * Prints a duration as Go does: the largest unit that fits, no unit left out below it (`24h0m0s`, `1m30s`), and
 * below a second one unit only (`1.5ms`, `250ns`).
 *
 * @param ms - Milliseconds; rounded to whole nanoseconds.
 */
export function formatDurationMs(ms: number): string {
  if (ms === 0) return '0s';
  const sign = ms < 0 ? '-' : '';
  const wholeMs = Math.trunc(Math.abs(ms));
  const ns = BigInt(wholeMs) * NS_PER_MS + BigInt(Math.round((Math.abs(ms) - wholeMs) * 1e6));
  if (ns < 1_000n) return `${sign}${ns}ns`;
  if (ns < NS_PER_MS) return `${sign}${decimal(ns, 3)}\u00b5s`;
  if (ns < 1_000_000_000n) return `${sign}${decimal(ns, 6)}ms`;
  const totalMinutes = ns / 60_000_000_000n;
  const seconds = `${decimal(ns % 60_000_000_000n, 9)}s`;
  if (totalMinutes === 0n) return sign + seconds;
  const [hours, minutes] = [totalMinutes / 60n, totalMinutes % 60n];
  return hours === 0n ? `${sign}${minutes}m${seconds}` : `${sign}${hours}h${minutes}m${seconds}`;
}

/** `n` divided by 10^`places`, without trailing zeros. */
function decimal(n: bigint, places: number): string {
  const digits = n.toString().padStart(places + 1, '0');
  const whole = digits.slice(0, -places);
  const fraction = digits.slice(-places).replace(/0+$/, '');
  return fraction === '' ? whole : `${whole}.${fraction}`;
}
