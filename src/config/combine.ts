/**
 * Flags and file to one configuration: who wins, which section of the file counts, and what the platform fills in.
 *
 * @module
 */

import { withPort } from './addresses.ts';
import { DEFAULT_FILE, type FileConfig, HEALTHZ_PORT, METRICS_PORT } from './decode.ts';
import { FLAG_NAMES, type FlagName, type FlagValues } from './flags.ts';
import type { DraftConfig, LoggingConfig } from './types.ts';

/**
 * Flags that count beside a file. Every other one is replaced by what the file says, or leaves out.
 *
 * `healthz-port` and `metrics-port` are not among them: they only shape the address flags.
 */
const COUNT_BESIDE_FILE: ReadonlySet<FlagName> = new Set<FlagName>([
  'config',
  'write-config-to',
  'cleanup',
  'init-only',
  'version',
  'master',
  'filename',
  'hostname-override',
  'iptables-flavour',
  'log-format',
  'v',
  'logging-format',
  'vmodule',
  'log-flush-frequency',
  'log-text-split-stream',
  'log-text-info-buffer-size',
  'log-json-split-stream',
  'log-json-info-buffer-size',
]);

/** Values that count instead of those of file and flags. */
export interface ConfigOverrides {
  readonly mode?: string | undefined;
  readonly nftablesLayout?: string | undefined;
}

/**
 * Joins flags with the file that `--config` names.
 *
 * @param file - Undefined without `--config`.
 * @returns Not validated yet.
 */
export function combine(
  flags: FlagValues,
  file: FileConfig | undefined,
  { mode: otherMode, nftablesLayout }: ConfigOverrides = {},
): DraftConfig {
  const base =
    file === undefined
      ? fromFlags(otherMode === undefined ? flags : { ...flags, 'proxy-mode': otherMode })
      : fromFile(otherMode === undefined ? file : { ...file, mode: otherMode });
  const hostname = flags['hostname-override'] || base.hostnameOverride;
  const mode = base.mode || 'iptables';
  const unsetNodePorts = mode === 'nftables' && base.nodePortAddresses.length === 0;
  return {
    ...base,
    mode,
    nftables: { ...base.nftables, layout: nftablesLayout ?? base.nftables.layout },
    detectLocalMode: base.detectLocalMode || 'ClusterCIDR',
    nodePortAddresses: unsetNodePorts ? ['primary'] : base.nodePortAddresses,
    // A name of blanks only is left as it is, for validation to refuse.
    hostnameOverride: hostname.trim().toLowerCase() || hostname,
    logging: combineLogging(flags, base.logging),
    configFile: file === undefined ? '' : (flags.config ?? ''),
    apiServers: (flags.master ?? '')
      .split(',')
      .map((url) => url.trim())
      .filter((url) => url !== ''),
    manifests: flags.filename ?? [],
    cleanup: flags.cleanup ?? false,
    initOnly: flags['init-only'] ?? false,
    iptablesFlavour: flags['iptables-flavour'] ?? 'auto',
    logFormat: flags['log-format'] ?? 'auto',
  };
}

/** Flags given beside a file that have no effect there, as `--name`. */
export function flagsIgnoredBesideFile(flags: FlagValues): readonly string[] {
  return FLAG_NAMES.filter((name) => flags[name] !== undefined && !COUNT_BESIDE_FILE.has(name)).map((n) => `--${n}`);
}

/** Which section of the file gives the values that every mode has. */
function sectionOf(file: FileConfig): 'iptables' | 'ipvs' | 'nftables' {
  return file.mode === 'ipvs' || file.mode === 'nftables' ? file.mode : 'iptables';
}

