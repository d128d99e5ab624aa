/**
 * Names in the kernel: chains and counters. Chain names are all the memory a fresh process has of the run before it,
 * so they depend on nothing but what the chain is for. spec: iptables.md §1, §2.
 *
 * @module
 */

import { type ChainName, toChainName } from '../../iptables/chain.ts';
import type { Endpoint, ServicePort } from '../../proxier/types.ts';
import { base32Hash } from '../base32.ts';

export const SERVICES = toChainName('KUBE-SERVICES');
export const EXTERNAL_SERVICES = toChainName('KUBE-EXTERNAL-SERVICES');
export const NODEPORTS = toChainName('KUBE-NODEPORTS');
export const POSTROUTING = toChainName('KUBE-POSTROUTING');
export const MARK_MASQ = toChainName('KUBE-MARK-MASQ');
export const FORWARD = toChainName('KUBE-FORWARD');
export const PROXY_FIREWALL = toChainName('KUBE-PROXY-FIREWALL');
/** Shared with kubelet. */
export const KUBE_FIREWALL = toChainName('KUBE-FIREWALL');
/** Holds nothing; its loss tells that someone flushed the tables. */
export const CANARY = toChainName('KUBE-PROXY-CANARY');

/** Counter of packets dropped because conntrack calls them invalid. */
export const CT_STATE_INVALID_COUNTER = 'ct_state_invalid_dropped_pkts';
/** Counter of packets to node ports on loopback. */
export const LOCALHOST_NODEPORTS_COUNTER = 'localhost_nps_accepted_pkts';

/** First 16 characters of the base32 of SHA-256: 80 bits. */
export function chainHash(text: string): string {
  return base32Hash(text, 16);
}

/** The chains of one service port; they share one hash. */
export interface ServicePortChains {
  readonly clusterPolicy: ChainName;
  readonly localPolicy: ChainName;
  readonly firewall: ChainName;
  readonly external: ChainName;
}

type Identity = Pick<ServicePort, 'name' | 'protocol'>;

export function servicePortChains(port: Identity): ServicePortChains {
  const suffix = chainHash(port.name + port.protocol.toLowerCase());
  return {
    clusterPolicy: `KUBE-SVC-${suffix}` as ChainName,
    localPolicy: `KUBE-SVL-${suffix}` as ChainName,
    firewall: `KUBE-FW-${suffix}` as ChainName,
    external: `KUBE-EXT-${suffix}` as ChainName,
  };
}

/** The chain of one endpoint of one service port. */
export function endpointChain(port: Identity, endpoint: Pick<Endpoint, 'text'>): ChainName {
  return `KUBE-SEP-${chainHash(port.name + port.protocol.toLowerCase() + endpoint.text)}` as ChainName;
}

/** True for a nat chain that belongs to one service or endpoint, whoever made it. */
export function isServiceChain(name: string): boolean {
  return /^KUBE-(?:SVC|SVL|SEP|FW|EXT)-/.test(name);
}
