/**
 * The real command under what life does to it: killed at any moment, an API server that breaks in every way, objects that
 * no server should hand out, rules flushed and locked by others. Afterwards the kernel must hold what a fresh process
 * renders from the objects there are, and what was not ours must be as it was.
 *
 * Chance is seeded: `SWITCHYARD_SEED=n` draws again what a run has printed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import type { Flavour } from '../../src/iptables/tools.ts';
import { createApiServer } from '../../src/lab/api/server.ts';
import { changeSomething, type Fields, liveCluster, liveService, liveSlice } from '../lib/live-objects.ts';
import { becomesTrue, createLiveProxy, foreignRules, type LiveProxy, sleep } from '../lib/live-proxy.ts';
import { mutated } from '../lib/mutate.ts';
import { caseInside, feed, runInside, sh } from '../lib/namespace.ts';
import { normalForm } from '../lib/normal-form.ts';
import { Seeded, seedOfRun } from '../lib/seeded.ts';

function chanceOf(t: Test): Seeded {
  const seed = seedOfRun();
  t.comment(`SWITCHYARD_SEED=${seed}`);
  return new Seeded(seed);
}

/** Rules of somebody else, in chains of their own and in built-in ones, one of them named nearly like ours. */
const FOREIGN = `*filter
:FIREWALL - [0:0]
:KUB-NOT - [0:0]
-A INPUT -j FIREWALL
-A FORWARD -s 198.18.0.0/15 -j FIREWALL
-A FIREWALL -p tcp -m tcp --dport 22 -m comment --comment "KUBE-SERVICES is not ours" -j ACCEPT
-A KUB-NOT -j RETURN
COMMIT
*nat
:MY-NAT - [0:0]
-A POSTROUTING -s 198.18.0.0/15 -j MY-NAT
-A MY-NAT -j MASQUERADE
COMMIT
`;

async function foreign(proxy: LiveProxy): Promise<string> {
  return foreignRules(await proxy.dump('iptables'));
}

async function addForeign(proxy: LiveProxy): Promise<string> {
  feed(FOREIGN, `iptables-${proxy.flavour}-restore`, '--noflush');
  return await foreign(proxy);
}

/** Changes something every few milliseconds until the signal aborts. */
async function changeOn(proxy: LiveProxy, chance: Seeded, services: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    changeSomething(proxy.api, chance, services);
    await sleep(chance.integer(1, 15));
  }
}

async function killedDuringChanges(t: Test, flavour: Flavour, kills: number): Promise<void> {
  const chance = chanceOf(t);
  const proxy = await createLiveProxy({ flavour });
  try {
    const theirs = await addForeign(proxy);
    t.match(theirs, /MY-NAT/, 'foreign rules are seen');
    proxy.api.replaceAll(liveCluster(40));
    const stop = new AbortController();
    const changing = changeOn(proxy, chance, 60, stop.signal);
    for (let i = 0; i < kills; i++) {
      proxy.start();
      // A start takes about half a second: some die before their first rule, some in the middle of the stream.
      await sleep(chance.integer(200, 1400));
      await proxy.kill();
    }
    proxy.start();
    await sleep(500);
    stop.abort();
    await changing;
    await proxy.converges(t, `after ${kills} kills the rules are those of the objects`);
    t.equal(await foreign(proxy), theirs, 'foreign rules are as they were');
    await proxy.stop();
    await proxy.converges(t, 'an orderly end leaves the rules');
  } finally {
    await proxy.close();
  }
}

const SERVICES_COLD = 1500;

/** At chance moments of a cold start that writes in chunks, every second time while a restore runs. */
async function killedInColdStart(t: Test, flavour: Flavour, kills: number): Promise<void> {
  const chance = chanceOf(t);
  const proxy = await createLiveProxy({ flavour });
  try {
    const theirs = await addForeign(proxy);
    const objects = liveCluster(SERVICES_COLD);
    proxy.api.replaceAll(objects);
    let duringRestore = 0;
    for (let i = 0; i < kills; i++) {
      proxy.start();
      if (await becomesTrue(() => proxy.isRestoring || proxy.diedBy !== undefined, 20_000)) duringRestore++;
      if (i % 2 === 1) await sleep(chance.integer(0, 400));
      await proxy.kill();
      t.equal(proxy.diedBy, 'SIGKILL', 'it was alive');
      // What was written may be of services that are gone when the next one starts.
      proxy.api.delete([liveService(i * 200 + 7), liveSlice(i * 200 + 7, 0), liveService(i * 200 + 8)]);
    }
    t.equal(duringRestore, kills, 'each was met while it wrote');
    proxy.start();
    await proxy.converges(t, 'half-written states are completed');
    t.equal(await foreign(proxy), theirs, 'foreign rules are as they were');
  } finally {
    await proxy.close();
  }
}