function fromFile(file: FileConfig): DraftConfig {
  const section = sectionOf(file);
  return {
    mode: file.mode,
    hostnameOverride: file.hostnameOverride,
    bindAddress: file.bindAddress,
    healthzBindAddress: file.healthzBindAddress,
    metricsBindAddress: file.metricsBindAddress,
    bindAddressHardFail: file.bindAddressHardFail,
    enableProfiling: file.enableProfiling,
    showHiddenMetricsForVersion: file.showHiddenMetricsForVersion,
    featureGates: file.featureGates,
    clientConnection: file.clientConnection,
    logging: {
      format: file.logging.format,
      flushFrequencyMs: file.logging.flushFrequency,
      verbosity: file.logging.verbosity,
      vmodule: file.logging.vmodule,
      text: file.logging.options.text,
      json: file.logging.options.json,
    },
    syncPeriodMs: file[section].syncPeriod,
    minSyncPeriodMs: file[section].minSyncPeriod,
    configSyncPeriodMs: file.configSyncPeriod,
    masqueradeAll: section === 'nftables' ? file.nftables.masqueradeAll : file.iptables.masqueradeAll,
    iptables: {
      masqueradeBit: file.iptables.masqueradeBit,
      localhostNodePorts: file.iptables.localhostNodePorts,
    },
    nftables: { masqueradeBit: file.nftables.masqueradeBit, layout: file.nftables.layout },
    ipvs: {
      scheduler: file.ipvs.scheduler,
      excludeCIDRs: file.ipvs.excludeCIDRs,
      strictARP: file.ipvs.strictARP,
      tcpTimeoutMs: file.ipvs.tcpTimeout,
      tcpFinTimeoutMs: file.ipvs.tcpFinTimeout,
      udpTimeoutMs: file.ipvs.udpTimeout,
    },
    detectLocalMode: file.detectLocalMode,
    detectLocal: { ...file.detectLocal, clusterCIDRs: splitCIDRs(file.clusterCIDR) },
    nodePortAddresses: file.nodePortAddresses,
    oomScoreAdj: file.oomScoreAdj,
    conntrack: {
      maxPerCore: file.conntrack.maxPerCore,
      min: file.conntrack.min,
      tcpEstablishedTimeoutMs: file.conntrack.tcpEstablishedTimeout,
      tcpCloseWaitTimeoutMs: file.conntrack.tcpCloseWaitTimeout,
      tcpBeLiberal: file.conntrack.tcpBeLiberal,
      udpTimeoutMs: file.conntrack.udpTimeout,
      udpStreamTimeoutMs: file.conntrack.udpStreamTimeout,
    },
    winkernel: file.winkernel,
    windowsRunAsService: file.windowsRunAsService,
    portRange: file.portRange,
    configFile: '',
    apiServers: [],
    manifests: [],
    cleanup: false,
    initOnly: false,
    iptablesFlavour: 'auto',
    logFormat: 'auto',
  };
}

