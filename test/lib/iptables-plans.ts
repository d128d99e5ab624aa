/**
 * Arbitrary plans: few services of every shape, so that two states have much in common.
 *
 * @module
 */

import fc from 'fast-check';
import type { Family, ServicePlan } from '../../src/proxier/types.ts';
import { cidr, ip, makeEndpoint, makePortPlan, makeServicePort } from './make.ts';

const UNIVERSE = {
  IPv4: {
    cluster: (n: number) => `172.30.1.${n}`,
    pod: (n: number) => `10.180.0.${n}`,
    external: ['1.1.1.1', '2.2.2.2'],
    vips: ['5.6.7.8', '9.9.9.9'],
    ranges: ['203.0.113.0/25', '192.168.0.0/24', '0.0.0.0/0'],
  },
  IPv6: {
    cluster: (n: number) => `fd00:43::${n}`,
    pod: (n: number) => `fd00:10::${n}`,
    external: ['2001:db8:99::1', '2001:db8:99::2'],
    vips: ['2001:db8:7::7', '2001:db8:7::8'],
    ranges: ['2001:db8::/64', 'fd00:5::/48', '::/0'],
  },
} as const;

function arbPlan(family: Family, n: number): fc.Arbitrary<ServicePlan> {
  const world = UNIVERSE[family];
  const arbPort = fc.record({
    portName: fc.constantFrom('', 'http'),
    protocol: fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const),
    nodePort: fc.constantFrom(0, 30000 + n),
    affinitySeconds: fc.constantFrom(undefined, undefined, 10800, 60),
    externalIPs: fc.subarray(world.external.map(ip)),
    loadBalancerVIPs: fc.subarray(world.vips.map(ip)),
    sourceRanges: fc.subarray(world.ranges.map(cidr)),
    externalPolicyLocal: fc.boolean(),
    internalPolicyLocal: fc.boolean(),
    healthCheckNodePort: fc.constantFrom(0, 31000 + n),
  });
  const arbEndpoints = fc
    .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.boolean()), { selector: ([host]) => host, maxLength: 4 })
    .map((hosts) => hosts.map(([host, isLocal]) => makeEndpoint(world.pod(host), { isLocal })));
  return fc
    .uniqueArray(fc.tuple(arbPort, arbEndpoints), {
      selector: ([{ portName, protocol }]) => `${portName} ${protocol}`,
      minLength: 1,
      maxLength: 2,
    })
    .map((ports) => {
      const of = { serviceName: `svc${n}`, clusterIP: ip(world.cluster(n)) };
      const plans = ports.map(([port, endpoints]) => makePortPlan(makeServicePort({ ...port, ...of }), endpoints));
      const [{ port } = { port: makeServicePort(of) }] = plans;
      return { service: port.service, ports: plans };
    });
}

/** Plans of up to five services, keys `ns1/svc1` to `ns1/svc5`. */
export function arbPlansOf(family: Family): fc.Arbitrary<ServicePlan[]> {
  return fc.subarray([1, 2, 3, 4, 5]).chain((numbers) => fc.tuple(...numbers.map((n) => arbPlan(family, n))));
}

export const arbPlans: fc.Arbitrary<ServicePlan[]> = arbPlansOf('IPv4');
