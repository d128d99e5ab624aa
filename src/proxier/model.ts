/**
 * The model of one IP family: objects in, the plan of every Service out.
 *
 *     upsert/delete ──► pending ──takeChanges()──► records, slices ──► plan of each dirty Service ──► services
 *
 * Handlers only store. `takeChanges`, at the start of a sync, plans again what may have changed: its work is in
 * proportion to that, never to the size of the cluster. What the plans are depends on the objects held, not on the
 * order or the number of the events that brought them.
 *
 * @module
 */

import { endpointsByPort, type PortEndpoints } from './endpoints.ts';
import { explainPort, type PortExplanation } from './explain.ts';
import { type UdpFrontend, udpFrontends } from './flows.ts';
import { planService } from './plan.ts';
import { sameData } from './same.ts';
import { servicePorts } from './services.ts';
import { SliceStore } from './slices.ts';
import type {
  Endpoint,
  EndpointSliceObject,
  Family,
  ObjectKey,
  ServiceObject,
  ServicePlan,
  ServicePort,
} from './types.ts';

/** A text that should be an address (a CIDR) of the family and is none. What it stands for is left out. */
export interface Unparsable {
  readonly service: ObjectKey;
  /** Path of the field in the Service, or `EndpointSlice endpoints[].addresses[0]`. */
  readonly field: string;
  readonly text: string;
}

export interface ModelOptions {
  readonly family: Family;
  /** Endpoints on this node are local. '': none is. */
  readonly nodeName: string;
  /** Feature gate AllowServiceExternalIPs. Default true. */
  readonly externalIPsAllowed?: boolean;
  /** Start of the process, ms since the epoch: earlier trigger times are ignored. Default 0. */
  readonly startMs?: number;
  /** Called once for each text while its Service lives. Must not throw. */
  readonly onUnparsable?: (report: Unparsable) => void;
}

/** What a sync has to look at. */
export interface ModelChanges {
  /** Services whose plan is another than before. One that is not in `services` is gone. */
  readonly changedServices: ReadonlySet<ObjectKey>;
  /** Per Service the times, in ms since the epoch, of the changes of its endpoints. */
  readonly triggerTimesMs: ReadonlyMap<ObjectKey, readonly number[]>;
  /** Services of which UDP frontends, or endpoints behind them, changed: each with the frontends it had before. */
  readonly udpServices: ReadonlyMap<ObjectKey, readonly UdpFrontend[]>;
}

/** Service ports with endpoints of which policy Local allows none here. */
export interface NoLocalEndpoints {
  readonly internal: number;
  readonly external: number;
}

export class Model {
  readonly #options: ModelOptions;
  readonly #slices: SliceStore;
  readonly #plans = new Map<ObjectKey, ServicePlan>();
  /** Records that differ from those planned. Undefined: none of ours, or gone. */
  readonly #pending = new Map<ObjectKey, readonly ServicePort[] | undefined>();
  /** Services with a zone hint on some endpoint. */
  readonly #zoneHinted = new Set<ObjectKey>();
  /** Services to plan again because of the zone alone. */
  readonly #rezoned = new Set<ObjectKey>();
  /** Services with an endpoint on a UDP port. */
  readonly #udp = new Set<ObjectKey>();
  readonly #localReady = new Map<ObjectKey, number>();
  readonly #healthCheckNodePorts = new Map<ObjectKey, number>();
  readonly #reported = new Map<ObjectKey, Set<string>>();
  #zone = '';
  #serviceChangesTotal = 0;
  #endpointCount = 0;
  #noLocalInternal = 0;
  #noLocalExternal = 0;

  constructor(options: ModelOptions) {
    this.#options = options;
    this.#slices = new SliceStore({ family: options.family, startMs: options.startMs ?? 0 });
  }

  /** The plan of every Service of ours, live: it changes in `takeChanges` only. */
  get services(): ReadonlyMap<ObjectKey, ServicePlan> {
    return this.#plans;
  }

  /** Endpoints of all planned service ports, ready or not. */
  get endpointCount(): number {
    return this.#endpointCount;
  }

