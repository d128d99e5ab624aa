/**
 * The compiled package with what the DaemonSet grants and no more: capabilities, no new privileges, a read-only root file
 * system, /proc/sys and /sys. Its rules carry traffic; with one grant missing the start fails with a line that says which.
 */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { delimiter, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { parseAllDocuments } from 'yaml';
import type { Flavour } from '../../src/modes/iptables/tools.ts';
import { becomesTrue } from '../lib/live-proxy.ts';
import { caseInside, privateRun, runInside, sh } from '../lib/namespace.ts';
import { buildPackage } from '../lib/package.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const PACKAGE = 'SWITCHYARD_TEST_PACKAGE';
/** capabilities(7): the number of each is its bit in /proc/PID/status. */
const BITS: Readonly<Record<string, bigint>> = { NET_ADMIN: 12n, NET_RAW: 13n };

const manifests = [
  'apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.7}]}\n',
  `apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: ns1}\nspec: {type: NodePort, clusterIP: 10.43.0.1, clusterIPs: [10.43.0.1], ipFamilies: [IPv4],
  sessionAffinity: ClientIP, ports: [{name: http, protocol: TCP, port: 80, nodePort: 30080}]}\n`,
  `apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a-1, namespace: ns1, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4
ports: [{name: http, protocol: TCP, port: 8080}]\nendpoints: [{addresses: [192.0.2.7]}]\n`,
].join('---\n');

/** Paths in place of the pod's: the configuration of the K3s overlay, and manifests in place of an API server. */
const CONFIG = '/run/config.conf';
const MANIFESTS = '/run/objects.yaml';

interface Grants {
  readonly config: string;
  readonly add: readonly string[];
  readonly drop: readonly string[];
}

/** What the DaemonSet of the K3s overlay grants to the main container. */
function readGrants(): Grants {
  const objects = parseAllDocuments(readFileSync(`${root}/deploy/generated/k3s.yaml`, 'utf8')).map((d) => d.toJS());
  const daemonSet = objects.find((o) => o.kind === 'DaemonSet');
  const { capabilities } = daemonSet.spec.template.spec.containers[0].securityContext;
  return { ...capabilities, config: objects.find((o) => o.kind === 'ConfigMap').data['config.conf'] };
}

function argvOf(flavour: Flavour, ...more: readonly string[]): [string, ...string[]] {
  const flags = ['--config', CONFIG, '--hostname-override', 'n1', '--iptables-flavour', flavour, '-f', MANIFESTS];
  // Nothing of the environment but the path: the test runner loads itself into every Node that it can see.
  const clean = ['-i', `PATH=${process.env['PATH']}`] as const;
  return ['env', ...clean, `${process.env[PACKAGE]}/bin/switchyard`, 'run', ...flags, ...more];
}

/** The command with these capabilities and no way to more. */
function confined(capabilities: readonly string[], argv: readonly string[]): readonly string[] {
  const set = ['-all', ...capabilities.map((name) => `+${name.toLowerCase()}`)].join(',');
  return [`--bounding-set=${set}`, '--inh-caps=-all', '--no-new-privs', '--', ...argv];
}

/** Runs a start that must fail, and tells what it said last. */
function failedStart(capabilities: readonly string[], flavour: Flavour): string {
  const r = spawnSync('setpriv', confined(capabilities, argvOf(flavour)), { encoding: 'utf8', timeout: 30_000 });
  return `status ${r.status}: ${r.stderr.trim().split('\n').at(-1)}`;
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(1_000) })).ok;
  } catch {
    return false;
  }
}

