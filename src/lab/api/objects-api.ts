/**
 * The REST API of the resources: paths and queries to verbs of the registry, objects to answers.
 *
 * @module
 */

import type { Clock } from '../../sys/clock.ts';
import { type Exchange, readBody, readJson, sendText } from './exchange.ts';
import { Lists, type Page } from './list.ts';
import { asJson, isJsonObject, type Json, type JsonObject, type KubeObject } from './object.ts';
import { jsonPatch, mergePatch } from './patch.ts';
import type { Preconditions, Registry, Target, WriteOptions } from './registry.ts';
import { apiVersionOf, findResource, type Resource } from './resources.ts';
import { type Matches, parseFieldSelector, parseLabelSelector } from './selectors.ts';
import { ApiError, badRequest, methodNotAllowed, notFound, unsupportedMediaType } from './status.ts';
import type { Entry } from './store.ts';
import { strategicMerge } from './strategic-merge.ts';
import { type IncludeObject, toTable } from './table.ts';

/** What a path is about. Without a name it is the collection, of one namespace or (namespace '') of all. */
export interface ResourcePath {
  readonly resource: Resource;
  readonly namespace: string;
  readonly name: string | undefined;
  readonly subresource: 'status' | undefined;
}

/** @returns Undefined if the path is not one of a resource. */
export function parseResourcePath(path: string): ResourcePath | undefined {
  const [root, ...rest] = path.slice(1).split('/').map(decodeURIComponent);
  const group = root === 'apis' ? rest.shift() : root === 'api' ? '' : undefined;
  const version = rest.shift();
  if (group === undefined || version === undefined) return undefined;
  // `namespaces/x/services` is about services; `namespaces/x` and `namespaces/x/status` are about the namespace.
  const namespaced = rest[0] === 'namespaces' && rest.length > 2 && rest[2] !== 'status';
  const namespace = namespaced ? (rest[1] ?? '') : '';
  const [plural = '', name, subresource, ...more] = namespaced ? rest.slice(2) : rest;
  const resource = findResource(group, version, plural);
  if (resource === undefined || (resource.namespaced !== namespaced && (namespaced || name !== undefined)))
    return undefined;
  if (more.length > 0 || name === '') return undefined;
  if (subresource !== undefined && !(subresource === 'status' && resource.hasStatus)) return undefined;
  return { resource, namespace, name, subresource: subresource === undefined ? undefined : 'status' };
}

/** How the client wants objects: whole, or as a table. */
export interface Form {
  readonly table: boolean;
  readonly include: IncludeObject;
}

/** @throws {ApiError} 406 if the client takes nothing this server writes. */
export function parseAccept(accept: string, query: URLSearchParams): Form {
  const given = query.get('includeObject');
  const include = given === 'Object' || given === 'None' ? given : 'Metadata';
  for (const part of accept.split(',')) {
    const [type = '', ...parameters] = part.split(';').map((p) => p.trim());
    const known = type === '' || type === '*/*' || type === 'application/*' || type === 'application/json';
    if (!known) continue;
    const as = parameters.find((p) => p.startsWith('as='));
    if (as === undefined) return { table: false, include };
    if (as === 'as=Table' && !parameters.includes('v=v1beta1')) return { table: true, include };
  }
  throw new ApiError({
    code: 406,
    reason: 'NotAcceptable',
    message: 'only the following media types are accepted: application/json',
  });
}

/** What of a collection a client asks for. @throws {ApiError} 400. */
export function parseMatches(path: ResourcePath, query: URLSearchParams): Matches {
  const { resource, namespace, name } = path;
  const labels = parseLabelSelector(query.get('labelSelector') ?? '');
  const fields = parseFieldSelector(query.get('fieldSelector') ?? '', resource.fields);
  return (object) =>
    (namespace === '' || object.metadata.namespace === namespace) &&
    (name === undefined || object.metadata.name === name) &&
    labels(object) &&
    fields(object);
}

function parseCount(query: URLSearchParams, name: string): number {
  const text = query.get(name) ?? '';
  if (text === '') return 0;
  if (!/^\d{1,9}$/.test(text)) throw badRequest(`Cannot use ${name} "${text}": must be a whole number`);
  return Number(text);
}

