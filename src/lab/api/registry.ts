/**
 * The verbs on objects: create, update, patch, delete, with the rules the API server keeps. No HTTP.
 *
 * @module
 */

import { randomBytes, randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../sys/clock.ts';
import { Allocations } from './allocations.ts';
import { cidrsOf } from './cluster-kinds.ts';
import { checkMetadata } from './names.ts';
import { asJson, isJsonObject, type Json, type KubeObject, keyOf, toKubeObject } from './object.ts';
import { apiVersionOf, RESOURCES, type Resource, resourceOfKind } from './resources.ts';
import { conform } from './schema.ts';
import { heldResources } from './service.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  type FieldError,
  forbiddenRequest,
  invalid,
  invalidObject,
  notFound,
} from './status.ts';
import { type Entry, Store } from './store.ts';

/** What a write is about: one object, or its status alone. */
export interface Target {
  readonly resource: Resource;
  /** '' for cluster-scoped resources. */
  readonly namespace: string;
  readonly name: string;
  readonly subresource?: 'status' | undefined;
}

export interface WriteOptions {
  /** Does everything but store. */
  readonly dryRun?: boolean;
  /** What becomes of unknown fields: an error, a warning, nothing. They are dropped in each case. */
  readonly fieldValidation?: 'Strict' | 'Warn' | 'Ignore';
}

export interface Written {
  readonly object: KubeObject;
  readonly warnings: readonly string[];
}

export interface Preconditions {
  readonly uid?: string;
  readonly resourceVersion?: string;
}

export interface RegistryOptions {
  readonly serviceCIDRs: readonly string[];
  readonly nodePorts: { readonly from: number; readonly to: number };
  readonly historyLimit: number;
}

export interface RegistryDeps {
  readonly clock: Pick<Clock, 'now'>;
  /** Calls what ends a namespace that a client has deleted, now or some time later. */
  readonly afterGrace: (finish: () => void) => void;
}

const NAMESPACES = resourceOfKind('Namespace');

function keyFor(target: Pick<Target, 'namespace' | 'name'>): string {
  return target.namespace === '' ? target.name : `${target.namespace}/${target.name}`;
}

/** True if nothing but the version differs, so that there is nothing to store. */
function sameContent(a: KubeObject, b: KubeObject): boolean {
  const version = a.metadata.resourceVersion ?? '';
  return isDeepStrictEqual(a, { ...b, metadata: { ...b.metadata, resourceVersion: version } });
}

/** True if anything but metadata and status differs. */
function differsInSpec(a: KubeObject, b: KubeObject): boolean {
  const { metadata: _a, status: _as, ...left } = a;
  const { metadata: _b, status: _bs, ...right } = b;
  return !isDeepStrictEqual(left, right);
}

export class Registry {
  readonly store: Store;
  readonly allocations: Allocations;
  readonly #deps: RegistryDeps;

  constructor(options: RegistryOptions, deps: RegistryDeps) {
    this.store = new Store(new Set(RESOURCES.map((r) => r.storage)), options.historyLimit);
    this.allocations = new Allocations(options.serviceCIDRs, options.nodePorts);
    this.#deps = deps;
    // Not kept in their own maps: whatever way a Service or ServiceCIDR changes, the pools follow.
    this.store.listen('services', ({ before, after }) => {
      const held = (entry: Entry | undefined) => (entry ? heldResources(entry.object) : []);
      this.allocations.move((after ?? before)?.key ?? '', held(before), held(after));
    });
    this.store.listen('servicecidrs.networking.k8s.io', () => {
      const all = this.store.sorted('servicecidrs.networking.k8s.io');
      this.allocations.setExtraRanges(all.flatMap((entry) => cidrsOf(entry.object)));
    });
  }

  #timestamp(): string {
    return new Date(this.#deps.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
  }

  /** @throws {ApiError} 404. */
  get(target: Target): Entry {
    const entry = this.store.get(target.resource.storage, keyFor(target));
    if (entry === undefined) throw notFound(target.resource, target.name);
    return entry;
  }

