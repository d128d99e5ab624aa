import t from 'tap';
import { servicePortName, servicePorts, usesClusterEndpoints, usesLocalEndpoints } from '../../src/proxier/services.ts';
import type { Family, ServiceObject, ServicePort } from '../../src/proxier/types.ts';
import { makePort, makeService, makeServicePort } from '../lib/make.ts';

const DUAL = { clusterIP: '172.30.1.1', clusterIPs: ['172.30.1.1', 'fd00::1'], ipFamilies: ['IPv4', 'IPv6'] };
const MIXED = {
  externalIPs: ['50.60.70.81', '2001:db8::1', 'fd00::2', '50.60.70.80'],
  loadBalancerSourceRanges: [' 203.0.113.000/025', '2001:db8::/32', '10.1.2.3/8'],
  ingress: [
    { ip: '10.1.2.4', ipMode: undefined },
    { ip: '2001:db8::4', ipMode: 'VIP' },
  ],
};

interface Row {
  readonly name: string;
  readonly service: Partial<Omit<ServiceObject, 'kind' | 'key'>>;
  /** Default IPv4. */
  readonly family?: Family;
  /** Undefined: no records at all. Otherwise the fields that matter, a record each. */
  readonly want: readonly Readonly<Partial<Record<keyof ServicePort, unknown>>>[] | undefined;
  /** Reports, `field text`. */
  readonly unparsable?: readonly string[];
}

