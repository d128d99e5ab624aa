import { pino } from 'pino';
import t from 'tap';
import { createFlowCleaner } from '../../src/daemon/flows.ts';
import { NetlinkError } from '../../src/netlink/error.ts';
import { FakeConntrack, type FakeFlow } from '../../src/netlink/fake-conntrack.ts';
import { type UdpServices, udpFrontends } from '../../src/proxier/flows.ts';
import { createMetrics } from '../../src/proxier/metrics.ts';
import type { ServicePlan } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';

const PORT = makeServicePort({ protocol: 'UDP', port: 53, nodePort: 30053 });
const ENDPOINT = makeEndpoint('10.180.0.1', { port: 53 });

const flow = (sourcePort: number, fromAddress: string, overrides: Partial<FakeFlow> = {}): FakeFlow => ({
  family: 'IPv4',
  protocol: 'UDP',
  source: '10.0.0.9',
  sourcePort,
  toAddress: '172.30.1.1',
  toPort: 53,
  fromAddress,
  fromPort: 53,
  ...overrides,
});

function makeWorld() {
  const conntrack = new FakeConntrack();
  conntrack.flows = [
    flow(1, '10.180.0.1'),
    flow(2, '10.180.0.2'),
    flow(3, '10.180.0.2', { toAddress: '192.168.0.2', toPort: 30053 }),
    flow(4, '10.180.0.2', { toAddress: '192.168.0.3', toPort: 30053 }),
    flow(5, '10.180.0.2', { protocol: 'TCP' }),
    flow(6, '10.180.0.2', { family: 'IPv6' }),
  ];
  const metrics = createMetrics({ version: 'test', processMetrics: false });
  const lines: Record<string, unknown>[] = [];
  const plan = makePlan(PORT, [ENDPOINT]);
  const state: { plan: ServicePlan } = { plan };
  const clean = createFlowCleaner({
    family: 'IPv4',
    conntrack,
    view: () => ({
      services: new Map([[state.plan.service, state.plan]]),
      udpEndpoints: () => new Map([['', [ENDPOINT]]]),
      localhostNodePorts: true,
    }),
    nodePortIPs: async () => [ip('192.168.0.2')],
    metrics,
    clock: new FakeClock(),
    log: pino({ level: 'debug', base: null }, { write: (line: string) => void lines.push(JSON.parse(line)) }),
  });
  return {
    conntrack,
    state,
    clean: (changed: UdpServices = new Map([[plan.service, []]])) => clean(changed, new AbortController().signal),
    left: () => conntrack.flows.map((f) => f.sourcePort),
    said: () => lines.map((l) => l['msg']),
    /** Deleted flows and clean-ups, as the metrics have them. */
    async counts() {
      const text = await metrics.registry.metrics();
      const value = (name: string) => Number(new RegExp(`^${name}\\{.*\\} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
      return [
        value('kubeproxy_conntrack_reconciler_deleted_entries_total'),
        value('kubeproxy_conntrack_reconciler_sync_duration_seconds_count'),
      ];
    },
  };
}

t.test('stale flows are deleted, in one dump', async (t) => {
  const w = makeWorld();
  await w.clean();
  t.same(w.left(), [1, 4, 5, 6]);
  t.equal(w.conntrack.dumps, 1);
  t.same(await w.counts(), [2, 1]);
  t.same(w.said(), ['stale UDP flows deleted']);
  await w.clean();
  t.same(await w.counts(), [2, 2], 'nothing to delete takes time, too');
  t.same(w.said(), ['stale UDP flows deleted'], 'and is not told');
});

t.test('no dump without UDP', async (t) => {
  const w = makeWorld();
  w.state.plan = makePlan(makeServicePort(), [ENDPOINT]);
  await w.clean();
  t.equal(w.conntrack.dumps, 0);
  t.same(await w.counts(), [0, 0]);
  await w.clean(new Map([[w.state.plan.service, udpFrontends(makePlan(PORT, []))]]));
  t.equal(w.conntrack.dumps, 1, 'unless it had some');
  t.same(w.left(), [4, 5, 6]);
});

t.test('faults', async (t) => {
  t.test('a list that is not whole is used, and that is told', async (t) => {
    const w = makeWorld();
    w.conntrack.incomplete = true;
    await w.clean();
    t.same(w.left(), [1, 4, 5, 6]);
    t.match(w.said()[0], /may have been missed/);
  });
  t.test('a flow that the kernel refuses to delete does not keep the others', async (t) => {
    const w = makeWorld();
    w.conntrack.refuses = (f) => f.sourcePort === 2;
    await t.rejects(w.clean(), { name: 'NetlinkError', failure: { name: 'EBUSY' } });
    t.same(w.left(), [1, 2, 4, 5, 6]);
    t.same(await w.counts(), [1, 1]);
    w.conntrack.refuses = () => false;
    await w.clean();
    t.same(w.left(), [1, 4, 5, 6]);
  });
  t.test('a list that fails is tried again by the caller', async (t) => {
    const w = makeWorld();
    w.conntrack.failure = new NetlinkError('list', { code: 'KERNEL', errno: 12, name: 'ENOMEM' });
    await t.rejects(w.clean(), { name: 'NetlinkError', failure: { name: 'ENOMEM' } });
    await t.rejects(w.clean(), { name: 'NetlinkError', failure: { name: 'ENOMEM' } });
    t.same(await w.counts(), [0, 2]);
  });
  for (const failure of [
    { code: 'KERNEL', errno: 22, name: 'EINVAL' },
    { code: 'SOCKET', call: 'socket', errno: 93, name: 'EPROTONOSUPPORT' },
  ] as const) {
    t.test(`a kernel without it is asked once: ${failure.name}`, async (t) => {
      const w = makeWorld();
      w.conntrack.failure = new NetlinkError('list', failure);
      await w.clean();
      await w.clean();
      t.equal(w.conntrack.dumps, 1);
      t.equal(w.said().length, 1);
    });
  }
});
