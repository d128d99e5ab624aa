/**
 * Builders of objects and records for tests: something valid, and what the test is about given on top.
 *
 * @module
 */

import { joinHostPort, parseCidr, parseIP } from '../../src/proxier/addr.ts';
import { planPort } from '../../src/proxier/plan.ts';
import { servicePortName } from '../../src/proxier/services.ts';
import { objectKey } from '../../src/proxier/slices.ts';
import type {
  Cidr,
  Endpoint,
  EndpointSliceObject,
  IPAddress,
  NodeObject,
  ServiceObject,
  ServicePlan,
  ServicePort,
  ServicePortPlan,
  ServicePortSpec,
  SliceEndpoint,
  SlicePort,
} from '../../src/proxier/types.ts';

/** The node of every test. */
export const NODE_NAME = 'test-node';

/** @throws {SyntaxError} If the text is no address. */
export function ip(text: string): IPAddress {
  const parsed = parseIP(text);
  if (parsed === undefined) throw new SyntaxError(`Cannot use "${text}" in a test: must be an address`);
  return parsed.ip;
}

/** @throws {SyntaxError} If the text is no CIDR. */
export function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new SyntaxError(`Cannot use "${text}" in a test: must be a CIDR`);
  return parsed.cidr;
}

/** An unnamed TCP port 80 without node port. */
export function makePort(overrides: Partial<ServicePortSpec> = {}): ServicePortSpec {
  return { name: '', protocol: 'TCP', port: 80, nodePort: 0, ...overrides };
}

/**
 * A ClusterIP Service `ns1/svc1` at 172.30.1.1 with one port, as the API would have it.
 * `clusterIPs` and `ipFamilies` follow `clusterIP` where they are not given.
 */
export function makeService(overrides: Partial<Omit<ServiceObject, 'kind' | 'key'>> = {}): ServiceObject {
  const { namespace = 'ns1', name = 'svc1', clusterIP = '172.30.1.1' } = overrides;
  const plain = clusterIP === '' || clusterIP === 'None';
  return {
    kind: 'Service',
    key: objectKey(namespace, name),
    namespace,
    name,
    resourceVersion: '1',
    type: 'ClusterIP',
    clusterIP,
    clusterIPs: clusterIP === '' ? [] : [clusterIP],
    ipFamilies: plain ? [] : [clusterIP.includes(':') ? 'IPv6' : 'IPv4'],
    ports: [makePort()],
    sessionAffinity: 'None',
    sessionAffinitySeconds: 10800,
    externalIPs: [],
    loadBalancerSourceRanges: [],
    ingress: [],
    externalTrafficPolicy: '',
    internalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
    ...overrides,
  };
}

/** An endpoint of a slice: ready, serving, on no known node. */
export function makeSliceEndpoint(address: string, overrides: Partial<SliceEndpoint> = {}): SliceEndpoint {
  return {
    address,
    nodeName: '',
    ready: true,
    serving: true,
    terminating: false,
    zoneHints: [],
    nodeHints: [],
    ...overrides,
  };
}

/** An unnamed TCP port 80 of a slice. */
export function makeSlicePort(overrides: Partial<SlicePort> = {}): SlicePort {
  return { name: '', port: 80, protocol: 'TCP', ...overrides };
}

/** The slice `ns1/svc1-1` of `ns1/svc1`, with one port and one endpoint, 10.180.0.1. */
export function makeSlice(overrides: Partial<Omit<EndpointSliceObject, 'kind' | 'key'>> = {}): EndpointSliceObject {
  const { namespace = 'ns1', serviceName = 'svc1', name = `${serviceName}-1` } = overrides;
  return {
    kind: 'EndpointSlice',
    key: objectKey(namespace, name),
    namespace,
    name,
    resourceVersion: '1',
    addressType: 'IPv4',
    serviceName,
    ports: [makeSlicePort()],
    endpoints: [makeSliceEndpoint('10.180.0.1')],
    triggerTimeMs: undefined,
    ...overrides,
  };
}

/** The node of every test, 192.168.0.2, without zone or pod CIDRs. */
export function makeNode(overrides: Partial<Omit<NodeObject, 'kind' | 'key'>> = {}): NodeObject {
  const { name = NODE_NAME } = overrides;
  return {
    kind: 'Node',
    key: objectKey('', name),
    name,
    resourceVersion: '1',
    zone: '',
    podCIDRs: [],
    addresses: [{ type: 'InternalIP', address: '192.168.0.2' }],
    deleting: false,
    taintKeys: [],
    ...overrides,
  };
}

/** The record of `ns1/svc1`, TCP 172.30.1.1:80. Names and `externallyAccessible` follow the other fields. */
export function makeServicePort(overrides: Partial<Omit<ServicePort, 'service' | 'name'>> = {}): ServicePort {
  const { namespace = 'ns1', serviceName = 'svc1', portName = '' } = overrides;
  const { nodePort = 0, externalIPs = [], loadBalancerVIPs = [] } = overrides;
  return {
    service: objectKey(namespace, serviceName),
    namespace,
    serviceName,
    name: servicePortName(namespace, serviceName, portName),
    portName,
    protocol: 'TCP',
    clusterIP: ip('172.30.1.1'),
    port: 80,
    nodePort,
    affinitySeconds: undefined,
    externalIPs,
    sourceRanges: [],
    loadBalancerVIPs,
    externalPolicyLocal: false,
    internalPolicyLocal: false,
    healthCheckNodePort: 0,
    externallyAccessible: nodePort !== 0 || externalIPs.length > 0 || loadBalancerVIPs.length > 0,
    ...overrides,
  };
}

/** A ready endpoint elsewhere: `makeEndpoint('10.180.0.1')` at port 80. */
export function makeEndpoint(address: string, overrides: Partial<Omit<Endpoint, 'ip' | 'text'>> = {}): Endpoint {
  const { port = 80 } = overrides;
  return {
    ip: ip(address),
    port,
    text: joinHostPort(ip(address), port),
    isLocal: false,
    ready: true,
    serving: true,
    terminating: false,
    zoneHints: [],
    nodeHints: [],
    ...overrides,
  };
}

/** The plan of a service port on the test's node, its endpoints put in order. */
export function makePortPlan(port: ServicePort, endpoints: readonly Endpoint[] = [], zone = ''): ServicePortPlan {
  const sorted = endpoints.toSorted((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));
  return planPort(port, sorted, { nodeName: NODE_NAME, zone });
}

/** The plan of a Service of one port. */
export function makePlan(port: ServicePort = makeServicePort(), endpoints: readonly Endpoint[] = []): ServicePlan {
  return { service: port.service, ports: [makePortPlan(port, endpoints)] };
}
