import { ok } from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import type { ApiObject, Kind } from '../../src/proxier/types.ts';
import { Decoder } from '../../src/watch/decode.ts';
import { DecodeError } from '../../src/watch/decode-error.ts';
import { type Fields, rawService, rawSlice } from './objects.ts';

const node: Fields = {
  metadata: { name: 'node-a.example.com', resourceVersion: '7', labels: { 'topology.kubernetes.io/zone': 'zone-a' } },
  spec: {
    podCIDR: '10.42.0.0/24',
    podCIDRs: ['10.42.0.0/24', 'fd00::/64'],
    taints: [{ key: 'gone', effect: 'NoExecute' }],
  },
  status: { addresses: [{ type: 'InternalIP', address: '192.168.1.1' }] },
};
const cidr: Fields = { metadata: { name: 'kubernetes' }, spec: { cidrs: ['10.43.0.0/16', 'fd00:10:43::/112'] } };

/** A copy with one field, named as errors name it, set to a value. Undefined removes it. */
function withField(object: Fields, path: string, value: unknown): Fields {
  const copy = structuredClone(object) as Record<string, unknown>;
  const steps = [...path.matchAll(/\["([^"]+)"\]|\[(\d+)\]|([^.[\]]+)/g)].map(([, a, b, c]) => a ?? b ?? c ?? '');
  let at: Record<string, unknown> = copy;
  for (const step of steps.slice(0, -1)) {
    at[step] ??= {};
    at = at[step] as Record<string, unknown>;
  }
  const last = steps.at(-1) ?? '';
  if (value === undefined) delete at[last];
  else at[last] = value;
  return copy;
}

const service = rawService('web', '5', {
  sessionAffinity: 'ClientIP',
  sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } },
  externalIPs: ['203.0.113.7'],
  loadBalancerSourceRanges: [' 10.0.0.0/8'],
  externalTrafficPolicy: 'Local',
  internalTrafficPolicy: 'Cluster',
  healthCheckNodePort: 30_900,
  ports: [{ name: 'dns', port: 53, protocol: 'UDP', nodePort: 30_053 }, { port: 80 }],
});
const withIngress = withField(service, 'status', {
  loadBalancer: { ingress: [{ ip: '192.0.2.1', ipMode: 'Proxy' }, { hostname: 'lb' }] },
});
const slice = rawSlice('web-abc', '6', {
  endpoints: [
    {
      addresses: ['10.42.0.5', '10.42.0.6'],
      conditions: { ready: false, serving: false, terminating: true },
      nodeName: 'node-a',
      hints: { forZones: [{ name: 'zone-a' }, { name: 'zone-b' }], forNodes: [{ name: 'node-a' }] },
    },
    { addresses: ['10.42.0.7'] },
    { addresses: [] },
  ],
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }, { name: '', port: null }, {}],
});
const trigger = 'endpoints.kubernetes.io/last-change-trigger-time';

