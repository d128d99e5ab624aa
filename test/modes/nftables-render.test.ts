/** Layout `chains`: names, whole goldens, and what each case is worth. What was recorded is in `nftables-reference.test.ts`. */

import fc from 'fast-check';
import t from 'tap';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { CHAINS_LAYOUT } from '../../src/modes/nftables/chains-layout.ts';
import { createAll, nftFamily } from '../../src/modes/nftables/create.ts';
import type { Layout, Objects } from '../../src/modes/nftables/layout.ts';
import { anonymousName, endpointNames, servicePortNames } from '../../src/modes/nftables/names.ts';
import type { NftablesFacts, NftablesOptions } from '../../src/modes/nftables/options.ts';
import { formatTransaction } from '../../src/netlink/nftables/text.ts';
import type { Command, SetObject, Statement } from '../../src/netlink/nftables/transaction.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import type { IPAddress, ServicePlan } from '../../src/proxier/types.ts';
import { golden, noOrphans } from '../lib/golden.ts';
import { arbPlans } from '../lib/iptables-plans.ts';
import { IPV6_SERVICES, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makePortPlan, makeServicePort } from '../lib/make.ts';
import { makeNftFacts, makeNftOptions } from '../lib/nftables-world.ts';

interface World {
  readonly services: readonly ServicePlan[];
  readonly options?: Partial<NftablesOptions>;
  readonly facts?: Partial<NftablesFacts>;
}

function commandsOf({ services, options, facts }: World): readonly Command[] {
  const creation = createAll(CHAINS_LAYOUT, services, makeNftOptions(options), makeNftFacts(facts));
  return [...creation.statics, ...creation.services.flatMap((service) => service.commands)];
}

function textOf(world: World): string {
  const family = nftFamily(makeNftOptions(world.options).family);
  return formatTransaction({ family, table: TABLE, commands: commandsOf(world) });
}

/** Lines without what every one of them begins with: `rule services jump …`. */
function linesOf(world: World): readonly string[] {
  return textOf(world)
    .split('\n')
    .map((line) => line.replace(/^add (\w+) ip6? kube-proxy/, '$1'));
}

const web = { namespace: 'testing', serviceName: 'service', portName: 'http', protocol: 'TCP' } as const;

t.test('names', async (t) => {
  // Service → the hash that its names begin with. spec: nftables.md §3.
  const vectors: readonly (readonly [number, string, string])[] = [
    [1, 'p80', 'ULMVA6XW'],
    [2, 'p80', '42NFTM6N'],
    [3, 'p80', '4AT6LBPK'],
    [4, 'p80', 'LAUZTJTB'],
    [5, 'p80', 'HVFWP5L3'],
    [2, 'p8080', 'MHHHYRWA'],
  ];
  for (const [n, portName, hash] of vectors) {
    const names = servicePortNames({ namespace: `ns${n}`, serviceName: `svc${n}`, portName, protocol: 'TCP' });
    const base = `${hash}-ns${n}/svc${n}/tcp/${portName}`;
    t.same(names, {
      clusterPolicy: `service-${base}`,
      localPolicy: `local-${base}`,
      external: `external-${base}`,
      firewall: `firewall-${base}`,
      hash,
    });
  }
  t.equal(servicePortNames({ ...web, portName: 'https' }).external, 'external-LZBRENCP-testing/service/tcp/https');
  t.same(endpointNames(web, { ip: ip('10.180.0.1'), port: 80 }), {
    chain: 'endpoint-JO2XBXZR-testing/service/tcp/http__10.180.0.1/80',
    affinitySet: 'affinity-JO2XBXZR-testing/service/tcp/http__10.180.0.1/80',
  });
  t.equal(
    // kube-proxy's own vector; such an address would be printed with a 0 in place of the gap.
    endpointNames(web, { ip: 'fd80:abcd:12::a1b2:c3d4:e5f6:9999' as IPAddress, port: 80 }).chain,
    'endpoint-U7E2ET36-testing/service/tcp/http__fd80.abcd.12..a1b2.c3d4.e5f6.9999/80',
    'an IPv6 address has dots',
  );

  const long = (n: number) => ({ ...web, namespace: 'n'.repeat(n), serviceName: 's', portName: '' });
  // The hash and its dash are 9 of the 240; `/s/tcp/` is 7.
  t.match(servicePortNames(long(224)).clusterPolicy, /^service-\w{8}-n{224}\/s\/tcp\/$/, '240 characters stay');
  t.match(servicePortNames(long(225)).clusterPolicy, /^service-\w{8}-n{225}\/s\/\.\.\.$/, '241 are cut');
  t.equal(servicePortNames(long(300)).clusterPolicy.length, 'service-'.length + 240);

  for (const bad of ['a b', 'a"', 'a;b', 'a\n', 'a{', 'ä']) {
    const message = /^Cannot name a chain after ".*": names must be letters, digits, "\.", "_" and "-"$/;
    t.throws(() => servicePortNames({ ...web, portName: bad }), { name: 'RangeError', message }, bad);
    t.throws(() => endpointNames({ ...web, namespace: bad }, { ip: ip('10.0.0.1'), port: 80 }), { message }, bad);
  }

  const name = anonymousName('ULMVA6XW', 'service-x', '10.0.0.1:80');
  t.match(name, /^ULMVA6XW-[A-Z2-7]{16}$/);
  t.not(anonymousName('ULMVA6XW', 'local-x', '10.0.0.1:80'), name, 'the same content in another chain');
  t.not(anonymousName('ULMVA6XW', 'service-x', '10.0.0.1:81'), name, 'other content in the same chain');
});

