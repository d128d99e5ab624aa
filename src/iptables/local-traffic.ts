/**
 * The match that tells packets of pods from others.
 *
 * @module
 */

import { isZeroCidr } from '../proxier/addr.ts';
import { assertNever, type LocalTraffic } from '../proxier/types.ts';
import { inInterface, type Match, source } from './rule.ts';

/** What tells a packet of a pod; undefined if nothing does. */
export function ifLocal(local: LocalTraffic): Match | undefined {
  switch (local.kind) {
    case 'none':
      return undefined;
    case 'cidr':
      return source(local.cidr);
    case 'bridge':
      return inInterface(local.name);
    case 'prefix':
      return inInterface(`${local.prefix}+`);
    default:
      return assertNever(local, 'local traffic');
  }
}

/**
 * What tells a packet of anything else; undefined if nothing does, or if there is nothing else: a CIDR of all addresses
 * never fails to match, and iptables' nft flavour refuses a rule that asks for it.
 */
export function ifNotLocal(local: LocalTraffic): Match | undefined {
  if (local.kind === 'cidr' && isZeroCidr(local.cidr)) return undefined;
  const match = ifLocal(local);
  return match !== undefined && 'negated' in match ? { ...match, negated: true } : undefined;
}
