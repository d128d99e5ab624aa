/**
 * The composition root of `switchyard run`: waits for the node, then joins watch, proxiers, dataplanes and servers.
 *
 * ```
 *  node known ──► addresses, limits, families ──► servers ──► watch ──► a loop per family, until told to end
 * ```
 *
 * Ending leaves every rule in place.
 *
 * @module
 */

import { cpus, hostname } from 'node:os';
import type { Config } from './config/types.ts';
import { toKubeProxyConfiguration } from './config/write.ts';
import { checkFamilies } from './daemon/checks.ts';
import { type ClusterAccess, logStatus, openCluster } from './daemon/cluster.ts';
import { type ConntrackHashSize, realHashSize, setConntrackSysctls } from './daemon/conntrack-sysctls.ts';
import { Events, type ObjectReference } from './daemon/events.ts';
import { hasIPv6, servedFamilies } from './daemon/families.ts';
import { type Answerer, serveHttp } from './daemon/http.ts';
import { CLEANED_MODES, iptablesMetrics, modeSettings } from './daemon/kernel.ts';
import { chooseNodeIPs, type NodeIPs, NodeWatch, nodePortCidrs } from './daemon/node.ts';
import { healthRoutes, metricsRoutes } from './daemon/routes.ts';
import { Tasks } from './daemon/tasks.ts';
import { type ModeDeps, openMode } from './modes/index.ts';
import { readNodeAddresses } from './modes/node-addresses.ts';
import { createNfacct } from './netlink/nfacct.ts';
import { createFanOut } from './proxier/fan-out.ts';
import { noHealth, ProxyHealth } from './proxier/health.ts';
import { localTraffic } from './proxier/local-traffic.ts';
import { createMetrics, type Metrics } from './proxier/metrics.ts';
import { Model } from './proxier/model.ts';
import { nodePortAddresses, selectNodeIPs } from './proxier/node-port-addresses.ts';
import { FULL_SYNC_PERIOD_MS, type Log, Proxier } from './proxier/proxier.ts';
import { ServiceHealth } from './proxier/service-health.ts';
import type { Family, IPAddress, NodePortAddresses, ObjectKey, WatchEvent } from './proxier/types.ts';
import { type Clock, realClock } from './sys/clock.ts';
import { type Exec, realExec } from './sys/exec.ts';
import { setOomScore } from './sys/oom.ts';
import { realSysctl, type Sysctl } from './sys/proc.ts';
import { version } from './version.ts';

/** Longest wait for the event that says why the daemon ends. */
const LAST_WORDS_MS = 2_000;

/** Effects, real unless a test gives its own. */
export interface DaemonDeps {
  readonly log: Log;
  readonly clock?: Clock;
  readonly sysctl?: Sysctl;
  readonly hashSize?: ConntrackHashSize;
  readonly hasIPv6?: boolean;
  readonly setOomScore?: (score: number) => Promise<void>;
  readonly openCluster?: (config: Config, clock: Clock) => Promise<ClusterAccess>;
  readonly openMode?: typeof openMode;
  readonly exec?: Exec;
  readonly nodeAddresses?: () => Promise<readonly IPAddress[]>;
}

type Effects = Required<DaemonDeps>;

/** What a start finds out about the node. */
interface NodeFacts {
  readonly name: string;
  readonly watch: NodeWatch;
  /** Gets every event of the node's watch from now on. */
  readonly listeners: ((event: WatchEvent) => void)[];
  readonly podCIDRs: readonly string[];
  readonly ips: NodeIPs;
}

/**
 * Runs until `signal` aborts; every rule stays in the kernel then.
 *
 * With `initOnly` it ends when everything that needs privileges is done, with `cleanup` when our rules are gone.
 *
 * @throws {Error} If it cannot start or go on. A sync that fails is no reason: it is tried again.
 */
export async function runDaemon(config: Config, deps: DaemonDeps, signal: AbortSignal): Promise<void> {
  const effects: Effects = {
    clock: realClock,
    sysctl: realSysctl,
    hashSize: realHashSize,
    hasIPv6: hasIPv6(deps.sysctl ?? realSysctl),
    setOomScore,
    openCluster,
    openMode,
    exec: realExec,
    nodeAddresses: readNodeAddresses,
    ...deps,
  };
  if (config.cleanup) return cleanUp(config, effects, signal);
  const cluster = await effects.openCluster(config, effects.clock);
  const tasks = new Tasks(signal);
  try {
    const node = await learnNode(config, effects, cluster, tasks);
    if (!tasks.signal.aborted) await serve(config, effects, { cluster, tasks, node });
    if (!config.initOnly) await tasks.end();
  } finally {
    await tasks.stop();
    cluster.close();
  }
}

