/**
 * What the API server does to an EndpointSlice before it is stored.
 *
 * @module
 */

import { isIP } from 'node:net';
import { familyOf } from './allocations.ts';
import { isLabel } from './names.ts';
import { asJson, type KubeObject, type Metadata } from './object.ts';
import { isPort, PORT_RANGE } from './service-checks.ts';
import { duplicate, type FieldError, invalid, notSupported, required } from './status.ts';

export interface EndpointSlice {
  metadata: Metadata;
  addressType?: string;
  ports?: { name?: string; port?: number; protocol?: string }[];
  endpoints?: {
    addresses?: string[];
    conditions?: { ready?: boolean; serving?: boolean; terminating?: boolean };
    nodeName?: string;
    hints?: { forZones?: { name?: string }[]; forNodes?: { name?: string }[] };
  }[];
}

/** An EndpointSlice whose shape is checked (`schema.ts`). */
export function asEndpointSlice(object: KubeObject): EndpointSlice {
  return object as unknown as EndpointSlice;
}

const ADDRESS_TYPES = ['FQDN', 'IPv4', 'IPv6'];
const MAX_ENDPOINTS = 1000;
const MAX_ADDRESSES = 100;
const MAX_PORTS = 20_000;

function checkAddresses(slice: EndpointSlice): FieldError[] {
  const errors: FieldError[] = [];
  for (const [i, endpoint] of (slice.endpoints ?? []).entries()) {
    const at = `endpoints[${i}]`;
    const addresses = endpoint.addresses ?? [];
    if (addresses.length === 0) errors.push(required(`${at}.addresses`, 'must contain at least 1 address'));
    if (addresses.length > MAX_ADDRESSES) {
      errors.push(invalid(`${at}.addresses`, addresses.length, `must have at most ${MAX_ADDRESSES} items`));
    }
    if (slice.addressType === 'FQDN') continue;
    for (const [j, address] of addresses.entries()) {
      const field = `${at}.addresses[${j}]`;
      if (!isIP(address)) errors.push(invalid(field, address, 'must be a valid IP address'));
      else if (familyOf(address) !== slice.addressType) {
        errors.push(invalid(field, address, `must be an ${slice.addressType} address`));
      }
    }
    for (const [j, zone] of (endpoint.hints?.forZones ?? []).entries()) {
      if (!zone.name) errors.push(required(`${at}.hints.forZones[${j}].name`));
    }
  }
  return errors;
}

function checkPorts(slice: EndpointSlice): FieldError[] {
  const errors: FieldError[] = [];
  const names = new Set<string>();
  for (const [i, port] of (slice.ports ?? []).entries()) {
    const name = port.name ?? '';
    if (names.has(name)) errors.push(duplicate(`ports[${i}].name`, name));
    names.add(name);
    if (name !== '' && !isLabel(name)) {
      errors.push(
        invalid(
          `ports[${i}].name`,
          name,
          "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
        ),
      );
    }
    if (port.port !== undefined && !isPort(port.port)) errors.push(invalid(`ports[${i}].port`, port.port, PORT_RANGE));
    if (!['TCP', 'UDP', 'SCTP'].includes(port.protocol ?? '')) {
      errors.push(notSupported(`ports[${i}].protocol`, port.protocol, ['SCTP', 'TCP', 'UDP']));
    }
  }
  return errors;
}

/**
 * Makes an EndpointSlice what the store keeps, in place: every port has a name and a protocol.
 *
 * @returns What is wrong; empty if the object can be stored.
 */
export function admitEndpointSlice(draft: KubeObject, old: KubeObject | undefined): FieldError[] {
  const slice = asEndpointSlice(draft);
  const { addressType } = slice;
  if (asJson(draft)['endpoints'] === undefined) slice.endpoints = [];
  for (const port of slice.ports ?? []) {
    port.name ??= '';
    port.protocol ??= 'TCP';
  }
  if (!addressType) return [required('addressType')];
  const errors: FieldError[] = [];
  if (!ADDRESS_TYPES.includes(addressType)) errors.push(notSupported('addressType', addressType, ADDRESS_TYPES));
  if (old && asEndpointSlice(old).addressType !== addressType) {
    errors.push(invalid('addressType', addressType, 'field is immutable'));
  }
  for (const [field, length, most] of [
    ['endpoints', slice.endpoints?.length ?? 0, MAX_ENDPOINTS],
    ['ports', slice.ports?.length ?? 0, MAX_PORTS],
  ] as const) {
    if (length > most) errors.push(invalid(field, length, `must have at most ${most} items`));
  }
  return [...errors, ...checkAddresses(slice), ...checkPorts(slice)];
}
