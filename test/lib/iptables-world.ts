/**
 * A small world for tests of iptables mode: options, facts, and a service of every kind.
 *
 * @module
 */

import type { DynamicFacts, IptablesOptions } from '../../src/modes/iptables/options.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import type { ServicePlan } from '../../src/proxier/types.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from './make.ts';

/** Pods in 10.0.0.0/8 (or fd00:10::/64), node ports on loopback too, node 192.168.0.2 (or 2001:db8::1). */
export function makeOptions(overrides: Partial<IptablesOptions> = {}): IptablesOptions {
  const { family = 'IPv4' } = overrides;
  const isV4 = family === 'IPv4';
  return {
    family,
    masqueradeBit: 14,
    masqueradeAll: false,
    localhostNodePorts: isV4,
    localTraffic: { kind: 'cidr', cidr: cidr(isV4 ? '10.0.0.0/8' : 'fd00:10::/64') },
    nodePortAddresses: nodePortAddresses([], family),
    nodeIP: ip(isV4 ? '192.168.0.2' : '2001:db8::1'),
    features: { randomFully: true },
    tcpBeLiberal: false,
    ...overrides,
  };
}

/** Both counters exist, no node IPs. */
export function makeFacts(overrides: Partial<DynamicFacts> = {}): DynamicFacts {
  return { nodeIPs: [], counters: { ctStateInvalid: true, localhostNodePorts: true }, ...overrides };
}

const p80 = (i: number) => ({
  namespace: `ns${i}`,
  serviceName: `svc${i}`,
  portName: 'p80',
  clusterIP: ip(`172.30.0.4${i}`),
});

/** Six services, one of every kind. spec: tests.md §2.1, iptables.md §20. */
export const SIX_SERVICES: readonly ServicePlan[] = [
  makePlan(makeServicePort(p80(1)), [makeEndpoint('10.180.0.1')]),
  makePlan(
    makeServicePort({
      ...p80(2),
      externalPolicyLocal: true,
      nodePort: 3001,
      externalIPs: [ip('192.168.99.22')],
      loadBalancerVIPs: [ip('1.2.3.4')],
      healthCheckNodePort: 30000,
    }),
    [makeEndpoint('10.180.0.2')],
  ),
  makePlan(makeServicePort({ ...p80(3), nodePort: 3003 }), [makeEndpoint('10.180.0.3')]),
  makePlan(makeServicePort({ ...p80(4), externalIPs: [ip('192.168.99.33')] }), [
    makeEndpoint('10.180.0.4'),
    makeEndpoint('10.180.0.5', { isLocal: true }),
  ]),
  makePlan(
    makeServicePort({
      ...p80(5),
      nodePort: 3002,
      loadBalancerVIPs: [ip('5.6.7.8')],
      sourceRanges: [cidr('203.0.113.0/25')],
      affinitySeconds: 10800,
    }),
    [makeEndpoint('10.180.0.3')],
  ),
  makePlan(makeServicePort(p80(6))),
];

/** Every policy and condition that decides about a rule, and the three protocols. */
export const POLICIES: readonly ServicePlan[] = [
  makePlan(
    makeServicePort({
      serviceName: 'both-local',
      clusterIP: ip('172.30.1.1'),
      internalPolicyLocal: true,
      externalPolicyLocal: true,
      nodePort: 30001,
      healthCheckNodePort: 30101,
      affinitySeconds: 60,
    }),
    [makeEndpoint('10.180.1.1', { isLocal: true }), makeEndpoint('10.180.1.2')],
  ),
  makePlan(makeServicePort({ serviceName: 'internal-none', clusterIP: ip('172.30.1.2'), internalPolicyLocal: true }), [
    makeEndpoint('10.180.1.3'),
  ]),
  makePlan(
    makeServicePort({
      serviceName: 'node-in-range',
      clusterIP: ip('172.30.1.3'),
      protocol: 'UDP',
      loadBalancerVIPs: [ip('1.2.3.4'), ip('5.6.7.8')],
      sourceRanges: [cidr('192.168.0.0/24'), cidr('203.0.113.0/25')],
    }),
    [makeEndpoint('10.180.1.4'), makeEndpoint('10.180.1.5'), makeEndpoint('10.180.1.6', { isLocal: true })],
  ),
  makePlan(
    makeServicePort({
      serviceName: 'nobody',
      clusterIP: ip('172.30.1.4'),
      protocol: 'SCTP',
      nodePort: 30004,
      externalIPs: [ip('192.168.99.44')],
      loadBalancerVIPs: [ip('9.9.9.9')],
    }),
  ),
];

/** The same in IPv6, as far as addresses tell. */
export const IPV6_SERVICES: readonly ServicePlan[] = [
  makePlan(
    makeServicePort({
      serviceName: 'six',
      clusterIP: ip('fd00:43::1'),
      nodePort: 30006,
      externalIPs: [ip('2001:db8:99::1')],
      loadBalancerVIPs: [ip('2001:db8:7::7')],
      sourceRanges: [cidr('2001:db8::/64')],
      affinitySeconds: 10800,
    }),
    [makeEndpoint('fd00:10::1', { isLocal: true }), makeEndpoint('fd00:10:0:1::2')],
  ),
  makePlan(makeServicePort({ serviceName: 'no', clusterIP: ip('fd00:43::2') })),
];
