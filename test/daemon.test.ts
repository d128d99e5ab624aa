import { createServer } from 'node:net';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { loadConfig } from '../src/config/load.ts';
import type { Config } from '../src/config/types.ts';
import type { ClusterAccess } from '../src/daemon/cluster.ts';
import { runDaemon } from '../src/daemon.ts';
import { FakeDataplane } from '../src/modes/fake-dataplane.ts';
import { FakeRuleset } from '../src/modes/fake-ruleset.ts';
import type { FamilySettings, ModeDeps, ModeSettings, OpenMode } from '../src/modes/index.ts';
import { FakeConntrack } from '../src/netlink/fake-conntrack.ts';
import { FAMILIES, type WatchEvent } from '../src/proxier/types.ts';
import { FakeClock } from '../src/sys/fake-clock.ts';
import { FakeSysctl } from '../src/sys/fake-proc.ts';
import type { Source, SourceHandlers } from '../src/watch/source.ts';
import { ip, makeNode, makeService, makeSlice, NODE_NAME } from './lib/make.ts';

/** A source whose events the test tells. */
class FakeSource implements Source {
  handlers: SourceHandlers | undefined;
  async run(handlers: SourceHandlers, signal: AbortSignal): Promise<void> {
    this.handlers = handlers;
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  }
  tell(...events: WatchEvent[]): void {
    for (const event of events) this.handlers?.onEvent(event);
  }
}

type Rulesets = Readonly<Record<'own' | 'legacy' | 'nftables', FakeRuleset>>;

/** A whole daemon: real HTTP servers on free ports, everything else in memory. */
async function makeDaemon(
  overrides: Partial<Config> = {},
  faults: { eventsLastMs?: number; faulty?: (rulesets: Rulesets) => void } = {},
) {
  const { config } = await loadConfig({ 'hostname-override': NODE_NAME }, { readFile: async () => '' });
  const clock = new FakeClock();
  const [nodes, services] = [new FakeSource(), new FakeSource()];
  const events: Record<string, unknown>[] = [];
  const planes: FakeDataplane[] = [];
  const opened: { settings: ModeSettings; families: FamilySettings[]; deps: ModeDeps }[] = [];
  const lines: Record<string, unknown>[] = [];
  const oom: number[] = [];
  const conntrack = new FakeConntrack();
  const rulesets = {
    own: new FakeRuleset('iptables', 'nft'),
    legacy: new FakeRuleset('iptables', 'legacy'),
    nftables: new FakeRuleset('nftables'),
  };
  faults.faulty?.(rulesets);
  for (const ruleset of Object.values(rulesets)) for (const family of FAMILIES) ruleset.there.add(family);
  let closed = 0;
  const cluster: ClusterAccess = {
    nodeSource: () => nodes,
    serviceSource: services,
    events: {
      post: async (_path, body) => {
        if (faults.eventsLastMs) await clock.sleep(faults.eventsLastMs);
        events.push({ ...body });
      },
      patch: async () => {},
      isFinal: () => true,
    },
    requests: () => [{ method: 'GET', host: 'api:6443', code: '200', count: 4 }],
    clockSkewMs: () => 7_200_000,
    close: () => void closed++,
  };
  const openMode = async (settings: ModeSettings, deps: ModeDeps): Promise<OpenMode> => {
    const families: FamilySettings[] = [];
    opened.push({ settings, families, deps });
    return {
      mode: 'iptables',
      flavour: 'nft',
      description: 'in memory',
      support: { IPv4: undefined, IPv6: undefined },
      createDataplane(options) {
        families.push(options);
        deps.metrics(options.family).rules('nat', 5, 2);
        const plane = new FakeDataplane(options.family, clock);
        planes.push(plane);
        return plane;
      },
      packets: { ctStateInvalidDropped: async () => 11, localhostNodePortsAccepted: async () => undefined },
    };
  };
  const stop = new AbortController();
  const running = runDaemon(
    {
      ...config,
      metricsBindAddress: '127.0.0.1:0',
      healthzBindAddress: '127.0.0.1:0',
      conntrack: { ...config.conntrack, maxPerCore: 0, tcpEstablishedTimeoutMs: 0, tcpCloseWaitTimeoutMs: 0 },
      ...overrides,
    },
    {
      log: pino({ level: 'debug', base: null }, { write: (line: string) => void lines.push(JSON.parse(line)) }),
      clock,
      sysctl: new FakeSysctl({ 'net/netfilter/nf_conntrack_tcp_be_liberal': 0 }),
      hashSize: { get: () => 0, set: () => {} },
      hasIPv6: true,
      conntrack,
      setOomScore: async (score) => void oom.push(score),
      openCluster: async () => cluster,
      openMode,
      rulesets: Object.values(rulesets),
      processes: { here: () => [['/usr/local/bin/kube-proxy', '--config=x']] },
      listeners: { on: () => ({ pid: 77, program: 'kube-proxy' }) },
      capabilities: () => undefined,
      otherFlavourUsers: async () => [],
      exec: { run: () => Promise.reject(new Error('no program is to be run')) },
      nodeAddresses: async () => [ip('127.0.0.1'), ip('192.168.0.2'), ip('10.9.9.9'), ip('fd00::2')],
    },
    stop.signal,
  );
  let failure: unknown;
  const ended = running.catch((error: unknown) => {
    failure = error;
  });
  await clock.advance(0);
  /** Waits for the kernel's answer to listen(), which no fake clock hurries. */
  const port = async (server: string): Promise<number> => {
    for (;;) {
      const line = lines.find((l) => l['server'] === server && l['msg'] === 'listening');
      if (line !== undefined) return Number(line['port']);
      await clock.advance(0);
    }
  };
  return {
    clock,
    nodes,
    services,
    events,
    planes,
    opened,
    lines,
    oom,
    conntrack,
    failure: () => failure,
    rulesets,
    counts: () => ({ closed }),
    knowNode: async (overrides: Parameters<typeof makeNode>[0] = {}) => {
      nodes.tell({ type: 'upsert', object: makeNode(overrides) }, { type: 'synced', kind: 'Node' });
      await clock.advance(0);
    },
    get: async (server: 'health' | 'metrics', path: string) => {
      const r = await fetch(`http://127.0.0.1:${await port(server)}${path}`, { headers: { Connection: 'close' } });
      return { status: r.status, body: await r.text() };
    },
    async stop() {
      stop.abort();
      await ended;
    },
  };
}
type Daemon = Awaited<ReturnType<typeof makeDaemon>>;

