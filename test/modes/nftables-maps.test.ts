/** Layout `maps`: it decides what layout `chains` decides, of any packet, and its chains do not grow with services. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { CHAINS_LAYOUT } from '../../src/modes/nftables/chains-layout.ts';
import { STATIC } from '../../src/modes/nftables/claims.ts';
import { createAll } from '../../src/modes/nftables/create.ts';
import { forget } from '../../src/modes/nftables/forget.ts';
import type { Layout, Objects } from '../../src/modes/nftables/layout.ts';
import { MAPS_LAYOUT } from '../../src/modes/nftables/maps-layout.ts';
import { LEARNED } from '../../src/modes/nftables/maps-layout-learned.ts';
import { withoutContained } from '../../src/modes/nftables/maps-layout-ranges.ts';
import {
  BY_ADDRESS,
  BY_NODE_PORT,
  CLIENT_ENDPOINTS,
  CLIENTS,
  type EndpointList,
  type FrontendSets,
} from '../../src/modes/nftables/maps-layout-sets.ts';
import type { Operation } from '../../src/modes/nftables/operations.ts';
import type { NftablesOptions } from '../../src/modes/nftables/options.ts';
import { FakeNftables } from '../../src/netlink/nftables/fake-nftables.ts';
import { formatTransaction } from '../../src/netlink/nftables/text.ts';
import type { Command, SetElement, SetObject } from '../../src/netlink/nftables/transaction.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import { compareText, type Family, type ServicePlan } from '../../src/proxier/types.ts';
import { golden, noOrphans } from '../lib/golden.ts';
import { arbPlans, arbPlansOf } from '../lib/iptables-plans.ts';
import { POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { type Packet, WalkedTable } from '../lib/nft-walk.ts';
import { makeNftFacts, makeNftOptions } from '../lib/nftables-world.ts';

/** Addresses packets come from and go to. */
const PLACES = {
  IPv4: {
    node: ['192.168.0.2', '192.168.7.2', '127.0.0.1'],
    pods: ['10.180.0.1', '10.180.0.2', '10.0.9.9'],
    outside: ['203.0.113.5', '203.0.113.200', '192.168.0.77', '5.6.7.8'],
    to: ['172.30.1.1', '172.30.1.2', '172.30.1.3', '172.30.9.9', '1.1.1.1', '2.2.2.2', '5.6.7.8', '9.9.9.9'],
  },
  IPv6: {
    node: ['2001:db8::1', '2001:db8:77::1', '::1'],
    pods: ['fd00:10::1', 'fd00:10::2', 'fd00:10::99'],
    outside: ['2001:db8::55', 'fd00:5::1', 'fd00:6::1', '2001:db8:7::7'],
    to: ['fd00:43::1', 'fd00:43::2', 'fd00:43::3', 'fd00:43::99', '2001:db8:99::1', '2001:db8:7::7', '2001:db8:7::8'],
  },
} as const;

function arbPacket(family: Family): fc.Arbitrary<Packet> {
  const { node, pods, outside, to } = PLACES[family];
  return fc.record({
    from: fc.constantFrom(...node, ...pods, ...outside),
    iif: fc.constantFrom('cni0', 'eth0'),
    to: fc.constantFrom(...to, ...node),
    protocol: fc.constantFrom('tcp' as const, 'udp' as const, 'sctp' as const),
    port: fc.constantFrom(80, 81, 30001, 30002, 30003),
  });
}

function arbOptions(family: Family): fc.Arbitrary<NftablesOptions> {
  const isV4 = family === 'IPv4';
  return fc
    .record({
      masqueradeAll: fc.constantFrom(false, false, true),
      localTraffic: fc.constantFrom<NftablesOptions['localTraffic']>(
        { kind: 'cidr', cidr: cidr(isV4 ? '10.0.0.0/8' : 'fd00:10::/64') },
        { kind: 'bridge', name: 'cni0' },
        { kind: 'none' },
      ),
      nodePortAddresses: fc.constantFrom(
        nodePortAddresses([isV4 ? '192.168.0.2/32' : '2001:db8::1/128'], family),
        nodePortAddresses([isV4 ? '0.0.0.0/0' : '::/0'], family),
      ),
    })
    .map((overrides) => makeNftOptions({ family, ...overrides }));
}

