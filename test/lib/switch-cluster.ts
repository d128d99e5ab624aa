/**
 * Ten services of every kind before the pods of a lab, in both families, and from where each can be reached.
 *
 * @module
 */

import type { JsonObject, KubeObject } from '../../src/lab/api/object.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { addressOf, type Host, type Topology } from '../../src/lab/topology.ts';
import { EXTERNAL_NETWORKS, VIP_NETWORKS } from '../contract/manifests.ts';
import type { SteadyTarget } from './steady-client.ts';

/** What the pods must serve by TCP. */
export const POD_PORT = 8080;
const PORT = 80;

interface SwitchService {
  readonly name: string;
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  /** By what the client outside reaches it, beside its cluster IP. */
  readonly outside?: 'node port' | 'external IP' | 'load balancer IP';
  readonly spec?: JsonObject;
  /** Behind the first pod alone, which then reaches itself. */
  readonly onePod?: true;
}

const STICKY = { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } } };
const LOCAL = { externalTrafficPolicy: 'Local' };

const SERVICES: readonly SwitchService[] = [
  { name: 'plain', type: 'ClusterIP' },
  { name: 'sticky', type: 'ClusterIP', spec: STICKY },
  { name: 'hairpin', type: 'ClusterIP', onePod: true },
  { name: 'node-port', type: 'NodePort', outside: 'node port' },
  { name: 'node-port-sticky', type: 'NodePort', outside: 'node port', spec: STICKY },
  { name: 'node-port-local', type: 'NodePort', outside: 'node port', spec: LOCAL },
  { name: 'external-ip', type: 'ClusterIP', outside: 'external IP' },
  { name: 'balancer', type: 'LoadBalancer', outside: 'load balancer IP' },
  { name: 'balancer-local', type: 'LoadBalancer', outside: 'load balancer IP', spec: LOCAL },
  {
    name: 'balancer-fenced',
    type: 'LoadBalancer',
    outside: 'load balancer IP',
    spec: { loadBalancerSourceRanges: ['192.168.1.0/24', 'fd00:192:168:1::/64'] },
  },
];

const FAMILIES = ['IPv4', 'IPv6'] as const;
type Families = Topology['families'];

const clusterIPs = (n: number) => ({ IPv4: `10.43.9.${n}`, IPv6: `fd00:10:43::9${n.toString(16).padStart(2, '0')}` });
const externalIPs = (n: number) => ({ IPv4: `198.51.100.${n}`, IPv6: `2001:db8:e::${n}` });
const balancerIPs = (n: number) => ({ IPv4: `203.0.113.${n}`, IPv6: `2001:db8:b::${n}` });
const nodePort = (n: number) => 31_000 + n;

function serviceObject({ name, type, outside, spec }: SwitchService, n: number, families: Families): KubeObject {
  const ips = families.map((f) => clusterIPs(n)[f]);
  const external = outside === 'external IP' ? { externalIPs: families.map((f) => externalIPs(n)[f]) } : {};
  const ingress = families.map((f) => ({ ip: balancerIPs(n)[f] }));
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'switch' },
    spec: {
      type,
      clusterIP: ips[0] ?? '',
      clusterIPs: ips,
      ipFamilies: [...families],
      ports: [{ name: '', protocol: 'TCP', port: PORT, ...(type !== 'ClusterIP' && { nodePort: nodePort(n) }) }],
      ...external,
      ...spec,
    },
    status: type === 'LoadBalancer' ? { loadBalancer: { ingress } } : { loadBalancer: {} },
  };
}

function slicesOf(name: string, pods: readonly Host[], { families, node }: Topology): KubeObject[] {
  return families.map((family) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${name}-${family.toLowerCase()}`,
      namespace: 'switch',
      labels: { 'kubernetes.io/service-name': name },
    },
    addressType: family,
    endpoints: pods.map((pod) => ({
      addresses: [addressOf(pod, family)],
      conditions: { ready: true },
      nodeName: node.name,
    })),
    ports: [{ name: '', port: POD_PORT, protocol: 'TCP' }],
  }));
}

/** All objects, for `lab.apply`. */
export function switchObjects(topology: Topology): readonly KubeObject[] {
  return SERVICES.flatMap((service, i) => [
    serviceObject(service, i + 1, topology.families),
    ...slicesOf(service.name, service.onePod ? topology.pods.slice(0, 1) : topology.pods, topology),
  ]);
}

/** Makes the client route external addresses to the node. */
export async function routeOutside(lab: Lab, more: readonly string[] = []): Promise<void> {
  const { node, families } = lab.topology;
  const networks = [...FAMILIES.flatMap((f) => [EXTERNAL_NETWORKS[f], VIP_NETWORKS[f]]), ...more];
  const lines = networks.flatMap((to) => {
    const family = to.includes(':') ? 'IPv6' : 'IPv4';
    return families.includes(family) ? [`route replace ${to} via ${addressOf(node, family)} dev eth0`] : [];
  });
  await lab.client.exec.run({ argv: ['ip', '-batch', '-'], stdin: `${lines.join('\n')}\n`, timeoutMs: 10_000 });
}

/** Who asks whom: the client outside everything, a pod and the node what is reached from inside. */
export function switchTargets({ topology }: Lab, from: 'client' | 'pod' | 'node'): readonly SteadyTarget[] {
  return SERVICES.flatMap(({ name, outside }, i) =>
    topology.families.flatMap((family): SteadyTarget[] => {
      const n = i + 1;
      const at = (what: string, address: string, port = PORT) => ({
        name: `${name}, ${what}, ${family}`,
        address,
        port,
      });
      const cluster = at('cluster IP', clusterIPs(n)[family]);
      const atNode = at('node port', addressOf(topology.node, family), nodePort(n));
      if (outside === undefined) return [cluster];
      if (outside === 'node port') return [cluster, atNode];
      if (from !== 'client') return [cluster];
      const address = outside === 'external IP' ? externalIPs(n)[family] : balancerIPs(n)[family];
      return [cluster, at(outside, address)];
    }),
  );
}
