/**
 * Failures as the Kubernetes API words them: an HTTP code and a `Status` object.
 *
 * @module
 */

import type { JsonObject } from './object.ts';

/** One field that is not as it must be; the `causes` of an Invalid status. */
export interface FieldError {
  /** As in `spec.ports[0].nodePort`. */
  readonly field: string;
  readonly reason:
    | 'FieldValueRequired'
    | 'FieldValueInvalid'
    | 'FieldValueDuplicate'
    | 'FieldValueNotSupported'
    | 'FieldValueForbidden';
  readonly message: string;
}

export function required(field: string, detail = ''): FieldError {
  return { field, reason: 'FieldValueRequired', message: detail ? `Required value: ${detail}` : 'Required value' };
}

export function invalid(field: string, value: unknown, detail: string): FieldError {
  return { field, reason: 'FieldValueInvalid', message: `Invalid value: ${JSON.stringify(value)}: ${detail}` };
}

export function duplicate(field: string, value: unknown): FieldError {
  return { field, reason: 'FieldValueDuplicate', message: `Duplicate value: ${JSON.stringify(value)}` };
}

export function notSupported(field: string, value: unknown, supported: readonly string[]): FieldError {
  const list = supported.map((s) => JSON.stringify(s)).join(', ');
  const message = `Unsupported value: ${JSON.stringify(value)}: supported values: ${list}`;
  return { field, reason: 'FieldValueNotSupported', message };
}

export function forbidden(field: string, detail: string): FieldError {
  return { field, reason: 'FieldValueForbidden', message: `Forbidden: ${detail}` };
}

export interface ApiFailure {
  /** HTTP code. */
  readonly code: number;
  /** As in `NotFound`, `Conflict`, `Expired`. */
  readonly reason: string;
  readonly message: string;
  readonly details?: JsonObject;
  /** Of a list that can go on from here although its first token has expired. */
  readonly continueToken?: string;
}

/** A request that is answered with a Status. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly failure: ApiFailure;

  constructor(failure: ApiFailure) {
    super(failure.message);
    this.failure = failure;
  }

  /** The `Status` object of the answer. */
  toStatus(): JsonObject {
    const { code, reason, message, details, continueToken } = this.failure;
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: continueToken === undefined ? {} : { continue: continueToken },
      status: 'Failure',
      message,
      reason,
      ...(details && { details }),
      code,
    };
  }
}

/** Names what a failure is about: `services "web"`, in the words of the API. */
export interface About {
  readonly plural: string;
  readonly group: string;
  readonly kind: string;
}

function named(about: About): string {
  return about.group ? `${about.plural}.${about.group}` : about.plural;
}

export function notFound(about: About, name: string): ApiError {
  return new ApiError({
    code: 404,
    reason: 'NotFound',
    message: `${named(about)} "${name}" not found`,
    details: { name, ...(about.group && { group: about.group }), kind: about.plural },
  });
}

/** A path this server does not have. */
export function noSuchPath(): ApiError {
  const message = 'the server could not find the requested resource';
  return new ApiError({ code: 404, reason: 'NotFound', message, details: {} });
}

export function alreadyExists(about: About, name: string): ApiError {
  return new ApiError({
    code: 409,
    reason: 'AlreadyExists',
    message: `${named(about)} "${name}" already exists`,
    details: { name, ...(about.group && { group: about.group }), kind: about.plural },
  });
}

export function conflict(about: About, name: string, why?: string): ApiError {
  const because = why ?? 'the object has been modified; please apply your changes to the latest version and try again';
  return new ApiError({
    code: 409,
    reason: 'Conflict',
    message: `Operation cannot be fulfilled on ${named(about)} "${name}": ${because}`,
    details: { name, ...(about.group && { group: about.group }), kind: about.plural },
  });
}

export function forbiddenRequest(about: About, name: string, why: string): ApiError {
  return new ApiError({
    code: 403,
    reason: 'Forbidden',
    message: `${named(about)} "${name}" is forbidden: ${why}`,
    details: { name, ...(about.group && { group: about.group }), kind: about.plural },
  });
}

/** 422: the object is well-formed and not acceptable; each field is a cause. */
export function invalidObject(about: About, name: string, errors: readonly FieldError[]): ApiError {
  const texts = errors.map((e) => `${e.field}: ${e.message}`);
  const kind = about.group ? `${about.kind}.${about.group}` : about.kind;
  return new ApiError({
    code: 422,
    reason: 'Invalid',
    message: `${kind} "${name}" is invalid: ${texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`}`,
    details: {
      name,
      ...(about.group && { group: about.group }),
      kind: about.kind,
      causes: errors.map((e) => ({ reason: e.reason, message: e.message, field: e.field })),
    },
  });
}

export function badRequest(message: string): ApiError {
  return new ApiError({ code: 400, reason: 'BadRequest', message });
}

/** 410: the history a client asks for is compacted away; it must list anew. */
export function expired(message: string, continueToken?: string): ApiError {
  return new ApiError({
    code: 410,
    reason: 'Expired',
    message,
    ...(continueToken !== undefined && { continueToken }),
  });
}

export function unsupportedMediaType(given: string, accepted: readonly string[]): ApiError {
  const message = `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')} (got "${given}")`;
  return new ApiError({ code: 415, reason: 'UnsupportedMediaType', message });
}

export function methodNotAllowed(): ApiError {
  const message = 'the server does not allow this method on the requested resource';
  return new ApiError({ code: 405, reason: 'MethodNotAllowed', message, details: {} });
}

export function unauthorized(): ApiError {
  return new ApiError({ code: 401, reason: 'Unauthorized', message: 'Unauthorized' });
}
