/**
 * The lab: a node, pods and a client in namespaces, an API server, and a proxy that watches it and programs the node's
 * own kernel tables. Every lab has everything of its own, so several run side by side in one process.
 *
 *     await using lab = await createLab();
 *     lab.apply(objects);
 *     await lab.settled();
 *     const outcome = await lab.request(lab.client, { address: '192.168.1.100', port: 30080 });
 *
 * @module
 */

import { connect, type Server } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ModeName } from '../modes/mode.ts';
import type { Family } from '../proxier/types.ts';
import { realClock } from '../sys/clock.ts';
import type { JsonObject, KubeObject } from './api/object.ts';
import { type ApiServer, type ApiServerOptions, createApiServer } from './api/server.ts';
import type { Namespace } from './namespace.ts';
import { createNetwork, type Network } from './network.ts';
import { createObserver } from './observer.ts';
import type { Path } from './path.ts';
import type { RequestOutcome, RequestSpec, ServedPort } from './protocol.ts';
import { createProxy, type ProxyProcess, settledMark } from './proxy.ts';
import type { Topology } from './topology.ts';
import { nodeObject } from './tutorial.ts';

const SWITCHYARD = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));
const KUBECONFIG_PATH = '/run/switchyard/kubeconfig';
/** Where the API server listens in the node's namespace, as K3s has it. */
const API = { address: '127.0.0.1', port: 6443 };

export interface LabOptions {
  /** 1 to 8; 2 when absent. */
  readonly pods?: number;
  /** What the pods serve; when absent HTTP on 80 and 8080, TCP and UDP on 7 and 53. */
  readonly ports?: readonly ServedPort[];
  /** 'iptables' when absent. */
  readonly mode?: ModeName;
  /** Merged into the KubeProxyConfiguration, objects one level deep. */
  readonly config?: JsonObject;
  /** The proxy without `--config FILE`; `switchyard run` when absent. */
  readonly program?: readonly [string, ...string[]];
  /** False: the test starts the proxy itself. */
  readonly startProxy?: boolean;
  /** Beside its address: token, TLS, history and the like. */
  readonly api?: Omit<ApiServerOptions, 'host' | 'port'>;
}

export interface Target {
  readonly address: string;
  readonly port: number;
  /** 'http' when absent. */
  readonly kind?: ServedPort['kind'];
  /** 2000 when absent. */
  readonly timeoutMs?: number;
  /** Address to send from; the kernel's choice when absent. */
  readonly from?: string;
  /** Port to send from; the kernel's choice when absent. */
  readonly fromPort?: number;
}

export interface TracedRequest {
  readonly outcome: RequestOutcome;
  /** Undefined if the rules changed under the request, or no rule of the mode met it. */
  readonly path: Path | undefined;
}

export interface Lab extends AsyncDisposable {
  readonly topology: Topology;
  readonly node: Namespace;
  readonly client: Namespace;
  /** In the order of `topology.pods`. */
  readonly pods: readonly Namespace[];
  readonly api: ApiServer;
  readonly proxy: ProxyProcess;
  /** Creates or replaces objects on the API server, their status too. */
  apply(objects: readonly KubeObject[]): void;
  /**
   * Waits until the proxy has nothing left to do.
   *
   * @throws {Error} With the end of its log, if it does not run or takes longer than `timeoutMs` (10,000 when absent).
   */
  settled(timeoutMs?: number): Promise<void>;
  /** One real request over one new connection. */
  request(from: Namespace, to: Target): Promise<RequestOutcome>;
  /** A request together with the rules it met. One at a time. */
  trace(from: Namespace, to: Target): Promise<TracedRequest>;
  /** The rules of the mode in the node's namespace, as its tool lists them (iptables: all tables), without counters. */
  rules(family: Family): Promise<string>;
  /** Ends every process; nothing is left. */
  close(): Promise<void>;
}

const DEFAULT_PORTS: readonly ServedPort[] = [
  { kind: 'http', port: 80 },
  { kind: 'http', port: 8080 },
  { kind: 'tcp', port: 7 },
  { kind: 'udp', port: 7 },
  { kind: 'udp', port: 53 },
];

