import fc from 'fast-check';
import t from 'tap';
import { explainPort, type PortExplanation } from '../../src/proxier/explain.ts';
import type { ServicePort } from '../../src/proxier/types.ts';
import { ip, makeEndpoint, makePortPlan, makeServicePort, NODE_NAME } from '../lib/make.ts';

type Overrides = Parameters<typeof makeEndpoint>[1];
const LEAVING: Overrides = { ready: false, terminating: true };
const GONE: Overrides = { ready: false, serving: false };

function explain(
  port: Partial<Omit<ServicePort, 'service' | 'name'>>,
  endpoints: readonly Overrides[],
  zone = '',
): PortExplanation {
  const all = endpoints.map((overrides, i) => makeEndpoint(`10.180.0.${i + 1}`, overrides));
  return explainPort(makePortPlan(makeServicePort(port), all, zone), all, { nodeName: NODE_NAME, zone });
}

const BOTH_LOCAL = { internalPolicyLocal: true, externalPolicyLocal: true, nodePort: 30001 };
const forwarded = (policy: string) => ({ policy, outcome: 'forwarded' });
const dropped = (policy: string) => ({ policy, outcome: 'dropped' });
const rejected = (policy: string) => ({ policy, outcome: 'rejected' });

const rows: readonly {
  name: string;
  port?: Parameters<typeof explain>[0];
  endpoints: readonly Overrides[];
  zone?: string;
  want: object;
}[] = [
  {
    name: 'no endpoints',
    endpoints: [],
    want: {
      endpoints: { total: 0, ready: 0, serving: 0, terminating: 0, local: 0 },
      hints: { mode: '', why: 'not looked at: no endpoint is ready' },
      cluster: { endpoints: [], why: 'there are no endpoints' },
      local: { endpoints: [], why: 'no traffic has policy Local' },
      internal: rejected('Cluster'),
      external: null,
    },
  },
  {
    name: 'plain',
    port: { nodePort: 30001 },
    endpoints: [{}, { isLocal: true }, GONE],
    want: {
      endpoints: { total: 3, ready: 2, serving: 2, terminating: 0, local: 1 },
      hints: { mode: '', why: 'no ready endpoint has hints' },
      cluster: { endpoints: ['10.180.0.1:80', '10.180.0.2:80'], why: 'all ready endpoints' },
      internal: forwarded('Cluster'),
      external: forwarded('Cluster'),
    },
  },
  {
    name: 'none ready, one serving while it terminates',
    endpoints: [LEAVING, GONE],
    want: {
      endpoints: { total: 2, ready: 0, serving: 1, terminating: 1 },
      cluster: { endpoints: ['10.180.0.1:80'], why: 'no endpoint is ready: those that serve while they terminate' },
      internal: forwarded('Cluster'),
    },
  },
  {
    name: 'none usable',
    endpoints: [GONE],
    want: {
      cluster: { endpoints: [], why: 'no endpoint is ready, and none serves while it terminates' },
      internal: rejected('Cluster'),
    },
  },
  {
    name: 'both policies Local, no endpoint here',
    port: BOTH_LOCAL,
    endpoints: [{}],
    want: {
      local: { endpoints: [], why: 'no endpoint is on this node' },
      internal: dropped('Local'),
      external: dropped('Local'),
    },
  },
  {
    name: 'internal policy Local alone: no traffic has policy Cluster',
    port: { internalPolicyLocal: true },
    endpoints: [{ isLocal: true }, {}],
    want: {
      hints: { mode: '', why: 'not looked at: all traffic has policy Local' },
      cluster: { endpoints: [], why: 'no traffic has policy Cluster' },
      local: { endpoints: ['10.180.0.1:80'], why: 'the ready endpoints on this node' },
      internal: forwarded('Local'),
      external: null,
    },
  },
  {
    name: 'policy Local, the endpoint here on its way out',
    port: { internalPolicyLocal: true },
    endpoints: [{ isLocal: true, ...LEAVING }, {}],
    want: {
      local: {
        endpoints: ['10.180.0.1:80'],
        why: 'no endpoint on this node is ready: those on it that serve while they terminate',
      },
    },
  },
  {
    name: 'policy Local, the endpoint here not usable',
    port: { internalPolicyLocal: true },
    endpoints: [{ isLocal: true, ...GONE }, {}],
    want: {
      local: { endpoints: [], why: 'no endpoint on this node is ready, and none serves while it terminates' },
      internal: dropped('Local'),
    },
  },
  {
    name: 'external policy Local of a load balancer, internal Cluster',
    port: { externalPolicyLocal: true, loadBalancerVIPs: [ip('1.2.3.4')] },
    endpoints: [{}],
    want: { internal: forwarded('Cluster'), external: dropped('Local') },
  },
  {
    name: 'zone hints used',
    endpoints: [{ zoneHints: ['east'] }, { zoneHints: ['west'] }],
    zone: 'east',
    want: {
      hints: {
        mode: 'PreferSameZone',
        why: 'used: every ready endpoint has a zone hint, and some name this zone "east"',
      },
      cluster: { endpoints: ['10.180.0.1:80'], why: 'the ready endpoints hinted for this zone' },
    },
  },
  {
    name: 'node hints used before zone hints',
    endpoints: [
      { nodeHints: [NODE_NAME], zoneHints: ['west'] },
      { nodeHints: ['other'], zoneHints: ['east'] },
    ],
    zone: 'east',
    want: {
      hints: {
        mode: 'PreferSameNode',
        why: `used: every ready endpoint has a node hint, and some name this node "${NODE_NAME}"`,
      },
      cluster: { endpoints: ['10.180.0.1:80'], why: 'the ready endpoints hinted for this node' },
    },
  },
  {
    name: 'hints of another zone',
    endpoints: [{ zoneHints: ['west'] }],
    zone: 'east',
    want: { hints: { mode: '', why: 'ignored: no zone hint names this zone "east"' } },
  },
  {
    name: 'hints on a node without a zone',
    endpoints: [{ zoneHints: ['west'] }],
    want: { hints: { mode: '', why: 'ignored: this node has no zone' } },
  },
  {
    name: 'hints on some endpoints only, those that are not ready not counted',
    endpoints: [{ zoneHints: ['east'], nodeHints: ['other'] }, { nodeHints: ['other'] }, GONE],
    zone: 'east',
    want: {
      hints: {
        mode: '',
        why: `ignored: no node hint names this node "${NODE_NAME}"; 1 of 2 ready endpoints have no zone hint, all must have one`,
      },
      cluster: { endpoints: ['10.180.0.1:80', '10.180.0.2:80'], why: 'all ready endpoints' },
    },
  },
];

