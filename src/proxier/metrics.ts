/**
 * Every metric of the daemon, in one place. Names, labels, buckets and help texts are kube-proxy's wherever it has
 * the metric: dashboards and alerts are part of the interface. Additions begin with `switchyard_`.
 *
 * @module
 */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { ModeName } from '../modes/mode.ts';

/** 1 ms to 16.384 s, doubling. */
const SYNC_BUCKETS = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i);

/** Seconds from 0 to 5 minutes, coarser as they grow. The leading 0 is kube-proxy's too. */
const PROGRAMMING_BUCKETS = [
  0,
  0.25,
  0.5,
  ...Array.from({ length: 59 }, (_, i) => i + 1),
  ...Array.from({ length: 12 }, (_, i) => 60 + 5 * i),
  ...Array.from({ length: 7 }, (_, i) => 120 + 30 * i),
];

/** Seconds until an API server answers, as every client of Kubernetes counts them. */
const REQUEST_BUCKETS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];

const BUILD_LABELS = [
  'major',
  'minor',
  'git_version',
  'git_commit',
  'git_tree_state',
  'build_date',
  'go_version',
  'compiler',
  'platform',
] as const;

/** Packets the kernel counted, read when a scrape asks. Undefined where the counter does not exist. */
export interface PacketCounters {
  ctStateInvalidDropped(): Promise<number | undefined>;
  localhostNodePortsAccepted(): Promise<number | undefined>;
}

export interface MetricsOptions {
  readonly version: string;
  /** Metrics that kube-proxy has in other modes only are left out of the registry. Default iptables. */
  readonly mode?: ModeName;
  /** Feature gates and whether they are on. Absent: none. */
  readonly features?: readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[];
  /** Absent: both packet counters stay 0. */
  readonly packets?: PacketCounters;
  /** Requests to the API server so far, read at each scrape. Absent: none. */
  readonly requests?: () => readonly {
    readonly method: string;
    readonly host: string;
    readonly code: string;
    readonly count: number;
  }[];
  /** What `kubernetes_build_info` says. Absent: nothing. */
  readonly kubernetes?: Readonly<Record<(typeof BUILD_LABELS)[number], string>>;
  /** Also process_* and nodejs_* of this process. Once per process only. */
  readonly processMetrics: boolean;
}

/** Its values are `Family`: IPv4, IPv6. */
type FamilyLabel = 'ip_family';

/** A sum the kernel keeps: the value is replaced at each scrape. */
function scrapedCounter(
  registers: Registry[],
  name: string,
  help: string,
  read: (() => Promise<number | undefined>) | undefined,
): Counter {
  return new Counter({
    name,
    help,
    registers,
    async collect() {
      // A counter that cannot be read must not fail the whole scrape.
      const packets = await read?.().catch(() => undefined);
      this.reset();
      if (packets !== undefined) this.inc(packets);
    },
  });
}

/** Modes that tell full syncs from partial ones. */
const PARTIAL_MODES: readonly ModeName[] = ['iptables', 'nftables', 'ebpf'];

/**
 * Declares all metrics in a registry of their own: two daemons in one process do not mix. Those of other modes are
 * there to be counted on, but nobody sees them.
 */
