/**
 * Events about Services and the Node, as `kubectl describe` shows them. Recording never waits and never fails: what
 * cannot be sent is dropped after some tries, and what does not fit the queue at once.
 *
 * @module
 */

import type { Log } from '../proxier/proxier.ts';
import type { ObjectKey } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';

const QUEUE_LENGTH = 1_000;
/** Limits of the API. */
const MAX_NAME = 253;
const MAX_NOTE_BYTES = 1_024;
/** `.` and sixteen hex digits. */
const SUFFIX_LENGTH = 17;
const TRIES = 12;
const RETRY_MS = 10_000;
const RETRY_JITTER = 0.25;
/** Events of the last kinds seen, so that an equal one counts up instead of standing beside it. */
const REMEMBERED = 500;

/** What an event is about. Without a namespace for cluster-scoped objects. */
export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
}

export const nodeReference = (name: string): ObjectReference => ({ apiVersion: 'v1', kind: 'Node', name });

export function serviceReference(service: ObjectKey): ObjectReference {
  const slash = service.indexOf('/');
  return { apiVersion: 'v1', kind: 'Service', namespace: service.slice(0, slash), name: service.slice(slash + 1) };
}

export interface EventRecord {
  readonly regarding: ObjectReference;
  readonly type: 'Normal' | 'Warning';
  /** CamelCase; what alerts match. */
  readonly reason: string;
  readonly action: string;
  /** For humans, at most 1 kB. */
  readonly note: string;
}

/** Where events go. `isFinal`: the server answered, and another try would be answered the same. */
export interface EventApi {
  post(path: string, body: object, signal: AbortSignal): Promise<void>;
  patch(path: string, body: object, signal: AbortSignal): Promise<void>;
  isFinal(error: unknown): boolean;
}

export interface EventsOptions {
  /** For reportingInstance. */
  readonly hostname: string;
  /** 0..1, for jitter and names. */
  readonly random: () => number;
}

/** Sends what `record` takes, in order, one at a time. */
export class Events {
  readonly #options: EventsOptions;
  readonly #deps: { readonly api: EventApi; readonly clock: Clock; readonly log: Log };
  readonly #queue: EventRecord[] = [];
  /** What was sent, by everything that makes two events equal. The newest last. */
  readonly #sent = new Map<string, { readonly path: string; count: number }>();
  #wake: () => void = () => {};
  #idle: () => void = () => {};
  #busy = false;

  constructor(options: EventsOptions, deps: { readonly api: EventApi; readonly clock: Clock; readonly log: Log }) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Queues an event. Dropped if 1000 wait already. */
  record(event: EventRecord): void {
    if (this.#queue.length >= QUEUE_LENGTH) {
      this.#deps.log.debug({ reason: event.reason }, 'event dropped, too many wait');
      return;
    }
    this.#queue.push(event);
    this.#wake();
  }

  /** Resolves when nothing waits, or after `timeoutMs`. For the last words of a process that ends. */
  async flush(timeoutMs: number): Promise<void> {
    if (this.#queue.length === 0 && !this.#busy) return;
    const done = new AbortController();
    this.#idle = () => done.abort();
    await this.#deps.clock.sleep(timeoutMs, done.signal);
  }

  /** Sends until `signal` aborts. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    while (!signal.aborted) {
      const event = this.#queue.shift();
      if (event !== undefined) {
        this.#busy = true;
        await this.#send(event, signal);
        this.#busy = false;
        continue;
      }
      this.#idle();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async #send(event: EventRecord, signal: AbortSignal): Promise<void> {
    const { api, clock, log } = this.#deps;
    for (let tried = 1; ; tried++) {
      try {
        await this.#sendOnce(event, signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (tried === TRIES || api.isFinal(error)) {
          log.warn({ reason: event.reason, regarding: event.regarding.name, err: error }, 'event not recorded');
          return;
        }
        await clock.sleep(RETRY_MS * (1 + RETRY_JITTER * this.#options.random()), signal);
        if (signal.aborted) return;
      }
    }
  }

  async #sendOnce(event: EventRecord, signal: AbortSignal): Promise<void> {
    const { api, clock } = this.#deps;
    const key = JSON.stringify([event.regarding, event.type, event.reason, event.action, event.note]);
    const known = this.#sent.get(key);
    const now = microTime(clock.now());
    if (known !== undefined) {
      try {
        await api.patch(known.path, { series: { count: known.count + 1, lastObservedTime: now } }, signal);
        known.count++;
        return;
      } catch (error) {
        if (!api.isFinal(error)) throw error;
        // The server forgets events after an hour: then it becomes a new one.
      }
    }
    const namespace = event.regarding.namespace ?? 'default';
    const name = `${event.regarding.name.slice(0, MAX_NAME - SUFFIX_LENGTH)}.${this.#uniqueSuffix()}`;
    const path = `/apis/events.k8s.io/v1/namespaces/${namespace}/events`;
    const body = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { namespace, name },
      eventTime: now,
      reportingController: 'kube-proxy',
      reportingInstance: `kube-proxy-${this.#options.hostname}`,
      type: event.type,
      reason: event.reason,
      action: event.action,
      note: cut(event.note, MAX_NOTE_BYTES),
      regarding: event.regarding,
    };
    await api.post(path, body, signal);
    this.#sent.set(key, { path: `${path}/${name}`, count: 1 });
    for (const oldest of this.#sent.keys()) {
      if (this.#sent.size <= REMEMBERED) break;
      this.#sent.delete(oldest);
    }
  }

  /** Sixteen hex digits: the time in microseconds, and random bits below it. */
  #uniqueSuffix(): string {
    const micros = BigInt(Math.round(this.#deps.clock.now() * 1000));
    const bits = BigInt(Math.floor(this.#options.random() * 1024));
    return (micros * 1024n + bits).toString(16).padStart(16, '0');
  }
}

/** The text, without as many characters at its end as it takes to be of at most `maxBytes` bytes. */
function cut(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  return bytes.length <= maxBytes
    ? text
    : bytes
        .subarray(0, maxBytes)
        .toString()
        .replace(/\uFFFD$/, '');
}

/** RFC 3339 with six digits, the only form the API takes. */
function microTime(ms: number): string {
  const micros = String(Math.floor((ms % 1) * 1000)).padStart(3, '0');
  return new Date(ms).toISOString().replace('Z', `${micros}Z`);
}
