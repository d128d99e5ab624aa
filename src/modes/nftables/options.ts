/**
 * What the objects depend on besides the plans.
 *
 * @module
 */

import type { Family, IPAddress, LocalTraffic, NodePortAddresses } from '../../proxier/types.ts';

/** Fixed for the life of a dataplane. */
export interface NftablesOptions {
  readonly family: Family;
  /** 0..31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  /** Loopback if unknown. */
  readonly nodeIP: IPAddress;
}

/** Read again by each full sync. */
export interface NftablesFacts {
  /** Addresses node ports answer on, of this family, loopback left out. Empty when all do. */
  readonly nodeIPs: readonly IPAddress[];
  /** CIDRs of this family, as the API has them, in the order received. */
  readonly serviceCIDRs: readonly string[];
}
