/**
 * `docs/metrics.md`: every metric, from a registry as the daemon makes it.
 *
 * @module
 */

import type { ModeName } from '../../src/modes/mode.ts';
import { createMetrics } from '../../src/proxier/metrics.ts';
import { code, generatedFrom, table } from './markdown.ts';

/** What help texts, which are kube-proxy's, do not say. */
const NOTES: Readonly<Record<string, string>> = {
  kubeproxy_network_programming_duration_seconds:
    'from the change of a pod or Service, as the control plane stamped it, to the kernel having it',
  kubeproxy_sync_proxy_rules_duration_seconds: 'one observation a sync, failed ones included',
  kubeproxy_sync_proxy_rules_iptables_last: 'jumps included; 0 if nothing differed',
  kubeproxy_sync_proxy_rules_iptables_restore_failures_total: 'one for each restore that fails; a sync may try several',
  kubeproxy_sync_proxy_rules_no_local_endpoints_total: '`traffic_policy` is `internal` or `external`; counts ports',
  kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds: 'later than the last sync: something waits',
  rest_client_request_duration_seconds: 'until the answer begins; watches too',
  kubernetes_feature_enabled: 'see the [gates](cli.md#feature-gates)',
};

/** Endings of names and the unit they stand for, the longer ones first. */
const UNITS: readonly (readonly [RegExp, string])[] = [
  [/_timestamp_seconds$|_start_time_seconds$/, 'Unix time in seconds'],
  [/_seconds(_total)?$/, 'seconds'],
  [/_bytes$/, 'bytes'],
  [/_packets_total$/, 'packets'],
  [/_changes_(total|pending)$/, 'changes'],
  [/_entries_total$/, 'conntrack entries'],
  [/_requests_total$|_healthz_total$|_livez_total$/, 'requests'],
  [/_nftables_.*_failures_total$/, 'transactions'],
  [/_failures_total$/, 'restores'],
  [/_iptables_(total|last)$/, 'rules'],
  [/_no_local_endpoints_total$/, 'service ports'],
  [/_services$/, 'services'],
  [/_objects_total$/, 'objects'],
  [/_info$|_enabled$|_out_of_date$/, '0 or 1'],
];

/** The part of prom-client's metrics that its types leave out. */
interface Described {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly labelNames: readonly string[];
  readonly buckets: readonly number[];
  /** Modes that have it. */
  readonly modes: readonly ModeName[];
}

const MODES: readonly ModeName[] = ['iptables', 'nftables', 'ipvs', 'ebpf'];

const listOf = (object: object, key: string): readonly unknown[] => {
  const value: unknown = new Map<string, unknown>(Object.entries(object)).get(key);
  return Array.isArray(value) ? value : [];
};

async function describe(processMetrics: boolean): Promise<readonly Described[]> {
  const all = new Map<string, Described>();
  for (const mode of MODES) {
    const { registry } = createMetrics({ version: '0', mode, processMetrics });
    const types = new Map((await registry.getMetricsAsJSON()).map(({ name, type }) => [name, String(type)]));
    for (const metric of registry.getMetricsAsArray()) {
      all.set(metric.name, {
        name: metric.name,
        help: metric.help,
        type: types.get(metric.name) ?? '',
        labelNames: listOf(metric, 'labelNames').map(String),
        buckets: listOf(metric, 'buckets').map(Number),
        modes: [...(all.get(metric.name)?.modes ?? []), mode],
      });
    }
  }
  return [...all.values()];
}

/**
 * Buckets in short: runs of equal steps or factors as `first to last, by step`. The numbers are those of `le`.
 *
 * @param buckets - Upper bounds, growing. A run is at least four of them.
 */
export function shortBuckets(buckets: readonly number[]): string {
  const parts: string[] = [];
  const near = (a: number, b: number) => Math.abs(a - b) <= 1e-9 * Math.abs(b);
  for (let i = 0; i < buckets.length; ) {
    const run = (follows: (a: number, b: number, c: number) => boolean) => {
      let end = i + 1;
      while (end + 1 < buckets.length) {
        const [a = 0, b = 0, c = 0] = buckets.slice(end - 1, end + 2);
        if (!follows(a, b, c)) break;
        end++;
      }
      return Math.min(end, buckets.length - 1);
    };
    const [first = 0, second = 0] = buckets.slice(i, i + 2);
    const steps = run((a, b, c) => near(c - b, b - a));
    const doubles = first === 0 ? i : run((a, b, c) => near(c * a, b * b));
    const end = Math.max(steps, doubles);
    if (end - i < 3) {
      parts.push(String(first));
      i++;
      continue;
    }
    const by = end === steps ? `by ${second - first}` : `× ${second / first}`;
    parts.push(`${first} to ${buckets[end]} ${by}`);
    i = end + 1;
  }
  return parts.join(', ');
}

function row({ name, help, type, labelNames, buckets, modes }: Described): readonly string[] {
  const stage = /^\[(\w+)\] /.exec(help);
  const meaning = help.slice(stage?.[0].length ?? 0).replace(/\.$/, '');
  const note = NOTES[name];
  const unit = UNITS.find(([ending]) => ending.test(name))?.[1] ?? '';
  return [
    code(name),
    buckets.length === 0 ? type : `${type}: ${shortBuckets(buckets)}`,
    labelNames.map(code).join(', '),
    unit,
    modes.length === MODES.length ? 'all' : modes.join(', '),
    `${meaning}${note === undefined ? '' : `; ${note}`}${stage === null ? '' : ` (${stage[1]})`}`,
  ];
}

/** The whole page. @throws {Error} If a note is about a metric that does not exist. */
export async function metricsPage(): Promise<string> {
  const own = await describe(false);
  const names = new Set(own.map(({ name }) => name));
  const stray = Object.keys(NOTES).filter((name) => !names.has(name));
  if (stray.length > 0) throw new Error(`Cannot write about ${stray.join(', ')}: must be the name of a metric`);
  const rest = (await describe(true)).filter(({ name }) => !names.has(name));
  const head = ['Name', 'Type and buckets', 'Labels', 'Unit', 'Modes', 'Meaning'];
  const rows = (metrics: readonly Described[]) => metrics.map(row);
  const isOurs = ({ name }: Described) => name.startsWith('switchyard_');
  return `${[
    '# Metrics',
    generatedFrom('src/proxier/metrics.ts'),
    'Served at `/metrics` (127.0.0.1:10249 unless `--metrics-bind-address` says otherwise), in the text format of Prometheus or as OpenMetrics. ' +
      '`ip_family` is `IPv4` or `IPv6`. A labelled metric appears with its first value. Buckets end with `+Inf`. What another mode has is not there.',
    "## kube-proxy's",
    'Names, labels, buckets and help texts of kube-proxy 1.36; what differs in value is in [differences.md](differences.md).',
    table(head, rows(own.filter((m) => !isOurs(m)))),
    '## Ours',
    table(head, rows(own.filter(isOurs))),
    '## Of the process',
    "`process_*` as everywhere; `nodejs_*` in the place of kube-proxy's `go_*`.",
    table(head, rows(rest)),
  ].join('\n\n')}\n`;
}
