/** The way of a request through counted rules, and when a proxy counts as settled. */
import t from 'tap';
import { isTraceComplete, pathOfTrace } from '../../src/lab/nft-path.ts';
import { countedBetween, type Path, parseCounters, pathOf } from '../../src/lab/path.ts';
import { parseMetrics, settledMark } from '../../src/lab/proxy.ts';

/** Rules as `iptables-save -c` prints them; `hits` names the ones that counted a packet, by their number. */
const RULES = [
  '*nat',
  ':PREROUTING ACCEPT [0:0]',
  ':OUTPUT ACCEPT [0:0]',
  ':POSTROUTING ACCEPT [0:0]',
  ':KUBE-SERVICES - [0:0]',
  ':KUBE-NODEPORTS - [0:0]',
  ':KUBE-EXT-A - [0:0]',
  ':KUBE-SVC-A - [0:0]',
  ':KUBE-SEP-1 - [0:0]',
  ':KUBE-SEP-2 - [0:0]',
  ':KUBE-MARK-MASQ - [0:0]',
  ':KUBE-POSTROUTING - [0:0]',
  '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES', // 0
  '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES', // 1
  '-A POSTROUTING -j KUBE-POSTROUTING', // 2
  '-A KUBE-SERVICES -d 10.43.0.9/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A', // 3
  '-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS', // 4
  '-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-A', // 5
  '-A KUBE-EXT-A -j KUBE-MARK-MASQ', // 6
  '-A KUBE-EXT-A -g KUBE-SVC-A', // 7
  '-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-1', // 8
  '-A KUBE-SVC-A -j KUBE-SEP-2', // 9
  '-A KUBE-SEP-1 -s 10.42.0.11/32 -j KUBE-MARK-MASQ', // 10
  '-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.42.0.11:80', // 11
  '-A KUBE-SEP-2 -p tcp -m tcp -j DNAT --to-destination 10.42.0.12:80', // 12
  '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000', // 13
  '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN', // 14
  '-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0', // 15
  '-A KUBE-POSTROUTING -j MASQUERADE --random-fully', // 16
  'COMMIT',
  '*filter',
  ':INPUT ACCEPT [0:0]',
  ':FORWARD ACCEPT [0:0]',
  ':OUTPUT ACCEPT [0:0]',
  ':KUBE-FORWARD - [0:0]',
  ':KUBE-FIREWALL - [0:0]',
  ':KUBE-EXTERNAL-SERVICES - [0:0]',
  '-A FORWARD -j KUBE-FORWARD', // 17
  '-A INPUT -j KUBE-FIREWALL', // 18
  '-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES', // 19
  '-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT', // 20
  '-A KUBE-EXTERNAL-SERVICES -p tcp -m tcp --dport 30081 -j REJECT --reject-with icmp-port-unreachable', // 21
  'COMMIT',
];

function saved(packets: (rule: number) => number): string {
  let rule = 0;
  return RULES.map((line) => (line.startsWith('-A') ? `[${packets(rule++)}:60] ${line}` : line)).join('\n');
}

const rows: readonly {
  name: string;
  hits: readonly number[];
  origin?: 'node';
  want: Omit<Path, 'steps'> & { steps: number };
}[] = [
  {
    name: 'cluster IP, first endpoint, not masqueraded',
    hits: [0, 3, 8, 11, 2, 14, 17],
    want: {
      chains: ['PREROUTING', 'KUBE-SERVICES', 'KUBE-SVC-A', 'KUBE-SEP-1'],
      destination: '10.42.0.11:80',
      masqueraded: false,
      verdict: undefined,
      steps: 4,
    },
  },
  {
    name: 'hairpin: the endpoint chain itself marks',
    hits: [0, 3, 8, 10, 13, 11, 2, 15, 16],
    want: {
      chains: ['PREROUTING', 'KUBE-SERVICES', 'KUBE-SVC-A', 'KUBE-SEP-1'],
      destination: '10.42.0.11:80',
      masqueraded: true,
      verdict: undefined,
      steps: 9,
    },
  },
  {
    name: 'node port, masqueraded; KUBE-MARK-MASQ returns and is no station',
    hits: [0, 4, 5, 6, 13, 7, 9, 12, 2, 15, 16, 17, 20],
    want: {
      chains: ['PREROUTING', 'KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-EXT-A', 'KUBE-SVC-A', 'KUBE-SEP-2'],
      destination: '10.42.0.12:80',
      masqueraded: true,
      verdict: undefined,
      steps: 11,
    },
  },
  {
    name: 'from the node, while another packet passed unmarked',
    hits: [1, 3, 4, 9, 12, 2, 14, 15, 16],
    origin: 'node',
    want: {
      chains: ['OUTPUT', 'KUBE-SERVICES', 'KUBE-SVC-A', 'KUBE-SEP-2'],
      destination: '10.42.0.12:80',
      masqueraded: true,
      verdict: undefined,
      steps: 7,
    },
  },
  {
    name: 'refused in the filter table',
    hits: [0, 4, 18, 19, 21, 17, 20],
    want: {
      chains: ['INPUT', 'KUBE-EXTERNAL-SERVICES'],
      destination: undefined,
      masqueraded: false,
      verdict: 'REJECT',
      steps: 4,
    },
  },
  {
    name: 'nothing of ours',
    hits: [17],
    want: { chains: [], destination: undefined, masqueraded: false, verdict: undefined, steps: 0 },
  },
];

