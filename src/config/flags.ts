/**
 * Every flag of `switchyard run`: kube-proxy's, and a few of ours. The one table that parsing, help, messages
 * and documentation are made from. Defaults come from the file's table.
 *
 * @module
 */

import { DEFAULT_FILE, HEALTHZ_PORT, METRICS_PORT } from './decode.ts';
import { formatDurationMs } from './durations.ts';
import {
  boolFlag,
  durationFlag,
  type Flag,
  type FlagText,
  gatesFlag,
  intFlag,
  ipFlag,
  ipPortFlag,
  listFlag,
  numberFlag,
  optionalTextFlag,
  textFlag,
  vmoduleFlag,
} from './flag-kinds.ts';
import { DETECT_LOCAL_MODES, IPTABLES_FLAVOURS, LOG_FORMATS, MODES } from './types.ts';

const { iptables, ipvs, conntrack, clientConnection, logging } = DEFAULT_FILE;

/** A time-out of 0 leaves the kernel's value alone. */
const KERNELS = '(0 leaves the kernel alone)';

const unused = (help: string, text?: Partial<FlagText>): FlagText => ({
  help,
  group: 'Accepted without effect:',
  ...text,
});

export const FLAGS = {
  config: textFlag('<file>', {
    group: 'Configuration:',
    help: 'KubeProxyConfiguration (v1alpha1, YAML or JSON). It replaces all flags but those of logging, --hostname-override, --master, --cleanup, --init-only, --write-config-to, --filename and --iptables-flavour',
  }),
  'write-config-to': textFlag('<file>', {
    group: 'Configuration:',
    help: 'Write the effective configuration as YAML and exit',
  }),
  'feature-gates': gatesFlag({ group: 'Configuration:', field: 'featureGates', help: 'Features to switch on or off' }),
  cleanup: boolFlag({ group: 'Configuration:', help: 'Remove all rules of every mode and exit' }),
  'init-only': boolFlag({ group: 'Configuration:', help: 'Do what needs full privileges (sysctls) and exit' }),
  version: optionalTextFlag('<raw>', 'true', { group: 'Configuration:', help: 'Print the version and exit' }),

  kubeconfig: textFlag('<file>', {
    group: 'API server:',
    field: 'clientConnection.kubeconfig',
    help: 'How to reach and log in to the API server; without it and --master, as a pod of the cluster',
  }),
  master: textFlag('<url,...>', {
    group: 'API server:',
    help: "URL of the API server, instead of the kubeconfig's; of several, the next one is tried when one fails",
  }),
  filename: listFlag('<path>', {
    short: 'f',
    group: 'API server:',
    help: 'Manifests in place of an API server: a file, a folder, or - for standard input; may be repeated. Changes are followed',
  }),

  'hostname-override': textFlag('<name>', {
    group: 'Node and addresses:',
    field: 'hostnameOverride',
    help: "Name of the node, instead of the host's",
  }),
  'bind-address': ipFlag({
    group: 'Node and addresses:',
    field: 'bindAddress',
    default: DEFAULT_FILE.bindAddress,
    help: "The node's IP and primary family, if not unspecified; nothing binds to it",
  }),
  'healthz-bind-address': ipPortFlag({
    group: 'Node and addresses:',
    field: 'healthzBindAddress',
    default: DEFAULT_FILE.healthzBindAddress,
    help: 'Where /healthz and /livez are served',
  }),
  'metrics-bind-address': ipPortFlag({
    group: 'Node and addresses:',
    field: 'metricsBindAddress',
    default: DEFAULT_FILE.metricsBindAddress,
    help: 'Where /metrics, /proxyMode, /configz and /debug are served',
  }),
  'healthz-port': intFlag({
    group: 'Node and addresses:',
    default: String(HEALTHZ_PORT),
    help: 'Deprecated: port if --healthz-bind-address has none; 0 switches the server off',
  }),
  'metrics-port': intFlag({
    group: 'Node and addresses:',
    default: String(METRICS_PORT),
    help: 'Deprecated: port if --metrics-bind-address has none',
  }),
  'bind-address-hard-fail': boolFlag({
    group: 'Node and addresses:',
    field: 'bindAddressHardFail',
    default: 'false',
    help: 'End when health or metrics cannot be served',
  }),
  'oom-score-adj': intFlag({
    group: 'Node and addresses:',
    field: 'oomScoreAdj',
    default: String(DEFAULT_FILE.oomScoreAdj),
    help: 'oom_score_adj of this process, -1000..1000',
  }),

  'proxy-mode': textFlag('<mode>', {
    group: 'Proxying:',
    field: 'mode',
    default: 'iptables',
    help: MODES.join(', '),
  }),
  'iptables-flavour': textFlag('<flavour>', {
    group: 'Proxying:',
    default: 'auto',
    help: `Which iptables programs: ${IPTABLES_FLAVOURS.join(', ')}`,
  }),
  'iptables-masquerade-bit': intFlag({
    group: 'Proxying:',
    field: 'iptables.masqueradeBit',
    default: String(iptables.masqueradeBit),
    help: 'Bit of the packet mark that asks for masquerading, 0..31 (modes iptables and ipvs)',
  }),
  'masquerade-all': boolFlag({
    group: 'Proxying:',
    field: 'iptables.masqueradeAll',
    default: String(iptables.masqueradeAll),
    help: 'Masquerade all traffic to cluster IPs',
  }),
  'iptables-localhost-nodeports': boolFlag({
    group: 'Proxying:',
    field: 'iptables.localhostNodePorts',
    default: String(iptables.localhostNodePorts),
    help: 'Answer on 127.0.0.1:nodePort (mode iptables)',
  }),
  'iptables-sync-period': durationFlag({
    group: 'Proxying:',
    field: 'iptables.syncPeriod',
    default: formatDurationMs(iptables.syncPeriod),
    help: 'Longest time between two looks at the rules (all modes but ipvs)',
  }),
  'iptables-min-sync-period': durationFlag({
    group: 'Proxying:',
    field: 'iptables.minSyncPeriod',
    default: formatDurationMs(iptables.minSyncPeriod),
    help: 'Shortest time between two changes of the rules (all modes but ipvs)',
  }),
  'detect-local-mode': textFlag('<mode>', {
    group: 'Proxying:',
    field: 'detectLocalMode',
    default: 'ClusterCIDR',
    help: `How traffic of pods is recognised: ${DETECT_LOCAL_MODES.join(', ')}`,
  }),
  'pod-bridge-interface': textFlag('<name>', {
    group: 'Proxying:',
    field: 'detectLocal.bridgeInterface',
    help: 'Bridge of the pods (BridgeInterface)',
  }),
  'pod-interface-name-prefix': textFlag('<prefix>', {
    group: 'Proxying:',
    field: 'detectLocal.interfaceNamePrefix',
    help: "How the names of pods' interfaces begin (InterfaceNamePrefix)",
  }),
  'cluster-cidr': textFlag('<cidr,...>', {
    group: 'Proxying:',
    field: 'clusterCIDR',
    help: 'CIDR of the pods of the cluster, or one IPv4 and one IPv6 CIDR',
  }),
  'nodeport-addresses': listFlag('<cidr,...>', {
    group: 'Proxying:',
    field: 'nodePortAddresses',
    help: "CIDRs of the node's addresses that answer on node ports, or primary; none: every address",
  }),

  'ipvs-scheduler': textFlag('<name>', {
    group: 'IPVS:',
    field: 'ipvs.scheduler',
    default: 'rr',
    help: 'Scheduler of the virtual servers',
  }),
  'ipvs-sync-period': durationFlag({
    group: 'IPVS:',
    field: 'ipvs.syncPeriod',
    default: formatDurationMs(ipvs.syncPeriod),
    help: 'Longest time between two looks at the kernel',
  }),
  'ipvs-min-sync-period': durationFlag({
    group: 'IPVS:',
    field: 'ipvs.minSyncPeriod',
    default: formatDurationMs(iptables.minSyncPeriod),
    help: 'Shortest time between two changes',
  }),
  'ipvs-exclude-cidrs': listFlag('<cidr,...>', {
    group: 'IPVS:',
    field: 'ipvs.excludeCIDRs',
    help: 'Virtual servers of these addresses are left alone',
  }),
  'ipvs-strict-arp': boolFlag({
    group: 'IPVS:',
    field: 'ipvs.strictARP',
    default: String(ipvs.strictARP),
    help: 'Set arp_ignore to 1 and arp_announce to 2',
  }),
  'ipvs-tcp-timeout': durationFlag({
    group: 'IPVS:',
    field: 'ipvs.tcpTimeout',
    default: formatDurationMs(ipvs.tcpTimeout),
    help: `Time-out of idle TCP connections ${KERNELS}`,
  }),
  'ipvs-tcpfin-timeout': durationFlag({
    group: 'IPVS:',
    field: 'ipvs.tcpFinTimeout',
    default: formatDurationMs(ipvs.tcpFinTimeout),
    help: `Time-out of TCP connections after a FIN ${KERNELS}`,
  }),
  'ipvs-udp-timeout': durationFlag({
    group: 'IPVS:',
    field: 'ipvs.udpTimeout',
    default: formatDurationMs(ipvs.udpTimeout),
    help: `Time-out of UDP flows ${KERNELS}`,
  }),

  'conntrack-max-per-core': intFlag({
    group: 'Connection tracking:',
    field: 'conntrack.maxPerCore',
    default: String(conntrack.maxPerCore),
    help: `Connections tracked, for each CPU ${KERNELS}`,
  }),
  'conntrack-min': intFlag({
    group: 'Connection tracking:',
    field: 'conntrack.min',
    default: String(conntrack.min),
    help: 'Connections tracked at least',
  }),
  'conntrack-tcp-timeout-established': durationFlag({
    group: 'Connection tracking:',
    field: 'conntrack.tcpEstablishedTimeout',
    default: formatDurationMs(conntrack.tcpEstablishedTimeout),
    help: `Time-out of idle TCP connections ${KERNELS}`,
  }),
  'conntrack-tcp-timeout-close-wait': durationFlag({
    group: 'Connection tracking:',
    field: 'conntrack.tcpCloseWaitTimeout',
    default: formatDurationMs(conntrack.tcpCloseWaitTimeout),
    help: `Time-out of TCP connections in CLOSE_WAIT ${KERNELS}`,
  }),
  'conntrack-tcp-be-liberal': boolFlag({
    group: 'Connection tracking:',
    field: 'conntrack.tcpBeLiberal',
    default: String(conntrack.tcpBeLiberal),
    help: 'Let TCP packets outside the window pass',
  }),
  'conntrack-udp-timeout': durationFlag({
    group: 'Connection tracking:',
    field: 'conntrack.udpTimeout',
    default: formatDurationMs(conntrack.udpTimeout),
    help: `Time-out of UDP flows without an answer ${KERNELS}`,
  }),
  'conntrack-udp-timeout-stream': durationFlag({
    group: 'Connection tracking:',
    field: 'conntrack.udpStreamTimeout',
    default: formatDurationMs(conntrack.udpStreamTimeout),
    help: `Time-out of UDP flows with answers ${KERNELS}`,
  }),

  v: intFlag({
    group: 'Logging:',
    field: 'logging.verbosity',
    short: 'v',
    default: String(logging.verbosity),
    help: 'How much is logged: 0 what changes, 1 to 4 more, 5 and above everything',
  }),
  'log-format': textFlag('<format>', {
    group: 'Logging:',
    default: 'auto',
    help: `${LOG_FORMATS.join(', ')}: auto is pretty on a terminal and JSON otherwise`,
  }),
  'logging-format': textFlag('<format>', {
    group: 'Logging:',
    field: 'logging.format',
    default: logging.format,
    help: 'text or json; json is JSON on a terminal too',
  }),
  profiling: boolFlag({
    group: 'Logging:',
    field: 'enableProfiling',
    default: 'false',
    help: 'Serve /debug/pprof and /debug/flags/v beside the metrics, to clients on this node',
  }),
  'kube-api-content-type': textFlag('<type>', {
    ...unused('Content type of requests; JSON is always used'),
    field: 'clientConnection.contentType',
    default: clientConnection.contentType,
  }),
  'kube-api-qps': numberFlag({
    ...unused('Requests a second to the API server: a few watches need no limit'),
    field: 'clientConnection.qps',
    default: String(clientConnection.qps),
  }),
  'kube-api-burst': intFlag({
    ...unused('Requests at once to the API server'),
    field: 'clientConnection.burst',
    default: String(clientConnection.burst),
  }),
  'config-sync-period': durationFlag({
    ...unused('Resync of what is watched, which changes nothing; more than 0'),
    field: 'configSyncPeriod',
    default: formatDurationMs(DEFAULT_FILE.configSyncPeriod),
  }),
  'show-hidden-metrics-for-version': textFlag('<1.N>', {
    ...unused('Metrics hidden since this release, which must be the one before: none is'),
    field: 'showHiddenMetricsForVersion',
  }),
  vmodule: vmoduleFlag(unused('Verbosity of single files', { field: 'logging.vmodule' })),
  'log-flush-frequency': durationFlag(
    unused('Every line is written at once', {
      field: 'logging.flushFrequency',
      default: formatDurationMs(logging.flushFrequency),
    }),
  ),
  'log-text-split-stream': boolFlag(unused('', { field: 'logging.options.text.splitStream' })),
  'log-text-info-buffer-size': textFlag('<n>', unused('', { field: 'logging.options.text.infoBufferSize' })),
  'log-json-split-stream': boolFlag(unused('', { field: 'logging.options.json.splitStream' })),
  'log-json-info-buffer-size': textFlag('<n>', unused('', { field: 'logging.options.json.infoBufferSize' })),
  'machine-id-file': textFlag('<file,...>', unused('')),
  'boot-id-file': textFlag('<file,...>', unused('')),
} as const satisfies Readonly<Record<string, Flag<unknown>>>;

export type FlagName = keyof typeof FLAGS;

type ValueOf<F> = F extends Flag<infer T> ? T : never;

/** What the command line said. A flag that was not given is absent. */
export type FlagValues = { readonly [K in FlagName]?: ValueOf<(typeof FLAGS)[K]> };

/** Names in the order of the table. */
export const FLAG_NAMES: readonly FlagName[] = Object.keys(FLAGS).filter(isFlagName);

/** True for the name of a flag, in its `a-b` spelling and without dashes. */
export function isFlagName(name: string): name is FlagName {
  return Object.hasOwn(FLAGS, name);
}

/** The flag that says the same as a field of the file, as `--name`; undefined if there is none. */
export function flagOfField(field: string): string | undefined {
  const name = FLAG_NAMES.find((n) => FLAGS[n].field === field);
  return name === undefined ? undefined : `--${name}`;
}
