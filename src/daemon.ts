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
import { featureStates } from './config/feature-gates.ts';
import type { Config } from './config/types.ts';
import { checkFamilies } from './daemon/checks.ts';
import type { ClusterAccess } from './daemon/cluster.ts';
import { setConntrackSysctls } from './daemon/conntrack-sysctls.ts';
import { completeEffects, type DaemonDeps, type Effects, modeDeps } from './daemon/effects.ts';
import { Events, nodeReference } from './daemon/events.ts';
import { servedFamilies } from './daemon/families.ts';
import { modeMetrics, modeSettings } from './daemon/kernel.ts';
import { removeLeftovers } from './daemon/leftovers.ts';
import { chooseNodeIPs, IPS_TIMEOUT_MS, type NodeFacts, NodeWatch, nodePortCidrs } from './daemon/node.ts';
import { checkClock, checkNode } from './daemon/node-checks.ts';
import { createDataplane, createProxier, type Start } from './daemon/proxiers.ts';
import { startServers } from './daemon/servers.ts';
import { StatusLog } from './daemon/status-log.ts';
import { Tasks } from './daemon/tasks.ts';
import type { Dataplane } from './modes/mode.ts';
import { createFanOut } from './proxier/fan-out.ts';
import { ProxyHealth } from './proxier/health.ts';
import { createMetrics } from './proxier/metrics.ts';
import type { Proxier } from './proxier/proxier.ts';
import { FAMILIES, type WatchEvent } from './proxier/types.ts';
import { kubernetesBuild, version } from './version.ts';

/**
 * Runs until `signal` aborts; every rule stays in the kernel then.
 *
 * With `initOnly` it ends when everything that needs privileges is done, with `cleanup` when our rules are gone.
 *
 * @throws {Error} If it cannot start or go on. A sync that fails is no reason: it is tried again.
 */
export async function runDaemon(config: Config, deps: DaemonDeps, signal: AbortSignal): Promise<void> {
  const effects = completeEffects(deps);
  if (config.cleanup) return cleanUp(effects, signal);
  const cluster = await effects.openCluster(config, effects.clock);
  const tasks = new Tasks(signal);
  try {
    const status = new StatusLog({ log: effects.log, clock: effects.clock, requests: () => cluster.requests() });
    tasks.start((signal) => status.run(signal));
    const node = await learnNode(config, effects, { cluster, status }, tasks);
    if (tasks.signal.aborted) return await tasks.end();
    const { start, dataplanes } = await prepare(config, effects, { cluster, node, signal: tasks.signal });
    if (tasks.signal.aborted) return await tasks.end();
    if (config.initOnly) return;
    const made = dataplanes.map(() => Promise.withResolvers<void>());
    const proxiers = await Promise.all(
      dataplanes.map((plane, i) => createProxier(start, plane, () => made[i]?.resolve())),
    );
    tasks.start(async (signal) => {
      const isMade = Promise.all(made.map(({ promise }) => promise)).then(() => {});
      await removeLeftovers(
        { rulesets: effects.rulesets, own: start.mode, clock: effects.clock, log: effects.log },
        isMade,
        signal,
      );
    });
    await run(start, proxiers, { cluster, status }, tasks);
    await tasks.end();
  } finally {
    await tasks.stop();
    cluster.close();
  }
}

/** Takes the rules of every mode out of the kernel. @throws {AggregateError} If something stays. */
async function cleanUp({ rulesets, log }: Effects, signal: AbortSignal): Promise<void> {
  const errors: Error[] = [];
  for (const ruleset of rulesets) {
    const { removed, kept, errors: found } = await ruleset.remove(signal);
    log.info({ ruleset: ruleset.name, removed, kept }, removed.length > 0 ? 'rules removed' : 'no rules there');
    errors.push(...found, ...kept.map((what) => new Error(`${ruleset.name} keeps ${what}`)));
  }
  if (errors.length > 0) {
    throw new AggregateError(errors, `Cannot remove all rules: ${errors.map((e) => e.message).join('; ')}`);
  }
}

/** Where objects come from, and who tells how that is going. */
interface Watching {
  readonly cluster: ClusterAccess;
  readonly status: StatusLog;
}

