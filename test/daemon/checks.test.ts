import { once } from 'node:events';
import { createServer } from 'node:http';
import t from 'tap';
import { loadConfig } from '../../src/config/load.ts';
import { type CheckInput, checkFamilies } from '../../src/daemon/checks.ts';
import { openCluster } from '../../src/daemon/cluster.ts';
import { hasIPv6, servedFamilies } from '../../src/daemon/families.ts';
import { othersOf } from '../../src/daemon/leftovers.ts';
import { checkClock, checkNode, clockHint, isProxy } from '../../src/daemon/node-checks.ts';
import { StatusLog } from '../../src/daemon/status-log.ts';
import { Tasks } from '../../src/daemon/tasks.ts';
import { FakeRuleset } from '../../src/modes/fake-ruleset.ts';
import type { OpenMode } from '../../src/modes/index.ts';
import { usersOfOtherFlavour } from '../../src/modes/iptables/other-flavour.ts';
import { createRulesets } from '../../src/modes/rulesets.ts';
import { FakeNftables } from '../../src/netlink/nftables/fake-nftables.ts';
import type { NftFamily } from '../../src/netlink/nftables/transaction.ts';
import type { Family } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { FakeExec } from '../../src/sys/fake-exec.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';
import { findListener } from '../../src/sys/listeners.ts';

type Flavour = NonNullable<OpenMode['flavour']>;

interface Row {
  readonly name: string;
  readonly mode?: CheckInput['config']['detectLocalMode'];
  readonly clusterCIDRs?: readonly string[];
  readonly podCIDRs?: readonly string[];
  readonly excludeCIDRs?: readonly string[];
  readonly nodePorts?: readonly string[];
  readonly configuredNodePorts?: readonly string[];
  readonly healthz?: string;
  readonly metrics?: string;
  readonly primary?: Family;
  readonly dualStack?: boolean;
  readonly warnings?: readonly RegExp[];
  readonly errors?: readonly RegExp[];
}

const rows: readonly Row[] = [
  { name: 'nothing to say' },
  { name: 'node ports on every address', nodePorts: [], warnings: [/nodePortAddresses is not set/] },
  { name: 'primary that came to nothing', nodePorts: [], configuredNodePorts: ['primary'], warnings: [/has no IPv4/] },
  {
    name: 'node ports of the other family only',
    nodePorts: ['fd00::/64'],
    warnings: [/nodePortAddresses has no IPv4/],
  },
  {
    name: 'node ports of one family, pods of both',
    podCIDRs: ['10.0.0.0/24', 'fd00::/64'],
    warnings: [/nodePortAddresses has IPv4 only/],
  },
  {
    name: 'node ports of both families, pods of both',
    nodePorts: ['10.0.0.0/8', 'fd00::/8'],
    podCIDRs: ['10.0.0.0/24', 'fd00::/64'],
  },
  {
    name: 'an IPv6 node that says so everywhere',
    primary: 'IPv6',
    nodePorts: ['fd00::/8'],
    clusterCIDRs: ['fd00::/48'],
    healthz: '[::1]:1',
    metrics: '[::1]:2',
    dualStack: false,
  },
  {
    name: 'cluster CIDR of the wrong family, both served',
    clusterCIDRs: ['fd00::/48'],
    warnings: [/clusterCIDR has no IPv4 address, but IPv4 is the primary family/],
  },
  {
    name: 'cluster CIDR of the wrong family, one served',
    clusterCIDRs: ['fd00::/48'],
    dualStack: false,
    errors: [/clusterCIDR has no IPv4 address, but only IPv4 can be programmed/],
  },
  {
    name: 'cluster CIDR of the wrong family that nobody reads',
    mode: 'BridgeInterface',
    clusterCIDRs: ['fd00::/48'],
    dualStack: false,
    warnings: [/clusterCIDR/],
  },
  {
    name: 'cluster CIDRs of both families',
    clusterCIDRs: ['fd00::/48', '10.0.0.0/8'],
    nodePorts: ['10.0.0.0/8', 'fd00::/8'],
    dualStack: false,
  },
  {
    name: 'pod CIDRs of the wrong family, needed',
    mode: 'NodeCIDR',
    podCIDRs: ['fd00::/64'],
    errors: [/podCIDRs of the node/],
  },
  { name: 'pod CIDRs of the wrong family, not needed', podCIDRs: ['fd00::/64'], warnings: [/podCIDRs of the node/] },
  {
    name: 'the rest of the wrong family, one served',
    excludeCIDRs: ['fd00::/64'],
    healthz: '[::1]:1',
    metrics: '[::1]:2',
    dualStack: false,
    warnings: [/excludeCIDRs/, /healthzBindAddress/, /metricsBindAddress/],
  },
  {
    name: 'the rest of the wrong family, both served',
    excludeCIDRs: ['fd00::/64'],
    healthz: '[::1]:1',
    metrics: '[::1]:2',
  },
  { name: 'unspecified addresses have no family', healthz: '[::]:1', metrics: '[::]:2', dualStack: false },
  { name: 'no health server', healthz: '', dualStack: false },
];