function story(name: string, options: Partial<Config>, body: (t: Test, d: Daemon) => Promise<void>) {
  t.test(name, async (t) => {
    const d = await makeDaemon(options);
    await body(t, d).finally(d.stop);
    t.equal(d.clock.sleeping, 0, 'leaves no timer behind');
    t.equal(d.counts().closed, 1, 'closes its connections');
  });
}

const synced: WatchEvent[] = [
  { type: 'synced', kind: 'Service' },
  { type: 'synced', kind: 'EndpointSlice' },
];

story('from the first event to the kernel, and what is told of it', {}, async (t, d) => {
  await d.clock.advance(100_000);
  t.equal(d.opened.length, 0, 'before the node is known nothing is touched');
  t.equal(d.services.handlers, undefined);
  await d.knowNode({ zone: 'east' });
  t.same(d.oom, [-999]);
  for (const said of [
    /^the clock of this node .* is 7200 s behind the API server's/,
    /^another proxy runs on this node/,
  ]) {
    t.equal(d.lines.filter(({ level, msg }) => level === 40 && said.test(String(msg))).length, 1, String(said));
  }
  t.match(d.events, [
    { reason: 'Starting', action: 'StartKubeProxy', type: 'Normal', regarding: { kind: 'Node', name: NODE_NAME } },
  ]);
  t.equal((await d.get('health', '/healthz')).status, 200);
  d.services.tell({ type: 'upsert', object: makeService() }, { type: 'upsert', object: makeSlice() });
  await d.clock.advance(5000);
  t.same(
    d.planes.map((p) => p.syncs.length),
    [0, 0],
  );
  d.services.tell(...synced);
  await d.clock.advance(0);
  t.same(
    d.planes.map((p) => [p.family, p.programmed.size]),
    [
      ['IPv4', 1],
      ['IPv6', 0],
    ],
  );

  const metrics = (await d.get('metrics', '/metrics')).body;
  for (const line of [
    'kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} ',
    'kubeproxy_iptables_ct_state_invalid_dropped_packets_total 11\n',
    'kubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv6",table="nat"} 5\n',
    'kubeproxy_sync_proxy_rules_iptables_last{ip_family="IPv4",table="nat"} 2\n',
    'process_resident_memory_bytes ',
    'rest_client_requests_total{code="200",host="api:6443",method="GET"} 4\n',
    'kubernetes_feature_enabled{name="AllowServiceExternalIPs",stage=""} 1\n',
  ]) {
    t.ok(metrics.includes(`\n${line}`), line);
  }
  t.same(await d.get('metrics', '/proxyMode'), { status: 200, body: 'iptables' });
  t.match(JSON.parse((await d.get('metrics', '/debug/state')).body), {
    node: NODE_NAME,
    families: [
      { family: 'IPv4', services: 1, zone: 'east', lastFailure: null },
      { family: 'IPv6', services: 0 },
    ],
  });
  const configz = JSON.parse((await d.get('metrics', '/configz')).body)['kubeproxy.config.k8s.io'];
  t.match(configz, {
    kind: 'KubeProxyConfiguration',
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    mode: 'iptables',
  });

  d.services.handlers?.onInvalid({
    kind: 'Service',
    key: 'ns/bad',
    field: 'spec.ports',
    message: 'is "x", must be a list',
  });
  t.match((await d.get('metrics', '/metrics')).body, /^switchyard_invalid_objects_total\{kind="Service"\} 1$/m);
  t.match(d.lines.at(-1), { kind: 'Service', key: 'ns/bad', field: 'spec.ports' });

  d.nodes.tell({ type: 'upsert', object: makeNode({ taintKeys: ['ToBeDeletedByClusterAutoscaler'] }) });
  t.equal((await d.get('health', '/healthz')).status, 503);
  t.equal((await d.get('health', '/livez')).status, 200);
  t.equal(d.failure(), undefined);
});