  /** Reads the body of a write: shape, kind, namespace, unknown fields. @throws {ApiError} 400. */
  #decode(resource: Resource, namespace: string, body: unknown, options: WriteOptions): Written {
    let object: KubeObject;
    try {
      object = toKubeObject(isJsonObject(body) ? { metadata: {}, ...body } : body);
    } catch (error) {
      throw badRequest(error instanceof Error ? error.message : String(error));
    }
    const { kind, apiVersion } = object;
    if (kind !== resource.kind || apiVersion !== apiVersionOf(resource)) {
      throw badRequest(
        `the object provided is unrecognized: ${apiVersion}, Kind=${kind} must be ${apiVersionOf(resource)}, Kind=${resource.kind}`,
      );
    }
    const unknown = conform(kind, resource.version, resource.schema, asJson(object));
    const complaints = unknown.map((field) => `unknown field "${field}"`);
    if (complaints.length > 0 && options.fieldValidation === 'Strict') {
      throw badRequest(
        `${kind} in version "${resource.version}" cannot be handled as a ${kind}: strict decoding error: ${complaints.join(', ')}`,
      );
    }
    if (resource.namespaced) {
      object.metadata.namespace ||= namespace;
      if (object.metadata.namespace !== namespace) {
        throw badRequest('the namespace of the provided object does not match the namespace sent on the request');
      }
    }
    const stored = resource.convert ? resource.convert.toStored(object) : object;
    return { object: stored, warnings: options.fieldValidation === 'Ignore' ? [] : complaints };
  }

  #admit(resource: Resource, draft: KubeObject, old: KubeObject | undefined): void {
    const errors: FieldError[] = [
      ...checkMetadata(draft.metadata, resource.nameRule, resource.namespaced),
      ...resource.admit(draft, { old, allocations: this.allocations }),
    ];
    if (errors.length > 0) throw invalidObject(resource, draft.metadata.name ?? '', errors);
  }

  /** @throws {ApiError} 400, 404 (namespace), 409 (exists), 422. */
  create(resource: Resource, namespace: string, body: unknown, options: WriteOptions = {}): Written {
    const { object, warnings } = this.#decode(resource, namespace, body, options);
    const { metadata } = object;
    if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created');
    metadata.name ??= metadata.generateName ? metadata.generateName + randomBytes(4).toString('hex').slice(0, 5) : '';
    if (resource.namespaced && NAMESPACES) {
      const home = this.store.get(NAMESPACES.storage, namespace);
      if (home === undefined) throw notFound(NAMESPACES, namespace);
      if (home.object.metadata.deletionTimestamp) {
        const why = `unable to create new content in namespace ${namespace} because it is being terminated`;
        throw forbiddenRequest(resource, metadata.name, why);
      }
    }
    if (this.store.get(resource.storage, keyOf(object))) throw alreadyExists(resource, metadata.name);
    if (resource.dropsStatusOnCreate) delete object.status;
    this.#admit(resource, object, undefined);
    this.#stamp(resource, object, undefined);
    if (!options.dryRun) this.store.put(resource.storage, object);
    return { object, warnings };
  }

  /** Metadata that the server writes, whatever the client says. */
  #stamp(resource: Resource, object: KubeObject, old: KubeObject | undefined): void {
    const { metadata } = object;
    metadata.uid = old?.metadata.uid ?? randomUUID();
    metadata.creationTimestamp = old?.metadata.creationTimestamp ?? this.#timestamp();
    if (old?.metadata.deletionTimestamp) metadata.deletionTimestamp = old.metadata.deletionTimestamp;
    else delete metadata.deletionTimestamp;
    if (!resource.countsGenerations) return;
    const generation = old?.metadata.generation ?? 1;
    metadata.generation = old && differsInSpec(old, object) ? generation + 1 : generation;
  }

  /** @throws {ApiError} 400, 404, 409 (version or uid), 422. */
  update(target: Target, body: unknown, options: WriteOptions = {}): Written {
    return this.#replace(target, this.get(target), body, options);
  }

  /**
   * Changes what is there by a function of it.
   *
   * @param change - Gets a copy of the object as this resource shows it.
   * @throws {ApiError} As `update`, and whatever `change` throws.
   */
  patch(target: Target, change: (object: Json) => Json, options: WriteOptions = {}): Written {
    const entry = this.get(target);
    const { convert } = target.resource;
    const shown = toKubeObject(convert ? convert.fromStored(entry.object) : entry.object);
    return this.#replace(target, entry, change(asJson(shown)), options);
  }

  #replace(target: Target, entry: Entry, body: unknown, options: WriteOptions): Written {
    const { resource, namespace, name } = target;
    const old = entry.object;
    const decoded = this.#decode(resource, namespace, body, options);
    const { warnings } = decoded;
    let { object } = decoded;
    if (object.metadata.name !== name) {
      throw badRequest(`the name of the object (${object.metadata.name}) does not match the name on the URL (${name})`);
    }
    const { resourceVersion, uid } = object.metadata;
    if (resourceVersion && resourceVersion !== old.metadata.resourceVersion) throw conflict(resource, name);
    if (uid && uid !== old.metadata.uid) {
      throw conflict(
        resource,
        name,
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`,
      );
    }
    if (target.subresource === 'status') {
      const { status } = object;
      object = toKubeObject(old);
      if (status === undefined) delete object.status;
      else object.status = status;
    } else if (resource.hasStatus) {
      if (old.status === undefined) delete object.status;
      else object.status = old.status;
    }
    this.#admit(resource, object, old);
    this.#stamp(resource, object, old);
    if (sameContent(old, object)) return { object: old, warnings };
    const finished = object.metadata.deletionTimestamp && !object.metadata.finalizers?.length;
    if (!options.dryRun) {
      this.store.put(resource.storage, object);
      if (finished) this.store.remove(resource.storage, entry.key);
    }
    return { object, warnings };
  }

  /**
   * Deletes an object; one with finalizers is only marked. So is a namespace: it goes after its grace, with everything in it.
   *
   * @returns The object as it last was.
   * @throws {ApiError} 404, 409 (preconditions).
   */
  remove(target: Target, preconditions: Preconditions = {}, options: WriteOptions = {}): KubeObject {
    const { resource, name } = target;
    const entry = this.get(target);
    const { metadata } = entry.object;
    for (const field of ['uid', 'resourceVersion'] as const) {
      const wanted = preconditions[field];
      if (wanted && wanted !== metadata[field]) {
        const why = `Precondition failed: ${field} in precondition: ${wanted}, ${field} in object meta: ${metadata[field]}`;
        throw conflict(resource, name, why);
      }
    }
    if (options.dryRun) return entry.object;
    if (metadata.finalizers?.length) {
      if (metadata.deletionTimestamp) return entry.object;
      const marked = toKubeObject(entry.object);
      marked.metadata.deletionTimestamp = this.#timestamp();
      return this.store.put(resource.storage, marked).object;
    }
    if (resource === NAMESPACES) {
      if (metadata.deletionTimestamp) return entry.object;
      const marked = toKubeObject(entry.object);
      marked.metadata.deletionTimestamp = this.#timestamp();
      marked.status = { ...marked.status, phase: 'Terminating' };
      const { object } = this.store.put(resource.storage, marked);
      this.#deps.afterGrace(() => this.#finishNamespace(name));
      return object;
    }
    return this.store.remove(resource.storage, entry.key)?.object ?? entry.object;
  }

  #finishNamespace(namespace: string): void {
    for (const { storage } of RESOURCES.filter((r) => r.namespaced && r.convert === undefined)) {
      for (const { key, object } of [...this.store.sorted(storage)]) {
        if (object.metadata.namespace === namespace) this.store.remove(storage, key);
      }
    }
    if (NAMESPACES) this.store.remove(NAMESPACES.storage, namespace);
  }

  /**
   * Creates or replaces an object from inside the process. Unlike a client's write it takes the status too, makes a missing
   * namespace, and knows no conflicts.
   *
   * @param how - `admit`: with defaults, checks and allocations; `asGiven`: stored as it is, even what no server would take.
   * @throws {TypeError} If the server does not know the kind, or (`admit`) {ApiError} 400 or 422.
   */
  load(given: unknown, how: 'admit' | 'asGiven'): Entry {
    const object = toKubeObject(given);
    const resource = resourceOfKind(object.kind, object.apiVersion);
    if (resource === undefined) {
      throw new TypeError(`Cannot store a ${object.kind} of ${object.apiVersion}: the server does not know the kind`);
    }
    if (!resource.namespaced) delete object.metadata.namespace;
    else object.metadata.namespace ||= 'default';
    if (resource.namespaced) this.ensureNamespace(object.metadata.namespace ?? '');
    const { deletionTimestamp } = object.metadata;
    const stored =
      how === 'admit'
        ? this.#decode(resource, object.metadata.namespace ?? '', object, {}).object
        : (resource.convert?.toStored(object) ?? object);
    const before = this.store.get(resource.storage, keyOf(stored));
    const old = before?.object;
    if (how === 'admit') this.#admit(resource, stored, old);
    this.#stamp(resource, stored, old);
    if (deletionTimestamp) stored.metadata.deletionTimestamp = deletionTimestamp;
    if (before && old?.metadata.resourceVersion) {
      stored.metadata.resourceVersion = old.metadata.resourceVersion;
      if (sameContent(old, stored)) return before;
    }
    return this.store.put(resource.storage, stored);
  }

  /** Makes a namespace if it is not there. */
  ensureNamespace(name: string): void {
    if (NAMESPACES === undefined || this.store.get(NAMESPACES.storage, name)) return;
    const object: KubeObject = { apiVersion: 'v1', kind: 'Namespace', metadata: { name } };
    const errors = [
      ...checkMetadata(object.metadata, 'label', false),
      ...NAMESPACES.admit(object, { old: undefined, allocations: this.allocations }),
    ];
    if (errors.length > 0)
      throw invalidObject(NAMESPACES, name, [invalid('metadata.namespace', name, 'must be a label'), ...errors]);
    this.#stamp(NAMESPACES, object, undefined);
    this.store.put(NAMESPACES.storage, object);
  }

  /**
   * Makes the given objects the only ones of their world: what is not among them goes. Namespaces and events stay.
   *
   * @param how - As for `load`.
   */
  replaceAll(objects: readonly unknown[], how: 'admit' | 'asGiven'): void {
    const kept = new Set<string>();
    for (const given of objects) {
      const { object } = this.load(given, how);
      kept.add(`${object.kind} ${keyOf(object)}`);
    }
    for (const { kind, storage } of RESOURCES) {
      if (kind === 'Namespace' || kind === 'Event') continue;
      for (const { key } of [...this.store.sorted(storage)]) {
        if (!kept.has(`${kind} ${key}`)) this.store.remove(storage, key);
      }
    }
  }
}
