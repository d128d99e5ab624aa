/** The manifests fit the daemon: what they grant, where they probe, what they configure; and the plain files are fresh. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type * as k8s from '@kubernetes/client-node';
import { pino } from 'pino';
import t from 'tap';
import { parse, parseAllDocuments } from 'yaml';
import { overlays as allOverlays, buildOverlay, generatedPath } from '../scripts/deploy.ts';
import { splitHostPort } from '../src/config/addresses.ts';
import { normaliseRunArgv } from '../src/config/argv.ts';
import { FLAGS, isFlagName } from '../src/config/flags.ts';
import { loadConfig } from '../src/config/load.ts';
import type { Config } from '../src/config/types.ts';
import { Events, nodeReference } from '../src/daemon/events.ts';
import type { ModeName } from '../src/modes/mode.ts';
import { createMetrics } from '../src/proxier/metrics.ts';
import { FakeClock } from '../src/sys/fake-clock.ts';
import { version } from '../src/version.ts';
import { inCluster } from '../src/watch/cluster.ts';
import { parseKubeconfig } from '../src/watch/kubeconfig.ts';
import { proxyKinds } from '../src/watch/selectors.ts';
import { schemaErrors } from './lib/api-schema.ts';

const deploy = fileURLToPath(new URL('../deploy', import.meta.url));
const read = (path: string) => readFileSync(`${deploy}/${path}`, 'utf8');

const CONFIG_DIR = '/var/lib/kube-proxy';
const ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The ConfigMap kube-proxy as `kubeadm init` leaves it, but for the mode. */
const kubeadmConfigMap = (mode: ModeName): Readonly<Record<string, string>> => ({
  'config.conf': `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: ${CONFIG_DIR}/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: "${mode === 'iptables' ? '' : mode}"
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
`,
  'kubeconfig.conf': `apiVersion: v1
kind: Config
clusters: [{cluster: {certificate-authority: ${ACCOUNT_DIR}/ca.crt, server: "https://10.0.0.1:6443"}, name: default}]
contexts: [{context: {cluster: default, namespace: default, user: default}, name: default}]
current-context: default
users: [{name: default, user: {tokenFile: ${ACCOUNT_DIR}/token}}]
`,
});

type Manifest = k8s.KubernetesObject;
const isKind =
  <T extends Manifest>(kind: string) =>
  (o: Manifest): o is T =>
    o.kind === kind;

/** Objects of a file. What is no object of the API fails `schemaErrors`. */
function objectsOf(text: string): readonly Manifest[] {
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
}

function theOne<T extends Manifest>(objects: readonly Manifest[], kind: string): T {
  const [found, ...more] = objects.filter(isKind<T>(kind));
  if (found === undefined || more.length > 0)
    throw new Error(`Cannot take the one ${kind}: there are ${found ? more.length + 1 : 0}`);
  return found;
}

/** The configuration a container ends up with: its arguments, and the files of the ConfigMap. */
async function configOf(container: k8s.V1Container, files: Readonly<Record<string, string>>): Promise<Config> {
  const [command, ...args] = container.args ?? [];
  if (command !== 'run') throw new Error(`Cannot read the arguments: the command is ${command}, must be run`);
  const flags = normaliseRunArgv(args.map((arg) => arg.replace('$(NODE_NAME)', 'node-a'))).map((arg) => {
    const [, name = '', value = ''] = /^--([^=]+)=(.*)$/.exec(arg) ?? [];
    if (!isFlagName(name)) throw new Error(`Cannot read the arguments: ${arg} is no flag`);
    return [name, FLAGS[name].parse(value, undefined)];
  });
  const { config } = await loadConfig(Object.fromEntries(flags), {
    readFile: async (path) => files[path.replace(`${CONFIG_DIR}/`, '')] ?? Promise.reject(new Error('no such file')),
  });
  return config;
}

interface Expected {
  readonly config: { readonly mode: ModeName };
  readonly server: string;
  /** What a node grants to the main container, and whether one before it sets the kernel up. */
  readonly grants: { readonly context: object; readonly hostPaths: readonly string[] };
  readonly init: boolean;
}

const noConntrack = { maxPerCore: 0, tcpEstablishedTimeoutMs: 0, tcpCloseWaitTimeoutMs: 0 };
/** The arguments K3s gives to its own kube-proxy, and its API server on every node. */
const k3s = {
  config: { detectLocal: { clusterCIDRs: ['10.42.0.0/16'] }, conntrack: noConntrack, oomScoreAdj: -997 },
  server: 'https://127.0.0.1:6444',
};
const kubeadm = {
  config: { detectLocal: { clusterCIDRs: ['10.244.0.0/16'] } },
  server: 'https://10.0.0.1:6443',
};
/** iptables refuses whoever is not root, takes the node's lock, and needs a raw socket in its legacy flavour. */
const iptables = {
  context: { capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] } },
  hostPaths: ['/run/xtables.lock', '/lib/modules'],
};
const nftables = {
  context: {
    ...{ runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532 },
    capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] },
  },
  hostPaths: [],
};
const expected: Readonly<Record<string, Expected>> = {
  k3s: { ...k3s, config: { ...k3s.config, mode: 'iptables' }, grants: iptables, init: true },
  'k3s-nftables': { ...k3s, config: { ...k3s.config, mode: 'nftables' }, grants: nftables, init: false },
  kubeadm: { ...kubeadm, config: { ...kubeadm.config, mode: 'iptables' }, grants: iptables, init: true },
  'kubeadm-nftables': { ...kubeadm, config: { ...kubeadm.config, mode: 'nftables' }, grants: nftables, init: true },
};