/** The proxy's configuration: what K3s would give it, and the caller's fields over it. */
export function proxyConfig(topology: Topology, mode: ModeName, extra: JsonObject): JsonObject {
  const config: JsonObject = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode,
    clientConnection: { kubeconfig: KUBECONFIG_PATH },
    hostnameOverride: topology.node.name,
    clusterCIDR: topology.families.map((f) => topology.clusterCIDR[f]).join(','),
    // Their sysctls belong to the whole machine, not to a namespace.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    healthzBindAddress: '127.0.0.1:10256',
    metricsBindAddress: '127.0.0.1:10249',
    // Not 0, which kube-proxy reads as "not given": a second.
    iptables: { minSyncPeriod: '1ms' },
    nftables: { minSyncPeriod: '1ms' },
    ipvs: { minSyncPeriod: '1ms' },
  };
  for (const [field, value] of Object.entries(extra)) {
    const base = config[field];
    config[field] = isObject(base) && isObject(value) ? { ...base, ...value } : value;
  }
  return config;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Passes every connection made to `inside` on to the API server in this process. */
function relay(inside: Server, api: ApiServer): void {
  const { hostname, port } = new URL(api.url);
  inside.on('connection', (from) => {
    const to = connect({ host: hostname, port: Number(port) });
    from.on('error', () => to.destroy()).on('close', () => to.destroy());
    to.on('error', () => from.destroy()).on('close', () => from.destroy());
    from.pipe(to).pipe(from);
  });
}

/** How long the proxy must have said the same, in polls of that length. */
const QUIET_POLLS = 5;
const POLL_MS = 20;

async function waitSettled(proxy: ProxyProcess, timeoutMs: number): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  let mark: string | undefined;
  let same = 0;
  // Each answer comes after the proxy has read what the API server had sent before the question.
  while (same < QUIET_POLLS) {
    const late = performance.now() > deadlineMs && `no quiet in ${timeoutMs} ms`;
    const why = proxy.running ? late : 'it does not run';
    if (why) {
      const tail = proxy.log().split('\n').slice(-15).join('\n');
      throw new Error(`Cannot wait for the proxy to settle: ${why}, its log ends:\n${tail}`);
    }
    const metrics = await proxy.metrics();
    const now = metrics && settledMark(metrics);
    same = now !== undefined && now === mark ? same + 1 : 0;
    mark = now;
    await realClock.sleep(POLL_MS);
  }
}

function toSpec(to: Target): RequestSpec {
  return {
    kind: to.kind ?? 'http',
    address: to.address,
    port: to.port,
    path: '/',
    timeoutMs: to.timeoutMs ?? 2_000,
    from: to.from,
    fromPort: to.fromPort ?? 0,
  };
}

/**
 * Builds a lab and starts its proxy. Takes about a second.
 *
 * @throws {LabUnavailableError} If this machine does not allow it. Nothing is left behind then.
 */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  const api = await createApiServer({ ...options.api, host: '127.0.0.1', port: 0 });
  let network: Network | undefined;
  let inside: Server | undefined;
  const close = async () => {
    await network?.close();
    inside?.close();
    await api.close();
  };
  try {
    network = await createNetwork(options.pods ?? 2);
    const { topology, node, client, pods } = network;
    inside = await node.listen(API.address, API.port);
    relay(inside, api);
    const ports = options.ports ?? DEFAULT_PORTS;
    await Promise.all(pods.map((pod) => pod.ask('serve', { pod: pod.name, ports })));
    const kubeconfig = api.kubeconfig().replaceAll(new URL(api.url).host, `${API.address}:${API.port}`);
    await node.ask('write', { path: KUBECONFIG_PATH, text: kubeconfig });
    api.apply([nodeObject(topology)]);
    const config = proxyConfig(topology, options.mode ?? 'iptables', options.config ?? {});
    const proxy = await createProxy(node, options.program ?? [SWITCHYARD, 'run'], config);
    if (options.startProxy !== false) await proxy.start();

    const observer = createObserver(node, options.mode ?? 'iptables');
    const request = (from: Namespace, to: Target) => from.ask('request', toSpec(to));
    return {
      topology,
      node,
      client,
      pods,
      api,
      proxy,
      apply: (objects) => void api.apply(objects),
      settled: (timeoutMs = 10_000) => waitSettled(proxy, timeoutMs),
      request,
      trace: (from, to) => observer.follow(() => request(from, to), to, from === node ? 'node' : 'elsewhere'),
      rules: observer.rules,
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
