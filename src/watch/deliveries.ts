/**
 * What of one kind the handlers know: the keys that were delivered, with their versions, and the objects that do not
 * decode. Everything that comes from a list or a watch passes here; what changes nothing ends here.
 *
 * @module
 */

import type { Kind, ObjectKey } from '../proxier/types.ts';
import type { Decoder } from './decode.ts';
import { DecodeError, isJsonObject } from './decode-error.ts';
import type { SourceHandlers } from './source.ts';

/** One reading of the complete list. */
export interface ListPass {
  /** The next object of the list, as parsed JSON. */
  item(value: unknown): void;
  /** The list is complete: what was delivered and is not in it is deleted. */
  end(): void;
}

export class Deliveries {
  readonly #kind: Kind;
  readonly #decoder: Decoder;
  readonly #handlers: SourceHandlers;
  /** Version of each object as it was delivered. */
  readonly #delivered = new Map<ObjectKey, string>();
  /**
   * By key, or by `unreadableId`: what was said to be wrong with it. The next version with the same fault is not told
   * again.
   */
  readonly #invalid = new Map<string, string>();
  #synced = false;

  constructor(kind: Kind, decoder: Decoder, handlers: SourceHandlers) {
    this.#kind = kind;
    this.#decoder = decoder;
    this.#handlers = handlers;
  }

  /** True while the handlers know no object. */
  get isEmpty(): boolean {
    return this.#delivered.size === 0;
  }

  /** Delivers an object, unless this version of it is delivered. One that does not decode is reported. */
  upsert(value: unknown): ObjectKey | undefined {
    try {
      const object = this.#decoder.decode(this.#kind, value);
      const { key, resourceVersion } = object;
      this.#invalid.delete(key);
      const known = this.#delivered.get(key);
      if (known === undefined || known === '' || known !== resourceVersion) {
        this.#delivered.set(key, resourceVersion);
        this.#handlers.onEvent({ type: 'upsert', object });
      }
      return key;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return this.#report(value, error);
    }
  }

  /** Delivers that an object is gone, if the handlers know it. The rest of the object need not decode. */
  remove(value: unknown): void {
    try {
      const { key } = this.#decoder.decodeIdentity(this.#kind, value);
      this.#invalid.delete(key);
      if (this.#delivered.delete(key)) this.#handlers.onEvent({ type: 'delete', kind: this.#kind, key });
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      // One that was reported when it came is gone now, and that is all.
      if (!this.#invalid.delete(unreadableId(value))) this.#report(value, error);
    }
  }

  /** True if this version of the object was delivered. Of an object without a readable name or version: false. */
  isDelivered(value: unknown): boolean {
    try {
      const { key, resourceVersion } = this.#decoder.decodeIdentity(this.#kind, value);
      return resourceVersion !== '' && this.#delivered.get(key) === resourceVersion;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      return false;
    }
  }

  /** Versions of before say nothing any more: the next list delivers every object. */
  forgetVersions(): void {
    for (const key of this.#delivered.keys()) this.#delivered.set(key, '');
  }

  /** Begins a list. A pass that is given up halfway has only delivered what is true. */
  beginList(): ListPass {
    const seen = new Set<string>();
    const unreadable = new Set<string>();
    return {
      item: (value) => {
        const key = this.upsert(value);
        if (key !== undefined) seen.add(key);
        else unreadable.add(unreadableId(value));
      },
      end: () => {
        // An object whose very name cannot be read may be any of those that are missing: none of them is deleted.
        if (unreadable.size === 0) this.#deleteAllBut(seen);
        for (const id of this.#invalid.keys()) {
          if (id.startsWith(UNREADABLE) && !unreadable.has(id)) this.#invalid.delete(id);
        }
        this.markSynced();
      },
    };
  }

  /** Says once that everything there was at the start is delivered. */
  markSynced(): void {
    if (this.#synced) return;
    this.#synced = true;
    this.#handlers.onEvent({ type: 'synced', kind: this.#kind });
  }

  #deleteAllBut(seen: ReadonlySet<string>): void {
    for (const key of this.#invalid.keys()) if (!seen.has(key)) this.#invalid.delete(key);
    for (const key of this.#delivered.keys()) {
      if (seen.has(key)) continue;
      this.#delivered.delete(key);
      this.#handlers.onEvent({ type: 'delete', kind: this.#kind, key });
    }
  }

  /** @returns The object's key, if that much of it can be read. */
  #report(value: unknown, error: DecodeError): ObjectKey | undefined {
    let key: ObjectKey | undefined;
    try {
      ({ key } = this.#decoder.decodeIdentity(this.#kind, value));
    } catch (identityError) {
      if (!(identityError instanceof DecodeError)) throw identityError;
    }
    const { field, problem } = error;
    const said = `${field} ${problem}`;
    const id = key ?? unreadableId(value);
    if (this.#invalid.get(id) === said) return key;
    this.#invalid.set(id, said);
    this.#handlers.onInvalid({ kind: this.#kind, key: key ?? UNREADABLE, field, message: problem });
    return key;
  }
}

/** Stands for a key that cannot be read; no key begins with it. */
const UNREADABLE = '?';
const MAX_ID_CHARS = 200;

/** What tells apart objects whose name cannot be read: the uid, else the name and namespace they give. */
function unreadableId(value: unknown): string {
  const metadata = isJsonObject(value) ? value['metadata'] : undefined;
  if (!isJsonObject(metadata)) return UNREADABLE;
  const { uid, name, namespace } = metadata;
  const texts =
    typeof uid === 'string' && uid !== ''
      ? [uid]
      : [namespace, name].map((part) => (typeof part === 'string' ? part : ''));
  return UNREADABLE + texts.join('/').slice(0, MAX_ID_CHARS);
}