const good: readonly { name: string; kind: Kind; in: Fields; want: Partial<ApiObject> }[] = [
  {
    name: 'every field of a Service',
    kind: 'Service',
    in: withIngress,
    want: {
      kind: 'Service',
      key: 'default/web' as ApiObject['key'],
      namespace: 'default',
      name: 'web',
      resourceVersion: '5',
      type: 'ClusterIP',
      clusterIP: '10.43.0.10',
      clusterIPs: ['10.43.0.10'],
      ipFamilies: ['IPv4'],
      ports: [
        { name: 'dns', protocol: 'UDP', port: 53, nodePort: 30_053 },
        { name: '', protocol: 'TCP', port: 80, nodePort: 0 },
      ],
      sessionAffinity: 'ClientIP',
      sessionAffinitySeconds: 600,
      externalIPs: ['203.0.113.7'],
      loadBalancerSourceRanges: [' 10.0.0.0/8'],
      ingress: [{ ip: '192.0.2.1', ipMode: 'Proxy' }],
      externalTrafficPolicy: 'Local',
      internalTrafficPolicy: 'Cluster',
      healthCheckNodePort: 30_900,
    },
  },
  {
    name: 'a Service of nothing but its name',
    kind: 'Service',
    in: { kind: 'Service', apiVersion: 'v1', metadata: { name: '0', namespace: 'a-1' }, spec: null },
    want: {
      kind: 'Service',
      key: 'a-1/0' as ApiObject['key'],
      namespace: 'a-1',
      name: '0',
      resourceVersion: '',
      type: 'ClusterIP',
      clusterIP: '',
      clusterIPs: [],
      ipFamilies: [],
      ports: [],
      sessionAffinity: '',
      sessionAffinitySeconds: 10_800,
      externalIPs: [],
      loadBalancerSourceRanges: [],
      ingress: [],
      externalTrafficPolicy: '',
      internalTrafficPolicy: '',
      healthCheckNodePort: 0,
    },
  },
  {
    name: 'every field of an EndpointSlice; null and absent are the same',
    kind: 'EndpointSlice',
    in: withField(slice, 'metadata.annotations', { [trigger]: '2026-01-02T03:04:05.123456789Z' }),
    want: {
      kind: 'EndpointSlice',
      key: 'default/web-abc' as ApiObject['key'],
      namespace: 'default',
      name: 'web-abc',
      resourceVersion: '6',
      addressType: 'IPv4',
      serviceName: 'web',
      ports: [
        { name: 'http', port: 8080, protocol: 'TCP' },
        { name: '', port: null, protocol: 'TCP' },
        { name: null, port: null, protocol: 'TCP' },
      ],
      endpoints: [
        {
          address: '10.42.0.5',
          nodeName: 'node-a',
          ready: false,
          serving: false,
          terminating: true,
          zoneHints: ['zone-a', 'zone-b'],
          nodeHints: ['node-a'],
        },
        {
          address: '10.42.0.7',
          nodeName: '',
          ready: true,
          serving: true,
          terminating: false,
          zoneHints: [],
          nodeHints: [],
        },
        { address: '', nodeName: '', ready: true, serving: true, terminating: false, zoneHints: [], nodeHints: [] },
      ],
      triggerTimeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 123),
    },
  },
  {
    name: 'an EndpointSlice without a Service, whose time cannot be read',
    kind: 'EndpointSlice',
    in: {
      metadata: { name: 'a.b', namespace: 'x', annotations: { [trigger]: 'soon' } },
      addressType: 'FQDN',
      endpoints: null,
    },
    want: {
      kind: 'EndpointSlice',
      key: 'x/a.b' as ApiObject['key'],
      namespace: 'x',
      name: 'a.b',
      resourceVersion: '',
      addressType: 'FQDN',
      serviceName: '',
      ports: [],
      endpoints: [],
      triggerTimeMs: undefined,
    },
  },
  {
    name: 'every field of a Node',
    kind: 'Node',
    in: withField(node, 'metadata.deletionTimestamp', '2026-01-02T03:04:05Z'),
    want: {
      kind: 'Node',
      key: 'node-a.example.com' as ApiObject['key'],
      name: 'node-a.example.com',
      resourceVersion: '7',
      zone: 'zone-a',
      podCIDRs: ['10.42.0.0/24', 'fd00::/64'],
      addresses: [{ type: 'InternalIP', address: '192.168.1.1' }],
      deleting: true,
      taintKeys: ['gone'],
    },
  },
  {
    name: 'a Node with the one podCIDR of old',
    kind: 'Node',
    in: { metadata: { name: 'n' }, spec: { podCIDR: '10.42.0.0/24' } },
    want: {
      kind: 'Node',
      key: 'n' as ApiObject['key'],
      name: 'n',
      resourceVersion: '',
      zone: '',
      podCIDRs: ['10.42.0.0/24'],
      addresses: [],
      deleting: false,
      taintKeys: [],
    },
  },
  {
    name: 'a ServiceCIDR',
    kind: 'ServiceCIDR',
    in: cidr,
    want: {
      kind: 'ServiceCIDR',
      key: 'kubernetes' as ApiObject['key'],
      name: 'kubernetes',
      resourceVersion: '',
      cidrs: ['10.43.0.0/16', 'fd00:10:43::/112'],
    },
  },
];

