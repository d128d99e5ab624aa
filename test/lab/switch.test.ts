/**
 * The proxy restarts, dies, is upgraded, changes its mode, or comes after kube-proxy: clients that open a connection every 5 ms,
 * and connections that are held, do not notice; and nothing of the old rules is left.
 */
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { JsonObject } from '../../src/lab/api/object.ts';
import { createLab, type Lab, proxyConfig } from '../../src/lab/lab.ts';
import { createProxy, type ProxyProcess, settledMark } from '../../src/lab/proxy.ts';
import { BUILT_MODES, type ModeName } from '../../src/modes/mode.ts';
import { becomesTrue, sleep } from '../lib/live-proxy.ts';
import { buildPackage } from '../lib/package.ts';
import { RECORDED_PORTS, RecordedNode } from '../lib/recorded-node.ts';
import { assertUnnoticed, startTraffic } from '../lib/steady-traffic.ts';
import { POD_PORT, routeOutside, switchObjects, switchTargets } from '../lib/switch-cluster.ts';

if (process.getuid?.() !== 0) {
  t.fail('Cannot test traffic as an ordinary user: run it as root');
  process.exit(1);
}

t.setTimeout(600_000);
// Each has a lab of its own, and waits most of the time.
t.jobs = 2;

const SOURCES = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));
const EVERY_MS = 5;
const STEP_MS = 30_000;

/** One way to run the proxy. */
interface Variant {
  readonly name: string;
  readonly mode: ModeName;
  readonly config: JsonObject;
  readonly flags: readonly string[];
  /** Where its rules are, as `PLACES` has it. */
  readonly place: keyof typeof PLACES;
}

/** What is the proxy's, in each place of the kernel where rules can be; '' if nothing is. */
const PLACES = {
  'iptables, nft': (lab: Lab) => iptablesLeft(lab, 'nft'),
  'iptables, legacy': (lab: Lab) => iptablesLeft(lab, 'legacy'),
  nftables: async (lab: Lab) =>
    (await run(lab, 'nft', 'list', 'tables'))
      .split('\n')
      .filter((line) => line.endsWith(' kube-proxy'))
      .join('\n'),
};

const flavoured = (flavour: 'nft' | 'legacy'): Variant => ({
  name: `iptables (${flavour})`,
  mode: 'iptables',
  config: {},
  flags: ['--iptables-flavour', flavour],
  place: `iptables, ${flavour}`,
});

const layout = (layout: 'chains' | 'maps'): Variant => ({
  name: `nftables (${layout})`,
  mode: 'nftables',
  config: { nftables: { layout } },
  flags: [],
  place: 'nftables',
});

/** ipvs needs a kernel that has it; ebpf leaves nothing in the places of others. */
const VARIANTS: readonly Variant[] = [flavoured('nft'), flavoured('legacy'), layout('chains'), layout('maps')].filter(
  ({ mode }) => BUILT_MODES.includes(mode),
);

function run(lab: Lab, ...argv: readonly [string, ...string[]]): Promise<string> {
  return lab.node.exec.run({ argv, timeoutMs: 20_000 });
}

/** kubelet has a share in KUBE-FIREWALL, so that it stays. */
async function iptablesLeft(lab: Lab, flavour: 'nft' | 'legacy'): Promise<string> {
  const dumps = await Promise.all(['iptables', 'ip6tables'].map((tool) => run(lab, `${tool}-${flavour}-save`)));
  return dumps
    .flatMap((dump) => dump.split('\n'))
    .filter((line) => /KUBE-/.test(line) && !/^:KUBE-FIREWALL|^-A KUBE-FIREWALL|-j KUBE-FIREWALL$/.test(line))
    .join('\n');
}

/** A walk that goes from each of `count` nodes to each other one exactly once, and ends where it began. */
function everyOrderedPair(count: number): readonly (readonly [number, number])[] {
  const left = Array.from({ length: count }, (_, from) =>
    Array.from({ length: count }, (_, to) => to).filter((to) => to !== from),
  );
  const stack = [0];
  const tour: number[] = [];
  while (stack.length > 0) {
    const next = left[stack.at(-1) ?? 0]?.pop();
    if (next === undefined) tour.push(stack.pop() ?? 0);
    else stack.push(next);
  }
  tour.reverse();
  return tour.slice(1).map((to, i) => [tour[i] ?? 0, to]);
}

/** All rules of a place; of nftables without elements: packets write some of them. */
async function dumpOf(lab: Lab, place: keyof typeof PLACES): Promise<string> {
  if (place === 'nftables') return await run(lab, 'nft', '--terse', 'list', 'ruleset');
  return await run(lab, `iptables-${place.endsWith('legacy') ? 'legacy' : 'nft'}-save`);
}

