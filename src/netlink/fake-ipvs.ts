/**
 * An IPVS table in memory.
 *
 * @module
 */

import { NetlinkError } from './error.ts';
import { IPVS_DOING, type Ipvs, type IpvsChange, type IpvsTimeouts } from './ipvs.ts';
import type { IpvsDestinationKey, IpvsLiveDestination, IpvsService, IpvsServiceKey } from './ipvs-codec.ts';
import type { IpvsTableEntry } from './ipvs-table.ts';

interface Held {
  service: IpvsService;
  readonly destinations: Map<string, IpvsLiveDestination>;
}

const ERRNO = { ENOENT: 2, ESRCH: 3, EEXIST: 17, EINVAL: 22 } as const;
const SCHEDULERS = ['rr', 'wrr', 'lc', 'wlc', 'sh', 'dh', 'sed', 'nq', 'lblc', 'lblcr', 'fo', 'ovf', 'mh', 'twos'];

const hex = (address: Uint8Array) => Buffer.from(address).toString('hex');
const keyOf = ({ address, port, protocol }: IpvsServiceKey) => `${protocol} ${hex(address)} ${port}`;
const destinationKeyOf = ({ address, port }: IpvsDestinationKey) => `${hex(address)} ${port}`;

/** The kernel sends to no such address: unspecified, multicast, broadcast; of IPv6 also link-local and IPv4-mapped. */
function isRefused(address: Uint8Array): boolean {
  const [first = 0, second = 0] = address;
  if (address.length === 4) return hex(address) === '00000000' || first >= 224;
  const text = hex(address);
  return (
    first === 0xff ||
    (first === 0xfe && (second & 0xc0) === 0x80) ||
    text.startsWith(`${'0'.repeat(20)}ffff`) ||
    text === '0'.repeat(32)
  );
}

export class FakeIpvs implements Ipvs {
  readonly #held = new Map<string, Held>();
  #timeouts: IpvsTimeouts = { tcp: 900, tcpFin: 120, udp: 300 };
  /** Every change asked for, in order. */
  readonly changes: IpvsChange[] = [];
  /** How often a list of everything was asked for. */
  listings = 0;

  /** A destination has this many connections from now on. @throws {RangeError} If there is no such destination. */
  setConnections(service: IpvsServiceKey, destination: IpvsDestinationKey, active: number, inactive = 0): void {
    const held = this.#held.get(keyOf(service))?.destinations;
    const was = held?.get(destinationKeyOf(destination));
    if (was === undefined) throw new RangeError('Cannot connect: there is no such real server');
    held?.set(destinationKeyOf(destination), { ...was, activeConnections: active, inactiveConnections: inactive });
  }

  listServices(): readonly IpvsService[] {
    this.listings++;
    return [...this.#held.values()].map(({ service }) => service);
  }

  listDestinations(service: IpvsServiceKey): readonly IpvsLiveDestination[] {
    return [...(this.#held.get(keyOf(service))?.destinations.values() ?? [])];
  }

  readTable(): readonly IpvsTableEntry[] {
    this.listings++;
    return [...this.#held.values()].map(({ service: { address, port, protocol }, destinations }) => ({
      key: { address, port, protocol },
      destinations: [...destinations.values()],
    }));
  }

  change(changes: readonly IpvsChange[]): ReadonlyMap<number, NetlinkError> {
    const refused = new Map<number, NetlinkError>();
    changes.forEach((change, i) => {
      this.changes.push(change);
      const name = this.#one(change);
      if (name !== undefined) {
        refused.set(i, new NetlinkError(IPVS_DOING[change.kind], { code: 'KERNEL', errno: ERRNO[name], name }));
      }
    });
    return refused;
  }

  #one(change: IpvsChange): keyof typeof ERRNO | undefined {
    const key = keyOf(change.service);
    const held = this.#held.get(key);
    switch (change.kind) {
      case 'newService':
        if (held !== undefined) return 'EEXIST';
        if (!SCHEDULERS.includes(change.service.scheduler)) return 'ENOENT';
        this.#held.set(key, { service: change.service, destinations: new Map() });
        return undefined;
      case 'setService':
        if (held === undefined) return 'ESRCH';
        if (!SCHEDULERS.includes(change.service.scheduler)) return 'ENOENT';
        held.service = change.service;
        return undefined;
      case 'deleteService':
        return this.#held.delete(key) ? undefined : 'ESRCH';
      default:
    }
    if (held === undefined) return 'ESRCH';
    const { destinations } = held;
    const id = destinationKeyOf(change.destination);
    const was = destinations.get(id);
    if (change.kind === 'deleteDestination') return destinations.delete(id) ? undefined : 'ENOENT';
    if (change.kind === 'newDestination') {
      if (was !== undefined) return 'EEXIST';
      if (isRefused(change.destination.address)) return 'EINVAL';
    } else if (was === undefined) return 'ENOENT';
    const { activeConnections = 0, inactiveConnections = 0 } = was ?? {};
    destinations.set(id, { ...change.destination, activeConnections, inactiveConnections });
    return undefined;
  }

  timeouts(): IpvsTimeouts {
    return this.#timeouts;
  }

  setTimeouts({ tcp, tcpFin, udp }: IpvsTimeouts): void {
    const had = this.#timeouts;
    this.#timeouts = { tcp: tcp || had.tcp, tcpFin: tcpFin || had.tcpFin, udp: udp || had.udp };
  }

  flush(): void {
    this.#held.clear();
  }
}
