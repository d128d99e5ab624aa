/**
 * The real command for an hour's worth of changes in about a minute: 200,000 events of 1,000 services through an API
 * server that cuts watches, forgets history, loses bookmarks, is slow and says no. Memory stays where it is, changes
 * reach the kernel all the while, and in the end the kernel holds what a fresh start makes of the same objects.
 *
 *     SOAK_EVENTS=5000000 node test/lab/soak.test.ts         a longer one
 *     SOAK_MODES='nftables, chains;nftables, maps' node …    other modes; all is every one
 *     SWITCHYARD_SEED=n                                      draws again what a run has printed
 */
import t, { type Test } from 'tap';
import { createApiServer } from '../../src/lab/api/server.ts';
import { BUILT_MODES } from '../../src/modes/mode.ts';
import { liveNode } from '../lib/live-objects.ts';
import { becomesTrue, createLiveProxy, type LiveProxy, sleep } from '../lib/live-proxy.ts';
import { growthOf, median, residentAfterCollection } from '../lib/memory-samples.ts';
import { caseInside, runInside, sh } from '../lib/namespace.ts';
import { differenceOf } from '../lib/normal-form.ts';
import { Seeded, seedOfRun } from '../lib/seeded.ts';
import { SOAKED_MODES, type SoakedMode, SYNC_PERIOD_MS } from '../lib/soak-modes.ts';
import { SoakWorld, soakService, soakSlice } from '../lib/soak-world.ts';

/** In `npm test`: the hour's worth in one mode, and enough in another to see what it does to memory and rules. */
const DEFAULT_EVENTS: Readonly<Record<string, number>> = { iptables: 200_000, 'nftables, chains': 50_000 };
const ASKED_EVENTS = Number(process.env['SOAK_EVENTS'] ?? 0);
/** For a machine that has other things to do: about a minute is enough for 200,000 events. */
const TIMEOUT_MS = Math.max(600_000, ASKED_EVENTS * 5);
const SERVICES = 1000;
/** Beside the others: the services that show whether a change arrives. */
const PROBE = 2000;
/** Between two the world stands still, is settled, and memory is looked at. */
const ROUNDS = 10;
/** Events without a pause between them, and the pause. */
const BURST = 100;
const PAUSE_MS = 10;
/** Over the second half of the rounds, as shares. The heap of JavaScript alone is small, and so noisier. */
const MAX_GROWTH = { resident: 0.05, heap: 0.1 };
/** Of each round, before its fault. */
const FAULT_AFTER_MS = 1000;
/** After the longest wait of the watches for their next try, and a sync of everything. */
const ARRIVES_MS = 120_000;

/** What the API server does once a round, and whether the watches wait longer for their next try after each. */
const FAULTS = {
  /** A time-out of the watches, as API servers have it all the time. */
  finish: ({ api }: LiveProxy) => void api.chaos.finish(),
  slow: ({ api }: LiveProxy) => api.chaos.delay({ answersMs: 300, eventsMs: 60 }),
  /** History is gone: everything is listed again. */
  expire: ({ api }: LiveProxy) => {
    api.chaos.expire('event');
    api.chaos.finish();
  },
  drop: ({ api }: LiveProxy) => void api.chaos.drop(),
  halfClose: ({ api }: LiveProxy) => void api.chaos.halfClose(),
  refuse: ({ api }: LiveProxy) => {
    api.chaos.refuse({ status: 429, count: 2, retryAfterSeconds: 1 });
    api.chaos.finish();
  },
} as const;
type Fault = keyof typeof FAULTS;

/**
 * Those that make the watches back off come rarely: each doubles the next wait, up to half a minute. A list puts right
 * whatever was lost before it, so the one there is comes early.
 */
function faultsOf(chance: Seeded): readonly Fault[] {
  const harsh = chance.shuffled<Fault>(['drop', 'halfClose', 'refuse']);
  return Array.from({ length: ROUNDS }, (_, round): Fault => {
    if (round === 1) return 'expire';
    if (round % 2 === 1) return harsh.shift() ?? 'slow';
    return chance.pick<Fault>(['finish', 'slow']);
  });
}

/** Shows by services of its own whether what is written now arrives. */
class Probe {
  readonly #proxy: LiveProxy;
  readonly #mode: SoakedMode;
  #count = 0;
  #last = { number: PROBE, address: '', port: 0 };

