/**
 * The image that deploy/Dockerfile makes, and in it the daemon with what the DaemonSets grant and no more: user, capabilities, seccomp
 * profile, mounts, a read-only root file system. It carries traffic in the lab; with one grant missing it says which.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { pipeline } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { V1ConfigMap, V1Container, V1DaemonSet, V1PodSpec } from '@kubernetes/client-node';
import t, { type Test } from 'tap';
import { parse, parseAllDocuments } from 'yaml';
import { generatedPath } from '../../scripts/deploy.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import { addressOf } from '../../src/lab/topology.ts';
import { BUILT_MODES, type ModeName } from '../../src/modes/mode.ts';
import { buildImage } from '../lib/image.ts';
import { becomesTrue } from '../lib/live-proxy.ts';
import { capabilityNames, containerSpec, grantedCapabilities, makeHostPaths, type PodPlaces } from '../lib/pod.ts';
import { makeCertificates } from '../watch/certificates.ts';

t.setTimeout(600_000);

const POD_RUN = fileURLToPath(new URL('../lib/pod-run.ts', import.meta.url));
const SECCOMP = '/usr/share/containers/seccomp.json';
const TOKEN = 'token-of-the-account';
/** The image may grow to this before someone asks why. */
const MAX_SIZE_MB = 300;

for (const program of ['debootstrap', 'buildah', 'runc']) {
  const { error } = spawnSync(program, ['--version']);
  if (error)
    throw new Error(`Cannot test the image: no ${program}, it must be installed (Debian's package has its name)`);
}
const image = buildImage();
t.teardown(() => image.close());
const certificates = makeCertificates();
const dir = mkdtempSync(`${tmpdir()}/pod-`);
t.teardown(() => rmSync(dir, { recursive: true }));

t.test('the image', async (t) => {
  const { all, base } = image.tookMs;
  const sizeMB = Math.round(image.sizeBytes / 1e6);
  t.comment(`${sizeMB} MB; built in ${Math.round(all / 1000)} s, of that ${Math.round(base / 1000)} s for its base`);
  t.ok(sizeMB < MAX_SIZE_MB, `${sizeMB} MB are less than ${MAX_SIZE_MB}`);
});

interface Setting {
  readonly pod: V1PodSpec;
  readonly places: PodPlaces;
}

