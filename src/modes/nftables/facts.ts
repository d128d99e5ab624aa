/**
 * What the objects depend on that only this node and the cluster know.
 *
 * @module
 */

import { cidrsOfFamily, isLoopback } from '../../proxier/addr.ts';
import { selectNodeIPs } from '../../proxier/node-port-addresses.ts';
import type { Family, IPAddress } from '../../proxier/types.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';

export interface FactsDeps {
  /** All addresses of all interfaces, up or down, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
  /** Something could not be found out; the objects do without it. */
  readonly onUnknown: (error: unknown, what: string) => void;
}

/**
 * Looks at the node.
 *
 * @param serviceCIDRs - Of both families.
 * @param last - A list of addresses that cannot be had is replaced by the one of these, so that node ports go on answering.
 */
export async function readFacts(
  options: NftablesOptions,
  serviceCIDRs: readonly string[],
  deps: FactsDeps,
  last: NftablesFacts | undefined,
): Promise<NftablesFacts> {
  const cidrs = cidrsOfFamily(serviceCIDRs, options.family);
  if (options.nodePortAddresses.matchAll) return { nodeIPs: [], serviceCIDRs: cidrs };
  try {
    const selected = selectNodeIPs(options.nodePortAddresses, await deps.nodeAddresses());
    return { nodeIPs: selected.filter((ip) => !isLoopback(ip)), serviceCIDRs: cidrs };
  } catch (error) {
    deps.onUnknown(error, 'addresses of this node');
    return { nodeIPs: last?.nodeIPs ?? [], serviceCIDRs: cidrs };
  }
}

/** True if these facts are of other service CIDRs than there are now (of both families), in whatever order. */
export function haveServiceCIDRsChanged(
  facts: NftablesFacts,
  serviceCIDRs: readonly string[],
  family: Family,
): boolean {
  const before = new Set(facts.serviceCIDRs);
  const now = new Set<string>(cidrsOfFamily(serviceCIDRs, family));
  return before.size !== now.size || [...now].some((cidr) => !before.has(cidr));
}
