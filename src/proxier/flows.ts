/**
 * Which UDP flows are stale: connection tracking keeps sending the packets of a flow to the endpoint it was given when it
 * began, also when that endpoint is gone, as long as the client goes on sending. A TCP client would notice; a UDP client
 * does not. Pure.
 *
 * Only frontends of Services that changed are looked at: those they have now, and those they had.
 *
 *     frontend        endpoints     answered by            stale
 *     has             some          one of them            no
 *     has             some          anyone else            yes   (also by the frontend itself: begun when there were none)
 *     has, or had     none          the frontend itself    no    (never translated: none of ours)
 *     has, or had     none          anyone else            yes
 *
 * @module
 */

import { ipBytes } from './addr.ts';
import type { Endpoint, IPAddress, ObjectKey, ServicePlan } from './types.ts';

/** Where clients of a UDP service port send to. */
export interface UdpFrontend {
  readonly portName: string;
  /** Undefined: the addresses of the node that answer on node ports. */
  readonly ip: IPAddress | undefined;
  readonly port: number;
}

/** Services with the UDP frontends they had; those they have now are in their plans. */
export type UdpServices = ReadonlyMap<ObjectKey, readonly UdpFrontend[]>;

/** A flow, as connection tracking has it. Addresses as in `flowAddress`. */
export interface Flow {
  readonly toAddress: string;
  readonly toPort: number;
  readonly fromAddress: string;
  readonly fromPort: number;
}

/** What is now. */
export interface FlowView {
  readonly services: ReadonlyMap<ObjectKey, ServicePlan>;
  /** All endpoints of a Service's UDP ports, by port name. */
  readonly udpEndpoints: (service: ObjectKey) => ReadonlyMap<string, readonly Endpoint[]>;
  /** Addresses of this node that answer on node ports. */
  readonly nodePortIPs: readonly IPAddress[];
  /** All of 127.0.0.0/8 answers on node ports, too. */
  readonly localhostNodePorts: boolean;
}

/** Picks flows. */
export interface FlowFilter {
  /** Ports of the frontends in question. Empty: no flow can be stale. */
  readonly toPorts: ReadonlySet<number>;
  isStale(flow: Flow): boolean;
  /**
   * Leaves out flows to a frontend that a Service that did not change has too (only an external address can be shared),
   * if an endpoint of that one answers. Looks at all Services, so it is for flows found stale, if any.
   */
  withoutThoseOfOthers<F extends Flow>(stale: readonly F[]): readonly F[];
}

const NONE: readonly never[] = [];

/** The UDP frontends of a plan, in its order. */
export function udpFrontends(plan: ServicePlan | undefined): readonly UdpFrontend[] {
  if (plan === undefined || !plan.ports.some((p) => p.port.protocol === 'UDP')) return NONE;
  return plan.ports.flatMap(({ port: { protocol, portName, clusterIP, port, nodePort, ...rest } }) => {
    if (protocol !== 'UDP') return [];
    const ips = [clusterIP, ...rest.externalIPs, ...rest.loadBalancerVIPs];
    const frontends: UdpFrontend[] = ips.map((ip) => ({ portName, ip, port }));
    if (nodePort !== 0) frontends.push({ portName, ip: undefined, port: nodePort });
    return frontends;
  });
}

/** Both together, each frontend once. */
export function mergeUdpServices(a: UdpServices, b: UdpServices): UdpServices {
  if (a.size === 0) return b;
  const merged = new Map(a);
  for (const [service, frontends] of b) {
    const known = merged.get(service) ?? NONE;
    const isNew = (f: UdpFrontend) => !known.some((k) => k.ip === f.ip && k.port === f.port);
    merged.set(service, [...known, ...frontends.filter(isNew)]);
  }
  return merged;
}

/** An address as connection tracking prints it: dotted, or eight hexadecimal groups. */
export function flowAddress(ip: IPAddress): string {
  const bytes = ipBytes(ip);
  if (bytes.length === 4) return ip;
  return Array.from({ length: 8 }, (_, i) => (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16)).join(
    ':',
  );
}

const NODE = 'node';
const end = (address: string, port: number): string => `${address} ${port}`;
const endOf = ({ ip, port }: UdpFrontend): string => end(ip === undefined ? NODE : flowAddress(ip), port);

/** The flows that the changes of these Services left behind. */
export function staleFlows(changed: UdpServices, view: FlowView): FlowFilter {
  const toPorts = new Set<number>();
  /** Frontend → who may answer. */
  const answerers = new Map<string, Set<string>>();
  for (const [service, had] of changed) {
    const has = udpFrontends(view.services.get(service));
    for (const frontend of [...had, ...has]) {
      toPorts.add(frontend.port);
      if (!answerers.has(endOf(frontend))) answerers.set(endOf(frontend), new Set());
    }
    addAnswerers(answerers, has, view.udpEndpoints(service));
  }
  const nodeAddresses = new Set(view.nodePortIPs.map(flowAddress));
  const isNode = (address: string): boolean =>
    nodeAddresses.has(address) || (view.localhostNodePorts && address.startsWith('127.'));
  /** The frontend a flow is sent to, of those in `known`. An address of its own counts before the node port. */
  const frontendOf = ({ toAddress, toPort }: Flow, known: ReadonlyMap<string, unknown>): string | undefined =>
    [end(toAddress, toPort), ...(isNode(toAddress) ? [end(NODE, toPort)] : [])].find((key) => known.has(key));

  return {
    toPorts,
    isStale(flow) {
      const allowed = answerers.get(frontendOf(flow, answerers) ?? '');
      if (allowed === undefined) return false;
      if (allowed.size > 0) return !allowed.has(end(flow.fromAddress, flow.fromPort));
      return flow.fromAddress !== flow.toAddress || flow.fromPort !== flow.toPort;
    },
    withoutThoseOfOthers(stale) {
      if (stale.length === 0) return stale;
      const others = new Map(stale.map((flow) => [frontendOf(flow, answerers) ?? '', new Set<string>()]));
      for (const [service, plan] of view.services) {
        if (changed.has(service)) continue;
        const shared = udpFrontends(plan).filter((frontend) => others.has(endOf(frontend)));
        if (shared.length > 0) addAnswerers(others, shared, view.udpEndpoints(service));
      }
      return stale.filter(
        (flow) => !others.get(frontendOf(flow, answerers) ?? '')?.has(end(flow.fromAddress, flow.fromPort)),
      );
    },
  };
}

function addAnswerers(
  answerers: ReadonlyMap<string, Set<string>>,
  frontends: readonly UdpFrontend[],
  endpoints: ReadonlyMap<string, readonly Endpoint[]>,
): void {
  for (const frontend of frontends) {
    const allowed = answerers.get(endOf(frontend));
    for (const e of endpoints.get(frontend.portName) ?? NONE) {
      // Ready without serving is what publishNotReadyAddresses makes: traffic goes there.
      if (e.ready || e.serving) allowed?.add(end(flowAddress(e.ip), e.port));
    }
  }
}
