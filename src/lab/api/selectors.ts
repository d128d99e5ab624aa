/**
 * Label and field selectors as Kubernetes writes them in a query.
 *
 * @module
 */

import type { KubeObject } from './object.ts';
import { badRequest } from './status.ts';

export type Matches = (object: KubeObject) => boolean;

type LabelTest = (labels: Readonly<Record<string, string>>) => boolean;

const KEY = '([A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?)';
const EXISTS = new RegExp(`^(!?)\\s*${KEY}$`);
const EQUALS = new RegExp(`^${KEY}\\s*(=|==|!=)\\s*([-A-Za-z0-9_.]*)$`);
const IN = new RegExp(`^${KEY}\\s+(in|notin)\\s*\\(([^()]*)\\)$`);

function labelTest(term: string): LabelTest {
  const exists = EXISTS.exec(term);
  if (exists) {
    const [, not, key = ''] = exists;
    return not ? (labels) => !Object.hasOwn(labels, key) : (labels) => Object.hasOwn(labels, key);
  }
  const equals = EQUALS.exec(term);
  if (equals) {
    const [, key = '', , operator, value = ''] = equals;
    // As in Kubernetes, an absent label differs from every value.
    return operator === '!=' ? (labels) => labels[key] !== value : (labels) => labels[key] === value;
  }
  const within = IN.exec(term);
  if (within) {
    const [, key = '', , operator, list = ''] = within;
    const values = new Set(list.split(',').map((v) => v.trim()));
    const has: LabelTest = (labels) => Object.hasOwn(labels, key) && values.has(labels[key] ?? '');
    return operator === 'in' ? has : (labels) => !has(labels);
  }
  throw badRequest(`unable to parse requirement: found "${term}", must be a label requirement`);
}

/** Splits at the commas that are not inside brackets. */
function terms(text: string): string[] {
  return text
    .split(/,(?![^(]*\))/)
    .map((t) => t.trim())
    .filter((t) => t !== '');
}

/**
 * Parses a label selector.
 *
 * @param text - For example `!x, app=web, tier in (a,b)`; '' matches everything.
 * @throws {ApiError} 400 if a term is none of `x`, `!x`, `x=y`, `x==y`, `x!=y`, `x in (…)`, `x notin (…)`.
 */
export function parseLabelSelector(text: string): Matches {
  const tests = terms(text).map(labelTest);
  if (tests.length === 0) return () => true;
  return (object) => {
    const labels = object.metadata.labels ?? {};
    return tests.every((test) => test(labels));
  };
}

/**
 * Parses a field selector.
 *
 * @param fields - The fields of the kind that can be selected by; `metadata.name` and `metadata.namespace` always can.
 * @throws {ApiError} 400 if a term is not `field=value`, `field==value` or `field!=value`, or the field cannot be selected by.
 */
export function parseFieldSelector(
  text: string,
  fields: Readonly<Record<string, (object: KubeObject) => string>>,
): Matches {
  const tests = terms(text).map((term): Matches => {
    const [, field = '', operator, value = ''] = /^([\w.]+)(==|!=|=)(.*)$/.exec(term) ?? [];
    if (operator === undefined) throw badRequest(`invalid selector: "${term}"; can't understand "${term}"`);
    const read =
      field === 'metadata.name'
        ? (o: KubeObject) => o.metadata.name
        : field === 'metadata.namespace'
          ? (o: KubeObject) => o.metadata.namespace ?? ''
          : Object.hasOwn(fields, field)
            ? fields[field]
            : undefined;
    if (read === undefined) throw badRequest(`field label not supported: ${field}`);
    return operator === '!=' ? (o) => read(o) !== value : (o) => read(o) === value;
  });
  return tests.length === 0 ? () => true : (object) => tests.every((test) => test(object));
}