t.test('explainPort()', async (t) => {
  for (const { name, port = {}, endpoints, zone, want } of rows) t.match(explain(port, endpoints, zone), want, name);
});

t.test('words and plan never disagree', async () => {
  const endpoint = fc.record({
    isLocal: fc.boolean(),
    ready: fc.boolean(),
    serving: fc.boolean(),
    terminating: fc.boolean(),
    zoneHints: fc.subarray(['east', 'west']),
    nodeHints: fc.subarray([NODE_NAME, 'other']),
  });
  const port = fc.record({
    internalPolicyLocal: fc.boolean(),
    externalPolicyLocal: fc.boolean(),
    nodePort: fc.constantFrom(0, 30001),
  });
  fc.assert(
    fc.property(port, fc.array(endpoint, { maxLength: 4 }), fc.constantFrom('', 'east'), (port, endpoints, zone) => {
      const { cluster, local, hints } = explain(port, endpoints, zone);
      for (const { endpoints, why } of [cluster, local]) {
        if (/^(no |there are no)/.test(why) !== (endpoints.length === 0 || / those /.test(why))) {
          throw new Error(`"${why}" with ${endpoints.length} endpoints`);
        }
      }
      if ((hints.mode === '') === hints.why.startsWith('used: ')) throw new Error(`"${hints.why}" in ${hints.mode}`);
    }),
    { numRuns: 500 },
  );
});
