/**
 * What the rules of one IP family depend on beside the plan: fixed for the life of the proxy, or found out at a sync.
 *
 * @module
 */

import type { Family, IPAddress, LocalTraffic, NodePortAddresses } from '../../proxier/types.ts';

/** Fixed for the life of the proxy, per family. */
export interface IptablesOptions {
  readonly family: Family;
  /** Bit of the packet mark that asks for masquerading, 0..31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  /** Node ports answer on loopback: the effective value, so never true for IPv6. spec: iptables.md §16. */
  readonly localhostNodePorts: boolean;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  /** Address of this node; the loopback address when it is not known. */
  readonly nodeIP: IPAddress;
  readonly features: {
    /** iptables ≥ 1.6.2 */
    readonly randomFully: boolean;
  };
  /** nf_conntrack_tcp_be_liberal is set: packets that conntrack finds invalid are not dropped. */
  readonly tcpBeLiberal: boolean;
}

/** Found out at a sync; may differ at the next. */
export interface DynamicFacts {
  /** Addresses of this node inside `nodePortAddresses.cidrs`, any order. Not read when all addresses match. */
  readonly nodeIPs: readonly IPAddress[];
  /** Which nfacct counters exist. A rule that names one that does not exist is refused by the kernel. */
  readonly counters: {
    readonly ctStateInvalid: boolean;
    readonly localhostNodePorts: boolean;
  };
}
