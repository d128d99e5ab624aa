/**
 * JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386). Both leave their arguments as they are.
 *
 * @module
 */

import { isDeepStrictEqual } from 'node:util';
import { isJsonObject, type Json, type JsonObject } from './object.ts';
import { ApiError, badRequest } from './status.ts';

/** Applies a merge patch: objects are merged, null removes, anything else replaces. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (!isJsonObject(patch)) return patch;
  const merged: JsonObject = isJsonObject(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) delete merged[field];
    else merged[field] = mergePatch(merged[field], value);
  }
  return merged;
}

function cannotApply(what: string): ApiError {
  return new ApiError({
    code: 422,
    reason: 'Invalid',
    message: `the server rejected our request due to an error in our request: ${what}`,
  });
}

function parsePointer(pointer: Json | undefined, member: string): string[] {
  if (pointer === '') return [];
  if (typeof pointer !== 'string' || !pointer.startsWith('/')) {
    throw badRequest(
      `Cannot apply JSON patch: ${member} is ${JSON.stringify(pointer)}, must be a pointer that starts with "/"`,
    );
  }
  return pointer
    .slice(1)
    .split('/')
    .map((t) => t.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function read(document: Json, path: readonly string[]): Json | undefined {
  let at: Json | undefined = document;
  for (const token of path) {
    if (Array.isArray(at)) at = /^\d+$/.test(token) ? at[Number(token)] : undefined;
    else at = isJsonObject(at) && Object.hasOwn(at, token) ? at[token] : undefined;
  }
  return at;
}

/** Puts a value where a pointer says, or removes what is there when `value` is undefined. */
function write(document: Json, path: readonly string[], value: Json | undefined, how: 'insert' | 'replace'): Json {
  const token = path.at(-1);
  if (token === undefined) return value ?? null;
  const parent = read(document, path.slice(0, -1));
  if (Array.isArray(parent)) {
    const at = token === '-' ? parent.length : Number(token);
    const last = how === 'insert' ? parent.length : parent.length - 1;
    if (!(Number.isInteger(at) && at >= 0 && at <= last)) throw cannotApply(`no index "${token}" in the list`);
    if (value === undefined) parent.splice(at, 1);
    else parent.splice(at, how === 'insert' ? 0 : 1, value);
  } else if (isJsonObject(parent)) {
    if (how === 'replace' && !Object.hasOwn(parent, token)) throw cannotApply(`no field "/${path.join('/')}"`);
    if (value === undefined) delete parent[token];
    else parent[token] = value;
  } else throw cannotApply(`no field "/${path.slice(0, -1).join('/')}"`);
  return document;
}

/**
 * Applies the operations of a JSON patch in their order.
 *
 * @throws {ApiError} 400 if the patch is malformed, 422 if an operation cannot be applied or a test fails.
 */
export function jsonPatch(target: Json, patch: Json): Json {
  if (!Array.isArray(patch)) throw badRequest('Cannot apply JSON patch: it is no list, must be a list of operations');
  let document = structuredClone(target);
  for (const operation of patch) {
    if (!isJsonObject(operation)) throw badRequest('Cannot apply JSON patch: an operation must be an object');
    const path = parsePointer(operation['path'], 'path');
    const value = structuredClone(operation['value']);
    switch (operation['op']) {
      case 'add':
        document = write(document, path, value ?? null, 'insert');
        break;
      case 'replace':
        document = write(document, path, value ?? null, 'replace');
        break;
      case 'remove':
        document = write(document, path, undefined, 'replace');
        break;
      case 'copy':
      case 'move': {
        const from = parsePointer(operation['from'], 'from');
        const moved = read(document, from);
        if (moved === undefined) throw cannotApply(`no field "/${from.join('/')}"`);
        if (operation['op'] === 'move') document = write(document, from, undefined, 'replace');
        document = write(document, path, structuredClone(moved), 'insert');
        break;
      }
      case 'test':
        if (!isDeepStrictEqual(read(document, path), value)) {
          throw cannotApply(`testing value "/${path.join('/')}" failed`);
        }
        break;
      default:
        throw badRequest(`Cannot apply JSON patch: op is ${JSON.stringify(operation['op'])}, must be one of RFC 6902`);
    }
  }
  return document;
}