function modeDeps(effects: Effects, metrics: ModeDeps['metrics']): ModeDeps {
  const { exec, clock, sysctl, nodeAddresses, log } = effects;
  return { exec, clock, sysctl, nodeAddresses, log, nfacct: createNfacct(), metrics };
}

/** Takes the rules of every mode out of the kernel. @throws {AggregateError} If something stays. */
async function cleanUp(config: Config, effects: Effects, signal: AbortSignal): Promise<void> {
  const silent = { restoreFailed() {}, rules() {} };
  const errors: Error[] = [];
  for (const name of CLEANED_MODES) {
    const mode = await effects.openMode(
      modeSettings(config, name),
      modeDeps(effects, () => silent),
    );
    errors.push(...(await mode.cleanUp(signal)));
  }
  if (errors.length > 0) {
    throw new AggregateError(errors, `Cannot remove all rules: ${errors.map((e) => e.message).join('; ')}`);
  }
  effects.log.info({ modes: CLEANED_MODES }, 'rules removed');
}

/** Starts the watch of this node and waits for what the start needs of it. */
async function learnNode(config: Config, effects: Effects, cluster: ClusterAccess, tasks: Tasks): Promise<NodeFacts> {
  const { log, clock } = effects;
  const name = (config.hostnameOverride || hostname()).trim().toLowerCase();
  if (name === '') throw new Error('Cannot name this node: the host has no name, set hostnameOverride');
  const needsPodCIDRs = config.detectLocalMode === 'NodeCIDR';
  const watch = new NodeWatch({ name, needsPodCIDRs, clock, log });
  const listeners = [(event: WatchEvent) => watch.handle(event)];
  tasks.start((signal) =>
    cluster.nodeSource(name).run(
      {
        onEvent: (event) => {
          for (const listener of listeners) listener(event);
        },
        onInvalid: ({ field, message }) => log.warn({ node: name, field, message }, 'this node does not decode'),
        onStatus: logStatus(log),
      },
      signal,
    ),
  );
  log.info({ node: name }, 'waiting for the node');
  const found = await tasks.race(watch.wait(tasks.signal));
  tasks.start((signal) => watch.guardPodCIDRs(signal));
  const ips = chooseNodeIPs(found, config.bindAddress);
  log.info({ node: name, primary: ips.primary, ...ips.ips }, 'node known');
  return { name, watch, listeners, podCIDRs: found?.podCIDRs ?? [], ips };
}