function tableOf(layout: Layout, plans: readonly ServicePlan[], options: NftablesOptions): WalkedTable {
  const isV4 = options.family === 'IPv4';
  const facts = makeNftFacts({
    nodeIPs: options.nodePortAddresses.matchAll ? [] : [ip(isV4 ? '192.168.0.2' : '2001:db8::1')],
    serviceCIDRs: [isV4 ? '172.30.0.0/16' : 'fd00:43::/112'],
  });
  const sorted = plans.toSorted((a, b) => compareText(a.service, b.service));
  const owners: readonly Objects[] = [
    layout.renderStatic(options, facts),
    ...sorted.map((plan) => layout.renderService(plan, options, facts)),
  ];
  const local: readonly string[] = PLACES[options.family].node;
  return new WalkedTable(owners, (address) => local.includes(address));
}

/** What chance brings seldom: services of one endpoint and of two, asked by a pod and from outside. */
function seldom(family: Family): [ServicePlan[], NftablesOptions, Packet[]] {
  const { outside, to } = PLACES[family];
  const isV4 = family === 'IPv4';
  const endpoints = (isV4 ? ['10.180.0.1', '10.180.0.2'] : ['fd00:10::1', 'fd00:10::2']).map((a) => makeEndpoint(a));
  const plans = endpoints.map((_, i) =>
    makePlan(makeServicePort({ serviceName: `seldom${i}`, clusterIP: ip(to[i] ?? '') }), endpoints.slice(i)),
  );
  const pod = { from: isV4 ? '10.0.9.9' : 'fd00:10::99', iif: 'cni0' };
  const packets = [pod, { from: outside[0], iif: 'eth0' }].flatMap((source) =>
    plans.map((_, i): Packet => ({ ...source, to: to[i] ?? '', protocol: 'tcp', port: 80 })),
  );
  const localTraffic = { kind: 'cidr', cidr: cidr(isV4 ? '10.0.0.0/8' : 'fd00:10::/64') } as const;
  return [plans, makeNftOptions({ family, localTraffic }), packets];
}

t.test('both layouts decide the same', async (t) => {
  for (const family of ['IPv4', 'IPv6'] as const) {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(
        arbPlansOf(family),
        arbOptions(family),
        fc.array(arbPacket(family), { minLength: 30, maxLength: 30 }),
        (plans, options, packets) => {
          const [chains, maps] = [CHAINS_LAYOUT, MAPS_LAYOUT].map((layout) => tableOf(layout, plans, options));
          for (const packet of packets) {
            const wanted = chains?.walk(packet) ?? [];
            assert.deepEqual(maps?.walk(packet), wanted, JSON.stringify(packet));
            for (const outcome of wanted) {
              const kind = outcome.replace(/.*:\d+/, wanted.length > 1 ? 'one of several' : 'endpoint');
              seen.set(kind, (seen.get(kind) ?? 0) + 1);
            }
          }
        },
      ),
      { numRuns: 100, examples: [seldom(family)] },
    );
    const kinds = [...seen.keys()].sort();
    const endpoint = ['endpoint', 'endpoint masqueraded', 'one of several', 'one of several masqueraded'];
    t.same(kinds, ['as it was', 'drop', ...endpoint, 'reject'], `${family}: every outcome was met`);
  }
});

