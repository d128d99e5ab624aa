/**
 * An nf_tables transaction as data: objects of one table of one family, and what is to be done with them. Two writers make
 * something of it: `text.ts` the language of `nft -f`, `encode.ts` the bytes for the kernel.
 *
 * Objects are named as nft(8) names them. Addresses, protocols and ports are the family's own: `saddr` is `ip saddr` or
 * `ip6 saddr`.
 *
 * @module
 */

/** Family of a table; decides what addresses are. */
export type NftFamily = 'ip' | 'ip6';

/** Type of one field of a set's key or of a map's data. `addr` is ipv4_addr or ipv6_addr, by the family of the table. */
export type FieldType = 'addr' | 'inet_proto' | 'inet_service' | 'mark' | 'classid' | 'integer';

/**
 * A value of one field: canonical text of an address (or, in sets with intervals, of a CIDR), `tcp` | `udp` | `sctp` for
 * inet_proto, `a1b2:c3d4` (hexadecimal, without leading zeros) for classid, a number for the others.
 */
export type Scalar = string | number;

export type Verdict =
  | { readonly kind: 'accept' | 'drop' | 'return' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

/** A named set, or a map if it has `data`. */
export interface SetObject {
  /** At most 255 bytes. */
  readonly name: string;
  /** More than one: a concatenation. */
  readonly key: readonly FieldType[];
  readonly data?: 'verdict' | readonly FieldType[];
  /** In the order nft prints them. `interval` in a concatenation makes every field a range (a single value is one of itself). */
  readonly flags?: readonly ('dynamic' | 'interval' | 'timeout')[];
  /** Of every element that has none of its own. */
  readonly timeoutSeconds?: number;
  /** Most elements the set may hold. Undefined: no limit (65535 once a rule adds to it). */
  readonly size?: number;
  readonly comment?: string;
}

export interface SetElement {
  /** One value for each field of the key. */
  readonly key: readonly Scalar[];
  /** Only in maps: the verdict, or one value for each field of the data. */
  readonly data?: Verdict | readonly Scalar[];
  /** Of its own, in sets with timeouts; else that of the set. */
  readonly timeoutMs?: number;
  /** What is left of the time. Written, it begins with that; read, it is there in every set with timeouts. */
  readonly expiresMs?: number;
  readonly comment?: string;
}

/** A chain; with `base`, one the kernel's hooks call. */
export interface ChainObject {
  readonly name: string;
  readonly base?: {
    readonly type: 'filter' | 'nat';
    readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
    readonly priority: number;
  };
  readonly comment?: string;
}

/** Something a packet has, or a number drawn for it: `numgen random mod N`, 0..N-1. Several make a concatenation. */
export type Field =
  | 'saddr'
  | 'daddr'
  | 'l4proto'
  | 'sport'
  | 'dport'
  | 'mark'
  /** `meta priority`: of the packet in the queues of an interface. */
  | 'priority'
  /** `ct original daddr`, `ct original proto-dst`: where the packet was sent to before its destination was translated. */
  | 'originalDaddr'
  | 'originalDport'
  | { readonly random: number };

/** A map a rule looks up: by name, or written in the rule (an anonymous map, which lives and dies with its rule). */
export type MapReference =
  | { readonly kind: 'named'; readonly map: string }
  | {
      readonly kind: 'anonymous';
      /**
       * The kernel's name of it, free in the table and, to be known after a restart, telling what it holds: nothing can be
       * added to it later. nft(8) prints the elements, never the name.
       */
      readonly name: string;
      readonly elements: readonly SetElement[];
    };

/** One part of a rule, from left to right: matches, then what is done with the packet. */
export type Statement =
  | { readonly kind: 'ctStateNew' }
  | { readonly kind: 'ctStatusDnat' }
  /** `mark and MASK != 0` */
  | { readonly kind: 'markHas'; readonly mask: number }
  /** `mark set mark or MASK`, `mark set mark xor MASK` */
  | { readonly kind: 'setMark'; readonly op: 'or' | 'xor'; readonly mask: number }
  /** `meta priority set FIELDS map @MAP`; the data of the map is a `classid`. Nothing after it is done if the map has nothing. */
  | { readonly kind: 'setPriority'; readonly fields: readonly Field[]; readonly map: MapReference }
  /** `meta priority set none` */
  | { readonly kind: 'clearPriority' }
  /**
   * An address against CIDRs as written (masked text; a single address is one of full length). One is a comparison, of whichever
   * family it is; several make an anonymous set of intervals, merged, named `name`, which is mandatory then. With a name, text
   * has braces even around one.
   */
  | {
      readonly kind: 'address';
      readonly side: 'saddr' | 'daddr';
      readonly negated: boolean;
      readonly cidrs: readonly string[];
      readonly name?: string;
    }
  | { readonly kind: 'l4proto'; readonly protocol: 'tcp' | 'udp' | 'sctp' }
  /** `wildcard`: every interface whose name begins so. */
  | { readonly kind: 'iifname'; readonly name: string; readonly wildcard: boolean; readonly negated: boolean }
  /** `fib saddr|daddr type local` */
  | { readonly kind: 'fibLocal'; readonly side: 'saddr' | 'daddr' }
  /** `FIELDS @SET`, `FIELDS != @SET` */
  | { readonly kind: 'inSet'; readonly fields: readonly Field[]; readonly set: string; readonly negated?: boolean }
  /** `FIELDS vmap @MAP` */
  | { readonly kind: 'vmap'; readonly fields: readonly Field[]; readonly map: MapReference }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  /** ICMP port unreachable, of the family. */
  | { readonly kind: 'reject' }
  /** `masquerade fully-random` */
  | { readonly kind: 'masquerade' }
  /** `dnat to ADDRESS:PORT` */
  | { readonly kind: 'dnat'; readonly address: string; readonly port: number }
  /** `dnat ip addr . port to FIELDS map @MAP`; the data of the map are `addr . inet_service`. */
  | { readonly kind: 'dnatMap'; readonly fields: readonly Field[]; readonly map: MapReference }
  /** `add|update|delete @SET { FIELDS [timeout T] [: DATA] }`: the packet path changes a dynamic set. */
  | {
      readonly kind: 'dynamic';
      readonly op: 'add' | 'update' | 'delete';
      readonly set: string;
      readonly fields: readonly Field[];
      readonly data?: readonly Field[];
      readonly timeoutSeconds?: number;
    };

export interface RuleObject {
  readonly chain: string;
  readonly statements: readonly Statement[];
  readonly comment?: string;
}

/** One thing to do. What is added must not be there, or be there just so; what is deleted must be there. */
export type Command =
  | { readonly verb: 'add'; readonly object: 'table'; readonly comment?: string }
  | { readonly verb: 'delete'; readonly object: 'table' }
  | { readonly verb: 'add'; readonly object: 'chain'; readonly chain: ChainObject }
  | { readonly verb: 'flush' | 'delete'; readonly object: 'chain'; readonly name: string }
  | { readonly verb: 'add'; readonly object: 'set'; readonly set: SetObject }
  /** `isMap` only chooses the word in text. */
  | { readonly verb: 'flush' | 'delete'; readonly object: 'set'; readonly name: string; readonly isMap: boolean }
  /** At the end of its chain. */
  | { readonly verb: 'add'; readonly object: 'rule'; readonly rule: RuleObject }
  /** Deleting looks at keys only. */
  | {
      readonly verb: 'add' | 'delete';
      readonly object: 'element';
      readonly set: SetObject;
      readonly elements: readonly SetElement[];
    };

/** What the kernel does whole or not at all, in this order. */
export interface Transaction {
  readonly family: NftFamily;
  readonly table: string;
  readonly commands: readonly Command[];
}
