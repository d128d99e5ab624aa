/**
 * A case of a flow table as Kubernetes objects, and the addresses its frontends have. Pure.
 *
 * @module
 */

import type { JsonObject, KubeObject } from '../../src/lab/api/object.ts';
import { addressOf, type Topology, withoutPrefix } from '../../src/lab/topology.ts';
import type { Family } from '../../src/proxier/types.ts';
import {
  type EndpointState,
  type Endpoints,
  type Flow,
  type FlowCase,
  type FlowPort,
  type Frontend,
  PODS,
  type Pod,
  REMOTE_PODS,
} from './flow.ts';

type PerFamily = Readonly<Record<Family, string>>;

export const SECOND_ADDRESS: PerFamily = { IPv4: '192.168.1.101', IPv6: 'fd00:192:168:1::101' };
export const STRANGER: PerFamily = { IPv4: '192.168.1.51', IPv6: 'fd00:192:168:1::51' };
/** Networks that the client routes to the node. */
export const EXTERNAL_NETWORKS: PerFamily = { IPv4: '198.51.100.0/24', IPv6: '2001:db8:e::/64' };
export const VIP_NETWORKS: PerFamily = { IPv4: '203.0.113.0/24', IPv6: '2001:db8:b::/64' };
/** Of the addresses for Services, those that none has. Whoever gets through to them is refused by pod d. */
export const UNALLOCATED_NETWORKS: PerFamily = { IPv4: '10.43.8.0/24', IPv6: 'fd00:10:43::ff00/120' };
const LOOPBACK: PerFamily = { IPv4: '127.0.0.1', IPv6: '::1' };

const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];
/** From a port of a Service to one it does not have. */
const UNKNOWN_PORT_OFFSET = 10_000;
const HTTP: FlowPort = { name: '', protocol: 'TCP', port: 80, targetPort: 8080 };

export function portsOf(c: FlowCase): readonly FlowPort[] {
  return c.ports ?? [HTTP];
}

function nodePortOf(c: FlowCase, port: FlowPort): number {
  return 30_000 + 10 * c.id + (port.nodePortOffset ?? 0);
}

function healthCheckPortOf(c: FlowCase): number {
  return 32_000 + c.id;
}

/** The address of a frontend in a family. */
function addressOfFrontend(c: FlowCase, to: Frontend, family: Family, topology: Topology): string {
  switch (to) {
    case 'unallocated cluster IP':
      return { IPv4: `10.43.8.${c.id}`, IPv6: `fd00:10:43::ff${c.id}` }[family];
    case 'cluster IP':
    case 'cluster IP, unknown port':
      return { IPv4: `10.43.7.${c.id}`, IPv6: `fd00:10:43::${c.id}` }[family];
    case 'external IP':
      return { IPv4: `198.51.100.${c.id}`, IPv6: `2001:db8:e::${c.id}` }[family];
    case 'load balancer IP':
      if (c.vip === 'node') return addressOf(topology.node, family);
      if (c.vip === 'node second address') return SECOND_ADDRESS[family];
      return { IPv4: `203.0.113.${c.id}`, IPv6: `2001:db8:b::${c.id}` }[family];
    case 'node port':
    case 'health check port':
      return addressOf(topology.node, family);
    case 'node port, second address':
      return SECOND_ADDRESS[family];
    case 'node port, pod gateway':
      return withoutPrefix(topology.node.gateways[family]);
    case 'node port, loopback':
      return LOOPBACK[family];
  }
}

/**
 * Where a flow goes in a family.
 *
 * @throws {Error} If the case has no port over the flow's protocol.
 */
export function destination(c: FlowCase, flow: Flow, family: Family, topology: Topology) {
  const address = addressOfFrontend(c, flow.to, family, topology);
  if (flow.to === 'health check port') return { address, port: healthCheckPortOf(c) };
  const protocol = (flow.over ?? 'tcp').toUpperCase();
  const port = portsOf(c).find((p) => p.protocol === protocol && (flow.port === undefined || p.port === flow.port));
  if (port === undefined) throw new Error(`Cannot send a flow of "${c.name}": it has no port over ${protocol}`);
  if (flow.to === 'cluster IP, unknown port') return { address, port: port.port + UNKNOWN_PORT_OFFSET };
  return { address, port: flow.to.startsWith('node port') ? nodePortOf(c, port) : port.port };
}

