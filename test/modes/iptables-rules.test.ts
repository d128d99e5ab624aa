/** Names, numbers and single rules: what is written, and what the tool prints for it. */

import t from 'tap';
import { toChainName } from '../../src/iptables/chain.ts';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import {
  formatMark,
  formatProbability,
  formatRestore,
  formatSaved,
  formatSavedProbability,
} from '../../src/iptables/format.ts';
import { parseSave } from '../../src/iptables/parse.ts';
import {
  comment,
  ctstate,
  DROP,
  destination,
  dport,
  inInterface,
  jump,
  type Match,
  markOfBit,
  protocol,
  REJECT,
  RETURN,
  type Rule,
  rule,
  source,
} from '../../src/iptables/rule.ts';
import { endpointChain, isServiceChain, servicePortChains } from '../../src/modes/iptables/names.ts';
import { JUMPS, renderStatic } from '../../src/modes/iptables/static.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import type { Family } from '../../src/proxier/types.ts';
import { makeFacts, makeOptions } from '../lib/iptables-world.ts';
import { ip, makeEndpoint, makeServicePort } from '../lib/make.ts';

t.test('chain names', async (t) => {
  const vectors: readonly (readonly [string, string, string | undefined, ...(readonly [string, string])[]])[] = [
    ['ns1', 'svc1', 'XPGD46QRK7WJZT7O', ['10.180.0.1', 'SXIVWICOYRO3J4NJ']],
    ['ns2', 'svc2', 'GNZBNJ2PO5MGZ6GT', ['10.180.0.2', 'RS4RBKLTHTF2IUXJ']],
    ['ns3', 'svc3', 'X27LE4BHSL4DOUIK', ['10.180.0.3', 'OYPFS5VJICHGATKP']],
    ['ns4', 'svc4', '4SW47YFZTEDKD3PK', ['10.180.0.4', 'UKSFD7AGPMPPLUHC'], ['10.180.0.5', 'C6EBXVWJJZMIWKLZ']],
    ['ns5', 'svc5', 'NUKIZ6OKUXPJNT4C', ['10.180.0.3', 'I77PXRDZVX7PMWMN']],
    ['ns1', 'svc1', undefined, ['10.0.1.1', 'SNQ3ZNILQDEJNDQO'], ['10.0.0.0', 'DKGQUZGBKLTPAR56']],
    ['ns3', 'svc3', undefined, ['10.0.3.1', 'BSWRHOQ77KEXZLNL'], ['10.0.3.2', 'DKCFIS26GWF2WLWC']],
    ['ns3', 'svc3', undefined, ['10.0.3.3', 'JVVZVJ7BSEPPRNBS']],
  ];
  for (const [namespace, serviceName, hash, ...endpoints] of vectors) {
    const port = makeServicePort({ namespace, serviceName, portName: 'p80' });
    if (hash !== undefined) {
      t.same(servicePortChains(port), {
        clusterPolicy: `KUBE-SVC-${hash}`,
        localPolicy: `KUBE-SVL-${hash}`,
        firewall: `KUBE-FW-${hash}`,
        external: `KUBE-EXT-${hash}`,
      });
    }
    for (const [address, of] of endpoints) t.equal(endpointChain(port, makeEndpoint(address)), `KUBE-SEP-${of}`);
  }
  const ports: readonly (readonly [string, string, number, string, string])[] = [
    ['ns2', 'svc2', 8080, '10.0.2.1', 'UHEGFW77JX3KXTOV'],
    ['ns3', 'svc3', 8081, '203.0.113.4', 'RUVVH7YV3PHQBDOS'],
    ['ns4', 'svc4', 8082, '10.4.0.1', 'SU5STNODRYEWJAUF'],
  ];
  for (const [namespace, serviceName, port, address, hash] of ports) {
    const of = makeServicePort({ namespace, serviceName, portName: `p${port}` });
    t.equal(endpointChain(of, makeEndpoint(address, { port })), `KUBE-SEP-${hash}`);
  }
  for (const [name, is] of [
    ['KUBE-SVC-A', true],
    ['KUBE-SVL-A', true],
    ['KUBE-SEP-A', true],
    ['KUBE-FW-A', true],
    ['KUBE-EXT-A', true],
    ['KUBE-SERVICES', false],
    ['KUBE-FIREWALL', false],
    ['KUBE-FORWARD', false],
    ['KUBE-EXTERNAL-SERVICES', false],
    ['CNI-KUBE-SVC-A', false],
  ] as const) {
    t.equal(isServiceChain(name), is, `${name} is ${is ? '' : 'not '}of a service`);
  }
});