/** Nothing beside these may be granted. */
const everywhere = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  seccompProfile: { type: 'RuntimeDefault' },
};

t.same(allOverlays(), Object.keys(expected), 'every overlay is looked at');
for (const [overlay, want] of Object.entries(expected)) {
  t.test(`overlay ${overlay}`, async (t) => {
    const text = readFileSync(generatedPath(overlay), 'utf8');
    t.equal(text, buildOverlay(overlay), 'the plain file is what kustomize makes: run `npm run deploy`');
    const objects = objectsOf(text);
    for (const object of objects) t.same(await schemaErrors(object), [], `${object.kind} is as the API has it`);

    const { spec } = theOne<k8s.V1DaemonSet>(objects, 'DaemonSet');
    const pod = spec?.template.spec;
    const [main, ...others] = pod?.containers ?? [];
    const before = pod?.initContainers ?? [];
    if (main === undefined || others.length > 0) throw new Error('Cannot find one container');
    t.equal(before.length, want.init ? 1 : 0);
    t.match(pod, {
      hostNetwork: true,
      priorityClassName: 'system-node-critical',
      tolerations: [{ operator: 'Exists' }],
    });
    t.equal(main.image, `switchyard:${version()}`, 'the image of this version');

    const source = pod?.volumes?.find((v) => v.name === 'config')?.configMap?.name;
    const configMap = objects.filter(isKind<k8s.V1ConfigMap>('ConfigMap')).find((o) => o.metadata?.name === source);
    const files = source === 'kube-proxy' ? kubeadmConfigMap(want.config.mode) : configMap?.data;
    if (files === undefined) throw new Error(`Cannot find the ConfigMap ${source}`);
    const config = await configOf(main, files);
    t.match(config, { ...want.config, hostnameOverride: 'node-a', initOnly: false });
    for (const init of before) {
      t.same(
        await configOf(init, files),
        { ...config, initOnly: true },
        'init container and main one are told the same',
      );
      t.equal(init.image, main.image);
      t.same(init.securityContext, { privileged: true, readOnlyRootFilesystem: true });
    }
    for (const { args, volumeMounts } of [main, ...before]) {
      t.ok(args?.some((arg) => arg === `--config=${CONFIG_DIR}/config.conf`));
      t.ok(
        volumeMounts?.some((m) => m.name === 'config' && m.mountPath === CONFIG_DIR),
        'the file is there',
      );
    }

    const bound = splitHostPort(config.healthzBindAddress);
    const host = bound?.host === '0.0.0.0' ? undefined : bound?.host;
    t.match(main.ports, [{ name: 'healthz', containerPort: Number(bound?.port) }]);
    for (const [probe, path] of [
      [main.startupProbe, '/livez'],
      [main.livenessProbe, '/livez'],
      [main.readinessProbe, '/healthz'],
    ] as const) {
      t.same([probe?.httpGet?.path, probe?.httpGet?.port], [path, 'healthz']);
      t.equal(probe?.httpGet?.host, host, `${path} is asked where it listens`);
    }

    for (const { env } of [main, ...before]) {
      const values = Object.fromEntries((env ?? []).map((e) => [e.name, e.value]));
      const { kubeconfig } = config.clientConnection;
      const cluster =
        kubeconfig === ''
          ? inCluster(values)
          : await parseKubeconfig(files[kubeconfig.replace(`${CONFIG_DIR}/`, '')] ?? '', kubeconfig);
      t.same(cluster.servers, [want.server], 'needs no Service to find the API server');
      t.match(cluster.auth, { kind: 'token', token: { path: `${ACCOUNT_DIR}/token` } });
    }

    t.same(main.securityContext, { ...everywhere, ...want.grants.context });
    const shared = pod?.volumes?.flatMap((v) => (v.hostPath ? [v.hostPath.path] : []));
    t.same(shared, want.grants.hostPaths, 'what the node shares');
    const mounted = main.volumeMounts?.some((m) => m.mountPath === '/run/xtables.lock');
    t.equal(mounted, want.grants.hostPaths.includes('/run/xtables.lock'), 'the lock is the one of the node');
  });
}

