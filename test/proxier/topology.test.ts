import fc from 'fast-check';
import t from 'tap';
import { categorise } from '../../src/proxier/topology.ts';
import type { Endpoint, ServicePort } from '../../src/proxier/types.ts';
import { arbEndpoints } from '../lib/arb.ts';
import { makeEndpoint, makePortPlan, makeServicePort, NODE_NAME } from '../lib/make.ts';

type Flags = Parameters<typeof makeEndpoint>[1];

/** Endpoint 10.0.0.n:80 (n below 10, so that the order of n is that of text). */
const e = (n: number, ...flags: Flags[]): Endpoint => makeEndpoint(`10.0.0.${n}`, Object.assign({}, ...flags));
/** Hints for zones (in our zone: `zone-a`), hints for nodes. */
const z = (...zoneHints: string[]): Flags => ({ zoneHints });
const n = (...nodeHints: string[]): Flags => ({ nodeHints });
const LOCAL: Flags = { isLocal: true };
const UNREADY: Flags = { ready: false, serving: false };
const TERMINATING: Flags = { ready: false, terminating: true };
const GONE: Flags = { ready: false, serving: false, terminating: true };

const CLUSTER = makeServicePort();
const ETP = makeServicePort({ externalPolicyLocal: true, nodePort: 30080 });
const ITP = makeServicePort({ internalPolicyLocal: true });
const ITP_OPEN = makeServicePort({ internalPolicyLocal: true, nodePort: 30080 });
const BOTH = makeServicePort({ internalPolicyLocal: true, externalPolicyLocal: true, nodePort: 30080 });
const ETP_UNUSED = makeServicePort({ externalPolicyLocal: true });

interface Row {
  readonly name: string;
  readonly port?: ServicePort;
  /** Default `zone-a`. */
  readonly zone?: string;
  readonly endpoints: readonly Endpoint[];
  /** Last octets. */
  readonly cluster: readonly number[];
  readonly local?: readonly number[];
  /** Default: as `cluster`. */
  readonly reachable?: readonly number[];
  /** Default true. */
  readonly any?: boolean;
}

const hinted = [e(1, z('zone-a')), e(2, z('zone-b')), e(3, z('zone-c')), e(4, z('zone-a'))];
const halfLocal = [e(1, z('zone-a'), LOCAL), e(2, z('zone-b'), LOCAL), e(3, z('zone-c'), LOCAL), e(4, z('zone-a'))];

