/**
 * The kit a file format is described with: a field is a function from an unknown value to a typed one, and an
 * object of fields is a field too, so that one table gives the type, the checks, the defaults and the documentation. A field that is
 * absent or null takes its default. Problems are collected and not thrown: one run shows all of them.
 *
 * @module
 */

import { parseDurationMs } from './durations.ts';

/** Collects what is wrong with a file, in the order it is met. */
export interface FieldReport {
  /** The value cannot be used. */
  readonly errors: string[];
  /** The value is left out, and the rest is used. */
  readonly warnings: string[];
}

/**
 * @param value - As JSON or YAML has it; undefined when absent.
 * @param path - Name of the field from the root, as in `iptables.masqueradeBit`; '' for the root.
 * @returns The value, or the default after writing an error to `report`.
 */
export interface Field<T> {
  (value: unknown, path: string, report: FieldReport): T;
  readonly shape: FieldShape;
}

/** What a field takes, for documentation. `type` is in words: `string`, `duration`. */
export type FieldShape =
  | { readonly kind: 'value'; readonly type: string }
  | { readonly kind: 'list' | 'map'; readonly item: FieldShape }
  | { readonly kind: 'object'; readonly fields: Readonly<Record<string, FieldShape>> };

type Decode<T> = (value: unknown, path: string, report: FieldReport) => T;

const shaped = <T>(shape: FieldShape, decode: Decode<T>): Field<T> => Object.assign(decode, { shape });

/** The value a field decodes to. */
export type FieldValue<F> = F extends Field<infer T> ? T : never;

/** A field of one JSON type: the default if absent, an error if it is of another type. */
function scalar<T>(type: string, fallback: T, mustBe: string, take: (value: unknown) => T | undefined): Field<T> {
  return shaped({ kind: 'value', type }, (value, path, report) => {
    if (value === undefined || value === null) return fallback;
    const taken = take(value);
    if (taken !== undefined) return taken;
    report.errors.push(`Cannot use ${path} ${JSON.stringify(value)}: must be ${mustBe}`);
    return fallback;
  });
}

/** A value that is empty or zero counts as absent. */
function or<T>(plain: Field<T>, fallback: T): Field<T> {
  return shaped(plain.shape, (value, path, report) => plain(value, path, report) || fallback);
}

export const text = (fallback = ''): Field<string> =>
  scalar('string', fallback, 'a string (put it in quotes)', (v) => (typeof v === 'string' ? v : undefined));

/** A text where empty means absent. */
export const textOr = (fallback: string): Field<string> => or(text(), fallback);

export const bool = (fallback: boolean): Field<boolean> =>
  scalar('boolean', fallback, 'true or false', (v) => (typeof v === 'boolean' ? v : undefined));

/** A whole number of 32 bits. */
export const int32 = (fallback: number): Field<number> =>
  scalar('int32', fallback, 'a whole number of 32 bits', (v) =>
    typeof v === 'number' && Number.isInteger(v) && Math.abs(v) < 2 ** 31 ? v : undefined,
  );

/** A number where 0 means absent. */
export const numberOr = (fallback: number): Field<number> =>
  or(
    scalar('number', 0, 'a number', (v) => (typeof v === 'number' && Number.isFinite(v) ? v : undefined)),
    fallback,
  );

function duration(value: unknown): number | undefined {
  try {
    return typeof value === 'string' ? parseDurationMs(value) : undefined;
  } catch {
    // The caller says what it must be.
    return undefined;
  }
}

/** A Go duration, in milliseconds. */
export const durationMs = (fallback: number): Field<number> =>
  scalar('duration', fallback, 'a duration such as "30s" or "1h30m"', duration);

/** A Go duration where 0 means absent. */
export const durationMsOr = (fallback: number): Field<number> => or(durationMs(0), fallback);

/** A Go duration as text, or as a number of nanoseconds. 0 means absent. */
export const durationOrNanosecondsMs = (fallback: number): Field<number> =>
  or(
    scalar('duration', 0, 'a duration such as "5s", or nanoseconds', (v) =>
      typeof v === 'number' ? v / 1e6 : duration(v),
    ),
    fallback,
  );

/** A Kubernetes quantity, as text: `0`, `64Ki`, `1M`. A number is taken as its text. */
export const quantity = (fallback: string): Field<string> =>
  scalar('quantity', fallback, 'a quantity such as "0" or "64Ki"', (v) => {
    const written = typeof v === 'number' ? String(v) : v;
    return typeof written === 'string' && /^\d+(\.\d+)?([EPTGMKk]i?|m)?$/.test(written) ? written : undefined;
  });

/** A list of what `item` decodes; absent is empty. */
export function list<T>(item: Field<T>): Field<readonly T[]> {
  return shaped({ kind: 'list', item: item.shape }, (value, path, report) => {
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value)) {
      report.errors.push(`Cannot use ${path} ${JSON.stringify(value)}: must be a list`);
      return [];
    }
    return value.map((v: unknown, i) => item(v, `${path}[${i}]`, report));
  });
}

/** An object with any keys; absent is empty. */
export function mapOf<T>(item: Field<T>): Field<Readonly<Record<string, T>>> {
  return shaped({ kind: 'map', item: item.shape }, (value, path, report) => {
    const entries = entriesOf(value, path, report);
    return Object.fromEntries(entries.map(([key, v]) => [key, item(v, `${path}.${key}`, report)]));
  });
}

/** An object with these fields; an unknown one is a warning. */
export function object<Fields extends Readonly<Record<string, Field<unknown>>>>(
  fields: Fields,
): Field<{ readonly [K in keyof Fields]: FieldValue<Fields[K]> }> {
  const shapes = Object.fromEntries(Object.entries(fields).map(([key, { shape }]) => [key, shape]));
  return shaped({ kind: 'object', fields: shapes }, (value, path, report) => {
    const given = new Map(entriesOf(value, path, report));
    for (const key of given.keys()) {
      if (Object.hasOwn(fields, key)) continue;
      const meant = Object.keys(fields).find((f) => f.toLowerCase() === key.toLowerCase());
      const hint = meant === undefined ? '' : `, did you mean "${meant}"?`;
      report.warnings.push(`Ignoring unknown field "${join(path, key)}"${hint}`);
    }
    const decoded = Object.entries(fields).map(([key, field]) => [key, field(given.get(key), join(path, key), report)]);
    // The keys are those of `fields`, each with the value its field gave.
    return Object.fromEntries(decoded) as { readonly [K in keyof Fields]: FieldValue<Fields[K]> };
  });
}

const join = (path: string, key: string) => (path === '' ? key : `${path}.${key}`);

function entriesOf(value: unknown, path: string, report: FieldReport): [string, unknown][] {
  if (value === undefined || value === null) return [];
  if (typeof value === 'object' && !Array.isArray(value)) return Object.entries(value);
  report.errors.push(`Cannot use ${path || 'the document'} ${JSON.stringify(value)}: must be an object`);
  return [];
}