const wrong: readonly { name: string; change: (pod: k8s.V1PodSpec) => object; says: string }[] = [
  {
    name: 'a misspelt field',
    change: (pod) => ({ ...pod, hostNetwrk: true }),
    says: '/spec/template/spec/hostNetwrk: no field of V1PodSpec',
  },
  {
    name: 'a misspelt field deep in a list',
    change: ({ containers: [main, ...others], ...pod }) => ({
      ...pod,
      containers: [{ ...main, securityContext: { ...main?.securityContext, readonlyRootFilesystem: true } }, ...others],
    }),
    says: '/spec/template/spec/containers/0/securityContext/readonlyRootFilesystem: no field of V1SecurityContext',
  },
  {
    name: 'another type',
    change: (pod) => ({ ...pod, hostNetwork: 'true' }),
    says: '/spec/template/spec/hostNetwork: type {"type":"boolean"}',
  },
  {
    name: 'nothing where something must be',
    change: ({ containers: _, ...pod }) => pod,
    says: '/spec/template/spec: required {"missingProperty":"containers"}',
  },
];

t.test('the schema of the API finds', async (t) => {
  for (const { name, change, says } of wrong) {
    const objects = objectsOf(readFileSync(generatedPath('k3s'), 'utf8'));
    const { spec, ...daemonSet } = theOne<k8s.V1DaemonSet>(objects, 'DaemonSet');
    const pod = spec?.template.spec;
    if (pod === undefined) throw new Error('Cannot find the pod');
    const template = { ...spec?.template, spec: change(pod) };
    t.same(await schemaErrors(Object.assign(daemonSet, { spec: { ...spec, template } })), [says], name);
  }
});

/** Everything the daemon asks of the API server, as `group/resource verb`. */
async function requests(): Promise<readonly string[]> {
  const resourceOf = (path: string) => {
    const [, group = '', rest = ''] = /^\/(?:api|apis\/([^/]+))\/v1\/(.+)$/.exec(path) ?? [];
    return `${group}/${rest.replace(/^namespaces\/[^/]+\//, '').split('/')[0]}`;
  };
  const asked = proxyKinds('node-a').flatMap(({ path }) => [`${resourceOf(path)} list`, `${resourceOf(path)} watch`]);
  const call = (verb: string) => async (path: string) => void asked.push(`${resourceOf(path)} ${verb}`);
  const api = { post: call('create'), patch: call('patch'), isFinal: () => true };
  const events = new Events(
    { hostname: 'h', random: () => 0 },
    { api, clock: new FakeClock(), log: pino({ level: 'silent' }) },
  );
  const stop = new AbortController();
  const running = events.run(stop.signal);
  for (const regarding of [
    nodeReference('node-a'),
    { apiVersion: 'v1', kind: 'Service', namespace: 'ns', name: 'a' },
  ]) {
    const event = { regarding, type: 'Normal', reason: 'R', action: 'A', note: '' } as const;
    // The second of two equal events counts the first one up.
    events.record(event);
    events.record(event);
  }
  for (let turns = 0; turns < 100; turns++) await Promise.resolve();
  stop.abort();
  await running;
  return [...new Set(asked)].sort();
}

t.test('the role allows what is asked, and no more', async (t) => {
  const objects = objectsOf(read('base/rbac.yaml'));
  const role = theOne<k8s.V1ClusterRole>(objects, 'ClusterRole');
  const allowed = (role.rules ?? []).flatMap(({ apiGroups = [], resources = [], verbs }) =>
    apiGroups.flatMap((g) => resources.flatMap((r) => verbs.map((v) => `${g}/${r} ${v}`))),
  );
  t.same(allowed.sort(), await requests());
  const account = theOne<k8s.V1ServiceAccount>(objects, 'ServiceAccount').metadata?.name;
  const binding = theOne<k8s.V1ClusterRoleBinding>(objects, 'ClusterRoleBinding');
  t.match(binding, { roleRef: { name: role.metadata?.name }, subjects: [{ kind: 'ServiceAccount', name: account }] });
});

t.test('alerts speak of metrics that there are', async (t) => {
  const rules: { groups: { rules: { alert: string; expr: string }[] }[] } = parse(read('prometheus/alerts.yaml'));
  const { registry } = createMetrics({ version: version(), requests: () => [], features: [], processMetrics: false });
  const scrape: { scrape_configs: { job_name: string }[] } = parse(read('prometheus/scrape.yaml'));
  for (const { alert, expr } of rules.groups.flatMap((g) => g.rules)) {
    const names = expr.match(/\b(?:kubeproxy|switchyard)_\w+/g) ?? [];
    const unknown = names.filter((name) => registry.getSingleMetric(name.replace(/_bucket$/, '')) === undefined);
    t.same(unknown, [], alert);
    const job = /job="([^"]+)"/.exec(expr)?.[1];
    if (job !== undefined)
      t.ok(
        scrape.scrape_configs.some((s) => s.job_name === job),
        `${alert}: job ${job}`,
      );
    else t.not(names.length, 0, `${alert} names a metric`);
  }
});

t.test('the image takes what it may, and that is there', async (t) => {
  const admitted = read('Dockerfile.dockerignore')
    .split('\n')
    .filter((line) => line.startsWith('!'))
    .map((line) => line.slice(1));
  const copied = [...read('Dockerfile').matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, names = '']) =>
    names.split(' '),
  );
  t.same([...new Set(copied)].sort(), admitted.sort());
  for (const name of admitted)
    t.ok(existsSync(fileURLToPath(new URL(`../${name}`, import.meta.url))), `${name} is in the repository`);
});
