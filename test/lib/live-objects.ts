/**
 * Services and EndpointSlices by number, and a stream of changes to them, as an API server holds them.
 *
 * @module
 */

import type { ApiServer } from '../../src/lab/api/server.ts';
import type { Seeded } from './seeded.ts';

export const NODE = 'node-a';

export type Fields = Readonly<Record<string, unknown>>;

export const liveNode: Fields = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: NODE, labels: { 'topology.kubernetes.io/zone': 'zone-a' } },
  spec: { podCIDRs: ['10.42.0.0/24'] },
  status: { addresses: [{ type: 'InternalIP', address: '192.168.50.1' }] },
};

const byte = (n: number) => n % 250;
const host = (n: number) => `${(n >> 8) & 255}.${n & 255}`;

/** @param shape - 0: cluster IP; 1: node port; 2: load balancer with source ranges and local policy; 3: affinity. */
export function liveService(number: number, shape = 0, spec: Fields = {}): Fields {
  const ip = `10.43.${host(number)}`;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'live', name: `svc-${number}` },
    spec: {
      type: shape === 1 ? 'NodePort' : shape === 2 ? 'LoadBalancer' : 'ClusterIP',
      clusterIP: ip,
      clusterIPs: [ip],
      ipFamilies: ['IPv4'],
      sessionAffinity: shape === 3 ? 'ClientIP' : 'None',
      internalTrafficPolicy: 'Cluster',
      externalTrafficPolicy: shape === 2 ? 'Local' : 'Cluster',
      ports: [
        {
          name: 'http',
          protocol: 'TCP',
          port: 80,
          ...((shape === 1 || shape === 2) && { nodePort: 30000 + byte(number) }),
        },
        ...(number % 5 === 0 ? [{ name: 'dns', protocol: 'UDP', port: 53 }] : []),
      ],
      ...(shape === 2 && { loadBalancerSourceRanges: ['203.0.113.0/24'] }),
      ...spec,
    },
    ...(shape === 2 && { status: { loadBalancer: { ingress: [{ ip: `198.51.100.${byte(number)}` }] } } }),
  };
}

/** @param endpoints - How many. */
export function liveSlice(number: number, endpoints: number, fields: Fields = {}): Fields {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace: 'live', name: `svc-${number}-a`, labels: { 'kubernetes.io/service-name': `svc-${number}` } },
    addressType: 'IPv4',
    ports: [
      { name: 'http', port: 8080, protocol: 'TCP' },
      { name: 'dns', port: 5353, protocol: 'UDP' },
    ],
    endpoints: Array.from({ length: endpoints }, (_, i) => ({
      addresses: [`10.42.${number & 255}.${i + 1}`],
      conditions: { ready: true },
      nodeName: i % 2 === 0 ? NODE : 'node-b',
    })),
    ...fields,
  };
}

/** A cluster of `count` services of every shape with two endpoints each, and the node. */
export function liveCluster(count: number): readonly Fields[] {
  const services = Array.from({ length: count }, (_, i) => [liveService(i + 1, i % 4), liveSlice(i + 1, 2)]);
  return [liveNode, ...services.flat()];
}

/** One change by chance: a service or its slice comes, changes or goes. */
export function changeSomething(api: ApiServer, chance: Seeded, count: number): void {
  const number = chance.integer(1, count);
  const service = liveService(number, chance.integer(0, 3));
  switch (chance.integer(0, 5)) {
    case 0:
      api.delete([service]);
      break;
    case 1:
      api.delete([liveSlice(number, 0)]);
      break;
    case 2:
    case 3:
      api.apply([liveSlice(number, chance.integer(0, 4))], 'asGiven');
      break;
    default:
      api.apply([service, liveSlice(number, chance.integer(0, 4))], 'asGiven');
  }
}