t.test('probabilities', async (t) => {
  const vectors: readonly (readonly [number, string, string | undefined])[] = [
    [1, '1.0000000000', undefined],
    [2, '0.5000000000', '0.50000000000'],
    [3, '0.3333333333', '0.33333333349'],
    [5, '0.2000000000', '0.20000000019'],
    [6, '0.1666666667', '0.16666666651'],
    [7, '0.1428571429', '0.14285714272'],
    [10, '0.1000000000', undefined],
    [100, '0.0100000000', undefined],
    [1000, '0.0010000000', undefined],
    // 1/2048 lies exactly between two texts of ten decimals, 1/4096 between two of eleven.
    [2048, '0.0004882812', undefined],
    [4096, '0.0002441406', '0.00024414062'],
    [10_000, '0.0001000000', undefined],
    [100_000, '0.0000100000', undefined],
    [100_001, '0.0000099999', undefined],
  ];
  for (const [of, written, saved] of vectors) {
    t.equal(formatProbability(of), written, `1/${of} as written`);
    if (saved !== undefined) t.equal(formatSavedProbability(of), saved, `1/${of} as saved`);
  }
  let last = 0;
  let grows = true;
  for (let of = 100_000; of >= 2; of--) {
    const now = Number(formatProbability(of));
    grows &&= now > last;
    last = now;
  }
  t.ok(grows, 'fewer endpoints, higher odds');
});

t.test('marks', async (t) => {
  for (const [bit, text] of [
    [14, '0x00004000'],
    [0, '0x00000001'],
    [31, '0x80000000'],
  ] as const) {
    t.equal(formatMark(markOfBit(bit)), text);
  }
  for (const bit of [-1, 32, 1.5, Number.NaN]) t.throws(() => markOfBit(bit), { name: 'RangeError' });
});

t.test('text that does not belong into a rule is refused', async (t) => {
  const longest = 'x'.repeat(255);
  t.same(comment(longest), { kind: 'comment', text: longest });
  for (const bad of ['', 'x'.repeat(256), 'a"b', "a'b", 'a\\b', 'a\nb', 'a\tb', 'ü', 'a\0b']) {
    t.throws(() => comment(bad), { name: 'RangeError' }, `comment ${JSON.stringify(bad)}`);
  }
  for (const good of ['cni0', 'veth+', '0abc', 'eth0.10', 'abcdefghijklmno']) {
    t.same(inInterface(good), { kind: 'inInterface', name: good, negated: false });
  }
  for (const bad of ['', 'abcdefghijklmnop', 'abcdefghijklmno+', 'a b', '-j', '!x', 'a/b', 'a"b', 'a\nb']) {
    t.throws(() => inInterface(bad), { name: 'RangeError' }, `interface ${JSON.stringify(bad)}`);
  }
  for (const bad of ['', 'x'.repeat(29), 'a b', '-A', '!a', 'a"']) {
    t.throws(() => toChainName(bad), { name: 'SyntaxError' }, `chain ${JSON.stringify(bad)}`);
  }
});

const SEP = toChainName('KUBE-SEP-SXIVWICOYRO3J4NJ');
const MASK4 = '255.255.255.255';
const MASK6 = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';
const MARK = markOfBit(14);
const tcp = protocol('TCP');
const N = 'ns1/svc1:p80';
const counter: Match = { kind: 'nfacct', counter: 'localhost_nps_accepted_pkts' };