t.test('checkFamilies()', async (t) => {
  for (const row of rows) {
    const nodePortAddresses = row.nodePorts ?? ['10.0.0.0/8'];
    const got = checkFamilies({
      config: {
        detectLocalMode: row.mode ?? 'ClusterCIDR',
        detectLocal: { bridgeInterface: '', interfaceNamePrefix: '', clusterCIDRs: row.clusterCIDRs ?? [] },
        ipvs: {
          excludeCIDRs: row.excludeCIDRs ?? [],
          scheduler: '',
          strictARP: false,
          tcpTimeoutMs: 0,
          tcpFinTimeoutMs: 0,
          udpTimeoutMs: 0,
        },
        healthzBindAddress: row.healthz ?? '0.0.0.0:10256',
        metricsBindAddress: row.metrics ?? '127.0.0.1:10249',
      },
      nodePortAddresses,
      configuredNodePortAddresses: row.configuredNodePorts ?? nodePortAddresses,
      podCIDRs: row.podCIDRs ?? [],
      primary: row.primary ?? 'IPv4',
      dualStack: row.dualStack ?? true,
    });
    t.match(got, { warnings: row.warnings ?? [], errors: row.errors ?? [] }, row.name);
    t.same(
      [got.warnings.length, got.errors.length],
      [row.warnings?.length ?? 0, row.errors?.length ?? 0],
      `${row.name}: and no more`,
    );
  }
});

t.test('servedFamilies(), hasIPv6()', async (t) => {
  const no = new Error('no ip6tables');
  for (const { name, v4, v6, ipv6 = true, primary = 'IPv4', want } of [
    { name: 'both', want: ['IPv4', 'IPv6'] },
    { name: 'no tool for IPv6', v6: no, want: ['IPv4'] },
    { name: 'IPv6 switched off', ipv6: false, want: ['IPv4'] },
    { name: 'no tool for IPv4', v4: no, primary: 'IPv6', want: ['IPv6'] },
    { name: 'the primary family is missing', v4: no, want: /^Cannot serve IPv4, .*: no ip6tables$/ },
    {
      name: 'the primary family is switched off',
      ipv6: false,
      primary: 'IPv6',
      want: /^Cannot serve IPv6, .*: IPv6 is switched off/,
    },
    { name: 'none', v4: no, v6: no, want: /^Cannot serve IPv4/ },
  ] as const) {
    const served = () => servedFamilies({ IPv4: v4, IPv6: v6 }, primary, ipv6);
    if (want instanceof RegExp) t.throws(served, { message: want }, name);
    else t.same(served(), want, name);
  }
  const on = new FakeSysctl({ 'net/ipv6/conf/all/disable_ipv6': 0 });
  const off = new FakeSysctl({ 'net/ipv6/conf/all/disable_ipv6': 1 });
  t.same([hasIPv6(on, () => true), hasIPv6(off, () => true), hasIPv6(on, () => false)], [true, false, false]);
});

t.test('Tasks', async (t) => {
  const until = (signal: AbortSignal) =>
    new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  t.test('all end when one fails, and the failure is told', async (t) => {
    const tasks = new Tasks(new AbortController().signal);
    let ended = 0;
    tasks.start(async (signal) => {
      await until(signal);
      ended++;
    });
    tasks.start(async () => {
      throw new Error('first');
    });
    await t.rejects(tasks.race(new Promise(() => {})), { message: 'first' });
    await t.rejects(tasks.end(), { message: 'first' });
    t.equal(ended, 1);
  });
  t.test('all end when told to from outside, without failure', async (t) => {
    const outer = new AbortController();
    const tasks = new Tasks(outer.signal);
    tasks.start(async (signal) => {
      await until(signal);
      throw new Error('said while stopping');
    });
    outer.abort();
    await tasks.end();
    await tasks.stop();
    t.equal(tasks.signal.aborted, true);
  });
  t.test('end when the last has ended by itself', async (t) => {
    const tasks = new Tasks(new AbortController().signal);
    tasks.start(async () => {});
    await tasks.end();
    t.equal(tasks.signal.aborted, false);
    t.equal(await tasks.race(Promise.resolve(7)), 7);
  });
});