const goldens: readonly ({ readonly name: string } & World)[] = [
  { name: 'empty', services: [] },
  { name: 'six-services', services: SIX_SERVICES, facts: { serviceCIDRs: ['172.30.0.0/16'] } },
  { name: 'policies', services: POLICIES },
  {
    name: 'ipv6',
    services: IPV6_SERVICES,
    options: { family: 'IPv6' },
    facts: { nodeIPs: [ip('2001:db8::1')], serviceCIDRs: ['fd00:44::/112', 'fd00:43::/112'] },
  },
  {
    name: 'no-detector-every-address',
    services: POLICIES,
    options: {
      localTraffic: { kind: 'none' },
      nodePortAddresses: nodePortAddresses([], 'IPv4'),
      masqueradeBit: 0,
      nodeIP: ip('203.0.113.200'),
    },
    facts: { nodeIPs: [] },
  },
  { name: 'masquerade-all', services: POLICIES, options: { masqueradeAll: true } },
];

t.test('text', async (t) => {
  for (const { name, ...world } of goldens) {
    const text = textOf(world);
    golden(t, `nftables/${name}.nft`, text);
    t.equal(
      textOf({ ...world, services: world.services.toReversed() }),
      text,
      `${name}: whatever the order of services`,
    );
  }
  noOrphans(
    t,
    'nftables',
    goldens.map(({ name }) => `${name}.nft`),
  );
});

/** A Service with one port; `name` is the chains' base. */
const balanced = makeServicePort({ loadBalancerVIPs: [ip('5.6.7.8'), ip('5.6.7.9')], nodePort: 30001 });
const FIREWALL = `rule ${servicePortNames(balanced).firewall}`;
const near = makeEndpoint('10.180.0.1', { isLocal: true });
const far = makeEndpoint('10.180.0.2');