t.test('Decoder reads', async (t) => {
  for (const c of good) {
    t.test(c.name, async (t) => {
      t.strictSame(new Decoder().decode(c.kind, c.in), c.want);
      const { key, resourceVersion } = new Decoder().decodeIdentity(c.kind, c.in);
      t.match(c.want, { key, resourceVersion });
    });
  }
});

const LABEL = /a DNS label/;
const SUBDOMAIN = /a DNS subdomain/;
const PORT = /an integer in 1\.\.65535/;
const NODE_PORT = /an integer in 0\.\.65535/;
const samples: Readonly<Record<Kind, Fields>> = {
  Service: withIngress,
  EndpointSlice: slice,
  Node: node,
  ServiceCIDR: cidr,
};

/** What must be refused: each value at each field, and what the error says the field must be. */
const bad: readonly { kind: Kind; fields: readonly string[]; values: readonly unknown[]; must: RegExp }[] = [
  { kind: 'Service', fields: ['kind'], values: ['EndpointSlice', 'service', 'ServiceList'], must: /"Service"/ },
  {
    kind: 'Service',
    fields: ['metadata', 'spec', 'status', 'metadata.labels', 'status.loadBalancer'],
    values: [[], 'x', 1],
    must: /an object/,
  },
  { kind: 'Service', fields: ['metadata'], values: [undefined, null], must: /is missing, must be an object/ },
  {
    kind: 'Service',
    fields: ['metadata.name', 'metadata.namespace'],
    values: [
      undefined,
      '',
      'A',
      'a b',
      'a"b',
      "a'b",
      'a\nb',
      'a/b',
      'a.b',
      'a_b',
      '-a',
      'a-',
      'é',
      'a'.repeat(64),
      'a\n',
    ],
    must: LABEL,
  },
  { kind: 'Service', fields: ['metadata.name', 'metadata.resourceVersion'], values: [1, true, {}], must: /a string/ },
  { kind: 'Service', fields: ['metadata.labels["x/y"]'], values: [1, null, {}], must: /a string/ },
  {
    kind: 'Service',
    fields: [
      'spec.type',
      'spec.clusterIP',
      'spec.sessionAffinity',
      'spec.externalTrafficPolicy',
      'spec.internalTrafficPolicy',
    ],
    values: [1, false, [], {}],
    must: /a string/,
  },
  {
    kind: 'Service',
    fields: [
      'spec.ports',
      'spec.clusterIPs',
      'spec.ipFamilies',
      'spec.externalIPs',
      'spec.loadBalancerSourceRanges',
      'status.loadBalancer.ingress',
    ],
    values: [{}, 'x', 1],
    must: /a list/,
  },
  {
    kind: 'Service',
    fields: ['spec.clusterIPs[0]', 'spec.externalIPs[0]', 'spec.loadBalancerSourceRanges[0]'],
    values: [1, null, {}],
    must: /a string/,
  },
  {
    kind: 'Service',
    fields: ['spec.ports[1]', 'status.loadBalancer.ingress[0]'],
    values: [1, null, 'x', []],
    must: /an object/,
  },
  {
    kind: 'Service',
    fields: ['spec.ports[1].port'],
    values: [undefined, null, 0, -1, 65_536, 80.5, '80', 1e300],
    must: PORT,
  },
  {
    kind: 'Service',
    fields: ['spec.ports[0].nodePort', 'spec.healthCheckNodePort'],
    values: [-1, 65_536, 1.5, '1'],
    must: NODE_PORT,
  },
  { kind: 'Service', fields: ['spec.ports[0].name'], values: ['A', 'a"', 'a b', 'a\n', 'x'.repeat(64)], must: LABEL },
  {
    kind: 'Service',
    fields: ['spec.ports[0].protocol'],
    values: ['tcp', 'ICMP', ' TCP'],
    must: /"TCP", "UDP" or "SCTP"/,
  },
  {
    kind: 'Service',
    fields: ['status.loadBalancer.ingress[0].ip', 'status.loadBalancer.ingress[0].ipMode'],
    values: [1, {}],
    must: /a string/,
  },
  {
    kind: 'Service',
    fields: ['spec.sessionAffinityConfig', 'spec.sessionAffinityConfig.clientIP'],
    values: [1, []],
    must: /an object/,
  },
  {
    kind: 'Service',
    fields: ['spec.sessionAffinityConfig.clientIP.timeoutSeconds'],
    values: [0, -1, 1.5, '1', 2 ** 31],
    must: /an integer in 1\.\./,
  },
  {
    kind: 'EndpointSlice',
    fields: ['metadata.name'],
    values: [undefined, 'A', 'a..b', '.a', 'a"', 'a'.repeat(254)],
    must: SUBDOMAIN,
  },
  { kind: 'EndpointSlice', fields: ['metadata.namespace'], values: [undefined, 'a.b'], must: LABEL },
  {
    kind: 'EndpointSlice',
    fields: ['metadata.labels["kubernetes.io/service-name"]'],
    values: ['a b', 'a"', '-', 'x'.repeat(64)],
    must: /a label value/,
  },
  {
    kind: 'EndpointSlice',
    fields: ['metadata.annotations["a"]', 'addressType', 'endpoints[0].nodeName'],
    values: [1, {}],
    must: /a string/,
  },
  {
    kind: 'EndpointSlice',
    fields: ['ports', 'endpoints', 'endpoints[0].addresses', 'endpoints[0].hints.forZones'],
    values: [{}, 'x'],
    must: /a list/,
  },
  {
    kind: 'EndpointSlice',
    fields: ['ports[0].port'],
    values: [-1, 65_536, '80', 1.5],
    must: /an integer in 0\.\.65535/,
  },
  { kind: 'EndpointSlice', fields: ['ports[0].name'], values: ['A', 'a;b', 'a\n'], must: LABEL },
  { kind: 'EndpointSlice', fields: ['ports[1].protocol'], values: ['udp'], must: /"TCP"/ },
  {
    kind: 'EndpointSlice',
    fields: ['endpoints[1]', 'endpoints[0].conditions', 'endpoints[0].hints', 'endpoints[0].hints.forNodes[0]'],
    values: [1, 'x', []],
    must: /an object/,
  },
  {
    kind: 'EndpointSlice',
    fields: ['endpoints[0].addresses[1]', 'endpoints[0].hints.forZones[0].name'],
    values: [1, {}],
    must: /a string/,
  },
  {
    kind: 'EndpointSlice',
    fields: ['endpoints[0].conditions.ready', 'endpoints[0].conditions.serving', 'endpoints[0].conditions.terminating'],
    values: ['true', 1, {}],
    must: /true or false/,
  },
  { kind: 'Node', fields: ['metadata.name'], values: [undefined, 'a b', 'a/b'], must: SUBDOMAIN },
  { kind: 'Node', fields: ['spec.podCIDRs', 'spec.taints', 'status.addresses'], values: [{}, 1], must: /a list/ },
  {
    kind: 'Node',
    fields: [
      'spec.podCIDR',
      'spec.podCIDRs[1]',
      'spec.taints[0].key',
      'status.addresses[0].type',
      'status.addresses[0].address',
      'metadata.deletionTimestamp',
    ],
    values: [1, {}],
    must: /a string/,
  },
  { kind: 'ServiceCIDR', fields: ['spec.cidrs'], values: [1, 'x'], must: /a list/ },
  { kind: 'ServiceCIDR', fields: ['spec.cidrs[0]'], values: [1, null], must: /a string/ },
];

