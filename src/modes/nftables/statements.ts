/**
 * Parts of rules that both layouts use.
 *
 * @module
 */

import type { Field, SetObject, Statement, Verdict } from '../../netlink/nftables/transaction.ts';
import { assertNever, type Family, type LocalTraffic, type Protocol } from '../../proxier/types.ts';
import type { NftablesOptions } from './options.ts';

export const DROP: Statement = { kind: 'verdict', verdict: { kind: 'drop' } };
export const REJECT: Statement = { kind: 'reject' };
/** `fib saddr type local`: the packet comes from this node. */
export const FROM_NODE: Statement = { kind: 'fibLocal', side: 'saddr' };

/** Address, protocol and port a packet goes to. */
export const FRONTEND: readonly Field[] = ['daddr', 'l4proto', 'dport'];
/** Protocol and port a packet goes to, where the address was looked at before. */
export const NODE_PORT: readonly Field[] = ['l4proto', 'dport'];

const PROTOCOLS: Readonly<Record<Protocol, 'tcp' | 'udp' | 'sctp'>> = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' };

/** As nft spells it. */
export function protocolWord(protocol: Protocol): 'tcp' | 'udp' | 'sctp' {
  return PROTOCOLS[protocol];
}

export function gotoChain(chain: string): Verdict {
  return { kind: 'goto', chain };
}

export function verdict(verdict: Verdict): Statement {
  return { kind: 'verdict', verdict };
}

export function inSet(fields: readonly Field[], set: SetObject): Statement {
  return { kind: 'inSet', fields, set: set.name };
}

export function notInSet(fields: readonly Field[], set: SetObject): Statement {
  return { kind: 'inSet', fields, set: set.name, negated: true };
}

export function vmap(fields: readonly Field[], map: SetObject): Statement {
  return { kind: 'vmap', fields, map: { kind: 'named', map: map.name } };
}

/** The bit of the packet mark that asks for masquerading, as a mask. */
export function masqueradeMask({ masqueradeBit }: Pick<NftablesOptions, 'masqueradeBit'>): number {
  return 2 ** masqueradeBit;
}

/** `mark set mark or MASK` */
export function askForMasquerade(options: Pick<NftablesOptions, 'masqueradeBit'>): Statement {
  return { kind: 'setMark', op: 'or', mask: masqueradeMask(options) };
}

/**
 * A match of what comes from pods of this node or cluster, or of everything else.
 *
 * @returns Undefined if they cannot be told apart.
 */
export function podTraffic(localTraffic: LocalTraffic, isFromPods: boolean): Statement | undefined {
  const negated = !isFromPods;
  switch (localTraffic.kind) {
    case 'none':
      return undefined;
    case 'cidr':
      return { kind: 'address', side: 'saddr', negated, cidrs: [localTraffic.cidr] };
    case 'bridge':
      return { kind: 'iifname', name: localTraffic.name, wildcard: false, negated };
    case 'prefix':
      return { kind: 'iifname', name: localTraffic.prefix, wildcard: true, negated };
    default:
      return assertNever(localTraffic, 'local traffic');
  }
}

const LOOPBACK: Readonly<Record<Family, string>> = { IPv4: '127.0.0.0/8', IPv6: '::1' };

/** `daddr != LOOPBACK`: node ports do not answer there. */
export function notToLoopback(family: Family): Statement {
  return { kind: 'address', side: 'daddr', negated: true, cidrs: [LOOPBACK[family]] };
}