/** Faults of the API server; each leaves the daemon a way back that a few seconds suffice for. */
const FAULTS: readonly ((proxy: LiveProxy, chance: Seeded) => void)[] = [
  ({ api }) => void api.chaos.drop(),
  ({ api }) => void api.chaos.halfClose(),
  ({ api }) => void api.chaos.finish(),
  ({ api }) => api.chaos.garble('line', 2),
  ({ api }) => api.chaos.garble('gzip', 1),
  ({ api }, chance) => {
    api.chaos.expire(chance.pick(['event', 'status']));
    api.chaos.drop();
  },
  ({ api }, chance) => {
    api.chaos.refuse({ status: chance.pick([503, 429, 500]), count: chance.integer(1, 3), retryAfterSeconds: 1 });
    api.chaos.drop();
  },
  ({ api }, chance) => api.chaos.delay({ answersMs: chance.integer(0, 200), eventsMs: chance.integer(0, 100) }),
  ({ api }) => {
    // The tokens of the next pages expire while a list is read.
    api.chaos.expire();
    api.chaos.drop();
    setTimeout(() => api.chaos.expire('status'), 30);
  },
];

async function brokenApi(t: Test): Promise<void> {
  const chance = chanceOf(t);
  const proxy = await createLiveProxy({ flavour: 'nft' });
  try {
    proxy.api.replaceAll(liveCluster(300));
    proxy.start();
    await proxy.converges(t, 'a start');
    const stop = new AbortController();
    const changing = changeOn(proxy, chance, 320, stop.signal);
    for (const fault of chance.shuffled(FAULTS)) {
      fault(proxy, chance);
      await sleep(chance.integer(50, 500));
    }
    stop.abort();
    await changing;
    proxy.api.chaos.reset();
    // Each failure has doubled the wait for the next try.
    await proxy.converges(t, 'no change is lost', 90_000);
    const before = proxy.api.stats().requests;
    await sleep(1000);
    t.ok(proxy.api.stats().requests - before < 3, 'and nobody asks on and on');
    // Wrong types in an event: whatever that object is now, the next list tells it again.
    proxy.api.chaos.garble('types', 3);
    const isSeen = () => {
      changeSomething(proxy.api, chance, 320);
      return proxy.log.includes('"object left out"');
    };
    t.ok(await becomesTrue(isSeen, 60_000), 'a garbled event is reported');
    proxy.api.chaos.reset();
    proxy.api.chaos.expire();
    proxy.api.chaos.finish();
    await proxy.converges(t, 'a garbled event is made good by the next list', 90_000);
    t.equal(proxy.diedBy, undefined, 'it ran on');
  } finally {
    await proxy.close();
  }
}

/** A new server on the old port, which counts from 1 again, holds other objects under old names and lacks some. */
async function restartedApi(t: Test): Promise<void> {
  const proxy = await createLiveProxy({ flavour: 'nft' });
  try {
    const port = Number(new URL(proxy.api.url).port);
    // A long history first, so that the numbers of the new one stay below.
    for (let i = 0; i < 500; i++) proxy.api.apply([liveSlice(1, i % 3)], 'asGiven');
    proxy.api.replaceAll(liveCluster(50));
    const before = proxy.api.stats().resourceVersion;
    proxy.start();
    await proxy.converges(t, 'a start');
    await proxy.api.close();
    proxy.api = await createApiServer({ port, bookmarkMs: 1000 });
    proxy.api.replaceAll([...liveCluster(40), liveSlice(7, 5), liveService(300)]);
    t.ok(proxy.api.stats().resourceVersion < before, 'the numbers are smaller');
    await proxy.converges(t, 'what changed while nobody could tell is seen');
    proxy.api.apply([liveSlice(8, 4), liveService(301)], 'asGiven');
    proxy.api.delete([liveService(9), liveSlice(9, 0)]);
    await proxy.converges(t, 'and changes go on');
    t.equal(proxy.diedBy, undefined, 'it ran on');
  } finally {
    await proxy.close();
  }
}