const rows: readonly Row[] = [
  { name: 'hints on all, one for our zone', endpoints: hinted, cluster: [1, 4] },
  {
    name: 'hints do not restrict the local list, external policy',
    port: ETP,
    endpoints: halfLocal,
    cluster: [1, 4],
    local: [1, 2, 3],
    reachable: [1, 2, 3, 4],
  },
  {
    name: 'hints do not restrict the local list, internal policy',
    port: ITP,
    endpoints: halfLocal,
    cluster: [],
    local: [1, 2, 3],
    reachable: [1, 2, 3],
  },
  { name: 'a node without a zone', zone: '', endpoints: hinted, cluster: [1, 2, 3, 4] },
  { name: 'a zone without endpoints', zone: 'zone-d', endpoints: hinted, cluster: [1, 2, 3, 4] },
  {
    name: 'an unready endpoint without a hint does not matter',
    endpoints: [e(1, z('zone-a')), e(2, z('zone-b')), e(3, UNREADY)],
    cluster: [1],
  },
  {
    name: 'only unready endpoints in our zone',
    endpoints: [e(1, z('zone-a'), UNREADY), e(2, z('zone-b')), e(3, z('zone-c'))],
    cluster: [2, 3],
  },
  {
    name: 'one ready endpoint without a hint',
    endpoints: [e(1, z('zone-a')), e(2, z('zone-b')), e(3)],
    cluster: [1, 2, 3],
  },
  {
    name: 'several zones in a hint',
    endpoints: [e(1, z('zone-a')), e(2, z('zone-b', 'zone-a')), e(3, z('zone-c'))],
    cluster: [1, 2],
  },
  {
    name: 'hints for our node go before hints for our zone',
    endpoints: [e(1, n(NODE_NAME), z('zone-a')), e(2, n('other'), z('zone-a'))],
    cluster: [1],
  },
  {
    name: 'one ready endpoint without hint for a node: by zone',
    endpoints: [e(1, n(NODE_NAME), z('zone-a')), e(2, z('zone-a')), e(3, n('other'), z('zone-b'))],
    cluster: [1, 2],
  },
  {
    name: 'no endpoint for our node: by zone',
    endpoints: [e(1, n('other'), z('zone-a')), e(2, n('another'), z('zone-b'))],
    cluster: [1],
  },
  { name: 'no endpoint for our node, no zones', endpoints: [e(1, n('other')), e(2, n('another'))], cluster: [1, 2] },
  {
    name: 'a hint for our node on an unready endpoint',
    endpoints: [e(1, n(NODE_NAME), UNREADY), e(2, n('other'))],
    cluster: [2],
  },
  {
    name: 'all terminating: hints do not matter',
    endpoints: [e(1, z('zone-a'), TERMINATING), e(2, z('zone-b'), TERMINATING)],
    cluster: [1, 2],
  },
  {
    name: 'topology and locality disagree: both are reachable',
    port: ETP,
    endpoints: [e(1, z('zone-b'), LOCAL), e(2, z('zone-a'))],
    cluster: [2],
    local: [1],
    reachable: [1, 2],
  },
  { name: 'internal policy Local: no endpoints', port: ITP, endpoints: [], cluster: [], any: false },
  { name: 'internal policy Local: all elsewhere', port: ITP, endpoints: [e(1), e(2)], cluster: [], reachable: [] },
  {
    name: 'internal policy Local: all here',
    port: ITP,
    endpoints: [e(1, LOCAL), e(2, LOCAL)],
    cluster: [],
    local: [1, 2],
    reachable: [1, 2],
  },
  {
    name: 'internal policy Local: some here',
    port: ITP,
    endpoints: [e(1, LOCAL), e(2)],
    cluster: [],
    local: [1],
    reachable: [1],
  },
  {
    name: 'internal policy Local: none usable anywhere',
    port: ITP,
    endpoints: [e(1, LOCAL, UNREADY), e(2, GONE)],
    cluster: [],
    reachable: [],
    any: false,
  },
  { name: 'Cluster: none ready', endpoints: [e(1, UNREADY), e(2, GONE)], cluster: [], any: false },
  { name: 'Cluster: some ready', endpoints: [e(1), e(2, UNREADY), e(3, TERMINATING)], cluster: [1] },
  { name: 'Cluster: all terminating, the serving ones', endpoints: [e(1, TERMINATING), e(2, GONE)], cluster: [1] },
  { name: 'Cluster: unready and serving is not enough', endpoints: [e(1, { ready: false })], cluster: [], any: false },
  {
    name: 'internal Local, external Cluster',
    port: ITP_OPEN,
    endpoints: [e(1, LOCAL), e(2)],
    cluster: [1, 2],
    local: [1],
  },
  { name: 'internal Cluster, external Local', port: ETP, endpoints: [e(1, LOCAL), e(2)], cluster: [1, 2], local: [1] },
  { name: 'both Local, some here', port: BOTH, endpoints: [e(1, LOCAL), e(2)], cluster: [1, 2], local: [1] },
  { name: 'both Local, all elsewhere', port: BOTH, endpoints: [e(1), e(2)], cluster: [1, 2] },
  {
    name: 'both Local, all elsewhere and terminating',
    port: BOTH,
    endpoints: [e(1, TERMINATING), e(2, TERMINATING)],
    cluster: [1, 2],
  },
  {
    name: 'external Local: the local one terminates',
    port: ETP,
    endpoints: [e(1, LOCAL, TERMINATING), e(2)],
    cluster: [2],
    local: [1],
    reachable: [1, 2],
  },
  {
    name: 'external Local: a ready local one before a terminating one',
    port: ETP,
    endpoints: [e(1, LOCAL, TERMINATING), e(2, LOCAL), e(3)],
    cluster: [2, 3],
    local: [2],
  },
  {
    name: 'external Local of a Service nobody can reach from outside',
    port: ETP_UNUSED,
    endpoints: [e(1, LOCAL), e(2)],
    cluster: [1, 2],
  },
  {
    name: 'internal policy Local: all elsewhere and terminating',
    port: ITP,
    endpoints: [e(1, TERMINATING)],
    cluster: [],
    any: true,
  },
  { name: 'no endpoints', endpoints: [], cluster: [], any: false },
  { name: 'ready and terminating is ready', endpoints: [e(1, { terminating: true }), e(2, TERMINATING)], cluster: [1] },
];