/** [rule, written, saved, family] */
const FORMS: readonly (readonly [Rule, string, string, Family?])[] = [
  [rule([], jump(SEP)), `-j ${SEP}`, `-j ${SEP}`],
  [
    rule([comment('bare-word_1')], DROP),
    '-m comment --comment bare-word_1 -j DROP',
    '-m comment --comment bare-word_1 -j DROP',
  ],
  [
    rule([comment(N), source('10.180.0.1')], RETURN),
    `-m comment --comment ${N} -s 10.180.0.1 -j RETURN`,
    `-s 10.180.0.1/32 -m comment --comment "${N}" -j RETURN`,
  ],
  [
    rule([comment('other traffic will be dropped')], undefined),
    '-m comment --comment "other traffic will be dropped"',
    '-m comment --comment "other traffic will be dropped"',
  ],
  [
    rule([comment(`${N} cluster IP`), tcp, destination('172.30.0.41'), dport(80), source('10.0.0.0/8', true)], DROP),
    `-m comment --comment "${N} cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 ! -s 10.0.0.0/8 -j DROP`,
    `! -s 10.0.0.0/8 -d 172.30.0.41/32 -p tcp -m comment --comment "${N} cluster IP" -m tcp --dport 80 -j DROP`,
  ],
  [
    rule([tcp, destination('172.30.0.41'), dport(80), inInterface('cni0', true)], DROP),
    '-m tcp -p tcp -d 172.30.0.41 --dport 80 ! -i cni0 -j DROP',
    '-d 172.30.0.41/32 ! -i cni0 -p tcp -m tcp --dport 80 -j DROP',
  ],
  [rule([inInterface('veth+')], DROP), '-i veth+ -j DROP', '-i veth+ -j DROP'],
  [rule([source('0.0.0.0/0')], DROP), '-s 0.0.0.0/0 -j DROP', '-j DROP'],
  [
    rule([{ kind: 'addrtype', side: 'dst' }, protocol('SCTP'), dport(3001)], REJECT),
    '-m addrtype --dst-type LOCAL -m sctp -p sctp --dport 3001 -j REJECT',
    '-p sctp -m addrtype --dst-type LOCAL -m sctp --dport 3001 -j REJECT --reject-with icmp-port-unreachable',
  ],
  [rule([], REJECT), '-j REJECT', '-j REJECT --reject-with icmp6-port-unreachable', 'IPv6'],
  [
    rule([{ kind: 'addrtype', side: 'src' }], DROP),
    '-m addrtype --src-type LOCAL -j DROP',
    '-m addrtype --src-type LOCAL -j DROP',
  ],
  [
    rule([{ kind: 'mark', mark: MARK, negated: true }], RETURN),
    '-m mark ! --mark 0x00004000/0x00004000 -j RETURN',
    '-m mark ! --mark 0x4000/0x4000 -j RETURN',
  ],
  [rule([], { kind: 'flipMark', mark: MARK }), '-j MARK --xor-mark 0x00004000', '-j MARK --set-xmark 0x4000/0x0'],
  [
    rule([], { kind: 'setMark', mark: markOfBit(31) }),
    '-j MARK --or-mark 0x80000000',
    '-j MARK --set-xmark 0x80000000/0x80000000',
  ],
  [rule([], { kind: 'masquerade', randomFully: false }), '-j MASQUERADE', '-j MASQUERADE'],
  [rule([], { kind: 'masquerade', randomFully: true }), '-j MASQUERADE --random-fully', '-j MASQUERADE --random-fully'],
  [
    rule([{ kind: 'random', of: 3 }], jump(SEP)),
    `-m statistic --mode random --probability 0.3333333333 -j ${SEP}`,
    `-m statistic --mode random --probability 0.33333333349 -j ${SEP}`,
  ],
  [
    rule([{ kind: 'recentCheck', list: SEP, seconds: 10800 }], jump(SEP)),
    `-m recent --name ${SEP} --rcheck --seconds 10800 --reap -j ${SEP}`,
    `-m recent --rcheck --seconds 10800 --reap --name ${SEP} --mask ${MASK4} --rsource -j ${SEP}`,
  ],
  [
    rule([comment(N), { kind: 'recentSet', list: SEP }, tcp], { kind: 'dnat', to: '10.180.0.1:80' }),
    `-m comment --comment ${N} -m recent --name ${SEP} --set -m tcp -p tcp -j DNAT --to-destination 10.180.0.1:80`,
    `-p tcp -m comment --comment "${N}" -m recent --set --name ${SEP} --mask ${MASK4} --rsource -m tcp -j DNAT --to-destination 10.180.0.1:80`,
  ],
  [
    rule([source('fd00::1'), { kind: 'recentSet', list: SEP }, protocol('UDP')], { kind: 'dnat', to: '[fd00::1]:53' }),
    `-s fd00::1 -m recent --name ${SEP} --set -m udp -p udp -j DNAT --to-destination [fd00::1]:53`,
    `-s fd00::1/128 -p udp -m recent --set --name ${SEP} --mask ${MASK6} --rsource -m udp -j DNAT --to-destination [fd00::1]:53`,
    'IPv6',
  ],
  [
    rule([comment(N), tcp, destination('127.0.0.0/8'), dport(3001), counter], DROP),
    `-m comment --comment ${N} -m tcp -p tcp -d 127.0.0.0/8 --dport 3001 -m nfacct --nfacct-name localhost_nps_accepted_pkts -j DROP`,
    `-d 127.0.0.0/8 -p tcp -m comment --comment "${N}" -m tcp --dport 3001 -m nfacct --nfacct-name  localhost_nps_accepted_pkts -j DROP`,
  ],
  [
    rule([destination('127.0.0.0/8'), source('127.0.0.0/8', true), ctstate('RELATED,ESTABLISHED,DNAT', true)], DROP),
    '-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
    '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
  ],
];