t.test('Decoder refuses, and names the field and what it must be', async (t) => {
  for (const { kind, fields, values, must } of bad) {
    for (const field of fields) {
      t.test(`${kind} ${field}`, async (t) => {
        for (const value of values) {
          const decode = () => new Decoder().decode(kind, withField(samples[kind], field, value));
          t.throws(decode, { name: 'DecodeError', field, message: must }, JSON.stringify(value));
        }
      });
    }
  }
  for (const value of [undefined, null, 1, 'x', []]) {
    t.throws(() => new Decoder().decode('Service', value), { name: 'DecodeError', field: '' });
  }
  t.throws(() => new Decoder().decode('Service', withField(service, 'spec.type', ['x'.repeat(1000)])), {
    message: 'Cannot decode spec.type: is a list, must be a string',
  });
  t.throws(() => new Decoder().decode('Service', withField(service, 'metadata.name', `"\n${'x'.repeat(1000)}`)), {
    message: /: is "\\"\\nx{58}…", must be a DNS label/,
  });
});

/** Every place in a sample, as a path. */
function places(value: unknown, at = ''): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => {
    const path = Array.isArray(value)
      ? `${at}[${name}]`
      : name.includes('/')
        ? `${at}["${name}"]`
        : at
          ? `${at}.${name}`
          : name;
    return [path, ...places(inner, path)];
  });
}

