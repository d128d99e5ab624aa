/**
 * The EndpointSlices of one family, by the Service they belong to, and what has changed in them since the last sync.
 *
 * @module
 */

import { sameData } from './same.ts';
import { compareText, type EndpointSliceObject, type Family, type ObjectKey } from './types.ts';

export interface SliceStoreOptions {
  readonly family: Family;
  /** Trigger times up to here (start of the process, ms since the epoch) tell nothing about this process. */
  readonly startMs: number;
}

/** What the slices tell a sync. */
export interface SliceChanges {
  /** Services some slice of which has changed, come or gone. */
  readonly services: ReadonlySet<ObjectKey>;
  /** Per Service the times, in ms since the epoch, at which what is new began to be so. */
  readonly triggerTimesMs: ReadonlyMap<ObjectKey, readonly number[]>;
}

const NONE: readonly never[] = [];

/** `namespace/name`, or `name` for a kind without namespace (namespace ''). */
export function objectKey(namespace: string, name: string): ObjectKey {
  return (namespace === '' ? name : `${namespace}/${name}`) as ObjectKey;
}

/** Holds slices. Events are stored as pending; `checkout` makes them current. */
export class SliceStore {
  readonly #family: Family;
  readonly #startMs: number;
  readonly #applied = new Map<ObjectKey, EndpointSliceObject>();
  /** Null: to be removed. */
  readonly #pending = new Map<ObjectKey, EndpointSliceObject | null>();
  /** Applied slices, in the order of their keys. No empty lists. */
  readonly #byService = new Map<ObjectKey, readonly EndpointSliceObject[]>();
  #triggerTimesMs = new Map<ObjectKey, number[]>();
  #changesTotal = 0;
  #changesPending = 0;

  constructor({ family, startMs }: SliceStoreOptions) {
    this.#family = family;
    this.#startMs = startMs;
  }

  /** Events about slices of this family. Counts those that change nothing, too. */
  get changesTotal(): number {
    return this.#changesTotal;
  }

  /** Events since the last checkout that changed something. */
  get changesPending(): number {
    return this.#changesPending;
  }

  /**
   * Stores a slice. One of another family, or of no Service, is none of ours; if it was ours before, it is removed.
   *
   * @returns True if this event changes something. Any difference of the object counts, its resourceVersion included.
   */
  upsert(slice: EndpointSliceObject): boolean {
    if (slice.addressType !== this.#family || slice.serviceName === '' || slice.namespace === '' || slice.name === '') {
      return this.delete(slice.key);
    }
    this.#changesTotal++;
    const known = this.#latest(slice.key);
    if (known !== undefined && sameData(known, slice)) return false;
    this.#changesPending++;
    const service = serviceOf(slice);
    if (known !== undefined && serviceOf(known) !== service) this.#triggerTimesMs.delete(serviceOf(known));
    if (slice.triggerTimeMs !== undefined && slice.triggerTimeMs > this.#startMs) {
      const times = this.#triggerTimesMs.get(service);
      if (times === undefined) this.#triggerTimesMs.set(service, [slice.triggerTimeMs]);
      else times.push(slice.triggerTimeMs);
    }
    if (sameData(this.#applied.get(slice.key), slice)) this.#pending.delete(slice.key);
    else this.#pending.set(slice.key, slice);
    return true;
  }

  /**
   * Removes a slice.
   *
   * @returns True if it was there.
   */
  delete(key: ObjectKey): boolean {
    const known = this.#latest(key);
    if (known === undefined) return false;
    this.#changesTotal++;
    this.#changesPending++;
    this.#triggerTimesMs.delete(serviceOf(known));
    if (this.#applied.has(key)) this.#pending.set(key, null);
    else this.#pending.delete(key);
    return true;
  }

  /** Makes what is pending current, and forgets that it was pending. */
  checkout(): SliceChanges {
    const services = new Set<ObjectKey>();
    for (const [key, next] of this.#pending) {
      const before = this.#applied.get(key);
      if (before !== undefined) {
        services.add(this.#unlink(before));
        this.#applied.delete(key);
      }
      if (next !== null) {
        services.add(this.#link(next));
        this.#applied.set(key, next);
      }
    }
    const triggerTimesMs = this.#triggerTimesMs;
    this.#pending.clear();
    this.#triggerTimesMs = new Map();
    this.#changesPending = 0;
    return { services, triggerTimesMs };
  }

  /** Services of which slices are pending. */
  pendingServices(): ReadonlySet<ObjectKey> {
    const services = new Set<ObjectKey>();
    for (const [key, next] of this.#pending) {
      for (const slice of [this.#applied.get(key), next ?? undefined]) if (slice) services.add(serviceOf(slice));
    }
    return services;
  }

  /** Current slices of a Service, in the order of their keys. */
  of(service: ObjectKey): readonly EndpointSliceObject[] {
    return this.#byService.get(service) ?? NONE;
  }

  #latest(key: ObjectKey): EndpointSliceObject | undefined {
    const pending = this.#pending.get(key);
    return pending === undefined ? this.#applied.get(key) : (pending ?? undefined);
  }

  #link(slice: EndpointSliceObject): ObjectKey {
    const service = serviceOf(slice);
    const held = this.#byService.get(service);
    const all = held === undefined ? [slice] : [...held, slice].sort((a, b) => compareText(a.key, b.key));
    this.#byService.set(service, all);
    return service;
  }

  #unlink(slice: EndpointSliceObject): ObjectKey {
    const service = serviceOf(slice);
    const rest = this.of(service).filter((s) => s !== slice);
    if (rest.length === 0) this.#byService.delete(service);
    else this.#byService.set(service, rest);
    return service;
  }
}

function serviceOf(slice: EndpointSliceObject): ObjectKey {
  return objectKey(slice.namespace, slice.serviceName);
}
