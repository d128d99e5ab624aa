/**
 * iptables mode against the real tools and kernel: both flavours, both families, each in namespaces of its own. Whatever the tool
 * is given is given to the ruleset in memory too, and the two must hold the same: the fake is worth what this says.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fc from 'fast-check';
import t from 'tap';
import { TABLES } from '../../src/iptables/chain.ts';
import { FakeRestoreError, FakeRuleset } from '../../src/iptables/fake.ts';
import { parseSave, type SavedRules } from '../../src/iptables/parse.ts';
import { probeFamily, probeFlavour } from '../../src/iptables/probe.ts';
import { parseRestoreError, RestoreRefusedError } from '../../src/iptables/refusal.ts';
import { createTools, type Flavour, type Tools } from '../../src/iptables/tools.ts';
import { createIptablesDataplane, type IptablesDataplaneOptions } from '../../src/modes/iptables/apply.ts';
import { removeRules } from '../../src/modes/iptables/cleanup.ts';
import { buildRestore, deltaFromDump } from '../../src/modes/iptables/delta.ts';
import { endpointChain, servicePortChains } from '../../src/modes/iptables/names.ts';
import { renderAll, renderService } from '../../src/modes/iptables/render.ts';
import { renderStatic } from '../../src/modes/iptables/static.ts';
import type { Snapshot, SyncReport } from '../../src/modes/mode.ts';
import { FakeNfacct } from '../../src/netlink/fake-nfacct.ts';
import { createNfacct, type Nfacct } from '../../src/netlink/nfacct.ts';
import { FAMILIES, type Family, type ObjectKey, type ServicePlan } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { type Exec, ExecError, realExec } from '../../src/sys/exec.ts';
import { realLegacyTables } from '../../src/sys/legacy-tables.ts';
import { arbPlansOf } from '../lib/iptables-plans.ts';
import { IPV6_SERVICES, makeFacts, makeOptions, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { caseInside, feed, privateRun, runInside, sh } from '../lib/namespace.ts';

/** The real programs; what restores are given is kept, and played to a fake as far as there is one. */
class WitnessedExec implements Exec {
  readonly started: string[] = [];
  readonly inputs: string[] = [];
  /** How often a chain was looked for. */
  looks = 0;

  async run(command: Parameters<Exec['run']>[0], signal?: AbortSignal): Promise<string> {
    const { argv, stdin } = command;
    if (argv.includes('-S')) this.looks++;
    this.started.push(argv[0].replace(/.*-/, ''));
    if (argv[0].endsWith('-restore')) this.inputs.push(typeof stdin === 'string' ? stdin : [...(stdin ?? [])].join(''));
    return await realExec.run(command, signal);
  }
}

async function openTools(family: Family, flavour: Flavour, exec: Exec): Promise<Tools> {
  const found = await probeFamily(family, flavour, { exec, clock: realClock });
  if (found.kind === 'absent') throw found.error;
  return createTools(found.tools, { exec, clock: realClock });
}

/** A node as `makeNode` in the unit tests has it, on the kernel. */
async function makeNode(family: Family, flavour: Flavour, nfacct: Nfacct = createNfacct()) {
  const exec = new WitnessedExec();
  const tools = await openTools(family, flavour, exec);
  const options: IptablesDataplaneOptions = { ...makeOptions({ family }), syncPeriodMs: 200 };
  const failures: boolean[] = [];
  const make = () =>
    createIptablesDataplane(
      {
        tools,
        clock: realClock,
        nfacct,
        nodeAddresses: async () => [],
        metrics: { restoreFailed: (partial) => failures.push(partial), rules: () => {} },
        log: { info: () => {}, warn: () => {} },
      },
      options,
    );
  let dataplane = make();
  const held = new Map<ObjectKey, ServicePlan>();
  const node = {
    options,
    exec,
    tools,
    failures,
    held,
    get dataplane() {
      return dataplane;
    },
    restart() {
      dataplane = make();
    },
    async sync(changes: readonly (ServicePlan | ObjectKey)[], full = false): Promise<SyncReport> {
      const dirty = new Set<ObjectKey>();
      for (const change of changes) {
        if (typeof change === 'string') held.delete(change);
        else held.set(change.service, change);
        dirty.add(typeof change === 'string' ? change : change.service);
      }
      const snapshot: Snapshot = { services: held, dirty, endpointCount: 0, serviceCIDRs: [] };
      return await dataplane.sync(snapshot, { full });
    },
    async dump(): Promise<SavedRules> {
      const texts = [];
      for (const table of TABLES) texts.push(await tools.save(table));
      return parseSave(texts.join(''));
    },
    /** What would have to be written for the kernel to hold what a first full sync of these plans writes. */
    async drift(plans: Iterable<ServicePlan> = held.values()): Promise<string> {
      const facts = makeFacts();
      const { before, services, after } = deltaFromDump(await node.dump(), {
        family,
        statics: renderStatic(options, facts),
        services: [...plans].map((p) => [p.service, renderService(p, options, facts, { comments: true })]),
      });
      return buildRestore([before, ...services, after]).text;
    },
    /** Programs started since the last call. */
    takeStarted: () => exec.started.splice(0),
  };
  return node;
}

