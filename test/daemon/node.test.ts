import { pino } from 'pino';
import t from 'tap';
import { apiNodeIPs, chooseNodeIPs, IPS_TIMEOUT_MS, NodeWatch, nodePortCidrs } from '../../src/daemon/node.ts';
import type { NodeObject, ObjectKey } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { makeNode, NODE_NAME } from '../lib/make.ts';

const addresses = (...list: readonly string[]): NodeObject['addresses'] =>
  list.map((text) => {
    const [type = '', address = ''] = text.split(' ');
    return { type, address };
  });

t.test('apiNodeIPs(), chooseNodeIPs(), nodePortCidrs(primary)', async (t) => {
  for (const { name, node = [], bind = '0.0.0.0', api, ips, primary, cidrs } of [
    { name: 'nothing known', api: [], ips: ['127.0.0.1', '::1'], primary: 'IPv4', cidrs: [] },
    {
      name: 'one address',
      node: ['Hostname n', 'InternalIP 192.168.1.100'],
      api: ['192.168.1.100'],
      ips: ['192.168.1.100', '::1'],
      primary: 'IPv4',
      cidrs: ['192.168.1.100/32'],
    },
    {
      name: 'IPv6 only',
      node: ['InternalIP FD00:0::1'],
      api: ['fd00::1'],
      ips: ['127.0.0.1', 'fd00::1'],
      primary: 'IPv6',
      cidrs: ['fd00::1/128'],
    },
    {
      name: 'both, IPv6 first',
      node: ['InternalIP fd00::1', 'InternalIP 10.0.0.1', 'InternalIP 10.0.0.2'],
      api: ['fd00::1', '10.0.0.1'],
      ips: ['10.0.0.1', 'fd00::1'],
      primary: 'IPv6',
      cidrs: ['10.0.0.1/32', 'fd00::1/128'],
    },
    {
      name: 'internal before external, whatever their order',
      node: ['ExternalIP 1.2.3.4', 'ExternalIP 2001:db8::1', 'InternalIP 10.0.0.1'],
      api: ['10.0.0.1', '2001:db8::1'],
      ips: ['10.0.0.1', '2001:db8::1'],
      primary: 'IPv4',
      cidrs: ['10.0.0.1/32', '2001:db8::1/128'],
    },
    {
      name: 'what does not parse is left out',
      node: ['InternalIP nonsense', 'InternalIP 10.0.0.1'],
      api: ['10.0.0.1'],
      ips: ['10.0.0.1', '::1'],
      primary: 'IPv4',
      cidrs: ['10.0.0.1/32'],
    },
    {
      name: 'a bind address wins its family and is primary',
      node: ['InternalIP 10.0.0.1', 'InternalIP fd00::1'],
      bind: 'fd00::9',
      api: ['10.0.0.1', 'fd00::1'],
      ips: ['10.0.0.1', 'fd00::9'],
      primary: 'IPv6',
      cidrs: ['10.0.0.1/32', 'fd00::9/128'],
    },
    {
      name: 'an unspecified bind address says nothing',
      node: ['InternalIP 10.0.0.1'],
      bind: '::',
      api: ['10.0.0.1'],
      ips: ['10.0.0.1', '::1'],
      primary: 'IPv4',
      cidrs: ['10.0.0.1/32'],
    },
  ]) {
    t.test(name, async (t) => {
      const object = { addresses: addresses(...node) };
      t.same(apiNodeIPs(object), api);
      const chosen = chooseNodeIPs(object, bind);
      t.same(chosen, { primary, ips: { IPv4: ips[0], IPv6: ips[1] } });
      t.same(nodePortCidrs(['primary'], chosen), cidrs);
      t.same(nodePortCidrs(['10.0.0.0/8', '::/0'], chosen), ['10.0.0.0/8', '::/0']);
    });
  }
});

function makeWatch(needsPodCIDRs: boolean) {
  const clock = new FakeClock(0);
  const lines: string[] = [];
  const log = pino({ base: null }, { write: (line: string) => void lines.push(JSON.parse(line).msg) });
  const watch = new NodeWatch({ name: NODE_NAME, needsPodCIDRs, addressTimeoutMs: IPS_TIMEOUT_MS, clock, log });
  return {
    clock,
    lines,
    watch,
    see: (overrides: Parameters<typeof makeNode>[0]) => watch.handle({ type: 'upsert', object: makeNode(overrides) }),
    synced: () => watch.handle({ type: 'synced', kind: 'Node' }),
  };
}

