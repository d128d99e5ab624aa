/**
 * A dataplane in memory: holds the plans it was told to program, and fails, refuses, lasts and loses on demand.
 *
 * @module
 */

import type { Family, ObjectKey, ServicePlan } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import type { Dataplane, Inspection, ModeName, Refusal, Snapshot, SyncOptions, SyncReport } from './mode.ts';

/** One call of `sync`. */
export interface FakeSync {
  /** Start, in milliseconds of the clock. */
  readonly atMs: number;
  /** As asked for. */
  readonly full: boolean;
  /** Dirty services, in the order of text. */
  readonly dirty: readonly ObjectKey[];
  readonly serviceCIDRs: readonly string[];
}

export class FakeDataplane implements Dataplane {
  readonly mode: ModeName = 'iptables';
  readonly family: Family;
  /** What is programmed. */
  readonly programmed = new Map<ObjectKey, ServicePlan>();
  readonly syncs: FakeSync[] = [];
  /** Calls of `sync` that fail from now on, after half of their work is done. */
  failures = 0;
  /** How long a sync lasts. */
  lastsMs = 0;
  /** Services whose rules the kernel would refuse. */
  readonly refuses = new Set<ObjectKey>();
  /** A partial sync becomes a full one. */
  goesFull = false;
  skipsPeriodicFullSync = false;
  #refused = new Set<ObjectKey>();
  #onLost: ((reason: string) => void) | undefined;
  #running = false;
  readonly #clock: Clock;

  constructor(family: Family, clock: Clock) {
    this.family = family;
    this.#clock = clock;
  }

  async sync(snapshot: Snapshot, { full }: SyncOptions, signal?: AbortSignal): Promise<SyncReport> {
    if (this.#running) throw new TypeError('Cannot sync: another sync of this family runs, it must end first');
    this.#running = true;
    try {
      const dirty = [...snapshot.dirty].sort();
      this.syncs.push({ atMs: this.#clock.now(), full, dirty, serviceCIDRs: snapshot.serviceCIDRs });
      if (this.lastsMs > 0) await this.#clock.sleep(this.lastsMs, signal);
      const isFull = full || this.goesFull;
      const work = isFull ? new Set([...snapshot.services.keys(), ...this.programmed.keys()]) : new Set(dirty);
      const refused = this.#program(snapshot, [...work]);
      return { full: isFull, refused, refusedServices: this.#refused };
    } finally {
      this.#running = false;
    }
  }

  async monitor(onLost: (reason: string) => void, signal: AbortSignal): Promise<void> {
    this.#onLost = onLost;
    if (!signal.aborted) {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    }
    this.#onLost = undefined;
  }

  inspect(service: ObjectKey, plan: ServicePlan | undefined): Inspection {
    const has = this.programmed.get(service);
    return {
      rules: plan === undefined ? [] : [`-A X ${service}`],
      applied: has === undefined ? 'nothing' : has === plan ? 'this plan' : 'an earlier plan',
    };
  }

  /** Someone else flushes everything, and the monitor notices. */
  lose(reason: string): void {
    this.programmed.clear();
    this.#onLost?.(reason);
  }

  #program(snapshot: Snapshot, work: readonly ObjectKey[]): Refusal[] {
    const fails = this.failures > 0;
    if (fails) this.failures--;
    const refused: Refusal[] = [];
    for (const service of fails ? work.slice(0, work.length / 2) : work) {
      const plan = snapshot.services.get(service);
      this.programmed.delete(service);
      const wasRefused = this.#refused.delete(service);
      if (plan === undefined) continue;
      if (!this.refuses.has(service)) this.programmed.set(service, plan);
      else {
        this.#refused.add(service);
        const isNews = !wasRefused || snapshot.dirty.has(service);
        if (isNews) refused.push({ service, rule: `-A X ${service}`, reason: 'Invalid argument' });
      }
    }
    if (fails) throw new Error('Cannot program: told to fail');
    return refused;
  }
}
