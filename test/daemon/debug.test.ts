/** `/debug/…` over real HTTP, about a real proxier and iptables dataplane over a ruleset in memory. */
import { pino } from 'pino';
import t from 'tap';
import { debugRoutes } from '../../src/daemon/debug.ts';
import { serveHttp } from '../../src/daemon/http.ts';
import { metricsRoutes } from '../../src/daemon/routes.ts';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { fakePrograms, noTrouble } from '../../src/iptables/fake-programs.ts';
import { createTools } from '../../src/iptables/tools.ts';
import { createIptablesDataplane } from '../../src/modes/iptables/apply.ts';
import { FakeNfacct } from '../../src/netlink/fake-nfacct.ts';
import { createFanOut } from '../../src/proxier/fan-out.ts';
import { noHealth } from '../../src/proxier/health.ts';
import { createMetrics } from '../../src/proxier/metrics.ts';
import { Model } from '../../src/proxier/model.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import { Proxier } from '../../src/proxier/proxier.ts';
import type { ServiceObject, WatchEvent } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { FakeExec } from '../../src/sys/fake-exec.ts';
import { makeOptions } from '../lib/iptables-world.ts';
import { ip, makeNode, makeService, makeSlice, makeSliceEndpoint, NODE_NAME } from '../lib/make.ts';

const START = Date.parse('2026-01-02T03:04:05.000Z');
const synced: WatchEvent[] = [
  { type: 'synced', kind: 'Service' },
  { type: 'synced', kind: 'EndpointSlice' },
];
const upsert = (object: ServiceObject | ReturnType<typeof makeSlice>): WatchEvent => ({ type: 'upsert', object });

async function makeWorld(t: { teardown(stop: () => unknown): void }, nodePortTexts: readonly string[] = []) {
  const clock = new FakeClock(START);
  const ruleset = new FakeRuleset('IPv4', 'nft');
  const trouble = noTrouble();
  const tools = createTools(
    {
      family: 'IPv4',
      flavour: 'nft',
      version: '1.8.9',
      binaries: { iptables: 'iptables-nft', save: 'iptables-nft-save', restore: 'iptables-nft-restore' },
      features: { randomFully: true, wait: true },
    },
    { exec: new FakeExec(fakePrograms(ruleset, trouble)), clock },
  );
  const log = pino({ level: 'silent' });
  const addresses = nodePortAddresses(nodePortTexts, 'IPv4');
  const nodeAddresses = async () => [ip('127.0.0.1'), ip('192.168.0.2'), ip('fd00::2')];
  const metrics = createMetrics({ version: '1', processMetrics: false });
  const proxier = new Proxier(
    { minSyncPeriodMs: 1000, syncPeriodMs: 30_000, maxSyncPeriodMs: 3_600_000 },
    {
      model: new Model({ family: 'IPv4', nodeName: NODE_NAME }),
      dataplane: createIptablesDataplane(
        { tools, clock, nfacct: new FakeNfacct(), nodeAddresses, metrics: { restoreFailed() {}, rules() {} }, log },
        { ...makeOptions({ nodePortAddresses: addresses }), syncPeriodMs: 30_000 },
      ),
      clock,
      health: noHealth,
      metrics,
      log,
      serviceHealth: { syncServices: async () => {}, syncEndpoints: () => {}, close: async () => {} },
      onRefused: () => {},
    },
  );
  const stop = new AbortController();
  const running = proxier.run(stop.signal);
  const debug = debugRoutes({
    mode: 'iptables',
    node: NODE_NAME,
    version: '1.2.3',
    proxiers: [proxier],
    nodePortAddresses: () => addresses,
    nodeAddresses,
  });
  const listening = Promise.withResolvers<number>();
  const serving = serveHttp(
    {
      name: 'metrics',
      // Every address of both families: an IPv4 client is `::ffff:127.0.0.1` then.
      address: '0.0.0.0:0',
      answer: metricsRoutes({ metrics, mode: 'iptables', configz: () => ({}), debug }),
      hardFail: true,
      onListening: ({ port }) => listening.resolve(port),
    },
    { clock, log },
    stop.signal,
  );
  t.teardown(async () => {
    stop.abort();
    await Promise.all([running, serving]);
  });
  const port = await listening.promise;
  const fanOut = createFanOut([proxier]);
  return {
    clock,
    ruleset,
    trouble,
    debug,
    port,
    async tell(...events: readonly WatchEvent[]) {
      for (const event of events) fanOut(event);
      await clock.advance(1000);
    },
    async get(path: string, { host = '127.0.0.1', method = 'GET' } = {}) {
      const r = await fetch(`http://${host}:${port}${path}`, { method, headers: { Connection: 'close' } });
      const body = await r.text();
      return {
        status: r.status,
        type: r.headers.get('content-type'),
        json: body === '' ? undefined : JSON.parse(body),
      };
    },
  };
}

