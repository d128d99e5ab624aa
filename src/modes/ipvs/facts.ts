/**
 * Which addresses of this node matter: those that must not be bound, and those that answer on node ports. Pure. spec: ipvs.md §6.7, §6.8.
 *
 * @module
 */

import { familyOf, isLoopback } from '../../proxier/addr.ts';
import { selectNodeIPs } from '../../proxier/node-port-addresses.ts';
import { compareText, type IPAddress } from '../../proxier/types.ts';
import type { IpvsOptions, NodeFacts } from './options.ts';

/** An address of this node. */
export interface HostAddress {
  readonly ip: IPAddress;
  /** On our own device. */
  readonly isOurs: boolean;
}

/** fe80::/10 */
function isLinkLocalIPv6(ip: IPAddress): boolean {
  return /^fe[89ab]/.test(ip);
}

/** @param addresses - All addresses of all devices, both families. */
export function nodeFacts(
  { family, nodePortAddresses }: Pick<IpvsOptions, 'family' | 'nodePortAddresses'>,
  addresses: readonly HostAddress[],
): NodeFacts {
  const usable = addresses.filter(({ ip }) => familyOf(ip) === family && !isLoopback(ip) && !isLinkLocalIPv6(ip));
  const others = usable.filter(({ isOurs }) => !isOurs).map(({ ip }) => ip);
  const nodeAddresses = [...new Set(others)].sort(compareText);
  if (nodePortAddresses.matchAll) return { nodeAddresses, nodePortIPs: nodeAddresses };
  // A service address that the selection covers answers on node ports too.
  const nodePortIPs = selectNodeIPs(
    nodePortAddresses,
    usable.map(({ ip }) => ip),
  );
  return { nodeAddresses, nodePortIPs };
}
