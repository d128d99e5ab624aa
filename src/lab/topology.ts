/**
 * What exists in the lab, as data: one node, pods behind its bridge, one client on the network outside.
 *
 *     client ── eth0 ═══════════ eth0 ── k3s-node ── cni0 ═╦═ eth0 ── pod 1
 *     192.168.1.50     192.168.1.100     10.42.0.1         ╚═ eth0 ── pod 2
 *                                                             10.42.0.11, .12
 *
 * Every address of the lab lives in a namespace of the lab: nothing here is reachable from outside.
 *
 * @module
 */

import type { Family } from '../proxier/types.ts';

/** The same thing for both IP families. */
export type Dual = Readonly<Record<Family, string>>;

/** An end of a link: an address with its prefix length for each family, as in `192.168.1.100/24`. */
export interface Host {
  /** Name of the namespace; for a pod its name in the cluster. */
  readonly name: string;
  readonly addresses: Dual;
}

export interface Topology {
  /** Families that are set up. IPv6 is left out on a kernel without it. */
  readonly families: readonly Family[];
  readonly node: Host & {
    /** Bridge the pods hang on, and its own addresses, which are the pods' gateways. */
    readonly bridge: string;
    readonly gateways: Dual;
  };
  readonly client: Host;
  readonly pods: readonly Host[];
  /** Pods of this node. */
  readonly podCIDR: Dual;
  /** Pods of all nodes. */
  readonly clusterCIDR: Dual;
  readonly serviceCIDR: Dual;
}

/** Endings of pod names, as a ReplicaSet of the deployment `nginx` would make them. */
const POD_SUFFIXES = ['8xk2p', 'q9mvl', 't4c7d', 'w5hzn', 'b6r8s', 'k2f9j', 'm7g4x', 'z3v6q'];

/** Most pods a lab may have: every one costs a process. */
export const MAX_PODS = POD_SUFFIXES.length;

/**
 * The lab of the documents: addresses as a K3s node has them.
 *
 * @param podCount 1 to `MAX_PODS`; pod n has the address 10.42.0.(10 + n).
 * @throws {RangeError} If `podCount` is not a whole number in that range.
 */
export function labTopology(podCount: number, families: readonly Family[]): Topology {
  if (!Number.isInteger(podCount) || podCount < 1 || podCount > MAX_PODS) {
    throw new RangeError(`Cannot make a lab of ${podCount} pods: the number must be whole and in 1 to ${MAX_PODS}`);
  }
  return {
    families,
    node: {
      name: 'k3s-node',
      addresses: { IPv4: '192.168.1.100/24', IPv6: 'fd00:192:168:1::100/64' },
      bridge: 'cni0',
      gateways: { IPv4: '10.42.0.1/24', IPv6: 'fd00:10:42::1/64' },
    },
    client: { name: 'client', addresses: { IPv4: '192.168.1.50/24', IPv6: 'fd00:192:168:1::50/64' } },
    pods: POD_SUFFIXES.slice(0, podCount).map((suffix, i) => ({
      name: `nginx-7c5ddbdf54-${suffix}`,
      addresses: { IPv4: `10.42.0.${11 + i}/32`, IPv6: `fd00:10:42::${11 + i}/128` },
    })),
    podCIDR: { IPv4: '10.42.0.0/24', IPv6: 'fd00:10:42::/64' },
    clusterCIDR: { IPv4: '10.42.0.0/16', IPv6: 'fd00:10:42::/56' },
    serviceCIDR: { IPv4: '10.43.0.0/16', IPv6: 'fd00:10:43::/112' },
  };
}

/** The address of a host without its prefix length. */
export function addressOf(host: Host, family: Family): string {
  return withoutPrefix(host.addresses[family]);
}

/** `10.42.0.1/24` → `10.42.0.1`. */
export function withoutPrefix(address: string): string {
  return address.slice(0, address.indexOf('/'));
}
