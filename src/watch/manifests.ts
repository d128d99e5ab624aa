/**
 * The text of a manifest → objects. Pure: what is in a file, not where it is.
 *
 * YAML of several documents, JSON, and lists of any kind (`List`, `ServiceList`). What the API server would fill in and
 * a proxy needs is filled in: the namespace `default`, and `clusterIPs` from `clusterIP`.
 *
 * @module
 */

import { parseAllDocuments } from 'yaml';
import type { ApiObject, InvalidObject } from '../proxier/types.ts';
import { type Decoder, isNamespaced } from './decode.ts';
import { DecodeError, isJsonObject, type JsonObject, show } from './decode-error.ts';
import { createSelection, type WatchedKind } from './selectors.ts';

/** A file, or a document in it, that cannot be read. */
export interface FileProblem {
  readonly file: string;
  /** Counted from 1; 0 is the file as a whole. */
  readonly document: number;
  readonly why: string;
}

/** What files hold. */
export interface Manifests {
  /** In the order of files, documents and lists. An object may be in it twice: the later one counts. */
  readonly objects: readonly ApiObject[];
  readonly invalid: readonly InvalidObject[];
  readonly problems: readonly FileProblem[];
  /** How many objects of other kinds there are, by `apiVersion kind`. */
  readonly ignored: ReadonlyMap<string, number>;
}

interface Found {
  readonly objects: ApiObject[];
  readonly invalid: InvalidObject[];
  readonly problems: FileProblem[];
  readonly ignored: Map<string, number>;
}

interface Wanted {
  readonly watched: WatchedKind;
  readonly selects: (object: JsonObject) => boolean;
}

/** Reads manifests for some kinds, by their selectors. */
export class ManifestDecoder {
  readonly #wanted = new Map<string, Wanted>();
  readonly #decoder: Decoder;

  constructor(kinds: readonly WatchedKind[], decoder: Decoder) {
    this.#decoder = decoder;
    for (const watched of kinds) {
      this.#wanted.set(`${apiVersionOf(watched)} ${watched.kind}`, { watched, selects: createSelection(watched) });
    }
  }

  /** Decodes the text of one file. Never throws: what is wrong is part of the answer. */
  decode(text: string, file: string): Manifests {
    const found: Found = { objects: [], invalid: [], problems: [], ignored: new Map() };
    for (const [index, document] of parseDocuments(text).entries()) {
      const place = { file, document: index + 1 };
      if (document.why !== undefined) found.problems.push({ ...place, why: document.why });
      else if (document.value === null || document.value === undefined) continue;
      else if (!isJsonObject(document.value) || typeof document.value['kind'] !== 'string') {
        const is = isJsonObject(document.value) ? 'names no kind' : show(document.value);
        found.problems.push({ ...place, why: `${is}, must be an object with a kind` });
      } else this.#object(document.value, found);
    }
    return found;
  }

  #object(object: JsonObject, found: Found): void {
    const { kind, apiVersion, items } = object;
    if (typeof kind === 'string' && kind.endsWith('List') && Array.isArray(items)) {
      for (const item of items) {
        // The items of a typed list name no kind: the list does.
        const inherited = kind === 'List' ? {} : { apiVersion, kind: kind.slice(0, -'List'.length) };
        this.#object(isJsonObject(item) ? { ...inherited, ...item } : { ...inherited, metadata: item }, found);
      }
      return;
    }
    this.#add(object, found);
  }

  #add(object: JsonObject, found: Found): void {
    const id = `${String(object['apiVersion'])} ${String(object['kind'])}`;
    const wanted = this.#wanted.get(id);
    if (wanted === undefined) {
      found.ignored.set(id, (found.ignored.get(id) ?? 0) + 1);
      return;
    }
    const { kind } = wanted.watched;
    const whole = fillIn(object, isNamespaced(kind));
    if (!wanted.selects(whole)) return;
    try {
      found.objects.push(this.#decoder.decode(kind, whole));
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      found.invalid.push({ kind, key: this.#key(kind, whole), field: error.field, message: error.problem });
    }
  }

  #key(kind: WatchedKind['kind'], object: JsonObject): string {
    try {
      return this.#decoder.decodeIdentity(kind, object).key;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return '?';
    }
  }
}

/** `/api/v1/services` → `v1`; `/apis/discovery.k8s.io/v1/endpointslices` → `discovery.k8s.io/v1`. */
function apiVersionOf(watched: WatchedKind): string {
  return watched.path.split('/').slice(2, -1).join('/');
}

interface ParsedDocument {
  readonly value?: unknown;
  readonly why?: string;
}

function parseDocuments(text: string): readonly ParsedDocument[] {
  if (/^\s*\{/.test(text)) {
    try {
      return [{ value: JSON.parse(text) }];
    } catch {
      // Several JSON texts, or YAML in braces: the parser below says what is wrong with it, if anything.
    }
  }
  const documents = parseAllDocuments(text);
  if (!Array.isArray(documents)) return [];
  return documents.map((document) => {
    const [error] = document.errors;
    if (error !== undefined) return { why: error.message.split('\n', 1)[0] ?? error.code };
    try {
      return { value: document.toJS() as unknown };
    } catch (cause) {
      // Aliases without an anchor, or so many that they are an attack.
      return { why: cause instanceof Error ? cause.message : String(cause) };
    }
  });
}

function fillIn(object: JsonObject, isInNamespace: boolean): JsonObject {
  let { metadata, spec } = object;
  if (isInNamespace && isJsonObject(metadata) && (metadata['namespace'] ?? '') === '') {
    metadata = { ...metadata, namespace: 'default' };
  }
  if (isJsonObject(spec) && typeof spec['clusterIP'] === 'string' && spec['clusterIP'] !== '' && !spec['clusterIPs']) {
    spec = { ...spec, clusterIPs: [spec['clusterIP']] };
  }
  return { ...object, metadata, spec };
}
