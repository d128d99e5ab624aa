/**
 * The real command under what life does to it: killed at any moment, an API server that breaks in every way, objects that
 * no server should hand out, rules flushed and locked by others. Afterwards the kernel must hold what a fresh process
 * renders from the objects there are, and what was not ours must be as it was.
 *
 * Chance is seeded: `SWITCHYARD_SEED=n` draws again what a run has printed.
 */
import t, { type Test } from 'tap';
import type { Flavour } from '../../src/modes/iptables/tools.ts';
import { changeSomething, liveCluster, liveService, liveSlice } from '../lib/live-objects.ts';
import { becomesTrue, createLiveProxy, foreignRules, type LiveProxy, sleep } from '../lib/live-proxy.ts';
import { caseInside, feed, runInside } from '../lib/namespace.ts';
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
async function killedInColdStart(t: Test, flavour: Flavour): Promise<void> {
  const chance = chanceOf(t);
  const proxy = await createLiveProxy({ flavour });
  try {
    const theirs = await addForeign(proxy);
    const objects = liveCluster(SERVICES_COLD);
    proxy.api.replaceAll(objects);
    let duringRestore = 0;
    for (let i = 0; i < 6; i++) {
      proxy.start();
      if (await becomesTrue(() => proxy.isRestoring || proxy.diedBy !== undefined, 20_000)) duringRestore++;
      if (i % 2 === 1) await sleep(chance.integer(0, 400));
      await proxy.kill();
      t.equal(proxy.diedBy, 'SIGKILL', 'it was alive');
      // What was written may be of services that are gone when the next one starts.
      proxy.api.delete([liveService(i * 200 + 7), liveSlice(i * 200 + 7, 0), liveService(i * 200 + 8)]);
    }
    t.equal(duringRestore, 6, 'each was met while it wrote');
    proxy.start();
    await proxy.converges(t, 'half-written states are completed');
    t.equal(await foreign(proxy), theirs, 'foreign rules are as they were');
  } finally {
    await proxy.close();
  }
}

const cases: Readonly<Record<string, (t: Test) => Promise<void>>> = {
  'killed during changes, nft': (t) => killedDuringChanges(t, 'nft', 15),
  'killed during changes, legacy': (t) => killedDuringChanges(t, 'legacy', 8),
  'killed in a cold start, nft': (t) => killedInColdStart(t, 'nft'),
  'killed in a cold start, legacy': (t) => killedInColdStart(t, 'legacy'),
};

const here = caseInside();
if (here === undefined) {
  t.jobs = 3;
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
