/**
 * Unknown JSON → the reduced objects of `proxier/types.ts`. This is where the wire is checked: behind it a name is a
 * name and a port a port. Addresses stay the texts they are; the model parses them. Nothing of the decoded value is
 * kept but strings and numbers, and strings that repeat from object to object are kept once.
 *
 * @module
 */

import type {
  ApiObject,
  EndpointSliceObject,
  Kind,
  LoadBalancerIngress,
  NodeObject,
  ObjectKey,
  Protocol,
  ServiceCIDRObject,
  ServiceObject,
  ServicePortSpec,
  SliceEndpoint,
  SlicePort,
} from '../proxier/types.ts';
import { assertNever } from '../proxier/types.ts';
import {
  isJsonObject,
  type JsonObject,
  join,
  objectEntry,
  optionalBoolean,
  optionalInteger,
  optionalList,
  optionalObject,
  optionalString,
  optionalStrings,
  refuse,
  stringEntry,
} from './decode-error.ts';
import { Interner } from './interner.ts';
import {
  DNS_LABEL_FORM,
  DNS_SUBDOMAIN_FORM,
  isDnsLabel,
  isDnsSubdomain,
  isLabelValue,
  LABEL_VALUE_FORM,
} from './names.ts';

const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const ZONE_LABEL = 'topology.kubernetes.io/zone';
const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
/** What the API server fills in for spec.sessionAffinityConfig.clientIP.timeoutSeconds: three hours. */
const DEFAULT_AFFINITY_SECONDS = 10_800;
const MAX_INT32 = 2 ** 31 - 1;

const PORT = { min: 1, max: 65_535, absent: null } as const;
const PORT_OR_NONE = { min: 0, max: 65_535, absent: 0 } as const;
const SECONDS = { min: 1, max: MAX_INT32, absent: DEFAULT_AFFINITY_SECONDS } as const;

/** Whether objects of a kind live in a namespace. */
export function isNamespaced(kind: Kind): boolean {
  return kind === 'Service' || kind === 'EndpointSlice';
}

interface Identity {
  readonly key: ObjectKey;
  readonly namespace: string;
  readonly name: string;
  readonly resourceVersion: string;
}

/** Decodes objects of every kind. It remembers strings it met, to share them; nothing else passes from call to call. */
export class Decoder {
  readonly #shared = new Interner();

  /**
   * Decodes one object. A null field equals an absent one.
   *
   * @param kind - What it must be. An object that names no kind is taken as this one: the items of a list name none.
   * @throws {DecodeError} If a field that is read is not what it must be.
   */
  decode(kind: Kind, value: unknown): ApiObject {
    const object = checkKind(kind, value);
    switch (kind) {
      case 'Service':
        return this.#service(object);
      case 'EndpointSlice':
        return this.#endpointSlice(object);
      case 'Node':
        return this.#node(object);
      case 'ServiceCIDR':
        return this.#serviceCIDR(object);
      default:
        return assertNever(kind, 'kind');
    }
  }

  /**
   * Decodes only the identity: enough for a delete, and for the report about an object that does not decode.
   *
   * @throws {DecodeError} If the kind, the name or the namespace is not what it must be.
   */
  decodeIdentity(kind: Kind, value: unknown): Identity {
    return this.#identity(kind, checkKind(kind, value));
  }

