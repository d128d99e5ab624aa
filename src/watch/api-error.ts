/**
 * Why a request to the API server gave no answer that can be used. Everything here may pass: whoever asked tries again.
 *
 * @module
 */

import { isJsonObject, optionalInteger, optionalObject, optionalString } from './decode-error.ts';

export type ApiFailure =
  /** No connection: refused, no route, a certificate that does not hold. */
  | { readonly code: 'UNREACHABLE'; readonly server: string }
  /** Connected or connecting, and nothing came for this long. */
  | { readonly code: 'TIMED_OUT'; readonly server: string; readonly timeoutMs: number }
  /** The server answered with an error: an HTTP status, or an ERROR event of a watch. */
  | {
      readonly code: 'STATUS';
      readonly status: number;
      /** As in `Expired`; '' when the server gives none. */
      readonly reason: string;
      /** From Retry-After. */
      readonly retryAfterMs: number | undefined;
      /** True for an ERROR event of a watch that was open, false for the status of an HTTP answer. */
      readonly isEvent: boolean;
    }
  /** The answer broke off, or is not what an API server sends. */
  | { readonly code: 'BROKEN' }
  /** The token, a certificate or a plugin that gives them cannot be read. */
  | { readonly code: 'CREDENTIALS' }
  | { readonly code: 'ABORTED' };

export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly failure: ApiFailure;

  constructor(message: string, failure: ApiFailure, options?: ErrorOptions) {
    super(message, options);
    this.failure = failure;
  }
}

/** The HTTP status the server answered with, 0 if there was no such answer. */
export function statusOf(error: unknown): number {
  return error instanceof ApiError && error.failure.code === 'STATUS' ? error.failure.status : 0;
}

/** True if what was asked for is too old for the server: a resourceVersion, or the token of the next page. */
export function isExpired(error: unknown): boolean {
  if (!(error instanceof ApiError) || error.failure.code !== 'STATUS') return false;
  return error.failure.status === 410 || error.failure.reason === 'Expired' || error.failure.reason === 'Gone';
}

/**
 * The error that a Status object tells.
 *
 * @param what - What was asked, as in `GET /api/v1/services`.
 * @param http - The HTTP answer, for a body that is no Status. Undefined for an ERROR event.
 */
export function statusError(
  what: string,
  body: unknown,
  http: { readonly status: number; readonly retryAfterMs: number | undefined } | undefined,
): ApiError {
  const told = isJsonObject(body) ? readStatus(body) : undefined;
  const status = told?.code || http?.status || 500;
  const reason = told?.reason ?? '';
  const message = told?.message || reason || 'no reason given';
  const retryAfterMs = http?.retryAfterMs ?? told?.retryAfterMs;
  return new ApiError(`Cannot ${what}: ${status} ${message}`, {
    code: 'STATUS',
    status,
    reason,
    retryAfterMs,
    isEvent: http === undefined,
  });
}

function readStatus(body: Parameters<typeof optionalString>[0]) {
  try {
    const seconds = optionalInteger(optionalObject(body, 'details', ''), 'retryAfterSeconds', 'details', {
      min: 0,
      max: 2 ** 31,
      absent: 0,
    });
    return {
      code: optionalInteger(body, 'code', '', { min: 0, max: 999, absent: 0 }),
      reason: optionalString(body, 'reason', ''),
      message: optionalString(body, 'message', ''),
      retryAfterMs: seconds > 0 ? seconds * 1000 : undefined,
    };
  } catch {
    // A Status that does not decode says nothing; the HTTP status does.
    return undefined;
  }
}