function parseWriteOptions(query: URLSearchParams): WriteOptions {
  const dryRun = query.getAll('dryRun');
  if (dryRun.some((v) => v !== '' && v !== 'All'))
    throw badRequest(`Unsupported value: "${dryRun}": supported values: "All"`);
  const validation = query.get('fieldValidation') || 'Warn';
  if (validation !== 'Strict' && validation !== 'Warn' && validation !== 'Ignore') {
    throw badRequest(`Unsupported value: "${validation}": supported values: "Ignore", "Strict", "Warn"`);
  }
  return { dryRun: dryRun.includes('All'), fieldValidation: validation };
}

const PATCH_TYPES = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
];

/** A function that does to an object what a patch of this content type says. @throws {ApiError} 415. */
function patcher(type: string, resource: Resource, patch: Json): (object: Json) => Json {
  switch (type) {
    case 'application/json-patch+json':
      return (object) => jsonPatch(object, patch);
    case 'application/merge-patch+json':
      return (object) => mergePatch(object, patch);
    case 'application/strategic-merge-patch+json':
      return (object) => strategicMerge(resource.schema, object, patch);
    default:
      throw unsupportedMediaType(type, PATCH_TYPES);
  }
}

export class ObjectsApi {
  readonly #registry: Registry;
  readonly #clock: Pick<Clock, 'now'>;
  readonly lists: Lists;

  constructor(registry: Registry, clock: Pick<Clock, 'now'>) {
    this.#registry = registry;
    this.#clock = clock;
    this.lists = new Lists(registry.store);
  }

