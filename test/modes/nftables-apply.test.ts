/** The nftables dataplane over tables in memory: what it writes, in which order, and what it does when the kernel or others disagree. */
import fc from 'fast-check';
import t from 'tap';
import { openMode } from '../../src/modes/index.ts';
import type { Dataplane, Snapshot } from '../../src/modes/mode.ts';
import { createNftablesDataplane, type NftablesDataplaneOptions } from '../../src/modes/nftables/apply.ts';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { CHAINS_LAYOUT } from '../../src/modes/nftables/chains-layout.ts';
import { removeTable } from '../../src/modes/nftables/cleanup.ts';
import { createAll, nftFamily } from '../../src/modes/nftables/create.ts';
import type { Layout } from '../../src/modes/nftables/layout.ts';
import { LAYOUTS as LAYOUT_BY_NAME } from '../../src/modes/nftables/layouts.ts';
import { servicePortNames } from '../../src/modes/nftables/names.ts';
import { probeNftables } from '../../src/modes/nftables/probe.ts';
import { blame } from '../../src/modes/nftables/refusal.ts';
import { TableWatch } from '../../src/modes/nftables/table-watch.ts';
import { NetlinkError } from '../../src/netlink/error.ts';
import { FakeNfacct } from '../../src/netlink/fake-nfacct.ts';
import { FakeNftables } from '../../src/netlink/nftables/fake-nftables.ts';
import type { Command } from '../../src/netlink/nftables/transaction.ts';
import { FAMILIES, type Family, type ObjectKey, type ServicePlan } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { FakeExec } from '../../src/sys/fake-exec.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';
import { arbPlansOf } from '../lib/iptables-plans.ts';
import { POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { makeNftOptions } from '../lib/nftables-world.ts';

const LAYOUTS: readonly Layout[] = Object.values(LAYOUT_BY_NAME);

/** A dataplane and the kernel it writes to. */
function makeNode(overrides: Partial<NftablesDataplaneOptions> = {}, kernel = new FakeNftables()) {
  const options: NftablesDataplaneOptions = { layout: CHAINS_LAYOUT, ...makeNftOptions(overrides), ...overrides };
  const clock = new FakeClock();
  const failures: string[] = [];
  const lines: string[] = [];
  const addresses = { list: [ip('192.168.0.2'), ip('127.0.0.1'), ip('2001:db8::1')] };
  const dataplane = createNftablesDataplane(
    {
      watch: new TableWatch(kernel, clock),
      nodeAddresses: async () => addresses.list,
      metrics: { syncFailed: () => failures.push('sync'), cleanupFailed: () => failures.push('cleanup') },
      log: { info: (_, message) => lines.push(message), warn: (_, message) => lines.push(message) },
    },
    options,
  );
  return { kernel, options, clock, failures, lines, addresses, dataplane };
}

const byKey = (plans: readonly ServicePlan[]) => new Map(plans.map((plan) => [plan.service, plan]));

function snapshotOf(
  plans: readonly ServicePlan[],
  dirty: Iterable<ObjectKey> = [],
  serviceCIDRs: readonly string[] = [],
) {
  return { services: byKey(plans), dirty: new Set(dirty), endpointCount: 0, serviceCIDRs } satisfies Snapshot;
}

const fullSync = (dataplane: Dataplane, plans: readonly ServicePlan[]) =>
  dataplane.sync(snapshotOf(plans), { full: true });

/** A partial sync that is told everything that differs. */
function change(dataplane: Dataplane, from: readonly ServicePlan[], to: readonly ServicePlan[]) {
  const [before, after] = [byKey(from), byKey(to)];
  const keys = new Set([...before.keys(), ...after.keys()]);
  const dirty = [...keys].filter((key) => before.get(key) !== after.get(key));
  return dataplane.sync(snapshotOf(to, dirty), { full: false });
}

/** Everything in the table, in an order that tells nothing of its making. */
function contentOf(kernel: FakeNftables, family: Family = 'IPv4') {
  const content = kernel.readTable(nftFamily(family), TABLE, { elementsOf: () => true });
  if (content === undefined) return undefined;
  const sorted = <T>(map: ReadonlyMap<string, T>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    comment: content.comment,
    chains: sorted(content.chains),
    sets: sorted(content.sets),
    elements: sorted(content.elements).map(([name, all]) => [name, all.map((e) => JSON.stringify(e)).sort()]),
  };
}

/** What a table made of these plans alone holds. */
async function freshContent(plans: readonly ServicePlan[], overrides: Partial<NftablesDataplaneOptions>) {
  const node = makeNode(overrides);
  await fullSync(node.dataplane, plans);
  return contentOf(node.kernel, node.options.family);
}

const commandsOf = (kernel: FakeNftables): readonly Command[] =>
  kernel.commits.flatMap((commit) => commit.flatMap(({ commands }) => commands));

/** Commits since the last call. */
function takeCommits(kernel: FakeNftables) {
  return kernel.commits.splice(0).map((commit) => commit.flatMap(({ commands }) => commands));
}

const words = (commands: readonly Command[]) => commands.map(({ verb, object }) => `${verb} ${object}`);

/** Clusters of a random number of services, the same in both families. */
const arbOf = (family: Family) =>
  fc.record({
    states: fc.array(arbPlansOf(family), { minLength: 2, maxLength: 5 }),
    masqueradeAll: fc.boolean(),
  });

for (const layout of LAYOUTS) {
  for (const family of FAMILIES) {
    t.test(`${layout.name}, ${family}: changes come to what a fresh table is`, async () => {
      await fc.assert(
        fc.asyncProperty(arbOf(family), async ({ states, masqueradeAll }) => {
          const overrides = { layout, family, masqueradeAll };
          const node = makeNode(overrides);
          let last: readonly ServicePlan[] = [];
          await fullSync(node.dataplane, []);
          node.kernel.reads = 0;
          for (const [i, plans] of states.entries()) {
            const report = await change(node.dataplane, last, i % 2 === 0 ? plans : plans.toReversed());
            if (report.full || node.kernel.reads > 0) throw new Error('the table was read');
            last = plans;
            const [got, want] = [contentOf(node.kernel, family), await freshContent(plans, overrides)];
            if (JSON.stringify(got) !== JSON.stringify(want)) {
              throw new Error(`${JSON.stringify(got, undefined, 1)}\nis not\n${JSON.stringify(want, undefined, 1)}`);
            }
            node.kernel.reads = 0;
          }
        }),
        { numRuns: 15 },
      );
    });

    t.test(
      `${layout.name}, ${family}: a full sync makes of any table what it must be, and then writes nothing`,
      async () => {
        await fc.assert(
          fc.asyncProperty(
            arbPlansOf(family),
            arbPlansOf(family),
            fc.constantFrom(...LAYOUTS),
            async (before, after, other) => {
              const kernel = new FakeNftables();
              await fullSync(makeNode({ layout: other, family, masqueradeAll: true }, kernel).dataplane, before);
              await fullSync(makeNode({ layout, family }, kernel).dataplane, after);
              const [got, want] = [contentOf(kernel, family), await freshContent(after, { layout, family })];
              if (JSON.stringify(got) !== JSON.stringify(want)) {
                throw new Error(`${JSON.stringify(got, undefined, 1)}\nis not\n${JSON.stringify(want, undefined, 1)}`);
              }
              kernel.commits.splice(0);
              await fullSync(makeNode({ layout, family }, kernel).dataplane, after.toReversed());
              if (kernel.commits.length > 0) throw new Error(`a restart writes ${JSON.stringify(kernel.commits)}`);
            },
          ),
          { numRuns: 15 },
        );
      },
    );
  }
}

/** Services that all want one external address, each with endpoints and ranges of its own. */
const contender = (n: number) =>
  makePlan(
    makeServicePort({
      serviceName: `c${n}`,
      clusterIP: ip(`172.30.9.${n}`),
      externalIPs: [ip('1.1.1.1')],
      loadBalancerVIPs: [ip('2.2.2.2')],
      sourceRanges: [cidr(`10.${n}.0.0/16`), cidr('10.0.0.0/8')].slice(n % 2),
    }),
    n % 3 === 0 ? [] : [makeEndpoint(`10.180.9.${n}`)],
  );

t.test('of services that want the same the first has it, whatever came before', async (t) => {
  for (const layout of LAYOUTS) {
    const node = makeNode({ layout });
    let has: readonly number[] = [];
    await fullSync(node.dataplane, []);
    const wrong: string[] = [];
    for (const n of [4, 2, 5, 1, 3, 2, 4, 1, 5, 2, 1, 4, 3, 1, 2, 5, 4, 3, 2, 1, 5, 3, 4, 2]) {
      const next = has.includes(n) ? has.filter((other) => other !== n) : [...has, n];
      await node.dataplane.sync(snapshotOf(next.map(contender), [contender(n).service]), { full: false });
      const want = await freshContent(next.toSorted().map(contender), { layout });
      if (JSON.stringify(contentOf(node.kernel)) !== JSON.stringify(want)) wrong.push(`${has} to ${next}`);
      has = next;
    }
    t.same(wrong, [], layout.name);
    t.equal(node.failures.length, 0);
  }
});

t.test('the same services in another order give the same transactions', async (t) => {
  const [one, other] = [makeNode(), makeNode()];
  await fullSync(one.dataplane, [...SIX_SERVICES, ...POLICIES]);
  await fullSync(other.dataplane, [...SIX_SERVICES, ...POLICIES].toReversed());
  t.same(other.kernel.commits, one.kernel.commits);
  t.ok(commandsOf(one.kernel).length > 100);
});

const [svc1, svc2] = SIX_SERVICES as readonly [ServicePlan, ServicePlan];

t.test('a partial sync writes what changed and reads nothing', async (t) => {
  const { kernel, dataplane } = makeNode();
  await fullSync(dataplane, SIX_SERVICES);
  t.equal(kernel.reads, 1);
  takeCommits(kernel);
  await change(dataplane, SIX_SERVICES, SIX_SERVICES.slice(1));
  t.same(takeCommits(kernel).map(words), [['flush chain', 'delete element', 'delete element', 'delete chain']]);
  await change(dataplane, SIX_SERVICES.slice(1), SIX_SERVICES);
  t.same(takeCommits(kernel).map(words), [['add chain', 'add rule', 'add element', 'add element']]);
  const moved = makePlan(svc1.ports[0]?.port, [makeEndpoint('10.180.0.77')]);
  await change(dataplane, SIX_SERVICES, [moved, ...SIX_SERVICES.slice(1)]);
  t.same(takeCommits(kernel).map(words), [['flush chain', 'add rule']]);
  await dataplane.sync(snapshotOf([moved, ...SIX_SERVICES.slice(1)], [moved.service, svc2.service]), { full: false });
  t.same(takeCommits(kernel), [], 'dirty without a difference');
  t.equal(kernel.reads, 1);
});

t.test('facts of the node are read by full syncs', async (t) => {
  const { kernel, dataplane, addresses, lines } = makeNode();
  await dataplane.sync(snapshotOf(SIX_SERVICES, [], ['172.30.0.0/16', 'fd00:43::/112']), { full: true });
  const nodeIPs = () => kernel.readElements('ip', TABLE, { name: 'nodeport-ips', key: ['addr'] }).elements;
  t.same(nodeIPs(), [{ key: ['192.168.0.2'] }], 'loopback does not answer on node ports');
  takeCommits(kernel);
  addresses.list = [];
  await dataplane.sync(snapshotOf(SIX_SERVICES, []), { full: true });
  t.same(nodeIPs(), []);
  t.same(
    takeCommits(kernel).map(words),
    [['flush chain', 'add rule', 'delete element']],
    'without CIDRs the rule for unallocated addresses goes',
  );
  const broken = makeNode();
  Object.defineProperty(broken.addresses, 'list', {
    get() {
      throw new Error('no netlink');
    },
  });
  await fullSync(broken.dataplane, SIX_SERVICES);
  t.same(broken.lines, ['cannot find out; going on without it']);
  t.same(lines, []);
});

t.test('a first start goes in chunks, static things and the first services at once', async (t) => {
  const plans = Array.from({ length: 600 }, (_, i) =>
    makePlan(makeServicePort({ serviceName: `s${i}`, clusterIP: ip(`172.30.${i >> 8}.${i & 255}`) }), [
      makeEndpoint(`10.180.${i >> 8}.${i & 255}`),
    ]),
  );
  const { kernel, dataplane } = makeNode();
  await fullSync(dataplane, plans);
  const chains = takeCommits(kernel).map((commands) => words(commands).filter((word) => word === 'add chain').length);
  t.same(chains, [250 + 15, 250, 100]);
  await dataplane.sync(
    snapshotOf(
      [],
      plans.map(({ service }) => service),
    ),
    { full: false },
  );
  t.equal(takeCommits(kernel).length, 3, 'a change of everything, too');
  t.same(contentOf(kernel), await freshContent([], {}));
});

/** As kube-proxy leaves a table: the same, but the kernel chose the names of maps in rules. */
function kubeProxyTable(plans: readonly ServicePlan[]): readonly Command[] {
  const made = createAll(CHAINS_LAYOUT, plans, makeNftOptions({ masqueradeBit: 13 }), {
    nodeIPs: [],
    serviceCIDRs: [],
  });
  let maps = 0;
  return [...made.statics, ...made.services.flatMap(({ commands }) => commands)].map((command) => {
    if (command.object !== 'rule') return command;
    const statements = command.rule.statements.map((statement) =>
      statement.kind === 'dnatMap' ? { ...statement, map: { ...statement.map, name: `__map${maps++}` } } : statement,
    );
    return { ...command, rule: { ...command.rule, statements } };
  });
}

t.test('another table is replaced without a gap', async (t) => {
  const plans = Array.from({ length: 300 }, (_, i) =>
    makePlan(makeServicePort({ serviceName: `s${i}`, clusterIP: ip(`172.30.${i >> 8}.${i & 255}`) }), [
      makeEndpoint(`10.180.${i >> 8}.${i & 255}`),
    ]),
  );
  const masqueradingRule = (kernel: FakeNftables) =>
    kernel.readTable('ip', TABLE)?.chains.get('masquerading')?.ruleKeys[0];
  const fresh = makeNode();
  await fullSync(fresh.dataplane, []);
  const kernel = new FakeNftables();
  kernel.commitByOthers([{ family: 'ip', table: TABLE, commands: kubeProxyTable(plans.slice(0, 280)) }]);
  const steps: string[] = [];
  const commit = kernel.commit.bind(kernel);
  kernel.commit = (transactions, options) => {
    const result = commit(transactions, options);
    const services = kernel.readTable('ip', TABLE, { elementsOf: () => true })?.elements.get('service-ips')?.length;
    const statics = masqueradingRule(kernel) === masqueradingRule(fresh.kernel) ? 'new' : 'old';
    steps.push(`${result.kind}: ${services} services, ${statics} static rules`);
    return result;
  };
  const { dataplane, failures } = makeNode({}, kernel);
  await fullSync(dataplane, plans.slice(20));
  t.same(steps, [
    'committed: 300 services, old static rules',
    'committed: 300 services, old static rules',
    'committed: 300 services, new static rules',
    'committed: 280 services, new static rules',
    'committed: 280 services, new static rules',
    'committed: 280 services, new static rules',
  ]);
  t.same(contentOf(kernel), await freshContent(plans.slice(20), {}));
  t.same(failures, []);
});

t.test('what learned clients are in stays, and a new timeout is written', async (t) => {
  const port = makeServicePort({ affinitySeconds: 60 });
  const plan = makePlan(port, [makeEndpoint('10.180.0.1'), makeEndpoint('10.180.0.2')]);
  const { kernel, dataplane } = makeNode();
  await fullSync(dataplane, [plan]);
  const sets = [...(kernel.readTable('ip', TABLE)?.sets.values() ?? [])].filter((set) =>
    set?.name.startsWith('affinity-'),
  );
  const [set] = sets;
  if (set === undefined) throw new Error('no affinity set');
  t.equal(sets.length, 2);
  const learned = { verb: 'add', object: 'element', set, elements: [{ key: ['10.9.9.9'] }] } as const;
  kernel.commitByOthers([{ family: 'ip', table: TABLE, commands: [learned] }]);
  const clients = () => kernel.readElements('ip', TABLE, set).elements.map(({ key }) => key[0]);
  takeCommits(kernel);
  await fullSync(dataplane, [plan]);
  await fullSync(makeNode({}, kernel).dataplane, [plan]);
  t.same(takeCommits(kernel), []);
  t.same(clients(), ['10.9.9.9']);
  const longer = makePlan({ ...port, affinitySeconds: 61 }, [makeEndpoint('10.180.0.1'), makeEndpoint('10.180.0.2')]);
  await change(dataplane, [plan], [longer]);
  t.same(takeCommits(kernel).map(words), [['add set', 'add set']]);
  t.same(clients(), ['10.9.9.9']);
  await fullSync(makeNode({}, kernel).dataplane, [plan]);
  t.same(takeCommits(kernel).map(words), [['add set', 'add set']], 'by a full sync, too');
  await change(dataplane, [longer], [makePlan(port, [makeEndpoint('10.180.0.1')])]);
  t.equal(
    [...(kernel.readTable('ip', TABLE)?.sets.keys() ?? [])].filter((name) => name.startsWith('affinity-')).length,
    1,
  );
});

t.test('something of our name and of another kind has the table made anew, in one transaction', async (t) => {
  const foreign: readonly { name: string; commands: readonly Command[] }[] = [
    { name: 'a set', commands: [{ verb: 'add', object: 'set', set: { name: 'service-ips', key: ['mark'] } }] },
    {
      name: 'a map that is a set',
      commands: [
        { verb: 'add', object: 'set', set: { name: 'service-ips', key: ['addr', 'inet_proto', 'inet_service'] } },
      ],
    },
    {
      name: 'a base chain elsewhere',
      commands: [
        {
          verb: 'add',
          object: 'chain',
          chain: { name: 'nat-output', base: { type: 'nat', hook: 'output', priority: -99 } },
        },
      ],
    },
    { name: 'a chain without a hook', commands: [{ verb: 'add', object: 'chain', chain: { name: 'nat-output' } }] },
  ];
  for (const { name, commands } of foreign) {
    const { kernel, dataplane, lines } = makeNode();
    kernel.commitByOthers([{ family: 'ip', table: TABLE, commands: [{ verb: 'add', object: 'table' }, ...commands] }]);
    await fullSync(dataplane, SIX_SERVICES);
    t.same(contentOf(kernel), await freshContent(SIX_SERVICES, {}), name);
    t.equal(kernel.commits.length, 1, `${name}: one transaction`);
    t.same(lines, ['writing the table anew'], name);
  }
});

/** Refuses the commands that speak of a service port. */
const refusing = (plan: ServicePlan, errno: string) => {
  const names = plan.ports.map(({ port }) => servicePortNames(port).clusterPolicy);
  return (command: Command) => (names.some((name) => JSON.stringify(command).includes(name)) ? errno : undefined);
};

t.test('a service that the kernel refuses is left out, the others go in', async (t) => {
  for (const errno of ['EINVAL', 'ENOENT']) {
    const { kernel, dataplane, failures } = makeNode();
    kernel.refuses = refusing(svc1, errno);
    const report = await fullSync(dataplane, SIX_SERVICES);
    t.match(report.refused, [{ service: svc1.service, reason: errno, rule: /^add / }], `full, ${errno}`);
    t.same([...report.refusedServices], [svc1.service]);
    t.same(contentOf(kernel), await freshContent(SIX_SERVICES.slice(1), {}));
    t.ok(failures.length > 0 && failures.every((kind) => kind === 'sync'));
    const again = await fullSync(dataplane, SIX_SERVICES);
    t.same(again.refused, [], 'no news');
    t.same([...again.refusedServices], [svc1.service]);
    kernel.refuses = () => undefined;
    t.same([...(await fullSync(dataplane, SIX_SERVICES)).refusedServices], []);
    t.same(contentOf(kernel), await freshContent(SIX_SERVICES, {}));
  }
  for (const [errno, full] of [
    ['EINVAL', false],
    ['EEXIST', true],
  ] as const) {
    const { kernel, dataplane } = makeNode();
    await fullSync(dataplane, SIX_SERVICES);
    const moved = (plan: ServicePlan) => makePlan(plan.ports[0]?.port, [makeEndpoint('10.180.0.77')]);
    const next = [moved(svc1), moved(svc2), ...SIX_SERVICES.slice(2)];
    kernel.refuses = refusing(svc1, errno);
    const report = await change(dataplane, SIX_SERVICES, next);
    t.match(report, { full, refused: [{ service: svc1.service, reason: errno }] }, `partial, ${errno}`);
    t.same(contentOf(kernel), await freshContent([svc1, ...next.slice(1)], {}), 'what was last good stays');
    t.equal(dataplane.inspect(svc1.service, next[0]).applied, 'an earlier plan');
    t.equal(dataplane.inspect(svc2.service, next[1]).applied, 'this plan');
    kernel.refuses = () => undefined;
    const after = await dataplane.sync(snapshotOf(next, [svc1.service]), { full: false });
    t.same([after.full, [...after.refusedServices]], [false, []]);
    t.same(contentOf(kernel), await freshContent(next, {}));
  }
});

t.test('a plan that cannot be expressed is refused without asking the kernel', async (t) => {
  const bad = makePlan(makeServicePort({ serviceName: 'a b' }), [makeEndpoint('10.180.0.1')]);
  const { kernel, dataplane } = makeNode();
  const report = await fullSync(dataplane, [bad, svc1]);
  t.match(report.refused, [{ service: bad.service, rule: '', reason: /^Cannot name a chain/ }]);
  t.same(contentOf(kernel), await freshContent([svc1], {}));
  t.match((await dataplane.sync(snapshotOf([bad, svc1], [bad.service]), { full: false })).refused, [
    { service: bad.service },
  ]);
  t.same(dataplane.inspect(bad.service, bad), { rules: [], applied: 'nothing' });
});

t.test('what belongs to no service is refused: the sync fails, and the next one is full', async (t) => {
  const { kernel, dataplane, failures } = makeNode();
  kernel.refuses = (command) => (JSON.stringify(command).includes('"masquerading"') ? 'EOPNOTSUPP' : undefined);
  await t.rejects(fullSync(dataplane, SIX_SERVICES), { message: /masquerading.*EOPNOTSUPP/ });
  t.ok(failures.length > 0);
  kernel.refuses = () => undefined;
  const report = await dataplane.sync(snapshotOf(SIX_SERVICES, []), { full: false });
  t.equal(report.full, true);
  t.same(contentOf(kernel), await freshContent(SIX_SERVICES, {}));
  kernel.failure = new NetlinkError('talk netlink', { code: 'SOCKET', call: 'send', errno: 105, name: 'ENOBUFS' });
  await t.rejects(change(dataplane, SIX_SERVICES, []), { name: 'NetlinkError' });
  kernel.failure = undefined;
  t.equal((await change(dataplane, SIX_SERVICES, [])).full, true);
  t.same(contentOf(kernel), await freshContent([], {}));
});

t.test('a partial sync over a table that is not what it was becomes a full one', async (t) => {
  const { kernel, dataplane, lines } = makeNode();
  await fullSync(dataplane, SIX_SERVICES);
  kernel.commitByOthers([{ family: 'ip', table: TABLE, commands: [{ verb: 'delete', object: 'table' }] }]);
  const report = await change(dataplane, SIX_SERVICES, SIX_SERVICES.slice(1));
  t.equal(report.full, true);
  t.same(report.refused, []);
  t.same(lines, ['partial sync refused; syncing in full']);
  t.same(contentOf(kernel), await freshContent(SIX_SERVICES.slice(1), {}));
});

t.test('an end that is asked for stops between transactions', async (t) => {
  const { kernel, dataplane, failures } = makeNode();
  const stop = new AbortController();
  stop.abort();
  await t.rejects(dataplane.sync(snapshotOf(SIX_SERVICES), { full: true }, stop.signal), { name: 'AbortError' });
  t.same([kernel.commits.length, failures], [0, []]);
});

t.test('inspect() says what nft would be told', async (t) => {
  const { dataplane } = makeNode();
  t.equal(dataplane.inspect(svc1.service, svc1).applied, 'nothing');
  await fullSync(dataplane, SIX_SERVICES);
  const { rules, applied } = dataplane.inspect(svc1.service, svc1);
  t.equal(applied, 'this plan');
  t.match(rules[0], /^add chain ip kube-proxy service-ULMVA6XW-ns1\/svc1\/tcp\/p80$/);
  t.equal(rules.length, 4);
  t.same(dataplane.inspect(svc1.service, undefined), { rules: [], applied: 'an earlier plan' });
});

t.test('monitor() tells of changes by others', async (t) => {
  const at = (commands: readonly Command[], family: 'ip' | 'ip6' = 'ip', table = TABLE) => [
    { family, table, commands },
  ];
  const addChain = (name: string): Command => ({ verb: 'add', object: 'chain', chain: { name } });
  const rows: readonly { name: string; act: (node: ReturnType<typeof makeNode>) => unknown; lost: boolean }[] = [
    { name: 'nothing', act: () => undefined, lost: false },
    { name: 'a chain more', act: ({ kernel }) => kernel.commitByOthers(at([addChain('x')])), lost: true },
    {
      name: 'the table is deleted',
      act: ({ kernel }) => kernel.commitByOthers(at([{ verb: 'delete', object: 'table' }])),
      lost: true,
    },
    {
      name: 'a chain is emptied',
      act: ({ kernel }) => kernel.commitByOthers(at([{ verb: 'flush', object: 'chain', name: 'services' }])),
      lost: true,
    },
    { name: 'our own change', act: ({ dataplane }) => change(dataplane, SIX_SERVICES, []), lost: false },
    {
      name: 'another table',
      act: ({ kernel }) => kernel.commitByOthers(at([{ verb: 'add', object: 'table' }, addChain('x')], 'ip', 'nat')),
      lost: false,
    },
    {
      name: 'our table of the other family',
      act: ({ kernel }) => kernel.commitByOthers(at([{ verb: 'add', object: 'table' }], 'ip6')),
      lost: false,
    },
    {
      name: 'announcements of our own changes are lost',
      act: async ({ kernel, dataplane }) => {
        await change(dataplane, SIX_SERVICES, []);
        kernel.overrun();
      },
      lost: false,
    },
    {
      name: 'announcements of our own changes and of others are lost',
      act: async ({ kernel, dataplane }) => {
        kernel.commitByOthers(at([addChain('x')]));
        kernel.overrun();
        await change(dataplane, SIX_SERVICES, []);
        kernel.overrun();
      },
      lost: true,
    },
    {
      name: 'the same, with a change that was heard before',
      act: async ({ kernel, dataplane, clock }) => {
        kernel.commitByOthers(at([{ verb: 'add', object: 'table' }], 'ip', 'nat'));
        await clock.advance(250);
        await change(dataplane, SIX_SERVICES, []);
        kernel.overrun();
      },
      lost: false,
    },
  ];
  for (const { name, act, lost } of rows) {
    const node = makeNode();
    const reasons: string[] = [];
    const stop = new AbortController();
    const done = node.dataplane.monitor((reason) => reasons.push(reason), stop.signal);
    await fullSync(node.dataplane, SIX_SERVICES);
    await act(node);
    await node.clock.advance(500);
    t.equal(reasons.length > 0, lost, `${name}: ${reasons}`);
    stop.abort();
    await done;
    t.equal(node.clock.sleeping, 0, `${name}: nothing stays behind`);
  }
});

t.test('what happens before anybody listens is found out', async (t) => {
  for (const byOthers of [false, true]) {
    const { kernel, dataplane, clock } = makeNode();
    const reasons: string[] = [];
    const stop = new AbortController();
    await fullSync(dataplane, SIX_SERVICES);
    if (byOthers)
      kernel.commitByOthers([{ family: 'ip', table: TABLE, commands: [{ verb: 'delete', object: 'table' }] }]);
    const done = dataplane.monitor((reason) => reasons.push(reason), stop.signal);
    await clock.advance(250);
    t.equal(reasons.length, byOthers ? 1 : 0);
    stop.abort();
    await done;
  }
});

t.test('a repair follows within a second, and a fight is given up to once in a while', async (t) => {
  const { kernel, dataplane, clock } = makeNode();
  const stop = new AbortController();
  const times: number[] = [];
  const startMs = clock.now();
  let repair: Promise<unknown> = Promise.resolve();
  const done = dataplane.monitor(() => {
    times.push(clock.now() - startMs);
    repair = fullSync(dataplane, SIX_SERVICES);
  }, stop.signal);
  await fullSync(dataplane, SIX_SERVICES);
  for (let i = 0; i < 240; i++) {
    kernel.commitByOthers([
      { family: 'ip', table: TABLE, commands: [{ verb: 'flush', object: 'chain', name: 'services' }] },
    ]);
    await clock.advance(250);
    await repair;
  }
  t.same(times.slice(0, 3), [250, 500, 750]);
  t.ok(times.length >= 15 && times.length <= 25, `${times.length} repairs in a minute`);
  stop.abort();
  await done;
});

t.test('both families share what is heard', async (t) => {
  const kernel = new FakeNftables();
  const clock = new FakeClock();
  const watch = new TableWatch(kernel, clock);
  const lost: Family[] = [];
  const stop = new AbortController();
  const planes = FAMILIES.map((family) =>
    createNftablesDataplane(
      {
        watch,
        nodeAddresses: async () => [],
        metrics: { syncFailed() {}, cleanupFailed() {} },
        log: { info() {}, warn() {} },
      },
      { layout: CHAINS_LAYOUT, ...makeNftOptions({ family }) },
    ),
  );
  const done = planes.map((plane) => plane.monitor(() => lost.push(plane.family), stop.signal));
  for (const plane of planes) await fullSync(plane, []);
  await clock.advance(1000);
  t.same(lost, []);
  kernel.commitByOthers([{ family: 'ip6', table: TABLE, commands: [{ verb: 'delete', object: 'table' }] }]);
  await clock.advance(1000);
  t.same(lost, ['IPv6']);
  stop.abort();
  await Promise.all(done);
});

t.test('probeNftables()', async (t) => {
  const denied = new NetlinkError('x', { code: 'KERNEL', errno: 1, name: 'EPERM' });
  const absent = new NetlinkError('x', { code: 'SOCKET', call: 'socket', errno: 93, name: 'EPROTONOSUPPORT' });
  const rows: readonly { release: string; skip?: boolean; failure?: NetlinkError; problem?: RegExp }[] = [
    { release: '6.18.44-1-amd64' },
    { release: '5.13.0' },
    { release: '5.12.19', problem: /the kernel is 5.12.19; run a kernel of 5.13 or newer/ },
    { release: '4.19.0-25', problem: /KUBE_PROXY_NFTABLES_SKIP_KERNEL_VERSION_CHECK=1/ },
    { release: '4.19.0-25', skip: true },
    { release: 'custom' },
    { release: '6.1.0', failure: denied, problem: /EPERM; run as root with CAP_NET_ADMIN$/ },
    { release: '6.1.0', failure: absent, problem: /EPROTONOSUPPORT; load the module nf_tables/ },
    { release: '4.19.0', skip: true, failure: absent, problem: /nf_tables/ },
  ];
  for (const { release, skip = false, failure, problem } of rows) {
    const kernel = new FakeNftables();
    kernel.failure = failure;
    const found = probeNftables(kernel, { release, skipVersionCheck: skip });
    t.match(found?.message, problem ?? undefined, `${release} ${failure?.message ?? ''}`);
    t.equal(kernel.commits.length + kernel.reads, 0);
  }
  const kernel = new FakeNftables();
  kernel.generation = () => {
    throw new TypeError('a defect');
  };
  t.throws(() => probeNftables(kernel, { release: '6.1.0', skipVersionCheck: false }), TypeError);
});

t.test('openMode() opens it without a program; removeTable()', async (t) => {
  const kernel = new FakeNftables();
  const deps = {
    exec: new FakeExec({}),
    clock: new FakeClock(),
    sysctl: new FakeSysctl({}),
    nfacct: new FakeNfacct(),
    processes: { here: () => [] },
    legacyTables: { names: () => [] },
    nodeAddresses: async () => [],
    log: { info: () => {}, warn: () => {} },
    metrics: () => ({ restoreFailed() {}, rules() {}, syncFailed() {}, cleanupFailed() {} }),
    openNftables: () => kernel,
  };
  const settings = {
    mode: 'nftables',
    iptablesFlavour: 'auto',
    masqueradeBit: 14,
    masqueradeAll: false,
    syncPeriodMs: 30_000,
  } as const;
  const mode = await openMode(settings, deps);
  t.match(mode, {
    mode: 'nftables',
    support: { IPv4: undefined, IPv6: undefined },
    description: /^nftables, layout chains/,
  });
  t.equal(await mode.packets.ctStateInvalidDropped(), undefined);
  for (const family of FAMILIES) {
    await fullSync(mode.createDataplane({ ...makeNftOptions({ family }), localhostNodePorts: false }), []);
  }
  kernel.refuses = () => 'EBUSY';
  const refused = { message: 'Cannot remove the table ip kube-proxy: the kernel answers EBUSY' };
  t.throws(() => removeTable('IPv4', kernel), refused);
  kernel.refuses = () => 'ENOENT';
  t.equal(removeTable('IPv4', kernel), false, 'somebody else was faster');
  kernel.refuses = () => undefined;
  t.same(
    FAMILIES.map((family) => removeTable(family, kernel)),
    [true, true],
  );
  t.same([contentOf(kernel, 'IPv4'), contentOf(kernel, 'IPv6')], [undefined, undefined]);
  t.equal(removeTable('IPv4', kernel), false, 'there is nothing any more');
  kernel.failure = new NetlinkError('x', { code: 'KERNEL', errno: 1, name: 'EPERM' });
  t.throws(() => removeTable('IPv4', kernel), /EPERM/);
  const denied = await openMode(settings, deps);
  t.match(denied.support, { IPv4: { message: /EPERM/ }, IPv6: { message: /EPERM/ } });
  t.throws(() => denied.createDataplane({ ...makeNftOptions(), localhostNodePorts: false }), /EPERM/);
  t.equal((await openMode({ ...settings, nftablesLayout: 'chains' }, deps)).mode, 'nftables');
});

t.test('blame() takes the word of the kernel, with care', async (t) => {
  const command: Command = { verb: 'add', object: 'chain', chain: { name: 'c' } };
  const owned = ['ns/a', 'ns/b', '', 'ns/a'].map((owner) => ({ owner: owner as ObjectKey, command }));
  const rows: readonly { name: string; refused: readonly [number, string][]; services: string[]; unclear: boolean }[] =
    [
      { name: 'one', refused: [[1, 'ERANGE']], services: ['ns/b'], unclear: false },
      {
        name: 'one, twice',
        refused: [
          [0, 'ERANGE'],
          [3, 'EINVAL'],
        ],
        services: ['ns/a'],
        unclear: false,
      },
      {
        name: 'two',
        refused: [
          [0, 'ERANGE'],
          [1, 'EINVAL'],
        ],
        services: ['ns/a', 'ns/b'],
        unclear: false,
      },
      {
        name: 'one that infects',
        refused: [
          [1, 'EOPNOTSUPP'],
          [2, 'EOPNOTSUPP'],
          [3, 'EOPNOTSUPP'],
        ],
        services: ['ns/b'],
        unclear: false,
      },
      { name: 'perhaps a race', refused: [[1, 'ENOENT']], services: ['ns/b'], unclear: true },
      { name: 'nobody', refused: [[2, 'EINVAL']], services: [], unclear: true },
      { name: 'no command of ours', refused: [[4, 'EINVAL']], services: [], unclear: true },
    ];
  for (const { name, refused, services, unclear } of rows) {
    const found = blame(
      owned,
      refused.map(([index, errno]) => ({ transaction: 0, command: index, errno })),
      { family: 'ip', table: TABLE },
    );
    t.same(
      found.refusals.map(({ service }) => service),
      services,
      name,
    );
    t.equal(found.unclear !== undefined, unclear, name);
  }
});