const logged = (d: Daemon, text: string) => d.lines.filter((line) => String(line['msg']).includes(text)).length;

story('rules of other modes go when every family is programmed, and not before', {}, async (t, d) => {
  const [gone, there] = [
    [0, 0],
    [2, 2],
  ];
  const left = () => [d.rulesets.legacy.there.size, d.rulesets.nftables.there.size];
  await d.knowNode();
  await d.clock.advance(100_000);
  t.same(left(), there, 'while the services are not known');
  const [ipv4, ipv6] = d.planes;
  if (ipv4 === undefined || ipv6 === undefined) throw new Error('Cannot test: there is no dataplane');
  ipv6.failures = 1;
  d.services.tell({ type: 'upsert', object: makeService() }, ...synced);
  await d.clock.advance(1_000);
  t.equal(ipv4.programmed.size, 1);
  t.same(left(), there, 'while one family has failed');
  d.rulesets.nftables.failures = 2;
  await d.clock.advance(30_000);
  t.same(left(), [0, 2], 'one fails');
  t.equal(d.rulesets.nftables.removals, 1);
  await d.clock.advance(10_000);
  t.same(left(), [0, 2], 'and again');
  await d.clock.advance(20_000);
  t.same(left(), gone, 'until it does not');
  t.equal(logged(d, 'rules of another mode stay for now'), 1, 'one warning for one reason');
  t.equal(d.rulesets.legacy.removals, 1);
  t.equal(d.rulesets.own.there.size, 2, 'those of this mode stay');
  await d.clock.advance(58_000);
  d.rulesets.legacy.there.add('IPv4');
  await d.clock.advance(2_000);
  t.same(left(), gone, 'what came back is removed');
  t.equal(logged(d, 'came back: another proxy writes them'), 1);
  await d.clock.advance(120_000);
  d.rulesets.legacy.there.add('IPv4');
  await d.clock.advance(10_000_000);
  t.same(left(), [1, 0], 'after a look that finds nothing there is no other one');
});

story('rules of other modes that somebody else holds are left in peace', {}, async (t, d) => {
  d.rulesets.legacy.hold('IPv4');
  await d.knowNode();
  d.services.tell(...synced);
  await d.clock.advance(10_000_000);
  t.equal(d.rulesets.legacy.removals, 2);
  t.equal(logged(d, 'came back'), 0);
});

for (const allowed of [true, false]) {
  const featureGates = { AllowServiceExternalIPs: allowed };
  story(`external IPs with the gate ${allowed ? 'on' : 'off'}`, { featureGates }, async (t, d) => {
    await d.knowNode();
    d.services.tell({ type: 'upsert', object: makeService({ externalIPs: ['1.2.3.4'] }) }, ...synced);
    await d.clock.advance(0);
    const plan = [...(d.planes[0]?.programmed.values() ?? [])][0];
    t.same(plan?.ports[0]?.port.externalIPs, allowed ? ['1.2.3.4'] : []);
  });
}

