/** The effect side of iptables mode on rulesets in memory: sync, refusal, canary, cleanup, programs and their probe. */
import fc from 'fast-check';
import t from 'tap';
import { toChainName } from '../../src/iptables/chain.ts';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { fakePrograms, noTrouble } from '../../src/iptables/fake-programs.ts';
import { parseSave } from '../../src/iptables/parse.ts';
import { waitForPredecessor } from '../../src/iptables/predecessor.ts';
import { probeFamily, probeFlavour, probeIptables, versionAtLeast } from '../../src/iptables/probe.ts';
import { parseRestoreError, RestoreRefusedError } from '../../src/iptables/refusal.ts';
import { createTools, type Flavour } from '../../src/iptables/tools.ts';
import { openMode } from '../../src/modes/index.ts';
import { createIptablesDataplane, type IptablesDataplaneOptions } from '../../src/modes/iptables/apply.ts';
import { watchCanary } from '../../src/modes/iptables/canary.ts';
import { removeRules } from '../../src/modes/iptables/cleanup.ts';
import { buildRestore, deltaFromDump, type Edit, type OwnedEdits } from '../../src/modes/iptables/delta.ts';
import { countRules, renderAll, renderService } from '../../src/modes/iptables/render.ts';
import { renderStatic } from '../../src/modes/iptables/static.ts';
import { blame, removal } from '../../src/modes/iptables/write.ts';
import type { Dataplane, Snapshot, SyncReport } from '../../src/modes/mode.ts';
import { FakeNfacct } from '../../src/netlink/fake-nfacct.ts';
import type { IPAddress, ObjectKey, ServicePlan } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { FakeExec, type FakeProgram } from '../../src/sys/fake-exec.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';
import { arbPlans } from '../lib/iptables-plans.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';

const SYNC_PERIOD_MS = 30_000;

const OPTIONS: IptablesDataplaneOptions = {
  family: 'IPv4',
  masqueradeBit: 14,
  masqueradeAll: false,
  localhostNodePorts: true,
  localTraffic: { kind: 'cidr', cidr: cidr('10.0.0.0/8') },
  nodePortAddresses: { matchAll: true, cidrs: [cidr('0.0.0.0/0')], containsIPv4Loopback: true },
  nodeIP: ip('192.168.0.2'),
  features: { randomFully: true },
  tcpBeLiberal: false,
  syncPeriodMs: SYNC_PERIOD_MS,
};

/** A node with a dataplane of one family, and everything a test may look at or do to it. */
function makeNode(flavour: Flavour = 'nft', overrides: Partial<IptablesDataplaneOptions> = {}) {
  const options = { ...OPTIONS, ...overrides };
  const ruleset = new FakeRuleset(options.family, flavour);
  const trouble = noTrouble();
  const exec = new FakeExec(fakePrograms(ruleset, trouble));
  const clock = new FakeClock();
  const nfacct = new FakeNfacct();
  const addresses: { list: readonly IPAddress[]; fails: boolean } = { list: [], fails: false };
  const failures: boolean[] = [];
  const counts: Record<string, { total: number; last: number }> = {};
  const logged: string[] = [];
  const base = `iptables-${flavour}`;
  const tools = createTools(
    {
      family: options.family,
      flavour,
      version: '1.8.9',
      binaries: { iptables: base, save: `${base}-save`, restore: `${base}-restore` },
      features: { randomFully: true, wait: true },
    },
    { exec, clock },
  );
  const make = (): Dataplane =>
    createIptablesDataplane(
      {
        tools,
        clock,
        nfacct,
        nodeAddresses: async () => {
          if (addresses.fails) throw new Error('the list is being written');
          return addresses.list;
        },
        metrics: {
          restoreFailed: (partial) => failures.push(partial),
          rules: (table, total, last) => {
            counts[table] = { total, last };
          },
        },
        log: { info: (_fields, message) => logged.push(message), warn: (_fields, message) => logged.push(message) },
      },
      options,
    );
  const held = new Map<ObjectKey, ServicePlan>();
  let dataplane = make();
  return {
    options,
    ruleset,
    trouble,
    exec,
    clock,
    nfacct,
    addresses,
    failures,
    counts,
    logged,
    tools,
    held,
    get dataplane() {
      return dataplane;
    },
    restart() {
      dataplane = make();
    },
    /** Changes plans (undefined: gone) and syncs. */
    async sync(
      changes: readonly (ServicePlan | ObjectKey)[] = [],
      { full = false, endpointCount = 0 }: { full?: boolean; endpointCount?: number } = {},
    ): Promise<SyncReport> {
      const dirty = new Set<ObjectKey>();
      for (const change of changes) {
        if (typeof change === 'string') held.delete(change);
        else held.set(change.service, change);
        dirty.add(typeof change === 'string' ? change : change.service);
      }
      const snapshot: Snapshot = { services: held, dirty, endpointCount, serviceCIDRs: [] };
      return await dataplane.sync(snapshot, { full });
    },
    /** Programs started since the last call, by their last name part: `save`, `restore` … */
    started(): string[] {
      const names = exec.calls.map(({ argv }) => argv[0].replace(`${base}-`, ''));
      exec.calls.length = 0;
      return names;
    },
    facts: () => ({
      nodeIPs: addresses.list,
      counters: { ctStateInvalid: nfacct.present, localhostNodePorts: nfacct.present },
    }),
  };
}

type TestNode = ReturnType<typeof makeNode>;

/** What the ruleset lacks or has too much, as restore input; '' if it is what a first full sync of these plans would write. */
function drift(node: TestNode, plans: Iterable<ServicePlan> = node.held.values()): string {
  const facts = node.facts();
  const { before, services, after } = deltaFromDump(parseSave(node.ruleset.save()), {
    family: node.options.family,
    statics: renderStatic(node.options, facts),
    services: [...plans].map((plan) => [plan.service, renderService(plan, node.options, facts, { comments: true })]),
  });
  return buildRestore([before, ...services, after]).text;
}

const port = (name: string, n: number, overrides: Parameters<typeof makeServicePort>[0] = {}) =>
  makeServicePort({ serviceName: name, clusterIP: ip(`172.30.1.${n}`), ...overrides });
const plan = (
  name: string,
  n: number,
  hosts: readonly number[],
  overrides: Parameters<typeof makeServicePort>[0] = {},
) =>
  makePlan(
    port(name, n, overrides),
    hosts.map((host) => makeEndpoint(`10.180.${n}.${host}`)),
  );
const key = (name: string) => `ns1/${name}` as ObjectKey;

t.test('a first sync over nothing, and what follows', async (t) => {
  const node = makeNode();
  await node.sync([plan('a', 1, [1, 2]), plan('b', 2, [1], { nodePort: 30080 }), plan('c', 3, [])]);
  t.same(node.started(), ['save', 'save', 'restore']);
  t.equal(drift(node), '', 'the rules are those of a first full sync');
  t.equal(node.ruleset.rules('filter', 'INPUT').length, 4, 'the jumps are there');
  t.same([...node.nfacct.counters.keys()], ['ct_state_invalid_dropped_pkts', 'localhost_nps_accepted_pkts']);

  await node.sync();
  t.same(node.started(), [], 'nothing to do starts no process');
  await node.sync([plan('a', 1, [1, 2])]);
  t.same(node.started(), [], 'a dirty service whose rules are the same starts no process');
  await node.sync([plan('a', 1, [1, 3]), key('c')]);
  t.same(node.started(), ['restore'], 'a change is one restore');
  t.equal(drift(node), '');
  const input = node.ruleset.inputs.at(-1) ?? '';
  t.notMatch(input, /ns1\/b/, 'services that did not change are not written');
  t.notMatch(input, /^:KUBE-SERVICES/m, 'shared chains are not rewritten');

  await node.sync([], { full: true });
  t.same(node.started(), ['save', 'save'], 'a full sync reads, and writes nothing where nothing differs');
  node.restart();
  await node.sync();
  t.same(node.started(), ['save', 'save'], 'a fresh process finds everything as it should be');
});

