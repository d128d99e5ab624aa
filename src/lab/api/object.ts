/**
 * What the server stores: JSON, and the little of a Kubernetes object that every kind shares.
 *
 * The only casts from JSON to a shape are here and in the files of the kinds, behind a check by `schema.ts`.
 *
 * @module
 */

export type Json = string | number | boolean | null | Json[] | JsonObject;

export interface JsonObject {
  [field: string]: Json;
}

export interface Metadata {
  name: string;
  /** '' or absent for cluster-scoped kinds. */
  namespace?: string;
  generateName?: string;
  uid?: string;
  /** Decimal text. Clients must not compare it; this server does, it is one counter. */
  resourceVersion?: string;
  generation?: number;
  /** RFC 3339, whole seconds. */
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  finalizers?: string[];
}

/** An object of any kind. Once in the store it is never changed again: an update makes another. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: Metadata;
  spec?: JsonObject;
  status?: JsonObject;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Takes an object from outside.
 *
 * @returns A deep copy the caller owns; `undefined` fields are gone.
 * @throws {TypeError} If it has no apiVersion, kind or metadata.
 */
export function toKubeObject(value: unknown): KubeObject {
  const copy: unknown = JSON.parse(JSON.stringify(value) ?? 'null');
  if (!isJsonObject(copy)) throw new TypeError('Cannot use a value as an object: must be a JSON object');
  for (const field of ['apiVersion', 'kind']) {
    if (typeof copy[field] !== 'string') {
      throw new TypeError(`Cannot use an object: ${field} is ${JSON.stringify(copy[field])}, must be a string`);
    }
  }
  if (!isJsonObject(copy['metadata'])) {
    throw new TypeError(`Cannot use a ${String(copy['kind'])}: metadata is missing, must be an object`);
  }
  return copy as unknown as KubeObject;
}

/** The same object, as JSON to walk through. */
export function asJson(object: KubeObject): JsonObject {
  return object as unknown as JsonObject;
}

/** `namespace/name`, or `name` for cluster-scoped kinds. Also the order of lists. */
export function keyOf(object: KubeObject): string {
  const { namespace, name } = object.metadata;
  return namespace ? `${namespace}/${name}` : name;
}

/** Text of the field at a dotted path, '' if it is absent or not a scalar. */
export function textAt(object: KubeObject, path: string): string {
  let at: Json | undefined = asJson(object);
  for (const field of path.split('.')) at = isJsonObject(at) ? at[field] : undefined;
  return typeof at === 'string' || typeof at === 'number' || typeof at === 'boolean' ? String(at) : '';
}