t.test('chains are few', async (t) => {
  const options = makeNftOptions();
  const namesOf = (services: number, endpoints: number) => {
    const plans = Array.from({ length: services }, (_, i) =>
      makePlan(
        makeServicePort({ serviceName: `svc${i}`, clusterIP: ip(`172.30.${i >> 8}.${i & 255}`), affinitySeconds: 60 }),
        Array.from({ length: endpoints }, (_, k) => makeEndpoint(`10.180.${i % 200}.${k + 1}`)),
      ),
    );
    const { statics, services: all } = createAll(MAPS_LAYOUT, plans, options, makeNftFacts());
    const commands = [...statics, ...all.flatMap((service) => service.commands)];
    const count = (object: 'chain' | 'set') => commands.filter((c) => c.verb === 'add' && c.object === object).length;
    return { chains: count('chain'), sets: count('set') };
  };
  const [none, one] = [namesOf(0, 2), namesOf(1, 2)];
  t.same(one.chains - none.chains, 3, 'pick, stick, remember');
  t.same(namesOf(1_000, 2), one);
  t.same(namesOf(0, 2).sets, namesOf(1_000, 25).sets);
});

t.test('objects', async (t) => {
  const options = makeNftOptions();
  const statics = MAPS_LAYOUT.renderStatic(options, makeNftFacts());
  const others = CHAINS_LAYOUT.renderStatic(options, makeNftFacts());
  const known = new Set(statics.sets);

  t.test('a name means the same in both layouts', async (t) => {
    for (const set of statics.sets) {
      const other = others.sets.find(({ name }) => name === set.name);
      if (other !== undefined) t.equal(set, other);
      t.notOk(set.name.startsWith('affinity-'), 'kube-proxy would delete it');
    }
  });

  t.test('services add elements of shared sets and chains of shared names only', async () => {
    fc.assert(
      fc.property(arbPlans, (plans) => {
        for (const plan of plans) {
          const { chains, sets, elements } = MAPS_LAYOUT.renderService(plan, options, makeNftFacts());
          if (sets.length > 0) return false;
          for (const { set } of elements) if (!known.has(set)) return false;
          // kube-proxy takes chains with a slash for its own.
          const isShared = ({ chain: { name } }: (typeof chains)[number]) =>
            /^(pick|stick)-(cluster|local)-\d+$|^remember-(tcp|udp|sctp)-\d+$/.test(name);
          if (!chains.every(isShared)) return false;
        }
        return true;
      }),
    );
  });
});

