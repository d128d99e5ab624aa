/** The lab with real packets: who reaches whom, the demonstration end to end, and nothing left behind however it ends. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Namespace } from '../../src/lab/namespace.ts';
import { createNetwork } from '../../src/lab/network.ts';
import type { ServedPort } from '../../src/lab/protocol.ts';
import { decodePodAnswer } from '../../src/lab/request.ts';
import { addressOf, labTopology, withoutPrefix } from '../../src/lab/topology.ts';
import { realClock } from '../../src/sys/clock.ts';

if (process.getuid?.() !== 0) {
  t.fail('Cannot test the lab as an ordinary user: run it as root, which also tests it as one');
  process.exit(1);
}

// Several demonstrations, each of seconds; run alone, a file of tap has 30 s.
t.setTimeout(300_000);

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const TUTORIAL_CHAIN = 'KUBE-EXT-2YKFRC5JDWUQ7NLU';
const NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--'];

const PORTS: readonly ServedPort[] = [
  { kind: 'http', port: 80 },
  { kind: 'tcp', port: 7 },
  { kind: 'udp', port: 53 },
];

t.test('packets in a network of its own', async (t) => {
  const networks = await Promise.all([createNetwork(2), createNetwork(1)]);
  t.teardown(() => Promise.all(networks.map((n) => n.close())));
  const [{ topology, node, client, pods }, other] = networks;
  for (const pod of pods) await pod.ask('serve', { pod: pod.name, ports: PORTS });

  const ask = (from: Namespace, address: string, { kind, port }: ServedPort) =>
    from.ask('request', { kind, address, port, path: '/', timeoutMs: 2_000, from: undefined, fromPort: 0 });

  for (const family of topology.families) {
    const gateway = withoutPrefix(topology.node.gateways[family]);
    const [a, b] = topology.pods.map((pod) => addressOf(pod, family));
    // The same place told thrice: who asks, and whom the pod sees.
    const askers = [
      { from: pods[0], seen: a },
      { from: pods[1], seen: b },
      { from: node, seen: gateway },
      { from: client, seen: addressOf(topology.client, family) },
    ];
    for (const { from, seen } of askers) {
      for (const pod of topology.pods) {
        for (const served of PORTS) {
          const outcome = await ask(from ?? node, addressOf(pod, family), served);
          const { pod: name, client: saw, address } = decodePodAnswer(outcome) ?? {};
          const want = { name: pod.name, address: addressOf(pod, family), saw: seen };
          t.same({ name, address, saw }, want, `${family}: ${from?.name} asks ${pod.name} over ${served.kind}`);
        }
      }
    }
    for (const kind of ['http', 'tcp', 'udp'] as const) {
      const outcome = await ask(client, addressOf(topology.node, family), { kind, port: 9 });
      t.equal(outcome.kind, 'refused', `${family}: a closed port of the node refuses ${kind}`);
    }
  }
  const nowhere = await ask(client, '10.42.0.99', { kind: 'udp', port: 53 });
  t.match(nowhere.kind, /^(timeout|failed)$/, 'an address nobody has does not answer');

  await other.close();
  const still = await ask(client, '10.42.0.11', { kind: 'http', port: 80 });
  t.equal(still.kind, 'answered', 'the end of one lab does not touch its neighbour');
  await t.rejects(
    other.node.exec.run({ argv: ['true'], timeoutMs: 2_000 }),
    'the namespaces of the ended one are gone',
  );
  await t.rejects(other.node.ask('sysctl', []), /its agent has ended/);
});

t.test('a socket made inside is served from outside', async (t) => {
  const network = await createNetwork(1);
  t.teardown(() => network.close());
  const { node, client } = network;
  const server = await node.listen('127.0.0.1', 6443);
  t.teardown(() => server.close());
  server.on('connection', (socket) => socket.end(`${JSON.stringify({ pod: 'outside' })}\n`));
  const spec = {
    kind: 'tcp',
    address: '127.0.0.1',
    port: 6443,
    path: '/',
    timeoutMs: 2_000,
    from: undefined,
    fromPort: 0,
  } as const;
  t.equal(decodePodAnswer(await node.ask('request', spec))?.pod, 'outside');
  t.equal((await client.ask('request', spec)).kind, 'refused', 'it is in that namespace only');
});

t.test('labTopology() refuses', async (t) => {
  for (const pods of [0, 9, 1.5, Number.NaN])
    t.throws(() => labTopology(pods, ['IPv4']), { name: 'RangeError' }, `${pods} pods`);
});

/** A run of `switchyard lab demo` whose processes, all of them, carry a mark in their PATH. */
interface Run {
  readonly child: ChildProcess;
  readonly stdout: Promise<string>;
  readonly stderr: Promise<string>;
  /** Status, or signal. */
  readonly ended: Promise<number | string>;
  /** Processes of this run that are alive. */
  left(): number[];
}

let runs = 0;

