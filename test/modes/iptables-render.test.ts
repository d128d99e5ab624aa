/** What a service becomes: whole goldens, the rules of each case, numbers of rules. */

import t from 'tap';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { formatRestore } from '../../src/iptables/format.ts';
import type { DynamicFacts, IptablesOptions } from '../../src/modes/iptables/options.ts';
import { countRules, renderAll, renderService } from '../../src/modes/iptables/render.ts';
import { renderStatic } from '../../src/modes/iptables/static.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import type { Endpoint, ServicePlan, ServicePort } from '../../src/proxier/types.ts';
import { golden, noOrphans } from '../lib/golden.ts';
import { IPV6_SERVICES, makeFacts, makeOptions, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makePortPlan, makeServicePort } from '../lib/make.ts';

interface Golden {
  readonly name: string;
  readonly services: readonly ServicePlan[];
  readonly options?: Partial<IptablesOptions>;
  readonly facts?: Partial<DynamicFacts>;
  readonly comments?: boolean;
}

const goldens: readonly Golden[] = [
  { name: 'empty', services: [] },
  { name: 'six-services', services: SIX_SERVICES },
  { name: 'policies', services: POLICIES },
  { name: 'ipv6', services: IPV6_SERVICES, options: { family: 'IPv6' } },
  { name: 'large-cluster', services: SIX_SERVICES, comments: false },
  {
    name: 'no-detector-some-node-ips',
    services: POLICIES,
    options: {
      localTraffic: { kind: 'none' },
      localhostNodePorts: false,
      nodePortAddresses: nodePortAddresses(['192.168.0.0/16'], 'IPv4'),
      features: { randomFully: false },
      tcpBeLiberal: true,
      masqueradeBit: 0,
    },
    facts: {
      nodeIPs: ['192.168.0.2', '192.168.1.2'].map(ip),
      counters: { ctStateInvalid: false, localhostNodePorts: false },
    },
  },
  { name: 'masquerade-all', services: POLICIES, options: { masqueradeAll: true } },
];

/** Everything a restore input refers to must be in it, and everything in it referred to. */
function dangling(text: string): { undeclared: string[]; unused: string[] } {
  const undeclared: string[] = [];
  const unused: string[] = [];
  for (const table of text.split('COMMIT\n')) {
    const declared = new Set([...table.matchAll(/^:(\S+)/gm)].map(([, name = '']) => name));
    const used = new Set([...table.matchAll(/ -j (KUBE-\S+)/g)].map(([, name = '']) => name));
    undeclared.push(...[...used].filter((name) => !declared.has(name)));
    // Without services nothing is marked.
    unused.push(...[...declared].filter((name) => !used.has(name) && name !== 'KUBE-MARK-MASQ'));
  }
  return { undeclared, unused };
}

t.test('renderAll() writes', async (t) => {
  for (const { name, services, options, facts, comments = true } of goldens) {
    t.test(name, async (t) => {
      const all = (jumps: boolean, of: Iterable<ServicePlan>) =>
        renderAll(of, makeOptions(options), makeFacts(facts), { comments, jumps });
      const text = all(true, services);
      golden(t, `iptables/${name}.rules`, text);
      t.equal(all(true, services.toReversed()), text, 'the same whatever the order of services');
      t.same(dangling(text), { undeclared: [], unused: [] }, 'every chain is declared and used');
      new FakeRuleset(options?.family ?? 'IPv4').restore(text);
      t.notMatch(
        all(false, services),
        /^-I|:KUBE-FIREWALL - \[0:0\]\n(?![\s\S]*-A KUBE-FIREWALL)/m,
        'no jumps unless asked',
      );
    });
  }
  t.test('no other golden', async (t) => {
    noOrphans(
      t,
      'iptables',
      goldens.map(({ name }) => `${name}.rules`),
    );
  });
});

/** Rules of one rendering, a line each with the chain in front, hashes cut to `H`. */
function linesOf(plan: ServicePlan, options?: Partial<IptablesOptions>, facts?: Partial<DynamicFacts>): string[] {
  const { owned, shared } = renderService(plan, makeOptions(options), makeFacts(facts), { comments: true });
  return [
    ...shared.flatMap(({ table, chain, rules }) => rules.map((r) => `${table} ${chain} ${formatRestore(r)}`)),
    ...[...owned].flatMap(([chain, rules]) => rules.map((r) => `nat ${chain} ${formatRestore(r)}`)),
  ].map((line) => line.replaceAll(/(KUBE-(?:SVC|SVL|FW|EXT|SEP))-[A-Z2-7]{16}/g, '$1'));
}

