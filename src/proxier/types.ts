/**
 * The words of the model: API objects reduced to what a service proxy reads, the records made of them,
 * and the plan. Data only. Everything here is immutable and compared by value.
 *
 * @module
 */

/** IP family, spelled as EndpointSlice.addressType and the `ip_family` metric label spell it. */
export type Family = 'IPv4' | 'IPv6';

export const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];

/** Protocol in Kubernetes spelling; rules write it in lower case. */
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

/** Canonical text of an address: dotted IPv4, RFC 5952 IPv6. Made only in `addr.ts`. */
export type IPAddress = string & { readonly __brand: 'IPAddress' };

/** Canonical text of a masked CIDR, `address/prefix`. Made only in `addr.ts`. */
export type Cidr = string & { readonly __brand: 'Cidr' };

/** `namespace/name`, or `name` for cluster-scoped kinds. */
export type ObjectKey = string & { readonly __brand: 'ObjectKey' };

/** `namespace/name` or `namespace/name:portName`: no protocol in it. What rules, logs and metrics print. */
export type ServicePortName = string & { readonly __brand: 'ServicePortName' };

// ---------------------------------------------------------------------------------------------------------
// API objects, reduced. `src/watch/decode.ts` makes them; nothing else of an object is kept in memory.

/** One entry of Service spec.ports. */
export interface ServicePortSpec {
  /** '' when the port has no name. */
  readonly name: string;
  readonly protocol: Protocol;
  /** 1..65535. */
  readonly port: number;
  /** 0: none allocated. */
  readonly nodePort: number;
}

/** One entry of Service status.loadBalancer.ingress that has an `ip`. */
export interface LoadBalancerIngress {
  readonly ip: string;
  /** Undefined when the field is absent, which means VIP. */
  readonly ipMode: string | undefined;
}

/** v1 Service. Address texts are as the API has them; the model parses and prints them anew. */
export interface ServiceObject {
  readonly kind: 'Service';
  readonly key: ObjectKey;
  readonly namespace: string;
  readonly name: string;
  readonly resourceVersion: string;
  /** spec.type; 'ClusterIP' when absent. */
  readonly type: string;
  /** '' when absent. */
  readonly clusterIP: string;
  readonly clusterIPs: readonly string[];
  readonly ipFamilies: readonly string[];
  readonly ports: readonly ServicePortSpec[];
  /** spec.sessionAffinity verbatim, '' when absent. */
  readonly sessionAffinity: string;
  /** spec.sessionAffinityConfig.clientIP.timeoutSeconds; 10800 (the API default) when absent. */
  readonly sessionAffinitySeconds: number;
  readonly externalIPs: readonly string[];
  readonly loadBalancerSourceRanges: readonly string[];
  readonly ingress: readonly LoadBalancerIngress[];
  /** '' when absent. */
  readonly externalTrafficPolicy: string;
  /** '' when absent. */
  readonly internalTrafficPolicy: string;
  /** 0 when absent. */
  readonly healthCheckNodePort: number;
}

/** One entry of EndpointSlice ports. */
export interface SlicePort {
  /** Null when the field is null or absent: such a port is skipped by the model. '' is an unnamed port. */
  readonly name: string | null;
  /** Null when the field is null or absent ("all ports"): skipped by the model. */
  readonly port: number | null;
  readonly protocol: Protocol;
}

/** One entry of EndpointSlice endpoints. Conditions are resolved: nil ready and serving are true. */
export interface SliceEndpoint {
  /** addresses[0] as text, '' if there is none. */
  readonly address: string;
  /** '' when absent. */
  readonly nodeName: string;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** hints.forZones[].name; empty when absent. */
  readonly zoneHints: readonly string[];
  /** hints.forNodes[].name; empty when absent. */
  readonly nodeHints: readonly string[];
}

/** discovery.k8s.io/v1 EndpointSlice. */
export interface EndpointSliceObject {
  readonly kind: 'EndpointSlice';
  readonly key: ObjectKey;
  readonly namespace: string;
  readonly name: string;
  readonly resourceVersion: string;
  /** `IPv4`, `IPv6`, `FQDN` or whatever the API says. */
  readonly addressType: string;
  /** Label kubernetes.io/service-name; '' when absent. */
  readonly serviceName: string;
  readonly ports: readonly SlicePort[];
  readonly endpoints: readonly SliceEndpoint[];
  /** Annotation endpoints.kubernetes.io/last-change-trigger-time, ms since the epoch; undefined if absent or unreadable. */
  readonly triggerTimeMs: number | undefined;
}

/** v1 Node. */
export interface NodeObject {
  readonly kind: 'Node';
  readonly key: ObjectKey;
  readonly name: string;
  readonly resourceVersion: string;
  /** Label topology.kubernetes.io/zone; '' when absent. */
  readonly zone: string;
  readonly podCIDRs: readonly string[];
  readonly addresses: readonly { readonly type: string; readonly address: string }[];
  /** metadata.deletionTimestamp is set. */
  readonly deleting: boolean;
  readonly taintKeys: readonly string[];
}

