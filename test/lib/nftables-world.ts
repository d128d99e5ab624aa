/**
 * What tests of nftables mode render with.
 *
 * @module
 */

import type { NftablesFacts, NftablesOptions } from '../../src/modes/nftables/options.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import { cidr, ip } from './make.ts';

/** Pods in 10.0.0.0/8 (or fd00:10::/64), node 192.168.0.2 (or 2001:db8::1), whose address alone answers on node ports. */
export function makeNftOptions(overrides: Partial<NftablesOptions> = {}): NftablesOptions {
  const { family = 'IPv4' } = overrides;
  const isV4 = family === 'IPv4';
  return {
    family,
    masqueradeBit: 14,
    masqueradeAll: false,
    localTraffic: { kind: 'cidr', cidr: cidr(isV4 ? '10.0.0.0/8' : 'fd00:10::/64') },
    nodePortAddresses: nodePortAddresses([isV4 ? '192.168.0.2/32' : '2001:db8::1/128'], family),
    nodeIP: ip(isV4 ? '192.168.0.2' : '2001:db8::1'),
    ...overrides,
  };
}

/** No service CIDRs; the node's address is there. */
export function makeNftFacts(overrides: Partial<NftablesFacts> = {}): NftablesFacts {
  return { nodeIPs: [ip('192.168.0.2')], serviceCIDRs: [], ...overrides };
}
