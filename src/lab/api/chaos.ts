/**
 * Faults on purpose: what a network, a busy server or a broken proxy does to a client.
 *
 * @module
 */

import { badRequest } from './status.ts';

/** How an answer or event is broken: half a JSON line, a compressed body cut short, right JSON with wrong types. */
export type Garble = 'line' | 'gzip' | 'types';

export interface Refusal {
  /** 503, 429, or any other code. */
  readonly status: number;
  /** How many requests get it. */
  readonly count: number;
  /** Sent as `Retry-After` when given. */
  readonly retryAfterSeconds?: number;
  /** Only requests whose path holds this text; '' is every one. */
  readonly path?: string;
}

/** What chaos does to the watches that are open now. */
export interface OpenWatches {
  drop(): number;
  halfClose(): number;
  silence(): number;
  finish(): number;
}

/** What chaos does to history. */
export interface History {
  compact(): void;
}

export interface Delays {
  /** Before an answer's first byte. */
  readonly answersMs?: number;
  /** Before each batch of watch events. */
  readonly eventsMs?: number;
}

export class Chaos {
  readonly #watches: OpenWatches;
  readonly #history: History;
  readonly #garbles = new Map<Garble, number>();
  #refusals: Refusal[] = [];
  #answersMs = 0;
  #eventsMs = 0;
  #expiredAs: 'event' | 'status' = 'event';

  constructor(watches: OpenWatches, history: History) {
    this.#watches = watches;
    this.#history = history;
  }

  /** Cuts open watch connections without a goodbye. @returns How many. */
  drop(): number {
    return this.#watches.drop();
  }

  /** Ends the server's half of open watch connections in the middle of the stream. @returns How many. */
  halfClose(): number {
    return this.#watches.halfClose();
  }

  /** Open watches stay open and never carry anything again, not even a bookmark. @returns How many. */
  silence(): number {
    return this.#watches.silence();
  }

  /** Ends open watches in good order, as their time-out does. @returns How many. */
  finish(): number {
    return this.#watches.finish();
  }

  /** From here on: how long answers and events are held back. 0 is at once. */
  delay(delays: Delays): void {
    this.#answersMs = delays.answersMs ?? this.#answersMs;
    this.#eventsMs = delays.eventsMs ?? this.#eventsMs;
  }

  get answersMs(): number {
    return this.#answersMs;
  }

  get eventsMs(): number {
    return this.#eventsMs;
  }

  /** The next `count` chances are taken: watch events for `line` and `types`, lists for `gzip`. */
  garble(what: Garble, count = 1): void {
    this.#garbles.set(what, count);
  }

  /** Compacts history: the next resume of a watch gets 410, and so does every continue token given out so far. */
  expire(as: 'event' | 'status' = 'event'): void {
    this.#expiredAs = as;
    this.#history.compact();
  }

  /** How a watch that cannot resume is told: an ERROR event in a 200 answer, as API servers do, or HTTP 410. */
  get expiredAs(): 'event' | 'status' {
    return this.#expiredAs;
  }

  /** The next requests are refused. Refusals queue up. */
  refuse(refusal: Refusal): void {
    this.#refusals.push(refusal);
  }

  /** Everything as it was at the start; history stays compacted. */
  reset(): void {
    this.#garbles.clear();
    this.#refusals = [];
    this.#answersMs = 0;
    this.#eventsMs = 0;
    this.#expiredAs = 'event';
  }

  /** Whether this chance to garble is to be taken; counts it. */
  takeGarble(what: Garble): boolean {
    const left = this.#garbles.get(what) ?? 0;
    if (left <= 0) return false;
    this.#garbles.set(what, left - 1);
    return true;
  }

  /** The refusal this request gets, if any; counts it. */
  takeRefusal(path: string): Refusal | undefined {
    const at = this.#refusals.findIndex((r) => r.count > 0 && path.includes(r.path ?? ''));
    const refusal = this.#refusals[at];
    if (refusal === undefined) return undefined;
    if (refusal.count > 1) this.#refusals[at] = { ...refusal, count: refusal.count - 1 };
    else this.#refusals.splice(at, 1);
    return refusal;
  }
}

/**
 * Does what a POST to `/lab/chaos` says, for example `{"drop":true}`, `{"delay":{"answersMs":100}}`,
 * `{"garble":{"what":"line","count":2}}`, `{"expire":{"as":"status"}}`, `{"refuse":{"status":503,"count":3}}`, `{"reset":true}`.
 *
 * @returns How many watches were touched, by switch.
 * @throws {ApiError} 400 for a switch that does not exist or has a wrong value.
 */
export function commandChaos(chaos: Chaos, command: Readonly<Record<string, unknown>>): Record<string, number> {
  const touched: Record<string, number> = {};
  for (const [name, value] of Object.entries(command)) {
    const given: Readonly<Record<string, unknown>> = typeof value === 'object' && value !== null ? { ...value } : {};
    const number = (field: string, fallback: number) => {
      const n = given[field] ?? fallback;
      if (typeof n === 'number' && n >= 0) return n;
      throw badRequest(`Cannot set chaos ${name}: ${field} is ${JSON.stringify(n)}, must be a number of at least 0`);
    };
    switch (name) {
      case 'drop':
      case 'halfClose':
      case 'silence':
      case 'finish':
        touched[name] = chaos[name]();
        break;
      case 'delay':
        chaos.delay({
          answersMs: number('answersMs', chaos.answersMs),
          eventsMs: number('eventsMs', chaos.eventsMs),
        });
        break;
      case 'garble': {
        const { what } = given;
        if (what !== 'line' && what !== 'gzip' && what !== 'types') {
          throw badRequest(`Cannot set chaos garble: what is ${JSON.stringify(what)}, must be line, gzip or types`);
        }
        chaos.garble(what, number('count', 1));
        break;
      }
      case 'expire':
        chaos.expire(given['as'] === 'status' ? 'status' : 'event');
        break;
      case 'refuse': {
        const retryAfterSeconds = number('retryAfterSeconds', 0);
        chaos.refuse({
          status: number('status', 503),
          count: number('count', 1),
          path: String(given['path'] ?? ''),
          ...(retryAfterSeconds > 0 && { retryAfterSeconds }),
        });
        break;
      }
      case 'reset':
        chaos.reset();
        break;
      default:
        throw badRequest(
          `Cannot set chaos "${name}": must be drop, halfClose, silence, finish, delay, garble, expire, refuse or reset`,
        );
    }
  }
  return touched;
}