t.test('what was learned about an endpoint goes with it', async (t) => {
  const timeoutMs = 60_000;
  // List, client, number, endpoint; whether it goes with 10.0.0.1 of service port 1:1 in the cluster list.
  const rows: readonly (readonly [
    list: EndpointList,
    client: string,
    number: string,
    endpoint: string,
    goes: boolean,
  ])[] = [
    ['cluster', '1.1.1.1', '1:1', '10.0.0.1', true],
    ['cluster', '1.1.1.2', '1:1', '10.0.0.2', false],
    ['cluster', '1.1.1.1', '1:2', '10.0.0.1', false],
    ['cluster', '1.1.1.3', '1:1', '10.0.0.1', true],
    ['cluster', '1.1.1.4', '1:3', '10.0.0.1', false],
    ['local', '1.1.1.5', '1:1', '10.0.0.1', false],
    ['local', '1.1.1.6', '1:3', '10.0.0.1', false],
  ];
  const of = (list: EndpointList) => rows.filter((row) => row[0] === list);
  const clients = (list: EndpointList): Command => ({
    verb: 'add',
    object: 'element',
    set: CLIENTS[list],
    elements: of(list).map(([, from, number, endpoint]) => ({
      key: [from, 'udp', number],
      data: [endpoint, 80],
      timeoutMs,
    })),
  });
  const pairs: Command = {
    verb: 'add',
    object: 'element',
    set: CLIENT_ENDPOINTS,
    elements: of('cluster').map(([, from, number, endpoint]) => ({ key: [from, number, endpoint, 80], timeoutMs })),
  };
  const fill = () => {
    const kernel = new FakeNftables();
    const statics = createAll(MAPS_LAYOUT, [], makeNftOptions(), makeNftFacts()).statics;
    const commands = [...statics, clients('cluster'), clients('local'), pairs];
    t.equal(kernel.commit([{ family: 'ip', table: TABLE, commands }]).kind, 'committed');
    const readElements = (set: SetObject) => kernel.readElements('ip', TABLE, set).elements;
    const commit = (commands: readonly Command[]) => kernel.commit([{ family: 'ip', table: TABLE, commands }]);
    return { kernel, readElements, commit };
  };
  const out = (set: SetObject, key: SetElement['key'], rest: Partial<SetElement> = {}): Operation => ({
    owner: STATIC,
    kind: 'deleteElement',
    set,
    element: { key, ...rest },
  });
  const gone = (sets: FrontendSets, key: SetElement['key'], number: string, comment?: string) =>
    out(sets.stickyEndpoints.cluster, key, { data: [number], ...(comment === undefined ? {} : { comment }) });
  const operations = [
    gone(BY_ADDRESS, ['172.30.1.1', 'udp', 80, '10.0.0.1', 80], '1:1', 'ns/svc'),
    gone(BY_NODE_PORT, ['udp', 30080, '10.0.0.1', 80], '1:1'),
    // An address of another service goes, its endpoint stays.
    gone(BY_ADDRESS, ['5.6.7.8', 'udp', 80, '10.0.0.1', 80], '1:3'),
  ];
  const left = of('cluster').flatMap(([, from, number, , goes]) => (goes ? [] : [`${from} ${number}`]));
  const told = (elements: readonly SetElement[], number: number) =>
    elements.map(({ key }) => `${key[0]} ${key[number]}`).sort();

  const table = fill();
  t.equal(forget(LEARNED, operations, table), 4);
  t.same(told(table.readElements(CLIENTS.cluster), 2), left.toSorted());
  t.same(told(table.readElements(CLIENT_ENDPOINTS), 1), left.toSorted());
  t.equal(table.readElements(CLIENTS.local).length, 2, 'the other list has it still');

  const late = fill();
  const { elements } = late.kernel.readElements('ip', TABLE, CLIENTS.cluster);
  const ended = elements.filter(({ key }) => key[0] === '1.1.1.3');
  const slow = {
    ...late,
    readElements: (set: SetObject) => (set === CLIENTS.cluster ? elements : late.readElements(set)),
  };
  late.commit([{ verb: 'delete', object: 'element', set: CLIENTS.cluster, elements: ended }]);
  t.equal(forget(LEARNED, operations, slow), 3, 'one that ended while it was looked at keeps no other');
  t.same(told(late.readElements(CLIENTS.cluster), 2), left.toSorted());

  const other = fill();
  t.equal(forget(LEARNED, [out(BY_ADDRESS.frontends, ['172.30.1.1', 'udp', 80])], other), 0);
  t.equal(other.kernel.elementReads, 0, 'nothing is read where nothing learned can be stale');
});

t.test('a client has one endpoint at all frontends of a service port, in both layouts', async (t) => {
  for (const family of ['IPv4', 'IPv6'] as const) {
    const isV4 = family === 'IPv4';
    const at = (v4: string, v6: string) => ip(isV4 ? v4 : v6);
    const [clusterIP, external, vip] = [
      at('172.30.1.1', 'fd00:43::1'),
      at('1.1.1.1', '2001:db8:99::1'),
      at('5.6.7.8', '2001:db8:7::7'),
    ];
    const [here, there, elsewhere] = [1, 2, 3].map((n) => at(`10.180.0.${n}`, `fd00:10::${n}`));
    const endpoints = [here, there, elsewhere].map((pod) => makeEndpoint(String(pod), { isLocal: pod === here }));
    const base = { clusterIP, externalIPs: [external], loadBalancerVIPs: [vip], affinitySeconds: 60 };
    const planOf = (isLocal: boolean) =>
      makePlan(makeServicePort({ ...base, nodePort: 30001, externalPolicyLocal: isLocal }), endpoints);
    const from = at('203.0.113.5', '2001:db8::55');
    const tcp = { from, iif: 'eth0', protocol: 'tcp' as const };
    const frontends: readonly Packet[] = [
      { ...tcp, to: clusterIP, port: 80 },
      { ...tcp, to: external, port: 80 },
      { ...tcp, to: vip, port: 80 },
      { ...tcp, to: at('192.168.0.2', '2001:db8::1'), port: 30001 },
    ];
    const podsOf = (outcomes: readonly string[]) => [
      ...new Set(outcomes.map((outcome) => outcome.replace(/:\d+( masqueraded)?$/, ''))),
    ];
    const options = makeNftOptions({
      family,
      nodePortAddresses: nodePortAddresses([isV4 ? '192.168.0.2/32' : '2001:db8::1/128'], family),
    });
    for (const isLocal of [false, true]) {
      for (const first of frontends) {
        const offered = tableOf(CHAINS_LAYOUT, [planOf(isLocal)], options).walk(first);
        for (const outcome of offered) {
          const pod = podsOf([outcome])[0] ?? '';
          for (const layout of [CHAINS_LAYOUT, MAPS_LAYOUT]) {
            const table = tableOf(layout, [planOf(isLocal)], options);
            table.connect(first, outcome);
            const seen = frontends.map((packet) => podsOf(table.walk(packet)).join());
            // From outside, the Local policy has no endpoint but its own.
            const wanted = frontends.map(({ to }) => (isLocal && to !== clusterIP ? String(here) : pod));
            t.same(seen, wanted, `${layout.name}, ${family}, local ${isLocal}: ${first.to}, ${pod}`);
          }
        }
      }
    }
  }
});