/** Everything between knowing the node and running. */
async function serve(
  config: Config,
  effects: Effects,
  { cluster, tasks, node }: { readonly cluster: ClusterAccess; readonly tasks: Tasks; readonly node: NodeFacts },
): Promise<void> {
  const { log, clock, sysctl, hashSize } = effects;
  const nodePortTexts = nodePortCidrs(config.nodePortAddresses, node.ips);
  const events = new Events({ hostname: hostname(), random: Math.random }, { api: cluster.events, clock, log });
  const health = config.healthzBindAddress === '' ? undefined : new ProxyHealth(2 * config.syncPeriodMs, clock);
  setConntrackSysctls(config.conntrack, cpus().length, { sysctl, hashSize });

  // The mode asks for metrics when it makes a dataplane, which is after both exist.
  const mode = await effects.openMode(
    modeSettings(config),
    modeDeps(effects, (family) => iptablesMetrics(metrics, family)),
  );
  const metrics = createMetrics({ version: version(), packets: mode.packets, processMetrics: true });
  const families = servedFamilies(mode.support, node.ips.primary, effects.hasIPv6);
  const { warnings, errors } = checkFamilies({
    config,
    nodePortAddresses: nodePortTexts,
    configuredNodePortAddresses: config.nodePortAddresses,
    podCIDRs: node.podCIDRs,
    primary: node.ips.primary,
    dualStack: families.length === 2,
  });
  for (const warning of warnings) log.warn(warning);
  if (errors.length > 0) throw new Error(errors.join('; '));
  log.info({ mode: mode.mode, with: mode.description, families, version: version() }, 'starting');

  const proxiers: Proxier[] = [];
  for (const family of families) {
    const addresses = nodePortAddresses(nodePortTexts, family);
    const traffic = localTraffic(
      { ...config.detectLocal, detectLocalMode: config.detectLocalMode, podCIDRs: node.podCIDRs },
      family,
    );
    if (traffic.kind === 'none') log.info({ family }, 'traffic of pods is not told from other traffic');
    const dataplane = mode.createDataplane({
      family,
      localTraffic: traffic,
      nodePortAddresses: addresses,
      nodeIP: node.ips.ips[family],
      localhostNodePorts: config.iptables.localhostNodePorts && family === 'IPv4' && addresses.containsIPv4Loopback,
    });
    if (config.initOnly) continue;
    const model = new Model({
      family,
      nodeName: node.name,
      externalIPsAllowed: config.featureGates['AllowServiceExternalIPs'] !== false,
      startMs: clock.now(),
      onUnparsable: ({ service, field, text }) =>
        log.warn({ family, service, field, text }, 'not an address, left out'),
    });
    const serviceHealth = new ServiceHealth({
      hosts: await listenHosts(effects, family, addresses),
      isProxyHealthy: () => health?.isHealthy() ?? true,
      onListenFailed: (service, port, error) => {
        log.error({ service, port, err: error }, 'health check node port not open, will be tried again');
        events.record({
          regarding: serviceReference(service),
          type: 'Warning',
          reason: 'FailedToStartServiceHealthcheck',
          action: 'Listen',
          note: `node ${node.name} failed to start healthcheck "${service}" on port ${port}: ${error.message}`,
        });
      },
    });
    const periods = {
      minSyncPeriodMs: config.minSyncPeriodMs,
      syncPeriodMs: config.syncPeriodMs,
      maxSyncPeriodMs: FULL_SYNC_PERIOD_MS,
    };
    proxiers.push(
      new Proxier(periods, {
        model,
        dataplane,
        clock,
        health: health ?? noHealth,
        metrics,
        log,
        serviceHealth,
        onRefused: ({ service, rule, reason }) =>
          events.record({
            regarding: serviceReference(service),
            type: 'Warning',
            reason: 'FailedToProgramService',
            action: 'Sync',
            note: `node ${node.name} left this service out (${family}): ${reason}: ${rule}`,
          }),
      }),
    );
  }
  if (config.initOnly) return;

  await effects.setOomScore(config.oomScoreAdj).catch((error: unknown) => {
    log.debug({ err: error }, 'cannot set the OOM score');
  });
  tasks.start((signal) => events.run(signal));
  startServers(config, effects, { tasks, events, metrics, health, node });

  const fanOut = createFanOut(proxiers);
  const onNodeEvent = (event: WatchEvent) => {
    health?.setNode(node.watch.node);
    fanOut(event);
  };
  if (node.watch.node !== undefined) onNodeEvent({ type: 'upsert', object: node.watch.node });
  node.listeners.push(onNodeEvent);
  events.record({
    regarding: nodeReference(node.name),
    type: 'Normal',
    reason: 'Starting',
    action: 'StartKubeProxy',
    note: '',
  });
  for (const proxier of proxiers) tasks.start((signal) => proxier.run(signal));
  tasks.start((signal) =>
    cluster.serviceSource.run(
      {
        onEvent: fanOut,
        onInvalid: ({ kind, key, field, message }) => {
          metrics.invalidObjects.inc({ kind });
          log.warn({ kind, key, field, message }, 'object left out');
        },
        onStatus: logStatus(log),
      },
      signal,
    ),
  );
}

/** The health and the metrics server. With bindAddressHardFail one that cannot listen ends the daemon. */
function startServers(
  config: Config,
  effects: Effects,
  context: {
    readonly tasks: Tasks;
    readonly events: Events;
    readonly metrics: Metrics;
    readonly health: ProxyHealth | undefined;
    readonly node: NodeFacts;
  },
): void {
  const { tasks, events, metrics, health, node } = context;
  const start = (name: string, address: string, answer: Answerer, reason: string) =>
    tasks.start((signal) =>
      serveHttp({ name, address, answer, hardFail: config.bindAddressHardFail }, effects, signal).catch(
        async (error: unknown) => {
          const note = error instanceof Error ? error.message : String(error);
          const regarding = nodeReference(node.name);
          events.record({ regarding, type: 'Warning', reason, action: 'StartKubeProxy', note });
          await events.flush(LAST_WORDS_MS);
          throw error;
        },
      ),
    );
  if (health !== undefined) {
    start('health', config.healthzBindAddress, healthRoutes(health, metrics), 'FailedToStartProxierHealthcheck');
  }
  const routes = metricsRoutes({ metrics, mode: config.mode, configz: () => toKubeProxyConfiguration(config) });
  start('metrics', config.metricsBindAddress, routes, 'FailedToStartMetricServer');
}

/** Where health check node ports listen: found out once, as the rest of the start. */
async function listenHosts(
  { nodeAddresses, log }: Effects,
  family: Family,
  addresses: NodePortAddresses,
): Promise<readonly string[]> {
  if (addresses.matchAll) return [family === 'IPv4' ? '0.0.0.0' : '::'];
  try {
    return selectNodeIPs(addresses, await nodeAddresses());
  } catch (error) {
    log.error({ family, err: error }, 'cannot list the addresses of this node: no health check node ports');
    return [];
  }
}

const nodeReference = (name: string): ObjectReference => ({ apiVersion: 'v1', kind: 'Node', name });

function serviceReference(service: ObjectKey): ObjectReference {
  const slash = service.indexOf('/');
  return { apiVersion: 'v1', kind: 'Service', namespace: service.slice(0, slash), name: service.slice(slash + 1) };
}
