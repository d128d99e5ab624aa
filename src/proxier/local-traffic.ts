/**
 * How traffic of pods is told from other traffic: the choice of detectLocalMode, per family.
 *
 * @module
 */

import { cidrsOfFamily, type OnUnparsable } from './addr.ts';
import type { Cidr, Family, LocalTraffic } from './types.ts';

export interface LocalTrafficOptions {
  /** `ClusterCIDR`, `NodeCIDR`, `BridgeInterface`, `InterfaceNamePrefix`; anything else tells nothing from nothing. */
  readonly detectLocalMode: string;
  /** The first of each family counts. */
  readonly clusterCIDRs: readonly string[];
  /** spec.podCIDRs of our Node. The first of each family counts. */
  readonly podCIDRs: readonly string[];
  readonly bridgeInterface: string;
  readonly interfaceNamePrefix: string;
  readonly onUnparsable?: OnUnparsable;
}

const NONE: LocalTraffic = { kind: 'none' };

/** Detector of one family. Without a CIDR of the family, or without a name, it is `none`. */
export function localTraffic(options: LocalTrafficOptions, family: Family): LocalTraffic {
  const { bridgeInterface, interfaceNamePrefix, onUnparsable } = options;
  switch (options.detectLocalMode) {
    case 'ClusterCIDR':
      return byCidr(cidrsOfFamily(options.clusterCIDRs, family, onUnparsable));
    case 'NodeCIDR':
      return byCidr(cidrsOfFamily(options.podCIDRs, family, onUnparsable));
    case 'BridgeInterface':
      return bridgeInterface === '' ? NONE : { kind: 'bridge', name: bridgeInterface };
    case 'InterfaceNamePrefix':
      return interfaceNamePrefix === '' ? NONE : { kind: 'prefix', prefix: interfaceNamePrefix };
    default:
      return NONE;
  }
}

function byCidr([cidr]: readonly Cidr[]): LocalTraffic {
  return cidr === undefined ? NONE : { kind: 'cidr', cidr };
}