t.test('a rule', async (t) => {
  const kinds = new Set<string>();
  for (const [made, written, saved, family = 'IPv4'] of FORMS) {
    for (const { kind } of made.matches) kinds.add(kind);
    t.test(written, async (t) => {
      t.equal(formatRestore(made), written, 'as it is written');
      t.equal(formatSaved(made, family), saved, 'as it is saved');
      for (const [form, body] of Object.entries({ written, saved })) {
        const ruleset = new FakeRuleset(family);
        ruleset.restore(`*nat\n:A - [0:0]\n:${SEP} - [0:0]\n-A A ${body}\nCOMMIT\n`);
        t.same(ruleset.rules('nat', 'A'), [saved], `the ruleset in memory prints the ${form} form like this`);
      }
    });
  }
  t.equal(kinds.size, 13, 'every kind of match is met');
});

t.test('an IPv6 address of six zero groups is saved with a dotted end', async (t) => {
  const made = rule([source('::102:304'), destination('::1'), protocol('TCP')], { kind: 'dnat', to: '[::1:2]:80' });
  t.equal(
    formatSaved(made, 'IPv6'),
    '-s ::1.2.3.4/128 -d ::1/128 -p tcp -m tcp -j DNAT --to-destination [::0.1.0.2]:80',
  );
});

t.test('the static part', async (t) => {
  const rulesOf = (table: string, name: string, options = makeOptions(), facts = makeFacts()) =>
    renderStatic(options, facts)
      .find((c) => c.table === table && c.name === name)
      ?.rules.map(formatRestore);

  t.same(
    renderStatic(makeOptions(), makeFacts()).map(({ table, name }) => `${table} ${name}`),
    [
      ...['SERVICES', 'EXTERNAL-SERVICES', 'FORWARD', 'NODEPORTS', 'PROXY-FIREWALL', 'FIREWALL'].map(
        (c) => `filter KUBE-${c}`,
      ),
      ...['SERVICES', 'NODEPORTS', 'POSTROUTING', 'MARK-MASQ'].map((c) => `nat KUBE-${c}`),
    ],
    'chains in the order they are declared',
  );
  t.equal(
    rulesOf('nat', 'KUBE-POSTROUTING', makeOptions({ features: { randomFully: false } }))
      ?.at(-1)
      ?.endsWith('MASQUERADE'),
    true,
  );

  const invalid: readonly (readonly [string, boolean, boolean, string | undefined])[] = [
    [
      'counted',
      false,
      true,
      '-m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP',
    ],
    ['without a counter', false, false, '-m conntrack --ctstate INVALID -j DROP'],
    ['with a liberal conntrack', true, true, undefined],
  ];
  for (const [name, tcpBeLiberal, ctStateInvalid, first] of invalid) {
    const facts = makeFacts({ counters: { ctStateInvalid, localhostNodePorts: true } });
    const all = rulesOf('filter', 'KUBE-FORWARD', makeOptions({ tcpBeLiberal }), facts) ?? [];
    t.equal(all.length, first === undefined ? 2 : 3, `KUBE-FORWARD ${name}`);
    if (first !== undefined) t.equal(all[0], first);
  }

  const guard = [
    '-m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
  ];
  const head = '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"';
  const toAll = (but: string) => [`${head} -m addrtype --dst-type LOCAL${but} -j KUBE-NODEPORTS`];
  const two = ['192.168.0.0/24', '127.0.0.1/32'];
  const nodePorts: readonly (readonly [
    Family,
    boolean,
    readonly string[],
    readonly string[],
    readonly string[],
    boolean,
  ])[] = [
    // family, localhostNodePorts, nodePortAddresses, node IPs, rules, guarded
    ['IPv4', true, [], [], toAll(''), true],
    ['IPv4', false, [], [], toAll(' ! -d 127.0.0.0/8'), false],
    ['IPv6', false, [], [], toAll(' ! -d ::1/128'), false],
    ['IPv6', true, [], [], toAll(' ! -d ::1/128'), false],
    ['IPv4', false, two, ['192.168.0.2', '127.0.0.1'], [`${head} -d 192.168.0.2 -j KUBE-NODEPORTS`], false],
    [
      'IPv4',
      true,
      two,
      ['192.168.0.2', '127.0.0.1', '192.168.0.2'],
      ['127.0.0.1', '192.168.0.2'].map((a) => `${head} -d ${a} -j KUBE-NODEPORTS`),
      true,
    ],
    ['IPv4', false, two, [], [], false],
    ['IPv6', false, ['2001:db8::/64'], ['2001:db8::1', '::1'], [`${head} -d 2001:db8::1 -j KUBE-NODEPORTS`], false],
  ];
  for (const [family, localhostNodePorts, cidrs, ips, rules, guarded] of nodePorts) {
    const options = makeOptions({ family, localhostNodePorts, nodePortAddresses: nodePortAddresses(cidrs, family) });
    const facts = makeFacts({ nodeIPs: ips.map(ip) });
    const name = `${family}, localhost ${localhostNodePorts}, [${cidrs}]`;
    t.same(rulesOf('nat', 'KUBE-SERVICES', options, facts), rules, name);
    t.same(rulesOf('filter', 'KUBE-FIREWALL', options, facts), guarded ? guard : undefined, `guard of ${name}`);
  }
});