t.test('/debug/state', async (t) => {
  const w = await makeWorld(t, ['192.168.0.0/16']);
  const family = async () => (await w.get('/debug/state')).json.families[0];
  await w.tell(upsert(makeService()), { type: 'synced', kind: 'Service' });
  t.strictSame(
    await w.get('/debug/state'),
    {
      status: 200,
      type: 'application/json',
      json: {
        mode: 'iptables',
        node: NODE_NAME,
        version: '1.2.3',
        families: [
          {
            family: 'IPv4',
            synced: { services: true, endpointSlices: false },
            needsFull: true,
            dirty: { count: 1, services: ['ns1/svc1'] },
            lastSync: null,
            lastFullSync: null,
            lastFailure: null,
            refused: [],
            services: 0,
            endpoints: 0,
            zone: '',
            largeCluster: false,
            nodePortAddresses: { matchAll: false, cidrs: ['192.168.0.0/16'], addresses: ['192.168.0.2'] },
          },
        ],
      },
    },
    'before everything is delivered',
  );
  await w.tell(upsert(makeSlice()), { type: 'upsert', object: makeNode({ zone: 'east' }) }, ...synced);
  t.match(await family(), {
    synced: { services: true, endpointSlices: true },
    needsFull: false,
    dirty: { count: 0, services: [] },
    lastSync: '2026-01-02T03:04:06.000Z',
    lastFullSync: '2026-01-02T03:04:06.000Z',
    services: 1,
    endpoints: 1,
    zone: 'east',
  });

  w.trouble.locked = 1000;
  await w.tell(upsert(makeService({ name: 'two', clusterIP: '172.30.1.2' })));
  await w.clock.advance(60_000);
  t.match(await family(), {
    needsFull: true,
    dirty: { count: 1, services: ['ns1/two'] },
    lastFailure: { at: /^2026-01-02T03:0[45]:/, reason: /lock/ },
    lastSync: '2026-01-02T03:04:06.000Z',
  });
  const { status } = (await w.get('/debug/plan?service=ns1/svc1')).json.families[0];
  t.equal(status, 'dirty', 'a failed sync leaves no service certain');
  w.trouble.locked = 0;
  await w.clock.advance(60_000);
  const many = Array.from({ length: 150 }, (_, i) => makeService({ name: `s${i}`, clusterIP: `172.30.2.${i + 1}` }));
  t.match(await family(), { needsFull: false, dirty: { count: 0 } });
  w.trouble.locked = 1000;
  await w.tell(...many.map(upsert));
  const { dirty } = await family();
  t.equal(dirty.count, 150);
  t.equal(dirty.services.length, 100, 'named at most');
});

t.test('/debug/plan', async (t) => {
  const w = await makeWorld(t);
  const plan = async (service = 'ns1/svc1') => (await w.get(`/debug/plan?service=${service}`)).json.families[0];
  const endpoints = [makeSliceEndpoint('10.180.0.1'), makeSliceEndpoint('10.180.0.2', { ready: false })];
  await w.tell(upsert(makeService()), upsert(makeSlice({ endpoints })));
  t.match(await plan(), { status: 'dirty', plan: null, why: [], inKernel: 'nothing', rules: [] }, 'not planned yet');

  await w.tell(...synced);
  const answer = await w.get('/debug/plan?service=ns1/svc1');
  t.match(answer, {
    status: 200,
    type: 'application/json',
    json: { service: 'ns1/svc1', node: NODE_NAME, mode: 'iptables', families: [{ family: 'IPv4' }] },
  });
  const found = await plan();
  t.match(found, {
    status: 'applied',
    refusal: null,
    inKernel: 'this plan',
    plan: { service: 'ns1/svc1', ports: [{ endpointCount: 2, port: { clusterIP: '172.30.1.1', port: 80 } }] },
    why: [
      {
        name: 'ns1/svc1',
        protocol: 'TCP',
        endpoints: { total: 2, ready: 1 },
        cluster: { endpoints: ['10.180.0.1:80'], why: 'all ready endpoints' },
        internal: { policy: 'Cluster', outcome: 'forwarded' },
      },
    ],
  });
  const before = w.ruleset.save();
  w.ruleset.restore(`${found.rules.join('\n')}\n`.replaceAll('-A KUBE-SERVICES', '-D KUBE-SERVICES'));
  w.ruleset.restore(`${found.rules.join('\n')}\n`);
  const sorted = (dump: string) =>
    dump
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .sort();
  t.same(
    sorted(w.ruleset.save()),
    sorted(before),
    'the rules are those in the kernel, and are valid input of the tool',
  );

  w.trouble.locked = 1000;
  await w.tell(upsert(makeService({ ports: [{ name: '', protocol: 'TCP', port: 81, nodePort: 0 }] })));
  t.match(await plan(), { status: 'dirty', inKernel: 'an earlier plan', plan: { ports: [{ port: { port: 81 } }] } });
  t.ok((await plan()).rules.join('\n').includes('--dport 81 '), 'rules as they will be');
  await w.tell({ type: 'delete', kind: 'Service', key: makeService().key });
  w.trouble.locked = 0;
  await w.clock.advance(60_000);
  t.equal((await w.get('/debug/plan?service=ns1/svc1')).status, 404, 'gone');
});