const rows: readonly Row[] = [
  { name: 'headless', service: { clusterIP: 'None' }, want: undefined },
  {
    name: 'headless with SCTP',
    service: { clusterIP: 'None', ports: [makePort({ protocol: 'SCTP' })] },
    want: undefined,
  },
  { name: 'headless without ports', service: { clusterIP: 'None', ports: [] }, want: undefined },
  { name: 'without cluster IP yet', service: { clusterIP: '' }, want: undefined },
  { name: 'ExternalName', service: { type: 'ExternalName', clusterIP: '' }, want: undefined },
  { name: 'ExternalName with a cluster IP', service: { type: 'ExternalName' }, want: undefined },
  { name: 'without ports: ours, and empty', service: { ports: [] }, want: [] },
  {
    name: 'two ports, in the order of name',
    service: { ports: [makePort({ name: 'p2', port: 1235 }), makePort({ name: 'p1', port: 1234, protocol: 'UDP' })] },
    want: [
      { name: servicePortName('ns1', 'svc1', 'p1'), portName: 'p1', port: 1234, protocol: 'UDP', nodePort: 0 },
      { name: servicePortName('ns1', 'svc1', 'p2'), portName: 'p2', port: 1235, protocol: 'TCP' },
    ],
  },
  {
    name: 'one name, two protocols: two records of one printed name',
    service: { ports: [makePort({ name: 'dns', port: 53, protocol: 'UDP' }), makePort({ name: 'dns', port: 53 })] },
    want: [
      { name: servicePortName('ns1', 'svc1', 'dns'), protocol: 'TCP' },
      { name: servicePortName('ns1', 'svc1', 'dns'), protocol: 'UDP' },
    ],
  },
  {
    name: 'one name and one protocol twice: the later counts',
    service: { ports: [makePort({ port: 1 }), makePort({ port: 2 })] },
    want: [{ port: 2 }],
  },
  {
    name: 'NodePort',
    service: { type: 'NodePort', ports: [makePort({ nodePort: 30080 })] },
    want: [{ nodePort: 30080, externallyAccessible: true, externalPolicyLocal: false, healthCheckNodePort: 0 }],
  },
  {
    name: 'a node port counts whatever the type',
    service: { ports: [makePort({ nodePort: 30080 })] },
    want: [{ nodePort: 30080, externallyAccessible: true }],
  },
  {
    name: 'load balancer',
    service: { type: 'LoadBalancer', ingress: [{ ip: '10.1.2.4', ipMode: undefined }] },
    want: [{ loadBalancerVIPs: ['10.1.2.4'], externallyAccessible: true }],
  },
  {
    name: 'load balancer, ipMode VIP',
    service: { type: 'LoadBalancer', ingress: [{ ip: '10.1.2.04', ipMode: 'VIP' }] },
    want: [{ loadBalancerVIPs: ['10.1.2.4'] }],
  },
  {
    name: 'load balancer, ipMode Proxy, with a node port',
    service: {
      type: 'LoadBalancer',
      ingress: [{ ip: '10.1.2.4', ipMode: 'Proxy' }],
      ports: [makePort({ nodePort: 7 })],
    },
    want: [{ loadBalancerVIPs: [], nodePort: 7, externallyAccessible: true }],
  },
  {
    name: 'load balancer, an ipMode nobody knows',
    service: { type: 'LoadBalancer', ingress: [{ ip: '10.1.2.4', ipMode: 'vip' }] },
    want: [{ loadBalancerVIPs: [], externallyAccessible: false }],
  },
  {
    name: 'an ingress counts whatever the type',
    service: { ingress: [{ ip: '10.1.2.4', ipMode: undefined }] },
    want: [{ loadBalancerVIPs: ['10.1.2.4'], externallyAccessible: true }],
  },
  {
    name: 'load balancer, policy Local',
    service: { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 345 },
    want: [{ externalPolicyLocal: true, healthCheckNodePort: 345, externallyAccessible: false }],
  },
  {
    name: 'load balancer, policy Cluster: no health check',
    service: { type: 'LoadBalancer', externalTrafficPolicy: 'Cluster', healthCheckNodePort: 345 },
    want: [{ externalPolicyLocal: false, healthCheckNodePort: 0 }],
  },
  {
    name: 'NodePort, policy Local: no health check',
    service: { type: 'NodePort', externalTrafficPolicy: 'Local', healthCheckNodePort: 345 },
    want: [{ externalPolicyLocal: true, healthCheckNodePort: 0 }],
  },
  {
    name: 'ClusterIP ignores policy Local',
    service: { externalTrafficPolicy: 'Local' },
    want: [{ externalPolicyLocal: false }],
  },
  {
    name: 'ClusterIP with an external IP of the other family does not',
    service: { externalTrafficPolicy: 'Local', externalIPs: ['fd00::9'] },
    want: [{ externalPolicyLocal: true, externalIPs: [], externallyAccessible: false }],
  },
  { name: 'internal policy Local', service: { internalTrafficPolicy: 'Local' }, want: [{ internalPolicyLocal: true }] },
  { name: 'internal policy absent', service: { internalTrafficPolicy: '' }, want: [{ internalPolicyLocal: false }] },
  {
    name: 'affinity',
    service: { sessionAffinity: 'ClientIP', sessionAffinitySeconds: 100 },
    want: [{ affinitySeconds: 100 }],
  },
  { name: 'no affinity', service: { sessionAffinitySeconds: 100 }, want: [{ affinitySeconds: undefined }] },
  { name: 'IPv6 only, under IPv4', service: { clusterIP: 'fd00::1' }, want: undefined },
  { name: 'IPv4 only, under IPv6', service: {}, family: 'IPv6', want: undefined },
  {
    name: 'mixed fields under IPv4',
    service: { ...DUAL, ...MIXED },
    want: [
      {
        clusterIP: '172.30.1.1',
        externalIPs: ['50.60.70.81', '50.60.70.80'],
        sourceRanges: ['203.0.113.0/25', '10.0.0.0/8'],
        loadBalancerVIPs: ['10.1.2.4'],
      },
    ],
  },
  {
    name: 'mixed fields under IPv6',
    service: { ...DUAL, ...MIXED },
    family: 'IPv6',
    want: [
      {
        clusterIP: 'fd00::1',
        externalIPs: ['2001:db8::1', 'fd00::2'],
        sourceRanges: ['2001:db8::/32'],
        loadBalancerVIPs: ['2001:db8::4'],
      },
    ],
  },
  {
    name: 'ranges of the other family only: no ranges',
    service: { ...DUAL, loadBalancerSourceRanges: ['2001:db8::/32'] },
    want: [{ sourceRanges: [] }],
  },
  {
    name: 'a range that holds everyone: no ranges',
    service: { loadBalancerSourceRanges: ['10.0.0.0/8', '1.2.3.4/0'] },
    want: [{ sourceRanges: [] }],
  },
  {
    name: 'a range that holds everyone of the other family: ranges',
    service: { loadBalancerSourceRanges: ['10.0.0.0/8', '::/0'] },
    want: [{ sourceRanges: ['10.0.0.0/8'] }],
  },
  {
    name: 'texts that are no address',
    service: {
      externalIPs: ['bogus', ' ', '1.1.1.1'],
      loadBalancerSourceRanges: ['1.1.1.1', ''],
      ingress: [
        { ip: '1.1.1.1"; -j ACCEPT', ipMode: undefined },
        { ip: '', ipMode: undefined },
      ],
    },
    want: [{ externalIPs: ['1.1.1.1'], sourceRanges: [], loadBalancerVIPs: [] }],
    unparsable: [
      'spec.externalIPs bogus',
      'status.loadBalancer.ingress[].ip 1.1.1.1"; -j ACCEPT',
      'spec.loadBalancerSourceRanges 1.1.1.1',
    ],
  },
  {
    name: 'cluster IP with leading zeros',
    service: { clusterIP: '172.30.0.041' },
    want: [{ clusterIP: '172.30.0.41' }],
  },
  {
    name: 'cluster IP that is no address',
    service: { clusterIP: 'bogus', ipFamilies: ['IPv4'], clusterIPs: ['bogus'] },
    want: undefined,
    unparsable: ['spec.clusterIPs[0] bogus'],
  },
];