t.test('checkNode()', async (t) => {
  const NET_ADMIN = 1n << 12n;
  const NET_RAW = 1n << 13n;
  const healthy = {
    'net/netfilter/nf_conntrack_max': 262_144,
    'net/ipv4/ip_forward': 1,
    'net/ipv6/conf/all/forwarding': 1,
  };
  const rows: readonly {
    name: string;
    flavour?: Flavour;
    families?: readonly Family[];
    capabilities?: bigint;
    sysctls?: Readonly<Record<string, number>>;
    running?: readonly (readonly string[])[];
    others?: readonly string[];
    says: readonly RegExp[];
  }[] = [
    { name: 'a healthy node', running: [['/usr/bin/kubelet', '--v=2']], says: [] },
    { name: 'all capabilities', capabilities: (1n << 41n) - 1n, says: [] },
    { name: 'NET_ADMIN is enough for nft', capabilities: NET_ADMIN, says: [] },
    {
      name: 'no capability',
      capabilities: 0n,
      says: [/^this process lacks CAP_NET_ADMIN: run it as root, or grant it/],
    },
    { name: 'legacy with both', flavour: 'legacy', capabilities: NET_ADMIN | NET_RAW, says: [] },
    { name: 'legacy with one', flavour: 'legacy', capabilities: NET_ADMIN, says: [/^this process lacks CAP_NET_RAW:/] },
    { name: 'legacy with none', flavour: 'legacy', capabilities: 0n, says: [/lacks CAP_NET_ADMIN and CAP_NET_RAW:/] },
    {
      name: 'another proxy',
      running: [['/usr/local/bin/kube-proxy', '--config=/var/lib/kube-proxy/config.conf', '--v=2', '--x']],
      says: [
        /^another proxy runs on this node \("\/usr\/local\/bin\/kube-proxy --config=\S+ --v=2"\).*stop one of them/,
      ],
    },
    { name: 'no connection tracking', sysctls: { 'net/ipv4/ip_forward': 1 }, says: [/: modprobe nf_conntrack$/] },
    {
      name: 'IPv4 is not forwarded',
      sysctls: { ...healthy, 'net/ipv4/ip_forward': 0 },
      says: [/^IPv4 packets are not forwarded.*: sysctl -w net\.ipv4\.ip_forward=1$/],
    },
    {
      name: 'IPv6 is not forwarded',
      sysctls: { ...healthy, 'net/ipv6/conf/all/forwarding': 0 },
      says: [/^IPv6 packets .*: sysctl -w net\.ipv6\.conf\.all\.forwarding=1$/],
    },
    {
      name: 'IPv6 is not forwarded, and nobody asks for it',
      families: ['IPv4'],
      sysctls: { ...healthy, 'net/ipv6/conf/all/forwarding': 0 },
      says: [],
    },
    {
      name: 'the wrong flavour',
      others: ['kubelet', 'flannel'],
      says: [
        /^kubelet, flannel on this node have rules in the legacy flavour of iptables, this proxy writes nft; .*--iptables-flavour legacy/,
      ],
    },
    {
      name: 'the wrong flavour, the other way round',
      flavour: 'legacy',
      others: ['kubelet'],
      says: [/^kubelet on this node has rules in the nft flavour of iptables, this proxy writes legacy/],
    },
  ];
  for (const { name, flavour = 'nft', capabilities, running = [], others = [], says, ...row } of rows) {
    t.test(name, async (t) => {
      const look = {
        sysctl: new FakeSysctl(row.sysctls ?? healthy),
        processes: { here: () => running },
        capabilities: () => capabilities,
        otherFlavourUsers: async () => others,
      };
      t.match(await checkNode(look, { mode: { flavour }, families: row.families ?? ['IPv4', 'IPv6'] }), says);
      const told = await checkNode(look, { mode: { flavour }, families: row.families ?? ['IPv4', 'IPv6'] });
      t.equal(told.length, says.length);
    });
  }
  const commands: readonly { argv: readonly string[]; is: boolean }[] = [
    { argv: ['kube-proxy'], is: true },
    { argv: ['/opt/kube-proxy-wrapper', 'kube-proxy'], is: false },
    { argv: ['node', '--expose-gc', '/opt/switchyard/dist/main.js', 'run', '--config', 'x'], is: true },
    { argv: ['sh', '/usr/bin/switchyard', 'run'], is: true },
    { argv: ['/usr/bin/switchyard', 'render'], is: false },
    { argv: ['vim', '/etc/switchyard'], is: false },
    { argv: [], is: false },
  ];
  for (const { argv, is } of commands) t.equal(isProxy(argv), is, argv.join(' '));
});