/** Chains of a dump with their rules, as comparable data. The canary and built-in chains without rules left out. */
function chainsOf(rules: SavedRules) {
  const out: Record<string, readonly string[]> = {};
  for (const [table, chains] of rules) {
    for (const [name, { policy, rules: bodies }] of chains) {
      if (policy === '-' || bodies.length > 0) out[`${table} ${name}`] = bodies;
    }
  }
  return out;
}

function worldOf(family: Family) {
  const v4 = family === 'IPv4';
  const port = (name: string, n: number, overrides: Parameters<typeof makeServicePort>[0] = {}) =>
    makeServicePort({ serviceName: name, clusterIP: ip(v4 ? `172.30.9.${n}` : `fd00:43::9:${n}`), ...overrides });
  const endpoint = (n: number) => makeEndpoint(v4 ? `10.180.9.${n}` : `fd00:10::9:${n}`);
  const plan = (
    name: string,
    n: number,
    hosts: readonly number[],
    overrides: Parameters<typeof makeServicePort>[0] = {},
  ) => makePlan(port(name, n, overrides), hosts.map(endpoint));
  return { port, endpoint, plan, every: v4 ? [...SIX_SERVICES, ...POLICIES] : IPV6_SERVICES };
}

const key = (name: string) => `ns1/${name}` as ObjectKey;