t.test('withoutContained()', async (t) => {
  const rows: readonly (readonly [string, readonly string[], readonly string[], readonly string[]])[] = [
    ['keeps what is apart', ['10.0.0.0/8', '192.168.0.0/16'], [], ['10.0.0.0/8', '192.168.0.0/16']],
    ['keeps one of the same', ['10.0.0.0/8', '10.0.0.0/8'], [], ['10.0.0.0/8']],
    ['drops what lies in another', ['10.1.0.0/16', '10.0.0.0/8', '10.1.2.0/24'], [], ['10.0.0.0/8']],
    ['of the same first address', ['10.0.0.0/16', '10.0.0.0/8'], [], ['10.0.0.0/8']],
    ['keeps neighbours', ['10.0.0.0/9', '10.128.0.0/9'], [], ['10.0.0.0/9', '10.128.0.0/9']],
    ['adds addresses that are in none', ['10.0.0.0/8'], ['10.9.9.9', '1.1.1.1', '1.1.1.1'], ['1.1.1.1', '10.0.0.0/8']],
    ['IPv6', ['fd00::/8', 'fd00:1::/32', '2001:db8::/64'], ['fd00::1'], ['2001:db8::/64', 'fd00::/8']],
  ];
  for (const [name, ranges, addresses, wanted] of rows) {
    t.same(withoutContained(ranges.map(cidr), addresses.map(ip)), wanted, name);
  }
});

t.test('goldens', async (t) => {
  const sticky = makePlan(
    makeServicePort({ affinitySeconds: 10800, nodePort: 30080, protocol: 'UDP', clusterIP: ip('172.30.0.50') }),
    [makeEndpoint('10.180.0.1', { isLocal: true }), makeEndpoint('10.180.0.2')],
  );
  const worlds: readonly (readonly [string, readonly ServicePlan[]])[] = [
    ['six-services', SIX_SERVICES],
    ['policies', POLICIES],
    ['affinity', [sticky]],
  ];
  for (const [name, plans] of worlds) {
    const { services } = createAll(MAPS_LAYOUT, plans, makeNftOptions(), makeNftFacts());
    const commands = services.flatMap((service) => service.commands);
    golden(t, `nftables-maps/${name}.nft`, formatTransaction({ family: 'ip', table: TABLE, commands }));
  }
  const { statics } = createAll(MAPS_LAYOUT, [], makeNftOptions(), makeNftFacts());
  golden(t, 'nftables-maps/empty.nft', formatTransaction({ family: 'ip', table: TABLE, commands: statics }));
  noOrphans(t, 'nftables-maps', ['empty.nft', ...worlds.map(([name]) => `${name}.nft`)]);
});
