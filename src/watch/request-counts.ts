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

/** Told about an attempt, and how long its answer took to begin. */
export type RequestListener = (request: AnsweredRequest, seconds: number) => void;

/** Attempts kept for a listener that comes later: a start makes a few before there is one. */
const MAX_KEPT = 100;

/** Counts requests of equal method, host and code together, and passes each on. */
export class RequestCounts {
  readonly #counts = new Map<string, RequestCount>();
  #kept: Parameters<RequestListener>[] = [];
  #listener: RequestListener | undefined;

  /** @param seconds - Until the answer began, or the attempt failed. */
  add(request: AnsweredRequest, seconds: number): void {
    const key = `${request.method} ${request.host} ${request.code}`;
    this.#counts.set(key, { ...request, count: (this.#counts.get(key)?.count ?? 0) + 1 });
    if (this.#listener !== undefined) this.#listener(request, seconds);
    else if (this.#kept.length < MAX_KEPT) this.#kept.push([request, seconds]);
  }

  all(): readonly RequestCount[] {
    return [...this.#counts.values()];
  }

  /** Tells a listener, the only one, the first requests there were, and each from now on. */
  listen(listener: RequestListener): void {
    this.#listener = listener;
    for (const kept of this.#kept) listener(...kept);
    this.#kept = [];
  }
}