  /** Answers a request that is no watch. @throws {ApiError} What is to be sent as the Status. */
  async handle(exchange: Exchange, path: ResourcePath): Promise<void> {
    const { request, query } = exchange;
    const form = parseAccept(request.headers.accept ?? '', query);
    if (path.name === undefined) {
      switch (request.method) {
        case 'GET':
          return await this.#list(exchange, path, form);
        case 'POST':
          return await this.#create(exchange, path, form);
        case 'DELETE':
          return await this.#deleteCollection(exchange, path);
        default:
          throw methodNotAllowed();
      }
    }
    const target: Target = { ...path, name: path.name };
    switch (request.method) {
      case 'GET':
        return await this.#sendObject(exchange, path.resource, form, 200, this.#registry.get(target).object);
      case 'PUT': {
        const { object, warnings } = this.#registry.update(
          target,
          await this.#readObject(exchange),
          parseWriteOptions(query),
        );
        return await this.#sendObject(exchange, path.resource, form, 200, object, warnings);
      }
      case 'PATCH':
        return await this.#patch(exchange, target, form);
      case 'DELETE':
        return await this.#delete(exchange, target);
      default:
        throw methodNotAllowed();
    }
  }

  async #readObject({ request }: Exchange): Promise<unknown> {
    const type = (request.headers['content-type'] ?? 'application/json').split(';')[0]?.trim() ?? '';
    if (type !== 'application/json') throw unsupportedMediaType(type, ['application/json']);
    return await readJson(request);
  }

  async #list(exchange: Exchange, path: ResourcePath, form: Form): Promise<void> {
    const { query } = exchange;
    const { resource, namespace } = path;
    const matches = parseMatches(path, query);
    const page = this.lists.page({
      storage: resource.storage,
      matches: (entry: Entry) => matches(entry.object),
      matchesAll: namespace === '' && !query.get('labelSelector') && !query.get('fieldSelector'),
      limit: parseCount(query, 'limit'),
      continueToken: query.get('continue') ?? '',
      resourceVersion: query.get('resourceVersion') ?? '',
      resourceVersionMatch: query.get('resourceVersionMatch') ?? '',
    });
    await sendText(exchange, 200, this.#listText(resource, page, form), { list: true });
  }

  #listText(resource: Resource, page: Page, { table, include }: Form): string {
    const metadata: JsonObject = {
      resourceVersion: String(page.resourceVersion),
      ...(page.continueToken && { continue: page.continueToken }),
      ...(page.remaining !== undefined && { remainingItemCount: page.remaining }),
    };
    const { columns, kind, convert } = resource;
    if (table) {
      const objects = page.entries.map((e) => e.object);
      return JSON.stringify(
        toTable(columns, objects, { metadata, include, nowMs: this.#clock.now(), withColumns: true }),
      );
    }
    const items = page.entries.map((entry) =>
      convert
        ? JSON.stringify({ ...convert.fromStored(entry.object), kind: undefined, apiVersion: undefined })
        : `{${entry.body}`,
    );
    const head = JSON.stringify({ kind: `${kind}List`, apiVersion: apiVersionOf(resource), metadata });
    return `${head.slice(0, -1)},"items":[${items.join(',')}]}`;
  }

  async #sendObject(
    exchange: Exchange,
    resource: Resource,
    { table, include }: Form,
    code: number,
    stored: KubeObject,
    warnings: readonly string[] = [],
  ): Promise<void> {
    const object = resource.convert ? resource.convert.fromStored(stored) : stored;
    const metadata = { resourceVersion: stored.metadata.resourceVersion ?? '' };
    const answer = table
      ? toTable(resource.columns, [stored], { metadata, include, nowMs: this.#clock.now(), withColumns: true })
      : asJson(object);
    const warning = warnings.map((w) => `299 - ${JSON.stringify(w)}`).join(', ');
    await sendText(exchange, code, JSON.stringify(answer), { headers: warning ? { Warning: warning } : {} });
  }

  async #create(exchange: Exchange, path: ResourcePath, form: Form): Promise<void> {
    const { resource, namespace } = path;
    const body = await this.#readObject(exchange);
    if (resource.namespaced && namespace === '') throw methodNotAllowed();
    const { object, warnings } = this.#registry.create(resource, namespace, body, parseWriteOptions(exchange.query));
    await this.#sendObject(exchange, resource, form, 201, object, warnings);
  }

  async #patch(exchange: Exchange, target: Target, form: Form): Promise<void> {
    const { request, query } = exchange;
    const type = (request.headers['content-type'] ?? '').split(';')[0]?.trim() ?? '';
    if (!PATCH_TYPES.includes(type)) throw unsupportedMediaType(type, PATCH_TYPES);
    let patch: Json;
    try {
      patch = JSON.parse(await readBody(request));
    } catch (cause) {
      throw badRequest(`error decoding patch: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    const change = patcher(type, target.resource, patch);
    const { object, warnings } = this.#registry.patch(target, change, parseWriteOptions(query));
    await this.#sendObject(exchange, target.resource, form, 200, object, warnings);
  }

  async #delete(exchange: Exchange, target: Target): Promise<void> {
    const text = await readBody(exchange.request);
    let options: unknown;
    try {
      options = text === '' ? {} : JSON.parse(text);
    } catch (cause) {
      throw badRequest(`Cannot read delete options: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    const given = isJsonObject(options) ? options : {};
    const preconditions: Preconditions = isJsonObject(given['preconditions']) ? given['preconditions'] : {};
    const dryRun = Array.isArray(given['dryRun']) && given['dryRun'].includes('All');
    const write = parseWriteOptions(exchange.query);
    const object = this.#registry.remove(target, preconditions, { dryRun: dryRun || write.dryRun === true });
    const { resource, name } = target;
    if (object.metadata.deletionTimestamp) {
      return await this.#sendObject(exchange, resource, { table: false, include: 'None' }, 200, object);
    }
    const details = {
      name,
      ...(resource.group && { group: resource.group }),
      kind: resource.plural,
      uid: object.metadata.uid,
    };
    const status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details };
    await sendText(exchange, 200, JSON.stringify(status));
  }

  async #deleteCollection(exchange: Exchange, path: ResourcePath): Promise<void> {
    const { resource } = path;
    await readBody(exchange.request);
    const matches = parseMatches(path, exchange.query);
    const { dryRun = false } = parseWriteOptions(exchange.query);
    const entries = this.#registry.store.sorted(resource.storage).filter((entry) => matches(entry.object));
    for (const { object } of entries) {
      const { name, namespace = '' } = object.metadata;
      try {
        this.#registry.remove({ resource, namespace, name }, {}, { dryRun });
      } catch (error) {
        // A deleted namespace takes others along.
        if (!(error instanceof ApiError && error.failure.code === notFound(resource, name).failure.code)) throw error;
      }
    }
    const page: Page = {
      entries,
      resourceVersion: this.#registry.store.resourceVersion,
      continueToken: '',
      remaining: undefined,
    };
    await sendText(exchange, 200, this.#listText(resource, page, { table: false, include: 'None' }));
  }
}