t.test('only the tables with edits are in an input', async (t) => {
  const node = makeNode();
  await node.sync([plan('a', 1, [1])]);
  await node.sync([plan('a', 1, [2])]);
  t.notMatch(node.ruleset.inputs.at(-1), /\*filter/);
  await node.sync([plan('a', 1, [])]);
  t.match(node.ruleset.inputs.at(-1), /\*filter[^*]*\*nat/, 'filter first');
});

t.test('any sequence of changes ends as a first full sync of the last state', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(arbPlans, fc.boolean()), { minLength: 1, maxLength: 6 }),
      fc.constantFrom<Flavour>('nft', 'legacy'),
      async (states, flavour) => {
        const node = makeNode(flavour);
        for (const [plans, full] of states) {
          const now = new Set(plans.map(({ service }) => service));
          const gone = [...node.held.keys()].filter((held) => !now.has(held));
          await node.sync([...plans, ...gone], { full });
          if (drift(node) !== '') return false;
          let total = 0;
          for (const p of [...plans.map((p) => renderService(p, OPTIONS, node.facts(), { comments: true }))]) {
            total += countRules(p).nat;
          }
          if (node.counts['nat']?.total !== total + countRules(renderStatic(OPTIONS, node.facts())).nat) return false;
        }
        return true;
      },
    ),
    { numRuns: 60 },
  );
});

t.test('rule counts', async (t) => {
  const node = makeNode();
  await node.sync();
  t.same(node.counts, { filter: { total: 4, last: 4 + 11 }, nat: { total: 5, last: 5 + 3 } }, 'jumps count as written');
  await node.sync([plan('a', 1, [1])]);
  t.same(node.counts, { filter: { total: 4, last: 0 }, nat: { total: 10, last: 5 } });
  await node.sync([plan('a', 1, [1, 2])]);
  t.same(node.counts['nat'], { total: 13, last: 5 });
  await node.sync([key('a')]);
  t.same(node.counts['nat'], { total: 5, last: 0 });
  await node.sync([], { full: true });
  t.same(node.counts, { filter: { total: 4, last: 0 }, nat: { total: 5, last: 0 } });
});

t.test('a cold start goes in chunks where that is cheaper', async (t) => {
  for (const [flavour, restores] of [
    ['nft', 3],
    ['legacy', 1],
  ] as const) {
    const node = makeNode(flavour);
    const plans = Array.from({ length: 600 }, (_, i) => {
      const address = ip(`172.30.${2 + (i >> 8)}.${i & 255}`);
      return makePlan(port(`s${i}`, 1, { clusterIP: address }), [makeEndpoint('10.180.1.1')]);
    });
    await node.sync(plans);
    t.equal(node.started().filter((name) => name === 'restore').length, restores, flavour);
    t.equal(drift(node), '');
    t.match(node.ruleset.inputs[0], /-I PREROUTING/, 'the jumps come with the first');
    // Over rules that are there a large difference is written in chunks too.
    await node.sync(
      plans.map(({ service }, i) =>
        plan(service.slice(4), 1, [2], { clusterIP: ip(`172.30.${2 + (i >> 8)}.${i & 255}`) }),
      ),
      { full: true },
    );
    t.equal(node.started().filter((name) => name === 'restore').length, flavour === 'nft' ? 4 : 1, flavour);
    t.equal(drift(node), '');
  }
});

t.test('many services go at once', async (t) => {
  const node = makeNode();
  const plans = Array.from({ length: 400 }, (_, i) => {
    const address = ip(`172.30.${2 + (i >> 8)}.${i & 255}`);
    return makePlan(port(`s${i}`, 1, { clusterIP: address }), i % 4 === 3 ? [] : [makeEndpoint('10.180.1.1')]);
  });
  await node.sync(plans);
  const services = plans.map(({ service }) => service);
  for (const { name, gone, come, rewritten } of [
    { name: 'few: their rules are taken away one by one', gone: services.slice(0, 100), come: [], rewritten: [] },
    {
      name: 'many: the chain they leave is rewritten, the other is not',
      gone: services.slice(100, 300),
      come: [plan('late', 1, [1], { clusterIP: ip('172.30.9.9') })],
      rewritten: [':KUBE-SERVICES - [0:0]'],
    },
  ]) {
    node.ruleset.inputs.length = 0;
    await node.sync([...gone, ...come]);
    const [input = '', ...others] = node.ruleset.inputs;
    t.same(others, [], `${name}: one restore`);
    t.same(input.match(/^:KUBE-[A-Z]+ - .*$/gm) ?? [], rewritten, name);
    const [filter = '', nat = ''] = input.split('*nat');
    t.equal((filter.match(/^-D /gm) ?? []).length, gone.length / 4, `${name}: filter rules`);
    t.equal((nat.match(/^-D /gm) ?? []).length, rewritten.length > 0 ? 0 : (gone.length * 3) / 4, `${name}: nat rules`);
    t.equal(drift(node), '', name);
  }
});

/** Services with an address each, and one endpoint each if `host` is given. */
const many = (count: number, host?: number): readonly ServicePlan[] =>
  Array.from({ length: count }, (_, i) =>
    makePlan(
      port(`s${i}`, 1, { clusterIP: ip(`172.30.${2 + (i >> 8)}.${i & 255}`) }),
      host === undefined ? [] : [makeEndpoint(`10.180.1.${host}`)],
    ),
  );

t.test('a rewritten chain has a refused rule of a service that did not change', async (t) => {
  for (const flavour of ['nft', 'legacy'] as const) {
    for (const { name, changes, refused } of [
      { name: 'it alone', changes: [], refused: ['ns1/kept'] },
      { name: 'one that changed, too', changes: [plan('bad', 9, [])], refused: ['ns1/bad', 'ns1/kept'] },
    ]) {
      const node = makeNode(flavour);
      const plans = many(150);
      await node.sync([...plans, plan('kept', 8, [])]);
      node.ruleset.refuses = (line) => /172\.30\.1\.[89]/.test(line);
      let restores = 0;
      node.trouble.before = () => {
        if (++restores > 100) throw new Error('it goes round in circles');
      };
      const report = await node.sync([...plans.map(({ service }) => service), ...changes]);
      // Whether what did not change is refused depends on whether the full sync rewrites the chain too.
      const named = report.refused.map(({ service }) => service);
      t.same(named.filter((service) => service !== 'ns1/kept').sort(), refused.slice(0, -1), `${flavour}, ${name}`);
      t.equal(new Set(named).size, named.length, 'each is named once');
      const rest = report.refusedServices.has(key('kept')) ? [] : [plan('kept', 8, [])];
      t.equal(drift(node, rest), '', `${flavour}, ${name}`);
    }
  }
});

