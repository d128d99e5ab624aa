/**
 * What the API server does to a Service before it is stored: carry over, default, check, allocate.
 *
 * @module
 */

import type { Family } from '../../proxier/types.ts';
import { type Allocations, familyOf } from './allocations.ts';
import { isJsonObject, type Json, type KubeObject, type Metadata } from './object.ts';
import { checkService } from './service-checks.ts';
import { type FieldError, invalid } from './status.ts';

export interface ServicePort {
  name?: string;
  protocol?: string;
  appProtocol?: string;
  port?: number;
  targetPort?: number | string;
  nodePort?: number;
}

export interface ServiceSpec {
  type?: string;
  clusterIP?: string;
  clusterIPs?: string[];
  ipFamilies?: string[];
  ipFamilyPolicy?: string;
  ports?: ServicePort[];
  selector?: Record<string, string>;
  sessionAffinity?: string;
  sessionAffinityConfig?: { clientIP?: { timeoutSeconds?: number } };
  externalIPs?: string[];
  externalName?: string;
  externalTrafficPolicy?: string;
  internalTrafficPolicy?: string;
  trafficDistribution?: string;
  healthCheckNodePort?: number;
  loadBalancerClass?: string;
  loadBalancerSourceRanges?: string[];
  allocateLoadBalancerNodePorts?: boolean;
}

export interface Service {
  metadata: Metadata;
  spec: ServiceSpec;
  status?: {
    loadBalancer?: {
      ingress?: { ip?: string; ipMode?: string; hostname?: string; ports?: { port?: number; protocol?: string }[] }[];
    };
  };
}

/** A Service whose shape is checked (`schema.ts`); a spec is added if there is none. */
export function asService(object: KubeObject): Service {
  object.spec ??= {};
  return object as unknown as Service;
}

export function hasClusterIP(spec: ServiceSpec): boolean {
  return spec.type !== 'ExternalName';
}

export function isHeadless(spec: ServiceSpec): boolean {
  return spec.clusterIP === 'None' || spec.clusterIPs?.[0] === 'None';
}

export function hasNodePorts(spec: ServiceSpec): boolean {
  return spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false);
}

function needsHealthCheckPort(spec: ServiceSpec): boolean {
  return spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local';
}

/** Entries of what ought to be a list of objects or texts, in an object that was stored as it came. */
function entries(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

/** Everything of the pools that a Service holds: addresses as text, node ports as numbers. It may have any shape. */
export function heldResources(service: KubeObject): (string | number)[] {
  if (!isJsonObject(service.spec)) return [];
  const { clusterIP, clusterIPs, ports, healthCheckNodePort } = service.spec;
  const values = [clusterIP, healthCheckNodePort, ...entries(clusterIPs)];
  for (const port of entries(ports)) if (isJsonObject(port)) values.push(port['nodePort']);
  const held: (string | number)[] = [];
  for (const value of values) {
    if (typeof value === 'string' && familyOf(value) !== undefined) held.push(value);
    if (typeof value === 'number' && value > 0) held.push(value);
  }
  return held;
}

/** What a new version leaves out and the old one had been given is kept; what the new type has no use for goes. */
function carryOver(spec: ServiceSpec, old: ServiceSpec): void {
  const oldType = old.type ?? 'ClusterIP';
  const type = spec.type ?? 'ClusterIP';
  if (type !== 'ExternalName' && oldType !== 'ExternalName') {
    if (!spec.clusterIP && !spec.clusterIPs?.length) {
      if (old.clusterIP !== undefined) spec.clusterIP = old.clusterIP;
      if (old.clusterIPs !== undefined && spec.ipFamilyPolicy !== 'SingleStack') spec.clusterIPs = [...old.clusterIPs];
    }
    spec.ipFamilies ??= [...(old.ipFamilies ?? [])];
    if (spec.ipFamilyPolicy === undefined && old.ipFamilyPolicy !== undefined) spec.ipFamilyPolicy = old.ipFamilyPolicy;
  }
  if (type !== 'ClusterIP' && type !== 'ExternalName') {
    for (const port of spec.ports ?? []) {
      if (port.nodePort) continue;
      const same = old.ports?.find((p) => p.port === port.port && p.protocol === (port.protocol ?? 'TCP'));
      const taken = spec.ports?.some((p) => p !== port && p.nodePort === same?.nodePort);
      if (same?.nodePort && !taken && hasNodePorts({ ...spec, type })) port.nodePort = same.nodePort;
    }
  } else if (oldType !== type) {
    const had = new Set(old.ports?.map((p) => p.nodePort));
    for (const port of spec.ports ?? []) if (had.has(port.nodePort)) delete port.nodePort;
  }
  if (spec.healthCheckNodePort === undefined && old.healthCheckNodePort && needsHealthCheckPort({ ...spec, type })) {
    spec.healthCheckNodePort = old.healthCheckNodePort;
  }
  if (oldType === type && oldType !== 'LoadBalancer') return;
  if (!needsHealthCheckPort({ ...spec, type }) && spec.healthCheckNodePort === old.healthCheckNodePort) {
    delete spec.healthCheckNodePort;
  }
  if (oldType === type) return;
  if (type !== 'LoadBalancer') {
    delete spec.allocateLoadBalancerNodePorts;
    if (spec.loadBalancerClass === old.loadBalancerClass) delete spec.loadBalancerClass;
  }
  if ((type === 'ClusterIP' || type === 'ExternalName') && !spec.externalIPs?.length) delete spec.externalTrafficPolicy;
  if (type === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy', 'internalTrafficPolicy'] as const) {
      delete spec[field];
    }
  }
}

