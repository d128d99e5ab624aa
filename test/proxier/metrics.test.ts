import t from 'tap';
import type { ModeName } from '../../src/modes/mode.ts';
import { createMetrics, type MetricsOptions } from '../../src/proxier/metrics.ts';
import { kubernetesBuild } from '../../src/version.ts';

const H15 = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const PROGRAMMING = [
  0, 0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
  29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57,
  58, 59, 60, 65, 70, 75, 80, 85, 90, 95, 100, 105, 110, 115, 120, 150, 180, 210, 240, 270, 300,
];

/** What kube-proxy 1.36.2 has, and what is added. `labels` without `le`; `modes` if not all. */
const wanted: readonly {
  name: string;
  type: string;
  labels: readonly string[];
  buckets?: readonly number[];
  help?: string;
  modes?: readonly ModeName[];
}[] = [
  {
    name: 'kubeproxy_sync_proxy_rules_duration_seconds',
    type: 'histogram',
    labels: ['ip_family'],
    buckets: H15,
    help: '[ALPHA] SyncProxyRules latency in seconds',
  },
  {
    name: 'kubeproxy_sync_full_proxy_rules_duration_seconds',
    type: 'histogram',
    labels: ['ip_family'],
    buckets: H15,
    help: '[ALPHA] SyncProxyRules latency in seconds for full resyncs',
    modes: ['iptables', 'nftables', 'ebpf'],
  },
  {
    name: 'kubeproxy_sync_partial_proxy_rules_duration_seconds',
    type: 'histogram',
    labels: ['ip_family'],
    buckets: H15,
    help: '[ALPHA] SyncProxyRules latency in seconds for partial resyncs',
    modes: ['iptables', 'nftables', 'ebpf'],
  },
  { name: 'kubeproxy_sync_proxy_rules_last_timestamp_seconds', type: 'gauge', labels: ['ip_family'] },
  { name: 'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds', type: 'gauge', labels: ['ip_family'] },
  {
    name: 'kubeproxy_network_programming_duration_seconds',
    type: 'histogram',
    labels: ['ip_family'],
    buckets: PROGRAMMING,
    help: '[ALPHA] In Cluster Network Programming Latency in seconds',
  },
  {
    name: 'kubeproxy_sync_proxy_rules_endpoint_changes_pending',
    type: 'gauge',
    labels: [],
    help: '[ALPHA] Pending proxy rules Endpoint changes',
  },
  {
    name: 'kubeproxy_sync_proxy_rules_endpoint_changes_total',
    type: 'counter',
    labels: [],
    help: '[ALPHA] Cumulative proxy rules Endpoint changes',
  },
  {
    name: 'kubeproxy_sync_proxy_rules_service_changes_pending',
    type: 'gauge',
    labels: [],
    help: '[ALPHA] Pending proxy rules Service changes',
  },
  {
    name: 'kubeproxy_sync_proxy_rules_service_changes_total',
    type: 'counter',
    labels: [],
    help: '[ALPHA] Cumulative proxy rules Service changes',
  },
  {
    name: 'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
    type: 'gauge',
    labels: ['ip_family', 'traffic_policy'],
  },
  {
    name: 'kubeproxy_proxy_healthz_total',
    type: 'counter',
    labels: ['code'],
    help: '[ALPHA] Cumulative proxy healthz HTTP status',
  },
  {
    name: 'kubeproxy_proxy_livez_total',
    type: 'counter',
    labels: ['code'],
    help: '[ALPHA] Cumulative proxy livez HTTP status',
  },
  {
    name: 'kubeproxy_iptables_ct_state_invalid_dropped_packets_total',
    type: 'counter',
    labels: [],
    modes: ['iptables'],
  },
  {
    name: 'kubeproxy_iptables_localhost_nodeports_accepted_packets_total',
    type: 'counter',
    labels: [],
    modes: ['iptables'],
  },
  {
    name: 'kubeproxy_sync_proxy_rules_iptables_restore_failures_total',
    type: 'counter',
    labels: ['ip_family'],
    modes: ['iptables', 'ipvs'],
  },
  {
    name: 'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total',
    type: 'counter',
    labels: ['ip_family'],
    modes: ['iptables'],
  },
  {
    name: 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
    type: 'counter',
    labels: ['ip_family'],
    help: '[ALPHA] Cumulative proxy nftables sync failures',
    modes: ['nftables'],
  },
  {
    name: 'kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total',
    type: 'counter',
    labels: ['ip_family'],
    help: '[ALPHA] Cumulative proxy nftables cleanup failures',
    modes: ['nftables'],
  },
  {
    name: 'kubeproxy_sync_proxy_rules_iptables_total',
    type: 'gauge',
    labels: ['ip_family', 'table'],
    modes: ['iptables'],
  },
  {
    name: 'kubeproxy_sync_proxy_rules_iptables_last',
    type: 'gauge',
    labels: ['ip_family', 'table'],
    modes: ['iptables'],
  },
  {
    name: 'kubeproxy_conntrack_reconciler_sync_duration_seconds',
    type: 'histogram',
    labels: ['ip_family'],
    buckets: H15,
  },
  { name: 'kubeproxy_conntrack_reconciler_deleted_entries_total', type: 'counter', labels: ['ip_family'] },
  {
    name: 'kubernetes_feature_enabled',
    type: 'gauge',
    labels: ['name', 'stage'],
    help: '[BETA] This metric records the data about the stage and enablement of a k8s feature.',
  },
  {
    name: 'rest_client_requests_total',
    type: 'counter',
    labels: ['code', 'host', 'method'],
    help: '[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.',
  },
  {
    name: 'rest_client_request_duration_seconds',
    type: 'histogram',
    labels: ['host', 'verb'],
    buckets: [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60],
    help: '[ALPHA] Request latency in seconds. Broken down by verb, and host.',
  },
  {
    name: 'kubernetes_build_info',
    type: 'gauge',
    labels: [
      'build_date',
      'compiler',
      'git_commit',
      'git_tree_state',
      'git_version',
      'go_version',
      'major',
      'minor',
      'platform',
    ],
    help: "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
  },
  { name: 'switchyard_out_of_date', type: 'gauge', labels: ['ip_family'] },
  { name: 'switchyard_refused_services', type: 'gauge', labels: ['ip_family'] },
  { name: 'switchyard_invalid_objects_total', type: 'counter', labels: ['kind'] },
  { name: 'switchyard_build_info', type: 'gauge', labels: ['node_version', 'version'] },
];

