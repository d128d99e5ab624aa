/**
 * What the API server refuses in a Service, in its words.
 *
 * @module
 */

import { isIP } from 'node:net';
import { familyOf } from './allocations.ts';
import { isLabel } from './names.ts';
import { hasNodePorts, isHeadless, type Service, type ServicePort, type ServiceSpec } from './service.ts';
import { duplicate, type FieldError, forbidden, invalid, notSupported, required } from './status.ts';

export const PORT_RANGE = 'must be between 1 and 65535, inclusive';

export function isPort(n: number | undefined): boolean {
  return n !== undefined && Number.isInteger(n) && n >= 1 && n <= 65535;
}

export function isCidr(text: string): boolean {
  const [address = '', prefix = '', ...rest] = text.split('/');
  const bits = isIP(address) === 4 ? 32 : isIP(address) === 6 ? 128 : -1;
  return rest.length === 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits;
}

/** A value that must be one of a few, if it is there. */
function oneOf(field: string, value: string | undefined, supported: readonly string[]): FieldError[] {
  return value === undefined || supported.includes(value) ? [] : [notSupported(field, value, supported)];
}

/** IANA service name: up to 15 characters with at least one letter, no two hyphens in a row. */
export function isServiceName(text: string): boolean {
  return text.length <= 15 && isLabel(text) && /[a-z]/.test(text) && !text.includes('--');
}

function checkTargetPort(field: string, target: ServicePort['targetPort']): FieldError[] {
  if (typeof target === 'number') return isPort(target) ? [] : [invalid(field, target, PORT_RANGE)];
  if (target === undefined || isServiceName(target)) return [];
  return [
    invalid(field, target, "must be at most 15 lower case alphanumeric characters or '-', with at least one letter"),
  ];
}

function checkPorts(spec: ServiceSpec): FieldError[] {
  const ports = spec.ports ?? [];
  if (ports.length === 0) {
    return isHeadless(spec) || spec.type === 'ExternalName' ? [] : [required('spec.ports')];
  }
  const errors: FieldError[] = [];
  const names = new Set<string>();
  const numbers = new Set<string>();
  const nodePorts = new Set<string>();
  for (const [i, port] of ports.entries()) {
    const at = `spec.ports[${i}]`;
    if (!port.name) {
      if (ports.length > 1) errors.push(required(`${at}.name`));
    } else if (!isLabel(port.name)) {
      errors.push(
        invalid(
          `${at}.name`,
          port.name,
          "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
        ),
      );
    } else if (names.has(port.name)) errors.push(duplicate(`${at}.name`, port.name));
    else names.add(port.name);
    if (!isPort(port.port)) errors.push(invalid(`${at}.port`, port.port ?? 0, PORT_RANGE));
    errors.push(...oneOf(`${at}.protocol`, port.protocol, ['SCTP', 'TCP', 'UDP']));
    errors.push(...checkTargetPort(`${at}.targetPort`, port.targetPort));
    const number = `${port.protocol}/${port.port}`;
    if (numbers.has(number)) errors.push(duplicate(at, { port: port.port, protocol: port.protocol }));
    numbers.add(number);
    if (port.nodePort === undefined) continue;
    const nodePort = `${port.protocol}/${port.nodePort}`;
    if (spec.type !== 'NodePort' && spec.type !== 'LoadBalancer') {
      errors.push(forbidden(`${at}.nodePort`, `may not be used when \`type\` is '${spec.type}'`));
    } else if (nodePorts.has(nodePort)) errors.push(duplicate(`${at}.nodePort`, port.nodePort));
    nodePorts.add(nodePort);
  }
  return errors;
}

function checkClusterIPs(spec: ServiceSpec, old: ServiceSpec | undefined): FieldError[] {
  const ips = spec.clusterIPs ?? [];
  if (spec.type === 'ExternalName') {
    return ips.length > 0 || spec.clusterIP
      ? [forbidden('spec.clusterIPs', "may not be set when `type` is 'ExternalName'")]
      : [];
  }
  const errors: FieldError[] = [];
  if (spec.clusterIP && spec.clusterIP !== ips[0]) {
    errors.push(invalid('spec.clusterIPs[0]', ips, 'first value must match `clusterIP`'));
  }
  const families: readonly string[] = spec.ipFamilies ?? [];
  for (const [i, ip] of ips.entries()) {
    const field = `spec.clusterIPs[${i}]`;
    if (ip === 'None') {
      if (ips.length > 1) errors.push(invalid(field, ip, "'None' must be the first and only value"));
    } else if (!isIP(ip)) errors.push(invalid(field, ip, 'must be a valid IP address'));
    else if (families[i] === undefined || familyOf(ip) !== families[i]) {
      errors.push(
        invalid(field, ip, `expected an ${families[i] ?? 'absent'} value as indicated by \`ipFamilies[${i}]\``),
      );
    }
  }
  for (const [i, family] of families.entries()) {
    errors.push(...oneOf(`spec.ipFamilies[${i}]`, family, ['IPv4', 'IPv6']));
    if (families.indexOf(family) < i) errors.push(duplicate(`spec.ipFamilies[${i}]`, family));
  }
  const oldIP = old && old.type !== 'ExternalName' ? old.clusterIPs?.[0] : undefined;
  if (oldIP !== undefined && oldIP !== ips[0])
    errors.push(invalid('spec.clusterIPs[0]', ips, 'may not change once set'));
  return errors;
}