t.test('/debug/… of a refused service', async (t) => {
  const w = await makeWorld(t);
  w.ruleset.refuses = (line) => line.includes('172.30.6.6');
  const bad = makeService({ name: 'bad', clusterIP: '172.30.6.6' });
  await w.tell(upsert(bad), upsert(makeService()), ...synced);
  const refusal = { rule: /172\.30\.6\.6/, reason: /Invalid argument/ };
  const read = async () => (await w.get('/debug/state')).json.families[0].refused;
  t.match(await read(), [{ service: 'ns1/bad', ...refusal }]);
  t.match((await w.get('/debug/plan?service=ns1/bad')).json.families[0], {
    status: 'refused',
    inKernel: 'nothing',
    refusal,
  });
  t.match((await w.get('/debug/plan?service=ns1/svc1')).json.families[0].status, 'applied');
  await w.tell(upsert(makeService({ name: 'other', clusterIP: '172.30.1.9' })));
  t.match(await read(), [{ service: 'ns1/bad', ...refusal }], 'stays while others are synced');
  await w.tell(upsert({ ...bad, clusterIP: '172.30.6.7', clusterIPs: ['172.30.6.7'] }));
  t.same(await read(), []);
  t.match((await w.get('/debug/plan?service=ns1/bad')).json.families[0], { status: 'applied', refusal: null });
});

t.test('what cannot be answered', async (t) => {
  const w = await makeWorld(t);
  await w.tell(...synced);
  for (const { query, status, error } of [
    { query: '?service=ns1/none', status: 404, error: /^Cannot explain "ns1\/none": no family has a plan for it, / },
    { query: '', status: 400, error: /^Cannot explain no "service": must be one namespace\/name, / },
    { query: '?service=', status: 400, error: /^Cannot explain "": must be/ },
    { query: '?service=web', status: 400, error: /^Cannot explain "web": must be/ },
    { query: '?service=/web', status: 400, error: /must be/ },
    { query: '?service=ns1/', status: 400, error: /must be/ },
    { query: '?service=a/b/c', status: 400, error: /must be/ },
    { query: '?service=a/b&service=c/d', status: 400, error: /^Cannot explain "a\/b", "c\/d": must be one/ },
    { query: '?name=a/b', status: 400, error: /must be/ },
    { query: '?service=ns1%2F%0A"', status: 404, error: /^Cannot explain "ns1\/\n""/ },
  ]) {
    t.match(await w.get(`/debug/plan${query}`), { status, type: 'application/json', json: { error } }, query);
  }
  t.match(await w.get('/debug/state', { method: 'POST' }), { status: 405, json: { error: /must be GET/ } });
  t.match(await w.get('/debug/state', { method: 'HEAD' }), { status: 200, json: undefined });
  t.match(await w.get('/debug/state', { host: '[::1]' }), { status: 200 });
});

t.test('only clients on this node are answered', async (t) => {
  const w = await makeWorld(t);
  for (const path of ['/debug/state', '/debug/plan']) {
    for (const { remoteAddress, isAnswered } of [
      { remoteAddress: '127.0.0.1', isAnswered: true },
      { remoteAddress: '127.9.9.9', isAnswered: true },
      { remoteAddress: '::1', isAnswered: true },
      { remoteAddress: '::ffff:127.0.0.1', isAnswered: true },
      { remoteAddress: '192.168.0.2', isAnswered: false },
      { remoteAddress: '::ffff:10.0.0.1', isAnswered: false },
      { remoteAddress: '::ffff:7f00:1', isAnswered: true },
      { remoteAddress: 'fe80::1', isAnswered: false },
      { remoteAddress: '', isAnswered: false },
      { remoteAddress: '127.evil', isAnswered: false },
    ]) {
      const query = new URLSearchParams('service=a/b');
      const request = { method: 'GET', path, query, accept: '', remoteAddress, body: async () => '' };
      const answer = await w.debug[path]?.(request);
      t.equal(answer?.status !== 403, isAnswered, `${path} to "${remoteAddress}"`);
      if (!isAnswered) t.match(answer?.body, /"error": "Cannot show this to /);
    }
  }
});
