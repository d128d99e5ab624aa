/**
 * Service objects to service ports: what a service proxy of one IP family reads of a Service, and nothing else.
 *
 * @module
 */

import { cidrsOfFamily, ipsOfFamily, isZeroCidr, parseIP } from './addr.ts';
import {
  type Cidr,
  compareText,
  type Family,
  type IPAddress,
  type ServiceObject,
  type ServicePort,
  type ServicePortName,
} from './types.ts';

export interface ServiceOptions {
  readonly family: Family;
  /** Feature gate AllowServiceExternalIPs. Off: spec.externalIPs get no frontends. */
  readonly externalIPsAllowed: boolean;
  /** Called with the path of a field and its text, where the text is no address (no CIDR) and is left out. */
  readonly onUnparsable?: (field: string, text: string) => void;
}

const NONE: readonly never[] = [];

/** `ns/name`, or `ns/name:port` for a named port. */
export function servicePortName(namespace: string, name: string, portName: string): ServicePortName {
  return (portName === '' ? `${namespace}/${name}` : `${namespace}/${name}:${portName}`) as ServicePortName;
}

/**
 * The service ports of a Service for one family, in the order of port name, then protocol.
 *
 * Two ports of the same name and protocol cannot pass the API; the later one counts.
 *
 * @returns Undefined if the Service is none of ours: headless, ExternalName, or without a cluster IP of the family.
 *   An empty list is a Service of ours that has no ports.
 */
export function servicePorts(service: ServiceObject, options: ServiceOptions): readonly ServicePort[] | undefined {
  const { family, onUnparsable } = options;
  if (service.clusterIP === 'None' || service.clusterIP === '' || service.type === 'ExternalName') return undefined;
  const clusterIP = clusterIPOf(service, options);
  if (clusterIP === undefined) return undefined;
  if (service.ports.length === 0) return NONE;

  const report = (field: string) => onUnparsable && ((text: string) => onUnparsable(field, text));
  const externalIPs = ipsOfFamily(service.externalIPs, family, report('spec.externalIPs'));
  const loadBalancerVIPs = ipsOfFamily(vipTexts(service), family, report('status.loadBalancer.ingress[].ip'));
  const externalPolicyLocal = service.externalTrafficPolicy === 'Local' && isExternalByType(service);
  const shared = {
    service: service.key,
    namespace: service.namespace,
    serviceName: service.name,
    clusterIP,
    affinitySeconds: service.sessionAffinity === 'ClientIP' ? service.sessionAffinitySeconds : undefined,
    externalIPs: options.externalIPsAllowed ? externalIPs : NONE,
    sourceRanges: sourceRanges(
      cidrsOfFamily(service.loadBalancerSourceRanges, family, report('spec.loadBalancerSourceRanges')),
    ),
    loadBalancerVIPs,
    externalPolicyLocal,
    internalPolicyLocal: service.internalTrafficPolicy === 'Local',
    healthCheckNodePort: service.type === 'LoadBalancer' && externalPolicyLocal ? service.healthCheckNodePort : 0,
  };
  const accessible = loadBalancerVIPs.length > 0 || externalIPs.length > 0;
  const ports = service.ports.map(
    ({ name, protocol, port, nodePort }): ServicePort => ({
      ...shared,
      name: servicePortName(service.namespace, service.name, name),
      portName: name,
      protocol,
      port,
      nodePort,
      externallyAccessible: nodePort !== 0 || accessible,
    }),
  );
  if (ports.length === 1) return ports;
  ports.sort(comparePorts);
  return ports.filter((p, i) => {
    const next = ports[i + 1];
    return next === undefined || comparePorts(p, next) !== 0;
  });
}

/** Some traffic is served by the Cluster policy. */
export function usesClusterEndpoints(port: ServicePort): boolean {
  return !port.internalPolicyLocal || port.externallyAccessible;
}

/** Some traffic is served by the Local policy. */
export function usesLocalEndpoints(port: ServicePort): boolean {
  return port.internalPolicyLocal || (port.externalPolicyLocal && port.externallyAccessible);
}

function comparePorts(a: ServicePort, b: ServicePort): number {
  return compareText(a.portName, b.portName) || compareText(a.protocol, b.protocol);
}

/** The cluster IP of our family. Objects older than dual stack have no ipFamilies: theirs is spec.clusterIP. */
function clusterIPOf(service: ServiceObject, { family, onUnparsable }: ServiceOptions): IPAddress | undefined {
  if (service.ipFamilies.length === 0) {
    const parsed = parseIP(service.clusterIP);
    if (parsed === undefined) onUnparsable?.('spec.clusterIP', service.clusterIP);
    return parsed?.family === family ? parsed.ip : undefined;
  }
  const index = service.ipFamilies.indexOf(family);
  const text = service.clusterIPs[index];
  if (text === undefined) return undefined;
  const parsed = parseIP(text);
  if (parsed?.family === family) return parsed.ip;
  // An address of the other family would be refused by every tool of this one.
  onUnparsable?.(`spec.clusterIPs[${index}]`, text);
  return undefined;
}

/** Types whose external traffic policy counts. A type without any such traffic ignores the field. */
function isExternalByType(service: ServiceObject): boolean {
  switch (service.type) {
    case 'LoadBalancer':
    case 'NodePort':
      return true;
    case 'ClusterIP':
      return service.externalIPs.length > 0;
    default:
      return false;
  }
}

/** An ingress of another mode (`Proxy`) is served by the load balancer itself. */
function vipTexts(service: ServiceObject): readonly string[] {
  if (service.ingress.length === 0) return NONE;
  return service.ingress.filter((i) => i.ip !== '' && (i.ipMode ?? 'VIP') === 'VIP').map((i) => i.ip);
}

/** A range that holds everyone makes the others pointless. */
function sourceRanges(ranges: readonly Cidr[]): readonly Cidr[] {
  return ranges.some(isZeroCidr) ? NONE : ranges;
}
