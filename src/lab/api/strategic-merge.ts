/**
 * Strategic merge patch: a merge patch that knows from the kind's schema which lists are merged and by which field.
 *
 * Directives: `$patch: delete|replace|merge`, `$retainKeys`, `$setElementOrder/<list>`, `$deleteFromPrimitiveList/<list>`.
 *
 * @module
 */

import { isDeepStrictEqual } from 'node:util';
import { isJsonObject, type Json, type JsonObject } from './object.ts';
import type { Schema } from './schema.ts';
import { badRequest } from './status.ts';

const ORDER = '$setElementOrder/';
const DELETE_FROM = '$deleteFromPrimitiveList/';

function fieldSchema(schema: Schema | undefined, field: string): Schema | undefined {
  if (schema?.type === 'object') return schema.fields[field];
  return schema?.type === 'map' ? schema.of : undefined;
}

/** A new value from a patch: directives and nulls are not part of it. */
function withoutDirectives(value: Json): Json {
  if (Array.isArray(value)) {
    return value.filter((v) => !(isJsonObject(v) && v['$patch'] === 'delete')).map(withoutDirectives);
  }
  if (!isJsonObject(value)) return value;
  const plain: JsonObject = {};
  for (const [field, inner] of Object.entries(value)) {
    if (!field.startsWith('$') && inner !== null) plain[field] = withoutDirectives(inner);
  }
  return plain;
}

/**
 * Finds the entry a patch entry is about.
 *
 * Ports of a Service are merged by number alone, and TCP and UDP may share one: of several candidates the one that
 * has the protocol the patch names is taken.
 */
function findEntry(list: readonly Json[], mergeKey: string, wanted: JsonObject): number {
  const candidates = [...list.keys()].filter((i) => {
    const entry = list[i];
    return isJsonObject(entry) && entry[mergeKey] === wanted[mergeKey];
  });
  const exact = candidates.find((i) => {
    const entry = list[i];
    return isJsonObject(entry) && entry['protocol'] === wanted['protocol'];
  });
  return exact ?? candidates[0] ?? -1;
}

function mergeEntries(of: Schema, mergeKey: string, target: readonly Json[], patch: readonly Json[]): Json[] {
  if (patch.some((p) => isJsonObject(p) && p['$patch'] === 'replace')) {
    return patch.filter((p) => !(isJsonObject(p) && p['$patch'] === 'replace')).map(withoutDirectives);
  }
  const merged = [...target];
  for (const entry of patch) {
    if (!isJsonObject(entry) || entry[mergeKey] === undefined) {
      throw badRequest(`map: ${JSON.stringify(entry)} does not contain declared merge key: ${mergeKey}`);
    }
    const at = findEntry(merged, mergeKey, entry);
    if (entry['$patch'] === 'delete') {
      if (at >= 0) merged.splice(at, 1);
    } else if (at >= 0) merged[at] = strategicMerge(of, merged[at], entry);
    else merged.push(withoutDirectives(entry));
  }
  return merged;
}

/** Entries named by `order` come in that order; the others stay behind them in their own. */
function inOrder(list: readonly Json[], mergeKey: string, order: readonly Json[]): Json[] {
  const rest = [...list];
  const sorted: Json[] = [];
  for (const wanted of order) {
    const at =
      mergeKey !== '' && isJsonObject(wanted)
        ? findEntry(rest, mergeKey, wanted)
        : rest.findIndex((entry) => isDeepStrictEqual(entry, wanted));
    if (at >= 0) sorted.push(...rest.splice(at, 1));
  }
  return [...sorted, ...rest];
}

/**
 * Applies a strategic merge patch. Leaves its arguments as they are.
 *
 * @param schema - Shape of the target; where it is undefined, lists are replaced.
 * @throws {ApiError} 400 if an entry of a merged list does not have the merge key.
 */
export function strategicMerge(schema: Schema | undefined, target: Json | undefined, patch: Json): Json {
  if (!isJsonObject(patch)) return withoutDirectives(patch);
  if (patch['$patch'] === 'replace') return withoutDirectives(patch);
  if (!isJsonObject(target)) return withoutDirectives(patch);
  const merged: JsonObject = { ...target };
  const retain = patch['$retainKeys'];
  if (Array.isArray(retain)) {
    for (const field of Object.keys(merged)) if (!retain.includes(field)) delete merged[field];
  }
  for (const [field, value] of Object.entries(patch)) {
    if (field.startsWith(DELETE_FROM)) {
      const list = merged[field.slice(DELETE_FROM.length)];
      if (Array.isArray(list) && Array.isArray(value)) {
        merged[field.slice(DELETE_FROM.length)] = list.filter((v) => !value.some((d) => isDeepStrictEqual(d, v)));
      }
    }
    if (field.startsWith('$')) continue;
    const below = fieldSchema(schema, field);
    const now = merged[field];
    if (value === null || (isJsonObject(value) && value['$patch'] === 'delete')) delete merged[field];
    else if (Array.isArray(value) && Array.isArray(now) && below?.type === 'list' && below.mergeKey !== undefined) {
      merged[field] =
        below.mergeKey === ''
          ? [...now, ...value.filter((v) => !now.some((n) => isDeepStrictEqual(n, v)))]
          : mergeEntries(below.of, below.mergeKey, now, value);
    } else merged[field] = strategicMerge(below, now, value);
  }
  for (const [directive, order] of Object.entries(patch)) {
    if (!directive.startsWith(ORDER) || !Array.isArray(order)) continue;
    const field = directive.slice(ORDER.length);
    const below = fieldSchema(schema, field);
    const list = merged[field];
    if (Array.isArray(list) && below?.type === 'list') merged[field] = inOrder(list, below.mergeKey ?? '', order);
  }
  return merged;
}