t.test('many services are gone when a full sync comes', async (t) => {
  const kept = [plan('k1', 7, [1]), plan('k2', 8, [1])];
  for (const flavour of ['nft', 'legacy'] as const) {
    for (const { name, host, come, bad } of [
      { name: 'none comes', host: 1, come: 0, bad: false },
      { name: 'more come than one restore takes', host: 1, come: 300, bad: false },
      { name: 'one is refused', host: 1, come: 20, bad: true },
      { name: 'the rules are in the other table', host: undefined, come: 0, bad: false },
    ]) {
      const node = makeNode(flavour);
      const gone = many(200, host);
      await node.sync([...kept, ...gone]);
      for (const { service } of gone) node.held.delete(service);
      const late = Array.from({ length: come }, (_, i) =>
        plan(`late${i}`, 1, [2], { clusterIP: ip(`172.30.${20 + (i >> 8)}.${i & 255}`) }),
      );
      // In a shared chain, so that the rewritten chain has it; the legacy flavour names the COMMIT only.
      if (bad) node.ruleset.refuses = (line) => /KUBE-SERVICES .*172\.30\.20\.3 /.test(line);
      node.ruleset.inputs.length = 0;
      const report = await node.sync(late, { full: true });
      const what = `${flavour}, ${name}`;
      t.same([...report.refusedServices], bad ? ['ns1/late3'] : [], what);
      t.equal(drift(node, [...kept, ...late.filter((_, i) => !bad || i !== 3)]), '', what);
      const { inputs } = node.ruleset;
      const rewriting = inputs.filter((input) => /^:KUBE-SERVICES /m.test(input));
      t.ok(rewriting.length > 0, `${what}: the chain they leave is rewritten`);
      if (!bad) {
        t.equal(rewriting.length, 1, `${what}: once`);
        t.notMatch(inputs.join(''), /^-D KUBE-SERVICES/m, `${what}: and nothing is deleted from it`);
      }
      // Whoever empties the chain fills it, whatever is refused.
      for (const input of host === undefined ? [] : rewriting) {
        t.match(
          input,
          /^-A KUBE-SERVICES .*ns1\/k1 [\s\S]*^-A KUBE-SERVICES .*ns1\/k2 [\s\S]*LOCAL -j KUBE-NODEPORTS$/m,
          what,
        );
      }
    }
  }
});

t.test('others in the tables', async (t) => {
  const node = makeNode();
  const foreign =
    '*nat\n:THEIRS - [0:0]\n-A THEIRS -d 1.2.3.4 -j RETURN\n-A PREROUTING -j THEIRS\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\nCOMMIT\n';
  node.ruleset.restore(foreign);
  await node.sync([plan('a', 1, [1])]);
  t.same(node.ruleset.rules('nat', 'THEIRS'), ['-d 1.2.3.4/32 -j RETURN']);
  t.ok(node.ruleset.rules('nat', 'PREROUTING').includes('-j THEIRS'));
  t.equal(node.ruleset.rules('filter', 'INPUT').filter((rule) => rule === '-j KUBE-FIREWALL').length, 1);

  node.ruleset.restore('*nat\n-A KUBE-SERVICES -d 6.6.6.6 -j RETURN\nCOMMIT\n');
  await node.sync([], { full: true });
  t.equal(drift(node), '', 'a foreign rule in a chain of ours goes at a full sync');
  node.ruleset.restore('*nat\n-F\nCOMMIT\n');
  await node.sync([plan('a', 1, [])]);
  t.equal(drift(node), '', 'a partial sync that finds other rules than it left becomes a full one');
  t.same(node.failures, [true], 'and is counted as a failed partial restore');
});

