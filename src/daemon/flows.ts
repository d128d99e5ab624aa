/**
 * Cleans up UDP flows after a sync: asks the kernel for the flows in question, and deletes those that are stale.
 *
 * @module
 */

import type { Conntrack, FlowList } from '../netlink/conntrack.ts';
import { kernelAnswered, NetlinkError } from '../netlink/error.ts';
import { type FlowFilter, type FlowView, staleFlows, type UdpServices } from '../proxier/flows.ts';
import type { Metrics } from '../proxier/metrics.ts';
import type { Log } from '../proxier/proxier.ts';
import type { Family, IPAddress } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';

export interface FlowCleanerDeps {
  readonly family: Family;
  readonly conntrack: Conntrack;
  /** What is now. Called at each clean-up. */
  readonly view: () => Omit<FlowView, 'nodePortIPs'>;
  /** Addresses of this node that answer on node ports. Called at each clean-up: they may change. */
  readonly nodePortIPs: () => Promise<readonly IPAddress[]>;
  readonly metrics: Pick<Metrics, 'conntrackReconcileDuration' | 'conntrackDeleted'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** A kernel without ctnetlink, or without netfilter at all. */
function isUnsupported(error: unknown): boolean {
  const failure = error instanceof NetlinkError ? error.failure : undefined;
  return kernelAnswered(error, 'EINVAL') || (failure?.code === 'SOCKET' && failure.name === 'EPROTONOSUPPORT');
}

/**
 * The clean-up of one family: one dump at most, none if no Service in question has or had a UDP port.
 *
 * @returns To be called after the rules are in the kernel. Throws NetlinkError if flows cannot be listed or deleted; on a
 *   kernel that has none it does nothing.
 */
export function createFlowCleaner(deps: FlowCleanerDeps) {
  const { family, conntrack, metrics, clock, log } = deps;
  let isSupported = true;
  return async (changed: UdpServices, signal: AbortSignal): Promise<void> => {
    if (!isSupported) return;
    const startMs = clock.now();
    const filter = staleFlows(changed, { ...deps.view(), nodePortIPs: await deps.nodePortIPs() });
    if (filter.toPorts.size === 0) return;
    try {
      const stale = await listStale(filter, signal);
      if (stale.length === 0) return;
      const { deleted, errors } = await conntrack.delete(stale, signal);
      metrics.conntrackDeleted.inc({ ip_family: family }, deleted);
      log.info({ family, flows: deleted, services: changed.size }, 'stale UDP flows deleted');
      if (errors[0] !== undefined) throw errors[0];
    } catch (error) {
      if (!isUnsupported(error)) throw error;
      isSupported = false;
      log.warn({ family, err: error }, 'this kernel does not list flows: UDP flows to endpoints that are gone live on');
    } finally {
      metrics.conntrackReconcileDuration.observe({ ip_family: family }, (clock.now() - startMs) / 1000);
    }
  };

  async function listStale({ toPorts, isStale, withoutThoseOfOthers }: FlowFilter, signal: AbortSignal) {
    const list: FlowList = await conntrack.listUdp({ family, toPorts, isWanted: isStale }, signal);
    if (!list.complete) log.warn({ family }, 'flows kept changing while they were listed: some may have been missed');
    return withoutThoseOfOthers(list.flows);
  }
}