  constructor(proxy: LiveProxy, mode: SoakedMode) {
    this.#proxy = proxy;
    this.#mode = mode;
  }

  /** Writes something that nobody has seen before to the probe of this number. */
  write(number: number): void {
    const at = ++this.#count;
    this.#last = { number, address: `10.200.${at >> 8}.${at & 255}`, port: 10_000 + at };
    const { address, port } = this.#last;
    this.#proxy.api.apply(
      [soakService(number, 1, { port }), soakSlice(number, [{ address, state: 'ready' }])],
      'asGiven',
    );
  }

  /** Waits until the proxy says that the last write is programmed. Both watches keep their order: so is all before it. */
  async #isSaid(): Promise<boolean> {
    const { number, address, port } = this.#last;
    const isApplied = async () => {
      await sleep(100);
      const plan = await ask(`plan?service=live/svc-${number}`);
      return [/"status": "applied"/, new RegExp(`"${address}"`), new RegExp(`\\b${port}\\b`)].every((p) =>
        p.test(plan),
      );
    };
    return await becomesTrue(isApplied, ARRIVES_MS);
  }

  /** @returns After how many milliseconds a change is in the kernel; undefined if it is not, though the proxy says so. */
  async arrives(): Promise<number | undefined> {
    const startMs = performance.now();
    this.write(PROBE);
    if (!(await this.#isSaid())) return undefined;
    const tookMs = performance.now() - startMs;
    return (await this.#mode.has(this.#proxy, this.#last.address)) ? tookMs : undefined;
  }

  /** Waits until all that was written is programmed, and nothing is left to do. */
  async settles(): Promise<boolean> {
    if (!(await this.#isSaid())) return false;
    return await becomesTrue(async () => {
      await sleep(100);
      const state: { families?: { dirty: { count: number }; needsFull: boolean }[] } = JSON.parse(
        (await ask('state')) || '{}',
      );
      const { families = [] } = state;
      return families.length > 0 && families.every((f) => f.dirty.count === 0 && !f.needsFull);
    }, ARRIVES_MS);
  }
}

async function ask(path: string): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:10249/debug/${path}`).catch(() => undefined);
  return (await answer?.text()) ?? '';
}

/** Writes at least `count` events; between them the other side has its turn. */
async function writeEvents(proxy: LiveProxy, world: SoakWorld, count: number): Promise<void> {
  const { api } = proxy;
  const written = () => api.stats().resourceVersion;
  const end = written() + count;
  while (written() < end) {
    const pause = written() + BURST;
    while (written() < pause) {
      for (const { kind, object } of world.next()) {
        if (kind === 'delete') api.delete([object]);
        else api.apply([object], 'asGiven');
      }
    }
    await sleep(PAUSE_MS);
  }
}

async function soak(t: Test, mode: SoakedMode): Promise<void> {
  const seed = seedOfRun();
  t.comment(`SWITCHYARD_SEED=${seed}`);
  const chance = new Seeded(seed);
  const wanted = ASKED_EVENTS || (DEFAULT_EVENTS[mode.name] ?? 200_000);
  // No bookmark by the clock: the few there are come by hand.
  const api = await createApiServer({ bookmarkMs: 3_600_000 });
  const proxy = await createLiveProxy({ flavour: 'nft', api, config: { ...mode.config, enableProfiling: true } });
  try {
    const world = new SoakWorld(SERVICES, chance);
    const probe = new Probe(proxy, mode);
    api.replaceAll([liveNode, ...world.objects()]);
    proxy.start();
    probe.write(PROBE);
    t.ok(await probe.settles(), 'a start');
    const faults = faultsOf(chance);
    const residentMiB: number[] = [];
    const heapMiB: number[] = [];
    const arrivalsMs: number[] = [];
    const startMs = performance.now();
    const before = api.stats().resourceVersion;
    for (const fault of faults) {
      world.turn();
      const writing = writeEvents(proxy, world, wanted / ROUNDS);
      await sleep(FAULT_AFTER_MS);
      FAULTS[fault](proxy);
      arrivalsMs.push((await probe.arrives()) ?? Number.POSITIVE_INFINITY);
      await writing;
      api.chaos.reset();
      if (chance.integer(0, 3) === 0) api.bookmark();
      probe.write(PROBE);
      if (!(await probe.settles())) break;
      const sample = await residentAfterCollection(proxy);
      residentMiB.push(sample.residentMiB);
      heapMiB.push(sample.heapMiB);
    }
    const events = api.stats().resourceVersion - before;
    const tookS = Math.round((performance.now() - startMs) / 1000);
    const rounded = (numbers: readonly number[]) => numbers.map((n) => Math.round(n)).join(' ');
    t.comment(`${events} events of ${SERVICES} services in ${tookS} s`);
    t.comment(`faults: ${faults.join(' ')}`);
    t.comment(`resident after each round, MiB: ${rounded(residentMiB)}; heap: ${rounded(heapMiB)}`);
    t.comment(`a change in the midst of it reached the kernel after, ms: ${rounded(arrivalsMs)}`);

    t.equal(residentMiB.length, ROUNDS, 'after each round everything written is programmed');
    t.ok(events >= wanted, `${events} events`);
    t.ok(arrivalsMs.every(Number.isFinite), 'changes reach the kernel while others go on');
    for (const [what, samples, most] of [
      ['resident', residentMiB, MAX_GROWTH.resident],
      ['heap', heapMiB, MAX_GROWTH.heap],
    ] as const) {
      const growth = growthOf(samples.slice(ROUNDS / 2));
      const told = `${what} memory: ${(100 * growth).toFixed(1)} % over the second half, median ${median(samples).toFixed(0)} MiB`;
      t.ok(growth < most, told);
    }
    t.equal(proxy.diedBy, undefined, 'it ran on');
    // What nothing refers to any more may stay for a sync period, and goes with the next sync. That one must leave nothing.
    await sleep(SYNC_PERIOD_MS + 500);
    probe.write(PROBE + 1);
    t.ok(await probe.settles(), 'a sync after the last sync period');
    if (mode.mode === 'iptables') await proxy.converges(t, 'the kernel holds what is rendered from the objects');

    const soaked = await mode.dump(proxy);
    await proxy.stop();
    sh('nft', 'flush', 'ruleset');
    t.equal(await mode.dump(proxy), '', 'nothing is left for the fresh start');
    proxy.start();
    t.ok(await probe.settles(), 'a fresh start');
    t.equal(differenceOf(await mode.dump(proxy), soaked), '', 'its rules are the same');
  } finally {
    await proxy.close();
  }
}

const modes = new Map(SOAKED_MODES.filter(({ mode }) => BUILT_MODES.includes(mode)).map((m) => [m.name, m]));
const here = caseInside();
if (here === undefined) {
  t.test('growthOf()', async (t) => {
    const steady = [120, 121, 119, 120, 122, 120, 119, 121, 120, 120];
    for (const { name, samples, from, to } of [
      { name: 'steady', samples: steady, from: -0.01, to: 0.01 },
      { name: 'one that grows evenly', samples: steady.map((n, i) => n + i), from: 0.06, to: 0.09 },
      { name: 'two outliers at the end', samples: [...steady.slice(0, 8), 150, 160], from: -0.01, to: 0.05 },
      { name: 'a step in the middle', samples: steady.map((n, i) => n + (i < 5 ? 0 : 20)), from: 0.05, to: 0.3 },
      { name: 'one that shrinks', samples: steady.map((n, i) => n - 2 * i), from: -0.2, to: -0.1 },
    ]) {
      const growth = growthOf(samples);
      t.ok(growth > from && growth < to, `${name}: ${growth}`);
    }
  });
  t.setTimeout(TIMEOUT_MS);
  const all = [...modes.keys()];
  const asked = process.env['SOAK_MODES']?.split(';') ?? Object.keys(DEFAULT_EVENTS);
  for (const name of asked.includes('all') ? all : asked) {
    if (!modes.has(name)) throw new RangeError(`Cannot soak "${name}": must be all, or some of ${all.join('; ')}`);
    t.test(name, (t) => runInside(t, import.meta.url, name, TIMEOUT_MS));
  }
} else {
  await t.test(here, async (t) => {
    t.setTimeout(TIMEOUT_MS);
    const mode = modes.get(here);
    if (mode === undefined)
      throw new RangeError(`Cannot soak "${here}": must be one of ${[...modes.keys()].join('; ')}`);
    await soak(t, mode);
  });
}
