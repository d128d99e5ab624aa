/**
 * A rule as data: what it matches, in the order the tool is told, and what then happens. It covers exactly what this
 * mode writes. `format.ts` writes it in the two forms there are.
 *
 * Text from outside (names, interface names) is checked here, where it enters a rule, and nowhere later.
 *
 * @module
 */

import type { Protocol } from '../proxier/types.ts';
import type { ChainName, Table } from './chain.ts';

/** Value and mask of the packet mark are always one bit. */
export type Mark = number & { readonly __brand: 'Mark' };

/** As the tools spell it. */
export type ProtocolName = 'tcp' | 'udp' | 'sctp';

export type Match =
  | { readonly kind: 'comment'; readonly text: string }
  /** `-m p -p p`: loads the match that `dport` is an option of. */
  | { readonly kind: 'protocol'; readonly protocol: ProtocolName }
  /** `-p p`, for rules that ask for nothing more of it. */
  | { readonly kind: 'onlyProtocol'; readonly protocol: ProtocolName }
  /** An address or a CIDR. */
  | { readonly kind: 'source'; readonly address: string; readonly negated: boolean }
  | { readonly kind: 'destination'; readonly address: string; readonly negated: boolean }
  /** A name, or a prefix followed by `+`. */
  | { readonly kind: 'inInterface'; readonly name: string; readonly negated: boolean }
  /** Stands after a `protocol`. */
  | { readonly kind: 'dport'; readonly port: number }
  | { readonly kind: 'ctstate'; readonly states: string; readonly negated: boolean }
  | { readonly kind: 'mark'; readonly mark: Mark; readonly negated: boolean }
  /** An address of this node. */
  | { readonly kind: 'addrtype'; readonly side: 'src' | 'dst'; readonly negated?: boolean }
  /** The packet came in through a port of a bridge. */
  | { readonly kind: 'physdevIn'; readonly negated: boolean }
  /** In an ipset. @see directions `src` or `dst` for each field of its elements, separated by commas. */
  | { readonly kind: 'set'; readonly name: string; readonly directions: string }
  /** Of a connection of this virtual server of IPVS. */
  | {
      readonly kind: 'virtualServer';
      readonly address: string;
      readonly protocol: ProtocolName;
      readonly port: number;
    }
  /** One of `of` packets. 2 or more. */
  | { readonly kind: 'random'; readonly of: number }
  | { readonly kind: 'recentCheck'; readonly list: ChainName; readonly seconds: number }
  | { readonly kind: 'recentSet'; readonly list: ChainName }
  | { readonly kind: 'nfacct'; readonly counter: string };

export type Target =
  | { readonly kind: 'jump'; readonly chain: ChainName }
  | { readonly kind: 'verdict'; readonly verdict: 'ACCEPT' | 'DROP' | 'RETURN' }
  /** ICMP port unreachable. */
  | { readonly kind: 'reject' }
  | { readonly kind: 'masquerade'; readonly randomFully: boolean }
  | { readonly kind: 'setMark'; readonly mark: Mark }
  | { readonly kind: 'flipMark'; readonly mark: Mark }
  /** `ip:port`, IPv6 in brackets. */
  | { readonly kind: 'dnat'; readonly to: string };

export interface Rule {
  readonly matches: readonly Match[];
  /** Undefined: the packet goes on to the next rule. */
  readonly target: Target | undefined;
}

/** A jump from a built-in chain to one of ours. */
export interface Jump {
  readonly table: Table;
  readonly from: ChainName;
  readonly rule: Rule;
}

/**
 * The mark of a bit.
 *
 * @throws {RangeError} If `bit` is not an integer in 0..31.
 */
export function markOfBit(bit: number): Mark {
  if (!Number.isInteger(bit) || bit < 0 || bit > 31) {
    throw new RangeError(`Cannot use ${bit} as a bit of the packet mark: must be an integer in 0..31`);
  }
  return ((1 << bit) >>> 0) as Mark;
}

/**
 * @param text - At most 255 bytes of printable ASCII without quotes and backslashes: the kernel's limit (XT_MAX_COMMENT_LEN
 *   counts the NUL), and nothing that the tool reads as more than text.
 * @throws {RangeError} If it is anything else. Names that the API server accepted never are.
 */
export function comment(text: string): Match {
  if (!/^[ !#-&(-[\]-~]{1,255}$/.test(text)) {
    throw new RangeError(
      `Cannot write comment ${JSON.stringify(text)}: must be 1..255 printable ASCII characters without quote or backslash`,
    );
  }
  return { kind: 'comment', text };
}

const PROTOCOLS = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const satisfies Record<Protocol, string>;
const PROTOCOL_MATCHES: Readonly<Record<Protocol, Match>> = {
  TCP: { kind: 'protocol', protocol: PROTOCOLS.TCP },
  UDP: { kind: 'protocol', protocol: PROTOCOLS.UDP },
  SCTP: { kind: 'protocol', protocol: PROTOCOLS.SCTP },
};

export function protocol(name: Protocol): Match {
  return PROTOCOL_MATCHES[name];
}

/** @param address - Canonical text of an address or a CIDR. */
export function source(address: string, negated = false): Match {
  return { kind: 'source', address, negated };
}

/** @param address - Canonical text of an address or a CIDR. */
export function destination(address: string, negated = false): Match {
  return { kind: 'destination', address, negated };
}

/**
 * @param name - An interface name, or a prefix of one followed by `+`; 1..15 bytes with the `+` (IFNAMSIZ counts the NUL).
 * @throws {RangeError} If it is longer, or holds a blank, a quote, a slash or what else the tool takes apart.
 */
export function inInterface(name: string, negated = false): Match {
  if (!/^[^\s"'\\/!-][^\s"'\\/]*$/.test(name) || Buffer.byteLength(name) > 15) {
    throw new RangeError(
      `Cannot match interface ${JSON.stringify(name)}: must be 1..15 bytes without blank, quote or slash`,
    );
  }
  return { kind: 'inInterface', name, negated };
}

export function dport(port: number): Match {
  return { kind: 'dport', port };
}

/** @param states - As the tool writes them: upper case, separated by commas. */
export function ctstate(states: string, negated = false): Match {
  return { kind: 'ctstate', states, negated };
}

export function jump(chain: ChainName): Target {
  return { kind: 'jump', chain };
}

export const ACCEPT: Target = { kind: 'verdict', verdict: 'ACCEPT' };
export const DROP: Target = { kind: 'verdict', verdict: 'DROP' };
export const RETURN: Target = { kind: 'verdict', verdict: 'RETURN' };
export const REJECT: Target = { kind: 'reject' };

export function rule(matches: readonly Match[], target: Target | undefined): Rule {
  return { matches, target };
}