/** Starts the daemon and waits until a Service answers in every way it can be asked. */
async function carries(t: Test, capabilities: readonly string[], flavour: Flavour): Promise<void> {
  const server = createServer((_request, response) => response.end('pod')).listen(8080, '192.0.2.7');
  const daemon = spawn('setpriv', confined(capabilities, argvOf(flavour)), { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  daemon.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  try {
    for (const url of ['http://10.43.0.1', 'http://192.0.2.7:30080', 'http://127.0.0.1:10256/livez']) {
      const isRight = t.ok(await becomesTrue(() => answers(url), 20_000), `${url} answers`);
      if (!isRight) t.comment(log);
    }
    const [, effective] = /^CapEff:\s+(\S+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8')) ?? [];
    const wanted = capabilities.reduce((sum, name) => sum | (1n << (BITS[name] ?? 63n)), 0n);
    t.equal(BigInt(`0x${effective}`), wanted, 'has these capabilities and no other');
    t.notMatch(log, /"level":"(error|fatal)"/, 'nothing goes wrong');
  } finally {
    const ended = new Promise((resolve) => daemon.on('exit', resolve));
    daemon.kill('SIGTERM');
    await ended;
    server.closeAllConnections();
    server.close();
    for (const tool of ['iptables', 'ip6tables']) {
      for (const table of ['nat', 'filter', 'mangle']) {
        sh(`${tool}-${flavour}`, '-t', table, '-F');
        sh(`${tool}-${flavour}`, '-t', table, '-X');
      }
    }
  }
}

const missing: readonly { flavour: Flavour; without: string; says: RegExp }[] = [
  { flavour: 'nft', without: 'NET_ADMIN', says: /^status 1: .*Cannot serve IPv4.*run as root with CAP_NET_ADMIN, / },
  { flavour: 'legacy', without: 'NET_ADMIN', says: /^status 1: .*run as root with CAP_NET_ADMIN and CAP_NET_RAW, / },
  { flavour: 'legacy', without: 'NET_RAW', says: /^status 1: .*run as root with CAP_NET_ADMIN and CAP_NET_RAW, / },
];

if (caseInside() === undefined) {
  const dir = buildPackage();
  process.env[PACKAGE] = dir;
  process.env['PATH'] = [dirname(process.execPath), process.env['PATH']].join(delimiter);
  t.teardown(() => rmSync(dir, { recursive: true }));
  t.test('what the DaemonSet grants is enough, and all needed', async (t) => runInside(t, import.meta.url, 'grants'));
} else {
  const { config, add, drop } = readGrants();
  privateRun();
  writeFileSync(CONFIG, config);
  writeFileSync(MANIFESTS, manifests);
  sh('mount', '-t', 'sysfs', 'sys', '/sys');
  sh('mount', '--bind', '/proc/sys', '/proc/sys');
  sh('ip', 'link', 'set', 'lo', 'up');
  sh('ip', 'address', 'add', '192.0.2.7/32', 'dev', 'lo');
  sh('ip', 'route', 'add', '10.43.0.0/24', 'dev', 'lo');
  // A new namespace may take this from the machine.
  writeFileSync('/proc/sys/net/ipv4/conf/all/route_localnet', '0');
  const remount = (path: string, how: 'ro' | 'rw') => sh('mount', '-o', `remount,bind,${how}`, path);
  for (const path of ['/sys', '/']) remount(path, 'ro');
  // tap writes a last word when this process ends.
  t.teardown(() => remount('/', 'rw'));
  t.same(drop, ['ALL'], 'nothing is granted by default');
  t.same(add.toSorted(), ['NET_ADMIN', 'NET_RAW']);

  t.test('without the init container', async (t) => {
    remount('/proc/sys', 'ro');
    t.match(failedStart(add, 'nft'), /^status 1: .*route_localnet to 1.*EROFS; set it before, as a privileged/);
    remount('/proc/sys', 'rw');
  });
  t.test('the init container', async (t) => {
    const [file, ...args] = argvOf('nft', '--init-only');
    const r = spawnSync(file, args, { encoding: 'utf8', timeout: 30_000 });
    t.equal(r.status, 0, r.stderr);
    t.equal(readFileSync('/proc/sys/net/ipv4/conf/all/route_localnet', 'utf8').trim(), '1');
    remount('/proc/sys', 'ro');
  });
  for (const { flavour, without, says } of missing) {
    t.test(`${flavour} flavour, ${without} missing`, async (t) => {
      t.match(
        failedStart(
          add.filter((name) => name !== without),
          flavour,
        ),
        says,
      );
    });
  }
  for (const flavour of ['nft', 'legacy'] as const) {
    t.test(`${flavour} flavour, all granted`, (t) => carries(t, add, flavour));
  }
  t.test('the nft flavour does without NET_RAW', (t) => carries(t, ['NET_ADMIN'], 'nft'));
}
