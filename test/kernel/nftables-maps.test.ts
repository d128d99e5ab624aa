/** Layout `maps` in the kernel: what it costs, and that clients are remembered just as long as what they are remembered for is there. */

import t, { type Test } from 'tap';
import { createLab } from '../../src/lab/lab.ts';
import { decodePodAnswer } from '../../src/lab/request.ts';
import { addressOf } from '../../src/lab/topology.ts';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { createAll } from '../../src/modes/nftables/create.ts';
import { affinityNumber, MAPS_LAYOUT } from '../../src/modes/nftables/maps-layout.ts';
import { BY_ADDRESS } from '../../src/modes/nftables/maps-layout-sets.ts';
import { createNftables } from '../../src/netlink/nftables/kernel-nftables.ts';
import type { Command, Transaction } from '../../src/netlink/nftables/transaction.ts';
import { servicePortName } from '../../src/proxier/services.ts';
import type { FlowCase, Pod } from '../contract/flow.ts';
import { serviceManifest, sliceManifests } from '../contract/manifests.ts';
import { ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { caseInside, runInside, sh } from '../lib/namespace.ts';
import { makeNftFacts, makeNftOptions } from '../lib/nftables-world.ts';

t.setTimeout(300_000);

const podOf = (n: number) => ip(`10.${64 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`);
const clusterIPOf = (n: number) => ip(`10.43.${n >> 8}.${n & 255}`);

/** Everything for so many services of so many endpoints. */
function worldOf(services: number, endpoints: number): Transaction {
  const plans = Array.from({ length: services }, (_, i) =>
    makePlan(
      makeServicePort({ serviceName: `svc${i}`, clusterIP: clusterIPOf(i) }),
      Array.from({ length: endpoints }, (_, k) => makeEndpoint(podOf(i * endpoints + k))),
    ),
  );
  const { statics, services: all } = createAll(MAPS_LAYOUT, plans, makeNftOptions(), makeNftFacts());
  return { family: 'ip', table: TABLE, commands: [...statics, ...all.flatMap((service) => service.commands)] };
}

/** Commits commands. @returns Milliseconds. */
function timeOf(commands: readonly Command[]): number {
  const nftables = createNftables();
  const startMs = performance.now();
  const result = nftables.commit([{ family: 'ip', table: TABLE, commands }]);
  const ms = performance.now() - startMs;
  nftables.close();
  if (result.kind !== 'committed') throw new Error(`Cannot write the table: ${JSON.stringify(result).slice(0, 500)}`);
  return ms;
}

// ---------------------------------------------------------------------------------------------------------
// Cost. An idle machine needs a fifth of the bounds.

const cost: Readonly<Record<string, () => void>> = {
  'as many chains and sets for a thousand services as for one': () => {
    const count = (services: number) => {
      timeOf(worldOf(services, 2).commands);
      const listing = sh('nft', '-t', 'list', 'ruleset');
      sh('nft', 'flush', 'ruleset');
      return [...listing.matchAll(/^\t(?:chain|set|map) (\S+)/gm)].map(([, name]) => name);
    };
    t.same(count(1_000), count(1));
  },
  'loaded in time that grows with what is loaded': () => {
    const rows = [
      { services: 10_000, endpoints: 2, boundMs: 6_000 },
      { services: 10_000, endpoints: 25, boundMs: 30_000 },
    ];
    for (const { services, endpoints, boundMs } of rows) {
      const ms = timeOf(worldOf(services, endpoints).commands);
      t.comment(`${services} × ${endpoints}: ${Math.round(ms)} ms`);
      t.ok(ms < boundMs, `${services} × ${endpoints} within ${boundMs} ms`);
      if (endpoints === 2) sh('nft', 'flush', 'ruleset');
    }
    const set = BY_ADDRESS.endpoints.cluster;
    const key = [clusterIPOf(100), 'tcp', 80, 0];
    const changes = Array.from({ length: 21 }, (_, n) =>
      timeOf([
        { verb: 'delete', object: 'element', set, elements: [{ key }] },
        { verb: 'add', object: 'element', set, elements: [{ key, data: [podOf(500_000 + n), 80] }] },
      ]),
    );
    const median = changes.toSorted((a, b) => a - b)[10] ?? Number.POSITIVE_INFINITY;
    t.comment(`an endpoint changed beside 250,000: ${median.toFixed(2)} ms, with a new socket each time`);
    t.ok(median < 5, 'a change costs what it changes');
  },
};

const inside = caseInside();
if (inside !== undefined) {
  cost[inside]?.();
} else {
  for (const name of Object.keys(cost)) t.test(name, async (t) => runInside(t, import.meta.url, name));
  t.test('affinity', affinity);
}

// ---------------------------------------------------------------------------------------------------------
// Affinity

const STICKY: FlowCase = {
  name: 'sticky',
  id: 1,
  type: 'NodePort',
  spec: { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 100 } } },
  ports: [
    { name: 'tcp', protocol: 'TCP', port: 80, targetPort: 8080 },
    { name: 'udp', protocol: 'UDP', port: 80, targetPort: 8080 },
  ],
  stages: [{ flows: [] }],
};
const VIP = '10.43.7.1';
const CLIENT = '192.168.1.50';
/** What the kernel remembers clients of its port over TCP by. */
const NUMBER = affinityNumber({ name: servicePortName('default', 'flow-1', 'tcp'), protocol: 'TCP' });

