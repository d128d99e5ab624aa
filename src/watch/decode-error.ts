/**
 * The one error of decoding, and the readers of fields that throw it. A reader knows where it reads, so that the
 * error names the field; paths are only joined when something is wrong, or once for an entry of a list.
 *
 * @module
 */

/** A JSON object. Fields are read through the functions below and nowhere else. */
export interface JsonObject {
  readonly [field: string]: unknown;
}

/** A field is not what it must be. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError';
  /** Path of the field, as in `spec.ports[1].port`; '' is the whole document. */
  readonly field: string;
  /** What it is and what it must be: the message without the field. */
  readonly problem: string;

  constructor(field: string, problem: string) {
    super(`Cannot decode ${field || 'the object'}: ${problem}`);
    this.field = field;
    this.problem = problem;
  }
}

/** True for objects as JSON and YAML have them: no list, no null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const SHOWN_CHARS = 60;

/** What JSON leaves as it is, and a terminal obeys or hides: controls, marks of direction, no width, ends of line. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** A text of the cluster for a log line or a terminal: in quotes, at most 60 characters, none that is obeyed or hidden. */
export function quote(text: string): string {
  const json = JSON.stringify(text.length > SHOWN_CHARS ? `${text.slice(0, SHOWN_CHARS)}…` : text);
  return json.replace(UNSEEN, (c) => `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`);
}

/** A value in one short line. Lists and objects are only named: they may be large, and deep. */
export function show(value: unknown): string {
  if (value === undefined || value === null) return 'is missing';
  if (Array.isArray(value)) return 'is a list';
  if (typeof value === 'object') return 'is an object';
  if (typeof value !== 'string') return `is ${String(value)}`;
  return `is ${quote(value)}`;
}

/** @throws {DecodeError} Always. */
export function refuse(field: string, value: unknown, must: string): never {
  throw new DecodeError(field, `${show(value)}, must be ${must}`);
}

/** Joins a path: `at` is '' at the top. */
export function join(at: string, field: string): string {
  return at === '' ? field : `${at}.${field}`;
}

/** An optional object. Undefined when it is null or absent. */
export function optionalObject(from: JsonObject | undefined, field: string, at: string): JsonObject | undefined {
  const value = from?.[field];
  if (value === undefined || value === null) return undefined;
  return isJsonObject(value) ? value : refuse(join(at, field), value, 'an object');
}

/** An optional string. '' when it is null or absent. */
export function optionalString(from: JsonObject | undefined, field: string, at: string): string {
  const value = from?.[field];
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? value : refuse(join(at, field), value, 'a string');
}

/** An optional boolean. `absent` when it is null or absent. */
export function optionalBoolean(from: JsonObject | undefined, field: string, at: string, absent: boolean): boolean {
  const value = from?.[field];
  if (value === undefined || value === null) return absent;
  return typeof value === 'boolean' ? value : refuse(join(at, field), value, 'true or false');
}

/** An optional integer in a range. `absent` when it is null or absent. */
export function optionalInteger<Absent extends number | null>(
  from: JsonObject | undefined,
  field: string,
  at: string,
  range: { readonly min: number; readonly max: number; readonly absent: Absent },
): number | Absent {
  const value = from?.[field];
  if (value === undefined || value === null) return range.absent;
  if (typeof value === 'number' && Number.isInteger(value) && value >= range.min && value <= range.max) return value;
  return refuse(join(at, field), value, `an integer in ${range.min}..${range.max}`);
}

const NOTHING: readonly never[] = Object.freeze([]);

/** An optional list, each entry decoded by `entry`. One shared empty list when it is null or absent. */
export function optionalList<T>(
  from: JsonObject | undefined,
  field: string,
  at: string,
  entry: (value: unknown, at: string) => T,
): readonly T[] {
  const value = from?.[field];
  if (value === undefined || value === null) return NOTHING;
  if (!Array.isArray(value)) return refuse(join(at, field), value, 'a list');
  if (value.length === 0) return NOTHING;
  const path = join(at, field);
  return value.map((v, i) => entry(v, `${path}[${i}]`));
}

/** An entry of a list that must be an object. */
export function objectEntry(value: unknown, at: string): JsonObject {
  return isJsonObject(value) ? value : refuse(at, value, 'an object');
}

/** An entry of a list that must be a string. */
export function stringEntry(value: unknown, at: string): string {
  return typeof value === 'string' ? value : refuse(at, value, 'a string');
}

/** Labels or annotations: strings by name. Undefined when they are null or absent. */
export function optionalStrings(from: JsonObject | undefined, field: string, at: string): JsonObject | undefined {
  const strings = optionalObject(from, field, at);
  for (const name in strings) {
    if (typeof strings[name] !== 'string') refuse(`${join(at, field)}[${quote(name)}]`, strings[name], 'a string');
  }
  return strings;
}