t.test('othersOf() leaves what the mode itself writes to', async (t) => {
  const rulesets = [
    new FakeRuleset('iptables', 'nft'),
    new FakeRuleset('iptables', 'legacy'),
    new FakeRuleset('nftables'),
  ];
  const rows: readonly { own: Pick<OpenMode, 'mode' | 'flavour'>; others: readonly string[] }[] = [
    { own: { mode: 'iptables', flavour: 'nft' }, others: ['iptables (legacy)', 'nftables'] },
    { own: { mode: 'iptables', flavour: 'legacy' }, others: ['iptables (nft)', 'nftables'] },
    { own: { mode: 'iptables', flavour: undefined }, others: ['nftables'] },
    { own: { mode: 'ipvs', flavour: 'legacy' }, others: ['iptables (nft)', 'nftables'] },
    { own: { mode: 'ipvs' }, others: ['nftables'] },
    { own: { mode: 'nftables' }, others: ['iptables (nft)', 'iptables (legacy)'] },
    { own: { mode: 'ebpf' }, others: ['iptables (nft)', 'iptables (legacy)', 'nftables'] },
  ];
  for (const { own, others } of rows) {
    t.same(
      othersOf({ rulesets, own }).map(({ name }) => name),
      others,
      `${own.mode} ${own.flavour ?? ''}`,
    );
  }
});

t.test('a list of legacy tables that cannot be read is no reason to make them', async (t) => {
  const exec = new FakeExec({});
  const nft = new FakeNftables();
  const rulesets = createRulesets({ exec, clock: new FakeClock(), nft, legacyTables: { names: () => undefined } });
  const [none, unreadable] = await Promise.all(rulesets.map((ruleset) => ruleset.remove()));
  t.same(none, { removed: [], kept: [], errors: [] });
  t.match(unreadable, { errors: [/ip_tables_names\) cannot be read; run as root/, /for IPv6/] });
  t.same(exec.calls, []);
  for (const ruleset of createRulesets({ exec, clock: new FakeClock(), nft, legacyTables: { names: () => [] } })) {
    t.same(await ruleset.remove(), { removed: [], kept: [], errors: [] }, `${ruleset.name}: nothing there`);
  }
  t.same(exec.calls, [], 'to look starts no program');
});

t.test('usersOfOtherFlavour()', async (t) => {
  const saved =
    '*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n*nat\n:FLANNEL-POSTRTG - [0:0]\nCOMMIT\n';
  const rows: readonly {
    name: string;
    own: Flavour;
    legacy: readonly string[] | undefined;
    chains: readonly (readonly [NftFamily, string, string])[];
    programs: ConstructorParameters<typeof FakeExec>[0];
    users: readonly string[];
    starts: number;
  }[] = [
    { name: 'nothing there', own: 'nft', legacy: [], chains: [], programs: {}, users: [], starts: 0 },
    {
      name: 'both in legacy',
      own: 'nft',
      legacy: ['nat', 'mangle'],
      chains: [],
      programs: { 'iptables-legacy-save': () => ({ stdout: saved }), 'ip6tables-legacy-save': () => ({ stdout: '' }) },
      users: ['kubelet', 'flannel'],
      starts: 2,
    },
    { name: 'no program to see them', own: 'nft', legacy: ['nat'], chains: [], programs: {}, users: [], starts: 2 },
    {
      name: 'tables that may not be seen',
      own: 'nft',
      legacy: undefined,
      chains: [],
      programs: {},
      users: [],
      starts: 0,
    },
    {
      name: 'in nft',
      own: 'legacy',
      legacy: ['nat'],
      chains: [
        ['ip', 'mangle', 'KUBE-IPTABLES-HINT'],
        ['ip6', 'nat', 'CNI-HOSTPORT-DNAT'],
        ['ip', 'nat', 'KUBE-SERVICES'],
      ],
      programs: {},
      users: ['kubelet', 'CNI portmap'],
      starts: 0,
    },
  ];
  for (const { name, own, legacy, chains, programs, users, starts } of rows) {
    t.test(name, async (t) => {
      const exec = new FakeExec(programs);
      const nft = new FakeNftables();
      for (const [family, table, chain] of chains) {
        const commands = [
          { verb: 'add', object: 'table' },
          { verb: 'add', object: 'chain', chain: { name: chain } },
        ] as const;
        nft.commit([{ family, table, commands }]);
      }
      t.same(await usersOfOtherFlavour(own, { exec, nft, legacyTables: { names: () => legacy } }), users);
      t.equal(exec.calls.length, starts, 'programs started');
    });
  }
});