/** Rows: lines that must be there, and what must match no line. */
const rows: readonly ({
  readonly name: string;
  readonly has?: readonly string[];
  readonly hasNot?: RegExp;
} & World)[] = [
  {
    name: 'a range without the node',
    services: [makePlan({ ...balanced, sourceRanges: [cidr('203.0.113.0/25')] }, [far])],
    has: [
      `${FIREWALL} ip saddr != 203.0.113.0/25 drop`,
      `element firewall-ips { 5.6.7.8 . tcp . 80 : goto ${servicePortNames(balanced).firewall}, 5.6.7.9 . tcp . 80 : goto ${servicePortNames(balanced).firewall} }`,
    ],
  },
  {
    name: 'a range with the node: it may come from the addresses of the load balancer',
    services: [makePlan({ ...balanced, sourceRanges: [cidr('203.0.113.0/25'), cidr('192.168.0.0/24')] }, [far])],
    has: [`${FIREWALL} ip saddr != { 203.0.113.0/25 , 192.168.0.0/24 , 5.6.7.8 , 5.6.7.9 } drop`],
  },
  {
    name: 'ranges count without endpoints, too',
    services: [makePlan({ ...balanced, sourceRanges: [cidr('203.0.113.0/25')] })],
    has: [`${FIREWALL} ip saddr != 203.0.113.0/25 drop`],
    hasNot: /^chain (?:service|local|external)-[A-Z2-7]{8}-|^element service-/,
  },
  {
    name: 'ranges without an address of a load balancer',
    services: [makePlan({ ...balanced, loadBalancerVIPs: [], sourceRanges: [cidr('203.0.113.0/25')] }, [far])],
    hasNot: /firewall-[A-Z2-7]{8}-/,
  },
  {
    name: 'an external IP that is the cluster IP: what comes from outside wins',
    services: [makePlan(makeServicePort({ externalIPs: [ip('172.30.1.1')] }), [far])],
    has: [`element service-ips { 172.30.1.1 . tcp . 80 : goto ${servicePortNames(makeServicePort()).external} }`],
  },
  {
    name: 'two services with one address: the first by name has it',
    services: ['b', 'a'].map((serviceName) =>
      makePlan(makeServicePort({ serviceName, clusterIP: ip(`172.30.1.${serviceName.length}`) })),
    ),
    has: ['element no-endpoint-services { 172.30.1.1 . tcp . 80 comment "ns1/a" : goto reject-chain }'],
    hasNot: /comment "ns1\/b"/,
  },
  {
    name: 'pods elsewhere only, both policies Local: silence, but pods of the cluster get through from outside',
    services: [
      makePlan(makeServicePort({ nodePort: 30001, internalPolicyLocal: true, externalPolicyLocal: true }), [far]),
    ],
    has: [
      'element no-endpoint-services { 172.30.1.1 . tcp . 80 comment "ns1/svc1" : drop }',
      'element no-endpoint-nodeports { tcp . 30001 comment "ns1/svc1" : drop }',
      `element service-nodeports { tcp . 30001 : goto ${servicePortNames(makeServicePort()).external} }`,
    ],
    hasNot: /^chain local-|goto local-|^element (?:service-ips|hairpin)/,
  },
  {
    name: 'a pod of this node that several services send itself to',
    services: [1, 2].map((n) =>
      makePlan(makeServicePort({ serviceName: `svc${n}`, clusterIP: ip(`172.30.1.${n}`) }), [near]),
    ),
    has: ['element hairpin-connections { 10.180.0.1 . 10.180.0.1 . tcp . 80 }'],
  },
  {
    name: 'two ports of one Service',
    services: [
      {
        service: makeServicePort().service,
        ports: ['a', 'b'].map((portName, i) => makePortPlan(makeServicePort({ portName, port: 80 + i }), [far])),
      },
    ],
    has: ['element cluster-ips { 172.30.1.1 }'],
  },
  {
    name: 'a comment that nft takes no more',
    services: [makePlan(makeServicePort({ namespace: 'n'.repeat(63), serviceName: 's'.repeat(63), portName: 'px' }))],
    has: [
      `element no-endpoint-services { 172.30.1.1 . tcp . 80 comment "${'n'.repeat(63)}/${'s'.repeat(61)}..." : goto reject-chain }`,
    ],
  },
  {
    name: 'pods behind a bridge',
    services: [],
    options: { localTraffic: { kind: 'bridge', name: 'cni0' } },
    has: [
      'rule services ip daddr @cluster-ips iifname != "cni0" mark set mark or 0x00004000 comment "masquerade clusterIP traffic from outside cluster"',
    ],
  },
  {
    name: 'pods behind interfaces of a name',
    services: [],
    options: { localTraffic: { kind: 'prefix', prefix: 'veth' } },
    has: [
      'rule services ip daddr @cluster-ips iifname != "veth*" mark set mark or 0x00004000 comment "masquerade clusterIP traffic from outside cluster"',
    ],
  },
  {
    name: 'the order of service CIDRs does not matter',
    services: [],
    facts: { serviceCIDRs: ['172.31.0.0/16', '172.30.0.0/16'] },
    has: [
      'rule cluster-ips-check ip daddr { 172.30.0.0/16 , 172.31.0.0/16 } drop comment "Drop traffic to unallocated ClusterIPs"',
    ],
  },
];