t.test('renderService()', async (t) => {
  const name = 'ns1/svc1';
  const lb = { loadBalancerVIPs: [ip('1.2.3.4')] };
  const at = (address: string) => `-m tcp -p tcp -d ${address} --dport 80`;
  const remote = makeEndpoint('10.180.0.2');
  const local = makeEndpoint('10.180.0.1', { isLocal: true });
  const ranges = [cidr('203.0.113.0/25')];

  interface Case {
    readonly name: string;
    readonly port?: Partial<Omit<ServicePort, 'service' | 'name'>>;
    readonly endpoints?: readonly Endpoint[];
    readonly options?: Partial<IptablesOptions>;
    readonly facts?: Partial<DynamicFacts>;
    /** Lines that are there. */
    readonly has?: readonly string[];
    /** What no line matches. */
    readonly not?: RegExp;
  }
  const everywhere = { ...lb, nodePort: 3001, externalIPs: [ip('9.9.9.9')] };
  const cases: readonly Case[] = [
    {
      name: 'no endpoints: REJECT at every frontend, nothing in nat',
      port: everywhere,
      has: [
        `filter KUBE-SERVICES -m comment --comment "${name} has no endpoints" ${at('172.30.1.1')} -j REJECT`,
        `filter KUBE-EXTERNAL-SERVICES -m comment --comment "${name} has no endpoints" ${at('9.9.9.9')} -j REJECT`,
        `filter KUBE-EXTERNAL-SERVICES -m comment --comment "${name} has no endpoints" ${at('1.2.3.4')} -j REJECT`,
        `filter KUBE-EXTERNAL-SERVICES -m comment --comment "${name} has no endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 3001 -j REJECT`,
      ],
      not: /^nat|DROP/,
    },
    {
      name: 'external policy Local, endpoints elsewhere: DROP from outside, pods and node get through',
      port: { ...everywhere, externalPolicyLocal: true },
      endpoints: [remote],
      has: [
        `filter KUBE-EXTERNAL-SERVICES -m comment --comment "${name} has no local endpoints" ${at('1.2.3.4')} -j DROP`,
        `nat KUBE-SERVICES -m comment --comment "${name} loadbalancer IP" ${at('1.2.3.4')} -j KUBE-EXT`,
        `nat KUBE-EXT -m comment --comment "pod traffic for ${name} external destinations" -s 10.0.0.0/8 -j KUBE-SVC`,
        `nat KUBE-EXT -m comment --comment "route LOCAL traffic for ${name} external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC`,
      ],
      not: /KUBE-SVL|REJECT/,
    },
    {
      name: 'external policy Local with a local endpoint: others go to it alone',
      port: { ...everywhere, externalPolicyLocal: true },
      endpoints: [remote, local],
      has: ['nat KUBE-EXT -j KUBE-SVL', `nat KUBE-SVL -m comment --comment "${name} -> 10.180.0.1:80" -j KUBE-SEP`],
      not: /DROP|nat KUBE-SVL.*10\.180\.0\.2/,
    },
    {
      name: 'internal policy Local, endpoints elsewhere: DROP at the cluster IP',
      port: { internalPolicyLocal: true },
      endpoints: [remote],
      has: [`filter KUBE-SERVICES -m comment --comment "${name} has no local endpoints" ${at('172.30.1.1')} -j DROP`],
      not: /^nat/,
    },
    {
      name: 'internal policy Local: the masquerade rule stands in the local chain',
      port: { internalPolicyLocal: true },
      endpoints: [remote, local],
      has: [
        `nat KUBE-SERVICES -m comment --comment "${name} cluster IP" ${at('172.30.1.1')} -j KUBE-SVL`,
        `nat KUBE-SVL -m comment --comment "${name} cluster IP" ${at('172.30.1.1')} ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ`,
      ],
      not: /KUBE-SVC|10\.180\.0\.2/,
    },
    {
      name: 'source ranges',
      port: { ...lb, sourceRanges: ranges },
      endpoints: [remote],
      has: [
        `filter KUBE-PROXY-FIREWALL -m comment --comment "${name} traffic not accepted by KUBE-FW" ${at('1.2.3.4')} -j DROP`,
        `nat KUBE-SERVICES -m comment --comment "${name} loadbalancer IP" ${at('1.2.3.4')} -j KUBE-FW`,
        `nat KUBE-FW -m comment --comment "${name} loadbalancer IP" -s 203.0.113.0/25 -j KUBE-EXT`,
        `nat KUBE-FW -m comment --comment "other traffic to ${name} will be dropped by KUBE-PROXY-FIREWALL"`,
      ],
      not: /-s 1\.2\.3\.4/,
    },
    {
      name: 'source ranges around the node: its own packets come from the VIP',
      port: { ...lb, sourceRanges: [cidr('192.168.0.0/24')] },
      endpoints: [remote],
      has: [`nat KUBE-FW -m comment --comment "${name} loadbalancer IP" -s 1.2.3.4 -j KUBE-EXT`],
    },
    {
      name: 'source ranges without endpoints or VIPs make no firewall',
      port: { ...lb, sourceRanges: ranges },
      not: /KUBE-FW|PROXY-FIREWALL/,
    },
    {
      name: 'node port, the loopback counter missing',
      port: { nodePort: 3001 },
      endpoints: [remote],
      facts: { counters: { ctStateInvalid: true, localhostNodePorts: false } },
      has: [`nat KUBE-NODEPORTS -m comment --comment ${name} -m tcp -p tcp --dport 3001 -j KUBE-EXT`],
      not: /127\.0\.0\.0/,
    },
    {
      name: 'node port not on loopback',
      port: { nodePort: 3001 },
      endpoints: [remote],
      options: { localhostNodePorts: false },
      not: /127\.0\.0\.0/,
    },
    {
      name: 'health check node port is TCP whatever the service is, and there without endpoints',
      port: { ...lb, externalPolicyLocal: true, healthCheckNodePort: 30000, protocol: 'UDP' },
      has: [
        `filter KUBE-NODEPORTS -m comment --comment "${name} health check node port" -m tcp -p tcp --dport 30000 -j ACCEPT`,
      ],
    },
    {
      name: 'external addresses the gate hides: the chain stays, nothing leads to it',
      port: { externallyAccessible: true },
      endpoints: [remote],
      has: ['nat KUBE-EXT -j KUBE-SVC'],
      not: /-j KUBE-EXT/,
    },
    {
      name: 'a cluster CIDR of everything: nothing is not local',
      endpoints: [remote],
      options: { localTraffic: { kind: 'cidr', cidr: cidr('0.0.0.0/0') } },
      not: /cluster IP.*KUBE-MARK-MASQ/,
    },
    {
      name: 'a cluster CIDR of everything: all is local',
      port: { ...lb, externalPolicyLocal: true },
      endpoints: [remote],
      options: { localTraffic: { kind: 'cidr', cidr: cidr('0.0.0.0/0') } },
      has: [
        `nat KUBE-EXT -m comment --comment "pod traffic for ${name} external destinations" -s 0.0.0.0/0 -j KUBE-SVC`,
      ],
    },
    {
      name: 'pods behind a bridge',
      port: { ...lb, externalPolicyLocal: true },
      endpoints: [remote],
      options: { localTraffic: { kind: 'bridge', name: '0abc' } },
      has: [
        `nat KUBE-SVC -m comment --comment "${name} cluster IP" ${at('172.30.1.1')} ! -i 0abc -j KUBE-MARK-MASQ`,
        `nat KUBE-EXT -m comment --comment "pod traffic for ${name} external destinations" -i 0abc -j KUBE-SVC`,
      ],
    },
    {
      name: 'pods behind a prefix',
      endpoints: [remote],
      options: { localTraffic: { kind: 'prefix', prefix: 'veth' } },
      has: [`nat KUBE-SVC -m comment --comment "${name} cluster IP" ${at('172.30.1.1')} ! -i veth+ -j KUBE-MARK-MASQ`],
    },
    {
      name: 'pods not to be told: no short cut, no masquerading of the cluster IP',
      port: { ...lb, externalPolicyLocal: true },
      endpoints: [remote],
      options: { localTraffic: { kind: 'none' } },
      not: /pod traffic|cluster IP.*MASQ/,
    },
    {
      name: 'masquerade all, whoever tells what',
      endpoints: [remote],
      options: { masqueradeAll: true, localTraffic: { kind: 'none' } },
      has: [`nat KUBE-SVC -m comment --comment "${name} cluster IP" ${at('172.30.1.1')} -j KUBE-MARK-MASQ`],
    },
  ];
  for (const { name, port, endpoints, options, facts, has = [], not } of cases) {
    t.test(name, async (t) => {
      const lines = linesOf(makePlan(makeServicePort(port), endpoints), options, facts);
      for (const line of has) t.ok(lines.includes(line), line, { lines });
      if (not)
        t.same(
          lines.filter((line) => not.test(line)),
          [],
          `nothing like ${not}`,
        );
    });
  }

  const unwritable = makeServicePort({ serviceName: 'a"; -j ACCEPT' });
  const render = () => renderService(makePlan(unwritable), makeOptions(), makeFacts(), { comments: true });
  t.throws(render, { name: 'RangeError', message: /Cannot write comment/ }, 'a name that is none never reaches a rule');
});

