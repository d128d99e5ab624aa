/**
 * The Services of the tutorial, one of each type, before the pods of a deployment `nginx`. The lab has no controllers:
 * what the deployment, its endpoint slices and K3s's ServiceLB would make of them is written here directly.
 *
 * @module
 */

import type { Family } from '../proxier/types.ts';
import type { JsonObject, KubeObject } from './api/object.ts';
import { addressOf, type Host, type Topology } from './topology.ts';

const NAMESPACE = 'default';

interface TutorialService {
  readonly name: string;
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  readonly clusterIPs: Readonly<Record<Family, string>>;
  readonly nodePort: number | undefined;
}

export const CLUSTER_IP: TutorialService = {
  name: 'nginx-clusterip',
  type: 'ClusterIP',
  clusterIPs: { IPv4: '10.43.172.101', IPv6: 'fd00:10:43::101' },
  nodePort: undefined,
};

export const NODE_PORT: TutorialService = {
  name: 'nginx-nodeport',
  type: 'NodePort',
  clusterIPs: { IPv4: '10.43.172.102', IPv6: 'fd00:10:43::102' },
  nodePort: 30080,
};

export const LOAD_BALANCER: TutorialService = {
  name: 'nginx-loadbalancer',
  type: 'LoadBalancer',
  clusterIPs: { IPv4: '10.43.172.200', IPv6: 'fd00:10:43::200' },
  nodePort: 30090,
};

/** The services that have pods behind them. */
export const BALANCED: readonly TutorialService[] = [CLUSTER_IP, NODE_PORT, LOAD_BALANCER];

export const EXTERNAL_NAME: KubeObject = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'nginx-externalname', namespace: NAMESPACE },
  spec: { type: 'ExternalName', externalName: 'nginx.example.com' },
};

/** The Node object of the lab's node. */
export function nodeObject(topology: Topology): KubeObject {
  const { node, families } = topology;
  const podCIDRs = families.map((f) => topology.podCIDR[f]);
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: node.name,
      labels: { 'kubernetes.io/hostname': node.name, 'topology.kubernetes.io/zone': 'zone-a' },
    },
    spec: { podCIDR: podCIDRs[0] ?? '', podCIDRs },
    status: {
      addresses: [
        ...families.map((f) => ({ type: 'InternalIP', address: addressOf(node, f) })),
        { type: 'Hostname', address: node.name },
      ],
    },
  };
}

/** The Service object, with the fields an API server and ServiceLB would fill in. */
export function serviceObject(topology: Topology, service: TutorialService): KubeObject {
  const { families } = topology;
  const clusterIPs = families.map((f) => service.clusterIPs[f]);
  const port: JsonObject = { protocol: 'TCP', port: 80, targetPort: 80 };
  if (service.nodePort !== undefined) port['nodePort'] = service.nodePort;
  const ingress = families.map((f) => ({ ip: addressOf(topology.node, f) }));
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: service.name, namespace: NAMESPACE },
    spec: {
      type: service.type,
      selector: { app: 'nginx' },
      clusterIP: clusterIPs[0] ?? '',
      clusterIPs,
      ipFamilies: [...families],
      ipFamilyPolicy: families.length === 2 ? 'RequireDualStack' : 'SingleStack',
      ports: [port],
    },
    status: service.type === 'LoadBalancer' ? { loadBalancer: { ingress } } : { loadBalancer: {} },
  };
}

/**
 * The EndpointSlices of a service, one for each family.
 *
 * @param pods The pods that are ready; none makes slices without endpoints.
 */
export function endpointSlices(topology: Topology, serviceName: string, pods: readonly Host[]): KubeObject[] {
  return topology.families.map((family) => {
    const slice: KubeObject & JsonObject = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `${serviceName}-${family.toLowerCase()}`,
        namespace: NAMESPACE,
        labels: {
          'kubernetes.io/service-name': serviceName,
          'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
        },
      },
      addressType: family,
      endpoints: pods.map((pod) => ({
        addresses: [addressOf(pod, family)],
        conditions: { ready: true, serving: true, terminating: false },
        nodeName: topology.node.name,
        targetRef: { kind: 'Pod', namespace: NAMESPACE, name: pod.name },
      })),
      ports: [{ name: '', port: 80, protocol: 'TCP' }],
    };
    return slice;
  });
}

/** The slices of every balanced service, with these pods ready: what scaling the deployment does. */
export function scaledTo(topology: Topology, pods: readonly Host[]): KubeObject[] {
  return BALANCED.flatMap((service) => endpointSlices(topology, service.name, pods));
}