export function createMetrics(options: MetricsOptions) {
  const { mode = 'iptables' } = options;
  const registry = new Registry();
  const registers = [registry];
  const only = (...modes: readonly ModeName[]) => (modes.includes(mode) ? registers : []);
  const labelNames = ['ip_family'] as const;
  const gauge = (name: string, help: string) =>
    new Gauge<FamilyLabel>({ registers, labelNames, name, help: `[ALPHA] ${help}` });
  const counter = (name: string, help: string, registers: Registry[]) =>
    new Counter<FamilyLabel>({ registers, labelNames, name, help: `[ALPHA] ${help}` });
  const histogram = (name: string, help: string, buckets: number[], modes: readonly ModeName[] = [mode]) =>
    new Histogram<FamilyLabel>({ registers: only(...modes), labelNames, name, help: `[ALPHA] ${help}`, buckets });
  const plainGauge = (name: string, help: string) => new Gauge({ registers, name, help: `[ALPHA] ${help}` });
  const plainCounter = (name: string, help: string) => new Counter({ registers, name, help: `[ALPHA] ${help}` });
  const codes = (name: string, help: string) =>
    new Counter<'code'>({ registers, labelNames: ['code'], name, help: `[ALPHA] ${help}` });

  // How late timers are is measured by one of this period: by default of 10 ms, which wakes an idle process 100 times a second.
  if (options.processMetrics) collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 500 });
  scrapedCounter(
    only('iptables'),
    'kubeproxy_iptables_ct_state_invalid_dropped_packets_total',
    '[ALPHA] packets dropped by iptables to work around conntrack problems',
    options.packets && (() => options.packets?.ctStateInvalidDropped() ?? Promise.resolve(undefined)),
  );
  scrapedCounter(
    only('iptables'),
    'kubeproxy_iptables_localhost_nodeports_accepted_packets_total',
    '[ALPHA] Number of packets accepted on nodeports of loopback interface',
    options.packets && (() => options.packets?.localhostNodePortsAccepted() ?? Promise.resolve(undefined)),
  );
  new Gauge<'version' | 'node_version'>({
    name: 'switchyard_build_info',
    help: 'Always 1; the labels say what runs',
    labelNames: ['version', 'node_version'],
    registers,
  }).set({ version: options.version, node_version: process.versions.node }, 1);

  new Counter<'code' | 'host' | 'method'>({
    name: 'rest_client_requests_total',
    help: '[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.',
    labelNames: ['code', 'host', 'method'],
    registers,
    collect() {
      this.reset();
      for (const { code, host, method, count } of options.requests?.() ?? []) this.inc({ code, host, method }, count);
    },
  });
  const build = new Gauge<(typeof BUILD_LABELS)[number]>({
    name: 'kubernetes_build_info',
    help: "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
    labelNames: BUILD_LABELS,
    registers,
  });
  if (options.kubernetes !== undefined) build.set(options.kubernetes, 1);
  const features = new Gauge<'name' | 'stage'>({
    name: 'kubernetes_feature_enabled',
    help: '[BETA] This metric records the data about the stage and enablement of a k8s feature.',
    labelNames: ['name', 'stage'],
    registers,
  });
  for (const { name, stage, enabled } of options.features ?? []) features.set({ name, stage }, enabled ? 1 : 0);

  return {
    registry,
    syncDuration: histogram(
      'kubeproxy_sync_proxy_rules_duration_seconds',
      'SyncProxyRules latency in seconds',
      SYNC_BUCKETS,
    ),
    fullSyncDuration: histogram(
      'kubeproxy_sync_full_proxy_rules_duration_seconds',
      'SyncProxyRules latency in seconds for full resyncs',
      SYNC_BUCKETS,
      PARTIAL_MODES,
    ),
    partialSyncDuration: histogram(
      'kubeproxy_sync_partial_proxy_rules_duration_seconds',
      'SyncProxyRules latency in seconds for partial resyncs',
      SYNC_BUCKETS,
      PARTIAL_MODES,
    ),
    /** Unix time of the last sync that succeeded, in seconds. */
    lastSync: gauge(
      'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
      'The last time proxy rules were successfully synced',
    ),
    /** Unix time of the last request for a sync, in seconds. */
    lastQueued: gauge(
      'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
      'The last time a sync of proxy rules was queued',
    ),
    /** From the change of a pod or service, as the control plane stamped it, to the kernel having it. */
    networkProgramming: histogram(
      'kubeproxy_network_programming_duration_seconds',
      'In Cluster Network Programming Latency in seconds',
      PROGRAMMING_BUCKETS,
    ),
    endpointChangesPending: plainGauge(
      'kubeproxy_sync_proxy_rules_endpoint_changes_pending',
      'Pending proxy rules Endpoint changes',
    ),
    endpointChanges: plainCounter(
      'kubeproxy_sync_proxy_rules_endpoint_changes_total',
      'Cumulative proxy rules Endpoint changes',
    ),
    serviceChangesPending: plainGauge(
      'kubeproxy_sync_proxy_rules_service_changes_pending',
      'Pending proxy rules Service changes',
    ),
    serviceChanges: plainCounter(
      'kubeproxy_sync_proxy_rules_service_changes_total',
      'Cumulative proxy rules Service changes',
    ),
    noLocalEndpoints: new Gauge<'traffic_policy' | FamilyLabel>({
      name: 'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
      help: '[ALPHA] Number of services with a Local traffic policy and no endpoints',
      labelNames: ['traffic_policy', 'ip_family'],
      registers,
    }),
    healthz: codes('kubeproxy_proxy_healthz_total', 'Cumulative proxy healthz HTTP status'),
    livez: codes('kubeproxy_proxy_livez_total', 'Cumulative proxy livez HTTP status'),
    restoreFailures: counter(
      'kubeproxy_sync_proxy_rules_iptables_restore_failures_total',
      'Cumulative proxy iptables restore failures',
      only('iptables', 'ipvs'),
    ),
    partialRestoreFailures: counter(
      'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total',
      'Cumulative proxy iptables partial restore failures',
      only('iptables'),
    ),
    iptablesRules: new Gauge<'table' | FamilyLabel>({
      name: 'kubeproxy_sync_proxy_rules_iptables_total',
      help: '[ALPHA] Total number of iptables rules owned by kube-proxy',
      labelNames: ['table', 'ip_family'],
      registers: only('iptables'),
    }),
    iptablesRulesLast: new Gauge<'table' | FamilyLabel>({
      name: 'kubeproxy_sync_proxy_rules_iptables_last',
      help: '[ALPHA] Number of iptables rules written by kube-proxy in last sync',
      labelNames: ['table', 'ip_family'],
      registers: only('iptables'),
    }),
    /** Transactions that the kernel refused. */
    nftablesSyncFailures: counter(
      'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
      'Cumulative proxy nftables sync failures',
      only('nftables'),
    ),
    /** Refused removals of chains that nothing refers to any more, which are transactions of their own. */
    nftablesCleanupFailures: counter(
      'kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total',
      'Cumulative proxy nftables cleanup failures',
      only('nftables'),
    ),
    conntrackReconcileDuration: histogram(
      'kubeproxy_conntrack_reconciler_sync_duration_seconds',
      'ReconcileConntrackFlowsLatency latency in seconds',
      SYNC_BUCKETS,
    ),
    conntrackDeleted: counter(
      'kubeproxy_conntrack_reconciler_deleted_entries_total',
      'Cumulative conntrack flows deleted by conntrack reconciler',
      registers,
    ),
    /** Until the answer begins; watches too. */
    requestDuration: new Histogram<'verb' | 'host'>({
      name: 'rest_client_request_duration_seconds',
      help: '[ALPHA] Request latency in seconds. Broken down by verb, and host.',
      labelNames: ['verb', 'host'],
      buckets: REQUEST_BUCKETS,
      registers,
    }),
    /** The timestamps above cannot say this: a change may be queued after a sync has begun and before it ends. */
    outOfDate: new Gauge<FamilyLabel>({
      name: 'switchyard_out_of_date',
      help: '1 while a change that is known has not been programmed yet, else 0',
      labelNames: ['ip_family'],
      registers,
    }),
    refusedServices: new Gauge<FamilyLabel>({
      name: 'switchyard_refused_services',
      help: 'Services left out now because the kernel or its tools refused their rules',
      labelNames: ['ip_family'],
      registers,
    }),
    invalidObjects: new Counter<'kind'>({
      name: 'switchyard_invalid_objects_total',
      help: 'Objects of the API that did not decode and were left out',
      labelNames: ['kind'],
      registers,
    }),
  } as const;
}

export type Metrics = ReturnType<typeof createMetrics>;