t.test('the two worked examples', async (t) => {
  const two = SIX_SERVICES[1];
  const five = SIX_SERVICES[4];
  if (two === undefined || five === undefined) throw new RangeError('Cannot find the services of the examples');
  const n = 'ns2/svc2:p80';
  const no = `-m comment --comment "${n} has no local endpoints"`;
  const at = (address: string) => `-m tcp -p tcp -d ${address} --dport 80`;
  t.same(
    linesOf(two).sort(),
    [
      `filter KUBE-EXTERNAL-SERVICES ${no} ${at('192.168.99.22')} -j DROP`,
      `filter KUBE-EXTERNAL-SERVICES ${no} ${at('1.2.3.4')} -j DROP`,
      `filter KUBE-EXTERNAL-SERVICES ${no} -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 3001 -j DROP`,
      `filter KUBE-NODEPORTS -m comment --comment "${n} health check node port" -m tcp -p tcp --dport 30000 -j ACCEPT`,
      `nat KUBE-SERVICES -m comment --comment "${n} cluster IP" ${at('172.30.0.42')} -j KUBE-SVC`,
      `nat KUBE-SERVICES -m comment --comment "${n} external IP" ${at('192.168.99.22')} -j KUBE-EXT`,
      `nat KUBE-SERVICES -m comment --comment "${n} loadbalancer IP" ${at('1.2.3.4')} -j KUBE-EXT`,
      `nat KUBE-NODEPORTS -m comment --comment ${n} -m tcp -p tcp -d 127.0.0.0/8 --dport 3001 -m nfacct --nfacct-name localhost_nps_accepted_pkts -j KUBE-EXT`,
      `nat KUBE-NODEPORTS -m comment --comment ${n} -m tcp -p tcp --dport 3001 -j KUBE-EXT`,
      `nat KUBE-SVC -m comment --comment "${n} cluster IP" ${at('172.30.0.42')} ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ`,
      `nat KUBE-EXT -m comment --comment "pod traffic for ${n} external destinations" -s 10.0.0.0/8 -j KUBE-SVC`,
      `nat KUBE-EXT -m comment --comment "masquerade LOCAL traffic for ${n} external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ`,
      `nat KUBE-EXT -m comment --comment "route LOCAL traffic for ${n} external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC`,
      `nat KUBE-SVC -m comment --comment "${n} -> 10.180.0.2:80" -j KUBE-SEP`,
      `nat KUBE-SEP -m comment --comment ${n} -s 10.180.0.2 -j KUBE-MARK-MASQ`,
      `nat KUBE-SEP -m comment --comment ${n} -m tcp -p tcp -j DNAT --to-destination 10.180.0.2:80`,
    ].sort(),
  );
  const m = 'ns5/svc5:p80';
  const lines = linesOf(five);
  for (const line of [
    `filter KUBE-PROXY-FIREWALL -m comment --comment "${m} traffic not accepted by KUBE-FW" ${at('5.6.7.8')} -j DROP`,
    `nat KUBE-SERVICES -m comment --comment "${m} loadbalancer IP" ${at('5.6.7.8')} -j KUBE-FW`,
    `nat KUBE-EXT -m comment --comment "masquerade traffic for ${m} external destinations" -j KUBE-MARK-MASQ`,
    'nat KUBE-EXT -j KUBE-SVC',
    `nat KUBE-FW -m comment --comment "${m} loadbalancer IP" -s 203.0.113.0/25 -j KUBE-EXT`,
    `nat KUBE-FW -m comment --comment "other traffic to ${m} will be dropped by KUBE-PROXY-FIREWALL"`,
    `nat KUBE-SVC -m comment --comment "${m} -> 10.180.0.3:80" -m recent --name KUBE-SEP --rcheck --seconds 10800 --reap -j KUBE-SEP`,
    `nat KUBE-SVC -m comment --comment "${m} -> 10.180.0.3:80" -j KUBE-SEP`,
    `nat KUBE-SEP -m comment --comment ${m} -m recent --name KUBE-SEP --set -m tcp -p tcp -j DNAT --to-destination 10.180.0.3:80`,
  ]) {
    t.ok(lines.includes(line), line, { lines });
  }
});

