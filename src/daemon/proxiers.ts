/**
 * Builds the proxier of each family, from the configuration and what the start found out.
 *
 * @module
 */

import { isFeatureEnabled } from '../config/feature-gates.ts';
import type { Config } from '../config/types.ts';
import type { OpenMode } from '../modes/index.ts';
import type { Dataplane } from '../modes/mode.ts';
import { isLoopback } from '../proxier/addr.ts';
import { noHealth, type ProxyHealth } from '../proxier/health.ts';
import { localTraffic } from '../proxier/local-traffic.ts';
import type { Metrics } from '../proxier/metrics.ts';
import { Model } from '../proxier/model.ts';
import { nodePortAddresses, selectNodeIPs } from '../proxier/node-port-addresses.ts';
import { FULL_SYNC_PERIOD_MS, Proxier } from '../proxier/proxier.ts';
import { ServiceHealth } from '../proxier/service-health.ts';
import type { Family, NodePortAddresses, ObjectKey } from '../proxier/types.ts';
import { quote } from '../watch/decode-error.ts';
import type { Effects } from './effects.ts';
import { type Events, serviceReference } from './events.ts';
import { createFlowCleaner } from './flows.ts';
import type { NodeFacts } from './node.ts';

/** What a start knows when it comes to the proxiers. */
export interface Start {
  readonly config: Config;
  readonly effects: Effects;
  readonly node: NodeFacts;
  /** `primary` replaced. */
  readonly nodePortTexts: readonly string[];
  readonly mode: OpenMode;
  readonly metrics: Metrics;
  /** Undefined: switched off. */
  readonly health: ProxyHealth | undefined;
  readonly events: Events;
}

/**
 * Makes the dataplane of a family, with the kernel settings it needs.
 *
 * @throws {Error} If one of them cannot be made.
 */
export function createDataplane({ config, effects, node, nodePortTexts, mode }: Start, family: Family): Dataplane {
  const addresses = nodePortAddresses(nodePortTexts, family);
  const { detectLocalMode, detectLocal } = config;
  const traffic = localTraffic({ ...detectLocal, detectLocalMode, podCIDRs: node.podCIDRs }, family);
  if (traffic.kind === 'none') effects.log.info({ family }, 'traffic of pods is not told from other traffic');
  return mode.createDataplane({
    family,
    localTraffic: traffic,
    nodePortAddresses: addresses,
    nodeIP: node.ips.ips[family],
    localhostNodePorts: config.iptables.localhostNodePorts && addresses.containsIPv4Loopback,
  });
}

/**
 * Joins model, dataplane, health and events of a family. Nothing runs yet.
 *
 * @param onSynced - Called after every sync that succeeded.
 */
export async function createProxier(start: Start, dataplane: Dataplane, onSynced: () => void): Promise<Proxier> {
  const { config, effects, node, metrics, health, events } = start;
  const { clock, log, releaseMemory } = effects;
  const { family } = dataplane;
  const warn = (service: ObjectKey, reason: string, action: string, note: string) =>
    events.record({ regarding: serviceReference(service), type: 'Warning', reason, action, note });
  const model = new Model({
    family,
    nodeName: node.name,
    externalIPsAllowed: isFeatureEnabled(config.featureGates, 'AllowServiceExternalIPs'),
    startMs: clock.now(),
    onUnparsable: ({ service, field, text }) =>
      log.warn({ family, service, field, text: quote(text) }, 'not an address, left out'),
  });
  const addresses = nodePortAddresses(start.nodePortTexts, family);
  const serviceHealth = new ServiceHealth({
    hosts: await listenHosts(effects, family, addresses),
    isProxyHealthy: () => health?.isHealthy() ?? true,
    onListenFailed: (service, port, error) => {
      log.error({ service, port, err: error }, 'health check node port not open, will be tried again');
      const note = `node ${node.name} failed to start healthcheck "${service}" on port ${port}: ${error.message}`;
      warn(service, 'FailedToStartServiceHealthcheck', 'Listen', note);
    },
  });
  const cleanUpFlows = createFlowCleaner({
    family,
    conntrack: effects.conntrack,
    view: () => ({
      services: model.services,
      udpEndpoints: (service) => model.udpEndpoints(service),
      localhostNodePorts: config.iptables.localhostNodePorts && addresses.containsIPv4Loopback,
    }),
    nodePortIPs: async () => selectNodeIPs(addresses, await effects.nodeAddresses()).filter((ip) => !isLoopback(ip)),
    metrics,
    clock,
    log,
  });
  const { minSyncPeriodMs, syncPeriodMs } = config;
  return new Proxier(
    { minSyncPeriodMs, syncPeriodMs, maxSyncPeriodMs: FULL_SYNC_PERIOD_MS },
    {
      model,
      dataplane,
      clock,
      health: health ?? noHealth,
      metrics,
      log,
      serviceHealth,
      cleanUpFlows,
      onSynced,
      releaseMemory,
      onRefused: ({ service, rule, reason }) => {
        const note = `node ${node.name} left this service out (${family}): ${reason}: ${rule}`;
        warn(service, 'FailedToProgramService', 'Sync', note);
      },
    },
  );
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