const make = (options: Partial<MetricsOptions> = {}) =>
  createMetrics({
    version: '1.2.3',
    requests: () => [{ method: 'GET', host: 'h', code: '200', count: 1 }],
    features: [{ name: 'Gate', stage: 'BETA', enabled: true }],
    kubernetes: kubernetesBuild(),
    processMetrics: false,
    ...options,
  });

/** Gives every metric with labels a first value, so that it prints. */
function touch(m: ReturnType<typeof make>): void {
  const family = { ip_family: 'IPv4' };
  const table = { ...family, table: 'nat' };
  for (const h of [
    m.syncDuration,
    m.fullSyncDuration,
    m.partialSyncDuration,
    m.networkProgramming,
    m.conntrackReconcileDuration,
  ]) {
    h.observe(family, 1);
  }
  for (const g of [m.lastSync, m.lastQueued, m.outOfDate, m.refusedServices]) g.set(family, 1);
  for (const c of [
    m.restoreFailures,
    m.partialRestoreFailures,
    m.nftablesSyncFailures,
    m.nftablesCleanupFailures,
    m.conntrackDeleted,
  ]) {
    c.inc(family);
  }
  for (const g of [m.iptablesRules, m.iptablesRulesLast]) g.set(table, 1);
  for (const c of [m.healthz, m.livez]) c.inc({ code: '200' });
  m.noLocalEndpoints.set({ ...family, traffic_policy: 'internal' }, 1);
  m.requestDuration.observe({ verb: 'GET', host: 'h' }, 1);
  m.invalidObjects.inc({ kind: 'Service' });
}

const MODES: readonly ModeName[] = ['iptables', 'nftables', 'ipvs', 'ebpf'];

t.test('createMetrics()', async (t) => {
  const texts = new Map<ModeName, string>();
  for (const mode of MODES) {
    const metrics = make({ mode });
    touch(metrics);
    texts.set(mode, await metrics.registry.metrics());
  }
  const samples = (text: string, name: string) =>
    [...text.matchAll(new RegExp(`^(${name}(?:_bucket)?)(?:\\{([^}]*)\\})? (\\S+)$`, 'gm'))].map(
      ([, full, labels = '']) => ({
        full,
        labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, k = '', v]) => [k, v])),
      }),
    );

  for (const { name, type, labels, buckets, help, modes = MODES } of wanted) {
    t.test(name, async (t) => {
      const text = texts.get(modes[0] ?? 'iptables') ?? '';
      t.match(text, `# TYPE ${name} ${type}\n`);
      const line = new RegExp(`^# HELP ${name} (.*)$`, 'm').exec(text)?.[1] ?? '';
      if (help === undefined) t.equal(line.startsWith('[ALPHA] '), name.startsWith('kubeproxy_'), line);
      else t.equal(line, help);
      const found = samples(text, name);
      t.ok(found.length > 0, 'prints a value');
      t.same(
        Object.keys(found[0]?.labels ?? {})
          .filter((l) => l !== 'le')
          .sort(),
        labels,
      );
      if (buckets)
        t.same(
          found.flatMap((s) => ('le' in s.labels && s.labels['le'] !== '+Inf' ? [Number(s.labels['le'])] : [])),
          buckets,
        );
    });
  }

  for (const [mode, text] of texts) {
    t.test(`in mode ${mode} those of the mode, and no other`, async (t) => {
      const names = [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
      const here = wanted.filter(({ modes = MODES }) => modes.includes(mode));
      t.same(names.sort(), here.map((w) => w.name).sort());
    });
  }

  t.test('what has no label is there from the start, at 0', async (t) => {
    const fresh = await make().registry.metrics();
    for (const { name } of wanted.filter((w) => w.labels.length === 0)) t.match(fresh, `\n${name} 0\n`);
  });

  t.test('two do not mix', async (t) => {
    const [one, other] = [make(), make()];
    one.serviceChanges.inc(3);
    t.match(await one.registry.metrics(), /service_changes_total 3\n/);
    t.match(await other.registry.metrics(), /service_changes_total 0\n/);
  });

  t.test('the packet counters are read at each scrape, and one that fails does not fail the scrape', async (t) => {
    let packets = 5;
    const { registry } = make({
      packets: {
        ctStateInvalidDropped: async () => packets,
        localhostNodePortsAccepted: () => Promise.reject(new Error('gone')),
      },
    });
    t.match(await registry.metrics(), /ct_state_invalid_dropped_packets_total 5\n/);
    packets = 7;
    const text = await registry.metrics();
    t.match(text, /ct_state_invalid_dropped_packets_total 7\n/);
    t.match(text, /localhost_nodeports_accepted_packets_total 0\n/);
  });

  t.test('with those of the process', async (t) => {
    t.match(await make({ processMetrics: true }).registry.metrics(), /^process_cpu_seconds_total /m);
  });
});