t.test('the jumps, inserted one after the other, stand in the known order', async (t) => {
  const ruleset = new FakeRuleset('IPv4');
  for (const { table, from, rule } of JUMPS) {
    const to = rule.target?.kind === 'jump' ? rule.target.chain : '';
    if (!ruleset.hasChain(table, to)) ruleset.restore(`*${table}\n:${to} - [0:0]\nCOMMIT\n`);
    ruleset.restore(`*${table}\n-I ${from} ${formatRestore(rule)}\nCOMMIT\n`);
  }
  const targets = (table: string, chain: string) =>
    ruleset.rules(table, chain).map((r) => r.split(' -j KUBE-')[1] ?? r);
  t.same(targets('filter', 'INPUT'), ['-j KUBE-FIREWALL', 'PROXY-FIREWALL', 'NODEPORTS', 'EXTERNAL-SERVICES']);
  t.same(targets('filter', 'FORWARD'), ['PROXY-FIREWALL', 'FORWARD', 'SERVICES', 'EXTERNAL-SERVICES']);
  t.same(targets('filter', 'OUTPUT'), ['-j KUBE-FIREWALL', 'PROXY-FIREWALL', 'SERVICES']);
  t.same(targets('nat', 'OUTPUT'), ['SERVICES']);
  t.same(targets('nat', 'PREROUTING'), ['SERVICES']);
  t.same(targets('nat', 'POSTROUTING'), ['POSTROUTING']);
});

t.test('parseSave()', async (t) => {
  const dump = [
    '# Generated by iptables-save v1.8.9 (nf_tables)',
    '*nat',
    ':PREROUTING ACCEPT [12:3456]',
    ':KUBE-SERVICES - [0:0]',
    ':BARE -',
    '[1:60] -A KUBE-SERVICES -d 10.0.0.1/32 -j X',
    '-A KUBE-SERVICES -j Y',
    '-A PREROUTING -m comment --comment "two  blanks : * -A" -j KUBE-SERVICES',
    '-A KUBE-SERVICES -j Z',
    '-A UNDECLARED',
    'something else',
    '-N WHAT',
    'COMMIT',
    '# Completed',
    '',
    '*filter',
    ':INPUT DROP [0:0]',
    'COMMIT\r',
    '*nat',
    '-A BARE -j DROP',
  ].join('\n');
  const plain = [...parseSave(dump)].map(([table, chains]) => [table, Object.fromEntries(chains)]);
  t.same(Object.fromEntries(plain), {
    nat: {
      PREROUTING: { policy: 'ACCEPT', rules: ['-m comment --comment "two  blanks : * -A" -j KUBE-SERVICES'] },
      'KUBE-SERVICES': { policy: '-', rules: ['-d 10.0.0.1/32 -j X', '-j Y', '-j Z'] },
      BARE: { policy: '-', rules: ['-j DROP'] },
      UNDECLARED: { policy: '-', rules: [''] },
    },
    filter: { INPUT: { policy: 'DROP', rules: [] } },
  });
  for (const nothing of ['', '\n\n', '# only\n', '-A X -j Y\n:X -\n']) t.equal(parseSave(nothing).size, 0);
});