t.test('servicePorts()', async (t) => {
  for (const { name, service, family = 'IPv4', want, unparsable = [] } of rows) {
    t.test(name, async (t) => {
      const said: string[] = [];
      const got = servicePorts(makeService(service), {
        family,
        externalIPsAllowed: true,
        onUnparsable: (field, text) => said.push(`${field} ${text}`),
      });
      t.equal(got?.length, want?.length, 'number of records');
      for (const [i, fields] of (want ?? []).entries()) {
        t.strictSame({ ...got?.[i], ...fields }, { ...got?.[i] }, `record ${i}: the row over what came out`);
      }
      t.strictSame(said, unparsable, 'reports');
    });
  }
});

t.test('servicePorts() makes whole records', async (t) => {
  const [got] =
    servicePorts(makeService({ type: 'LoadBalancer', ports: [makePort({ name: 'http', nodePort: 3001 })] }), {
      family: 'IPv4',
      externalIPsAllowed: true,
    }) ?? [];
  t.strictSame({ ...got }, makeServicePort({ portName: 'http', nodePort: 3001 }));
});

t.test('gate AllowServiceExternalIPs off: no frontends, but the service stays externally accessible', async (t) => {
  const service = makeService({ externalIPs: ['1.1.1.1'], externalTrafficPolicy: 'Local' });
  const [got] = servicePorts(service, { family: 'IPv4', externalIPsAllowed: false }) ?? [];
  t.match(got, { externalIPs: [], externallyAccessible: true, externalPolicyLocal: true });
  t.equal(got?.externalIPs.length, 0);
});