const BROKEN_OBJECTS = 10_000;
const MAX_RESIDENT_MIB = 400;

/** Objects that no API server should hand out, next to good ones: half of them at the start, half while it runs. */
async function brokenObjects(t: Test): Promise<void> {
  const chance = chanceOf(t);
  const proxy = await createLiveProxy({ flavour: 'nft' });
  // The server could not store it, and of manifests `render` fills in clusterIPs.
  const isSpared = (field: string) => ['apiVersion', 'kind', 'metadata', 'namespace', 'clusterIPs'].includes(field);
  const elsewhere = (object: Fields, number: number): Fields => {
    const metadata = { ...(object['metadata'] as Fields), namespace: 'broken', uid: `broken-${number}` };
    return { ...object, metadata };
  };
  /** No two of one name: of a broken object whose name was good before, the last good state would stay. */
  const breakOne = (object: Fields, number: number): Fields => {
    const result = mutated(elsewhere(object, number), chance, isSpared) as Fields;
    const metadata = result['metadata'] as Fields;
    const { name } = metadata;
    return typeof name === 'string' ? { ...result, metadata: { ...metadata, name: `${name}-${number}` } } : result;
  };
  const broken = (from: number, to: number) => {
    const objects: unknown[] = [];
    for (let n = from; n < to; n += 2) {
      const slice = liveSlice(1000 + n, 2);
      const labels = { 'kubernetes.io/service-name': `svc-${1000 + n}-${n}` };
      const ofService = { ...slice, metadata: { ...(slice['metadata'] as Fields), labels } };
      objects.push(breakOne(liveService(1000 + n, n % 4), n), breakOne(ofService, n + 1));
    }
    return objects;
  };
  const left = () => proxy.log.split('\n').filter((line) => line.includes('"object left out"'));
  const counted = async () => {
    const metrics = [...((await proxy.metrics()) ?? [])];
    return metrics.filter(([s]) => s.startsWith('switchyard_invalid_objects_total')).reduce((sum, [, n]) => sum + n, 0);
  };
  try {
    const good = liveCluster(20);
    proxy.api.replaceAll(good);
    proxy.api.apply(broken(0, BROKEN_OBJECTS / 2), 'asGiven');
    proxy.start();
    await proxy.converges(t, 'a start: all that is good is programmed');
    for (let from = BROKEN_OBJECTS / 2; from < BROKEN_OBJECTS; from += 500) {
      proxy.api.apply(broken(from, from + 500), 'asGiven');
      await sleep(chance.integer(0, 100));
    }
    await proxy.converges(t, 'and while it runs');
    const reports = left();
    t.ok(reports.length > BROKEN_OBJECTS / 10, `many were left out: ${reports.length}`);
    const keys = reports.flatMap((line) => {
      const { kind, key }: { kind: string; key: string } = JSON.parse(line);
      return key === '?' ? [] : [`${kind} ${key}`];
    });
    t.equal(new Set(keys).size, keys.length, 'none was reported twice');
    t.equal(await counted(), reports.length, 'the metric counts them');
    t.ok(proxy.residentMiB < MAX_RESIDENT_MIB, `memory is bounded: ${Math.round(proxy.residentMiB)} MiB`);

    const lists = () => proxy.api.requests().filter(({ url }) => /services\?.*limit/.test(url)).length;
    const before = lists();
    proxy.api.chaos.expire();
    proxy.api.chaos.finish();
    t.ok(await becomesTrue(() => lists() > before), 'listed again');
    proxy.api.apply([liveSlice(5, 4), liveService(21), liveSlice(21, 1)], 'asGiven');
    await proxy.converges(t, 'a good change still goes through');
    t.equal(left().length, reports.length, 'a list reports nothing again');
    const rules = await proxy.dump('iptables');
    const there = new Set(Array.from(rules.matchAll(/"live\/svc-(\d+):http/g), ([, n]) => n));
    t.equal(there.size, 21, 'every good service is there');
    t.equal(proxy.diedBy, undefined, 'it ran on');
    t.ok(proxy.residentMiB < MAX_RESIDENT_MIB, `memory is bounded: ${Math.round(proxy.residentMiB)} MiB`);
  } finally {
    await proxy.close();
  }
}

/** The tool refuses one service: the others work, everyone is told, and the service comes back when it is put right. */
async function quarantined(t: Test): Promise<void> {
  const proxy = await createLiveProxy({ flavour: 'nft' });
  try {
    proxy.useShim();
    proxy.setShim({ refuse: '--to-destination 10.42.99.99:' });
    const endpoints = [{ addresses: ['10.42.99.99'], conditions: { ready: true } }];
    const badSlice = liveSlice(3, 0, { endpoints });
    proxy.api.replaceAll(liveCluster(10));
    const name = (n: number) => new RegExp(`KUBE-SERVICES .*"live/svc-${n}:http`);
    proxy.start();
    await proxy.converges(t, 'a start');
    // With last good rules, and as a service that never had any.
    proxy.api.apply([badSlice, liveService(11), liveSlice(11, 0, { endpoints })], 'asGiven');
    proxy.api.apply([liveService(12), liveSlice(12, 2)], 'asGiven');
    const events = () => proxy.api.list('Event').map((e) => `${JSON.stringify(e)}`);
    const told = (n: number) => events().some((e) => e.includes('FailedToProgramService') && e.includes(`svc-${n}"`));
    t.ok(await becomesTrue(() => told(3) && told(11)), 'events on both services');
    const others = async () => {
      const rules = await proxy.dump('iptables');
      return name(12).test(rules) && !name(11).test(rules) && name(3).test(rules);
    };
    t.ok(await becomesTrue(others), 'the other is programmed, the refused one has its last good rules or none');
    const refused = async () => (await proxy.metrics())?.get('switchyard_refused_services{ip_family="IPv4"}');
    t.ok(await becomesTrue(async () => (await refused()) === 2), 'the metric counts them');
    t.match(proxy.log, /service refused and left out/, 'the log says so');
    proxy.api.apply([liveSlice(3, 1), liveSlice(11, 1)], 'asGiven');
    await proxy.converges(t, 'put right, they come back');
    t.ok(await becomesTrue(async () => (await refused()) === 0), 'and the metric is 0 again');
    // The same from a cold start.
    await proxy.stop();
    proxy.api.apply([badSlice], 'asGiven');
    proxy.start();
    const replaced = async () => (await refused()) === 1 && name(12).test(await proxy.dump('iptables'));
    t.ok(await becomesTrue(replaced), 'a start with a service that is refused programs the others');
    proxy.setShim({});
    proxy.api.apply([liveSlice(3, 2)], 'asGiven');
    await proxy.converges(t, 'and it comes back');
  } finally {
    await proxy.close();
  }
}

const SYNC_PERIOD_MS = 2000;

async function flushed(t: Test, flavour: Flavour): Promise<void> {
  const proxy = await createLiveProxy({ flavour, config: { iptables: { minSyncPeriod: '0s', syncPeriod: '2s' } } });
  const iptables = `iptables-${flavour}`;
  try {
    proxy.api.replaceAll(liveCluster(30));
    proxy.start();
    await proxy.converges(t, 'a start');
    for (const round of [1, 2]) {
      for (const table of ['filter', 'nat', 'mangle']) {
        for (const op of ['-F', '-X']) sh(iptables, '-w', '-t', table, op);
      }
      t.notMatch(await proxy.dump('iptables'), /KUBE-SERVICES/, 'flushed');
      await proxy.converges(t, `repaired within the sync period, flush ${round}`, SYNC_PERIOD_MS + 1500);
    }
    for (const op of ['-F', '-X']) sh(iptables, '-w', '-t', 'nat', op);
    await proxy.converges(t, 'one table alone, within the sync period too', SYNC_PERIOD_MS + 1500);
    proxy.api.apply([liveSlice(1, 4)], 'asGiven');
    await proxy.converges(t, 'and changes go on');
  } finally {
    await proxy.close();
  }
}

/** Legacy tools lock a file while they work; here somebody holds it. */
async function locked(t: Test): Promise<void> {
  const proxy = await createLiveProxy({ flavour: 'legacy' });
  try {
    proxy.api.replaceAll(liveCluster(10));
    proxy.start();
    await proxy.converges(t, 'a start');
    const heldMs = 3000;
    const holder = spawn('flock', ['/run/xtables.lock', 'sleep', String(heldMs / 1000)]);
    t.ok(await becomesTrue(() => spawnSync('flock', ['-n', '/run/xtables.lock', 'true']).status !== 0), 'held');
    const before = await proxy.dump('iptables');
    proxy.api.apply([liveSlice(1, 4), liveService(11), liveSlice(11, 2)], 'asGiven');
    await sleep(heldMs / 2);
    t.equal(normalForm(await proxy.dump('iptables')), normalForm(before), 'nothing is written meanwhile');
    await once(holder, 'exit');
    await proxy.converges(t, 'waited out', 10_000);
    t.notMatch(proxy.log, /sync failed/, 'and no sync failed of it');
  } finally {
    await proxy.close();
  }
}

/** nft tells every change of the ruleset in this namespace, whoever makes it. */
async function restartedUnchanged(t: Test): Promise<void> {
  const proxy = await createLiveProxy({ flavour: 'nft' });
  const monitor = spawn('nft', ['monitor'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let told = '';
  monitor.stdout.setEncoding('utf8').on('data', (text: string) => {
    told += text;
  });
  try {
    await addForeign(proxy);
    proxy.api.replaceAll(liveCluster(100));
    proxy.start();
    await proxy.converges(t, 'a start');
    t.ok(await becomesTrue(() => told.includes('KUBE-SERVICES')), 'the monitor sees what is written');
    for (const end of ['stop', 'kill'] as const) {
      await proxy[end]();
      // Each start has synced when its health says so.
      told = '';
      proxy.start();
      const isHealthy = () =>
        fetch('http://127.0.0.1:10256/healthz').then(
          (r) => r.ok,
          () => false,
        );
      const hasSynced = async () =>
        ((await proxy.metrics())?.get('kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}') ?? 0) > 0;
      t.ok(await becomesTrue(async () => (await isHealthy()) && (await hasSynced())), 'it has synced');
      await sleep(500);
      t.equal(told, '', `a start after ${end} over unchanged rules writes nothing`);
    }
    proxy.api.apply([liveSlice(1, 3)], 'asGiven');
    t.ok(await becomesTrue(() => told !== ''), 'the monitor still sees what is written');
    await proxy.converges(t, 'and the rules are right');
  } finally {
    monitor.kill();
    await proxy.close();
  }
}

/** A restore that outlives the daemon which began it writes after the next one has read the tables. */
async function outlived(t: Test): Promise<void> {
  const proxy = await createLiveProxy({ flavour: 'nft' });
  try {
    proxy.useShim();
    proxy.setShim({ delayMs: 1500 });
    proxy.api.replaceAll(liveCluster(20));
    for (let i = 0; i < 3; i++) {
      proxy.start();
      t.ok(await becomesTrue(() => proxy.isRestoring), 'a restore is under way');
      await proxy.kill();
      proxy.api.delete([liveService(i + 1), liveSlice(i + 1, 0)]);
    }
    proxy.start();
    await proxy.converges(t, 'nothing of it is left');
  } finally {
    await proxy.close();
  }
}

const cases: Readonly<Record<string, (t: Test) => Promise<void>>> = {
  'broken API server': brokenApi,
  'API server restarted': restartedApi,
  'broken objects': brokenObjects,
  'killed during changes, nft': (t) => killedDuringChanges(t, 'nft', 15),
  'killed during changes, legacy': (t) => killedDuringChanges(t, 'legacy', 8),
  'killed in a cold start, nft': (t) => killedInColdStart(t, 'nft', 5),
  'killed in a cold start, legacy': (t) => killedInColdStart(t, 'legacy', 3),
  'a restore that outlives its daemon': outlived,
  'a service refused': quarantined,
  'flushed, nft': (t) => flushed(t, 'nft'),
  'flushed, legacy': (t) => flushed(t, 'legacy'),
  locked,
  'restarted unchanged': restartedUnchanged,
};

const here = caseInside();
if (here === undefined) {
  t.jobs = 3;
  t.setTimeout(600_000);
  for (const name of Object.keys(cases)) {
    t.test(name, { buffered: true }, (t) => runInside(t, import.meta.url, name));
  }
} else {
  await t.test(here, async (t) => {
    t.setTimeout(300_000);
    const run = cases[here];
    if (run === undefined) throw new RangeError(`Cannot run case "${here}": must be one of the file's`);
    await run(t);
  });
}