t.test('rows', async (t) => {
  for (const { name, has = [], hasNot, ...world } of rows) {
    const lines = linesOf(world);
    for (const line of has) {
      t.equal(lines.filter((l) => l === line).length, 1, `${name}: ${line}`) || t.comment(lines.join('\n'));
    }
    if (hasNot !== undefined) {
      t.same(
        lines.filter((line) => hasNot.test(line)),
        [],
        name,
      );
    }
  }
});

/** The names a statement needs: sets and maps, chains. */
function references(statement: Statement): { readonly sets: string[]; readonly chains: string[] } {
  const sets: string[] = [];
  const chains: string[] = [];
  if (statement.kind === 'inSet' || statement.kind === 'dynamic') sets.push(statement.set);
  if (statement.kind === 'verdict' && 'chain' in statement.verdict) chains.push(statement.verdict.chain);
  if (statement.kind === 'vmap' || statement.kind === 'dnatMap') {
    if (statement.map.kind === 'named') sets.push(statement.map.map);
    else for (const { data } of statement.map.elements) if (data && 'chain' in data) chains.push(data.chain);
  }
  return { sets, chains };
}

/** What is named before it is there, twice, or more than 255 bytes long. */
function problemsOf(commands: readonly Command[]): string[] {
  const sets = new Set<string>();
  const chains = new Set<string>();
  const anonymous = new Set<string>();
  const problems: string[] = [];
  const add = (names: Set<string>, name: string) => {
    if (names.has(name)) problems.push(`twice: ${name}`);
    if (Buffer.byteLength(name) > 255) problems.push(`long: ${name}`);
    names.add(name);
  };
  const need = (names: Set<string>, name: string) => {
    if (!names.has(name)) problems.push(`missing: ${name}`);
  };
  for (const command of commands) {
    if (command.verb !== 'add') problems.push(command.verb);
    else if (command.object === 'set') add(sets, command.set.name);
    else if (command.object === 'chain') add(chains, command.chain.name);
    else if (command.object === 'element') {
      need(sets, command.set.name);
      for (const { data } of command.elements) if (data && 'chain' in data) need(chains, data.chain);
    } else if (command.object === 'rule') {
      need(chains, command.rule.chain);
      for (const statement of command.rule.statements) {
        const needed = references(statement);
        for (const name of needed.sets) need(sets, name);
        for (const name of needed.chains) need(chains, name);
        if ('map' in statement && statement.map.kind === 'anonymous') add(anonymous, statement.map.name);
        if (statement.kind === 'address' && statement.name !== undefined) add(anonymous, statement.name);
      }
    }
  }
  // One name space in the kernel.
  for (const name of anonymous) if (sets.has(name)) problems.push(`both: ${name}`);
  return problems;
}

t.test('nothing is named before it is there, and no name is there twice', async (t) => {
  for (const { name, ...world } of [...goldens, ...rows]) t.same(problemsOf(commandsOf(world)), [], name);
  fc.assert(fc.property(arbPlans, (services) => problemsOf(commandsOf({ services })).length === 0));
});

t.test('the same plans in any order give the same commands', async () => {
  fc.assert(fc.property(arbPlans, (services) => textOf({ services }) === textOf({ services: services.toReversed() })));
});

t.test('elements that begin alike are of one service where the layout says so', async (t) => {
  const set: SetObject = { name: 'ranges', key: ['addr', 'addr'], flags: ['interval'] };
  const none: Objects = { chains: [], sets: [], elements: [] };
  const layout: Layout = {
    name: 'maps',
    renderStatic: () => ({ ...none, sets: [set] }),
    renderService: ({ service }) => ({
      ...none,
      elements: [
        {
          set,
          claimFields: 1,
          elements: ['10.0.0.0/8', `10.${service.length}.0.0/16`].map((range) => ({ key: ['1.2.3.4', range] })),
        },
      ],
    }),
  };
  const plans = ['svc1', 'svc22'].map((serviceName) => makePlan(makeServicePort({ serviceName })));
  const { services } = createAll(layout, plans, makeNftOptions(), makeNftFacts());
  t.same(
    services.map(({ commands }) =>
      commands.flatMap((c) => (c.object === 'element' && c.verb === 'add' ? c.elements.length : [])),
    ),
    [[2], []],
  );
});
