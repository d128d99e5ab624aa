/**
 * nftables mode on the kernel, both layouts and both families, each in namespaces of its own: what is written, what others do to it,
 * and what the kernel refuses. `nft` is only the tool to look and to disturb with.
 */
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Dataplane, Snapshot } from '../../src/modes/mode.ts';
import { createNftablesDataplane } from '../../src/modes/nftables/apply.ts';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { nftFamily } from '../../src/modes/nftables/create.ts';
import type { Layout, LayoutName, Objects } from '../../src/modes/nftables/layout.ts';
import { LAYOUTS } from '../../src/modes/nftables/layouts.ts';
import { TableWatch } from '../../src/modes/nftables/table-watch.ts';
import { createNftables } from '../../src/netlink/nftables/kernel-nftables.ts';
import type { Statement } from '../../src/netlink/nftables/transaction.ts';
import { FAMILIES, type Family, type ObjectKey, type ServicePlan } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { arbPlansOf } from '../lib/iptables-plans.ts';
import { IPV6_SERVICES, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { caseInside, feed, privateRun, runInside, sh } from '../lib/namespace.ts';
import { makeNftOptions } from '../lib/nftables-world.ts';
import { differenceOf, nftNormalForm } from '../lib/normal-form.ts';

const LAYOUT_NAMES: readonly LayoutName[] = ['chains', 'maps'];

/** A dataplane on the kernel, and how often it wrote. */
function makeNode(family: Family, layout: Layout) {
  const nftables = createNftables();
  let commits = 0;
  const counted = {
    ...nftables,
    commit: (...args: Parameters<typeof nftables.commit>) => {
      commits++;
      return nftables.commit(...args);
    },
  };
  const dataplane = createNftablesDataplane(
    {
      watch: new TableWatch(counted, realClock),
      nodeAddresses: async () => [ip('192.168.0.2'), ip('2001:db8::1')],
      metrics: { syncFailed() {}, cleanupFailed() {} },
      log: { info() {}, warn() {} },
    },
    { layout, ...makeNftOptions({ family }) },
  );
  const takeCommits = () => {
    const count = commits;
    commits = 0;
    return count;
  };
  return { dataplane, takeCommits };
}

function snapshotOf(plans: readonly ServicePlan[], dirty: Iterable<ObjectKey> = []): Snapshot {
  const services = new Map(plans.map((plan) => [plan.service, plan]));
  return { services, dirty: new Set(dirty), endpointCount: 0, serviceCIDRs: ['172.30.0.0/16', 'fd00:43::/112'] };
}

const fullSync = (dataplane: Dataplane, plans: readonly ServicePlan[]) =>
  dataplane.sync(snapshotOf(plans), { full: true });

/** What nft lists of our table, in an order that tells nothing of its making. */
function listing(family: Family): string {
  try {
    return nftNormalForm(sh('nft', '-s', 'list', 'table', nftFamily(family), TABLE), 'keep');
  } catch {
    // There is none.
    return '';
  }
}

const worlds: Readonly<Record<Family, readonly ServicePlan[]>> = {
  IPv4: [...SIX_SERVICES, ...POLICIES],
  IPv6: IPV6_SERVICES,
};

async function programs(t: Test, family: Family, layout: Layout): Promise<void> {
  const plans = worlds[family];
  const { dataplane, takeCommits } = makeNode(family, layout);
  await fullSync(dataplane, plans);
  const want = listing(family);
  t.ok(want.length > 1000);
  t.equal(takeCommits(), 1, 'little goes in one transaction');
  await fullSync(dataplane, plans.toReversed());
  t.equal(takeCommits(), 0, 'a full sync over what is right writes nothing');
  const again = makeNode(family, layout);
  await fullSync(again.dataplane, plans);
  t.equal(again.takeCommits(), 0, 'nor does a restart');
  for (const { service } of plans) {
    await dataplane.sync(
      snapshotOf(
        plans.filter((plan) => plan.service !== service),
        [service],
      ),
      { full: false },
    );
    const report = await dataplane.sync(snapshotOf(plans, [service]), { full: false });
    t.same([report.full, [...report.refusedServices]], [false, []], `${service} goes and comes`);
    t.equal(differenceOf(want, listing(family)), '');
  }
  sh('nft', 'delete', 'table', nftFamily(family), TABLE);
  await fc.assert(
    fc.asyncProperty(arbPlansOf(family), arbPlansOf(family), async (before, after) => {
      const node = makeNode(family, layout);
      await fullSync(node.dataplane, before);
      const keys = new Set([...before, ...after].map(({ service }) => service));
      const report = await node.dataplane.sync(snapshotOf(after, keys), { full: false });
      if (report.full || report.refusedServices.size > 0) throw new Error(`refused ${[...report.refusedServices]}`);
      const got = listing(family);
      sh('nft', 'delete', 'table', nftFamily(family), TABLE);
      await fullSync(makeNode(family, layout).dataplane, after);
      const difference = differenceOf(listing(family), got);
      if (difference !== '') throw new Error(difference);
    }),
    { numRuns: 15, endOnFailure: true },
  );
}

/** What others do, and whether it is a loss. */
const disturbances: readonly { readonly name: string; readonly nft: string; readonly isLoss: boolean }[] = [
  { name: 'everything flushed', nft: 'flush ruleset', isLoss: true },
  { name: 'an element deleted', nft: 'delete element ip kube-proxy cluster-ips { 172.30.0.41 }', isLoss: true },
  { name: 'an element added', nft: 'add element ip kube-proxy cluster-ips { 9.9.9.9 }', isLoss: true },
  { name: 'a chain emptied', nft: 'flush chain ip kube-proxy services', isLoss: true },
  { name: 'a rule inserted', nft: 'insert rule ip kube-proxy services accept', isLoss: true },
  { name: 'a chain more', nft: 'add chain ip kube-proxy mine { type filter hook input priority 5 ; }', isLoss: true },
  { name: 'the table deleted', nft: 'delete table ip kube-proxy', isLoss: true },
  { name: 'another table', nft: 'add table ip other ; add chain ip other x', isLoss: false },
];

async function repairs(t: Test, layout: Layout): Promise<void> {
  const plans = worlds.IPv4;
  const { dataplane, takeCommits } = makeNode('IPv4', layout);
  const stop = new AbortController();
  let losses = 0;
  let repair: Promise<unknown> = Promise.resolve();
  const done = dataplane.monitor(() => {
    losses++;
    repair = fullSync(dataplane, plans);
  }, stop.signal);
  await fullSync(dataplane, plans);
  const want = listing('IPv4');
  for (const { name, nft, isLoss } of disturbances) {
    losses = 0;
    takeCommits();
    feed(nft, 'nft', '-f', '-');
    const startMs = performance.now();
    while (listing('IPv4') !== want && performance.now() - startMs < 5_000) await realClock.sleep(20);
    const tookMs = performance.now() - startMs;
    t.equal(differenceOf(want, listing('IPv4')), '', `${name}: repaired`);
    t.ok(tookMs < 1_000, `${name}: in ${Math.round(tookMs)} ms`);
    await realClock.sleep(600);
    await repair;
    t.equal(losses, isLoss ? 1 : 0, `${name}: and once`);
    t.equal(takeCommits(), isLoss ? 1 : 0, `${name}: in one transaction`);
  }
  stop.abort();
  await done;
}

/** A layout in which one service has a rule of its own in a chain that packets of the service meet. */
function spoiled(layout: Layout, service: ObjectKey, statements: readonly Statement[], comment?: string): Layout {
  const spoil = (objects: Objects): Objects => ({
    ...objects,
    chains: [
      ...objects.chains,
      {
        chain: { name: 'bad' },
        rules: [{ chain: 'bad', statements, ...(comment === undefined ? {} : { comment }) }],
      },
    ],
    elements: objects.elements.map(({ set, elements, ...rest }) => ({
      ...rest,
      set,
      elements: elements.map((element) =>
        element.data !== undefined && 'kind' in element.data
          ? { ...element, data: { kind: 'goto', chain: 'bad' } as const }
          : element,
      ),
    })),
  });
  return {
    ...layout,
    renderService: (plan, options, facts) => {
      const objects = layout.renderService(plan, options, facts);
      return plan.service === service ? spoil(objects) : objects;
    },
  };
}

async function refuses(t: Test, layout: Layout): Promise<void> {
  const [victim] = SIX_SERVICES;
  if (victim === undefined) throw new Error('no service');
  const rows: readonly { name: string; statements: readonly Statement[]; comment?: string; reason: RegExp }[] = [
    { name: 'masquerade before routing', statements: [{ kind: 'masquerade' }], reason: /^EOPNOTSUPP/ },
    {
      name: 'a jump to nowhere',
      statements: [{ kind: 'verdict', verdict: { kind: 'goto', chain: 'nowhere' } }],
      reason: /^ENOENT/,
    },
    {
      name: 'a chain that leads to itself',
      statements: [{ kind: 'verdict', verdict: { kind: 'jump', chain: 'bad' } }],
      reason: /^EMLINK|^ELOOP/,
    },
    {
      name: 'a comment of 300 bytes',
      statements: [{ kind: 'verdict', verdict: { kind: 'accept' } }],
      comment: 'x'.repeat(300),
      reason: /./,
    },
  ];
  const others = SIX_SERVICES.slice(1);
  await fullSync(makeNode('IPv4', layout).dataplane, others);
  const want = listing('IPv4');
  for (const { name, statements, comment, reason } of rows) {
    sh('nft', 'flush', 'ruleset');
    const { dataplane } = makeNode('IPv4', spoiled(layout, victim.service, statements, comment));
    const full = await fullSync(dataplane, SIX_SERVICES);
    t.match(full.refused, [{ service: victim.service, reason }], `${name}: found by a full sync`);
    t.equal(differenceOf(want, listing('IPv4')), '', `${name}: the others are there`);
    await dataplane.sync(
      snapshotOf(
        others,
        SIX_SERVICES.map(({ service }) => service),
      ),
      { full: false },
    );
    const partial = await dataplane.sync(snapshotOf(SIX_SERVICES, [victim.service]), { full: false });
    t.match(partial.refused, [{ service: victim.service, reason }], `${name}: found by a partial sync`);
    t.same([...partial.refusedServices], [victim.service]);
    t.equal(differenceOf(want, listing('IPv4')), '', name);
  }
}

async function keepsClients(t: Test): Promise<void> {
  const port = makeServicePort({ affinitySeconds: 3600 });
  const plan = makePlan(port, [makeEndpoint('10.180.0.1'), makeEndpoint('10.180.0.2')]);
  await fullSync(makeNode('IPv4', LAYOUTS.chains).dataplane, [plan]);
  const set = /set (affinity-\S+)/.exec(sh('nft', 'list', 'sets'))?.[1] ?? '';
  sh('nft', 'add', 'element', 'ip', TABLE, set, '{ 10.9.9.9 }');
  const { dataplane, takeCommits } = makeNode('IPv4', LAYOUTS.chains);
  await fullSync(dataplane, [plan]);
  t.equal(takeCommits(), 0);
  const longer = makePlan({ ...port, affinitySeconds: 7200 }, [makeEndpoint('10.180.0.1'), makeEndpoint('10.180.0.2')]);
  await dataplane.sync(snapshotOf([longer], [plan.service]), { full: false });
  const after = sh('nft', 'list', 'set', 'ip', TABLE, set);
  t.match(after, /timeout 2h/);
  t.match(after, /10\.9\.9\.9/);
}

async function switches(t: Test): Promise<void> {
  for (const family of FAMILIES) {
    for (const [from, to] of [
      ['chains', 'maps'],
      ['maps', 'chains'],
    ] as const) {
      sh('nft', 'flush', 'ruleset');
      await fullSync(makeNode(family, LAYOUTS[to]).dataplane, worlds[family]);
      const want = listing(family);
      sh('nft', 'flush', 'ruleset');
      await fullSync(makeNode(family, LAYOUTS[from]).dataplane, worlds[family]);
      await fullSync(makeNode(family, LAYOUTS[to]).dataplane, worlds[family]);
      t.equal(differenceOf(want, listing(family)), '', `${family}: ${from} to ${to}`);
    }
  }
  sh('nft', 'flush', 'ruleset');
  sh('nft', 'add', 'table', 'ip', TABLE);
  feed(`add set ip ${TABLE} service-ips { type mark ; }\n`, 'nft', '-f', '-');
  const { dataplane, takeCommits } = makeNode('IPv4', LAYOUTS.chains);
  await fullSync(dataplane, SIX_SERVICES);
  t.equal(takeCommits(), 1, 'a set of another type: everything anew in one transaction');
  t.match(
    sh('nft', 'list', 'map', 'ip', TABLE, 'service-ips'),
    /type ipv4_addr \. inet_proto \. inet_service : verdict/,
  );
}

const cases: Readonly<Record<string, (t: Test) => Promise<void>>> = {
  ...Object.fromEntries(
    LAYOUT_NAMES.flatMap((layout) => [
      ...FAMILIES.map((family) => [`programs ${layout} ${family}`, (t: Test) => programs(t, family, LAYOUTS[layout])]),
      [`repairs ${layout}`, (t: Test) => repairs(t, LAYOUTS[layout])],
      [`refuses ${layout}`, (t: Test) => refuses(t, LAYOUTS[layout])],
    ]),
  ),
  'keeps clients': keepsClients,
  'switches layouts': switches,
};

const inside = caseInside();
if (inside === undefined) {
  for (const name of Object.keys(cases)) await runInside(t, import.meta.url, name);
} else {
  privateRun();
  await t.test(inside, async (t) => cases[inside]?.(t));
}