t.test('pathOf()', async (t) => {
  const before = parseCounters(saved(() => 7));
  for (const { name, hits, origin, want } of rows) {
    const counted = countedBetween(before, parseCounters(saved((rule) => (hits.includes(rule) ? 8 : 7))));
    const got = counted && pathOf(counted, origin ?? 'elsewhere');
    t.same(got && { ...got, steps: got.steps.length }, want, name);
  }
});

t.test('countedBetween() refuses rules that changed', async (t) => {
  const text = saved(() => 0);
  const before = parseCounters(text);
  for (const [name, changed] of [
    ['a rule more', text.replace('[0:60] -A KUBE-SVC-A -j', '[0:60] -A KUBE-SVC-A -j X\n$&')],
    ['another rule in its place', text.replace('--dport 30080', '--dport 30079')],
    [
      'a chain more',
      text.replace(':KUBE-SEP-2', ':KUBE-SEP-3 - [0:0]\n$&').replace('COMMIT', '[0:0] -A KUBE-SEP-3 -j X\n$&'),
    ],
  ] as const) {
    t.not(changed, text, `${name}: the text differs`);
    t.equal(countedBetween(before, parseCounters(changed)), undefined, name);
  }
});

t.test('settledMark()', async (t) => {
  const series = (name: string, values: Record<string, number>) =>
    Object.entries(values).map(
      ([f, v]) => `kubeproxy_sync_proxy_rules_${name}_timestamp_seconds{ip_family="${f}"} ${v}`,
    );
  const mark = (queued: Record<string, number>, done: Record<string, number>, more = '') =>
    settledMark(
      parseMetrics(['# HELP x y', ...series('last_queued', queued), ...series('last', done), more].join('\n')),
    );
  t.equal(mark({ IPv4: 2, IPv6: 2 }, { IPv4: 3 }), undefined, 'a family that never synced');
  t.equal(mark({ IPv4: 2, IPv6: 4 }, { IPv4: 3, IPv6: 3 }), undefined, 'a family with a sync before it');
  t.equal(mark({}, {}), undefined, 'no proxy');
  t.equal(mark({ IPv4: 2 }, { IPv4: 0 }), undefined, 'a gauge that was never set');
  const quiet = mark({ IPv4: 2, IPv6: 4 }, { IPv4: 3, IPv6: 5 });
  t.type(quiet, 'string', 'each family by its own times');
  const late = (value: number) => mark({ IPv4: 2 }, { IPv4: 3 }, `switchyard_out_of_date{ip_family="IPv4"} ${value}`);
  t.equal(late(1), undefined, 'a change that came while its last sync ran');
  t.type(late(0), 'string', 'and when that is programmed');
  const changes = 'kubeproxy_sync_proxy_rules_endpoint_changes_total';
  t.not(
    mark({ IPv4: 2 }, { IPv4: 3 }, `${changes} 1`),
    mark({ IPv4: 2 }, { IPv4: 3 }, `${changes} 2`),
    'something seen since',
  );
});

/** Lines of `nft monitor trace` (nft 1.0.6), packets shortened. */
const line = (text: string, id = '5efc5c8d') => `trace id ${id} ip kube-proxy ${text} \n`;
const packet = (chain: string, daddr: string, dport: number, id?: string) =>
  line(
    `${chain} packet: iif "eth0" ip saddr 192.168.1.50 ip daddr ${daddr} ip ttl 64 tcp sport 4 tcp dport ${dport} tcp flags == syn`,
    id,
  );