const STRANGE: readonly unknown[] = [
  ...[
    null,
    true,
    false,
    0,
    1,
    -1,
    80.5,
    65_536,
    1e300,
    '',
    ' ',
    'a',
    'A b',
    '"',
    '\n',
    '\u0000',
    '𝄞',
    'None',
    'TCP',
    '10.0.0.1',
  ],
  ...[
    [],
    [null],
    [[]],
    [{}],
    ['a'],
    [1, 'a', {}],
    {},
    { a: 1 },
    { name: 'x' },
    { ip: 1 },
    { kind: 'Service' },
    { length: 1 },
  ],
  ...[JSON.parse('{"__proto__":{"name":1}}'), JSON.parse('{"constructor":1,"toString":"x"}'), 'x'.repeat(10_000)],
];

t.test('Decoder throws nothing but DecodeError, and what it takes is as types.ts says', async () => {
  const decoder = new Decoder();
  const arbCase = fc.constantFrom<Kind>('Service', 'EndpointSlice', 'Node', 'ServiceCIDR').chain((kind) =>
    fc.tuple(
      fc.constant(kind),
      fc.array(fc.tuple(fc.constantFrom(...places(samples[kind])), fc.constantFrom(...STRANGE)), {
        minLength: 1,
        maxLength: 3,
      }),
    ),
  );
  let refused = 0;
  fc.assert(
    fc.property(arbCase, ([kind, changes]) => {
      let object = samples[kind];
      for (const [path, value] of changes) {
        try {
          object = withField(object, path, value);
        } catch {
          // A change before this one took the place away.
        }
      }
      try {
        checkShape(decoder.decode(kind, object), good.find((g) => g.kind === kind)?.want);
      } catch (error) {
        ok(error instanceof DecodeError, `${String(error)} of ${JSON.stringify(object)}`);
        refused++;
      }
    }),
    { numRuns: 10_000 },
  );
  t.ok(refused > 3000 && refused < 9999, `${refused} of 10000 are refused`);
});

/** The same fields of the same types, all the way down. */
function checkShape(got: unknown, like: unknown): void {
  if (like === undefined || like === null || got === undefined || got === null) return;
  ok(
    typeof got === typeof like && Array.isArray(got) === Array.isArray(like),
    `${JSON.stringify(got)} like ${JSON.stringify(like)}`,
  );
  if (typeof got !== 'object' || typeof like !== 'object') return;
  if (Array.isArray(got) && Array.isArray(like)) {
    if (like.length > 0) for (const entry of got) checkShape(entry, like[0]);
    return;
  }
  for (const [name, value] of Object.entries(like)) checkShape((got as Fields)[name], value);
}
