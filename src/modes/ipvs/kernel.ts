/**
 * The words of this mode and those of netlink: texts here, bytes there.
 *
 * @module
 */

import type { Devices } from '../../netlink/device.ts';
import type { Ipvs } from '../../netlink/ipvs.ts';
import type { IpvsDestination, IpvsLiveDestination, IpvsService, IpvsServiceKey } from '../../netlink/ipvs-codec.ts';
import { formatAddress } from '../../netlink/rtnetlink.ts';
import { familyOf, ipBytes, parseIP } from '../../proxier/addr.ts';
import type { Family, IPAddress, Protocol } from '../../proxier/types.ts';
import type { KernelRealServer, KernelServer } from './delta.ts';
import type { HostAddress } from './facts.ts';
import { type RealServer, type VirtualServer, type VirtualServerKey, virtualServerName } from './objects.ts';

/** IPPROTO_… */
const NUMBER: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
const PROTOCOL: ReadonlyMap<number, Protocol> = new Map([
  [6, 'TCP'],
  [17, 'UDP'],
  [132, 'SCTP'],
]);

export function toServiceKey({ ip, port, protocol }: VirtualServerKey): IpvsServiceKey {
  return { address: ipBytes(ip), port, protocol: NUMBER[protocol] };
}

export function toService(server: VirtualServer): IpvsService {
  const { scheduler, flags, timeoutSeconds } = server;
  return { ...toServiceKey(server), scheduler, flags, timeoutSeconds };
}

/** @param weight - 0: no new connections. */
export function toDestination({ ip, port }: RealServer, weight: 0 | 1): IpvsDestination {
  return { address: ipBytes(ip), port, weight, forwarding: 0 };
}

function textOf(address: Uint8Array): IPAddress | undefined {
  return parseIP(formatAddress(Buffer.from(address)))?.ip;
}

/** Undefined for a protocol of which there are no services. */
function keyOf({ address, port, protocol }: IpvsServiceKey): VirtualServerKey | undefined {
  const ip = textOf(address);
  const name = PROTOCOL.get(protocol);
  return ip === undefined || name === undefined ? undefined : { ip, port, protocol: name };
}

function realServerOf(destination: IpvsLiveDestination): readonly KernelRealServer[] {
  const ip = textOf(destination.address);
  if (ip === undefined) return [];
  const { port, weight, forwarding } = destination;
  return [{ ip, port, weight, isMasqueraded: forwarding === 0 }];
}

/** Every virtual server of a family by name, with its real servers: two looks at the kernel, however many there are. */
export function readServers(ipvs: Ipvs, family: Family): ReadonlyMap<string, KernelServer> {
  const destinations = new Map<string, readonly IpvsLiveDestination[]>();
  for (const { key, destinations: all } of ipvs.readTable()) {
    const name = keyOf(key);
    if (name !== undefined) destinations.set(virtualServerName(name), all);
  }
  const servers = new Map<string, KernelServer>();
  for (const service of ipvs.listServices()) {
    const key = keyOf(service);
    if (key === undefined || familyOf(key.ip) !== family) continue;
    const { scheduler, flags, timeoutSeconds } = service;
    const name = virtualServerName(key);
    const realServers = (destinations.get(name) ?? []).flatMap(realServerOf);
    servers.set(name, { server: { ...key, scheduler, flags, timeoutSeconds }, realServers });
  }
  return servers;
}

/** All addresses of all devices, both families. @param device - Number of our device; undefined if it is not there. */
export function readAddresses(devices: Pick<Devices, 'addresses'>, device: number | undefined): readonly HostAddress[] {
  return devices.addresses().flatMap(({ address, interfaceIndex }) => {
    const ip = parseIP(address)?.ip;
    return ip === undefined ? [] : [{ ip, isOurs: interfaceIndex === device }];
  });
}
