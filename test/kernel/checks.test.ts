/**
 * The real command on a node where things are wrong: each is told in one line, and it runs on.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import t, { type Test } from 'tap';
import { createApiServer } from '../../src/lab/api/server.ts';
import { liveCluster } from '../lib/live-objects.ts';
import { becomesTrue, createLiveProxy, type LiveProxy, sleep } from '../lib/live-proxy.ts';
import { caseInside, feed, runInside, sh } from '../lib/namespace.ts';

interface Line {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** Lines of the log so far. What is in it is our own. */
const linesOf = (proxy: LiveProxy) =>
  proxy.log
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Line);

const LEGACY = `*mangle
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
COMMIT
`;

async function wrongNode(t: Test): Promise<void> {
  const taken = createServer().listen(10_256, '127.0.0.1');
  await once(taken, 'listening');
  const proxy = await createLiveProxy({ flavour: 'nft' });
  feed(LEGACY, 'iptables-legacy-restore');
  sh('sysctl', '-q', '-w', 'net.ipv4.ip_forward=0', 'net.ipv6.conf.all.forwarding=1');
  try {
    proxy.api.replaceAll(liveCluster(3));
    proxy.start();
    const says = (...words: readonly RegExp[]) =>
      linesOf(proxy).filter((line) => words.every((word) => word.test(JSON.stringify(line)))).length;
    await proxy.converges(t, 'it works all the same');
    const warnings: readonly (readonly [string, ...RegExp[]])[] = [
      ['who has the port', /not listening/, new RegExp(`takenBy":"\\S+ \\(process ${process.pid}\\)`), /stop it/],
      ['the other flavour', /"warn"/, /kubelet, flannel on this node have rules in the legacy flavour/],
      ['forwarding', /"warn"/, /sysctl -w net\.ipv4\.ip_forward=1/],
    ];
    for (const [name, ...words] of warnings) t.equal(says(...words), 1, `${name}: ${words.join(' ')}`);
    t.equal(says(/IPv6 packets are not forwarded/), 0, 'what is right is not told');
    await sleep(6_000);
    t.equal(says(/not listening/), 1, 'a port that stays taken is told once');
    taken.close();
    const isUp = () => says(/"listening"/, /"health"/) === 1;
    t.ok(await becomesTrue(isUp, 10_000), 'and served when it is free');
  } finally {
    await proxy.close();
    taken.close();
  }
}

async function noServer(t: Test): Promise<void> {
  const first = await createApiServer();
  const port = Number(new URL(first.url).port);
  const proxy = await createLiveProxy({ flavour: 'nft', api: first });
  try {
    await first.close();
    proxy.start();
    t.ok(await becomesTrue(() => proxy.log.includes('cannot watch'), 10_000));
    await sleep(4_000);
    const lost = linesOf(proxy).filter(({ level }) => level === 'warn');
    t.match(lost, [{ kind: 'Node', since: /^20\d\d-.*Z$/, why: /ECONNREFUSED/ }]);
    t.equal(lost.length, 1, 'one line, however often it tries');
    proxy.api = await createApiServer({ port });
    proxy.api.replaceAll(liveCluster(3));
    await proxy.converges(t, 'it goes on when the server is there');
    t.equal(proxy.diedBy, undefined);
  } finally {
    await proxy.close();
  }
}

const cases = { 'a node with faults': wrongNode, 'no API server': noServer };

const inside = caseInside();
t.setTimeout(180_000);
if (inside === undefined) {
  t.jobs = 2;
  for (const name of Object.keys(cases)) {
    t.test(name, { buffered: true }, async (t) => await runInside(t, import.meta.url, name));
  }
} else {
  const test = Object.entries(cases).find(([name]) => name === inside)?.[1];
  if (test === undefined) throw new Error(`Cannot run case "${inside}": there is none of this name`);
  t.test(inside, test);
}
