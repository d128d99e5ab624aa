/**
 * Real servers that must go and still have connections: they get no new ones, and are deleted when the last has ended. spec:
 * ipvs.md §10. Kept in memory only: after a restart a full sync finds them unwanted and comes to the same.
 *
 * @module
 */

import type { NetlinkError } from '../../netlink/error.ts';
import type { Ipvs, IpvsChange } from '../../netlink/ipvs.ts';
import type { IpvsLiveDestination } from '../../netlink/ipvs-codec.ts';
import { toDestination, toServiceKey } from './kernel.ts';
import { type RealServer, realServerName, type VirtualServerKey, virtualServerName } from './objects.ts';

/** A real server of a virtual server. */
export interface ServerPair {
  readonly server: VirtualServerKey;
  readonly real: RealServer;
}

/** Up to so many virtual servers are asked for their real servers one by one; from there on one look at all is cheaper. */
const MAX_SINGLE_LOOKS = 20;

const hex = (address: Uint8Array) => Buffer.from(address).toString('hex');

export class Draining {
  readonly #ipvs: Ipvs;
  /** Virtual server → real server → the pair. */
  readonly #held = new Map<string, Map<string, ServerPair>>();

  constructor(ipvs: Ipvs) {
    this.#ipvs = ipvs;
  }

  /** How many wait for their last connection. */
  get size(): number {
    let size = 0;
    for (const reals of this.#held.values()) size += reals.size;
    return size;
  }

  /** True if it waits for its last connection. */
  has({ server, real }: ServerPair): boolean {
    return this.#held.get(virtualServerName(server))?.has(realServerName(real)) ?? false;
  }

  /** It is wanted again. @returns True if it was waiting, so that it is still in the kernel. */
  take({ server, real }: ServerPair): boolean {
    const name = virtualServerName(server);
    const reals = this.#held.get(name);
    const was = reals?.delete(realServerName(real)) ?? false;
    if (reals?.size === 0) this.#held.delete(name);
    return was;
  }

  /** A virtual server is gone, and all its real servers with it. */
  forget(server: VirtualServerKey): void {
    this.#held.delete(virtualServerName(server));
  }

  /**
   * Takes real servers out of service. Those without connections are deleted at once; so are those of UDP and SCTP, whatever they
   * have.
   *
   * @returns What the kernel refused, but for what is not there any more.
   */
  drain(pairs: readonly ServerPair[]): readonly NetlinkError[] {
    const waiting = pairs.filter(({ server }) => server.protocol === 'TCP');
    const changes = pairs.map(({ server, real }): IpvsChange => {
      const service = toServiceKey(server);
      if (server.protocol === 'TCP') return { kind: 'setDestination', service, destination: toDestination(real, 0) };
      return { kind: 'deleteDestination', service, destination: toDestination(real, 0) };
    });
    const errors = unexpected(this.#ipvs.change(changes));
    // Counted only now: no connection can have come since.
    for (const pair of waiting) {
      const name = virtualServerName(pair.server);
      const reals = this.#held.get(name) ?? new Map<string, ServerPair>();
      this.#held.set(name, reals.set(realServerName(pair.real), pair));
    }
    return [...errors, ...this.#deleteIdle(new Set(waiting.map(({ server }) => virtualServerName(server))))];
  }

  /** Deletes those whose connections have ended. @returns As `drain`. */
  deleteIdle(): readonly NetlinkError[] {
    return this.#deleteIdle(new Set(this.#held.keys()));
  }

  #deleteIdle(names: ReadonlySet<string>): readonly NetlinkError[] {
    const gone: ServerPair[] = [];
    const table = names.size > MAX_SINGLE_LOOKS ? this.#readTable() : undefined;
    for (const name of names) {
      for (const pair of this.#held.get(name)?.values() ?? []) {
        const there = table
          ? (table.get(keyText(pair.server)) ?? [])
          : this.#ipvs.listDestinations(toServiceKey(pair.server));
        const wanted = hex(toDestination(pair.real, 0).address);
        const is = there.find(({ address, port }) => port === pair.real.port && hex(address) === wanted);
        if (is === undefined) this.take(pair);
        else if (is.activeConnections + is.inactiveConnections === 0) gone.push(pair);
      }
    }
    const refused = this.#ipvs.change(
      gone.map(({ server, real }) => ({
        kind: 'deleteDestination',
        service: toServiceKey(server),
        destination: toDestination(real, 0),
      })),
    );
    for (const pair of gone) this.take(pair);
    return unexpected(refused);
  }

  #readTable(): ReadonlyMap<string, readonly IpvsLiveDestination[]> {
    return new Map(
      this.#ipvs.readTable().map(({ key, destinations }) => {
        return [`${key.protocol} ${hex(key.address)} ${key.port}`, destinations] as const;
      }),
    );
  }
}

function keyText(server: VirtualServerKey): string {
  const { address, port, protocol } = toServiceKey(server);
  return `${protocol} ${hex(address)} ${port}`;
}

/** That it is gone already is what was asked for. */
function unexpected(refused: ReadonlyMap<number, NetlinkError>): readonly NetlinkError[] {
  return [...refused.values()].filter(
    ({ failure }) => failure.code !== 'KERNEL' || (failure.name !== 'ENOENT' && failure.name !== 'ESRCH'),
  );
}
