/** File, flags, defaults, validation and writing, as far as `loadConfig` joins them. */
import t from 'tap';
import { API_VERSION, KIND } from '../../src/config/decode.ts';
import { FEATURE_GATES, featureStates, isFeatureEnabled } from '../../src/config/feature-gates.ts';
import type { FlagValues } from '../../src/config/flags.ts';
import { type LoadedConfig, loadConfig } from '../../src/config/load.ts';
import { type Config, ConfigError } from '../../src/config/types.ts';
import { formatConfigYaml, toKubeProxyConfiguration } from '../../src/config/write.ts';

const BASE_URL = 'must be a URL such as https://10.0.0.1:6443, without user, query and fragment';
const HEAD = `apiVersion: ${API_VERSION}\nkind: ${KIND}\n`;

/** Loads a file with this content (undefined: no file) beside these flags. */
function load(content: string | undefined, flags: FlagValues = {}): Promise<LoadedConfig> {
  const given = content === undefined ? flags : { ...flags, config: 'f' };
  return loadConfig(given, { readFile: async () => content ?? '' });
}

async function configOf(content: string | undefined, flags: FlagValues = {}): Promise<Config> {
  return (await load(content, flags)).config;
}

/** The problems that loading finds, or [] if it finds none. */
async function problemsOf(content: string | undefined, flags: FlagValues = {}): Promise<readonly string[]> {
  try {
    await load(content, flags);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

const FULL = `${HEAD}
featureGates: {AllowServiceExternalIPs: false}
clientConnection: {kubeconfig: /k, acceptContentTypes: a, contentType: application/json, qps: 7.5, burst: 12}
logging:
  format: json
  flushFrequency: 1s
  verbosity: 3
  options: {text: {splitStream: true, infoBufferSize: 64Ki}, json: {infoBufferSize: "1M"}}
hostnameOverride: " Foo "
bindAddress: 192.168.59.103
healthzBindAddress: 192.168.59.103:12345
metricsBindAddress: 192.168.59.103
bindAddressHardFail: true
enableProfiling: true
showHiddenMetricsForVersion: "1.35"
mode: MODE
iptables: {masqueradeBit: 17, masqueradeAll: true, localhostNodePorts: false, syncPeriod: 61s, minSyncPeriod: 11s}
ipvs:
  {syncPeriod: 62s, minSyncPeriod: 12s, scheduler: lc, excludeCIDRs: [10.20.30.40/16, "fd00:1::0/64"], strictARP: true,
   tcpTimeout: 1m, tcpFinTimeout: 2m, udpTimeout: 3m}
nftables: {masqueradeBit: 18, layout: maps, masqueradeAll: false, syncPeriod: 63s, minSyncPeriod: 13s}
winkernel: {networkName: net, sourceVip: s, enableDSR: true, rootHnsEndpointName: r, forwardHealthCheckVip: true}
windowsRunAsService: true
portRange: 1-2
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cbr0, interfaceNamePrefix: veth}
clusterCIDR: 10.0.0.0/8,fd00:2::/64
nodePortAddresses: [10.20.30.40/16]
oomScoreAdj: 17
conntrack:
  {maxPerCore: 2, min: 1, tcpEstablishedTimeout: 20s, tcpCloseWaitTimeout: 10s, tcpBeLiberal: true, udpTimeout: 5s,
   udpStreamTimeout: 6s}
configSyncPeriod: 15s
`;

/** What `FULL` says, whatever the mode. */
const FULL_CONFIG: Omit<Config, 'mode' | 'syncPeriodMs' | 'minSyncPeriodMs' | 'masqueradeAll'> = {
  featureGates: { AllowServiceExternalIPs: false },
  clientConnection: { kubeconfig: '/k', acceptContentTypes: 'a', contentType: 'application/json', qps: 7.5, burst: 12 },
  logging: {
    format: 'json',
    flushFrequencyMs: 1000,
    verbosity: 3,
    vmodule: [],
    text: { splitStream: true, infoBufferSize: '64Ki' },
    json: { splitStream: false, infoBufferSize: '1M' },
  },
  hostnameOverride: 'foo',
  bindAddress: '192.168.59.103',
  healthzBindAddress: '192.168.59.103:12345',
  metricsBindAddress: '192.168.59.103:10249',
  bindAddressHardFail: true,
  enableProfiling: true,
  showHiddenMetricsForVersion: '1.35',
  iptables: { masqueradeBit: 17, localhostNodePorts: false },
  nftables: { masqueradeBit: 18, layout: 'maps' },
  ipvs: {
    scheduler: 'lc',
    excludeCIDRs: ['10.20.30.40/16', 'fd00:1::0/64'],
    strictARP: true,
    tcpTimeoutMs: 60_000,
    tcpFinTimeoutMs: 120_000,
    udpTimeoutMs: 180_000,
  },
  winkernel: {
    networkName: 'net',
    sourceVip: 's',
    enableDSR: true,
    rootHnsEndpointName: 'r',
    forwardHealthCheckVip: true,
  },
  windowsRunAsService: true,
  portRange: '1-2',
  detectLocalMode: 'BridgeInterface',
  detectLocal: { bridgeInterface: 'cbr0', interfaceNamePrefix: 'veth', clusterCIDRs: ['10.0.0.0/8', 'fd00:2::/64'] },
  nodePortAddresses: ['10.20.30.40/16'],
  oomScoreAdj: 17,
  conntrack: {
    maxPerCore: 2,
    min: 1,
    tcpEstablishedTimeoutMs: 20_000,
    tcpCloseWaitTimeoutMs: 10_000,
    tcpBeLiberal: true,
    udpTimeoutMs: 5000,
    udpStreamTimeoutMs: 6000,
  },
  configSyncPeriodMs: 15_000,
  configFile: 'f',
  apiServers: [],
  manifests: [],
  cleanup: false,
  initOnly: false,
  iptablesFlavour: 'auto',
  logFormat: 'auto',
};

/** The values that come from the section of the mode. */
const sections: readonly { mode: string; want: Partial<Config> }[] = [
  { mode: 'iptables', want: { mode: 'iptables', syncPeriodMs: 61_000, minSyncPeriodMs: 11_000, masqueradeAll: true } },
  { mode: '""', want: { mode: 'iptables', syncPeriodMs: 61_000, minSyncPeriodMs: 11_000, masqueradeAll: true } },
  { mode: 'ipvs', want: { mode: 'ipvs', syncPeriodMs: 62_000, minSyncPeriodMs: 12_000, masqueradeAll: true } },
  { mode: 'nftables', want: { mode: 'nftables', syncPeriodMs: 63_000, minSyncPeriodMs: 13_000, masqueradeAll: false } },
  { mode: 'ebpf', want: { mode: 'ebpf', syncPeriodMs: 61_000, minSyncPeriodMs: 11_000, masqueradeAll: true } },
];

t.test('a file with every field, mode', async (t) => {
  for (const { mode, want } of sections) {
    const yaml = FULL.replace('MODE', mode);
    const { config, warnings } = await load(yaml);
    t.strictSame(config, { ...FULL_CONFIG, ...want }, mode);
    t.same(warnings, [], `${mode}: nothing is ignored`);
    t.strictSame(await configOf(formatConfigYaml(config)), config, `${mode}: written and read again`);
    t.strictSame(await configOf(JSON.stringify(toKubeProxyConfiguration(config))), config, `${mode}: the same in JSON`);
  }
});

t.test('a file that says nothing has the defaults of kube-proxy', async (t) => {
  const config = await configOf(HEAD);
  t.match(config, {
    mode: 'iptables',
    hostnameOverride: '',
    bindAddress: '0.0.0.0',
    healthzBindAddress: '0.0.0.0:10256',
    metricsBindAddress: '127.0.0.1:10249',
    syncPeriodMs: 30_000,
    minSyncPeriodMs: 1000,
    configSyncPeriodMs: 900_000,
    masqueradeAll: false,
    iptables: { masqueradeBit: 14, localhostNodePorts: true },
    nftables: { masqueradeBit: 14, layout: 'chains' },
    detectLocalMode: 'ClusterCIDR',
    oomScoreAdj: -999,
    clientConnection: { qps: 5, burst: 10, contentType: 'application/vnd.kubernetes.protobuf' },
    conntrack: {
      maxPerCore: 32768,
      min: 131072,
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      udpTimeoutMs: 0,
    },
    logging: { format: 'text', flushFrequencyMs: 5000, verbosity: 0 },
  });
  t.strictSame(config.nodePortAddresses, []);
  t.strictSame(config, { ...(await configOf(undefined)), configFile: 'f' }, 'and so have no flags');
  t.strictSame(await configOf(formatConfigYaml(config)), config, 'written and read again');
});

/** What kubeadm writes: everything unset is null, zero or empty. */
const KUBEADM = `${HEAD}bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
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
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
`;

t.test('a file as kubeadm writes it', async (t) => {
  const { config, warnings } = await load(KUBEADM);
  const defaults = await configOf(HEAD);
  t.same(warnings, []);
  t.strictSame(config, {
    ...defaults,
    clientConnection: { ...defaults.clientConnection, kubeconfig: '/var/lib/kube-proxy/kubeconfig.conf' },
    detectLocal: { ...defaults.detectLocal, clusterCIDRs: ['10.244.0.0/16'] },
  });
});

/** Rows: file, flags, what is expected of the configuration. Each is one rule of who wins or what is filled in. */
const combinations: readonly { name: string; file?: string; flags?: FlagValues; want: object }[] = [
  // Server addresses.
  {
    name: 'a bind address of IPv6 moves the servers',
    file: 'bindAddress: "::"',
    want: { healthzBindAddress: '[::]:10256', metricsBindAddress: '[::1]:10249' },
  },
  {
    name: '… but not by flag',
    flags: { 'bind-address': '::' },
    want: { bindAddress: '::', healthzBindAddress: '0.0.0.0:10256', metricsBindAddress: '127.0.0.1:10249' },
  },
  {
    name: 'a port is added in a file',
    file: 'healthzBindAddress: "fd00::1"\nmetricsBindAddress: 1.2.3.4',
    want: { healthzBindAddress: '[fd00::1]:10256', metricsBindAddress: '1.2.3.4:10249' },
  },
  {
    name: 'a port is added to flags',
    flags: { 'healthz-bind-address': '::1', 'metrics-bind-address': '1.2.3.4' },
    want: { healthzBindAddress: '[::1]:10256', metricsBindAddress: '1.2.3.4:10249' },
  },
  {
    name: 'the port flags fill in',
    flags: { 'healthz-bind-address': '::1', 'healthz-port': 1, 'metrics-bind-address': '1.2.3.4', 'metrics-port': 2 },
    want: { healthzBindAddress: '[::1]:1', metricsBindAddress: '1.2.3.4:2' },
  },
  {
    name: 'the port flags do not replace a port',
    flags: { 'healthz-port': 1, 'metrics-port': 2 },
    want: { healthzBindAddress: '0.0.0.0:10256', metricsBindAddress: '127.0.0.1:10249' },
  },
  { name: '--healthz-port=0 switches the server off', flags: { 'healthz-port': 0 }, want: { healthzBindAddress: '' } },
  {
    name: '… but not when the configuration is written',
    flags: { 'healthz-port': 0, 'write-config-to': 'x' },
    want: { healthzBindAddress: '0.0.0.0:10256' },
  },
  {
    name: '… and not beside a file',
    file: '',
    flags: { 'healthz-port': 0, 'metrics-port': 0 },
    want: { healthzBindAddress: '0.0.0.0:10256', metricsBindAddress: '127.0.0.1:10249' },
  },
  {
    name: 'an empty address flag is as if not given',
    flags: { 'bind-address': '', 'healthz-bind-address': '', 'metrics-bind-address': '' },
    want: { bindAddress: '0.0.0.0', healthzBindAddress: '0.0.0.0:10256', metricsBindAddress: '127.0.0.1:10249' },
  },
  // Periods by mode.
  {
    name: 'iptables periods in mode iptables',
    flags: { 'iptables-sync-period': 9000, 'iptables-min-sync-period': 0, 'ipvs-sync-period': 1 },
    want: { syncPeriodMs: 9000, minSyncPeriodMs: 0 },
  },
  {
    name: 'iptables periods in mode nftables',
    flags: { 'proxy-mode': 'nftables', 'iptables-sync-period': 9000, 'ipvs-sync-period': 1 },
    want: { syncPeriodMs: 9000, minSyncPeriodMs: 1000 },
  },
  {
    name: 'iptables periods in mode ebpf',
    flags: { 'proxy-mode': 'ebpf', 'iptables-min-sync-period': 500 },
    want: { syncPeriodMs: 30_000, minSyncPeriodMs: 500 },
  },
  {
    name: 'ipvs periods in mode ipvs',
    flags: { 'proxy-mode': 'ipvs', 'iptables-sync-period': 1, 'ipvs-min-sync-period': 7 },
    want: { syncPeriodMs: 30_000, minSyncPeriodMs: 7 },
  },
  {
    name: 'mode ipvs by flags alone starts from 1 s',
    flags: { 'proxy-mode': 'ipvs' },
    want: { minSyncPeriodMs: 1000 },
  },
  { name: 'mode ipvs by file starts from 0 s', file: 'mode: ipvs', want: { syncPeriodMs: 30_000, minSyncPeriodMs: 0 } },
  {
    name: 'a zero period in a file is none',
    file: 'iptables: {syncPeriod: 0s, minSyncPeriod: 0s}',
    want: { syncPeriodMs: 30_000, minSyncPeriodMs: 1000 },
  },
  // The file replaces flags, but for some.
  {
    name: 'a file replaces flags',
    file: 'clusterCIDR: 10.0.0.0/8',
    flags: { 'cluster-cidr': '11.0.0.0/8', 'proxy-mode': 'ipvs', 'iptables-sync-period': 1, 'masquerade-all': true },
    want: {
      mode: 'iptables',
      detectLocal: { clusterCIDRs: ['10.0.0.0/8'] },
      syncPeriodMs: 30_000,
      masqueradeAll: false,
    },
  },
  {
    name: 'flags that count beside a file',
    file: '',
    flags: {
      master: 'https://a:1, https://b:2',
      cleanup: true,
      'init-only': true,
      'iptables-flavour': 'legacy',
      'log-format': 'json',
    },
    want: {
      apiServers: ['https://a:1', 'https://b:2'],
      cleanup: true,
      initOnly: true,
      iptablesFlavour: 'legacy',
      logFormat: 'json',
    },
  },
  {
    name: 'logging flags beside a file',
    file: 'logging: {verbosity: 1, vmodule: [{filePattern: a, verbosity: 1}]}',
    flags: { v: 4, vmodule: [{ filePattern: 'b', verbosity: 2 }] },
    want: { logging: { verbosity: 4, vmodule: [{ filePattern: 'b' }, { filePattern: 'a' }] } },
  },
  {
    name: 'logging of the file stays where no flag is',
    file: 'logging: {verbosity: 1, format: json}',
    want: { logging: { verbosity: 1, format: 'json' } },
  },
  // Host name.
  { name: 'a name from the file', file: 'hostnameOverride: Node-A', want: { hostnameOverride: 'node-a' } },
  {
    name: 'a name from the flag wins',
    file: 'hostnameOverride: foo',
    flags: { 'hostname-override': '  BAR ' },
    want: { hostnameOverride: 'bar' },
  },
  {
    name: 'an empty flag is none',
    file: 'hostnameOverride: foo',
    flags: { 'hostname-override': '' },
    want: { hostnameOverride: 'foo' },
  },
  // Platform.
  { name: 'nftables without node port addresses', file: 'mode: nftables', want: { nodePortAddresses: ['primary'] } },
  {
    name: 'nftables with node port addresses',
    flags: { 'proxy-mode': 'nftables', 'nodeport-addresses': ['10.0.0.0/8'] },
    want: { nodePortAddresses: ['10.0.0.0/8'] },
  },
  { name: 'other modes without node port addresses', flags: { 'proxy-mode': 'ipvs' }, want: { nodePortAddresses: [] } },
  {
    name: 'a pair of cluster CIDRs',
    flags: { 'cluster-cidr': '10.0.0.0/8,fd00::/8' },
    want: { detectLocal: { clusterCIDRs: ['10.0.0.0/8', 'fd00::/8'] } },
  },
  // How YAML is read.
  {
    name: 'flushFrequency in nanoseconds',
    file: 'logging: {flushFrequency: 2000000000}',
    want: { logging: { flushFrequencyMs: 2000 } },
  },
  {
    name: 'yes and no',
    file: 'bindAddressHardFail: yes\nenableProfiling: no',
    want: { bindAddressHardFail: true, enableProfiling: false },
  },
  { name: 'a text like a time of day', file: 'hostnameOverride: 12:30:45', want: { hostnameOverride: '12:30:45' } },
  { name: 'a text like a date', file: 'hostnameOverride: 2026-01-01', want: { hostnameOverride: '2026-01-01' } },
];

t.test('flags and file:', async (t) => {
  for (const { name, file, flags, want } of combinations) {
    t.match(await configOf(file === undefined ? undefined : HEAD + file, flags), want, name);
  }
});

/** Lenient reading: the file is used, and somebody is told. */
const warned: readonly { name: string; file: string; warning: string }[] = [
  { name: 'an unknown field', file: 'foo: bar', warning: 'f: Ignoring unknown field "foo"' },
  {
    name: 'an unknown field below another',
    file: 'iptables: {sync: 1}',
    warning: 'f: Ignoring unknown field "iptables.sync"',
  },
  {
    name: 'a wrong case',
    file: 'BindAddress: 1.2.3.4',
    warning: 'f: Ignoring unknown field "BindAddress", did you mean "bindAddress"?',
  },
  {
    name: 'a field given twice',
    file: 'bindAddress: 1.2.3.4\nbindAddress: 0.0.0.0',
    warning: 'f: Using the last value of a field given twice: Map keys must be unique at line 4, column 1',
  },
];

t.test('loading warns of', async (t) => {
  for (const { name, file, warning } of warned) {
    const { config, warnings } = await load(HEAD + file);
    t.same(warnings, [warning], name);
    t.strictSame(config, await configOf(HEAD), `${name}: the rest is used`);
  }
  const { warnings } = await load(HEAD, { 'cluster-cidr': 'x', v: 2, 'masquerade-all': false });
  t.same(warnings, ['Ignoring --masquerade-all, --cluster-cidr: --config replaces them'], 'flags without effect');
});

const undecodable: readonly { name: string; content: string; problem: RegExp }[] = [
  { name: 'YAML that is none', content: `${HEAD}a: [`, problem: /^f: Cannot parse as YAML or JSON: / },
  {
    name: 'an unquoted ::',
    content: `${HEAD}bindAddress: ::\nmode: iptables`,
    problem: /^f: Cannot parse as YAML or JSON: Nested mappings .* line 3/,
  },
  {
    name: 'another kind',
    content: `apiVersion: ${API_VERSION}\nkind: KubeletConfiguration`,
    problem: /^f: Cannot use kind "KubeletConfiguration": must be "KubeProxyConfiguration"$/,
  },
  {
    name: 'another version',
    content: `apiVersion: kubeproxy.config.k8s.io/v1\nkind: ${KIND}`,
    problem: /^f: Cannot use apiVersion "kubeproxy.config.k8s.io\/v1": must be "kubeproxy.config.k8s.io\/v1alpha1"$/,
  },
  { name: 'no kind', content: 'mode: iptables', problem: /apiVersion "": must be/ },
  { name: 'nothing', content: '', problem: /apiVersion "": must be/ },
  { name: 'a list', content: '- a', problem: /^f: Cannot use the document \["a"\]: must be an object$/ },
  { name: 'a text', content: 'hello', problem: /must be an object/ },
  { name: 'two documents', content: `${HEAD}---\n${HEAD}`, problem: /multiple documents/ },
  {
    name: 'a number for a text',
    content: `${HEAD}showHiddenMetricsForVersion: 1.35`,
    problem: /^f: Cannot use showHiddenMetricsForVersion 1.35: must be a string \(put it in quotes\)$/,
  },
  {
    name: 'a text for a number',
    content: `${HEAD}oomScoreAdj: "1"`,
    problem: /oomScoreAdj "1": must be a whole number/,
  },
  {
    name: 'a fraction',
    content: `${HEAD}iptables: {masqueradeBit: 1.5}`,
    problem: /iptables.masqueradeBit 1.5: must be a whole number of 32 bits/,
  },
  {
    name: 'a number of 33 bits',
    content: `${HEAD}conntrack: {min: 4294967296}`,
    problem: /conntrack.min 4294967296: must be a whole number of 32 bits/,
  },
  {
    name: 'a number for a duration',
    content: `${HEAD}configSyncPeriod: 30`,
    problem: /configSyncPeriod 30: must be a duration/,
  },
  {
    name: 'a duration without its unit',
    content: `${HEAD}ipvs: {udpTimeout: "30"}`,
    problem: /ipvs.udpTimeout "30": must be a duration/,
  },
  {
    name: 'a text for true or false',
    content: `${HEAD}enableProfiling: "true"`,
    problem: /enableProfiling "true": must be true or false/,
  },
  {
    name: 'a text for a list',
    content: `${HEAD}nodePortAddresses: 10.0.0.0/8`,
    problem: /nodePortAddresses "10.0.0.0\/8": must be a list/,
  },
  {
    name: 'a number in a list',
    content: `${HEAD}nodePortAddresses: [a, 1]`,
    problem: /nodePortAddresses\[1\] 1: must be a string/,
  },
  { name: 'a list for an object', content: `${HEAD}iptables: []`, problem: /iptables \[\]: must be an object/ },
  {
    name: 'a text for a gate',
    content: `${HEAD}featureGates: {A: "yes"}`,
    problem: /featureGates.A "yes": must be true or false/,
  },
  {
    name: 'a quantity that is none',
    content: `${HEAD}logging: {options: {text: {infoBufferSize: big}}}`,
    problem: /infoBufferSize "big": must be a quantity/,
  },
  {
    name: 'a text for qps',
    content: `${HEAD}clientConnection: {qps: fast}`,
    problem: /clientConnection.qps "fast": must be a number/,
  },
];

t.test('loading refuses', async (t) => {
  for (const { name, content, problem } of undecodable) {
    const problems = await problemsOf(content);
    t.match(problems[0], problem, name);
  }
  t.equal(
    (await problemsOf(`${HEAD}oomScoreAdj: a\nmode: 1\niptables: {masqueradeBit: b}`)).length,
    3,
    'every wrong type',
  );
  const unreadable = { readFile: () => Promise.reject(new Error('ENOENT: no such file')) };
  await t.rejects(loadConfig({ config: '/no/such' }, unreadable), {
    name: 'ConfigError',
    message: 'Cannot read the configuration file "/no/such": ENOENT: no such file',
  });
});

/**
 * Validation, rule by rule: a file that holds, one that does not, and the problem by its field; then the same by flag
 * where there is one.
 */
const rules: readonly { good?: string; bad: string; problem: string; flags?: FlagValues; flagProblem?: string }[] = [
  {
    good: 'mode: ipvs',
    bad: 'mode: userspace',
    problem: 'Cannot use mode "userspace": must be one of iptables, nftables, ipvs, ebpf',
    flags: { 'proxy-mode': 'IPVS' },
    flagProblem: 'Cannot use --proxy-mode "IPVS": must be one of',
  },
  {
    good: 'iptables: {masqueradeBit: 31}',
    bad: 'iptables: {masqueradeBit: 32}',
    problem: 'Cannot use iptables.masqueradeBit "32": must be in 0..31',
    flags: { 'iptables-masquerade-bit': -1 },
    flagProblem: 'Cannot use --iptables-masquerade-bit "-1"',
  },
  {
    good: 'iptables: {masqueradeBit: 0}',
    bad: 'mode: nftables\niptables: {masqueradeBit: -1}',
    problem: 'Cannot use iptables.masqueradeBit "-1"',
  },
  {
    good: 'mode: iptables\nnftables: {masqueradeBit: 32}',
    bad: 'mode: nftables\nnftables: {masqueradeBit: 32}',
    problem: 'Cannot use nftables.masqueradeBit "32": must be in 0..31',
  },
  {
    good: 'nftables: {layout: maps}',
    bad: 'nftables: {layout: sets}',
    problem: 'Cannot use nftables.layout "sets": must be one of chains, maps',
  },
  {
    good: 'mode: iptables\nipvs: {tcpTimeout: -1s}',
    bad: 'mode: ipvs\nipvs: {tcpTimeout: -1s}',
    problem: 'Cannot use ipvs.tcpTimeout "-1s": must be 0 or more',
    flags: { 'proxy-mode': 'ipvs', 'ipvs-tcp-timeout': -1 },
    flagProblem: 'Cannot use --ipvs-tcp-timeout "-1ms"',
  },
  {
    good: 'mode: ipvs\nipvs: {tcpFinTimeout: 0s}',
    bad: 'mode: ipvs\nipvs: {tcpFinTimeout: -1s}',
    problem: 'Cannot use ipvs.tcpFinTimeout "-1s"',
  },
  {
    good: 'mode: ipvs\nipvs: {udpTimeout: 1s}',
    bad: 'mode: ipvs\nipvs: {udpTimeout: -1s}',
    problem: 'Cannot use ipvs.udpTimeout "-1s"',
  },
  {
    good: 'mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.1/008]}',
    bad: 'mode: ipvs\nipvs: {excludeCIDRs: [10.0.0.0/8, 10.0.0.1]}',
    problem: 'Cannot use ipvs.excludeCIDRs[1] "10.0.0.1": must be a CIDR',
    flags: { 'proxy-mode': 'ipvs', 'ipvs-exclude-cidrs': ['a'] },
    flagProblem: 'Cannot use --ipvs-exclude-cidrs "a"',
  },
  {
    good: 'mode: iptables\nipvs: {excludeCIDRs: [a]}',
    bad: 'mode: ipvs\nipvs: {excludeCIDRs: [""]}',
    problem: 'Cannot use ipvs.excludeCIDRs[0]: must be a CIDR',
  },
  {
    good: 'conntrack: {maxPerCore: 0}',
    bad: 'conntrack: {maxPerCore: -1}',
    problem: 'Cannot use conntrack.maxPerCore "-1": must be 0 or more',
    flags: { 'conntrack-max-per-core': -1 },
    flagProblem: 'Cannot use --conntrack-max-per-core',
  },
  { good: 'conntrack: {min: 0}', bad: 'conntrack: {min: -1}', problem: 'Cannot use conntrack.min "-1"' },
  {
    good: 'conntrack: {tcpEstablishedTimeout: 0s}',
    bad: 'conntrack: {tcpEstablishedTimeout: -5s}',
    problem: 'Cannot use conntrack.tcpEstablishedTimeout "-5s": must be 0 or more',
    flags: { 'conntrack-tcp-timeout-established': -1 },
    flagProblem: 'Cannot use --conntrack-tcp-timeout-established',
  },
  {
    good: 'conntrack: {tcpCloseWaitTimeout: 0s}',
    bad: 'conntrack: {tcpCloseWaitTimeout: -5s}',
    problem: 'Cannot use conntrack.tcpCloseWaitTimeout "-5s"',
  },
  {
    good: 'conntrack: {udpTimeout: 1s}',
    bad: 'conntrack: {udpTimeout: -5s}',
    problem: 'Cannot use conntrack.udpTimeout "-5s"',
  },
  {
    good: 'conntrack: {udpStreamTimeout: 1s}',
    bad: 'conntrack: {udpStreamTimeout: -5s}',
    problem: 'Cannot use conntrack.udpStreamTimeout "-5s"',
  },
  {
    good: 'oomScoreAdj: 1000',
    bad: 'oomScoreAdj: 1001',
    problem: 'Cannot use oomScoreAdj "1001": must be in -1000..1000',
    flags: { 'oom-score-adj': -1001 },
    flagProblem: 'Cannot use --oom-score-adj "-1001"',
  },
  {
    good: 'clientConnection: {burst: 1}',
    bad: 'clientConnection: {burst: -1}',
    problem: 'Cannot use clientConnection.burst "-1": must be 0 or more',
    flags: { 'kube-api-burst': -1 },
    flagProblem: 'Cannot use --kube-api-burst "-1"',
  },
  {
    good: 'configSyncPeriod: 1ns',
    bad: 'configSyncPeriod: -1s',
    problem: 'Cannot use configSyncPeriod "-1s": must be more than 0',
    flags: { 'config-sync-period': 0 },
    flagProblem: 'Cannot use --config-sync-period "0s"',
  },
  {
    good: 'iptables: {syncPeriod: 1s}',
    bad: 'iptables: {syncPeriod: -1s, minSyncPeriod: -1s}',
    problem: 'Cannot use iptables.syncPeriod "-1s": must be more than 0',
    flags: { 'iptables-sync-period': 0, 'iptables-min-sync-period': 0 },
    flagProblem: 'Cannot use --iptables-sync-period "0s": must be more than 0',
  },
  {
    good: 'mode: ipvs\nipvs: {minSyncPeriod: 0s}',
    bad: 'mode: ipvs\nipvs: {minSyncPeriod: -1s}',
    problem: 'Cannot use ipvs.minSyncPeriod "-1s": must be 0 or more',
    flags: { 'proxy-mode': 'ipvs', 'ipvs-min-sync-period': -1 },
    flagProblem: 'Cannot use --ipvs-min-sync-period "-1ms"',
  },
  {
    good: 'iptables: {syncPeriod: 5s, minSyncPeriod: 5s}',
    bad: 'iptables: {syncPeriod: 5s, minSyncPeriod: 6s}',
    problem: 'Cannot use iptables.minSyncPeriod "6s": must not be longer than the sync period, which is 5s',
    flags: { 'proxy-mode': 'nftables', 'iptables-min-sync-period': 31_000 },
    flagProblem: 'Cannot use --iptables-min-sync-period "31s": must not be longer than the sync period, which is 30s',
  },
  {
    good: 'mode: nftables\nnftables: {minSyncPeriod: 2s}',
    bad: 'mode: nftables\nnftables: {minSyncPeriod: 31s}',
    problem: 'Cannot use nftables.minSyncPeriod "31s"',
  },
  {
    good: 'bindAddress: "fd00::1"',
    bad: 'bindAddress: node',
    problem: 'Cannot use bindAddress "node": must be an IP address',
  },
  {
    good: 'healthzBindAddress: "[::1]:65535"',
    bad: 'healthzBindAddress: 1.2.3.4:65536',
    problem: 'Cannot use healthzBindAddress "1.2.3.4:65536": must be ip:port with a port in 1..65535',
    flags: { 'healthz-bind-address': '1.2.3.4:0' },
    flagProblem: 'Cannot use --healthz-bind-address "1.2.3.4:0"',
  },
  {
    good: 'healthzBindAddress: 010.0.0.1:1',
    bad: 'healthzBindAddress: localhost:10256',
    problem: 'Cannot use healthzBindAddress "localhost:10256"',
  },
  {
    good: 'metricsBindAddress: 1.2.3.4:1',
    bad: 'metricsBindAddress: 1.2.3.4:0',
    problem: 'Cannot use metricsBindAddress "1.2.3.4:0": must be ip:port',
    flags: { 'metrics-port': 0 },
    flagProblem: 'Cannot use --metrics-bind-address: must be ip:port',
  },
  {
    good: 'nodePortAddresses: [10.0.0.0/8, 10.0.0.0/8, "::/0"]',
    bad: 'nodePortAddresses: [10.0.0.0/8, 1.2.3.4]',
    problem: 'Cannot use nodePortAddresses[1] "1.2.3.4": must be a CIDR such as 192.168.1.0/24, or primary alone',
    flags: { 'nodeport-addresses': ['x'] },
    flagProblem: 'Cannot use --nodeport-addresses "x"',
  },
  {
    good: 'nodePortAddresses: [primary]',
    bad: 'nodePortAddresses: [primary, 10.0.0.0/8]',
    problem: 'Cannot use nodePortAddresses[0] "primary": must stand alone',
  },
  {
    good: 'showHiddenMetricsForVersion: "1.35"',
    bad: 'showHiddenMetricsForVersion: "1.34"',
    problem: 'Cannot use showHiddenMetricsForVersion "1.34": must be "1.35" or empty',
    flags: { 'show-hidden-metrics-for-version': '1.36' },
    flagProblem: 'Cannot use --show-hidden-metrics-for-version "1.36"',
  },
  {
    good: 'detectLocalMode: NodeCIDR',
    bad: 'detectLocalMode: nodecidr',
    problem:
      'Cannot use detectLocalMode "nodecidr": must be one of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix',
    flags: { 'detect-local-mode': 'x' },
    flagProblem: 'Cannot use --detect-local-mode "x"',
  },
  {
    good: 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: 0abc}',
    bad: 'detectLocalMode: BridgeInterface',
    problem: 'Cannot use detectLocal.bridgeInterface: must be 1 to 15 printable characters',
    flags: { 'detect-local-mode': 'BridgeInterface' },
    flagProblem: 'Cannot use --pod-bridge-interface: must',
  },
  {
    good: 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: "br.10-a_b@"}',
    bad: 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: sixteen-letters.}',
    problem: 'Cannot use detectLocal.bridgeInterface "sixteen-letters."',
  },
  {
    bad: 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: "cbr0 -j ACCEPT"}',
    problem: 'Cannot use detectLocal.bridgeInterface "cbr0 -j ACCEPT"',
  },
  {
    bad: 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: "a\\nb"}',
    problem: 'Cannot use detectLocal.bridgeInterface "a\nb"',
  },
  {
    bad: 'detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: "-j"}',
    problem: 'Cannot use detectLocal.bridgeInterface "-j"',
  },
  {
    good: 'detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: fourteen.chars}',
    bad: 'detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: fifteen..chars.}',
    problem: 'Cannot use detectLocal.interfaceNamePrefix "fifteen..chars.": must be 1 to 14 printable characters',
  },
  {
    good: 'detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}',
    bad: 'detectLocalMode: InterfaceNamePrefix',
    problem: 'Cannot use detectLocal.interfaceNamePrefix: must be',
    flags: { 'detect-local-mode': 'InterfaceNamePrefix', 'pod-interface-name-prefix': 'a"b' },
    flagProblem: 'Cannot use --pod-interface-name-prefix "a"b"',
  },
  {
    good: 'clusterCIDR: "fd00::/8,10.0.0.0/8"',
    bad: 'clusterCIDR: 10.0.0.0/8,11.0.0.0/8',
    problem: 'Cannot use clusterCIDR "10.0.0.0/8,11.0.0.0/8": must be one CIDR, or one IPv4 and one IPv6 CIDR',
    flags: { 'cluster-cidr': '10.0.0.0' },
    flagProblem: 'Cannot use --cluster-cidr "10.0.0.0"',
  },
  {
    good: 'clusterCIDR: 010.0.0.0/008',
    bad: 'clusterCIDR: 10.0.0.0/8, fd00::/8',
    problem: 'Cannot use clusterCIDR "10.0.0.0/8, fd00::/8"',
  },
  {
    good: 'detectLocalMode: NodeCIDR\nclusterCIDR: nonsense',
    bad: 'clusterCIDR: 10.0.0.0/8,fd00::/8,fd01::/8',
    problem: 'Cannot use clusterCIDR',
  },
  {
    good: 'featureGates: {AllowServiceExternalIPs: false, AllAlpha: true}',
    bad: 'featureGates: {Nonsense: true}',
    problem: 'Cannot use featureGates: unknown gate "Nonsense", must be one of AllAlpha',
    flags: { 'feature-gates': { Nonsense: true } },
    flagProblem: 'Cannot use --feature-gates: unknown gate',
  },
  {
    good: 'featureGates: {NFTablesProxyMode: true}',
    bad: 'featureGates: {NFTablesProxyMode: false}',
    problem: 'Cannot use featureGates: "NFTablesProxyMode" must be true: it is locked',
  },
  {
    good: 'logging: {format: json}',
    bad: 'logging: {format: xml}',
    problem: 'Cannot use logging.format "xml": must be text or json',
    flags: { 'logging-format': 'xml' },
    flagProblem: 'Cannot use --logging-format "xml"',
  },
  {
    good: 'logging: {flushFrequency: 1s}',
    bad: 'logging: {flushFrequency: -1s}',
    problem: 'Cannot use logging.flushFrequency "-1s": must be 0 or more',
  },
  {
    good: 'logging: {verbosity: 9}',
    bad: 'logging: {verbosity: -1}',
    problem: 'Cannot use logging.verbosity "-1": must be 0 or more',
    flags: { v: -1 },
    flagProblem: 'Cannot use --v "-1"',
  },
  {
    good: 'logging: {vmodule: [{filePattern: "a*", verbosity: 3}]}',
    bad: 'logging: {vmodule: [{filePattern: "a=b", verbosity: 3}]}',
    problem: 'Cannot use logging.vmodule[0] "a=b=3": must have a file pattern',
  },
  {
    bad: 'logging: {format: json, vmodule: [{filePattern: a, verbosity: 3}]}',
    problem: 'Cannot use logging.vmodule: must be empty unless the logging format is text',
  },
  {
    good: 'hostnameOverride: "a"',
    bad: 'hostnameOverride: "  "',
    problem: 'Cannot use hostnameOverride "  ": must not be blank',
    flags: { 'hostname-override': ' ' },
    flagProblem: 'Cannot use --hostname-override " ": must not be blank',
  },
];