const octets = (endpoints: readonly Endpoint[]) => endpoints.map((x) => Number(x.ip.split('.')[3]));

t.test('categorise()', async (t) => {
  for (const { name, port = CLUSTER, zone = 'zone-a', endpoints, cluster, local = [], ...rest } of rows) {
    const { reachable = cluster, any = true } = rest;
    const got = categorise(endpoints, port, { nodeName: NODE_NAME, zone });
    t.strictSame(
      { cluster: octets(got.cluster), local: octets(got.local), reachable: octets(got.reachable), any: got.hasAny },
      { cluster, local, reachable, any },
      name,
    );
  }
});

t.test('categorise(): the reachable list is the union of the others, in order, for any endpoints', async () => {
  fc.assert(
    fc.property(
      arbEndpoints,
      fc.constantFrom(CLUSTER, ETP, ITP, ITP_OPEN, BOTH, ETP_UNUSED),
      fc.constantFrom('', 'zone-a', 'zone-b'),
      (endpoints, port, zone) => {
        const { cluster, local, reachable } = categorise(endpoints, port, { nodeName: NODE_NAME, zone });
        const union = new Set([...cluster, ...local]);
        return (
          reachable.length === union.size && endpoints.filter((x) => union.has(x)).every((x, i) => x === reachable[i])
        );
      },
    ),
  );
});

/** C cluster chain, L local chain, X external chain; i internal, x external traffic is answered, any: some endpoint is. */
const predicates: readonly { name: string; port: ServicePort; endpoints: readonly Endpoint[]; want: string }[] = [
  { name: 'no endpoints', port: CLUSTER, endpoints: [], want: '' },
  { name: 'plain', port: CLUSTER, endpoints: [e(1)], want: 'C any i x' },
  { name: 'node port', port: makeServicePort({ nodePort: 1 }), endpoints: [e(1)], want: 'C X any i x' },
  { name: 'internal Local, one here', port: ITP, endpoints: [e(1, LOCAL)], want: 'L any i x' },
  { name: 'internal Local, all elsewhere: dropped, not refused', port: ITP, endpoints: [e(1)], want: 'any x' },
  { name: 'internal Local, none usable', port: ITP, endpoints: [e(1, UNREADY)], want: '' },
  { name: 'external Local, one here', port: ETP, endpoints: [e(1, LOCAL)], want: 'C L X any i x' },
  { name: 'external Local, all elsewhere: the short cut stays', port: ETP, endpoints: [e(1)], want: 'C X any i' },
  { name: 'external Local, nobody outside', port: ETP_UNUSED, endpoints: [e(1)], want: 'C any i' },
  { name: 'both Local, all elsewhere', port: BOTH, endpoints: [e(1)], want: 'C X any' },
  { name: 'both Local, terminating here', port: BOTH, endpoints: [e(1, LOCAL, TERMINATING)], want: 'C L X any i x' },
];

t.test('planPort()', async (t) => {
  for (const { name, port, endpoints, want } of predicates) {
    const p = makePortPlan(port, endpoints);
    const flags = [
      p.usesClusterPolicyChain && 'C',
      p.usesLocalPolicyChain && 'L',
      p.usesExternalTrafficChain && 'X',
      p.hasAnyEndpoints && 'any',
      p.hasInternalEndpoints && 'i',
      p.hasExternalEndpoints && 'x',
    ];
    t.equal(flags.filter(Boolean).join(' '), want, name);
    t.equal(p.endpointCount, endpoints.length, `${name}: count`);
  }
});
