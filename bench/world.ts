/**
 * The objects of a benchmark: `n` ClusterIP services of `e` endpoints each on three nodes, as JSON the API server serves.
 *
 * @module
 */

/** Cluster IP of service `i`, below 10.96.0.0/11. */
export function clusterIP(i: number): string {
  return `10.${96 + Math.floor(i / 62500)}.${Math.floor(i / 250) % 250}.${(i % 250) + 1}`;
}

/** Address `k` (0..15) of service `i`'s endpoints, below 10.128.0.0/9; all of them answer on port 80. */
export function endpointIP(i: number, k: number): string {
  const j = i * 16 + k;
  return `10.${128 + Math.floor(j / 62500)}.${Math.floor(j / 250) % 250}.${(j % 250) + 1}`;
}

const namespace = (i: number) => `ns-${i % 50}`;

export function service(i: number): object {
  const ip = clusterIP(i);
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `svc-${i}`, namespace: namespace(i) },
    spec: {
      type: 'ClusterIP',
      clusterIP: ip,
      clusterIPs: [ip],
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      sessionAffinity: 'None',
      internalTrafficPolicy: 'Cluster',
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 80 }],
    },
    status: { loadBalancer: {} },
  };
}

/** The slice of service `i` whose endpoints are the addresses `ks` of `endpointIP`. */
export function slice(i: number, ks: readonly number[]): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `svc-${i}-abc`,
      namespace: namespace(i),
      labels: {
        'kubernetes.io/service-name': `svc-${i}`,
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
      },
    },
    addressType: 'IPv4',
    endpoints: ks.map((k) => ({
      addresses: [endpointIP(i, k)],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: `node-${k % 3}`,
      zone: 'zone-a',
    })),
    ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
  };
}

export const node: object = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'node-0', labels: { 'kubernetes.io/hostname': 'node-0' } },
  spec: { podCIDR: '10.128.0.0/24', podCIDRs: ['10.128.0.0/24'] },
  status: { addresses: [{ type: 'InternalIP', address: '192.168.1.100' }] },
};

/** The whole cluster. */
export function world(services: number, endpoints: number): object[] {
  const ks = Array.from({ length: endpoints }, (_, k) => k);
  const objects: object[] = [node];
  for (let i = 0; i < services; i++) objects.push(service(i));
  for (let i = 0; i < services; i++) objects.push(slice(i, ks));
  return objects;
}

/** A small generator of repeatable numbers in 0..1 (mulberry32). */
export function randomFrom(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const mid = sorted.length >> 1;
  return sorted.length % 2 ? (sorted[mid] ?? Number.NaN) : ((sorted[mid - 1] ?? 0) + (sorted[mid] ?? 0)) / 2;
}