const stale = { family: 'IPv4', protocol: 'UDP', source: '192.168.7.7', sourcePort: 4000, toPort: 30053 } as const;
for (const { name, options, left } of [
  { name: 'all addresses', options: {}, left: ['8.8.8.8'] },
  {
    name: 'some addresses',
    options: { nodePortAddresses: ['192.168.0.0/16'] },
    left: ['10.9.9.9', '127.0.0.1', '8.8.8.8'],
  },
  {
    name: 'not on loopback',
    options: { iptables: { localhostNodePorts: false, masqueradeBit: 14 } },
    left: ['127.0.0.1', '8.8.8.8'],
  },
]) {
  story(`stale UDP flows to node ports are deleted: ${name}`, options, async (t, d) => {
    const ends = { fromAddress: '10.180.0.99', fromPort: 53 };
    d.conntrack.flows = ['10.9.9.9', '127.0.0.1', '192.168.0.2', '8.8.8.8'].map((toAddress) => ({
      ...stale,
      ...ends,
      toAddress,
    }));
    await d.knowNode();
    const ports = [{ name: '', protocol: 'UDP', port: 53, nodePort: 30053 }] as const;
    d.services.tell({ type: 'upsert', object: makeService({ type: 'NodePort', ports }) }, ...synced);
    // Addresses are asked for, flows too: a few turns.
    await d.clock.advance(5000);
    await d.clock.advance(5000);
    t.same(
      d.conntrack.flows.map((f) => f.toAddress),
      left,
    );
    t.equal(d.conntrack.dumps, 1, 'one dump; none for IPv6');
  });
}

story('a refused service is an event on it', {}, async (t, d) => {
  await d.knowNode();
  const service = makeService();
  d.planes[0]?.refuses.add(service.key);
  d.services.tell({ type: 'upsert', object: service }, ...synced);
  await d.clock.advance(0);
  t.match(d.events.slice(1), [
    {
      type: 'Warning',
      reason: 'FailedToProgramService',
      regarding: { apiVersion: 'v1', kind: 'Service', namespace: 'ns1', name: 'svc1' },
      note: `node ${NODE_NAME} left this service out (IPv4): Invalid argument: -A X ns1/svc1`,
    },
  ]);
});

t.test('what a dataplane is told', async (t) => {
  const rows: readonly {
    name: string;
    config: Partial<Config>;
    node?: Parameters<typeof makeNode>[0];
    want: readonly object[];
  }[] = [
    {
      name: 'defaults',
      config: {},
      want: [
        {
          family: 'IPv4',
          localTraffic: { kind: 'none' },
          nodePortAddresses: { matchAll: true },
          nodeIP: '192.168.0.2',
          localhostNodePorts: true,
        },
        {
          family: 'IPv6',
          localTraffic: { kind: 'none' },
          nodePortAddresses: { matchAll: true },
          nodeIP: '::1',
          localhostNodePorts: false,
        },
      ],
    },
    {
      name: 'primary: no loopback, and every address of the family without one',
      config: { nodePortAddresses: ['primary'] },
      want: [
        { nodePortAddresses: { matchAll: false, cidrs: ['192.168.0.2/32'] }, localhostNodePorts: false },
        { nodePortAddresses: { matchAll: true } },
      ],
    },
    {
      name: 'pod CIDRs of the node',
      config: { detectLocalMode: 'NodeCIDR' },
      node: { podCIDRs: ['10.1.0.0/24', 'fd01::/64'] },
      want: [
        { localTraffic: { kind: 'cidr', cidr: '10.1.0.0/24' } },
        { localTraffic: { kind: 'cidr', cidr: 'fd01::/64' } },
      ],
    },
    {
      name: 'localhost node ports switched off, a bridge',
      config: {
        iptables: { masqueradeBit: 3, localhostNodePorts: false },
        detectLocalMode: 'BridgeInterface',
        detectLocal: { bridgeInterface: 'cni0', interfaceNamePrefix: '', clusterCIDRs: [] },
      },
      want: [
        { localhostNodePorts: false, localTraffic: { kind: 'bridge', name: 'cni0' } },
        { localTraffic: { kind: 'bridge' } },
      ],
    },
  ];
  for (const { name, config, node, want } of rows) {
    t.test(name, async (t) => {
      const d = await makeDaemon(config);
      await d.knowNode(node);
      t.match(d.opened[0]?.families, want);
      t.equal(d.opened[0]?.settings.masqueradeBit, config.iptables?.masqueradeBit ?? 14);
      await d.stop();
      t.equal(d.failure(), undefined);
    });
  }
});