function setDefaults(spec: ServiceSpec): void {
  spec.sessionAffinity ??= 'None';
  spec.type ??= 'ClusterIP';
  if (spec.sessionAffinity === 'None') delete spec.sessionAffinityConfig;
  if (spec.sessionAffinity === 'ClientIP') {
    const timeoutSeconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 10800;
    spec.sessionAffinityConfig = { clientIP: { timeoutSeconds } };
  }
  for (const port of spec.ports ?? []) {
    port.protocol ??= 'TCP';
    if ((port.targetPort === undefined || port.targetPort === 0 || port.targetPort === '') && port.port !== undefined) {
      port.targetPort = port.port;
    }
    if (port.nodePort === 0) delete port.nodePort;
  }
  if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
  if (spec.type === 'ExternalName') return;
  const accessible =
    spec.type === 'NodePort' ||
    spec.type === 'LoadBalancer' ||
    (spec.type === 'ClusterIP' && (spec.externalIPs?.length ?? 0) > 0);
  if (accessible) spec.externalTrafficPolicy ??= 'Cluster';
  spec.internalTrafficPolicy ??= 'Cluster';
}

/** clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy follow from each other and from what the cluster has. */
function setFamilies(spec: ServiceSpec, cluster: readonly Family[]): FieldError[] {
  if (!hasClusterIP(spec)) return [];
  if (spec.clusterIP && !spec.clusterIPs?.length) spec.clusterIPs = [spec.clusterIP];
  const named = (spec.clusterIPs ?? []).map(familyOf).filter((f) => f !== undefined);
  const families: string[] = spec.ipFamilies?.length ? [...spec.ipFamilies] : named;
  const selectorless = isHeadless(spec) && Object.keys(spec.selector ?? {}).length === 0;
  const two = families.length > 1 || (spec.clusterIPs?.length ?? 0) > 1;
  spec.ipFamilyPolicy ??= two || selectorless ? 'RequireDualStack' : 'SingleStack';
  if (spec.ipFamilyPolicy === 'SingleStack') {
    families.splice(1);
    spec.clusterIPs?.splice(1);
  }
  if (families.length === 0) families.push(cluster[0] ?? 'IPv4');
  if (spec.ipFamilyPolicy !== 'SingleStack' && families.length === 1) {
    const other = families[0] === 'IPv4' ? 'IPv6' : 'IPv4';
    // Without a selector nobody can tell which families the endpoints will have.
    if (cluster.includes(other) || selectorless) families.push(other);
    else if (spec.ipFamilyPolicy === 'RequireDualStack') {
      return [
        invalid('spec.ipFamilyPolicy', spec.ipFamilyPolicy, 'this cluster is not configured for dual-stack services'),
      ];
    }
  }
  spec.ipFamilies = families;
  const missing = families.findIndex((f) => !selectorless && (f === 'IPv4' || f === 'IPv6') && !cluster.includes(f));
  if (missing < 0) return [];
  return [invalid(`spec.ipFamilies[${missing}]`, families[missing], 'not configured on this cluster')];
}