interface Remembered {
  readonly client: string;
  readonly endpoint: string;
  readonly timeoutSeconds: number;
}

async function affinity(t: Test): Promise<void> {
  const ports = [8080].flatMap((port) => [
    { kind: 'tcp' as const, port },
    { kind: 'udp' as const, port },
  ]);
  await using lab = await createLab({ pods: 4, ports, mode: 'nftables', config: { nftables: { layout: 'maps' } } });
  const nft = (...args: readonly string[]) => lab.node.exec.run({ argv: ['nft', ...args], timeoutMs: 10_000 });
  const setEndpoints = async (...pods: readonly Pod[]) => {
    const states = Object.fromEntries(pods.map((pod) => [pod, 'ready' as const]));
    lab.apply([serviceManifest(STICKY, {}, lab.topology), ...sliceManifests(STICKY, states, lab.topology)]);
    await lab.settled();
  };
  const ask = async (kind: 'tcp' | 'udp' = 'tcp') => {
    const outcome = await lab.request(lab.client, { address: VIP, port: 80, kind, timeoutMs: 5_000 });
    return { by: decodePodAnswer(outcome)?.address ?? outcome.kind, ms: outcome.ms };
  };
  const remembered = async () => parseClients(await nft('list', 'map', 'ip', TABLE, 'cluster-clients'));
  const [a, b, c, d] = lab.topology.pods.map((pod) => addressOf(pod, 'IPv4'));

  await setEndpoints('a', 'b');
  const first = await ask();
  t.same(await remembered(), [{ client: CLIENT, endpoint: first.by, timeoutSeconds: 100 }], 'a client is remembered');
  const others = await Promise.all(Array.from({ length: 10 }, () => ask()));
  t.same([...new Set(others.map(({ by }) => by))], [first.by], 'and goes where it went');

  await setEndpoints('a', 'b', 'c', 'd');
  t.equal((await ask()).by, first.by, 'other endpoints change nothing');

  await setEndpoints('c', 'd');
  const next = await ask();
  t.ok([c, d].includes(next.by), 'an endpoint that is gone is not used');
  t.ok(next.ms < 500, `and the new one at once: ${next.ms} ms`);
  t.equal((await ask()).by, next.by, 'which stays');
  t.same(
    (await remembered()).map(({ endpoint }) => endpoint),
    [next.by],
    'the old one is forgotten',
  );

  await t.test('what was learned while the endpoint went is not used', async (t) => {
    // As if a packet had been under way: remembered after everybody looked.
    await nft('flush', 'map', 'ip', TABLE, 'cluster-clients');
    await nft('flush', 'set', 'ip', TABLE, 'client-endpoints');
    const client = `{ ${CLIENT} . tcp . ${NUMBER} timeout 100s : ${a} . 8080 }`;
    await nft('add', 'element', 'ip', TABLE, 'cluster-clients', client);
    const pair = `{ ${CLIENT} . ${NUMBER} . ${a} . 8080 timeout 100s }`;
    await nft('add', 'element', 'ip', TABLE, 'client-endpoints', pair);
    const { by, ms } = await ask();
    t.ok([c, d].includes(by), `the second packet goes elsewhere: ${by}, ${ms} ms`);
    t.ok(ms > 500, 'the first one was dropped');
    t.same(
      (await remembered()).map(({ endpoint }) => endpoint),
      [by],
      'the entry is replaced',
    );
    t.ok((await ask()).ms < 500);
  });

  await t.test('endpoints come and go while clients connect', async (t) => {
    const answers: string[] = [];
    let isOver = false;
    const connect = async () => {
      while (!isOver) answers.push((await ask()).by);
    };
    const clients = Promise.all([connect(), connect(), connect()]);
    for (let round = 0; round < 5; round++) {
      await setEndpoints('a', 'b');
      const left = await Promise.all([ask(), ask()]);
      t.ok(
        left.every(({ by }) => by === a || by === b),
        `round ${round}: ${left.map(({ by }) => by)}`,
      );
      await setEndpoints('c', 'd');
    }
    isOver = true;
    await clients;
    t.same(
      answers.filter((by) => ![a, b, c, d].includes(by)),
      [],
      `${answers.length} connections, all answered`,
    );
  });
  t.ok(lab.proxy.running);
}

/** The elements of a listing of `sticky-clients`. */
function parseClients(listing: string): Remembered[] {
  const elements = listing.matchAll(/(\S+) \. tcp \. \S+ (?:timeout (\S+) )?expires \S+ : (\S+) \. \d+/g);
  return [...elements].map(([, client = '', timeout = '', endpoint = '']) => {
    const [, minutes = '0', seconds = '0'] = /^(?:(\d+)m)?(?:(\d+)s)?$/.exec(timeout) ?? [];
    return { client, endpoint, timeoutSeconds: Number(minutes) * 60 + Number(seconds) };
  });
}
