/**
 * Equality of plain data.
 *
 * @module
 */

/**
 * Compares objects, arrays and primitives by value. A part that both sides share costs one look.
 *
 * Not `isDeepStrictEqual` of node:util: this one takes a fifth of its time, and every change of a service goes through
 * it. It knows no Map, Set, Date or cycle, which no record of the model holds.
 */
export function sameData(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!sameData(a[i], b[i])) return false;
    return true;
  }
  if (!isRecord(a) || !isRecord(b)) return false;
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  for (const key of keys) if (!Object.hasOwn(b, key) || !sameData(a[key], b[key])) return false;
  return true;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
