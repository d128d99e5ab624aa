/**
 * The configuration of `switchyard run`, after flags, file and defaults are joined and everything is checked.
 * Times are in milliseconds (fractions are possible: Go durations reach down to nanoseconds). Texts that hold
 * addresses are checked but kept as written; whoever uses them parses them with `proxier/addr.ts`.
 *
 * @module
 */

import type { ModeName } from '../modes/mode.ts';

/** How traffic of this node's pods is recognised. */
export type DetectLocalMode = 'ClusterCIDR' | 'NodeCIDR' | 'BridgeInterface' | 'InterfaceNamePrefix';

export const DETECT_LOCAL_MODES: readonly DetectLocalMode[] = [
  'ClusterCIDR',
  'NodeCIDR',
  'BridgeInterface',
  'InterfaceNamePrefix',
];

/** Every mode the configuration knows, built or not. `ebpf` is an addition of ours. */
export const MODES: readonly ModeName[] = ['iptables', 'nftables', 'ipvs', 'ebpf'];

/** Which iptables programs are used: the ones on PATH after a look at what the node uses, or a fixed kind. */
export type IptablesFlavour = 'auto' | 'nft' | 'legacy';

export const IPTABLES_FLAVOURS: readonly IptablesFlavour[] = ['auto', 'nft', 'legacy'];

/** `auto` is pretty on a terminal and JSON otherwise. */
export type LogFormat = 'auto' | 'json' | 'pretty';

/** Which objects mode nftables makes of the services: as kube-proxy does, a chain for each, or elements of shared maps only. */
export type NftablesLayout = 'chains' | 'maps';

export const NFTABLES_LAYOUTS: readonly NftablesLayout[] = ['chains', 'maps'];

export const LOG_FORMATS: readonly LogFormat[] = ['auto', 'json', 'pretty'];

/** How the API server is reached. */
export interface ClientConnection {
  /** Path of a kubeconfig file; '' with no `apiServers` means in-cluster. */
  readonly kubeconfig: string;
  readonly acceptContentTypes: string;
  readonly contentType: string;
  /** Requests a second; negative: no limit. */
  readonly qps: number;
  /** Requests at once. */
  readonly burst: number;
}

export interface VModuleItem {
  readonly filePattern: string;
  readonly verbosity: number;
}

export interface LogStreamOptions {
  readonly splitStream: boolean;
  /** A quantity as written, for example `0` or `64Ki`. */
  readonly infoBufferSize: string;
}

/** Logging as Kubernetes components spell it. Only `format` and `verbosity` have an effect here. */
export interface LoggingConfig {
  readonly format: string;
  readonly flushFrequencyMs: number;
  readonly verbosity: number;
  readonly vmodule: readonly VModuleItem[];
  readonly text: LogStreamOptions;
  readonly json: LogStreamOptions;
}

export interface ConntrackConfig {
  /** 0: leave the kernel's limit alone. */
  readonly maxPerCore: number;
  readonly min: number;
  /** 0: leave the sysctl alone. The same holds for the other time-outs. */
  readonly tcpEstablishedTimeoutMs: number;
  readonly tcpCloseWaitTimeoutMs: number;
  readonly tcpBeLiberal: boolean;
  readonly udpTimeoutMs: number;
  readonly udpStreamTimeoutMs: number;
}

/** Accepted so that one file serves every node; without effect on Linux. */
export interface WinkernelConfig {
  readonly networkName: string;
  readonly sourceVip: string;
  readonly enableDSR: boolean;
  readonly rootHnsEndpointName: string;
  readonly forwardHealthCheckVip: boolean;
}

/**
 * Everything `run` is told. What a KubeProxyConfiguration says once per mode (periods, masqueradeAll) is here
 * the one value that counts for `mode`.
 */
export interface Config {
  readonly mode: ModeName;
  /** Lower case and trimmed; '': the name of the host. */
  readonly hostnameOverride: string;
  /** Overrides the node's IP of its family and makes that family primary, unless unspecified. Nothing binds to it. */
  readonly bindAddress: string;
  /** `ip:port`; '': no health server. */
  readonly healthzBindAddress: string;
  /** `ip:port`. */
  readonly metricsBindAddress: string;
  /** Failing to serve health or metrics ends the process. */
  readonly bindAddressHardFail: boolean;
  readonly enableProfiling: boolean;
  readonly showHiddenMetricsForVersion: string;
  readonly featureGates: Readonly<Record<string, boolean>>;
  readonly clientConnection: ClientConnection;
  readonly logging: LoggingConfig;

  /** Time after which a sync is due although nothing happened, and after which a failed one is tried again. */
  readonly syncPeriodMs: number;
  /** Shortest time between two syncs. */
  readonly minSyncPeriodMs: number;
  /** Resync of the API watches. */
  readonly configSyncPeriodMs: number;
  /** Masquerade all traffic to cluster IPs. */
  readonly masqueradeAll: boolean;
  readonly iptables: {
    /** 0..31; modes iptables and ipvs. */
    readonly masqueradeBit: number;
    /** As asked for; whether it can be had depends on family and node port addresses. */
    readonly localhostNodePorts: boolean;
  };
  readonly nftables: {
    /** 0..31 in mode nftables. */
    readonly masqueradeBit: number;
    readonly layout: NftablesLayout;
  };
  readonly ipvs: {
    /** '' means `rr`. */
    readonly scheduler: string;
    readonly excludeCIDRs: readonly string[];
    readonly strictARP: boolean;
    /** 0: leave the kernel's value. The same holds for the other two. */
    readonly tcpTimeoutMs: number;
    readonly tcpFinTimeoutMs: number;
    readonly udpTimeoutMs: number;
  };
  readonly detectLocalMode: DetectLocalMode;
  readonly detectLocal: {
    readonly bridgeInterface: string;
    readonly interfaceNamePrefix: string;
    /** At most one CIDR a family, in the order given; empty: unknown. */
    readonly clusterCIDRs: readonly string[];
  };
  /** CIDRs, or exactly `['primary']`; empty: every address of the node. */
  readonly nodePortAddresses: readonly string[];
  /** -1000..1000. */
  readonly oomScoreAdj: number;
  readonly conntrack: ConntrackConfig;
  readonly winkernel: WinkernelConfig;
  readonly windowsRunAsService: boolean;
  readonly portRange: string;

  // What only the command line says.

  /** Path of the file all this was read from; '': from flags alone. */
  readonly configFile: string;
  /** URLs from --master, tried in order; empty: the kubeconfig's or the cluster's own. */
  readonly apiServers: readonly string[];
  /** Files and folders of manifests that stand in for the API server; empty: there is one. `-` is standard input. */
  readonly manifests: readonly string[];
  /** Remove everything of ours from the kernel and end. */
  readonly cleanup: boolean;
  /** Do what needs privileges and end. */
  readonly initOnly: boolean;
  readonly iptablesFlavour: IptablesFlavour;
  readonly logFormat: LogFormat;
}

/** A `Config` whose words are not checked yet. */
export type DraftConfig = Omit<Config, 'mode' | 'nftables' | 'detectLocalMode' | 'iptablesFlavour' | 'logFormat'> & {
  readonly mode: string;
  readonly nftables: { readonly masqueradeBit: number; readonly layout: string };
  readonly detectLocalMode: string;
  readonly iptablesFlavour: string;
  readonly logFormat: string;
};

/** Everything wrong with flags or file, one line each. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  /** @param problems - At least one sentence that names the flag or field and says what it must be. */
  constructor(problems: readonly string[], options?: ErrorOptions) {
    super(problems.join('\n'), options);
    this.problems = problems;
  }
}