/** Starts the watch of this node and waits for what the start needs of it. */
async function learnNode(
  config: Config,
  effects: Effects,
  { cluster, status }: Watching,
  tasks: Tasks,
): Promise<NodeFacts> {
  const { log, clock } = effects;
  const name = (config.hostnameOverride || hostname()).trim().toLowerCase();
  if (name === '') throw new Error('Cannot name this node: the host has no name, set hostnameOverride');
  const needsPodCIDRs = config.detectLocalMode === 'NodeCIDR';
  // In manifests the node is there at once or, if ever, when somebody writes it.
  const addressTimeoutMs = config.manifests.length > 0 ? 0 : IPS_TIMEOUT_MS;
  const watch = new NodeWatch({ name, needsPodCIDRs, addressTimeoutMs, clock, log });
  const listeners = [(event: WatchEvent) => watch.handle(event)];
  tasks.start((signal) =>
    cluster.nodeSource(name).run(
      {
        onEvent: (event) => {
          for (const listener of listeners) listener(event);
        },
        onInvalid: ({ field, message }) => log.warn({ node: name, field, message }, 'this node does not decode'),
        onStatus: status.told,
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

/** Everything that needs privileges, and what can be wrong with configuration and node. */
async function prepare(
  config: Config,
  effects: Effects,
  {
    cluster,
    node,
    signal,
  }: { readonly cluster: ClusterAccess; readonly node: NodeFacts; readonly signal: AbortSignal },
): Promise<{ readonly start: Start; readonly dataplanes: readonly Dataplane[] }> {
  const { log, clock } = effects;
  setConntrackSysctls(config.conntrack, cpus().length, effects);
  // The mode asks for metrics when it makes a dataplane, which is after both exist.
  const deps = modeDeps(effects, (family) => modeMetrics(metrics, family));
  for (const warning of checkClock(cluster.clockSkewMs?.(), clock.now())) log.warn(warning);
  const mode = await effects.openMode(modeSettings(config), deps, signal);
  const metrics = createMetrics({
    version: version(),
    mode: config.mode,
    features: featureStates(config.featureGates),
    packets: mode.packets,
    requests: () => cluster.requests(),
    kubernetes: kubernetesBuild(),
    processMetrics: true,
  });
  cluster.onRequest?.(({ method, host }, seconds) => metrics.requestDuration.observe({ verb: method, host }, seconds));
  const reachable = FAMILIES.filter((family) => mode.support[family] === undefined);
  for (const warning of await checkNode(effects, { mode, families: reachable })) log.warn(warning);
  const families = servedFamilies(mode.support, node.ips.primary, effects.hasIPv6);
  const nodePortTexts = nodePortCidrs(config.nodePortAddresses, node.ips);
  const { warnings, errors } = checkFamilies({
    config,
    nodePortAddresses: nodePortTexts,
    configuredNodePortAddresses: config.nodePortAddresses,
    podCIDRs: node.podCIDRs,
    primary: node.ips.primary,
    dualStack: families.length === 2,
  });
  for (const warning of warnings) log.warn(warning);
  if (errors.length > 0) throw new Error(`Cannot serve this node: ${errors.join('; ')}`);
  const start: Start = {
    config,
    effects,
    node,
    nodePortTexts,
    mode,
    metrics,
    health: config.healthzBindAddress === '' ? undefined : new ProxyHealth(2 * config.syncPeriodMs, clock),
    events: new Events({ hostname: hostname(), random: Math.random }, { api: cluster.events, clock, log }),
  };
  log.info({ mode: mode.mode, with: mode.description, families, version: version() }, 'starting');
  return { start, dataplanes: families.map((family) => createDataplane(start, family)) };
}

/** Starts events, servers, proxiers and watch, in this order. */
async function run(
  start: Start,
  proxiers: readonly Proxier[],
  { cluster, status }: Watching,
  tasks: Tasks,
): Promise<void> {
  const { config, effects, node, metrics, health, events } = start;
  const { log } = effects;
  await effects.setOomScore(config.oomScoreAdj).catch((error: unknown) => {
    log.debug({ err: error }, 'cannot set the OOM score');
  });
  tasks.start((signal) => events.run(signal));
  startServers(start, proxiers, tasks);

  const fanOut = createFanOut(proxiers);
  const onNodeEvent = (event: WatchEvent) => {
    health?.setNode(node.watch.node);
    fanOut(event);
  };
  // The zone is to be known before the first sync.
  if (node.watch.node !== undefined) onNodeEvent({ type: 'upsert', object: node.watch.node });
  node.listeners.push(onNodeEvent);
  const regarding = nodeReference(node.name);
  events.record({ regarding, type: 'Normal', reason: 'Starting', action: 'StartKubeProxy', note: '' });
  for (const proxier of proxiers) tasks.start((signal) => proxier.run(signal));
  tasks.start((signal) =>
    cluster.serviceSource.run(
      {
        onEvent: fanOut,
        onInvalid: ({ kind, key, field, message }) => {
          metrics.invalidObjects.inc({ kind });
          log.warn({ kind, key, field, message }, 'object left out');
        },
        onStatus: status.told,
      },
      signal,
    ),
  );
}