/** What spec.ipFamilies and spec.clusterIPs say, against old objects that have neither. */
const families: readonly {
  name: string;
  clusterIP: string;
  clusterIPs: string[];
  ipFamilies: string[];
  want: Record<Family, string | undefined>;
}[] = [
  {
    name: 'old IPv4',
    clusterIP: '10.0.0.1',
    clusterIPs: [],
    ipFamilies: [],
    want: { IPv4: '10.0.0.1', IPv6: undefined },
  },
  {
    name: 'old IPv6',
    clusterIP: 'fd00::1',
    clusterIPs: [],
    ipFamilies: [],
    want: { IPv4: undefined, IPv6: 'fd00::1' },
  },
  {
    name: 'old headless',
    clusterIP: 'None',
    clusterIPs: [],
    ipFamilies: [],
    want: { IPv4: undefined, IPv6: undefined },
  },
  {
    name: 'single IPv4',
    clusterIP: '10.0.0.1',
    clusterIPs: ['10.0.0.1'],
    ipFamilies: ['IPv4'],
    want: { IPv4: '10.0.0.1', IPv6: undefined },
  },
  {
    name: 'single IPv6',
    clusterIP: 'fd00::1',
    clusterIPs: ['fd00::1'],
    ipFamilies: ['IPv6'],
    want: { IPv4: undefined, IPv6: 'fd00::1' },
  },
  {
    name: 'dual, IPv4 first',
    clusterIP: '10.0.0.1',
    clusterIPs: ['10.0.0.1', 'fd00::1'],
    ipFamilies: ['IPv4', 'IPv6'],
    want: { IPv4: '10.0.0.1', IPv6: 'fd00::1' },
  },
  {
    name: 'dual, IPv6 first',
    clusterIP: 'fd00::1',
    clusterIPs: ['fd00::1', '10.0.0.1'],
    ipFamilies: ['IPv6', 'IPv4'],
    want: { IPv4: '10.0.0.1', IPv6: 'fd00::1' },
  },
  {
    name: 'dual by name, one address yet',
    clusterIP: '10.0.0.1',
    clusterIPs: ['10.0.0.1'],
    ipFamilies: ['IPv4', 'IPv6'],
    want: { IPv4: '10.0.0.1', IPv6: undefined },
  },
  {
    name: 'families without addresses',
    clusterIP: '10.0.0.1',
    clusterIPs: [],
    ipFamilies: ['IPv4'],
    want: { IPv4: undefined, IPv6: undefined },
  },
  {
    name: 'an address of the other family',
    clusterIP: 'fd00::1',
    clusterIPs: ['fd00::1'],
    ipFamilies: ['IPv4'],
    want: { IPv4: undefined, IPv6: undefined },
  },
  {
    name: 'a family nobody knows',
    clusterIP: '10.0.0.1',
    clusterIPs: ['10.0.0.1'],
    ipFamilies: ['IPv5'],
    want: { IPv4: undefined, IPv6: undefined },
  },
];

t.test('cluster IP by family', async (t) => {
  for (const { name, want, ...spec } of families) {
    for (const family of ['IPv4', 'IPv6'] as const) {
      const got = servicePorts(makeService(spec), { family, externalIPsAllowed: true });
      t.equal(got?.[0]?.clusterIP, want[family], `${name}, ${family}`);
    }
  }
});

t.test('policies: every combination', async (t) => {
  const said: string[] = [];
  for (const internalPolicyLocal of [false, true]) {
    for (const externalPolicyLocal of [false, true]) {
      for (const nodePort of [0, 30080]) {
        const port = makeServicePort({ internalPolicyLocal, externalPolicyLocal, nodePort });
        const flags = [internalPolicyLocal && 'iTP', externalPolicyLocal && 'eTP', nodePort && 'ext'].filter(Boolean);
        said.push(`${flags.join('+') || '-'}: ${usesClusterEndpoints(port)} ${usesLocalEndpoints(port)}`);
      }
    }
  }
  t.strictSame(said, [
    '-: true false',
    'ext: true false',
    'eTP: true false',
    'eTP+ext: true true',
    'iTP: false true',
    'iTP+ext: true true',
    'iTP+eTP: false true',
    'iTP+eTP+ext: true true',
  ]);
});

t.test('servicePortName()', async (t) => {
  t.equal(servicePortName('ns', 'svc', ''), 'ns/svc');
  t.equal(servicePortName('ns', 'svc', 'http'), 'ns/svc:http');
});
