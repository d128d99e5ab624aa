/**
 * Who claims which name, and what for. Services may claim the same thing, a virtual server on a shared external address for
 * example: the claim of the smallest owner counts, whatever the order in which they came, and when it goes the next one does.
 *
 * @module
 */

import { compareText, type ObjectKey } from '../../proxier/types.ts';

export interface Claim<T> {
  readonly owner: ObjectKey;
  readonly value: T;
}

/** One name whose claim that counts may have become another. */
export interface Change<T> {
  readonly name: string;
  readonly before: Claim<T> | undefined;
  readonly after: Claim<T> | undefined;
}

/** Claims of one name in the order of their owners: nearly always one, so no list. */
interface Held<T> extends Claim<T> {
  readonly next: Held<T> | undefined;
}

function without<T>(held: Held<T> | undefined, owner: ObjectKey): Held<T> | undefined {
  if (held === undefined) return undefined;
  return held.owner === owner ? held.next : { ...held, next: without(held.next, owner) };
}

function withClaim<T>(held: Held<T> | undefined, owner: ObjectKey, value: T): Held<T> {
  if (held === undefined || compareText(owner, held.owner) < 0) return { owner, value, next: held };
  return { ...held, next: withClaim(held.next, owner, value) };
}

export class Claims<T> {
  readonly #held = new Map<string, Held<T>>();
  /** What counted for a name when changes were last taken. */
  readonly #touched = new Map<string, Claim<T> | undefined>();

  /** How many names are claimed. */
  get size(): number {
    return this.#held.size;
  }

  /** The claim that counts. */
  get(name: string): Claim<T> | undefined {
    return this.#held.get(name);
  }

  /** The claims that count, in no order. */
  *entries(): Generator<readonly [string, Claim<T>]> {
    yield* this.#held;
  }

  /** Takes the place of a claim of the same owner. Undefined: the owner claims the name no more. */
  set(owner: ObjectKey, name: string, value: T | undefined): void {
    const had = this.#held.get(name);
    if (!this.#touched.has(name)) this.#touched.set(name, had);
    const rest = without(had, owner);
    const now = value === undefined ? rest : withClaim(rest, owner, value);
    if (now === undefined) this.#held.delete(name);
    else this.#held.set(name, now);
  }

  /** Names touched since the last call, with what counted then and what counts now; in the order they were touched. */
  takeChanges(): readonly Change<T>[] {
    const changes = Array.from(this.#touched, ([name, before]) => ({ name, before, after: this.#held.get(name) }));
    this.#touched.clear();
    return changes;
  }
}