function checkTraffic(spec: ServiceSpec): FieldError[] {
  const policies = ['Cluster', 'Local'];
  const errors = [
    ...oneOf('spec.sessionAffinity', spec.sessionAffinity, ['ClientIP', 'None']),
    ...oneOf('spec.ipFamilyPolicy', spec.ipFamilyPolicy, ['SingleStack', 'PreferDualStack', 'RequireDualStack']),
    ...oneOf('spec.internalTrafficPolicy', spec.internalTrafficPolicy, policies),
    ...oneOf('spec.externalTrafficPolicy', spec.externalTrafficPolicy, policies),
    ...oneOf('spec.trafficDistribution', spec.trafficDistribution, ['PreferClose', 'PreferSameZone', 'PreferSameNode']),
  ];
  const seconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds;
  if (seconds !== undefined && (seconds <= 0 || seconds > 86400)) {
    const field = 'spec.sessionAffinityConfig.clientIP.timeoutSeconds';
    errors.push(invalid(field, seconds, 'must be greater than 0 and less than 86400'));
  }
  const accessible = spec.type === 'NodePort' || spec.type === 'LoadBalancer' || (spec.externalIPs?.length ?? 0) > 0;
  if (spec.externalTrafficPolicy && !accessible) {
    errors.push(
      invalid(
        'spec.externalTrafficPolicy',
        spec.externalTrafficPolicy,
        'may only be set for externally-accessible services',
      ),
    );
  }
  for (const [i, ip] of (spec.externalIPs ?? []).entries()) {
    if (!isIP(ip)) errors.push(invalid(`spec.externalIPs[${i}]`, ip, 'must be a valid IP address'));
  }
  for (const [i, cidr] of (spec.loadBalancerSourceRanges ?? []).entries()) {
    const field = `spec.loadBalancerSourceRanges[${i}]`;
    // Blanks around a range are let through, as the API server does.
    if (!isCidr(cidr.trim()))
      errors.push(invalid(field, cidr, 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'));
  }
  if (spec.loadBalancerSourceRanges?.length && spec.type !== 'LoadBalancer') {
    errors.push(forbidden('spec.loadBalancerSourceRanges', "may only be used when `type` is 'LoadBalancer'"));
  }
  if (spec.loadBalancerClass && spec.type !== 'LoadBalancer') {
    errors.push(forbidden('spec.loadBalancerClass', "may only be used when `type` is 'LoadBalancer'"));
  }
  return errors;
}

/**
 * Checks a Service whose defaults are set.
 *
 * @param old - Spec of the version it replaces.
 */
export function checkService(service: Service, old: ServiceSpec | undefined): FieldError[] {
  const { spec } = service;
  const types = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'];
  const errors = [
    ...checkPorts(spec),
    ...oneOf('spec.type', spec.type, types),
    ...checkClusterIPs(spec, old),
    ...checkTraffic(spec),
  ];
  if (spec.type === 'ExternalName' && !spec.externalName) errors.push(required('spec.externalName'));
  if (spec.type === 'LoadBalancer' && isHeadless(spec)) {
    errors.push(invalid('spec.clusterIPs[0]', 'None', "may not be set to 'None' for LoadBalancer services"));
  }
  if (spec.type === 'NodePort' && isHeadless(spec)) {
    errors.push(invalid('spec.clusterIPs[0]', 'None', "may not be set to 'None' for NodePort services"));
  }
  const { healthCheckNodePort: port } = spec;
  if (port && !(spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local')) {
    const says = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
    errors.push(invalid('spec.healthCheckNodePort', port, says));
  }
  if (port && hasNodePorts(spec) && spec.ports?.some((p) => p.nodePort === port)) {
    errors.push(duplicate('spec.healthCheckNodePort', port));
  }
  for (const [i, ingress] of (service.status?.loadBalancer?.ingress ?? []).entries()) {
    const at = `status.loadBalancer.ingress[${i}]`;
    if (ingress.ip && !isIP(ingress.ip)) errors.push(invalid(`${at}.ip`, ingress.ip, 'must be a valid IP address'));
    errors.push(...oneOf(`${at}.ipMode`, ingress.ipMode, ['VIP', 'Proxy']));
  }
  return errors;
}
