import t from 'tap';
import { type CheckInput, checkFamilies } from '../../src/daemon/checks.ts';
import { hasIPv6, servedFamilies } from '../../src/daemon/families.ts';
import { Tasks } from '../../src/daemon/tasks.ts';
import type { Family } from '../../src/proxier/types.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';

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