function start(prefix: readonly string[], args: readonly string[]): Run {
  const mark = `/switchyard-lab-test-${process.pid}-${runs++}`;
  const [file = '', ...rest] = [...prefix, process.execPath, MAIN, 'lab', 'demo', ...args];
  const child = spawn(file, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${process.env['PATH']}:${mark}` },
  });
  const environment = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8');
    } catch {
      return ''; // It ended meanwhile.
    }
  };
  return {
    child,
    stdout: text(child.stdout),
    stderr: text(child.stderr),
    ended: once(child, 'close').then(([status, signal]) => status ?? signal),
    left: () =>
      readdirSync('/proc')
        .filter((pid) => /^\d+$/.test(pid) && environment(pid).includes(mark))
        .map(Number),
  };
}

/** Waits for what must come true soon. */
async function until(what: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!what()) {
    if (performance.now() > deadlineMs) return false;
    await realClock.sleep(10);
  }
  return true;
}

t.test('the demonstration', async (t) => {
  t.test('as JSON, for root', async (t) => {
    const run = start([], ['--json']);
    const [stdout, stderr, ended] = await Promise.all([run.stdout, run.stderr, run.ended]);
    t.equal(ended, 0, `exit code ${stderr}`);
    const told = JSON.parse(stdout);
    t.equal(told.ok, true);
    t.same(
      told.checks.filter((c: { ok: boolean }) => !c.ok),
      [],
      'no check failed',
    );
    t.ok(told.checks.length >= 20, `${told.checks.length} checks were made`);
    const balanced = told.requests.find((r: { to: string }) => r.to === '192.168.1.100:80');
    t.match(balanced.path.chains, [
      'PREROUTING',
      'KUBE-SERVICES',
      TUTORIAL_CHAIN,
      TUTORIAL_CHAIN.replace('EXT', 'SVC'),
      /^KUBE-SEP-[A-Z2-7]{16}$/,
    ]);
    t.ok(await until(() => run.left().length === 0, 2_000), 'no process is left');
  });

  t.test('as text in a pipe, for an ordinary user', async (t) => {
    const run = start(NOBODY, []);
    const [stdout, stderr, ended] = await Promise.all([run.stdout, run.stderr, run.ended]);
    t.equal(ended, 0, `exit code ${stderr}`);
    t.match(stdout, new RegExp(`PREROUTING → KUBE-SERVICES → ${TUTORIAL_CHAIN} → KUBE-SVC-`));
    t.match(stdout, /nginx-externalname +ExternalName/);
    t.match(stdout, /\d+ checks passed, 0 failed/);
    t.notOk(stdout.includes('\x1b'), 'no colours');
    t.ok(await until(() => run.left().length === 0, 2_000), 'no process is left');
  });

  t.test('in nftables mode, for an ordinary user', async (t) => {
    const run = start(NOBODY, ['--mode', 'nftables']);
    const [stdout, stderr, ended] = await Promise.all([run.stdout, run.stderr, run.ended]);
    t.equal(ended, 0, `exit code ${stderr}`);
    t.match(
      stdout,
      /nat-prerouting → services → external-GJBKSMQO-default\/nginx-loadbalancer\/tcp\/ → service-GJBKSMQO-/,
    );
    t.match(stdout, /services ip daddr \. meta l4proto \. th dport vmap @service-ips/);
    t.match(stdout, /\d+ checks passed, 0 failed/);
    t.ok(await until(() => run.left().length === 0, 2_000), 'no process is left');
  });
});

t.test('a demonstration that ends early leaves nothing', async (t) => {
  for (const [name, signal, ended] of [
    ['Ctrl-C', 'SIGINT', 2],
    ['kill -9', 'SIGKILL', 'SIGKILL'],
  ] as const) {
    t.test(name, async (t) => {
      const run = start([], []);
      let said = '';
      run.child.stdout?.on('data', (chunk) => {
        said += chunk;
      });
      t.ok(await until(() => said.includes('1. ClusterIP'), 60_000), 'it is half-way');
      t.ok(run.left().length > 4, `with ${run.left().length} processes`);
      run.child.kill(signal);
      t.equal(await run.ended, ended);
      t.ok(await until(() => run.left().length === 0, 2_000), 'no process is left');
      if (signal === 'SIGINT') t.equal(await run.stderr, 'lab: interrupted, everything cleaned up\n');
    });
  }
});

t.test('one line where namespaces are forbidden', async (t) => {
  // Root of a user namespace that may hold no network namespace.
  const forbid = `
    require('node:fs').writeFileSync('/proc/sys/user/max_net_namespaces', '0');
    const [file, ...args] = process.argv.slice(1);
    process.exitCode = require('node:child_process').spawnSync(file, args, { stdio: 'inherit' }).status;
  `;
  const run = start(['unshare', '--user', '--map-root-user', '--', process.execPath, '-e', forbid], []);
  t.equal(await run.ended, 2);
  t.match(await run.stderr, /^lab: Cannot make network namespaces: [^\n]+; [^\n]*must [^\n]+\n$/);
  t.equal(await run.stdout, '');
});
