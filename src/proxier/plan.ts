/**
 * The plan: what must exist for a Service, whatever the mode. A function of its arguments.
 *
 * @module
 */

import type { PortEndpoints } from './endpoints.ts';
import { categorise, type NodeTopology } from './topology.ts';
import type { Endpoint, ObjectKey, ServicePlan, ServicePort, ServicePortPlan } from './types.ts';

const NONE: readonly never[] = [];

/** What a Service is made of, for one family. */
export interface ServiceParts {
  readonly service: ObjectKey;
  /** In the order of port name, then protocol. */
  readonly ports: readonly ServicePort[];
  readonly endpoints: readonly PortEndpoints[];
}

/** Plans a Service. Endpoints belong to the port of the same name and protocol, whatever its number. */
export function planService({ service, ports, endpoints }: ServiceParts, node: NodeTopology): ServicePlan {
  return {
    service,
    ports: ports.map((port) => {
      const match = endpoints.find((e) => e.portName === port.portName && e.protocol === port.protocol);
      return planPort(port, match?.endpoints ?? NONE, node);
    }),
  };
}

/** Plans one service port. `endpoints` are all of it, in the order of `text`. */
export function planPort(port: ServicePort, endpoints: readonly Endpoint[], node: NodeTopology): ServicePortPlan {
  const { cluster, local, reachable, hasAny } = categorise(endpoints, port, node);
  return {
    port,
    clusterEndpoints: cluster,
    localEndpoints: local,
    reachableEndpoints: reachable,
    nodeEndpoints: onNode(endpoints),
    endpointCount: endpoints.length,
    hasAnyEndpoints: hasAny,
    hasInternalEndpoints: hasAny && !(port.internalPolicyLocal && local.length === 0),
    hasExternalEndpoints: hasAny && !(port.externalPolicyLocal && local.length === 0),
    usesClusterPolicyChain: cluster.length > 0,
    usesLocalPolicyChain: local.length > 0,
    // hasAny, not hasExternal: pods of this cluster take the short cut to remote endpoints even where others are dropped.
    usesExternalTrafficChain: hasAny && port.externallyAccessible,
  };
}

/** All or none is the array itself or one shared array: most endpoints of a large cluster are elsewhere. */
function onNode(endpoints: readonly Endpoint[]): readonly Endpoint[] {
  const here = endpoints.filter((e) => e.isLocal);
  return here.length === endpoints.length ? endpoints : here.length === 0 ? NONE : here;
}