/** networking.k8s.io/v1 ServiceCIDR. */
export interface ServiceCIDRObject {
  readonly kind: 'ServiceCIDR';
  readonly key: ObjectKey;
  readonly name: string;
  readonly resourceVersion: string;
  readonly cidrs: readonly string[];
}

export type ApiObject = ServiceObject | EndpointSliceObject | NodeObject | ServiceCIDRObject;
export type Kind = ApiObject['kind'];

/** One change of one object, as a source (API server or files) delivers it. */
export type WatchEvent =
  | { readonly type: 'upsert'; readonly object: ApiObject }
  | { readonly type: 'delete'; readonly kind: Kind; readonly key: ObjectKey }
  /** The initial list of this kind is delivered. Sent once for each kind in the life of a source. */
  | { readonly type: 'synced'; readonly kind: Kind };

/** An object that does not decode. It is left out; what was last good stays. */
export interface InvalidObject {
  readonly kind: Kind;
  /** `namespace/name` as far as it could be read, else '?'. */
  readonly key: string;
  /** Path of the field, as in `spec.ports[1].port`. */
  readonly field: string;
  /** What it is and what it must be. */
  readonly message: string;
}

// ---------------------------------------------------------------------------------------------------------
// Records: what the model derives from the objects, for one IP family.

/** One port of one Service, for one family. Addresses are canonical, lists keep the order of the API. */
export interface ServicePort {
  readonly service: ObjectKey;
  readonly namespace: string;
  readonly serviceName: string;
  /** `ns/name` or `ns/name:port`. Two service ports of different protocol may share it. */
  readonly name: ServicePortName;
  readonly portName: string;
  readonly protocol: Protocol;
  readonly clusterIP: IPAddress;
  readonly port: number;
  /** 0: none. */
  readonly nodePort: number;
  /** Undefined: no ClientIP affinity. */
  readonly affinitySeconds: number | undefined;
  /** Empty when the gate AllowServiceExternalIPs is off. */
  readonly externalIPs: readonly IPAddress[];
  /** Empty: everyone. */
  readonly sourceRanges: readonly Cidr[];
  readonly loadBalancerVIPs: readonly IPAddress[];
  readonly externalPolicyLocal: boolean;
  readonly internalPolicyLocal: boolean;
  /** 0: none. */
  readonly healthCheckNodePort: number;
  /** Node port, VIPs or spec.externalIPs (whatever the gate says). */
  readonly externallyAccessible: boolean;
}

/** One endpoint of one service port. */
export interface Endpoint {
  readonly ip: IPAddress;
  readonly port: number;
  /** `ip:port`, IPv6 in brackets: Go's JoinHostPort. Sorting and hashing use this text. */
  readonly text: string;
  readonly isLocal: boolean;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
}

// ---------------------------------------------------------------------------------------------------------
// Plan: what must exist, whatever the mode.

/** What must exist for one service port: its frontends (in `port`) and who answers. spec: model.md §8. */
export interface ServicePortPlan {
  readonly port: ServicePort;
  /** Endpoints by the Cluster policy, in the order of `text`. */
  readonly clusterEndpoints: readonly Endpoint[];
  /** Endpoints by the Local policy, in the order of `text`. */
  readonly localEndpoints: readonly Endpoint[];
  /** Every endpoint some traffic can reach from here, in the order of `text`. */
  readonly reachableEndpoints: readonly Endpoint[];
  /** Every endpoint on this node, ready or not, in the order of `text`. */
  readonly nodeEndpoints: readonly Endpoint[];
  /** All endpoints of this service port, ready or not. */
  readonly endpointCount: number;
  /** Some endpoint somewhere is ready, or serving while it terminates. */
  readonly hasAnyEndpoints: boolean;
  readonly hasInternalEndpoints: boolean;
  readonly hasExternalEndpoints: boolean;
  readonly usesClusterPolicyChain: boolean;
  readonly usesLocalPolicyChain: boolean;
  readonly usesExternalTrafficChain: boolean;
}

/** The plan of one Service: its ports in the order of name, then protocol (code unit order). */
export interface ServicePlan {
  readonly service: ObjectKey;
  readonly ports: readonly ServicePortPlan[];
}

/** How traffic from this node's or cluster's pods is told from other traffic. */
export type LocalTraffic =
  | { readonly kind: 'none' }
  | { readonly kind: 'cidr'; readonly cidr: Cidr }
  | { readonly kind: 'bridge'; readonly name: string }
  | { readonly kind: 'prefix'; readonly prefix: string };

/** Which addresses of the node answer on node ports. spec: model.md §9. */
export interface NodePortAddresses {
  /** Every local address. */
  readonly matchAll: boolean;
  /** The CIDRs to look in when `matchAll` is false. */
  readonly cidrs: readonly Cidr[];
  /** IPv4 only: the list covers loopback. */
  readonly containsIPv4Loopback: boolean;
}

/** Compiles only while every case of a union is handled. */
export function assertNever(value: never, what: string): never {
  throw new TypeError(`Cannot handle ${what} ${JSON.stringify(value)}`);
}

/** An order of texts that no locale changes: UTF-16 code units, which is bytes for ASCII. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