async function inside(flavour: Flavour, family: Family) {
  privateRun();
  const { port, endpoint, plan, every } = worldOf(family);
  const prefix = family === 'IPv4' ? 'iptables' : 'ip6tables';
  const program = `${prefix}-${flavour}`;
  const iptables = (...args: readonly string[]) => sh(program, '-w', '5', ...args);
  const restore = (input: string) => feed(input, `${program}-restore`, '-w', '5', '--noflush');
  const flushAll = () => {
    for (const table of ['mangle', 'nat', 'filter']) {
      iptables('-t', table, '-F');
      iptables('-t', table, '-X');
    }
  };

  t.test('the flavour is found by the hint kubelet leaves', async (t) => {
    iptables('-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT');
    t.equal(await probeFlavour('auto', { exec: realExec, clock: realClock, legacyTables: realLegacyTables }), flavour);
    const setpriv = ['setpriv', '--bounding-set', '-net_raw', '--inh-caps', '-net_raw'] as const;
    const exec: Exec = {
      run: (command, signal) => realExec.run({ ...command, argv: [...setpriv, ...command.argv] }, signal),
    };
    const found = probeFlavour('auto', { exec, clock: realClock, legacyTables: realLegacyTables });
    const says = { code: 'CANNOT_LIST', message: /-legacy-save cannot list it \(.*Permission denied.*CAP_NET_RAW/ };
    if (flavour === 'nft') t.equal(await found, 'nft', 'without CAP_NET_RAW, too');
    else await t.rejects(found, says, 'no other one is taken where CAP_NET_RAW is missing to see it');
    iptables('-t', 'mangle', '-X', 'KUBE-IPTABLES-HINT');
  });

  t.test('a whole input as rendered is taken, and printed as we say it is', async (t) => {
    const node = await makeNode(family, flavour);
    for (const name of ['ct_state_invalid_dropped_pkts', 'localhost_nps_accepted_pkts']) createNfacct().ensure(name);
    const text = renderAll(every, node.options, makeFacts(), { comments: true, jumps: true });
    restore(text);
    t.equal(await node.drift(every), '', 'nothing differs');
    const fake = new FakeRuleset(family, flavour);
    fake.restore(text);
    t.same(
      chainsOf(await node.dump()),
      chainsOf(parseSave(fake.save())),
      'the fake prints the same, in the same order',
    );
    flushAll();
  });

  t.test('any sequence of states, chain by chain as the fake has it', async (t) => {
    let seed = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(arbPlansOf(family), fc.boolean()), { minLength: 2, maxLength: 5 }),
        async (states) => {
          flushAll();
          const node = await makeNode(family, flavour);
          const fake = new FakeRuleset(family, flavour);
          seed++;
          for (const [plans, full] of states) {
            const now = new Set(plans.map(({ service }) => service));
            await node.sync([...plans, ...[...node.held.keys()].filter((held) => !now.has(held))], full);
            for (const input of node.exec.inputs.splice(0)) fake.restore(input);
            t.equal(await node.drift(), '', `run ${seed}: the kernel holds what is wanted`);
            t.same(chainsOf(await node.dump()), chainsOf(parseSave(fake.save())), 'and what the fake holds');
          }
          t.same(node.failures, [], 'nothing was refused on the way');
          node.takeStarted();
          await node.sync([], true);
          node.restart();
          await node.sync([]);
          t.notOk(node.takeStarted().includes('restore'), 'a full sync and a restart write nothing');
        },
      ),
      { numRuns: 8 },
    );
    flushAll();
  });

  t.test('others survive', async (t) => {
    const node = await makeNode(family, flavour);
    const target = family === 'IPv4' ? '1.2.3.4/32' : '2001:db8:5::1/128';
    restore(
      `*nat\n:THEIRS - [0:0]\n-A THEIRS -d ${target} -j RETURN\n-A PREROUTING -j THEIRS\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A INPUT -d ${target} -j ACCEPT\nCOMMIT\n`,
    );
    await node.sync(every);
    restore(`*nat\n-A KUBE-SERVICES -d ${target} -j RETURN\nCOMMIT\n`);
    await node.sync([], true);
    t.equal(await node.drift(), '', 'what they put into a chain of ours goes at a full sync');
    const dump = chainsOf(await node.dump());
    t.same(dump['nat THEIRS'], [`-d ${target} -j RETURN`]);
    t.ok(dump['nat PREROUTING']?.includes('-j THEIRS'));
    t.ok(dump['filter INPUT']?.includes(`-d ${target} -j ACCEPT`));
    t.equal(dump['filter INPUT']?.filter((rule) => rule === '-j KUBE-FIREWALL').length, 1);

    t.same((await removeRules(node.tools)).errors, []);
    const left = chainsOf(await node.dump());
    t.same(
      Object.keys(left).sort(),
      ['filter INPUT', 'filter KUBE-FIREWALL', 'filter OUTPUT', 'nat PREROUTING', 'nat THEIRS'],
      'cleanup leaves what is theirs, and what is shared',
    );
    t.same(left['nat PREROUTING'], ['-j THEIRS']);
    node.takeStarted();
    t.same((await removeRules(node.tools)).errors, []);
    t.notOk(node.takeStarted().includes('restore'), 'a second one finds nothing to do');
    flushAll();
  });

  t.test('a flush by someone else', async (t) => {
    const node = await makeNode(family, flavour);
    await node.sync(every);
    for (const flush of [
      { name: 'of everything', act: flushAll },
      {
        name: 'of filter alone',
        act: () => {
          iptables('-t', 'filter', '-F');
          iptables('-t', 'filter', '-X');
        },
      },
    ]) {
      const stop = new AbortController();
      const lost = Promise.withResolvers<string>();
      const watching = node.dataplane.monitor(lost.resolve, stop.signal);
      // The first look at a canary comes when all of them have been made.
      node.exec.looks = 0;
      while (node.exec.looks === 0) await realClock.sleep(20);
      flush.act();
      t.match(await lost.promise, /KUBE-PROXY-CANARY is gone from .*filter/, `${flush.name} is noticed`);
      await node.sync([], true);
      t.equal(await node.drift(), '', 'and repaired');
      stop.abort();
      await watching;
    }
    flushAll();
    await node.sync([plan('new', 1, [1])]);
    t.equal(await node.drift(), '', 'a partial sync that meets a flushed kernel repairs it by itself');
    flushAll();
  });

  t.test('a rule the tool does not take', async (t) => {
    const node = await makeNode(family, flavour);
    const wrong = makePlan(port('wrong', 1, { clusterIP: ip(family === 'IPv4' ? 'fd00::1' : '10.0.0.1') }), [
      endpoint(1),
    ]);
    const good = [plan('a', 2, [1]), plan('b', 3, [1, 2]), plan('z', 4, [])];
    const cold = await node.sync([...good, wrong]);
    t.same([...cold.refusedServices], ['ns1/wrong']);
    t.match(cold.refused, [{ rule: /^-[AI] KUBE-S/, reason: /host\/network|not found|invalid/i }]);
    t.equal(await node.drift(good), '', 'the others are there');
    await node.sync([key('wrong')]);
    const warm = await node.sync([wrong, plan('a', 2, [3])]);
    t.same([...warm.refusedServices], ['ns1/wrong'], 'in a partial sync too');
    t.equal(await node.drift([plan('a', 2, [3]), ...good.slice(1)]), '');
    const repaired = await node.sync([plan('wrong', 1, [1])]);
    t.same([repaired.refused.length, repaired.refusedServices.size], [0, 0]);
    t.equal(await node.drift(), '');
    flushAll();
  });

  t.test(
    'rules the kernel does not take',
    { skip: family === 'IPv6' ? 'IPv6 rules name no packet counter of a service' : false },
    async (t) => {
      // The counter is said to exist and does not: every rule that names it is refused by the kernel, not by the tool.
      const real = createNfacct();
      spawnSyncQuiet('nfacct', 'del', 'localhost_nps_accepted_pkts');
      const lying = new FakeNfacct();
      const node = await makeNode(family, flavour, {
        available: () => true,
        get: (name) => lying.get(name),
        ensure: (name) => {
          if (name !== 'localhost_nps_accepted_pkts') real.ensure(name);
        },
      });
      const good = [1, 2, 3, 4, 5, 6].map((n) => plan(`good${n}`, n, [1]));
      const bad = [7, 8].map((n) => plan(`bad${n}`, n, [1], { nodePort: 30000 + n }));
      const cold = await node.sync([...good, ...bad]);
      t.same([...cold.refusedServices].sort(), ['ns1/bad7', 'ns1/bad8'], 'found on a cold start');
      t.match(cold.refused[0]?.rule, /-I KUBE-NODEPORTS .*localhost_nps_accepted_pkts/);
      t.equal(await node.drift(good), '');
      const warm = await node.sync([plan('good1', 1, [2]), plan('bad9', 9, [1], { nodePort: 30009 })]);
      t.same(
        warm.refused.map(({ service }) => service),
        ['ns1/bad9'],
        'and later, told once',
      );
      t.equal(warm.refusedServices.size, 3);
      t.equal(await node.drift([plan('good1', 1, [2]), ...good.slice(1)]), '');
      real.ensure('localhost_nps_accepted_pkts');
      t.equal((await node.sync([], true)).refusedServices.size, 0, 'a full sync tries again');
      t.equal(await node.drift(), '');
      flushAll();
    },
  );

  t.test('a stale chain that a foreign rule jumps to', async (t) => {
    const node = await makeNode(family, flavour);
    await node.sync([plan('a', 1, [1]), plan('b', 2, [1])]);
    const chain = servicePortChains(port('b', 2)).clusterPolicy;
    const sep = endpointChain(port('b', 2), endpoint(1));
    restore(`*nat\n:THEIRS - [0:0]\n-A THEIRS -j ${chain}\nCOMMIT\n`);
    const report = await node.sync([key('b')]);
    t.equal(report.refusedServices.size, 0, 'the sync succeeds');
    const nat = (await node.dump()).get('nat');
    t.same([nat?.get(chain)?.rules, nat?.has(sep)], [[], false], 'it stays, empty; the others go');
    await node.sync([plan('a', 1, [2])]);
    t.equal(await node.drift(), '', 'life goes on');
    restore('*nat\n:THEIRS - [0:0]\n-X THEIRS\nCOMMIT\n');
    await node.sync([], true);
    t.notOk((await node.dump()).get('nat')?.has(chain), 'and it goes when it can');
    flushAll();
  });

  t.test('the fake refuses what the tool refuses, at the same line', async (t) => {
    const base = '*nat\n:A - [0:0]\n:B - [0:0]\n-A A -j B\nCOMMIT\n';
    const other = family === 'IPv4' ? '9.9.9.9' : '2001:db8::9';
    const texts: readonly { name: string; text: string }[] = [
      { name: 'a chain that is jumped to is removed', text: '*nat\n:C - [0:0]\n:B - [0:0]\n-X B\nCOMMIT\n' },
      { name: 'a chain with rules is removed', text: '*nat\n-X A\nCOMMIT\n' },
      { name: 'a chain that is not there is removed', text: '*nat\n-X NOPE\nCOMMIT\n' },
      {
        name: 'a rule that is not there is deleted',
        text: `*nat\n-A A -d ${other}\n-D B -d ${other} -j RETURN\nCOMMIT\n`,
      },
      { name: 'a rule for a chain that is not there', text: '*nat\n-A NOPE -j RETURN\nCOMMIT\n' },
      {
        name: 'a rule at the head of a chain that is not there',
        text: '*nat\n:C - [0:0]\n-I NOPE -j RETURN\nCOMMIT\n',
      },
      { name: 'a jump to nowhere', text: '*nat\n-A A -j NOPE\nCOMMIT\n' },
      { name: 'an option nobody knows', text: '*nat\n:C - [0:0]\n-A C --foo 1 -j RETURN\nCOMMIT\n' },
      {
        name: 'a counter that does not exist',
        text: `*nat\n-A A -d ${other}\n-A A -m nfacct --nfacct-name nope -j RETURN\n-A A -d ${other} -j RETURN\nCOMMIT\n`,
      },
      { name: 'the second table', text: '*filter\n:C - [0:0]\nCOMMIT\n*nat\n-X NOPE\nCOMMIT\n' },
      {
        name: 'nothing wrong',
        text: `*nat\n:C - [0:0]\n-A C -d ${other} -j A\n-I A -d ${other} -j B\n-D A -j B\nCOMMIT\n`,
      },
    ];
    const exec = new WitnessedExec();
    const tools = await openTools(family, flavour, exec);
    for (const { name, text } of texts) {
      flushAll();
      const fake = new FakeRuleset(family, flavour);
      fake.restore(base);
      restore(base);
      const real = await tools.restore(text).then(
        () => undefined,
        (error: unknown) => error,
      );
      let said: FakeRestoreError | undefined;
      try {
        fake.restore(text);
      } catch (error) {
        if (!(error instanceof FakeRestoreError)) throw error;
        said = error;
      }
      if (real === undefined) t.equal(said, undefined, `${name}: both take it`);
      else {
        if (!(real instanceof RestoreRefusedError)) throw real;
        const lines = (all: RestoreRefusedError['lines']) => all.map(({ line }) => line);
        t.same(lines(parseRestoreError(said?.stderr ?? '').lines), lines(real.lines), `${name}: ${real.reason}`);
        t.ok(real.cause instanceof ExecError && real.cause.failure.code === 'EXITED');
      }
      const dump = parseSave((await tools.save('nat')) + (await tools.save('filter')));
      t.same(chainsOf(dump), chainsOf(parseSave(fake.save())), `${name}: both hold the same afterwards`);
    }
    flushAll();
  });

  t.test('the lock of the tables', { skip: flavour === 'nft' ? 'nf_tables has no lock' : false }, async (t) => {
    const node = await makeNode(family, flavour);
    await node.sync([plan('a', 1, [1])]);
    const { tools } = node;
    const holder = spawn('flock', ['/run/xtables.lock', 'sh', '-c', 'echo held; read line'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout, 'data');
    node.takeStarted();
    const restored = tools.restore('*nat\n:C - [0:0]\nCOMMIT\n');
    // The tool gives up after 5 s; the second start is ours.
    while (node.exec.started.length < 2) await realClock.sleep(20);
    holder.stdin.end('go\n');
    await restored;
    t.ok((await node.dump()).get('nat')?.has('C'), 'contention is waited out');
    flushAll();
  });
}

/** A program whose failure does not matter. */
function spawnSyncQuiet(program: string, ...args: readonly string[]): void {
  try {
    sh(program, ...args);
  } catch {
    // It was not there to be deleted.
  }
}

const here = caseInside();
if (here === undefined) {
  for (const flavour of ['nft', 'legacy'] as const) {
    for (const family of FAMILIES) await runInside(t, import.meta.url, `${flavour} ${family}`);
  }
} else {
  const [flavour = '', family = ''] = here.split(' ');
  await inside(flavour === 'legacy' ? 'legacy' : 'nft', family === 'IPv6' ? 'IPv6' : 'IPv4');
}