t.test('large clusters', async (t) => {
  const node = makeNode();
  const large = { endpointCount: 1001 };
  const chains = () =>
    [...node.ruleset.save('nat').matchAll(/^:(KUBE-S(?:VC|EP)-\S+)/gm)].map(([, name]) => name ?? '');
  await node.sync([plan('a', 1, [1])], { endpointCount: 1000 });
  t.equal(node.dataplane.skipsPeriodicFullSync, false, '1000 endpoints are not large');
  await node.sync([plan('b', 2, [1])], large);
  t.equal(node.dataplane.skipsPeriodicFullSync, true);
  t.match(node.ruleset.save(), /"ns1\/a -> 10/, 'what is not rewritten keeps its comments');
  t.notMatch(node.ruleset.save(), /"ns1\/b -> 10/);
  t.match(node.ruleset.save(), /"ns1\/b cluster IP"/, 'only endpoint rules lose theirs');

  await node.sync([key('b')], large);
  t.equal(chains().length, 4, 'chains of a service that is gone stay');
  t.notMatch(node.ruleset.save(), /-j KUBE-SVC-[A-Z2-7]+$.*ns1\/b/m, 'nothing refers to them');
  await node.clock.advance(SYNC_PERIOD_MS);
  await node.sync([], large);
  t.equal(chains().length, 4, 'not yet: more than the period must have passed');
  await node.clock.advance(1);
  await node.sync([], large);
  t.equal(chains().length, 2, 'taken away when it is due, in a sync without changes');

  await node.sync([plan('b', 2, [1])], large);
  await node.sync([key('b')], large);
  await node.sync([plan('b', 2, [1])], large);
  await node.clock.advance(SYNC_PERIOD_MS + 1);
  await node.sync([], large);
  t.equal(chains().length, 4, 'a chain that came back is not taken away');
  await node.sync([key('b')], large);
  await node.clock.advance(SYNC_PERIOD_MS + 1);
  await node.sync([plan('b', 2, [1])], large);
  t.equal(chains().length, 4, 'not even in the sync that is due');
  await node.sync([key('b')], large);
  await node.sync([], { full: true, ...large });
  t.equal(chains().length, 4, 'a full sync is no reason to clean up either');
  t.notMatch(node.ruleset.save(), /"ns1\/a -> 10/, 'but it takes the comments');
  await node.sync([], { endpointCount: 1000 });
  t.equal(chains().length, 2, 'the first sync at the threshold removes them');
  t.same(node.failures, [], 'nothing was refused on the way');
});

t.test('refused services', async (t) => {
  for (const flavour of ['nft', 'legacy'] as const) {
    t.test(flavour, async (t) => {
      const node = makeNode(flavour);
      const bad = (line: string) => line.includes('10.180.9.9');
      node.ruleset.refuses = bad;
      await node.sync([plan('a', 1, [1])]);

      const report = await node.sync([plan('a', 1, [2]), plan('b', 9, [9]), plan('c', 3, [1])]);
      t.same(
        report.refused.map(({ service }) => service),
        ['ns1/b'],
      );
      t.same([...report.refusedServices], ['ns1/b']);
      t.match(report.refused[0]?.rule, /10\.180\.9\.9/, 'the rule is told');
      t.match(report.refused[0]?.reason, /line \d+/, 'and what the tool said');
      t.equal(drift(node, [plan('a', 1, [2]), plan('c', 3, [1])]), '', 'the others are programmed in the same sync');

      const quiet = await node.sync([plan('a', 1, [3])]);
      t.same([quiet.refused.length, [...quiet.refusedServices]], [0, ['ns1/b']], 'told once, still left out');
      const again = await node.sync([], { full: true });
      t.same([again.refused.length, [...again.refusedServices]], [0, ['ns1/b']], 'a full sync tries it again');

      node.started();
      t.same((await node.sync([plan('b', 9, [8])])).refusedServices.size, 0, 'tried again when it changes');
      t.equal(drift(node), '');
      await node.sync([plan('b', 9, [9])]);
      t.equal(drift(node, [plan('a', 1, [3]), plan('b', 9, [8]), plan('c', 3, [1])]), '', 'rules that were good stay');
      await node.sync([], { full: true });
      t.equal(drift(node, [plan('a', 1, [3]), plan('b', 9, [8]), plan('c', 3, [1])]), '', 'over a full sync too');
      node.ruleset.refuses = () => false;
      t.equal((await node.sync([], { full: true })).refusedServices.size, 0);
      t.equal(drift(node), '', 'and all is well when the kernel is');
      await node.sync([key('b')]);
      t.equal(drift(node), '');
    });
  }
});

t.test('a refusal after the filter table was committed', async (t) => {
  for (const flavour of ['nft', 'legacy'] as const) {
    const node = makeNode(flavour);
    await node.sync([plan('a', 1, [1])]);
    node.ruleset.refuses = (line) => line.includes('10.180.9.9');
    const report = await node.sync([plan('a', 1, []), plan('b', 9, [9])]);
    t.same([...report.refusedServices], ['ns1/b']);
    t.equal(drift(node, [plan('a', 1, [])]), '', `${flavour}: what was committed is not written twice`);
  }
});

t.test('chains left by a run before, with nothing that refers to them', async (t) => {
  const node = makeNode();
  node.ruleset.restore('*nat\n:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\nCOMMIT\n');
  await node.sync([plan('a', 1, [1])]);
  t.equal(drift(node), '', 'are taken away by the first sync');
});

t.test('whose fault a refusal is', async (t) => {
  const edits = (n: number): readonly Edit[] => [
    { op: 'declare', table: 'nat', chain: toChainName(`KUBE-SVC-${n}`) },
    { op: 'append', table: 'nat', chain: toChainName(`KUBE-SVC-${n}`), body: '-j RETURN' },
    { op: 'insert', table: 'nat', chain: toChainName('KUBE-SERVICES'), body: `-j KUBE-SVC-${n}` },
  ];
  const gone = toChainName('KUBE-SEP-0');
  const nat: readonly OwnedEdits[] = [
    { owner: key('one'), edits: edits(1) },
    { owner: key('two'), edits: edits(2) },
    { owner: 'static', edits: removal(gone) },
  ];
  const filter: OwnedEdits = {
    owner: key('two'),
    edits: [
      { op: 'declare', table: 'filter', chain: toChainName('KUBE-SERVICES') },
      { op: 'append', table: 'filter', chain: toChainName('KUBE-SERVICES'), body: '-j DROP' },
    ],
  };
  const declared: OwnedEdits = {
    owner: 'static',
    edits: [{ op: 'declare', table: 'nat', chain: toChainName('KUBE-SERVICES') }],
  };
  // *nat, three declares, two appends, two inserts, one removal, COMMIT
  const rows: readonly {
    name: string;
    parts?: readonly OwnedEdits[];
    lines: readonly number[];
    reason?: string;
    want: object | undefined;
  }[] = [
    {
      name: 'a rule of a chain declared here',
      lines: [5],
      want: { refusals: [{ service: 'ns1/one' }], held: [], certain: true, repeatable: true },
    },
    {
      name: 'two culprits',
      lines: [5, 6],
      want: { refusals: [{ service: 'ns1/one' }, { service: 'ns1/two' }], repeatable: true },
    },
    {
      name: 'two lines of one',
      lines: [6, 8],
      want: { refusals: [{ service: 'ns1/two', rule: '-A KUBE-SVC-2 -j RETURN' }], repeatable: false },
    },
    {
      name: 'a rule for a shared chain depends on the kernel',
      lines: [7],
      want: { refusals: [{ service: 'ns1/one' }], certain: false, repeatable: false },
    },
    { name: 'a chain that is held', lines: [9], want: { refusals: [], held: [gone], repeatable: false } },
    { name: 'COMMIT', lines: [10], want: undefined },
    { name: 'a line that is not there', lines: [11], want: undefined },
    { name: 'the static part', lines: [4], want: undefined },
    { name: 'no line', lines: [], want: undefined },
    { name: 'a missing target, noticed late', lines: [6], reason: "Chain 'X' does not exist", want: undefined },
    {
      name: 'a missing target',
      lines: [6],
      reason: "Couldn't load target `X':No such file or directory",
      want: undefined,
    },
    {
      name: 'the first of two tables',
      parts: [filter, ...nat],
      lines: [3],
      want: { refusals: [{ service: 'ns1/two' }], certain: true, repeatable: true },
    },
    {
      name: 'a rule appended to a chain that is declared in the other table only',
      parts: [{ ...filter, edits: filter.edits.filter(({ op }) => op !== 'declare') }, declared],
      lines: [2],
      want: { refusals: [{ service: 'ns1/two' }], certain: false, repeatable: false },
    },
    {
      name: 'the second of two tables: the first is committed',
      parts: [filter, ...nat],
      lines: [9],
      want: { refusals: [{ service: 'ns1/one' }], certain: true, repeatable: false },
    },
  ];
  for (const { name, parts = nat, lines, reason = 'no', want } of rows) {
    const got = blame(
      buildRestore(parts),
      new RestoreRefusedError(
        lines.map((line) => ({ line, reason })),
        reason,
      ),
    );
    if (want === undefined) t.equal(got, undefined, name);
    else t.match(got, want, name);
    if (want !== undefined && 'refusals' in want && Array.isArray(want.refusals))
      t.equal(got?.refusals.length, want.refusals.length);
  }
});

t.test('somebody changes the rules between their reading and their writing', async (t) => {
  for (const flavour of ['nft', 'legacy'] as const) {
    const raced = makeNode(flavour);
    await raced.sync([plan('a', 1, [1]), plan('b', 2, [1])]);
    raced.started();
    raced.trouble.before = ({ argv }) => {
      if (!argv[0].endsWith('-restore')) return;
      raced.ruleset.restore('*nat\n-F\n-X KUBE-SERVICES\nCOMMIT\n');
      raced.trouble.before = () => {};
    };
    const innocent = await raced.sync([plan('c', 3, [1])], { full: true });
    t.same([...innocent.refusedServices], [], `${flavour}: a shared chain is gone, which is nobody's fault`);
    t.same(raced.started(), ['save', 'save', 'restore', 'save', 'save', 'restore']);
    t.equal(drift(raced), '');

    const node = makeNode(flavour);
    await node.sync([plan('a', 1, [1])]);
    node.ruleset.refuses = (line) => line.startsWith('-I') && line.includes('172.30.1.2');
    const report = await node.sync([plan('b', 2, [1])], { full: true });
    t.same([...report.refusedServices], ['ns1/b'], `${flavour}: the same again is a fault`);
    t.equal(drift(node, [plan('a', 1, [1])]), '');
  }
});

t.test('refused on a cold start, several at once', async (t) => {
  const node = makeNode();
  const hosts = Array.from({ length: 20 }, (_, i) => i + 1);
  node.ruleset.refuses = (line) => /10\.180\.(?:4|17)\.1/.test(line);
  const plans = hosts.map((n) => plan(`s${n}`, n, [1]));
  const report = await node.sync(plans);
  t.same([...report.refusedServices].sort(), ['ns1/s17', 'ns1/s4']);
  t.equal(
    drift(
      node,
      plans.filter((_, i) => i !== 3 && i !== 16),
    ),
    '',
  );
});

t.test('a refusal that names no line is found by halving', async (t) => {
  const node = makeNode('legacy');
  await node.sync([plan('z', 30, [1])]);
  // The legacy tool gives a table to the kernel at its COMMIT: the line it names leads to nobody.
  const restore = node.ruleset.restore.bind(node.ruleset);
  node.ruleset.restore = (input) => {
    if (/-A KUBE-SEP-\S+ .*10\.180\.5\.1/.test(input)) {
      const line = input.split('\n').lastIndexOf('COMMIT') + 1;
      // What stands before nat has been committed by then.
      const nat = input.indexOf('*nat');
      if (nat > 0) restore(input.slice(0, nat));
      input = `*nat\nCOMMIT\n${'\n'.repeat(line - 3)}COMMIT\n`;
    }
    restore(input);
  };
  const plans = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => plan(`s${n}`, n, n % 2 ? [1] : []));
  const report = await node.sync(plans);
  t.same([...report.refusedServices], ['ns1/s5']);
  t.equal(drift(node, [...plans.filter((_, i) => i !== 4), plan('z', 30, [1])]), '');
});

t.test('a plan that cannot be written is refused, the others are not', async (t) => {
  for (const full of [false, true]) {
    const node = makeNode();
    await node.sync([plan('a', 1, [1])]);
    const broken = makePlan(makeServicePort({ serviceName: 'b"', clusterIP: ip('172.30.1.2') }), [
      makeEndpoint('10.180.2.1'),
    ]);
    const report = await node.sync([broken, plan('a', 1, [2])], { full });
    t.same([...report.refusedServices], ['ns1/b"']);
    t.match(report.refused[0]?.reason, /Cannot write comment/);
    t.equal(drift(node, [plan('a', 1, [2])]), '');
  }
});

t.test('a missing packet counter', async (t) => {
  const node = makeNode();
  await node.sync([plan('a', 1, [1])]);
  // Someone deletes the counter while no rule uses it.
  node.nfacct.counters.delete('localhost_nps_accepted_pkts');
  node.ruleset.counters.delete('localhost_nps_accepted_pkts');
  node.trouble.before = () => {
    for (const name of node.nfacct.counters.keys()) node.ruleset.counters.add(name);
  };
  const report = await node.sync([plan('b', 2, [1], { nodePort: 30080 })]);
  t.same(report.refusedServices.size, 0, 'it is made again by the full sync that follows');
  t.equal(report.full, true, 'and the report says that it was one');
  t.equal((await node.sync([])).full, false);
  t.equal(drift(node), '');

  node.nfacct.present = false;
  await node.sync([plan('c', 3, [1], { nodePort: 30081 })]);
  node.nfacct.present = true;
  t.equal(drift(node), '', 'counters are looked at in full syncs only');

  const without = makeNode();
  without.nfacct.present = false;
  without.ruleset.counters.clear();
  await without.sync([plan('b', 2, [1], { nodePort: 30080 })]);
  t.equal(drift(without), '', 'a kernel without counters gets rules without them');
  t.match(without.ruleset.save(), /--ctstate INVALID -j DROP/);
});

t.test('a stale chain that a foreign rule jumps to stays, and goes when the rule does', async (t) => {
  for (const flavour of ['nft', 'legacy'] as const) {
    const node = makeNode(flavour);
    await node.sync([plan('a', 1, [1]), plan('b', 2, [1])]);
    const chain =
      /^:(KUBE-SVC-\S+)/m.exec(
        renderAll([plan('b', 2, [1])], OPTIONS, node.facts(), { comments: true, jumps: false }),
      )?.[1] ?? '';
    node.ruleset.restore(`*nat\n:THEIRS - [0:0]\n-A THEIRS -j ${chain}\nCOMMIT\n`);
    const report = await node.sync([key('b')]);
    t.same(report.refusedServices.size, 0, `${flavour}: the sync succeeds`);
    t.ok(node.ruleset.hasChain('nat', chain), 'the kernel keeps it');
    t.same(node.ruleset.rules('nat', chain), [], 'it is empty');
    await node.clock.advance(SYNC_PERIOD_MS + 1);
    await node.sync();
    t.ok(node.ruleset.hasChain('nat', chain), 'tried again in vain');
    node.ruleset.restore('*nat\n:THEIRS - [0:0]\n-X THEIRS\nCOMMIT\n');
    await node.clock.advance(SYNC_PERIOD_MS + 1);
    await node.sync();
    t.notOk(node.ruleset.hasChain('nat', chain), 'and gone when it can be');
    await node.clock.advance(SYNC_PERIOD_MS + 1);
    node.started();
    await node.sync();
    t.same(node.started(), [], 'and forgotten');
    t.equal(drift(node), '');
  }
});

t.test('failures', async (t) => {
  const rows: readonly { name: string; fail: (node: TestNode) => void; throws: RegExp }[] = [
    {
      name: 'the static part is refused',
      fail: (node) => {
        node.ruleset.refuses = (line) => line.includes('MASQUERADE');
        node.ruleset.restore(
          '*nat\n-F KUBE-POSTROUTING\nCOMMIT\n'.replace('-F KUBE-POSTROUTING', ':KUBE-POSTROUTING - [0:0]'),
        );
      },
      throws: /Cannot restore rules/,
    },
    {
      name: 'the tables cannot be read',
      fail: (node) => {
        node.trouble.before = ({ argv }) => {
          if (argv[0].endsWith('-save')) throw new Error('no memory');
        };
      },
      throws: /no memory/,
    },
  ];
  for (const { name, fail, throws } of rows) {
    t.test(name, async (t) => {
      const node = makeNode();
      await node.sync([plan('a', 1, [1])]);
      fail(node);
      await t.rejects(node.sync([plan('a', 1, [2])], { full: true }), { message: throws });
      node.trouble.before = () => {};
      node.ruleset.refuses = () => false;
      node.started();
      await node.sync([]);
      t.same(node.started().slice(0, 2), ['save', 'save'], 'the next sync reads back whatever it was asked');
      t.equal(drift(node), '');
    });
  }
});

t.test('a restore that never gets its turn counts as a failed one', async (t) => {
  for (const full of [false, true]) {
    const node = makeNode('legacy');
    await node.sync([plan('a', 1, [1])]);
    const lock = () => {
      node.trouble.locked = 1_000_000;
    };
    // A full sync lists the tables first.
    if (full) node.trouble.before = ({ argv }) => void (argv.includes('nat') && lock());
    else lock();
    const failed = t.rejects(node.sync([plan('a', 1, [2])], { full }), { name: 'ExecError' });
    await node.clock.advance(120_000);
    await failed;
    t.same(node.failures, [!full], full ? 'full' : 'partial');
  }
});

t.test('addresses that answer on node ports', async (t) => {
  const node = makeNode('nft', {
    nodePortAddresses: { matchAll: false, cidrs: [cidr('192.168.0.0/16')], containsIPv4Loopback: false },
    localhostNodePorts: false,
  });
  node.addresses.list = [ip('192.168.0.2')];
  await node.sync([plan('a', 1, [1], { nodePort: 30080 })]);
  t.equal(drift(node), '');
  node.addresses.list = [ip('192.168.0.2'), ip('192.168.7.7')];
  await node.sync();
  t.equal(drift(node), '', 'a new address is served at the next sync');
  t.same(
    node.ruleset
      .rules('nat', 'KUBE-SERVICES')
      .slice(-2)
      .map((rule) => rule.slice(0, 17)),
    ['-d 192.168.0.2/32', '-d 192.168.7.7/32'],
  );
  node.addresses.fails = true;
  await node.sync([plan('a', 1, [2], { nodePort: 30080 })]);
  t.equal(drift(node), '', 'a list that cannot be had is the last one');
  t.ok(node.logged.length > 0);
});

t.test('canary', async (t) => {
  const watch = async (flavour: Flavour = 'nft') => {
    const node = makeNode(flavour);
    const lost: string[] = [];
    const unknown: unknown[] = [];
    const stop = new AbortController();
    const done = watchCanary(
      { tools: node.tools, clock: node.clock, onUnknown: (error) => unknown.push(error) },
      SYNC_PERIOD_MS,
      (reason) => lost.push(reason),
      stop.signal,
    );
    await node.clock.advance(0);
    return {
      node,
      lost,
      unknown,
      end: async () => {
        stop.abort();
        await done;
      },
    };
  };
  const remove = (tables: readonly string[]) =>
    tables.map((table) => `*${table}\n-X KUBE-PROXY-CANARY\nCOMMIT\n`).join('');

  /** Looks are so far apart: a period less the 5 s that a flush is given to go on. */
  const LOOK_MS = SYNC_PERIOD_MS - 5_000;
  const rows: readonly { name: string; gone: readonly string[]; afterMs: number }[] = [
    { name: 'all tables flushed', gone: ['mangle', 'nat', 'filter'], afterMs: 0 },
    {
      name: 'only nat flushed: told when the flush had time to go on, within the period',
      gone: ['nat'],
      afterMs: 5_000,
    },
    { name: 'only filter flushed', gone: ['filter'], afterMs: 5_000 },
  ];
  for (const { name, gone, afterMs } of rows) {
    t.test(name, async (t) => {
      const { node, lost, end } = await watch();
      for (const table of ['mangle', 'nat', 'filter']) t.ok(node.ruleset.hasChain(table, 'KUBE-PROXY-CANARY'));
      await node.clock.advance(LOOK_MS * 3 - 1);
      t.same(lost, [], 'quiet while it is there');
      node.ruleset.restore(remove(gone));
      await node.clock.advance(afterMs);
      t.same(lost, [], 'not told too early');
      await node.clock.advance(101);
      t.same(lost, [`the chain KUBE-PROXY-CANARY is gone from ${gone.join(', ')}`]);
      for (const table of gone) t.ok(node.ruleset.hasChain(table, 'KUBE-PROXY-CANARY'), 'and it is there again');
      await end();
      t.equal(node.clock.sleeping, 0, 'nothing is left behind');
    });
  }
  t.test('a held lock is not a loss', async (t) => {
    const { node, lost, unknown, end } = await watch('legacy');
    node.trouble.locked = 1_000_000;
    await node.clock.advance(SYNC_PERIOD_MS * 20);
    node.trouble.locked = 0;
    await node.clock.advance(SYNC_PERIOD_MS * 3);
    t.same(lost, []);
    t.ok(unknown.length > 0, 'it is told as trouble');
    await end();
  });
});

t.test('cleanup', async (t) => {
  const node = makeNode();
  node.ruleset.restore(
    '*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n*nat\n:THEIRS - [0:0]\n-A OUTPUT -j THEIRS\nCOMMIT\n',
  );
  await node.sync([plan('a', 1, [1], { nodePort: 30080 }), plan('b', 2, [])]);
  const chain = /^:(KUBE-SVC-\S+)/m.exec(node.ruleset.save('nat'))?.[1] ?? '';
  node.ruleset.restore(`*nat\n-A THEIRS -j ${chain}\nCOMMIT\n`);
  t.same((await removeRules(node.tools)).errors, []);
  const left = [...node.ruleset.save().matchAll(/^:(KUBE-\S+)/gm)].map(([, name]) => name);
  t.same(
    left.sort(),
    [chain, 'KUBE-FIREWALL', 'KUBE-KUBELET-CANARY'].sort(),
    'what is shared, kubelet’s, or held by others',
  );
  t.same(node.ruleset.rules('nat', chain), [], 'what is held is empty');
  t.same(node.ruleset.rules('nat', 'OUTPUT'), ['-j THEIRS']);
  t.same(node.ruleset.rules('filter', 'INPUT'), ['-j KUBE-FIREWALL']);
  node.started();
  t.same((await removeRules(node.tools)).errors, []);
  t.notOk(node.started().includes('restore'), 'a second one finds nothing to do');

  await node.sync([], { full: true });
  node.trouble.before = ({ argv }) => {
    if (argv[0].endsWith('-save') && argv.includes('nat')) throw new Error('no memory');
  };
  const { errors } = await removeRules(node.tools);
  t.match(
    errors.map(({ message }) => message),
    ['Cannot clean up table nat of IPv4: no memory'],
  );
  t.notMatch(node.ruleset.save('filter'), /KUBE-SERVICES/, 'the other tables are clean all the same');
});

t.test('the programs', async (t) => {
  const node = makeNode('legacy');
  await node.tools.save('nat');
  await node.tools.restore('*nat\nCOMMIT\n');
  t.same(
    node.exec.calls.map(({ argv }) => argv.join(' ')),
    ['iptables-legacy-save -t nat', 'iptables-legacy-restore -w 5 --noflush --counters'],
  );
  node.trouble.locked = 3;
  const restored = node.tools.restore('*nat\nCOMMIT\n');
  await node.clock.advance(1_000);
  await restored;
  t.equal(node.exec.calls.length, 2 + 4, 'a lock is waited out');
  node.trouble.locked = 1_000_000;
  const stuck = t.rejects(node.tools.restore('*nat\nCOMMIT\n'), { name: 'ExecError' }, 'but not for ever');
  await node.clock.advance(120_000);
  await stuck;
  node.trouble.locked = 0;

  let running = 0;
  let most = 0;
  const slow = new FakeExec({
    save: async () => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      return {};
    },
  });
  const { family, flavour, version, features } = node.tools;
  const serial = createTools(
    { family, flavour, version, features, binaries: { iptables: 'i', save: 'save', restore: 'r' } },
    { exec: slow, clock: node.clock },
  );
  await Promise.all([
    serial.save('nat'),
    serial.save('filter'),
    serial.restore('').catch(() => {}),
    serial.save('nat'),
  ]);
  t.equal(most, 1, 'one at a time, and a failure does not stop the next');
});

t.test('what the tools say when they refuse', async (t) => {
  const rows: readonly { name: string; stderr: string; lines: readonly { line: number; reason: string }[] }[] = [
    {
      name: 'legacy',
      stderr: 'iptables-restore: line 3 failed\n',
      lines: [{ line: 3, reason: 'iptables-restore: line 3 failed' }],
    },
    {
      name: 'nft, with the reason',
      stderr: 'iptables-nft-restore: line 3 failed: Bad rule (does a matching rule exist in that chain?).\n',
      lines: [
        {
          line: 3,
          reason: 'iptables-nft-restore: line 3 failed: Bad rule (does a matching rule exist in that chain?).',
        },
      ],
    },
    {
      name: 'nft, the kernel, two culprits',
      stderr:
        'iptables-nft-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (No such file or directory): rule in chain A\n' +
        'line 5: CHAIN_DEL failed (Device or resource busy): chain B\n',
      lines: [
        { line: 3, reason: 'line 3: RULE_APPEND failed (No such file or directory): rule in chain A' },
        { line: 5, reason: 'line 5: CHAIN_DEL failed (Device or resource busy): chain B' },
      ],
    },
    {
      name: 'a line that does not parse',
      stderr:
        "iptables-restore v1.8.9 (legacy): host/network `2001:db8::1' not found\nError occurred at line: 2\nTry `iptables-restore -h' or 'iptables-restore --help' for more information.\n",
      lines: [{ line: 2, reason: "host/network `2001:db8::1' not found" }],
    },
    { name: 'something else', stderr: 'Permission denied (you must be root)\n', lines: [] },
    { name: 'nothing', stderr: '', lines: [] },
  ];
  for (const { name, stderr, lines } of rows) t.same(parseRestoreError(stderr).lines, lines, name);
  t.match(new RestoreRefusedError([], '').message, /says nothing/);
});

t.test('probe', async (t) => {
  const hint = (text: string) => () => ({ stdout: `*mangle\n${text}\nCOMMIT\n` });
  const says = (text: string) => () => ({ stdout: text });
  const nothing = hint(':INPUT ACCEPT [0:0]');
  const nf = says('iptables v1.8.9 (nf_tables)\n');
  const denied = () => ({
    status: 1,
    stderr: 'iptables-save v1.8.9 (legacy): Cannot initialize: Permission denied (you must be root)\n',
  });
  const unsupported = () => ({
    status: 1,
    stderr: 'iptables-save v1.8.9 (legacy): Cannot initialize: Table does not exist (do you need to insmod?)\n',
  });
  const legacyTables = { names: () => [] };
  const flavours: readonly {
    name: string;
    programs: ConstructorParameters<typeof FakeExec>[0];
    /** Undefined: the list cannot be read. */
    legacy?: readonly string[] | undefined;
    want: Flavour | RegExp;
  }[] = [
    { name: 'a hint in nft', programs: { 'iptables-nft-save': hint(':KUBE-IPTABLES-HINT - [0:0]') }, want: 'nft' },
    {
      name: 'a hint in legacy',
      programs: { 'iptables-nft-save': nothing, 'iptables-legacy-save': hint(':KUBE-KUBELET-CANARY - [0:0]') },
      legacy: ['nat', 'mangle'],
      want: 'legacy',
    },
    {
      name: 'a hint in IPv6 only',
      programs: { 'ip6tables-legacy-save': hint(':KUBE-IPTABLES-HINT - [0:0]') },
      legacy: undefined,
      want: 'legacy',
    },
    {
      name: 'no table to look into',
      programs: { 'iptables-legacy-save': hint(':KUBE-IPTABLES-HINT - [0:0]'), iptables: nf },
      legacy: ['nat', 'filter'],
      want: 'nft',
    },
    {
      name: 'a table that may not be looked into',
      programs: { 'iptables-legacy-save': denied, iptables: nf },
      legacy: ['mangle'],
      want: /^Cannot choose the flavour .*kernel has a legacy table .* for IPv4.*\(.*must be root\)\); run .*CAP_NET_RAW, or .*--iptables-flavour$/,
    },
    {
      name: 'nobody knows whether there is a table',
      programs: { 'iptables-legacy-save': denied, 'ip6tables-legacy-save': denied, iptables: nf },
      legacy: undefined,
      want: /kernel may have a legacy table/,
    },
    {
      name: 'a table that may not be looked into, and a hint in the other family',
      programs: { 'iptables-legacy-save': denied, 'ip6tables-legacy-save': hint(':KUBE-IPTABLES-HINT - [0:0]') },
      legacy: ['mangle'],
      want: 'legacy',
    },
    {
      name: 'a hint in nft, so that it does not matter what cannot be seen',
      programs: { 'ip6tables-nft-save': hint(':KUBE-IPTABLES-HINT - [0:0]'), 'iptables-legacy-save': denied },
      legacy: undefined,
      want: 'nft',
    },
    {
      name: 'a kernel without the flavour',
      programs: { 'iptables-legacy-save': unsupported, iptables: nf },
      legacy: undefined,
      want: 'nft',
    },
    { name: 'a table, and no program to look into it', programs: { iptables: nf }, legacy: ['mangle'], want: 'nft' },
    {
      name: 'no hint: what the system says',
      programs: { 'iptables-nft-save': nothing, iptables: says('iptables v1.8.9 (legacy)\n') },
      want: 'legacy',
    },
    { name: 'before there were flavours', programs: { iptables: says('iptables v1.6.1\n') }, want: 'legacy' },
    {
      name: 'only flavoured programs',
      programs: { 'iptables-nft': says('iptables v1.8.9 (nf_tables)\n') },
      want: 'nft',
    },
    { name: 'nothing at all', programs: {}, want: /^Cannot find iptables: / },
  ];
  const clock = new FakeClock();
  for (const { name, programs, want, ...row } of flavours) {
    const legacyTables = { names: () => ('legacy' in row ? row.legacy : []) };
    const exec = new FakeExec(programs);
    const found = probeFlavour('auto', { exec, clock, legacyTables });
    if (typeof want === 'string') t.equal(await found, want, name);
    else await t.rejects(found, { name: 'IptablesProbeError', message: want }, name);
  }
  const exec = new FakeExec({});
  t.equal(await probeFlavour('legacy', { exec, clock, legacyTables }), 'legacy', 'what is asked for is taken');
  t.same(exec.calls, []);

  const families: readonly { name: string; programs: ConstructorParameters<typeof FakeExec>[0]; want: object }[] = [
    {
      name: 'flavoured programs',
      programs: fakePrograms(new FakeRuleset('IPv4', 'nft')),
      want: {
        kind: 'present',
        tools: { version: '1.8.9', binaries: { restore: 'iptables-nft-restore' }, features: { randomFully: true } },
      },
    },
    {
      name: 'plain programs of the flavour',
      programs: { iptables: says('iptables v1.8.9 (nf_tables)\n') },
      want: { kind: 'present', tools: { binaries: { save: 'iptables-save' } } },
    },
    {
      name: 'plain programs of the other flavour',
      programs: { iptables: says('iptables v1.8.9 (legacy)\n') },
      want: {
        kind: 'absent',
        error: { code: 'NOT_INSTALLED', message: /no iptables-nft, and no iptables of that flavour/ },
      },
    },
    {
      name: 'a version that is not told',
      programs: { 'iptables-nft': says('iptables of some kind (nf_tables)') },
      want: { kind: 'present', tools: { version: undefined, features: { randomFully: false, wait: false } } },
    },
  ];
  for (const { name, programs, want } of families) {
    t.match(await probeFamily('IPv4', 'nft', { exec: new FakeExec(programs), clock }), want, name);
  }

  const nothingListed: readonly { name: string; status: number; stderr: string; want: object }[] = [
    {
      name: 'a kernel without nat',
      status: 3,
      stderr: "iptables: can't initialize iptables table `nat': Table does not exist (do you need to insmod?)\nmore\n",
      want: { code: 'NO_KERNEL_SUPPORT', message: /can't initialize.*; run as root .*load nf_tables/ },
    },
    {
      name: 'a kernel without the family',
      status: 3,
      stderr: "ip6tables: can't initialize ip6tables table `nat': Address family not supported by protocol\n",
      want: { code: 'NO_KERNEL_SUPPORT' },
    },
    {
      name: 'a kernel without nf_tables',
      status: 4,
      stderr: 'Could not fetch rule set generation id: Invalid argument\n',
      want: { code: 'NO_KERNEL_SUPPORT' },
    },
    {
      name: 'no permission, with the status that a held lock has',
      status: 4,
      stderr: 'Could not fetch rule set generation id: Permission denied (you must be root)\n',
      want: { code: 'CANNOT_LIST', message: /Permission denied.*; run as root with CAP_NET_ADMIN, / },
    },
    {
      name: 'a lock that cannot be opened',
      status: 4,
      stderr: "Fatal: can't open lock file /run/xtables.lock: No such file or directory\n",
      want: { code: 'CANNOT_LIST' },
    },
    {
      name: 'a table the program cannot show',
      status: 1,
      stderr: "iptables: table `nat' is incompatible, use 'nft' tool.\n",
      want: { code: 'CANNOT_LIST' },
    },
  ];
  for (const { name, want, ...answer } of nothingListed) {
    const program: FakeProgram = ({ argv }) =>
      argv.includes('--version') ? { stdout: 'iptables v1.8.9 (nf_tables)' } : answer;
    const exec = new FakeExec({ 'iptables-nft': program });
    t.match(await probeFamily('IPv4', 'nft', { exec, clock }), { kind: 'absent', error: want }, name);
  }

  const trouble = noTrouble();
  const busy = { exec: new FakeExec(fakePrograms(new FakeRuleset('IPv4', 'nft'), trouble)), clock, legacyTables };
  trouble.locked = 5;
  const waiting = probeIptables('auto', busy);
  await clock.advance(1_000);
  t.match(await waiting, { families: { IPv4: { kind: 'present' } } }, 'a held lock is waited out');
  for (const probing of ['auto', 'nft'] as const) {
    trouble.locked = 1_000_000;
    const stuck = t.rejects(probeIptables(probing, busy), { name: 'ExecError', message: /xtables lock/ });
    await clock.advance(61_000);
    await stuck;
    t.ok(trouble.locked < 1_000_000 - 100, `${probing}: one that stays is an error, not a family that is not there`);
  }

  const both = await probeIptables('auto', {
    exec: new FakeExec(fakePrograms(new FakeRuleset('IPv6', 'legacy'))),
    clock,
    legacyTables,
  });
  t.match(both, { flavour: 'legacy', families: { IPv4: { kind: 'absent' }, IPv6: { kind: 'present' } } });
  t.same(
    [
      ['1.6.2', true],
      ['1.10', true],
      ['1.6.1', false],
      ['1.6', false],
      ['2', true],
      ['1.8.9', true],
    ].map(([v, want]) => versionAtLeast(String(v), [1, 6, 2]) === want),
    [true, true, true, true, true, true],
  );
});

t.test('the mode as the daemon sees it', async (t) => {
  const ruleset = new FakeRuleset('IPv4', 'nft');
  const sysctl = new FakeSysctl({
    'net/ipv4/conf/all/route_localnet': 0,
    'net/netfilter/nf_conntrack_tcp_be_liberal': 1,
  });
  const nfacct = new FakeNfacct();
  const settings = {
    mode: 'iptables',
    iptablesFlavour: 'nft',
    masqueradeBit: 14,
    masqueradeAll: false,
    syncPeriodMs: 30_000,
  } as const;
  const deps = {
    exec: new FakeExec(fakePrograms(ruleset)),
    clock: new FakeClock(),
    sysctl,
    nfacct,
    processes: { here: () => [] },
    legacyTables: { names: () => [] },
    nodeAddresses: async () => [],
    log: { info: () => {}, warn: () => {} },
    metrics: () => ({ restoreFailed: () => {}, rules: () => {}, syncFailed: () => {}, cleanupFailed: () => {} }),
  };
  const mode = await openMode(settings, deps);
  t.match(mode, {
    mode: 'iptables',
    description: 'iptables 1.8.9 (nft)',
    support: { IPv4: undefined, IPv6: { code: 'NOT_INSTALLED' } },
  });
  t.throws(() => mode.createDataplane({ ...OPTIONS, family: 'IPv6' }), { name: 'IptablesProbeError' });
  const bare = await openMode({ ...settings, iptablesFlavour: 'auto' }, { ...deps, exec: new FakeExec({}) });
  t.match(bare.support, { IPv4: { code: 'NOT_INSTALLED' }, IPv6: { code: 'NOT_INSTALLED' } });
  const dataplane = mode.createDataplane({ ...OPTIONS });
  t.same(sysctl.writes, ['net/ipv4/conf/all/route_localnet=1']);
  mode.createDataplane({ ...OPTIONS });
  t.equal(sysctl.writes.length, 1, 'written only when it differs');
  await dataplane.sync({ services: new Map(), dirty: new Set(), endpointCount: 0, serviceCIDRs: [] }, { full: true });
  t.notMatch(ruleset.save(), /INVALID/, 'conntrack is liberal: nothing is dropped as invalid');
  t.equal(await mode.packets.ctStateInvalidDropped(), 0);
  nfacct.counters.clear();
  t.equal(await mode.packets.localhostNodePortsAccepted(), undefined);
  sysctl.readOnly.add('net/ipv4/conf/all/route_localnet');
  sysctl.values.set('net/ipv4/conf/all/route_localnet', 0);
  t.throws(() => mode.createDataplane({ ...OPTIONS }), { message: /route_localnet.*EROFS/ });
  await t.rejects(openMode({ ...settings, mode: 'ipvs' }, deps), { message: /it is not built/ });
});

t.test('a restore that a killed proxy left is waited for', async (t) => {
  const restore = ['iptables-nft-restore', '-w', '5', '--noflush', '--counters'];
  const rows: readonly { name: string; argv: readonly string[]; waits: boolean }[] = [
    { name: 'nft', argv: restore, waits: true },
    { name: 'by path', argv: ['/usr/sbin/ip6tables-legacy-restore', ...restore.slice(1)], waits: true },
    { name: 'plain', argv: ['ip6tables-restore', '--noflush', '--counters'], waits: true },
    { name: 'behind an interpreter', argv: ['/bin/sh', '/opt/iptables-restore', ...restore.slice(1)], waits: true },
    { name: 'of a firewall', argv: ['iptables-restore', '/etc/iptables/rules.v4'], waits: false },
    { name: 'another program', argv: ['vi', 'notes-restore', '--noflush', '--counters'], waits: false },
  ];
  for (const { name, argv, waits } of rows) {
    const clock = new FakeClock();
    const told: string[] = [];
    const say = (_: object, message: string) => void told.push(message);
    let looks = 0;
    const processes = { here: () => [['node', 'main.ts'], ...(++looks < 3 ? [argv] : [])] };
    const waiting = waitForPredecessor({ processes, clock, log: { info: say, warn: say } });
    await clock.advance(200);
    await waiting;
    t.same([looks, told.length], waits ? [3, 1] : [1, 0], name);
  }
  const clock = new FakeClock();
  const warnings: string[] = [];
  const log = { info: () => {}, warn: (_: object, message: string) => void warnings.push(message) };
  const waiting = waitForPredecessor({ processes: { here: () => [restore] }, clock, log });
  await clock.advance(70_000);
  await waiting;
  t.same(warnings, ['somebody restores rules for a minute already; going on'], 'but not for ever');
  const stop = new AbortController();
  const stopped = waitForPredecessor({ processes: { here: () => [restore] }, clock, log }, stop.signal);
  stop.abort();
  await stopped;
  t.equal(clock.sleeping, 0, 'nor when the daemon is told to end');
});
