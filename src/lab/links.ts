/**
 * How a topology is wired: for each namespace the sysctls and the lines for `ip -batch`. Pure.
 *
 * Pods are routed, not bridged, to each other: a pod has a /32 (/128) address and a route to its gateway, so all its
 * traffic goes through the node's IP layer, also to a pod on the same bridge. On a bridged network a pod's answer to
 * its neighbour would go straight over the bridge and miss the node that has to undo the DNAT, unless the kernel has
 * br_netfilter; routed pods behave the same on every kernel, and a pod that reaches itself through a service needs no
 * hairpin mode on its bridge port.
 *
 * @module
 */

import type { Family } from '../proxier/types.ts';
import { addressOf, type Host, type Topology, withoutPrefix } from './topology.ts';

export interface Sysctl {
  /** Below /proc/sys. */
  readonly path: string;
  readonly value: string;
  /** Left alone where the kernel does not have it. */
  readonly optional: boolean;
}

const sysctl = (path: string, value: string): Sysctl => ({ path, value, optional: false });
const ifPresent = (path: string, value: string): Sysctl => ({ path, value, optional: true });

/** What every namespace gets before its first link: links take over what `default` says when they appear. */
function hostSysctls(topology: Topology): Sysctl[] {
  const list: Sysctl[] = [];
  for (const scope of ['all', 'default']) {
    // A pod that learnt by a redirect that its neighbour is on the same link would go round the node.
    list.push(sysctl(`net/ipv4/conf/${scope}/accept_redirects`, '0'));
    list.push(sysctl(`net/ipv4/conf/${scope}/send_redirects`, '0'));
    list.push(sysctl(`net/ipv4/conf/${scope}/rp_filter`, '0'));
    if (!topology.families.includes('IPv6')) continue;
    list.push(sysctl(`net/ipv6/conf/${scope}/disable_ipv6`, '0'));
    list.push(sysctl(`net/ipv6/conf/${scope}/accept_redirects`, '0'));
    list.push(sysctl(`net/ipv6/conf/${scope}/accept_ra`, '0'));
    // Nobody else can have these addresses: no second of waiting for duplicates.
    list.push(sysctl(`net/ipv6/conf/${scope}/accept_dad`, '0'));
  }
  return list;
}

/** Sysctls of the node's namespace, before its links. */
export function nodeSysctls(topology: Topology): Sysctl[] {
  const list = [...hostSysctls(topology), sysctl('net/ipv4/ip_forward', '1')];
  if (topology.families.includes('IPv6')) list.push(sysctl('net/ipv6/conf/all/forwarding', '1'));
  // Frames between ports of the bridge would otherwise meet iptables on kernels that have br_netfilter.
  list.push(ifPresent('net/bridge/bridge-nf-call-iptables', '0'));
  list.push(ifPresent('net/bridge/bridge-nf-call-ip6tables', '0'));
  return list;
}

/** Sysctls of a pod's or the client's namespace, before its links. */
export function endSysctls(topology: Topology): Sysctl[] {
  return hostSysctls(topology);
}

/** Fixed, because a bridge takes its lowest port's address otherwise and pods would keep a stale neighbour. */
const BRIDGE_MAC = '02:42:0a:2a:00:01';

function addAddress(address: string, device: string): string {
  return `address add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`;
}

const anywhere = (family: Family) => (family === 'IPv4' ? '0.0.0.0/0' : '::/0');

/**
 * Lines for `ip -batch` in the node's namespace. They also make the other ends of all links.
 *
 * @param namespaceOf Path of a host's network namespace, as in `/proc/4711/ns/net`.
 */
export function nodeLinks(topology: Topology, namespaceOf: (host: Host) => string): string[] {
  const { node, client, pods, families } = topology;
  return [
    'link set lo up',
    `link add ${node.bridge} address ${BRIDGE_MAC} type bridge forward_delay 0 stp_state 0 mcast_snooping 0`,
    ...families.map((f) => addAddress(node.gateways[f], node.bridge)),
    `link set ${node.bridge} up`,
    `link add eth0 type veth peer name eth0 netns ${namespaceOf(client)}`,
    ...families.map((f) => addAddress(node.addresses[f], 'eth0')),
    'link set eth0 up',
    // Packets of the node to a service address need a route before netfilter rewrites them.
    ...families.map((f) => `route add ${anywhere(f)} via ${addressOf(client, f)} dev eth0`),
    ...pods.flatMap((pod, i) => [
      `link add veth${i + 1} type veth peer name eth0 netns ${namespaceOf(pod)}`,
      `link set veth${i + 1} master ${node.bridge} up`,
    ]),
  ];
}

/** Lines for `ip -batch` in a pod's namespace, once its eth0 is there. */
export function podLinks(topology: Topology, pod: Host): string[] {
  return [
    'link set lo up',
    ...topology.families.map((f) => addAddress(pod.addresses[f], 'eth0')),
    'link set eth0 up',
    ...topology.families.flatMap((f) => {
      const gateway = withoutPrefix(topology.node.gateways[f]);
      return [`route add ${gateway} dev eth0`, `route add ${anywhere(f)} via ${gateway} dev eth0`];
    }),
  ];
}

/** Lines for `ip -batch` in the client's namespace, once its eth0 is there. It routes pods and services to the node. */
export function clientLinks(topology: Topology): string[] {
  const { client, node, families } = topology;
  return [
    'link set lo up',
    ...families.map((f) => addAddress(client.addresses[f], 'eth0')),
    'link set eth0 up',
    ...families.flatMap((f) =>
      [topology.clusterCIDR[f], topology.serviceCIDR[f]].map(
        (cidr) => `route add ${cidr} via ${addressOf(node, f)} dev eth0`,
      ),
    ),
  ];
}
