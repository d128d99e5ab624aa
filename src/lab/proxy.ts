/**
 * The proxy as its own process in the node's namespace: `switchyard run --config FILE`, or any program that takes the
 * same file. The lab starts, stops and kills it, keeps its log and reads its metrics.
 *
 * @module
 */

import type { Namespace } from './namespace.ts';

const CONFIG_PATH = '/run/switchyard/config.json';
const METRICS_PORT = 10249;

export interface ProxyProcess {
  /** Starts it, with the configuration given to `createProxy`. */
  start(): Promise<void>;
  /** Ends it by SIGTERM and waits; its rules stay. */
  stop(): Promise<void>;
  /** Ends it by SIGKILL and waits. */
  kill(): Promise<void>;
  readonly running: boolean;
  /** Everything it wrote to standard output and standard error so far, of all its runs. */
  log(): string;
  /**
   * Its metrics: series, as in `name{label="value"}`, to value.
   *
   * @returns Undefined while nobody answers on the metrics port.
   */
  metrics(): Promise<ReadonlyMap<string, number> | undefined>;
}

/** Reads the text format of Prometheus: series, labels included as they are written, to value. */
export function parseMetrics(text: string): Map<string, number> {
  const metrics = new Map<string, number>();
  for (const line of text.split('\n')) {
    const sample = /^([A-Za-z_:][\w:]*(?:\{.*\})?) (\S+)/.exec(line);
    if (sample?.[1]) metrics.set(sample[1], Number(sample[2]));
  }
  return metrics;
}

/**
 * @param program The program and its arguments before `--config FILE`.
 * @param config A KubeProxyConfiguration.
 */
export async function createProxy(
  node: Namespace,
  program: readonly [string, ...string[]],
  config: object,
): Promise<ProxyProcess> {
  await node.ask('write', { path: CONFIG_PATH, text: JSON.stringify(config, undefined, 2) });
  let log = '';
  let pid = 0;
  let ended: Promise<void> = Promise.resolve();
  let tellEnded = () => {};
  node.onEvent((said) => {
    if (said.pid !== pid) return;
    if (said.event === 'output') log += said.text;
    else {
      log += `(ended: ${said.signal ?? `status ${said.status}`})\n`;
      pid = 0;
      tellEnded();
    }
  });
  const end = async (signal: NodeJS.Signals) => {
    if (pid !== 0) await node.ask('signal', { pid, signal });
    await ended;
  };
  return {
    start: async () => {
      if (pid !== 0) throw new Error(`Cannot start the proxy: it runs as process ${pid}, stop it before`);
      ended = new Promise((resolve) => {
        tellEnded = resolve;
      });
      pid = (await node.ask('start', { argv: [...program, '--config', CONFIG_PATH] })).pid;
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    get running() {
      return pid !== 0;
    },
    log: () => log,
    metrics: async () => {
      const outcome = await node.ask('request', {
        kind: 'http',
        address: '127.0.0.1',
        port: METRICS_PORT,
        path: '/metrics',
        timeoutMs: 2_000,
        from: undefined,
        fromPort: 0,
      });
      return outcome.kind === 'answered' && outcome.status === 200 ? parseMetrics(outcome.text) : undefined;
    },
  };
}

const OUT_OF_DATE = /^switchyard_out_of_date\b/;
const QUEUED = 'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds';
const DONE = 'kubeproxy_sync_proxy_rules_last_timestamp_seconds';
const SEEN = /^kubeproxy_sync_proxy_rules_(service|endpoint)_changes_total/;

/**
 * What the proxy says about its work in one line, to be compared with what it says later.
 *
 * Of a proxy that does not say whether it is out of date only the times of its syncs are known, and a change that came
 * while its last sync ran may be missed.
 *
 * @returns Undefined if a family has a sync before it, or none has ever ended one.
 */
export function settledMark(metrics: ReadonlyMap<string, number>): string | undefined {
  let synced = false;
  for (const [series, done] of metrics) {
    if (OUT_OF_DATE.test(series) && done !== 0) return undefined;
    if (!series.startsWith(DONE)) continue;
    const queued = metrics.get(QUEUED + series.slice(DONE.length)) ?? 0;
    if (done === 0 || done < queued) return undefined;
    synced = true;
  }
  for (const series of metrics.keys()) {
    if (series.startsWith(QUEUED) && !metrics.has(DONE + series.slice(QUEUED.length))) return undefined;
  }
  if (!synced) return undefined;
  const telling = [...metrics].filter(([s]) => s.startsWith(DONE) || s.startsWith(QUEUED) || SEEN.test(s));
  return JSON.stringify(telling);
}
