/**
 * The plan of a service as what this mode keeps in the kernel. Pure. spec: ipvs.md §7, §8, §9.
 *
 * @module
 */

import { cidrContains } from '../../proxier/addr.ts';
import type { Endpoint, IPAddress, Protocol, ServicePlan, ServicePort, ServicePortPlan } from '../../proxier/types.ts';
import {
  IP_VS_SVC_F_PERSISTENT,
  IP_VS_SVC_F_SCHED_MH_PORT,
  type RealServer,
  type VirtualServer,
  type VirtualServerKey,
  virtualServerName,
} from './objects.ts';
import type { IpvsOptions, NodeFacts } from './options.ts';
import { type Entry, formatEntry, type SetId } from './sets.ts';

/** A virtual server and who answers for it. */
export interface ServedAddress {
  readonly server: VirtualServer;
  /** No two the same, in the order of the plan. */
  readonly realServers: readonly RealServer[];
}

export interface SetElement {
  readonly set: SetId;
  /** As `formatEntry` writes it. */
  readonly text: string;
}

/** Everything of one service, each map by the name of the thing. */
export interface ServiceObjects {
  readonly servers: ReadonlyMap<string, ServedAddress>;
  /** By `SET TEXT`. */
  readonly elements: ReadonlyMap<string, SetElement>;
  /** To be bound to the dummy device. */
  readonly addresses: ReadonlySet<IPAddress>;
  /** Virtual servers on load balancer addresses that this node itself may not use: it is in none of the source ranges. */
  readonly closedToNode: ReadonlyMap<string, VirtualServerKey>;
}

const NODE_PORT_SETS = {
  TCP: { all: 'NODE-PORT-TCP', local: 'NODE-PORT-LOCAL-TCP' },
  UDP: { all: 'NODE-PORT-UDP', local: 'NODE-PORT-LOCAL-UDP' },
  SCTP: { all: 'NODE-PORT-SCTP-HASH', local: 'NODE-PORT-LOCAL-SCTP-HASH' },
} as const satisfies Readonly<Record<Protocol, { readonly all: SetId; readonly local: SetId }>>;

/** Renders one service. Where two ports of it claim the same virtual server, the last one has it. */
export function renderService(plan: ServicePlan, options: IpvsOptions, facts: NodeFacts): ServiceObjects {
  const objects = new Collector();
  for (const port of plan.ports) renderPort(port, options, facts, objects);
  return objects;
}

class Collector implements ServiceObjects {
  readonly servers = new Map<string, ServedAddress>();
  readonly elements = new Map<string, SetElement>();
  readonly addresses = new Set<IPAddress>();
  readonly closedToNode = new Map<string, VirtualServerKey>();

  add(set: SetId, entry: Entry): void {
    const text = formatEntry(entry);
    this.elements.set(`${set} ${text}`, { set, text });
  }
}

function renderPort(plan: ServicePortPlan, options: IpvsOptions, facts: NodeFacts, objects: Collector): void {
  const { port, nodeEndpoints } = plan;
  const { protocol } = port;
  // Hairpin: an endpoint that is not ready may still talk to its own service.
  for (const { ip, port } of nodeEndpoints) {
    objects.add('LOOP-BACK', { kind: 'ip,port,source', ip, protocol, port, source: ip });
  }
  const serve = (ip: IPAddress, number: number, localOnly: boolean) => {
    const server = virtualServer(port, ip, number, options);
    objects.servers.set(virtualServerName(server), { server, realServers: realServers(plan, localOnly) });
  };
  const bindUnlessNode = (ip: IPAddress) => {
    if (options.bindsExternalIPs && !facts.nodeAddresses.includes(ip)) objects.addresses.add(ip);
  };
  const at = (ip: IPAddress): Entry => ({ kind: 'ip,port', ip, protocol, port: port.port });
  const { externalPolicyLocal } = port;

  objects.add('CLUSTER-IP', at(port.clusterIP));
  objects.addresses.add(port.clusterIP);
  serve(port.clusterIP, port.port, port.internalPolicyLocal);

  for (const ip of port.externalIPs) {
    objects.add(externalPolicyLocal ? 'EXTERNAL-IP-LOCAL' : 'EXTERNAL-IP', at(ip));
    bindUnlessNode(ip);
    serve(ip, port.port, externalPolicyLocal);
  }

  for (const ip of port.loadBalancerVIPs) {
    objects.add('LOAD-BALANCER', at(ip));
    if (externalPolicyLocal) objects.add('LOAD-BALANCER-LOCAL', at(ip));
    if (port.sourceRanges.length > 0) renderSourceRanges(port, ip, options, objects);
    bindUnlessNode(ip);
    serve(ip, port.port, externalPolicyLocal);
  }

  if (port.nodePort !== 0) {
    // Without an address nothing listens, and a health check port is not opened for nothing.
    if (facts.nodePortIPs.length === 0) return;
    const sets = NODE_PORT_SETS[protocol];
    const entries: readonly Entry[] =
      protocol === 'SCTP'
        ? facts.nodePortIPs.map((ip) => ({ kind: 'ip,port', ip, protocol, port: port.nodePort }))
        : [{ kind: 'port', port: port.nodePort }];
    for (const entry of entries) {
      objects.add(sets.all, entry);
      if (externalPolicyLocal) objects.add(sets.local, entry);
    }
    for (const ip of facts.nodePortIPs) serve(ip, port.nodePort, externalPolicyLocal);
  }
  if (port.healthCheckNodePort !== 0) {
    objects.add('HEALTH-CHECK-NODE-PORT', { kind: 'port', port: port.healthCheckNodePort });
  }
}

function renderSourceRanges(port: ServicePort, vip: IPAddress, { nodeIP }: IpvsOptions, objects: Collector): void {
  const at = { ip: vip, protocol: port.protocol, port: port.port } as const;
  objects.add('LOAD-BALANCER-FW', { kind: 'ip,port', ...at });
  for (const source of port.sourceRanges) {
    objects.add('LOAD-BALANCER-SOURCE-CIDR', { kind: 'ip,port,source', ...at, source });
  }
  // What the node itself sends to the address has the address as its source.
  if (port.sourceRanges.some((range) => cidrContains(range, nodeIP))) {
    objects.add('LOAD-BALANCER-SOURCE-IP', { kind: 'ip,port,source', ...at, source: vip });
  } else {
    objects.closedToNode.set(virtualServerName(at), at);
  }
}

function virtualServer(
  { protocol, affinitySeconds }: ServicePort,
  ip: IPAddress,
  port: number,
  { scheduler }: IpvsOptions,
): VirtualServer {
  return {
    ip,
    port,
    protocol,
    scheduler,
    flags:
      (affinitySeconds === undefined ? 0 : IP_VS_SVC_F_PERSISTENT) |
      (scheduler === 'mh' ? IP_VS_SVC_F_SCHED_MH_PORT : 0),
    timeoutSeconds: affinitySeconds ?? 0,
  };
}

/** Without an endpoint on this node, traffic that is to stay on it goes to those of the Cluster policy, if that has any. */
function realServers({ localEndpoints, clusterEndpoints }: ServicePortPlan, localOnly: boolean): readonly Endpoint[] {
  return localOnly && localEndpoints.length > 0 ? localEndpoints : clusterEndpoints;
}