/** A plain file as it is applied, its ConfigMaps, with this mode in them, and an account laid out as files. */
function readSetting(overlay: string, mode: ModeName): Setting {
  const objects = parseAllDocuments(readFileSync(generatedPath(overlay), 'utf8')).map((d) => d.toJS());
  const daemonSet: V1DaemonSet = objects.find((o) => o.kind === 'DaemonSet');
  const pod = daemonSet.spec?.template.spec;
  if (pod === undefined) throw new Error(`Cannot start ${overlay}: its DaemonSet has no pod`);
  const account = `${dir}/account`;
  writeFiles(account, { token: TOKEN, 'ca.crt': certificates.ca, namespace: 'kube-system' });
  const configMap = (name: string) => `${dir}/${name}`;
  for (const o of objects) {
    if (o.kind !== 'ConfigMap') continue;
    const { metadata, data }: V1ConfigMap = o;
    const files = Object.entries(data ?? {}).map(([file, text]) => [
      file,
      text.replace(/^mode: .*$/m, `mode: ${mode}`),
    ]);
    writeFiles(configMap(metadata?.name ?? ''), Object.fromEntries(files));
  }
  const seccomp = JSON.parse(readFileSync(SECCOMP, 'utf8'));
  const [, ours = ''] = /^CapBnd:\s+(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  const places = {
    ...{ rootfs: image.path, image: image.config, nodeName: 'k3s-node', configMap, account, seccomp },
    allCapabilities: capabilityNames(ours),
  };
  return { pod, places };
}

function writeFiles(directory: string, files: Readonly<Record<string, string>>): void {
  mkdirSync(directory, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(`${directory}/${name}`, text);
}

/** Lays out the containers of a pod for pod-run.ts. The main one is named last. */
function writeBundles({ places }: Setting, pod: V1PodSpec): void {
  rmSync(`${dir}/bundles`, { recursive: true, force: true });
  // What the runtime made to mount on, for the pod before this one.
  rmSync(`${places.rootfs}/run/xtables.lock`, { force: true });
  for (const [i, container] of [...(pod.initContainers ?? []), ...pod.containers].entries()) {
    const spec = containerSpec(pod, container, places);
    writeFiles(`${dir}/bundles/${i}-${container.name}`, { 'config.json': JSON.stringify(spec) });
  }
}

/** The pod with another security context, or volumes, of its main container. */
function withMain(pod: V1PodSpec, change: (main: V1Container) => V1Container): V1PodSpec {
  return { ...pod, containers: pod.containers.map(change) };
}

function withCapabilities(pod: V1PodSpec, add: readonly string[]): V1PodSpec {
  return withMain(pod, (main) => ({
    ...main,
    securityContext: { ...main.securityContext, capabilities: { drop: ['ALL'], add: [...add] } },
  }));
}

const SERVICE = { address: '10.43.0.80', nodePort: 30080 };

/** A lab whose proxy is the pod in `bundles`, and whose API server is where K3s has it on every node. */
async function createPodLab(t: Test, setting: Setting): Promise<Lab> {
  const program = ['unshare', '--mount', '--mount-proc', process.execPath, POD_RUN, `${dir}/bundles`] as const;
  const tls = { ...certificates.server, ca: certificates.ca };
  const ports = [{ kind: 'http', port: 8080 }] as const;
  const lab = await createLab({ program: [...program], startProxy: false, api: { tls, token: TOKEN }, ports });
  t.teardown(() => lab.close());
  const door = await lab.node.listen('127.0.0.1', 6444);
  t.teardown(() => door.close());
  const port = Number(new URL(lab.api.url).port);
  door.on('connection', (from) => pipeline(from, connect(port, '127.0.0.1'), from, () => {}));
  // A new namespace may take this from the machine.
  await lab.node.ask('sysctl', [{ path: 'net/ipv4/conf/all/route_localnet', value: '0', optional: false }]);
  for (const argv of makeHostPaths(setting.pod)) await lab.node.exec.run({ argv, timeoutMs: 5_000 });
  const nodeName = lab.topology.node.name;
  const endpoints = lab.topology.pods.map((pod) => ({ addresses: [addressOf(pod, 'IPv4')], nodeName }));
  lab.apply(
    parse(`
- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: default}, spec: {type: NodePort, clusterIP: ${SERVICE.address},
   ports: [{name: http, port: 80, targetPort: 8080, nodePort: ${SERVICE.nodePort}}]}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a-1, namespace: default, labels: {kubernetes.io/service-name: a}},
   addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: ${JSON.stringify(endpoints)}}
`),
  );
  return lab;
}

/** What a start said from now on. */
async function startOf(lab: Lab): Promise<() => string> {
  const before = lab.proxy.log().length;
  await lab.proxy.start();
  return () => lab.proxy.log().slice(before);
}

/** Runs a start that must fail. @returns How it ended, and what it said last. */
async function failedStart(lab: Lab): Promise<string> {
  const said = await startOf(lab);
  await becomesTrue(() => !lab.proxy.running, 30_000);
  if (lab.proxy.running) await lab.proxy.stop();
  const [end, last] = said().trim().split('\n').reverse();
  return `${end} ${last}`;
}

/** Of the daemon in its container: user, capabilities, and whether it could get more. */
async function credentials(t: Test, lab: Lab, name: string): Promise<string> {
  const run = (...argv: [string, ...string[]]) => lab.node.exec.run({ argv, timeoutMs: 5_000 });
  const pid = (await run('cat', `/run/${name}.pid`)).trim();
  const status = await run('unshare', '--mount', '--mount-proc', 'cat', `/proc/${pid}/status`);
  const of = (field: string) => new RegExp(`^${field}:\\s+(\\S+)`, 'm').exec(status)?.[1] ?? '';
  const names = capabilityNames(of('CapEff'));
  t.equal(of('CapBnd'), of('CapEff'), 'what it has is all it can have');
  return `uid ${of('Uid')}, ${names.join(' ')}, no new privileges: ${of('NoNewPrivs')}, seccomp: ${of('Seccomp')}`;
}

/** Starts the pod and asks a Service in every way there is, and waits until it says `until`. */
async function carries(t: Test, lab: Lab, setting: Setting, until = /./): Promise<string> {
  const { pod } = setting;
  writeBundles(setting, pod);
  const said = await startOf(lab);
  try {
    await lab.settled(30_000);
    const [a] = lab.pods;
    const node = addressOf(lab.topology.node, 'IPv4');
    for (const [who, from, address, port] of [
      ['a pod', a ?? lab.node, SERVICE.address, 80],
      ['the node', lab.node, SERVICE.address, 80],
      ['a client, node port', lab.client, node, SERVICE.nodePort],
    ] as const) {
      const outcome = await lab.request(from, { address, port });
      const isRight = t.equal(outcome.kind, 'answered', `${who}: answered`);
      if (!isRight) t.comment(said());
    }
    t.ok(await becomesTrue(() => until.test(said()), 30_000), `says ${until}`);
    const health = await lab.request(lab.node, { address: '127.0.0.1', port: 10256, timeoutMs: 2_000 });
    t.equal(health.kind, 'answered', 'healthz answers where the probes ask');
    t.notMatch(said(), /"level":"(error|fatal)"/, 'nothing goes wrong');
    const context = pod.containers[0]?.securityContext ?? {};
    t.equal(
      await credentials(t, lab, `${pod.initContainers?.length ?? 0}-switchyard`),
      `uid ${context.runAsUser ?? 0}, ${grantedCapabilities(context).join(' ')}, no new privileges: 1, seccomp: 2`,
    );
  } catch (error) {
    t.comment(said());
    throw error;
  } finally {
    await lab.proxy.stop();
  }
  t.match(said(), /\(ended: status 0\)\n$/, 'ends in order');
  return said();
}

interface Missing {
  readonly without: string;
  readonly change: (pod: V1PodSpec) => V1PodSpec;
  readonly says: RegExp;
}

const without = (name: string) => (pod: V1PodSpec) =>
  withCapabilities(
    pod,
    grantedCapabilities(pod.containers[0]?.securityContext ?? {}).filter((n) => n !== name),
  );

/** Without a grant the tables of the legacy flavour cannot be seen, and so are not chosen: say which. */
const legacy = (pod: V1PodSpec) =>
  withMain(pod, (main) => ({ ...main, args: [...(main.args ?? []), '--iptables-flavour=legacy'] }));

/** Without the init container: what the runtime makes there to mount the lock on would be seen by the main one too. */
const noLock = (pod: V1PodSpec) =>
  withMain({ ...pod, initContainers: [] }, (main) => ({
    ...main,
    volumeMounts: main.volumeMounts?.filter((m) => m.name !== 'xtables-lock') ?? [],
  }));

interface Case {
  readonly name: string;
  readonly overlay: string;
  /** Configured, if the overlay says another. */
  readonly mode: ModeName;
  /** What there is on the node before: kubelet's chain tells the flavour. */
  readonly before?: readonly (readonly [string, ...string[]])[];
  readonly says: RegExp;
  /** What is said of rules that another mode left. */
  readonly leftovers?: RegExp;
  readonly missing?: readonly Missing[];
  /** Less is enough. */
  readonly lesser?: (pod: V1PodSpec) => V1PodSpec;
}

/** As another kube-proxy, or we in iptables mode, leave them. */
const leftLegacy = [['iptables-legacy', '-t', 'nat', '-N', 'KUBE-SERVICES'] as const];

const STAYS = /"level":"warn".*"ruleset":"iptables \(legacy\)".*rules of another mode stay for now/;
const removed = (ruleset: string) =>
  new RegExp(`"level":"info".*"ruleset":"${ruleset}".*rules of another mode removed`);

const hint = (flavour: string) => [[`iptables-${flavour}`, '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT'] as const];

const cases: readonly Case[] = [
  {
    name: 'the nft flavour of iptables',
    overlay: 'k3s',
    mode: 'iptables',
    before: hint('nft'),
    says: /iptables 1\.8\.\d+ \(nft\)/,
    lesser: without('NET_RAW'),
    missing: [
      {
        without: 'the init container',
        change: (pod) => ({ ...pod, initContainers: [] }),
        says: /^\(ended: status 1\) .*route_localnet to 1.*EROFS; set it before, as a privileged/,
      },
      {
        without: 'NET_ADMIN',
        change: without('NET_ADMIN'),
        says: /^\(ended: status 1\) .*Cannot serve IPv4.*run as root with CAP_NET_ADMIN, /,
      },
    ],
  },
  {
    name: 'the legacy flavour of iptables',
    overlay: 'k3s',
    mode: 'iptables',
    before: hint('legacy'),
    says: /iptables 1\.8\.\d+ \(legacy\)/,
    missing: [
      ...['NET_ADMIN', 'NET_RAW'].map((name) => ({
        without: name,
        change: (pod: V1PodSpec) => legacy(without(name)(pod)),
        says: /^\(ended: status 1\) .*run as root with CAP_NET_ADMIN and CAP_NET_RAW, /,
      })),
      { without: 'the lock', change: noLock, says: /^\(ended: status 1\) .*xtables\.lock/ },
    ],
  },
  {
    name: 'nftables',
    overlay: 'k3s-nftables',
    mode: 'nftables',
    says: /nftables/,
    missing: [{ without: 'NET_ADMIN', change: without('NET_ADMIN'), says: /^\(ended: status 1\) .*with-net-admin/ }],
  },
  {
    name: 'nftables, which cannot remove rules of iptables',
    overlay: 'k3s-nftables',
    mode: 'nftables',
    before: leftLegacy,
    says: /nftables/,
    leftovers: STAYS,
  },
  {
    name: 'nftables with the grants of iptables mode, which can',
    overlay: 'k3s',
    mode: 'nftables',
    before: leftLegacy,
    says: /nftables/,
    leftovers: removed('iptables \\(legacy\\)'),
  },
  {
    name: 'iptables after nftables',
    overlay: 'k3s',
    mode: 'iptables',
    before: [['nft', 'add', 'table', 'ip', 'kube-proxy'], ...hint('nft')],
    says: /iptables 1\.8\.\d+ \(nft\)/,
    leftovers: removed('nftables'),
  },
];

for (const c of cases.filter(({ mode }) => BUILT_MODES.includes(mode))) {
  t.test(`overlay ${c.overlay}: ${c.name}`, async (t) => {
    const setting = readSetting(c.overlay, c.mode);
    const lab = await createPodLab(t, setting);
    for (const argv of c.before ?? []) await lab.node.exec.run({ argv, timeoutMs: 5_000 });
    for (const { without, change, says } of c.missing ?? []) {
      writeBundles(setting, change(setting.pod));
      t.match(await failedStart(lab), says, `without ${without}`);
    }
    const said = await carries(t, lab, setting, c.leftovers);
    t.match(said, c.says, 'chosen when it starts');
    t.match(said, new RegExp(`"mode":"${c.mode}"`));
    if (!c.leftovers) t.notMatch(said, /"level":"warn".*rules of another mode/, 'nobody else programs Services here');
    if (c.lesser) await carries(t, lab, { ...setting, pod: c.lesser(setting.pod) });
  });
}
