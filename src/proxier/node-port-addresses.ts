/**
 * Which addresses of the node answer on node ports.
 *
 * @module
 */

import { cidrContains, cidrsOfFamily, IPV4_LOOPBACK_START, isZeroCidr, type OnUnparsable } from './addr.ts';
import { type Cidr, compareText, type Family, type IPAddress, type NodePortAddresses } from './types.ts';

const ALL: Readonly<Record<Family, string>> = { IPv4: '0.0.0.0/0', IPv6: '::/0' };

/**
 * Reads the list of nodePortAddresses for one family, the word `primary` replaced already.
 *
 * A list without any CIDR of the family means all addresses of that family. The first CIDR that holds everything ends
 * the list: what stands behind it is not looked at, what stands before still tells about loopback.
 *
 * @param texts - CIDRs of either family.
 */
export function nodePortAddresses(
  texts: readonly string[],
  family: Family,
  onUnparsable?: OnUnparsable,
): NodePortAddresses {
  const cidrs: Cidr[] = [];
  let containsIPv4Loopback = false;
  const ours = cidrsOfFamily(texts, family, onUnparsable);
  for (const cidr of ours.length > 0 ? ours : cidrsOfFamily([ALL[family]], family)) {
    // A CIDR below 127.0.0.0/8 counts by its first address, one above it by holding the start of it.
    if (family === 'IPv4' && (cidr.startsWith('127.') || cidrContains(cidr, IPV4_LOOPBACK_START))) {
      containsIPv4Loopback = true;
    }
    if (isZeroCidr(cidr)) return { matchAll: true, cidrs: [cidr], containsIPv4Loopback };
    cidrs.push(cidr);
  }
  return { matchAll: false, cidrs, containsIPv4Loopback };
}

/**
 * Picks the addresses that answer on node ports. Loopback is among them where the list covers it: whether it counts
 * is up to the mode.
 *
 * @param addresses - All addresses of all interfaces, both families.
 * @returns Without duplicates, in the order of text, so that the order of interfaces does not matter.
 */
export function selectNodeIPs(selection: NodePortAddresses, addresses: readonly IPAddress[]): readonly IPAddress[] {
  return [...new Set(addresses)]
    .filter((ip) => selection.cidrs.some((cidr) => cidrContains(cidr, ip)))
    .sort(compareText);
}