t.test('NodeWatch.wait()', async (t) => {
  const cidr = ['10.0.0.0/24'];
  const ip = addresses('InternalIP 10.0.0.1');
  for (const { name, needsPodCIDRs = false, at0, later, endsAt, error, warns = false } of [
    { name: 'no node', endsAt: 30, warns: true },
    {
      name: 'no node, and pod CIDRs are needed',
      needsPodCIDRs: true,
      endsAt: 330,
      error: /it does not exist/,
      warns: true,
    },
    { name: 'a node without address', at0: { addresses: [] }, endsAt: 30, warns: true },
    { name: 'a node with an address', at0: { addresses: ip }, endsAt: 0 },
    { name: 'a node that comes later', later: { addresses: ip }, endsAt: 10 },
    {
      name: 'pod CIDRs are needed and missing',
      needsPodCIDRs: true,
      at0: { addresses: ip },
      endsAt: 300,
      error: /it has no podCIDRs/,
    },
    { name: 'pod CIDRs are needed and there', needsPodCIDRs: true, at0: { addresses: ip, podCIDRs: cidr }, endsAt: 0 },
    {
      name: 'pod CIDRs come later',
      needsPodCIDRs: true,
      at0: { addresses: ip },
      later: { addresses: ip, podCIDRs: cidr },
      endsAt: 10,
    },
    {
      name: 'pod CIDRs without an address',
      needsPodCIDRs: true,
      at0: { addresses: [], podCIDRs: cidr },
      endsAt: 30,
      warns: true,
    },
  ] as const) {
    t.test(name, async (t) => {
      const w = makeWatch(needsPodCIDRs);
      let ended: number | undefined;
      const waiting = w.watch
        .wait(new AbortController().signal)
        .catch((e: unknown) => e)
        .finally(() => {
          ended = w.clock.now();
        });
      await w.clock.advance(1_000_000);
      t.equal(ended, undefined, 'the answer of the API server is waited for without limit');
      const start = w.clock.now();
      if (at0 !== undefined) w.see(at0);
      w.synced();
      await w.clock.advance(9_500);
      if (later !== undefined) w.see(later);
      await w.clock.advance(400_000);
      t.equal((ended ?? Number.NaN) - start, endsAt * 1000);
      const got = await waiting;
      if (error) t.match(got, { message: error });
      else t.same(got, at0 || later ? makeNode(later ?? at0 ?? {}) : undefined);
      t.equal(
        w.lines.some((l) => l.includes('no address')),
        warns,
      );
    });
  }

  t.test('ends when it is told to', async (t) => {
    const w = makeWatch(true);
    const stop = new AbortController();
    const waiting = w.watch.wait(stop.signal);
    stop.abort();
    t.equal(await waiting, undefined);
    t.equal(w.clock.sleeping, 0);
  });
});

t.test('NodeWatch, after the start', async (t) => {
  const initial = { addresses: addresses('InternalIP 10.0.0.1'), podCIDRs: ['10.0.0.0/24', 'fd00::/64'] };
  for (const { name, needsPodCIDRs = true, change, ends = false, warns } of [
    { name: 'the same', change: { ...initial, resourceVersion: '2' } },
    { name: 'other pod CIDRs', change: { ...initial, podCIDRs: ['10.0.1.0/24', 'fd00::/64'] }, ends: true },
    { name: 'fewer pod CIDRs', change: { ...initial, podCIDRs: ['10.0.0.0/24'] }, ends: true },
    { name: 'other pod CIDRs that nobody needs', needsPodCIDRs: false, change: { ...initial, podCIDRs: [] } },
    {
      name: 'another address',
      change: { ...initial, addresses: addresses('InternalIP 10.0.0.2') },
      warns: /addresses changed/,
    },
    { name: 'another node', change: { ...initial, name: 'other', podCIDRs: [] } },
    { name: 'deleted', change: undefined, warns: /node deleted/ },
  ]) {
    t.test(name, async (t) => {
      const w = makeWatch(needsPodCIDRs);
      w.see(initial);
      w.synced();
      await w.watch.wait(new AbortController().signal);
      let ended: unknown;
      w.watch.guardPodCIDRs(new AbortController().signal).catch((error: unknown) => {
        ended = error;
      });
      if (change) w.see(change);
      else w.watch.handle({ type: 'delete', kind: 'Node', key: NODE_NAME as ObjectKey });
      await w.clock.advance(0);
      t.match(ended, ends ? { message: /Cannot go on with the pod CIDRs 10.0.0.0\/24, fd00::\/64: / } : undefined);
      if (warns) t.match(w.lines, [warns]);
      else t.same(w.lines, []);
      t.equal(w.watch.node === undefined, change === undefined);
    });
  }
});