const TO_NODE = [
  'trace id 5efc5c8d inet lab-trace in rule meta nftrace set 1 (verdict continue)\n',
  packet('filter-prerouting-pre-dnat', '192.168.1.100', 30080),
  line('filter-prerouting-pre-dnat rule ct state new jump firewall-check (verdict jump firewall-check)'),
  line('filter-prerouting-pre-dnat policy accept'),
  packet('nat-prerouting', '192.168.1.100', 30080),
  line('nat-prerouting rule jump services (verdict jump services)'),
];
const TRANSLATED = [
  ...TO_NODE,
  line('services rule ip daddr @nodeport-ips vmap @service-nodeports (verdict goto external-X-ns/a/tcp/)'),
  line('external-X-ns/a/tcp/ rule meta mark set meta mark | 0x00004000 comment "masquerade" (verdict continue)'),
  line('external-X-ns/a/tcp/ rule goto service-X-ns/a/tcp/ (verdict goto service-X-ns/a/tcp/)'),
  line('service-X-ns/a/tcp/ rule meta l4proto tcp dnat ip to 10.42.0.12:80 (verdict accept)'),
  packet('filter-forward', '10.42.0.12', 80),
  line('filter-forward rule ct state new jump cluster-ips-check (verdict jump cluster-ips-check)'),
  line('filter-forward policy accept meta mark 0x00004000'),
  packet('nat-postrouting', '10.42.0.12', 80),
  line('nat-postrouting rule jump masquerading (verdict jump masquerading)'),
];

t.test('pathOfTrace()', async (t) => {
  const chains = ['nat-prerouting', 'services', 'external-X-ns/a/tcp/', 'service-X-ns/a/tcp/'];
  const rows: readonly {
    name: string;
    lines: readonly string[];
    complete: boolean;
    want: Partial<Path> | undefined;
  }[] = [
    { name: 'nothing', lines: [], complete: false, want: undefined },
    {
      name: 'translated and masqueraded',
      lines: [
        ...TRANSLATED,
        line('masquerading rule meta mark & 0x4000 != 0 masquerade fully-random (verdict accept)'),
      ],
      complete: true,
      want: { chains, destination: '10.42.0.12:80', masqueraded: true, verdict: undefined },
    },
    {
      name: 'translated only',
      lines: [...TRANSLATED, line('nat-postrouting policy accept')],
      complete: true,
      want: { chains, destination: '10.42.0.12:80', masqueraded: false, verdict: undefined },
    },
    { name: 'on its way', lines: TRANSLATED, complete: false, want: { chains } },
    {
      name: 'another packet of the same number, and one of another',
      lines: [
        ...TRANSLATED,
        line('nat-postrouting policy accept'),
        packet('nat-prerouting', '1.1.1.1', 1, 'another'),
        packet('filter-forward', '9.9.9.9', 9),
        line('filter-forward policy drop'),
      ],
      complete: true,
      want: { chains, destination: '10.42.0.12:80', verdict: undefined },
    },
    {
      name: 'rejected',
      lines: [
        ...TO_NODE,
        line('nat-prerouting policy accept'),
        packet('filter-input', '192.168.1.100', 30080),
        line('filter-input rule ct state new jump nodeport-endpoints-check (verdict jump nodeport-endpoints-check)'),
        line('nodeport-endpoints-check rule vmap @no-endpoint-nodeports (verdict goto reject-chain)'),
        line('reject-chain rule reject (verdict drop)'),
      ],
      complete: true,
      want: {
        chains: ['filter-input', 'nodeport-endpoints-check', 'reject-chain'],
        destination: undefined,
        verdict: 'REJECT',
      },
    },
    {
      name: 'dropped before it is translated',
      lines: [
        packet('filter-prerouting-pre-dnat', '1.2.3.4', 80),
        line('filter-prerouting-pre-dnat rule ct state new jump firewall-check (verdict jump firewall-check)'),
        line('firewall-check rule vmap @firewall-ips (verdict goto firewall-X)'),
        line('firewall-X rule ip saddr != 10.0.0.0/8 drop (verdict drop)'),
      ],
      complete: true,
      want: { chains: ['filter-prerouting-pre-dnat', 'firewall-check', 'firewall-X'], verdict: 'DROP' },
    },
    {
      name: 'none of ours decides',
      lines: [
        ...TO_NODE,
        line('nat-prerouting policy accept'),
        packet('filter-input', '192.168.1.100', 9),
        line('filter-input policy accept'),
      ],
      complete: true,
      want: { chains: [], destination: undefined, verdict: undefined },
    },
  ];
  for (const { name, lines, complete, want } of rows) {
    t.match(pathOfTrace(lines.join('')), want, name);
    t.equal(isTraceComplete(lines.join('')), complete, `${name}: complete`);
  }
});