t.test('clocks', async (t) => {
  const nowMs = Date.UTC(2026, 0, 1);
  for (const skewMs of [undefined, 0, 59_000, -59_000]) t.same(checkClock(skewMs, nowMs), []);
  t.match(checkClock(61_000, nowMs), [
    /^the clock of this node \(2026-01-01T00:00:00.000Z\) is 61 s behind the API server's: set it/,
  ]);
  t.match(checkClock(-86_400_000, nowMs), [/ is 86400 s ahead of the API server's/]);
  t.equal(clockHint('connect ECONNREFUSED 10.0.0.1:6443', nowMs), undefined);
  for (const why of [
    'Cannot connect to x: certificate is not yet valid',
    'certificate has expired',
    'CERT_HAS_EXPIRED',
  ]) {
    t.match(clockHint(why, nowMs), /^by the clock of this node it is 2026-01-01T00:00:00\.000Z: is it right\?$/, why);
  }
});

t.test('the time of the API server is that of its answers', async (t) => {
  const clock = new FakeClock();
  const serverMs = Math.floor(clock.now() / 1000) * 1000 + 7_200_000;
  const server = createServer((_, response) => {
    response.sendDate = false;
    response.writeHead(404, { Date: new Date(serverMs).toUTCString() }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const at = server.address();
  const port = at !== null && typeof at !== 'string' ? at.port : 0;
  const { config } = await loadConfig({ master: `http://127.0.0.1:${port}` }, { readFile: async () => '' });
  const cluster = await openCluster(config, clock);
  t.equal(cluster.clockSkewMs?.(), undefined, 'unknown before');
  const stop = new AbortController();
  const onStatus = () => stop.abort();
  await cluster.nodeSource('n1').run({ onEvent() {}, onInvalid() {}, onStatus }, stop.signal);
  t.equal(cluster.clockSkewMs?.(), serverMs - clock.now());
  cluster.close();
  server.closeAllConnections();
  server.close();
});

t.test('findListener()', async (t) => {
  const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0000 100 0 0 10 0
   1: 0100007F:2810 0100007F:2809 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0000 100 0 0 10 0
`;
  t.equal(findListener(text, 10_249), '41');
  t.equal(findListener(text, 10_256), undefined, 'a connection is no listener');
  t.equal(findListener('', 1), undefined);
});

t.test(
  'StatusLog tells of a server that is away: once, then once a minute, with since when and how often',
  async (t) => {
    const clock = new FakeClock();
    const lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
    const write = (level: string) => (fields: Record<string, unknown>, message: string) =>
      void lines.push({ level, fields, message });
    let failed = 3;
    const status = new StatusLog({
      log: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') } as never,
      clock,
      requests: () => [
        { method: 'GET', host: 'a', code: '<error>', count: failed },
        { method: 'GET', host: 'a', code: '200', count: 9 },
      ],
    });
    const stop = new AbortController();
    const running = status.run(stop.signal);
    await clock.advance(120_000);
    t.same(lines, [], 'nothing is lost');
    const sinceMs = clock.now();
    const since = new Date(sinceMs).toISOString();
    const why = 'certificate is not yet valid';
    status.told({ state: 'disconnected', kind: 'Service', sinceMs, why, retryInMs: 100 });
    status.told({ state: 'disconnected', kind: 'EndpointSlice', sinceMs: sinceMs + 5, why, retryInMs: 100 });
    t.match(lines.splice(0), [
      { level: 'warn', fields: { kind: 'Service', since, why, hint: /clock/ }, message: /^cannot watch, trying again/ },
      { level: 'warn', fields: { kind: 'EndpointSlice' } },
    ]);
    failed += 12;
    await clock.advance(180_000);
    t.equal(lines.length, 3, 'a line a minute');
    t.match(lines.splice(0).at(-1), {
      level: 'warn',
      fields: { kinds: ['Service', 'EndpointSlice'], since, seconds: 180, tries: 12, why },
      message: /^still cannot watch/,
    });
    status.told({ state: 'connected', kind: 'Service', server: 'a' });
    await clock.advance(60_000);
    t.match(lines.splice(0), [{ level: 'info' }, { fields: { kinds: ['EndpointSlice'] } }]);
    status.told({ state: 'connected', kind: 'EndpointSlice', server: 'a' });
    await clock.advance(600_000);
    t.equal(lines.length, 1, 'and silence when all is well');
    stop.abort();
    await running;
    t.equal(clock.sleeping, 0);
  },
);