  #identity(kind: Kind, object: JsonObject): Identity {
    const metadata = optionalObject(object, 'metadata', '') ?? refuse('metadata', undefined, 'an object');
    const name = optionalString(metadata, 'name', 'metadata');
    if (kind === 'Service' ? !isDnsLabel(name) : !isDnsSubdomain(name)) {
      refuse('metadata.name', metadata['name'], kind === 'Service' ? DNS_LABEL_FORM : DNS_SUBDOMAIN_FORM);
    }
    const resourceVersion = optionalString(metadata, 'resourceVersion', 'metadata');
    if (!isNamespaced(kind)) return { key: name as ObjectKey, namespace: '', name, resourceVersion };
    const namespace = this.#shared.text(optionalString(metadata, 'namespace', 'metadata'));
    if (!isDnsLabel(namespace)) refuse('metadata.namespace', metadata['namespace'], DNS_LABEL_FORM);
    return { key: `${namespace}/${name}` as ObjectKey, namespace, name, resourceVersion };
  }

  #service(object: JsonObject): ServiceObject {
    const { key, namespace, name, resourceVersion } = this.#identity('Service', object);
    optionalStrings(optionalObject(object, 'metadata', ''), 'labels', 'metadata');
    const spec = optionalObject(object, 'spec', '');
    const status = optionalObject(object, 'status', '');
    const affinity = optionalObject(spec, 'sessionAffinityConfig', 'spec');
    const clientIP = optionalObject(affinity, 'clientIP', 'spec.sessionAffinityConfig');
    const loadBalancer = optionalObject(status, 'loadBalancer', 'status');
    return {
      kind: 'Service',
      key,
      namespace,
      name,
      resourceVersion,
      type: this.#shared.text(optionalString(spec, 'type', 'spec') || 'ClusterIP'),
      clusterIP: optionalString(spec, 'clusterIP', 'spec'),
      clusterIPs: optionalList(spec, 'clusterIPs', 'spec', stringEntry),
      ipFamilies: this.#shared.list(optionalList(spec, 'ipFamilies', 'spec', stringEntry)),
      ports: optionalList(spec, 'ports', 'spec', (p, at) => this.#servicePort(objectEntry(p, at), at)),
      sessionAffinity: this.#shared.text(optionalString(spec, 'sessionAffinity', 'spec')),
      sessionAffinitySeconds: optionalInteger(
        clientIP,
        'timeoutSeconds',
        'spec.sessionAffinityConfig.clientIP',
        SECONDS,
      ),
      externalIPs: optionalList(spec, 'externalIPs', 'spec', stringEntry),
      loadBalancerSourceRanges: optionalList(spec, 'loadBalancerSourceRanges', 'spec', stringEntry),
      ingress: withAddress(optionalList(loadBalancer, 'ingress', 'status.loadBalancer', decodeIngress)),
      externalTrafficPolicy: this.#shared.text(optionalString(spec, 'externalTrafficPolicy', 'spec')),
      internalTrafficPolicy: this.#shared.text(optionalString(spec, 'internalTrafficPolicy', 'spec')),
      healthCheckNodePort: optionalInteger(spec, 'healthCheckNodePort', 'spec', PORT_OR_NONE),
    };
  }

  #servicePort(port: JsonObject, at: string): ServicePortSpec {
    const number = optionalInteger(port, 'port', at, PORT);
    return {
      name: this.#portName(optionalString(port, 'name', at), at),
      protocol: decodeProtocol(port, at),
      port: number ?? refuse(join(at, 'port'), undefined, 'an integer in 1..65535'),
      nodePort: optionalInteger(port, 'nodePort', at, PORT_OR_NONE),
    };
  }

  #portName(name: string, at: string): string {
    if (name !== '' && !isDnsLabel(name)) refuse(join(at, 'name'), name, `empty or ${DNS_LABEL_FORM}`);
    return this.#shared.text(name);
  }

  #endpointSlice(object: JsonObject): EndpointSliceObject {
    const { key, namespace, name, resourceVersion } = this.#identity('EndpointSlice', object);
    const metadata = optionalObject(object, 'metadata', '');
    const labels = optionalStrings(metadata, 'labels', 'metadata');
    const serviceName = optionalString(labels, SERVICE_NAME_LABEL, 'metadata.labels');
    if (!isLabelValue(serviceName)) refuse(`metadata.labels["${SERVICE_NAME_LABEL}"]`, serviceName, LABEL_VALUE_FORM);
    const annotations = optionalStrings(metadata, 'annotations', 'metadata');
    return {
      kind: 'EndpointSlice',
      key,
      namespace,
      name,
      resourceVersion,
      addressType: this.#shared.text(optionalString(object, 'addressType', '')),
      serviceName,
      ports: optionalList(object, 'ports', '', (p, at) => this.#slicePort(objectEntry(p, at), at)),
      endpoints: optionalList(object, 'endpoints', '', (e, at) => this.#endpoint(objectEntry(e, at), at)),
      triggerTimeMs: decodeTime(optionalString(annotations, TRIGGER_TIME_ANNOTATION, 'metadata.annotations')),
    };
  }

  #slicePort(port: JsonObject, at: string): SlicePort {
    const name = port['name'] ?? null;
    return {
      name: name === null ? null : this.#portName(optionalString(port, 'name', at), at),
      port: optionalInteger(port, 'port', at, { ...PORT, min: 0 }),
      protocol: decodeProtocol(port, at),
    };
  }

  #endpoint(endpoint: JsonObject, at: string): SliceEndpoint {
    const conditions = optionalObject(endpoint, 'conditions', at);
    const where = join(at, 'conditions');
    const hints = optionalObject(endpoint, 'hints', at);
    const named = (v: unknown, path: string) => optionalString(objectEntry(v, path), 'name', path);
    return {
      address: optionalList(endpoint, 'addresses', at, stringEntry)[0] ?? '',
      nodeName: this.#shared.text(optionalString(endpoint, 'nodeName', at)),
      ready: optionalBoolean(conditions, 'ready', where, true),
      serving: optionalBoolean(conditions, 'serving', where, true),
      terminating: optionalBoolean(conditions, 'terminating', where, false),
      zoneHints: this.#shared.list(optionalList(hints, 'forZones', join(at, 'hints'), named)),
      nodeHints: this.#shared.list(optionalList(hints, 'forNodes', join(at, 'hints'), named)),
    };
  }

  #node(object: JsonObject): NodeObject {
    const { key, name, resourceVersion } = this.#identity('Node', object);
    const metadata = optionalObject(object, 'metadata', '');
    const labels = optionalStrings(metadata, 'labels', 'metadata');
    const spec = optionalObject(object, 'spec', '');
    const status = optionalObject(object, 'status', '');
    const podCIDR = optionalString(spec, 'podCIDR', 'spec');
    const podCIDRs = optionalList(spec, 'podCIDRs', 'spec', stringEntry);
    return {
      kind: 'Node',
      key,
      name,
      resourceVersion,
      zone: optionalString(labels, ZONE_LABEL, 'metadata.labels'),
      podCIDRs: podCIDRs.length === 0 && podCIDR !== '' ? [podCIDR] : podCIDRs,
      addresses: optionalList(status, 'addresses', 'status', (v, at) => {
        const address = objectEntry(v, at);
        return { type: optionalString(address, 'type', at), address: optionalString(address, 'address', at) };
      }),
      deleting: optionalString(metadata, 'deletionTimestamp', 'metadata') !== '',
      taintKeys: optionalList(spec, 'taints', 'spec', (v, at) => optionalString(objectEntry(v, at), 'key', at)),
    };
  }

  #serviceCIDR(object: JsonObject): ServiceCIDRObject {
    const { key, name, resourceVersion } = this.#identity('ServiceCIDR', object);
    const cidrs = optionalList(optionalObject(object, 'spec', ''), 'cidrs', 'spec', stringEntry);
    return { kind: 'ServiceCIDR', key, name, resourceVersion, cidrs };
  }
}