/** As a cluster has it from its start. */
export function serviceCIDRManifest(topology: Topology): KubeObject {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'kubernetes' },
    spec: { cidrs: FAMILIES.map((family) => topology.serviceCIDR[family]) },
  };
}

export function serviceManifest(c: FlowCase, spec: JsonObject, topology: Topology): KubeObject {
  const all = (to: Frontend) => FAMILIES.map((family) => addressOfFrontend(c, to, family, topology));
  const type = c.type ?? 'ClusterIP';
  const local = spec['externalTrafficPolicy'] === 'Local' || c.spec?.['externalTrafficPolicy'] === 'Local';
  const ingress = all('load balancer IP').map((ip) => ({
    ip,
    ...(c.ipMode === undefined ? {} : { ipMode: c.ipMode }),
  }));
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `flow-${c.id}`, namespace: 'default' },
    spec: {
      type,
      clusterIP: all('cluster IP')[0] ?? '',
      clusterIPs: all('cluster IP'),
      ipFamilies: [...FAMILIES],
      ipFamilyPolicy: 'RequireDualStack',
      ports: portsOf(c).map((port) => ({
        ...(port.name === '' ? {} : { name: port.name }),
        protocol: port.protocol,
        port: port.port,
        targetPort: port.targetPort,
        ...(type === 'ClusterIP' ? {} : { nodePort: nodePortOf(c, port) }),
      })),
      ...(c.externalIP === true ? { externalIPs: all('external IP') } : {}),
      ...(type === 'LoadBalancer' && local ? { healthCheckNodePort: healthCheckPortOf(c) } : {}),
      ...c.spec,
      ...spec,
    },
    status: { loadBalancer: type === 'LoadBalancer' ? { ingress } : {} },
  };
}

function endpointManifest(pod: Pod, state: EndpointState, address: string): JsonObject {
  const conditions = (ready: boolean, serving: boolean, terminating: boolean) => ({ ready, serving, terminating });
  const base = { addresses: [address], nodeName: REMOTE_PODS.includes(pod) ? 'other-node' : 'k3s-node' };
  if (typeof state === 'object') {
    return {
      ...base,
      conditions: conditions(true, true, false),
      hints: {
        ...(state.zones === undefined ? {} : { forZones: state.zones.map((name) => ({ name })) }),
        ...(state.nodes === undefined ? {} : { forNodes: state.nodes.map((name) => ({ name })) }),
      },
    };
  }
  switch (state) {
    case 'ready':
      return { ...base, conditions: conditions(true, true, false) };
    case 'not ready':
      return { ...base, conditions: conditions(false, false, false) };
    case 'terminating':
      return { ...base, conditions: conditions(false, true, true) };
    case 'terminating, not serving':
      return { ...base, conditions: conditions(false, false, true) };
    case 'published, terminating':
      return { ...base, conditions: conditions(true, false, true) };
  }
}

/** The slices of a case, one a family. */
export function sliceManifests(c: FlowCase, endpoints: Endpoints, topology: Topology): KubeObject[] {
  return FAMILIES.map((family) => {
    const slice: KubeObject & JsonObject = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `flow-${c.id}-${family.toLowerCase()}`,
        namespace: 'default',
        labels: { 'kubernetes.io/service-name': `flow-${c.id}` },
      },
      addressType: family,
      endpoints: PODS.flatMap((pod, i) => {
        const state = endpoints[pod];
        const host = topology.pods[i];
        return state === undefined || host === undefined ? [] : [endpointManifest(pod, state, addressOf(host, family))];
      }),
      ports: portsOf(c).map(({ name, protocol, targetPort }) => ({ name, protocol, port: targetPort })),
    };
    return slice;
  });
}
