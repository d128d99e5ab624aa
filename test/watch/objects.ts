/**
 * Objects as an API server sends them, for tests.
 *
 * @module
 */

export type Fields = Readonly<Record<string, unknown>>;

export function rawService(name: string, resourceVersion: string, spec: Fields = {}): Fields {
  return {
    metadata: { name, namespace: 'default', resourceVersion, managedFields: [{ manager: 'kubectl' }] },
    spec: {
      type: 'ClusterIP',
      clusterIP: '10.43.0.10',
      clusterIPs: ['10.43.0.10'],
      ipFamilies: ['IPv4'],
      ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 'web' }],
      sessionAffinity: 'None',
      ...spec,
    },
    status: { loadBalancer: {} },
  };
}

export function rawSlice(name: string, resourceVersion: string, fields: Fields = {}): Fields {
  return {
    metadata: { name, namespace: 'default', resourceVersion, labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: [{ addresses: ['10.42.0.5'], conditions: { ready: true }, nodeName: 'node-a' }],
    ...fields,
  };
}