  get noLocalEndpoints(): NoLocalEndpoints {
    return { internal: this.#noLocalInternal, external: this.#noLocalExternal };
  }

  /** Events about Services, those without effect included. */
  get serviceChangesTotal(): number {
    return this.#serviceChangesTotal;
  }

  /** Services that differ from what is planned. */
  get serviceChangesPending(): number {
    return this.#pending.size;
  }

  /** Events about slices of this family, those without effect included. */
  get endpointChangesTotal(): number {
    return this.#slices.changesTotal;
  }

  /** Events about slices since `takeChanges` that changed something. */
  get endpointChangesPending(): number {
    return this.#slices.changesPending;
  }

  /** Health check node port of each planned Service that has one. Live. */
  healthCheckNodePorts(): ReadonlyMap<ObjectKey, number> {
    return this.#healthCheckNodePorts;
  }

  /** The endpoints of a Service's UDP ports, by port name, as of the last `takeChanges`; whatever policy and topology. */
  udpEndpoints(service: ObjectKey): ReadonlyMap<string, readonly Endpoint[]> {
    const { family, nodeName } = this.#options;
    const ports = endpointsByPort(this.#slices.of(service), { family, nodeName });
    return new Map(ports.flatMap((p) => (p.protocol === 'UDP' ? [[p.portName, p.endpoints]] : [])));
  }

  /** Number of distinct addresses, on this node and ready, of each Service that has some, planned or not. Live. */
  localReadyEndpoints(): ReadonlyMap<ObjectKey, number> {
    return this.#localReady;
  }

  /** Label topology.kubernetes.io/zone of this node; '' for none. */
  get zone(): string {
    return this.#zone;
  }

  /** Services that `takeChanges` would look at. */
  pendingServices(): ReadonlySet<ObjectKey> {
    return new Set([...this.#pending.keys(), ...this.#slices.pendingServices(), ...this.#rezoned]);
  }

  /** Why the plan of a Service is what it is, port by port; undefined if there is none. Looks at this Service only. */
  explain(service: ObjectKey): readonly PortExplanation[] | undefined {
    const { family, nodeName } = this.#options;
    const found = endpointsByPort(this.#slices.of(service), { family, nodeName });
    return this.#plans.get(service)?.ports.map((plan) => {
      const { portName, protocol } = plan.port;
      const match = found.find((e) => e.portName === portName && e.protocol === protocol);
      return explainPort(plan, match?.endpoints ?? [], { nodeName, zone: this.#zone });
    });
  }

  /** @returns True if any Service differs from what is planned, because of this event or an earlier one. */
  upsertService(service: ServiceObject): boolean {
    const { family, externalIPsAllowed = true } = this.#options;
    const ports = servicePorts(service, {
      family,
      externalIPsAllowed,
      onUnparsable: (field, text) => this.#report(service.key, field, text),
    });
    return this.#store(service.key, ports);
  }

  /** @returns True if any Service differs from what is planned, because of this event or an earlier one. */
  deleteService(key: ObjectKey): boolean {
    this.#reported.delete(key);
    return this.#store(key, undefined);
  }

  /** @returns True if this event changes something. A slice of another family changes nothing. */
  upsertSlice(slice: EndpointSliceObject): boolean {
    return this.#slices.upsert(slice);
  }

  /** @returns True if this event changes something. A slice of another family changes nothing. */
  deleteSlice(key: ObjectKey): boolean {
    return this.#slices.delete(key);
  }

  /**
   * Sets the zone of this node ('': none). Services with zone hints are planned again.
   *
   * @returns True if it is another zone than before.
   */
  setZone(zone: string): boolean {
    if (zone === this.#zone) return false;
    this.#zone = zone;
    for (const key of this.#zoneHinted) this.#rezoned.add(key);
    return true;
  }

  /** Plans again what is pending. Afterwards nothing is: the caller keeps the result until its sync succeeds. */
  takeChanges(): ModelChanges {
    const { services: resliced, triggerTimesMs } = this.#slices.checkout();
    const dirty = new Set([...this.#pending.keys(), ...resliced, ...this.#rezoned]);
    const changedServices = new Set<ObjectKey>();
    const udpServices = new Map<ObjectKey, readonly UdpFrontend[]>();
    for (const key of dirty) {
      const hadUdp = this.#udp.has(key);
      const before = udpFrontends(this.#plans.get(key));
      if (this.#replan(key)) changedServices.add(key);
      const after = udpFrontends(this.#plans.get(key));
      if (before.length === 0 && after.length === 0) continue;
      // Not the plan decides: an endpoint that topology left out may have flows from before.
      const endpointsChanged = resliced.has(key) && (hadUdp || this.#udp.has(key));
      if (endpointsChanged || !sameData(before, after)) udpServices.set(key, before);
    }
    this.#pending.clear();
    this.#rezoned.clear();
    return { changedServices, triggerTimesMs, udpServices };
  }

  #store(key: ObjectKey, ports: readonly ServicePort[] | undefined): boolean {
    this.#serviceChangesTotal++;
    if (sameData(recordsOf(this.#plans.get(key)), ports)) this.#pending.delete(key);
    else this.#pending.set(key, ports);
    return this.#pending.size > 0;
  }

  /** @returns True if the plan is another than before. One of equal value keeps its identity. */
  #replan(key: ObjectKey): boolean {
    const { family, nodeName } = this.#options;
    const before = this.#plans.get(key);
    const ports = this.#pending.has(key) ? this.#pending.get(key) : recordsOf(before);
    const slices = this.#slices.of(key);
    const endpoints = endpointsByPort(slices, {
      family,
      nodeName,
      onUnparsable: (text) => this.#report(key, 'EndpointSlice endpoints[].addresses[0]', text),
    });
    this.#noteEndpoints(key, endpoints);
    if (ports === undefined && slices.length === 0) this.#reported.delete(key);
    const plan = ports && planService({ service: key, ports, endpoints }, { nodeName, zone: this.#zone });
    if (sameData(before, plan)) return false;
    this.#count(before, -1);
    this.#count(plan, 1);
    if (plan === undefined) this.#plans.delete(key);
    else this.#plans.set(key, plan);
    put(this.#healthCheckNodePorts, key, plan?.ports[0]?.port.healthCheckNodePort ?? 0);
    return true;
  }

  #noteEndpoints(key: ObjectKey, ports: readonly PortEndpoints[]): void {
    const localReady = new Set<string>();
    let udp = false;
    let zoneHinted = false;
    for (const { protocol, endpoints } of ports) {
      if (protocol === 'UDP') udp = true;
      for (const e of endpoints) {
        if (e.zoneHints.length > 0) zoneHinted = true;
        if (e.isLocal && e.ready) localReady.add(e.ip);
      }
    }
    mark(this.#udp, key, udp);
    mark(this.#zoneHinted, key, zoneHinted);
    put(this.#localReady, key, localReady.size);
  }

  #count(plan: ServicePlan | undefined, sign: 1 | -1): void {
    for (const port of plan?.ports ?? []) {
      this.#endpointCount += sign * port.endpointCount;
      if (port.hasAnyEndpoints && !port.hasInternalEndpoints) this.#noLocalInternal += sign;
      if (port.hasAnyEndpoints && !port.hasExternalEndpoints) this.#noLocalExternal += sign;
    }
  }

  #report(service: ObjectKey, field: string, text: string): void {
    const known = this.#reported.get(service);
    const report = `${field} ${text}`;
    if (known?.has(report)) return;
    if (known === undefined) this.#reported.set(service, new Set([report]));
    else known.add(report);
    this.#options.onUnparsable?.({ service, field, text });
  }
}

function recordsOf(plan: ServicePlan | undefined): readonly ServicePort[] | undefined {
  return plan?.ports.map((p) => p.port);
}

function mark<K>(set: Set<K>, key: K, present: boolean): void {
  if (present) set.add(key);
  else set.delete(key);
}

/** 0 stands for absent. */
function put<K>(map: Map<K, number>, key: K, value: number): void {
  if (value === 0) map.delete(key);
  else map.set(key, value);
}
