/**
 * What IPVS mode depends on beside the plan: fixed for the life of the proxy, or found out at a sync.
 *
 * @module
 */

import type { Cidr, Family, IPAddress, LocalTraffic, NodePortAddresses } from '../../proxier/types.ts';

/** Fixed for the life of the proxy, per family. */
export interface IpvsOptions {
  readonly family: Family;
  /** As the kernel names it, `rr` for example. */
  readonly scheduler: string;
  /** Bit of the packet mark that asks for masquerading, 0..31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  /** Address of this node; the loopback address when it is not known. */
  readonly nodeIP: IPAddress;
  /**
   * External and load balancer IPs are bound to our device, unless they are this node's. False: they are served where they are this
   * node's, and left to the network where they are not; for clusters that publish the addresses of other nodes as load balancer IPs.
   */
  readonly bindsExternalIPs: boolean;
  /** Virtual servers of others on these addresses are left alone. Of this family. */
  readonly excludeCIDRs: readonly Cidr[];
  readonly features: {
    /** iptables ≥ 1.6.2 */
    readonly randomFully: boolean;
  };
}

/** Addresses found out at a sync; may differ at the next. Of this family, none of them loopback, in the order of text. */
export interface NodeFacts {
  /** On any device but ours. They are never bound to ours. */
  readonly nodeAddresses: readonly IPAddress[];
  /** Those that answer on node ports. */
  readonly nodePortIPs: readonly IPAddress[];
}
