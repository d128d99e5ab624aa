/**
 * The slices of one Service to its endpoints, per port name and protocol.
 *
 * @module
 */

import { joinHostPort, parseIP } from './addr.ts';
import {
  compareText,
  type Endpoint,
  type EndpointSliceObject,
  type Family,
  type IPAddress,
  type Protocol,
  type SliceEndpoint,
} from './types.ts';

/** The endpoints of one (port name, protocol). */
export interface PortEndpoints {
  readonly portName: string;
  readonly protocol: Protocol;
  /** At least one, no two of the same `text`, in the order of `text`. */
  readonly endpoints: readonly Endpoint[];
}

export interface EndpointOptions {
  readonly family: Family;
  /** '': no endpoint is local. */
  readonly nodeName: string;
  /** Called with an address that is none of this family. The endpoint is left out. */
  readonly onUnparsable?: (text: string) => void;
}

interface Found {
  readonly endpoint: Endpoint;
  readonly slice: EndpointSliceObject;
}

interface Port {
  readonly portName: string;
  readonly protocol: Protocol;
  readonly found: Map<string, Found>;
}

const NONE: readonly never[] = [];

/**
 * The endpoints of a Service.
 *
 * An endpoint can stand in two slices at once, while it moves from one to the other. A copy that does not terminate
 * counts more than one that does; then, across slices, a ready copy and a serving copy count more, and the slice of
 * the greater name. Nothing depends on the order of `slices`.
 *
 * @param slices - All slices of the Service, of the family in `options`, in the order of their names.
 * @returns One entry for each (port name, protocol) with at least one endpoint, in no order.
 */
export function endpointsByPort(
  slices: readonly EndpointSliceObject[],
  options: EndpointOptions,
): readonly PortEndpoints[] {
  const ports: Port[] = [];
  for (const slice of slices) addSlice(ports, slice, options);
  if (ports.length === 0) return NONE;
  return ports.map(({ portName, protocol, found }) => ({
    portName,
    protocol,
    endpoints: Array.from(found.values(), (f) => f.endpoint).sort((a, b) => compareText(a.text, b.text)),
  }));
}

function addSlice(ports: Port[], slice: EndpointSliceObject, options: EndpointOptions): void {
  const addresses = slice.endpoints.map((e) => addressOf(e, options));
  for (const { name, port, protocol } of slice.ports) {
    if (name === null || port === null || port === 0) continue;
    for (const [i, source] of slice.endpoints.entries()) {
      const ip = addresses[i];
      if (ip === undefined) continue;
      const endpoint = toEndpoint(source, ip, port, options.nodeName);
      const { found } = portOf(ports, name, protocol);
      const held = found.get(endpoint.text);
      if (held === undefined || replaces({ endpoint, slice }, held)) found.set(endpoint.text, { endpoint, slice });
    }
  }
}

function addressOf(source: SliceEndpoint, { family, onUnparsable }: EndpointOptions): IPAddress | undefined {
  if (source.address === '') return undefined;
  const parsed = parseIP(source.address);
  if (parsed?.family === family) return parsed.ip;
  onUnparsable?.(source.address);
  return undefined;
}

function toEndpoint(source: SliceEndpoint, ip: IPAddress, port: number, nodeName: string): Endpoint {
  return {
    ip,
    port,
    text: joinHostPort(ip, port),
    isLocal: nodeName !== '' && source.nodeName === nodeName,
    ready: source.ready,
    serving: source.serving,
    terminating: source.terminating,
    zoneHints: source.zoneHints,
    nodeHints: source.nodeHints,
  };
}

function portOf(ports: Port[], portName: string, protocol: Protocol): Port {
  const known = ports.find((p) => p.portName === portName && p.protocol === protocol);
  if (known !== undefined) return known;
  const port: Port = { portName, protocol, found: new Map() };
  ports.push(port);
  return port;
}

function replaces(later: Found, held: Found): boolean {
  if (later.endpoint.terminating) return false;
  if (held.endpoint.terminating || held.slice === later.slice) return true;
  if (held.endpoint.ready !== later.endpoint.ready) return later.endpoint.ready;
  return later.endpoint.serving || !held.endpoint.serving;
}
