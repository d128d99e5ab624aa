/**
 * Ranges of addresses that do not overlap: the kernel takes no others in one set. Pure.
 *
 * @module
 */

import { cidrContains, parseCidr } from '../../proxier/addr.ts';
import { type Cidr, compareText, type IPAddress } from '../../proxier/types.ts';

/**
 * The same addresses without what lies in another range.
 *
 * @returns Sorted by text.
 */
export function withoutContained(ranges: readonly Cidr[], addresses: readonly IPAddress[]): readonly string[] {
  const distinct = [...new Set(ranges)];
  // Two CIDRs are apart, or one of them contains the other, first address and all.
  const largest = distinct.filter((range) => !distinct.some((other) => other !== range && contains(other, range)));
  const alone = addresses.filter((ip) => !largest.some((range) => cidrContains(range, ip)));
  return [...new Set<string>([...largest, ...alone])].sort(compareText);
}

function contains(outer: Cidr, inner: Cidr): boolean {
  const [large, small] = [parseCidr(outer), parseCidr(inner)];
  if (large === undefined || small === undefined) return false;
  return large.prefixLength < small.prefixLength && cidrContains(outer, small.address);
}
