/**
 * Which endpoints of a service port answer: by the Cluster policy, by the Local policy, and from this node at all.
 *
 * Only the hints in the endpoints decide on zones and nodes; the fields of the Service that asked for them do not
 * reach a proxy.
 *
 * @module
 */

import { usesClusterEndpoints, usesLocalEndpoints } from './services.ts';
import type { Endpoint, ServicePort } from './types.ts';

/** The node this proxy runs on, as far as hints name it. */
export interface NodeTopology {
  readonly nodeName: string;
  /** Label topology.kubernetes.io/zone; '' when absent. */
  readonly zone: string;
}

/** Endpoints of one service port, sorted into who they are for. Each list is in the order of the input, and empty if no traffic uses it. */
export interface Categories {
  readonly cluster: readonly Endpoint[];
  readonly local: readonly Endpoint[];
  /** Every endpoint some traffic can reach from here. */
  readonly reachable: readonly Endpoint[];
  /** Some endpoint somewhere is ready, or serving while it terminates. */
  readonly hasAny: boolean;
}

export type TopologyMode = '' | 'PreferSameNode' | 'PreferSameZone';

const NONE: readonly never[] = [];
const NOTHING: Categories = { cluster: NONE, local: NONE, reachable: NONE, hasAny: false };

/**
 * Sorts the endpoints of a service port into categories.
 *
 * Equal lists are one array: with plain traffic all of them are `endpoints` itself.
 */
export function categorise(endpoints: readonly Endpoint[], port: ServicePort, node: NodeTopology): Categories {
  if (endpoints.length === 0) return NOTHING;
  const usesCluster = usesClusterEndpoints(port);
  const mode = usesCluster ? topologyMode(endpoints, node) : '';
  const cluster = usesCluster ? clusterEndpoints(endpoints, mode, node) : NONE;
  if (!usesLocalEndpoints(port)) return { cluster, local: NONE, reachable: cluster, hasAny: cluster.length > 0 };

  const ready = keep(endpoints, (e) => e.isLocal && e.ready);
  const local = ready.length > 0 ? ready : keep(endpoints, (e) => e.isLocal && isServingTerminating(e));
  const hasAny = endpoints.some((e) => e.ready || isServingTerminating(e));
  if (!usesCluster) return { cluster, local, reachable: local, hasAny };
  const covered = mode === '' && (ready.length > 0 || local.length === 0);
  return { cluster, local, reachable: covered ? cluster : union(endpoints, cluster, local), hasAny };
}

/**
 * By which hints the Cluster policy picks. Looks at ready endpoints only, and only if each of them has hints of the
 * kind, one of which is ours: half a set of hints would overload those that have them.
 */
export function topologyMode(endpoints: readonly Endpoint[], { nodeName, zone }: NodeTopology): TopologyMode {
  let anyReady = false;
  let allNodes = true;
  let allZones = true;
  let ourNode = false;
  let ourZone = false;
  for (const e of endpoints) {
    if (!e.ready) continue;
    anyReady = true;
    if (e.nodeHints.length === 0) allNodes = false;
    else if (e.nodeHints.includes(nodeName)) ourNode = true;
    if (e.zoneHints.length === 0) allZones = false;
    else if (e.zoneHints.includes(zone)) ourZone = true;
  }
  if (!anyReady) return '';
  if (allNodes && ourNode) return 'PreferSameNode';
  if (allZones && ourZone) return 'PreferSameZone';
  return '';
}

function clusterEndpoints(
  endpoints: readonly Endpoint[],
  mode: TopologyMode,
  { nodeName, zone }: NodeTopology,
): readonly Endpoint[] {
  const ready = keep(endpoints, (e) => {
    if (!e.ready) return false;
    if (mode === 'PreferSameNode') return e.nodeHints.includes(nodeName);
    return mode === '' || e.zoneHints.includes(zone);
  });
  return ready.length > 0 ? ready : keep(endpoints, isServingTerminating);
}

function isServingTerminating(e: Endpoint): boolean {
  return e.serving && e.terminating;
}

/** Filters; all is the array itself and nothing is one shared array, for the sake of memory. */
function keep(endpoints: readonly Endpoint[], test: (e: Endpoint) => boolean): readonly Endpoint[] {
  const kept = endpoints.filter(test);
  return kept.length === endpoints.length ? endpoints : kept.length === 0 ? NONE : kept;
}

/** Union of two lists that hold entries of `all` in its order. */
function union(all: readonly Endpoint[], a: readonly Endpoint[], b: readonly Endpoint[]): readonly Endpoint[] {
  let i = 0;
  let j = 0;
  return keep(all, (e) => {
    const inA = a[i] === e;
    const inB = b[j] === e;
    if (inA) i++;
    if (inB) j++;
    return inA || inB;
  });
}