t.test('numbers of rules', async (t) => {
  const table: readonly (readonly [string, number, number, number, number])[] = [
    ['ClusterIP', 0, 0, 4, 5],
    ['ClusterIP', 1, 0, 5, 5],
    ['ClusterIP', 1, 1, 4, 10],
    ['ClusterIP', 1, 2, 4, 13],
    ['ClusterIP', 1, 10, 4, 37],
    ['ClusterIP', 10, 0, 14, 5],
    ['ClusterIP', 10, 1, 4, 55],
    ['ClusterIP', 10, 2, 4, 85],
    ['ClusterIP', 10, 10, 4, 325],
    ['LoadBalancer', 1, 0, 8, 5],
    ['LoadBalancer', 1, 1, 5, 18],
    ['LoadBalancer', 1, 2, 5, 21],
    ['LoadBalancer', 1, 10, 5, 45],
    ['LoadBalancer', 10, 0, 44, 5],
    ['LoadBalancer', 10, 1, 14, 135],
    ['LoadBalancer', 10, 2, 14, 165],
    ['LoadBalancer', 10, 10, 14, 405],
  ];
  for (const [type, services, endpoints, filter, nat] of table) {
    const plans = Array.from({ length: services }, (_, s) =>
      makePlan(
        makeServicePort({
          serviceName: `svc${s}`,
          clusterIP: ip(`172.30.0.${s + 1}`),
          ...(type === 'LoadBalancer'
            ? {
                nodePort: 30000 + s,
                loadBalancerVIPs: [ip(`1.2.3.${s + 1}`)],
                externalPolicyLocal: true,
                healthCheckNodePort: 31000 + s,
              }
            : {}),
        }),
        Array.from({ length: endpoints }, (_, e) => makeEndpoint(`10.0.${s}.${e + 1}`, { isLocal: e === 0 })),
      ),
    );
    const options = makeOptions();
    const parts = [
      renderStatic(options, makeFacts()),
      ...plans.map((plan) => renderService(plan, options, makeFacts(), { comments: true })),
    ].map(countRules);
    const sum = { filter: 0, nat: 0 };
    for (const part of parts) {
      sum.filter += part.filter;
      sum.nat += part.nat;
    }
    t.same(sum, { filter, nat }, `${services} ${type} × ${endpoints}`);
    const text = renderAll(plans, options, makeFacts(), { comments: true, jumps: false });
    t.equal(text.match(/^-A/gm)?.length, filter + nat, 'and as many are written');
  }
});

t.test('ports of one service that share a name', async (t) => {
  const tcp = makeServicePort({ portName: 'dns', port: 53, nodePort: 30053, healthCheckNodePort: 30054 });
  const udp = makeServicePort({
    portName: 'dns',
    port: 53,
    nodePort: 30053,
    healthCheckNodePort: 30054,
    protocol: 'UDP',
  });
  const endpoints = [makeEndpoint('10.180.0.1', { port: 53 })];
  const plan = { service: tcp.service, ports: [makePortPlan(tcp, endpoints), makePortPlan(udp, endpoints)] };
  const { owned, shared } = renderService(plan, makeOptions(), makeFacts(), { comments: true });
  t.equal(owned.size, 6, 'have chains of their own');
  t.same(
    shared.map(({ table, chain, port }) => `${table} ${chain} ${port}`),
    ['tcp', 'udp'].flatMap((p) =>
      ['nat KUBE-SERVICES', 'nat KUBE-NODEPORTS', 'filter KUBE-NODEPORTS'].map((c) => `${c} ns1/svc1:dns/${p}`),
    ),
    'and shares of their own in the chains that services share',
  );
});
