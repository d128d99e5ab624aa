/**
 * Is the proxy keeping up? One answer for load balancers (`/healthz`: also no, when the node is about to go) and one
 * for the kubelet (`/livez`). State and answers only; `src/daemon/` serves them.
 *
 * A family is unhealthy when a sync was asked for and none has succeeded for the time-out since. A proxy with nothing
 * to do is healthy however long ago its last sync was.
 *
 * @module
 */

import type { Clock } from '../sys/clock.ts';
import { compareText, type Family, type NodeObject } from './types.ts';

/** The cluster autoscaler puts it on a node it is going to remove. */
const DELETION_TAINT = 'ToBeDeletedByClusterAutoscaler';

/** Go's zero time, which the body has when no family has reported. */
const ZERO_TIME = '0001-01-01T00:00:00Z';

/** An HTTP answer: the status, and a JSON body without a final newline. */
export interface HealthAnswer {
  readonly status: 200 | 503;
  readonly body: string;
}

/** What the two servers add to every answer. */
export const HEALTH_HEADERS: Readonly<Record<string, string>> = {
  'Content-Type': 'application/json',
  'X-Content-Type-Options': 'nosniff',
};

/** What the sync loops and the service health servers need of it. */
export interface SyncHealth {
  /** A sync was asked for. */
  queued(family: Family): void;
  /** A sync succeeded, or the loop has started. */
  updated(family: Family): void;
  /** No family is late. The node's fate is not considered. */
  isHealthy(): boolean;
}

/** For a daemon whose health server is switched off: every answer is "healthy". */
export const noHealth: SyncHealth = { queued() {}, updated() {}, isHealthy: () => true };

const two = (n: number) => String(n).padStart(2, '0');

/**
 * Writes a time as Go does: RFC 3339 in the process's own zone, up to nanoseconds, trailing zeros left out.
 *
 * @param ms - Milliseconds since the epoch. Fractions are kept to the microsecond: a double holds no more.
 */
export function formatRfc3339Nano(ms: number): string {
  const micros = Math.round(ms * 1000);
  const seconds = Math.floor(micros / 1e6);
  const at = new Date(seconds * 1000);
  const fraction = String(micros - seconds * 1e6)
    .padStart(6, '0')
    .replace(/0+$/, '');
  const offset = -at.getTimezoneOffset();
  const away = Math.abs(offset);
  const zone = offset === 0 ? 'Z' : `${offset < 0 ? '-' : '+'}${two(Math.floor(away / 60))}:${two(away % 60)}`;
  const date = `${String(at.getFullYear()).padStart(4, '0')}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${date}T${time}${fraction === '' ? '' : `.${fraction}`}${zone}`;
}

/** State of all families, and the answers made of it. Times in milliseconds since the epoch. */
export class ProxyHealth implements SyncHealth {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #updatedMs = new Map<Family, number>();
  readonly #queuedMs = new Map<Family, number>();
  #node: NodeObject | undefined;

  /** @param timeoutMs - A family whose oldest unanswered request is this old is unhealthy: twice the sync period. */
  constructor(timeoutMs: number, clock: Clock) {
    this.#timeoutMs = timeoutMs;
    this.#clock = clock;
  }

  queued(family: Family): void {
    if (!this.#queuedMs.has(family)) this.#queuedMs.set(family, this.#clock.now());
  }

  updated(family: Family): void {
    this.#queuedMs.delete(family);
    this.#updatedMs.set(family, this.#clock.now());
  }

  /** Undefined: the node is not known, or gone. */
  setNode(node: NodeObject | undefined): void {
    this.#node = node;
  }

  isHealthy(): boolean {
    for (const family of this.#updatedMs.keys()) if (!this.#isFamilyHealthy(family)) return false;
    return true;
  }

  /** For load balancers: 200 while the proxy keeps up and the node is to stay. */
  healthz(): HealthAnswer {
    const node = this.#node;
    const eligible = node !== undefined && !node.deleting && !node.taintKeys.includes(DELETION_TAINT);
    return this.#answer(eligible);
  }

  /** For the kubelet: 200 while the proxy keeps up. */
  livez(): HealthAnswer {
    return this.#answer(undefined);
  }

  #isFamilyHealthy(family: Family): boolean {
    const queued = this.#queuedMs.get(family);
    return queued === undefined || this.#clock.now() - queued < this.#timeoutMs;
  }

  #answer(nodeEligible: boolean | undefined): HealthAnswer {
    const healthy = this.isHealthy();
    const status = healthy && nodeEligible !== false ? 200 : 503;
    const currentTime = formatRfc3339Nano(this.#clock.now());
    const families = [...this.#updatedMs].sort(([a], [b]) => compareText(a, b));
    // A healthy proxy says "now": load balancers of old read an old time as a proxy that hangs.
    const newest = families.length === 0 ? ZERO_TIME : formatRfc3339Nano(Math.max(...this.#updatedMs.values()));
    const body = {
      lastUpdated: status === 200 ? currentTime : newest,
      currentTime,
      ...(nodeEligible === undefined ? {} : { nodeEligible }),
      healthy,
      ...(families.length === 0
        ? {}
        : {
            status: Object.fromEntries(
              families.map(([family, ms]) => [
                family,
                { lastUpdated: formatRfc3339Nano(ms), healthy: this.#isFamilyHealthy(family) },
              ]),
            ),
          }),
    };
    return { status, body: JSON.stringify(body) };
  }
}
