/**
 * How many requests the API server was asked, by what came of them: what `rest_client_requests_total` counts.
 *
 * @module
 */

/** One attempt to ask one server. */
export interface AnsweredRequest {
  readonly method: string;
  /** As in `10.0.0.1:6443`. */
  readonly host: string;
  /** The HTTP status, or `<error>` if there was no answer. */
  readonly code: string;
}

export interface RequestCount extends AnsweredRequest {
  readonly count: number;
}

/** Counts requests of equal method, host and code together. */
export class RequestCounts {
  readonly #counts = new Map<string, RequestCount>();

  add(request: AnsweredRequest): void {
    const key = `${request.method} ${request.host} ${request.code}`;
    this.#counts.set(key, { ...request, count: (this.#counts.get(key)?.count ?? 0) + 1 });
  }

  all(): readonly RequestCount[] {
    return [...this.#counts.values()];
  }
}