t.test('validation:', async (t) => {
  for (const { good, bad, problem, flags, flagProblem } of rules) {
    if (good !== undefined) t.same(await problemsOf(HEAD + good), [], `${JSON.stringify(good)} holds`);
    const problems = await problemsOf(HEAD + bad);
    t.ok(problems[0]?.startsWith(problem), `${JSON.stringify(bad)}: ${problems[0]}`);
    if (flags === undefined) continue;
    const byFlag = await problemsOf(undefined, flags);
    t.ok(byFlag[0]?.startsWith(flagProblem ?? '?'), `${JSON.stringify(flags)}: ${byFlag[0]}`);
  }
  const ours: readonly (readonly [flags: FlagValues, problem: string])[] = [
    [{ 'iptables-flavour': 'x' }, 'Cannot use --iptables-flavour "x": must be one of auto, nft, legacy'],
    [{ 'log-format': 'x' }, 'Cannot use --log-format "x": must be one of auto, json, pretty'],
    [{ master: 'https://a, ftp://b' }, `Cannot use --master "ftp://b": ${BASE_URL}`],
    [{ master: 'https://me:secret@a' }, `Cannot use --master "https://me:secret@a": ${BASE_URL}`],
    [{ master: 'file:///a' }, `Cannot use --master "file:///a": ${BASE_URL}`],
  ];
  for (const [flags, problem] of ours) t.same(await problemsOf(HEAD, flags), [problem], problem);
  const several = await problemsOf(`${HEAD}mode: x\noomScoreAdj: 2000\nclusterCIDR: c\nbindAddress: z`);
  t.equal(several.length, 4, 'every problem is found');
});

