/**
 * Why a service port has the endpoints it has: the decisions of `topology.ts` and `plan.ts`, in words. Pure; decides nothing.
 *
 * @module
 */

import { usesClusterEndpoints, usesLocalEndpoints } from './services.ts';
import { type NodeTopology, type TopologyMode, topologyMode } from './topology.ts';
import type { Endpoint, ServicePort, ServicePortPlan } from './types.ts';

/** Endpoints by condition; one may count in several. */
export interface EndpointCounts {
  readonly total: number;
  readonly ready: number;
  readonly serving: number;
  readonly terminating: number;
  /** On this node, whatever their condition. */
  readonly local: number;
}

/** What one policy came to. `endpoints` are `ip:port`, in the order of text. */
export interface PolicyExplanation {
  readonly endpoints: readonly string[];
  readonly why: string;
}

/** What becomes of one kind of traffic; `dropped` where endpoints exist, but none that the policy allows. */
export interface TrafficExplanation {
  readonly policy: 'Cluster' | 'Local';
  readonly outcome: 'forwarded' | 'dropped' | 'rejected';
}

export interface PortExplanation {
  readonly name: string;
  readonly protocol: string;
  readonly endpoints: EndpointCounts;
  /** `mode` is '' where hints are ignored, or where there are none. */
  readonly hints: { readonly mode: TopologyMode; readonly why: string };
  readonly cluster: PolicyExplanation;
  readonly local: PolicyExplanation;
  /** To the cluster IP. */
  readonly internal: TrafficExplanation;
  /** To node port, load balancer and external IPs; null if the port has none of them. */
  readonly external: TrafficExplanation | null;
}

/**
 * Explains one service port.
 *
 * @param endpoints - All of it, those the plan was made from.
 */
export function explainPort(
  plan: ServicePortPlan,
  endpoints: readonly Endpoint[],
  node: NodeTopology,
): PortExplanation {
  const { port } = plan;
  const hints = explainHints(port, endpoints, node);
  return {
    name: port.name,
    protocol: port.protocol,
    endpoints: countEndpoints(endpoints),
    hints,
    cluster: { endpoints: textsOf(plan.clusterEndpoints), why: whyCluster(plan, endpoints, hints.mode) },
    local: { endpoints: textsOf(plan.localEndpoints), why: whyLocal(plan, endpoints) },
    internal: traffic(plan, port.internalPolicyLocal, plan.hasInternalEndpoints),
    external: port.externallyAccessible ? traffic(plan, port.externalPolicyLocal, plan.hasExternalEndpoints) : null,
  };
}

const textsOf = (endpoints: readonly Endpoint[]) => endpoints.map((e) => e.text);
const count = (endpoints: readonly Endpoint[], test: (e: Endpoint) => boolean) => endpoints.filter(test).length;

function countEndpoints(endpoints: readonly Endpoint[]): EndpointCounts {
  return {
    total: endpoints.length,
    ready: count(endpoints, (e) => e.ready),
    serving: count(endpoints, (e) => e.serving),
    terminating: count(endpoints, (e) => e.terminating),
    local: count(endpoints, (e) => e.isLocal),
  };
}

function traffic({ hasAnyEndpoints }: ServicePortPlan, isLocal: boolean, isServed: boolean): TrafficExplanation {
  const outcome = isServed ? 'forwarded' : hasAnyEndpoints ? 'dropped' : 'rejected';
  return { policy: isLocal ? 'Local' : 'Cluster', outcome };
}

function explainHints(port: ServicePort, endpoints: readonly Endpoint[], node: NodeTopology): PortExplanation['hints'] {
  if (!usesClusterEndpoints(port)) return { mode: '', why: 'not looked at: all traffic has policy Local' };
  const mode = topologyMode(endpoints, node);
  const ready = endpoints.filter((e) => e.ready);
  if (ready.length === 0) return { mode, why: 'not looked at: no endpoint is ready' };
  if (mode === 'PreferSameNode') {
    return { mode, why: `used: every ready endpoint has a node hint, and some name this node "${node.nodeName}"` };
  }
  const zoned = count(ready, (e) => e.zoneHints.length > 0);
  const noded = count(ready, (e) => e.nodeHints.length > 0);
  if (mode === 'PreferSameZone') {
    return { mode, why: `used: every ready endpoint has a zone hint, and some name this zone "${node.zone}"` };
  }
  if (zoned === 0 && noded === 0) return { mode, why: 'no ready endpoint has hints' };
  const reasons: string[] = [];
  if (noded > 0) reasons.push(whyIgnored('node', noded, ready.length, node.nodeName));
  if (zoned > 0) reasons.push(whyIgnored('zone', zoned, ready.length, node.zone));
  return { mode, why: `ignored: ${reasons.join('; ')}` };
}

function whyIgnored(what: 'node' | 'zone', hinted: number, ready: number, ours: string): string {
  if (hinted < ready) return `${ready - hinted} of ${ready} ready endpoints have no ${what} hint, all must have one`;
  return ours === '' ? `this node has no ${what}` : `no ${what} hint names this ${what} "${ours}"`;
}

function whyCluster(
  { port, clusterEndpoints }: ServicePortPlan,
  endpoints: readonly Endpoint[],
  mode: TopologyMode,
): string {
  if (!usesClusterEndpoints(port)) return 'no traffic has policy Cluster';
  if (endpoints.length === 0) return 'there are no endpoints';
  if (clusterEndpoints.length === 0) return 'no endpoint is ready, and none serves while it terminates';
  if (!clusterEndpoints.some((e) => e.ready)) return 'no endpoint is ready: those that serve while they terminate';
  if (mode === 'PreferSameNode') return 'the ready endpoints hinted for this node';
  if (mode === 'PreferSameZone') return 'the ready endpoints hinted for this zone';
  return 'all ready endpoints';
}

function whyLocal({ port, localEndpoints }: ServicePortPlan, endpoints: readonly Endpoint[]): string {
  if (!usesLocalEndpoints(port)) return 'no traffic has policy Local';
  if (!endpoints.some((e) => e.isLocal)) return 'no endpoint is on this node';
  if (localEndpoints.length === 0) return 'no endpoint on this node is ready, and none serves while it terminates';
  if (!localEndpoints.some((e) => e.ready)) {
    return 'no endpoint on this node is ready: those on it that serve while they terminate';
  }
  return 'the ready endpoints on this node';
}
