/**
 * Everything that must be in the kernel for the services of one family, kept up to date service by service.
 *
 * @module
 */

import type { IPAddress, ObjectKey } from '../../proxier/types.ts';
import { Claims } from './claims.ts';
import type { VirtualServerKey } from './objects.ts';
import type { ServedAddress, ServiceObjects, SetElement } from './render.ts';
import type { SetId } from './sets.ts';

const NOTHING: ServiceObjects = {
  servers: new Map(),
  elements: new Map(),
  addresses: new Set(),
  closedToNode: new Map(),
};

export class Desired {
  readonly servers = new Claims<ServedAddress>();
  readonly elements = new Claims<SetElement>();
  readonly addresses = new Claims<IPAddress>();
  readonly closedToNode = new Claims<VirtualServerKey>();
  /** Elements of each set, as far as it has any. */
  readonly #sizes = new Map<SetId, number>();

  /**
   * A service becomes another one. The cost is that of the two.
   *
   * @param before - What it was when it was last given. Undefined: it was not there.
   * @param after - Undefined: it goes.
   */
  replace(owner: ObjectKey, before: ServiceObjects | undefined, after: ServiceObjects | undefined): void {
    const old = before ?? NOTHING;
    const next = after ?? NOTHING;
    const addresses = (of: ReadonlySet<IPAddress>) => new Map(Array.from(of, (ip) => [ip, ip] as const));
    change(this.servers, owner, old.servers, next.servers);
    change(this.addresses, owner, addresses(old.addresses), addresses(next.addresses));
    change(this.closedToNode, owner, old.closedToNode, next.closedToNode);
    for (const [name, { set }] of next.elements) this.#count(name, set, 1);
    change(this.elements, owner, old.elements, next.elements);
    for (const [name, { set }] of old.elements) this.#count(name, set, -1);
  }

  /** Claimed by nobody yet, or by nobody any more: one element more or less. */
  #count(name: string, set: SetId, sign: 1 | -1): void {
    if (this.elements.get(name) === undefined) this.#sizes.set(set, (this.#sizes.get(set) ?? 0) + sign);
  }

  /** True if the set has elements. */
  has(set: SetId): boolean {
    if (set === 'IPVS-IPS') return this.addresses.size > 0;
    return (this.#sizes.get(set) ?? 0) > 0;
  }
}

function change<T>(
  claims: Claims<T>,
  owner: ObjectKey,
  before: ReadonlyMap<string, T>,
  after: ReadonlyMap<string, T>,
): void {
  for (const name of before.keys()) if (!after.has(name)) claims.set(owner, name, undefined);
  // Also what stays the same: it may have been refused, and is to be tried again.
  for (const [name, value] of after) claims.set(owner, name, value);
}