function checkKind(kind: Kind, value: unknown): JsonObject {
  if (!isJsonObject(value)) return refuse('', value, `a ${kind}`);
  const says = optionalString(value, 'kind', '');
  return says === '' || says === kind ? value : refuse('kind', says, `"${kind}"`);
}

function decodeIngress(value: unknown, at: string): LoadBalancerIngress {
  const ingress = objectEntry(value, at);
  return { ip: optionalString(ingress, 'ip', at), ipMode: optionalString(ingress, 'ipMode', at) || undefined };
}

/** Without those that have a host name only. */
function withAddress(ingress: readonly LoadBalancerIngress[]): readonly LoadBalancerIngress[] {
  return ingress.every((i) => i.ip !== '') ? ingress : ingress.filter((i) => i.ip !== '');
}

/** An absent protocol is TCP, as the API server fills in. */
function decodeProtocol(port: JsonObject, at: string): Protocol {
  const text = optionalString(port, 'protocol', at);
  switch (text) {
    case '':
    case 'TCP':
      return 'TCP';
    case 'UDP':
    case 'SCTP':
      return text;
    default:
      return refuse(join(at, 'protocol'), text, '"TCP", "UDP" or "SCTP"');
  }
}

/** The annotation only feeds a metric: what cannot be read as a time counts as absent. */
function decodeTime(text: string): number | undefined {
  const ms = text === '' ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}