story(
  'health check node ports listen on the node port addresses',
  { nodePortAddresses: ['127.0.0.0/8'] },
  async (t, d) => {
    await d.knowNode();
    const blocker = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => blocker.once('listening', resolve));
    const at = blocker.address();
    const port = at !== null && typeof at !== 'string' ? at.port : 0;
    d.services.tell(
      {
        type: 'upsert',
        object: makeService({ type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: port }),
      },
      ...synced,
    );
    while (d.events.length < 2) await d.clock.advance(0);
    t.match(d.events[1], {
      reason: 'FailedToStartServiceHealthcheck',
      action: 'Listen',
      type: 'Warning',
      note: new RegExp(
        `^node ${NODE_NAME} failed to start healthcheck "ns1/svc1" on port ${port}: .*EADDRINUSE.*127.0.0.1`,
      ),
    });
    blocker.close();
  },
);

t.test('ends', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  t.teardown(() => void taken.close());
  const at = taken.address();
  const address = `127.0.0.1:${at !== null && typeof at !== 'string' ? at.port : 0}`;

  t.test('when the pod CIDRs it works with change', async (t) => {
    const d = await makeDaemon({ detectLocalMode: 'NodeCIDR' });
    await d.knowNode({ podCIDRs: ['10.0.0.0/24'] });
    t.equal(d.failure(), undefined);
    await d.knowNode({ podCIDRs: ['10.0.1.0/24'] });
    t.match(d.failure(), { message: /Cannot go on with the pod CIDRs/ });
    t.equal(d.counts().closed, 1);
  });

  t.test('when an address cannot be served and that is to be fatal, with a last word', async (t) => {
    const d = await makeDaemon({ metricsBindAddress: address, bindAddressHardFail: true }, { eventsLastMs: 50 });
    await d.knowNode();
    while (d.failure() === undefined) await d.clock.advance(10);
    t.match(d.failure(), { message: /^Cannot serve metrics on .*EADDRINUSE/ });
    t.match(d.events.at(-1), { reason: 'FailedToStartMetricServer', regarding: { kind: 'Node' }, note: /EADDRINUSE/ });
  });

  t.test('not when it need not be', async (t) => {
    const d = await makeDaemon({ metricsBindAddress: address });
    await d.knowNode();
    const told = () => d.lines.filter((l) => String(l['msg']).startsWith('not listening'));
    while (told().length === 0) await d.clock.advance(0);
    t.match(told(), [{ level: 50, takenBy: 'kube-proxy (process 77)', todo: /stop it/ }]);
    while (told().length === 1) await d.clock.advance(1_000);
    t.match(told()[1], { level: 20 }, 'and not again and again');
    t.equal(d.failure(), undefined);
    await d.stop();
  });

  t.test('when the configuration does not fit the node', async (t) => {
    const d = await makeDaemon({ detectLocalMode: 'NodeCIDR' });
    await d.knowNode({ podCIDRs: ['fd00::/64'] });
    t.match(d.failure(), { message: /podCIDRs of the node has no IPv4 address/ });
  });

  t.test('after --init-only, with the dataplanes made and nothing started', async (t) => {
    const d = await makeDaemon({ initOnly: true });
    await d.knowNode();
    t.equal(d.failure(), undefined);
    t.equal(d.opened[0]?.families.length, 2);
    t.equal(d.services.handlers, undefined);
    t.same(d.events, []);
    t.equal(d.counts().closed, 1);
    t.equal(d.clock.sleeping, 0);
  });

  t.test('after --cleanup, without asking the cluster anything', async (t) => {
    const d = await makeDaemon({ cleanup: true });
    await d.stop();
    t.equal(d.failure(), undefined);
    t.same(d.counts(), { closed: 0 });
    t.equal(d.nodes.handlers, undefined);
    t.same(
      Object.values(d.rulesets).map(({ there, removals }) => [there.size, removals]),
      [
        [0, 1],
        [0, 1],
        [0, 1],
      ],
      'every mode, its own too',
    );
    const failing = await makeDaemon({ cleanup: true }, { faulty: (rulesets) => void rulesets.legacy.failures++ });
    await failing.stop();
    t.match(failing.failure(), { message: 'Cannot remove all rules: Cannot remove iptables (legacy): told to fail' });
    t.equal(failing.rulesets.nftables.there.size, 0, 'the others are removed all the same');
    const held = await makeDaemon({ cleanup: true }, { faulty: (rulesets) => rulesets.own.hold('IPv6') });
    await held.stop();
    t.match(held.failure(), { message: 'Cannot remove all rules: iptables (nft) keeps IPv6: held' });
  });

  t.test('while it waits for the node, when told to', async (t) => {
    const d = await makeDaemon();
    await d.stop();
    t.equal(d.failure(), undefined);
    t.equal(d.clock.sleeping, 0);
  });
});