t.test('isFeatureEnabled()', async (t) => {
  t.equal(isFeatureEnabled({}, 'AllowServiceExternalIPs'), true, 'the default');
  t.equal(isFeatureEnabled({ AllowServiceExternalIPs: false }, 'AllowServiceExternalIPs'), false, 'as given');
  t.equal(isFeatureEnabled({ AllAlpha: true }, 'NativeHistograms'), true, 'by AllAlpha');
  t.equal(
    isFeatureEnabled({ AllAlpha: true, NativeHistograms: false }, 'NativeHistograms'),
    false,
    'itself before AllAlpha',
  );
  t.equal(isFeatureEnabled({ AllBeta: false }, 'ComponentFlagz'), false, 'by AllBeta');
  t.equal(isFeatureEnabled({ AllBeta: false }, 'AllowServiceExternalIPs'), true, 'AllBeta does not touch GA');
  t.throws(() => isFeatureEnabled({}, 'Nonsense'), { name: 'TypeError' }, 'an unknown gate');
  t.equal(new Set(FEATURE_GATES.map((g) => g.name)).size, FEATURE_GATES.length, 'names are distinct');
  const states = featureStates({ AllowServiceExternalIPs: false });
  t.same(
    states.find((s) => s.name === 'AllowServiceExternalIPs'),
    { name: 'AllowServiceExternalIPs', stage: '', enabled: false },
  );
  t.same(
    states.find((s) => s.name === 'NativeHistograms'),
    { name: 'NativeHistograms', stage: 'ALPHA', enabled: false },
  );
});