/** The proxy on the node, in whatever variant, program and process it is now. */
class Operator {
  readonly #lab: Lab;
  /** Fields that every configuration has. */
  readonly #config: JsonObject;
  #proxy: ProxyProcess | undefined;
  #file = '';
  #fileBefore = '';

  constructor(lab: Lab, config: JsonObject = {}) {
    this.#lab = lab;
    this.#config = config;
  }

  get proxy(): ProxyProcess {
    if (this.#proxy === undefined) throw new Error('Cannot ask the proxy: none was started');
    return this.#proxy;
  }

  async stop(): Promise<void> {
    await this.#proxy?.stop();
  }

  /** Writes the configuration and makes a process of it. One that runs ends: its file has changed. */
  async configure(variant: Variant, program: string = SOURCES): Promise<ProxyProcess> {
    const config = proxyConfig(this.#lab.topology, variant.mode, { ...this.#config, ...variant.config });
    this.#fileBefore = this.#file;
    this.#file = JSON.stringify(config);
    return await createProxy(this.#lab.node, [program, 'run', ...variant.flags], config);
  }

  async start(variant: Variant, program?: string): Promise<void> {
    const before = this.#proxy;
    this.#proxy = await this.configure(variant, program);
    // Its file says the same as before: what has changed are its flags, and only a new process has them.
    if (before?.running && this.#file === this.#fileBefore) await before.stop();
    else if (before?.running && !(await becomesTrue(() => !before.running, STEP_MS))) {
      throw new Error(`Cannot start the proxy anew: the old one runs on: ${before.log().slice(-1000)}`);
    }
    await this.#proxy.start();
    await this.synced();
  }

  /** A second one while the first runs, and the first ends when the second has programmed everything. */
  async overlap(variant: Variant, program: string): Promise<void> {
    const before = this.proxy;
    this.#proxy = await this.configure(variant, program);
    await this.#proxy.start();
    // Of two with the same ports only the first can be asked.
    await sleep(2_000);
    await before.stop();
    await this.synced();
  }

  async synced(): Promise<void> {
    const isSynced = async () => {
      const metrics = await this.proxy.metrics();
      return !this.proxy.running || (metrics !== undefined && settledMark(metrics) !== undefined);
    };
    if (!(await becomesTrue(isSynced, STEP_MS)) || !this.proxy.running) {
      throw new Error(`Cannot wait for the proxy: it has not synced, its log ends: ${this.proxy.log().slice(-3000)}`);
    }
  }

  /** Asserts that rules are in the place of the variant, and in no other. */
  async leavesNothingElse(t: Test, { name, place }: Variant): Promise<void> {
    for (const [other, left] of Object.entries(PLACES)) {
      if (other === place) t.not(await left(this.#lab), '', `${name}: rules are in ${other}`);
      else {
        const isGone = await becomesTrue(async () => (await left(this.#lab)) === '', STEP_MS);
        t.ok(isGone, `${name}: nothing is left in ${other}`);
        if (!isGone) t.comment((await left(this.#lab)).slice(0, 1000), this.proxy.log().slice(-2000));
      }
    }
  }
}

/** Something done to the proxy, after which it runs as `then`. */
interface Step {
  readonly name: string;
  readonly then: Variant;
  readonly act: (operator: Operator) => Promise<void>;
}

function stepsOf(packaged: string): readonly Step[] {
  const visited = new Set<Variant>();
  const steps: Step[] = [];
  const visit = (then: Variant) => {
    if (visited.has(then)) return;
    visited.add(then);
    const step = (name: string, act: Step['act']) => steps.push({ name: `${then.name}: ${name}`, then, act });
    step('killed and started', async (operator) => {
      await operator.proxy.kill();
      await operator.start(then);
    });
    if (visited.size > 1) return;
    step('restarted', async (operator) => {
      await operator.stop();
      await operator.start(then);
    });
    step('upgraded, with a gap', async (operator) => {
      await operator.stop();
      await operator.start(then, packaged);
    });
    step('upgraded, side by side', (operator) => operator.overlap(then, packaged));
  };
  const [first] = VARIANTS;
  if (first !== undefined) visit(first);
  for (const [from, to] of everyOrderedPair(VARIANTS.length)) {
    const [before, then] = [VARIANTS[from], VARIANTS[to]];
    if (before === undefined || then === undefined) continue;
    steps.push({ name: `${before.name} becomes ${then.name}`, then, act: (operator) => operator.start(then) });
    visit(then);
  }
  return steps;
}

t.test('every pair of modes is switched between', async (t) => {
  const pairs = everyOrderedPair(4).map(([a, b]) => `${a}${b}`);
  t.equal(new Set(pairs).size, 12);
  t.notOk(pairs.some((pair) => pair[0] === pair[1]));
  t.ok(
    everyOrderedPair(4).every(([from], i, all) => i === 0 || all[i - 1]?.[1] === from),
    'one after the other',
  );
});

t.test('restarts, upgrades and switches are not noticed', { buffered: true }, async (t) => {
  const folder = buildPackage();
  t.teardown(() => rmSync(folder, { recursive: true }));
  const packaged = `${folder}/bin/switchyard`;
  await using lab = await createLab({ pods: 3, ports: [{ kind: 'tcp', port: POD_PORT }], startProxy: false });
  await routeOutside(lab);
  lab.apply(switchObjects(lab.topology));
  const operator = new Operator(lab);
  const [first] = VARIANTS;
  if (first === undefined) throw new Error('Cannot start: no mode is built');
  await operator.start(first);

  const [pod = lab.node] = lab.pods;
  const clients = [
    { name: 'client', from: lab.client, options: { everyMs: EVERY_MS, targets: switchTargets(lab, 'client') } },
    { name: 'pod', from: pod, options: { everyMs: EVERY_MS, targets: switchTargets(lab, 'pod') } },
    { name: 'node', from: lab.node, options: { everyMs: EVERY_MS, targets: switchTargets(lab, 'node') } },
  ];
  const traffic = await Promise.all(clients.map(({ from, options }) => startTraffic(from, options)));
  const times: string[] = [];
  for (const { name, then, act } of stepsOf(packaged)) {
    times.push(`${new Date().toISOString()} ${name}`);
    await t.test(name, async (t) => {
      await act(operator);
      await operator.leavesNothingElse(t, then);
    });
  }
  const reports = await Promise.all(traffic.map((running) => running.stop()));
  for (const [i, report] of reports.entries()) {
    const client = clients[i];
    if (client !== undefined) assertUnnoticed(t, client.name, client.options, report);
  }
  if (!t.passing()) t.comment(`the steps:\n${times.join('\n')}`);
});

/** What kube-proxy left, in each of the places where it leaves something. */
const PREDECESSORS: readonly {
  readonly name: string;
  readonly place: keyof typeof PLACES;
  readonly load: (lab: Lab, recorded: RecordedNode) => Promise<void>;
}[] = [
  { name: 'iptables (nft)', place: 'iptables, nft', load: (lab, recorded) => recorded.loadIptables(lab, 'nft') },
  {
    name: 'iptables (legacy)',
    place: 'iptables, legacy',
    load: (lab, recorded) => recorded.loadIptables(lab, 'legacy'),
  },
  { name: 'nftables', place: 'nftables', load: (lab, recorded) => recorded.loadNftables(lab) },
];

/** Who takes over from whom: everyone from everyone with many services, everyone once with both families. */
const TAKEOVERS = [
  {
    scenario: 'everything-at-once',
    pairs: PREDECESSORS.flatMap((before) => VARIANTS.map((then) => ({ before, then }))),
  },
  {
    scenario: 'dual-stack',
    pairs: VARIANTS.flatMap((then, i) => {
      const before = PREDECESSORS[(i + 2) % PREDECESSORS.length];
      return before === undefined ? [] : [{ before, then }];
    }),
  },
];

for (const { scenario, pairs } of TAKEOVERS) {
  t.test(`the node of a kube-proxy is taken over: ${scenario}`, { buffered: true }, async (t) => {
    const recorded = new RecordedNode(scenario);
    const ports = RECORDED_PORTS.map((port) => ({ kind: 'tcp' as const, port }));
    await using lab = await createLab({ pods: 2, ports, startProxy: false });
    await recorded.furnish(lab);
    const options = { everyMs: EVERY_MS, targets: recorded.targets(lab) };
    for (const { before, then } of pairs) {
      await t.test(`${before.name} by ${then.name}`, async (t) => {
        await run(lab, SOURCES, 'cleanup');
        await before.load(lab, recorded);
        const hadStale = recorded.hasStale(await dumpOf(lab, before.place));
        const traffic = await startTraffic(lab.client, options);
        const operator = new Operator(lab, recorded.proxy);
        t.teardown(() => operator.stop());
        try {
          await operator.start(then);
          await operator.leavesNothingElse(t, then);
        } finally {
          assertUnnoticed(t, 'client', options, await traffic.stop());
        }
        const dump = await dumpOf(lab, then.place);
        t.equal(hadStale, scenario === 'everything-at-once');
        t.notOk(recorded.hasStale(dump), 'rules of services that are gone have gone');
      });
    }
  });
}