function allocateAddresses(key: string, spec: ServiceSpec, pool: Allocations): FieldError[] {
  if (!hasClusterIP(spec)) return [];
  if (isHeadless(spec)) {
    spec.clusterIP = 'None';
    spec.clusterIPs = ['None'];
    return [];
  }
  const errors: FieldError[] = [];
  const ips = spec.clusterIPs ?? [];
  for (const [i, family] of (spec.ipFamilies ?? []).entries()) {
    const wanted = ips[i];
    if (wanted) {
      const holder = pool.holder(wanted);
      if (holder === key) continue;
      const why =
        holder !== undefined
          ? 'failed to allocate IP: provided IP is already allocated'
          : pool.covers(wanted)
            ? ''
            : 'failed to allocate IP: the provided IP is not in the valid range of the service CIDRs';
      if (why) errors.push(invalid('spec.clusterIPs', [wanted], why));
    } else {
      const ip = pool.freeAddress(family === 'IPv6' ? 'IPv6' : 'IPv4');
      if (ip === undefined) errors.push(invalid('spec.clusterIPs', ips, 'failed to allocate IP: range is full'));
      else ips[i] = ip;
    }
  }
  spec.clusterIPs = ips;
  const [first] = ips;
  if (first !== undefined) spec.clusterIP = first;
  return errors;
}

function allocatePorts(key: string, spec: ServiceSpec, pool: Allocations): FieldError[] {
  const errors: FieldError[] = [];
  const chosen = new Set<number>();
  const { from, to } = pool.nodePorts;
  const take = (field: string, wanted: number) => {
    const holder = pool.holder(wanted);
    if (holder !== undefined && holder !== key)
      errors.push(invalid(field, wanted, 'provided port is already allocated'));
    else if (wanted < from || wanted > to) {
      errors.push(
        invalid(field, wanted, `provided port is not in the valid range. The range of valid ports is ${from}-${to}`),
      );
    }
    chosen.add(wanted);
  };
  const find = (field: string): number => {
    const port = pool.freePort(chosen);
    if (port === undefined) errors.push(invalid(field, 0, 'failed to allocate a nodePort: range is full'));
    chosen.add(port ?? 0);
    return port ?? 0;
  };
  const ports = [...(spec.ports ?? []).entries()];
  for (const [i, port] of ports) if (port.nodePort) take(`spec.ports[${i}].nodePort`, port.nodePort);
  if (spec.healthCheckNodePort) take('spec.healthCheckNodePort', spec.healthCheckNodePort);
  if (hasNodePorts(spec)) {
    for (const [i, port] of ports) if (!port.nodePort) port.nodePort = find(`spec.ports[${i}].nodePort`);
  }
  if (needsHealthCheckPort(spec) && !spec.healthCheckNodePort)
    spec.healthCheckNodePort = find('spec.healthCheckNodePort');
  return errors;
}

/**
 * Makes a Service what the store keeps, in place.
 *
 * @param old - The version it replaces.
 * @param pool - Asked for free addresses and ports; nothing is held yet.
 * @returns What is wrong; empty if the object can be stored.
 */
export function admitService(draft: KubeObject, old: KubeObject | undefined, pool: Allocations): FieldError[] {
  const service = asService(draft);
  const { spec } = service;
  const before = old && asService(old).spec;
  const key = `${draft.metadata.namespace}/${draft.metadata.name}`;
  if (before) carryOver(spec, before);
  setDefaults(spec);
  const errors = [...setFamilies(spec, pool.families), ...checkService(service, before)];
  if (errors.length > 0) return errors;
  errors.push(...allocateAddresses(key, spec, pool), ...allocatePorts(key, spec, pool));
  service.status ??= { loadBalancer: {} };
  return errors;
}
