/**
 * The shape of a kind as data: which fields there are, of which type, and how their lists are patched.
 *
 * One description serves four readers: decoding (wrong types, unknown fields), strategic merge patch
 * (merge keys), OpenAPI, and `kubectl explain`.
 *
 * @module
 */

import { isJsonObject, type Json, type JsonObject } from './object.ts';
import { badRequest } from './status.ts';

export type Schema = Scalar | ObjectSchema | MapSchema | ListSchema;

export interface Scalar {
  readonly type: 'string' | 'integer' | 'boolean' | 'intOrString' | 'time' | 'any';
}

export interface ObjectSchema {
  readonly type: 'object';
  readonly fields: Readonly<Record<string, Schema>>;
}

export interface MapSchema {
  readonly type: 'map';
  readonly of: Schema;
}

export interface ListSchema {
  readonly type: 'list';
  readonly of: Schema;
  /** Undefined: a patch replaces the list. '' : a set of scalars. Else: entries are merged by this field. */
  readonly mergeKey: string | undefined;
}

export const string: Scalar = { type: 'string' };
export const integer: Scalar = { type: 'integer' };
export const boolean: Scalar = { type: 'boolean' };
export const intOrString: Scalar = { type: 'intOrString' };
export const time: Scalar = { type: 'time' };
/** Anything at all, kept as it is. */
export const anything: Scalar = { type: 'any' };

export function object(fields: Readonly<Record<string, Schema>>): ObjectSchema {
  return { type: 'object', fields };
}

export function map(of: Schema): MapSchema {
  return { type: 'map', of };
}

/** A list that a patch replaces as a whole. */
export function list(of: Schema): ListSchema {
  return { type: 'list', of, mergeKey: undefined };
}

/** A list whose entries a strategic merge patch merges by the field `mergeKey`. */
export function mergeList(of: Schema, mergeKey: string): ListSchema {
  return { type: 'list', of, mergeKey };
}

/** A list of scalars to which a strategic merge patch adds. */
export function set(of: Schema): ListSchema {
  return { type: 'list', of, mergeKey: '' };
}

const GO_TYPES: Readonly<Record<Schema['type'], string>> = {
  string: 'string',
  time: 'v1.Time',
  integer: 'int32',
  boolean: 'bool',
  intOrString: 'intstr.IntOrString',
  any: 'any',
  object: 'struct',
  map: 'map',
  list: 'slice',
};

function jsonType(value: Json): string {
  if (Array.isArray(value)) return 'array';
  return isJsonObject(value) ? 'object' : value === null ? 'null' : typeof value === 'boolean' ? 'bool' : typeof value;
}

function fits(type: Schema['type'], value: Json): boolean {
  switch (type) {
    case 'string':
    case 'time':
      return typeof value === 'string';
    case 'integer':
      return Number.isSafeInteger(value);
    case 'boolean':
      return typeof value === 'boolean';
    case 'intOrString':
      return typeof value === 'string' || Number.isSafeInteger(value);
    case 'object':
    case 'map':
      return isJsonObject(value);
    case 'list':
      return Array.isArray(value);
    case 'any':
      return true;
  }
}

/**
 * Brings an object to the shape of its kind, in place: a null field is dropped, an unknown field too.
 *
 * @returns Paths of the unknown fields, as in `spec.ports[0].foo`.
 * @throws {ApiError} 400 if a field has a wrong type, in the words of Go's decoder that the API server prints.
 */
export function conform(kind: string, version: string, schema: ObjectSchema, value: JsonObject): string[] {
  const unknown: string[] = [];
  const walk = (at: Schema, node: Json, path: string): void => {
    if (!fits(at.type, node)) {
      const field = `${kind}.${path.replaceAll(/\[\d+\]/g, '')}`;
      throw badRequest(
        `${kind} in version "${version}" cannot be handled as a ${kind}: json: cannot unmarshal ${jsonType(node)} into Go struct field ${field} of type ${GO_TYPES[at.type]}`,
      );
    }
    if (at.type === 'list' && Array.isArray(node)) {
      for (const [i, item] of node.entries()) walk(at.of, item, `${path}[${i}]`);
    } else if (isJsonObject(node) && (at.type === 'object' || at.type === 'map')) {
      for (const [field, inner] of Object.entries(node)) {
        const below = path === '' ? field : `${path}.${field}`;
        const next = at.type === 'map' ? at.of : Object.hasOwn(at.fields, field) ? at.fields[field] : undefined;
        if (next === undefined) unknown.push(below);
        if (next === undefined || inner === null) delete node[field];
        else walk(next, inner, below);
      }
    }
  };
  walk(schema, value, '');
  return unknown;
}