function fromFlags(flags: FlagValues): DraftConfig {
  // Periods start from the iptables section whatever the mode: in mode ipvs they are 30 s and 1 s by flags alone,
  // while a file's ipvs section starts from 30 s and 0 s.
  const base = fromFile(DEFAULT_FILE);
  const mode = flags['proxy-mode'] ?? base.mode;
  const periods = mode === 'ipvs' ? 'ipvs' : 'iptables';
  return {
    ...base,
    mode,
    hostnameOverride: flags['hostname-override'] ?? base.hostnameOverride,
    bindAddress: flags['bind-address'] || base.bindAddress,
    healthzBindAddress: serverAddress(flags, 'healthz', base.healthzBindAddress, HEALTHZ_PORT),
    metricsBindAddress: serverAddress(flags, 'metrics', base.metricsBindAddress, METRICS_PORT),
    bindAddressHardFail: flags['bind-address-hard-fail'] ?? base.bindAddressHardFail,
    enableProfiling: flags.profiling ?? base.enableProfiling,
    showHiddenMetricsForVersion: flags['show-hidden-metrics-for-version'] ?? base.showHiddenMetricsForVersion,
    featureGates: flags['feature-gates'] ?? base.featureGates,
    clientConnection: {
      ...base.clientConnection,
      kubeconfig: flags.kubeconfig ?? base.clientConnection.kubeconfig,
      contentType: flags['kube-api-content-type'] ?? base.clientConnection.contentType,
      qps: flags['kube-api-qps'] ?? base.clientConnection.qps,
      burst: flags['kube-api-burst'] ?? base.clientConnection.burst,
    },
    syncPeriodMs: flags[`${periods}-sync-period`] ?? base.syncPeriodMs,
    minSyncPeriodMs: flags[`${periods}-min-sync-period`] ?? base.minSyncPeriodMs,
    configSyncPeriodMs: flags['config-sync-period'] ?? base.configSyncPeriodMs,
    masqueradeAll: flags['masquerade-all'] ?? base.masqueradeAll,
    iptables: {
      masqueradeBit: flags['iptables-masquerade-bit'] ?? base.iptables.masqueradeBit,
      localhostNodePorts: flags['iptables-localhost-nodeports'] ?? base.iptables.localhostNodePorts,
    },
    ipvs: {
      scheduler: flags['ipvs-scheduler'] ?? base.ipvs.scheduler,
      excludeCIDRs: flags['ipvs-exclude-cidrs'] ?? base.ipvs.excludeCIDRs,
      strictARP: flags['ipvs-strict-arp'] ?? base.ipvs.strictARP,
      tcpTimeoutMs: flags['ipvs-tcp-timeout'] ?? base.ipvs.tcpTimeoutMs,
      tcpFinTimeoutMs: flags['ipvs-tcpfin-timeout'] ?? base.ipvs.tcpFinTimeoutMs,
      udpTimeoutMs: flags['ipvs-udp-timeout'] ?? base.ipvs.udpTimeoutMs,
    },
    detectLocalMode: flags['detect-local-mode'] ?? base.detectLocalMode,
    detectLocal: {
      bridgeInterface: flags['pod-bridge-interface'] ?? base.detectLocal.bridgeInterface,
      interfaceNamePrefix: flags['pod-interface-name-prefix'] ?? base.detectLocal.interfaceNamePrefix,
      clusterCIDRs: splitCIDRs(flags['cluster-cidr'] ?? ''),
    },
    nodePortAddresses: flags['nodeport-addresses'] ?? base.nodePortAddresses,
    oomScoreAdj: flags['oom-score-adj'] ?? base.oomScoreAdj,
    conntrack: {
      maxPerCore: flags['conntrack-max-per-core'] ?? base.conntrack.maxPerCore,
      min: flags['conntrack-min'] ?? base.conntrack.min,
      tcpEstablishedTimeoutMs: flags['conntrack-tcp-timeout-established'] ?? base.conntrack.tcpEstablishedTimeoutMs,
      tcpCloseWaitTimeoutMs: flags['conntrack-tcp-timeout-close-wait'] ?? base.conntrack.tcpCloseWaitTimeoutMs,
      tcpBeLiberal: flags['conntrack-tcp-be-liberal'] ?? base.conntrack.tcpBeLiberal,
      udpTimeoutMs: flags['conntrack-udp-timeout'] ?? base.conntrack.udpTimeoutMs,
      udpStreamTimeoutMs: flags['conntrack-udp-timeout-stream'] ?? base.conntrack.udpStreamTimeoutMs,
    },
  };
}

/**
 * Address of a server from its address flag and its deprecated port flag: port 0 switches it off, and an address
 * without a port gets this one. The port flag is not looked at when the configuration is only written out.
 */
function serverAddress(
  flags: FlagValues,
  server: 'healthz' | 'metrics',
  fallback: string,
  defaultPort: number,
): string {
  const address = flags[`${server}-bind-address`] || fallback;
  if (flags['write-config-to']) return address;
  const port = flags[`${server}-port`] ?? defaultPort;
  return port === 0 ? '' : withPort(address, port);
}

/** Not trimmed: a blank after the comma is a mistake that validation names. */
const splitCIDRs = (joined: string): readonly string[] => (joined === '' ? [] : joined.split(','));

function combineLogging(flags: FlagValues, base: LoggingConfig): LoggingConfig {
  return {
    format: flags['logging-format'] ?? base.format,
    flushFrequencyMs: flags['log-flush-frequency'] ?? base.flushFrequencyMs,
    verbosity: flags.v ?? base.verbosity,
    vmodule: [...(flags.vmodule ?? []), ...base.vmodule],
    text: {
      splitStream: flags['log-text-split-stream'] ?? base.text.splitStream,
      infoBufferSize: flags['log-text-info-buffer-size'] ?? base.text.infoBufferSize,
    },
    json: {
      splitStream: flags['log-json-split-stream'] ?? base.json.splitStream,
      infoBufferSize: flags['log-json-info-buffer-size'] ?? base.json.infoBufferSize,
    },
  };
}
