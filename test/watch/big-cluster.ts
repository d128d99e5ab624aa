/**
 * An API server with 10,000 Services and 10,000 EndpointSlices of two endpoints, as a program: it prints its port.
 * Objects are as large as real ones, with managedFields and all, and `limit` is ignored as an old cache does.
 *
 * @module
 */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const COUNT = 10_000;

const managedFields = [
  {
    manager: 'kube-controller-manager',
    operation: 'Update',
    apiVersion: 'v1',
    time: '2026-01-02T03:04:05Z',
    fieldsType: 'FieldsV1',
    fieldsV1: { 'f:metadata': { 'f:labels': { '.': {}, 'f:app': {} } }, 'f:spec': { 'f:ports': {}, 'f:selector': {} } },
  },
];

function metadata(i: number, name: string, labels: object) {
  return {
    name,
    namespace: `team-${i % 200}`,
    uid: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
    resourceVersion: String(1_000_000 + i),
    creationTimestamp: '2026-01-02T03:04:05Z',
    labels: { 'app.kubernetes.io/name': `app-${i}`, 'app.kubernetes.io/managed-by': 'Helm', ...labels },
    annotations: { 'meta.helm.sh/release-name': `release-${i}`, 'meta.helm.sh/release-namespace': 'team' },
    managedFields,
  };
}

function service(i: number): object {
  const ip = `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
  return {
    metadata: metadata(i, `service-${i}`, {}),
    spec: {
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
      selector: { app: `app-${i}` },
      clusterIP: ip,
      clusterIPs: [ip],
      type: 'ClusterIP',
      sessionAffinity: 'None',
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
    },
    status: { loadBalancer: {} },
  };
}

function endpoint(i: number, n: number): object {
  return {
    addresses: [`10.${128 + n}.${(i >> 8) & 255}.${i & 255}`],
    conditions: { ready: true, serving: true, terminating: false },
    nodeName: `node-${(i + n) % 100}`,
    zone: `zone-${(i + n) % 3}`,
    targetRef: { kind: 'Pod', namespace: `team-${i % 200}`, name: `pod-${i}-${n}`, uid: `uid-${i}-${n}` },
  };
}

function slice(i: number): object {
  return {
    metadata: {
      ...metadata(i, `service-${i}-abcde`, { 'kubernetes.io/service-name': `service-${i}` }),
      ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name: `service-${i}`, uid: `uid-${i}`, controller: true }],
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: [endpoint(i, 0), endpoint(i, 1)],
  };
}

function list(kind: string, item: (i: number) => object): string {
  const items = Array.from({ length: COUNT }, (_, i) => item(i));
  return JSON.stringify({ kind, apiVersion: 'v1', metadata: { resourceVersion: '2000000' }, items });
}

const bodies: Readonly<Record<string, string>> = {
  '/api/v1/services': list('ServiceList', service),
  '/apis/discovery.k8s.io/v1/endpointslices': list('EndpointSliceList', slice),
};

const server = createServer((request, response) => {
  const url = new URL(request.url ?? '/', 'http://host');
  response.setHeader('Content-Type', 'application/json');
  if (url.searchParams.get('watch') === 'true') response.flushHeaders();
  else response.end(bodies[url.pathname] ?? '{"kind":"List","metadata":{"resourceVersion":"1"},"items":[]}');
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${port}\n`);
});
