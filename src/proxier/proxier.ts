/**
 * The loop of one IP family: what changed in the model goes to the dataplane, and health, metrics and the service
 * health servers are told. Handlers only store and mark dirty; all kernel work happens in `#sync`, one at a time.
 *
 * @module
 */

import type { Logger } from 'pino';
import type { Dataplane, Refusal } from '../modes/mode.ts';
import type { Clock } from '../sys/clock.ts';
import { mergeUdpServices, type UdpServices } from './flows.ts';
import type { SyncHealth } from './health.ts';
import type { ProxierState, ServiceInspection } from './inspection.ts';
import type { Metrics } from './metrics.ts';
import type { Model } from './model.ts';
import { Runner, type RunOutcome } from './runner.ts';
import type { ServiceHealth } from './service-health.ts';
import { compareText, type EndpointSliceObject, type Family, type ObjectKey, type ServiceObject } from './types.ts';

/** What the daemon logs with. */
export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>;

/** A full sync is due after this long, unless the dataplane leaves it out. */
export const FULL_SYNC_PERIOD_MS = 3_600_000;

export interface ProxierOptions {
  readonly minSyncPeriodMs: number;
  /** A failed sync is tried again after this long. */
  readonly syncPeriodMs: number;
  /** A sync happens after this long without any request. */
  readonly maxSyncPeriodMs: number;
}

export interface ProxierDeps {
  readonly model: Model;
  readonly dataplane: Dataplane;
  readonly clock: Clock;
  readonly health: SyncHealth;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly serviceHealth: Pick<ServiceHealth, 'syncServices' | 'syncEndpoints' | 'close'>;
  /** A service was left out by a sync, for the first time since it changed. */
  readonly onRefused: (refusal: Refusal) => void;
  /**
   * Called after a sync that succeeded, if UDP services changed: the flows of endpoints that are gone would live on.
   * One that throws is called again with these services, at the latest after the sync period. Absent: flows are left alone.
   */
  readonly cleanUpFlows?: (changed: UdpServices, signal: AbortSignal) => Promise<void>;
  /** Called when the kernel has what the model says, after every sync that succeeded and before what follows it. */
  readonly onSynced?: () => void;
  /** Called after a full sync, which reads all rules and keeps none of what it read. */
  readonly releaseMemory?: () => void;
}

function countsOf(model: Model) {
  return {
    services: model.serviceChangesTotal,
    endpoints: model.endpointChangesTotal,
    servicesPending: model.serviceChangesPending,
    endpointsPending: model.endpointChangesPending,
  };
}

/** One IP family of the proxy. */
export class Proxier {
  readonly family: Family;
  readonly #deps: ProxierDeps;
  readonly #runner: Runner;
  #servicesSynced = false;
  #slicesSynced = false;
  #serviceCIDRs: readonly string[] = [];
  /** The next sync reads back what the kernel has. */
  #needsFull = true;
  #lastFullMs = Number.NEGATIVE_INFINITY;
  #lastSyncMs: number | undefined;
  #lastFailure: ProxierState['lastFailure'];
  /** Services left out now. */
  readonly #refusals = new Map<ObjectKey, Refusal>();
  /** Services whose plan changed since the last sync that succeeded. */
  #dirty = new Set<ObjectKey>();
  /** Times of the changes behind `#dirty`, in milliseconds since the epoch. */
  #triggersMs: number[] = [];
  /** UDP services that changed since flows were cleaned up. */
  #udpServices: UdpServices = new Map();
  /** Something was asked for since the last sync began. */
  #requested = false;
  /** What of the model the metrics have. */
  #counted = { services: 0, endpoints: 0, servicesPending: 0, endpointsPending: 0 };

  constructor(options: ProxierOptions, deps: ProxierDeps) {
    this.family = deps.dataplane.family;
    this.#deps = deps;
    this.#runner = new Runner(
      {
        minIntervalMs: options.minSyncPeriodMs,
        retryIntervalMs: options.syncPeriodMs,
        maxIntervalMs: options.maxSyncPeriodMs,
      },
      (signal) => this.#sync(signal),
      deps.clock,
    );
  }

  upsertService(object: ServiceObject): void {
    this.#changed(this.#deps.model.upsertService(object));
  }

  deleteService(key: ObjectKey): void {
    this.#changed(this.#deps.model.deleteService(key));
  }

  upsertSlice(object: EndpointSliceObject): void {
    this.#changed(this.#deps.model.upsertSlice(object));
  }

  deleteSlice(key: ObjectKey): void {
    this.#changed(this.#deps.model.deleteSlice(key));
  }

  /** @param zone - Label topology.kubernetes.io/zone of this node; '' for none. */
  setZone(zone: string): void {
    this.#changed(this.#deps.model.setZone(zone));
  }

  /** Only what a mode writes beside the services depends on them, so no service is dirty. */
  setServiceCIDRs(cidrs: readonly string[]): void {
    const before = new Set(this.#serviceCIDRs);
    if (cidrs.length === before.size && cidrs.every((cidr) => before.has(cidr))) return;
    this.#serviceCIDRs = cidrs;
    this.#changed(true);
  }

  /** All Services there are have been delivered. */
  servicesSynced(): void {
    this.#servicesSynced = true;
    if (this.#isInitialised()) this.#askNow();
  }

  /** All EndpointSlices there are have been delivered. */
  slicesSynced(): void {
    this.#slicesSynced = true;
    if (this.#isInitialised()) this.#askNow();
  }

  /**
   * Syncs when needed until `signal` aborts, then closes the service health servers. Rules stay.
   *
   * @throws What cannot be retried: a defect, not a failed sync.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { dataplane, health, serviceHealth, metrics, log } = this.#deps;
    health.updated(this.family);
    this.#setNow(metrics.lastQueued);
    metrics.outOfDate.set({ ip_family: this.family }, 1);
    // One part that fails takes the other with it.
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    const onLost = (reason: string) => {
      log.warn({ family: this.family, reason }, 'rules lost, programming them again');
      this.#needsFull = true;
      if (this.#isInitialised()) this.#askNow();
    };
    try {
      await Promise.all([
        this.#runner.loop(both),
        dataplane.monitor(onLost, both).catch((error: unknown) => {
          if (!both.aborted) throw error;
        }),
      ]);
    } finally {
      stop.abort();
      await serviceHealth.close();
    }
  }

  /** How this family stands. Costs what is dirty. */
  state(): ProxierState {
    const { model, dataplane } = this.#deps;
    const dirty = new Set([...this.#dirty, ...model.pendingServices()]);
    return {
      family: this.family,
      servicesSynced: this.#servicesSynced,
      slicesSynced: this.#slicesSynced,
      needsFull: this.#needsFull,
      dirty: [...dirty].sort(compareText),
      lastSyncMs: this.#lastSyncMs,
      lastFullSyncMs: Number.isFinite(this.#lastFullMs) ? this.#lastFullMs : undefined,
      lastFailure: this.#lastFailure,
      refused: [...this.#refusals.values()].sort((a, b) => compareText(a.service, b.service)),
      services: model.services.size,
      endpoints: model.endpointCount,
      zone: model.zone,
      largeCluster: dataplane.skipsPeriodicFullSync,
    };
  }

  /** One service, whether or not it is in the kernel; undefined if nothing is known of it. Costs what it has, and what is pending. */
  inspect(service: ObjectKey): ServiceInspection | undefined {
    const { model, dataplane } = this.#deps;
    const plan = model.services.get(service);
    const kernel = dataplane.inspect(service, plan);
    const isChanging = this.#dirty.has(service) || model.pendingServices().has(service);
    if (plan === undefined && !isChanging && kernel.applied === 'nothing') return undefined;
    const refusal = this.#refusals.get(service);
    const isApplied = !isChanging && !this.#needsFull && kernel.applied === 'this plan';
    const status = isApplied ? 'applied' : refusal !== undefined && !isChanging ? 'refused' : 'dirty';
    return { family: this.family, status, refusal, plan, why: model.explain(service) ?? [], kernel };
  }

  #isInitialised(): boolean {
    return this.#servicesSynced && this.#slicesSynced;
  }

  #setNow(gauge: Metrics['lastQueued']): void {
    gauge.set({ ip_family: this.family }, this.#deps.clock.now() / 1000);
  }

  /** After every change of the model. */
  #changed(needsSync: boolean): void {
    this.#countChanges();
    if (!needsSync || !this.#isInitialised()) return;
    this.#noteRequest();
    this.#runner.request();
  }

  /** Past the minimum interval: nothing works yet, or any more. */
  #askNow(): void {
    this.#noteRequest();
    this.#runner.requestNow();
  }

  #noteRequest(): void {
    this.#requested = true;
    this.#deps.health.queued(this.family);
    this.#setNow(this.#deps.metrics.lastQueued);
    this.#deps.metrics.outOfDate.set({ ip_family: this.family }, 1);
  }

  /** The four metrics belong to all families: each adds what is new since it was here last. */
  #countChanges(): void {
    const { model, metrics } = this.#deps;
    const before = this.#counted;
    this.#counted = countsOf(model);
    metrics.serviceChanges.inc(this.#counted.services - before.services);
    metrics.endpointChanges.inc(this.#counted.endpoints - before.endpoints);
    metrics.serviceChangesPending.inc(this.#counted.servicesPending - before.servicesPending);
    metrics.endpointChangesPending.inc(this.#counted.endpointsPending - before.endpointsPending);
  }

  async #sync(signal: AbortSignal): Promise<RunOutcome> {
    if (!this.#isInitialised()) return 'ok';
    const { model, dataplane, clock, health, metrics, log } = this.#deps;
    const startMs = clock.now();
    const isFullDue = startMs - this.#lastFullMs > FULL_SYNC_PERIOD_MS && !dataplane.skipsPeriodicFullSync;
    const full = this.#needsFull || isFullDue;
    // Cleared before, not after: a loss noticed during this sync must not be forgotten.
    this.#needsFull = false;
    this.#requested = false;
    this.#takeChanges();
    const label = { ip_family: this.family };
    // A partial sync may become a full one. Of one that fails, only what was asked for is known.
    let wasFull = full;
    try {
      const snapshot = {
        services: model.services,
        dirty: this.#dirty,
        endpointCount: model.endpointCount,
        serviceCIDRs: this.#serviceCIDRs,
      };
      const report = await dataplane.sync(snapshot, { full }, signal);
      wasFull = report.full;
      metrics.refusedServices.set(label, report.refusedServices.size);
      for (const key of this.#refusals.keys()) if (!report.refusedServices.has(key)) this.#refusals.delete(key);
      for (const refusal of report.refused) this.#refused(refusal);
    } catch (error) {
      this.#needsFull = true;
      if (signal.aborted) return 'failed';
      this.#lastFailure = { atMs: clock.now(), reason: error instanceof Error ? error.message : String(error) };
      // Also a sync that nobody asked for: health shows that the kernel may be out of date.
      health.queued(this.family);
      metrics.outOfDate.set(label, 1);
      log.error({ family: this.family, full, err: error }, 'sync failed, will be tried again');
      return 'failed';
    } finally {
      const seconds = (clock.now() - startMs) / 1000;
      metrics.syncDuration.observe(label, seconds);
      (wasFull ? metrics.fullSyncDuration : metrics.partialSyncDuration).observe(label, seconds);
    }
    if (wasFull) this.#lastFullMs = startMs;
    const areFlowsClean = await this.#succeeded(signal);
    log.debug(
      { family: this.family, full: wasFull, services: model.services.size, durationMs: clock.now() - startMs },
      'synced',
    );
    if (wasFull) this.#deps.releaseMemory?.();
    return areFlowsClean ? 'ok' : 'failed';
  }

  /** Moves what is pending in the model into the plan, and remembers it until a sync succeeds. */
  #takeChanges(): void {
    const changes = this.#deps.model.takeChanges();
    for (const service of changes.changedServices) this.#dirty.add(service);
    for (const times of changes.triggerTimesMs.values()) this.#triggersMs.push(...times);
    this.#udpServices = mergeUdpServices(this.#udpServices, changes.udpServices);
    this.#countChanges();
  }

  /** @returns False if flows are still to be cleaned up. */
  async #succeeded(signal: AbortSignal): Promise<boolean> {
    const { model, clock, metrics, health, serviceHealth } = this.#deps;
    const label = { ip_family: this.family };
    this.#dirty = new Set();
    this.#deps.onSynced?.();
    const nowMs = clock.now();
    this.#lastSyncMs = nowMs;
    for (const ms of this.#triggersMs) metrics.networkProgramming.observe(label, (nowMs - ms) / 1000);
    this.#triggersMs = [];
    const { internal, external } = model.noLocalEndpoints;
    metrics.noLocalEndpoints.set({ ...label, traffic_policy: 'internal' }, internal);
    metrics.noLocalEndpoints.set({ ...label, traffic_policy: 'external' }, external);
    health.updated(this.family);
    // What came while this sync ran still waits for the next one.
    if (this.#requested) health.queued(this.family);
    this.#setNow(metrics.lastSync);
    await serviceHealth.syncServices(model.healthCheckNodePorts());
    serviceHealth.syncEndpoints(model.localReadyEndpoints());
    const areFlowsClean = await this.#cleanUpFlows(signal);
    metrics.outOfDate.set(label, this.#requested ? 1 : 0);
    return areFlowsClean;
  }

  /** After the rules: a flow deleted before would come back as it was. */
  async #cleanUpFlows(signal: AbortSignal): Promise<boolean> {
    const { cleanUpFlows, log } = this.#deps;
    try {
      if (this.#udpServices.size > 0) await cleanUpFlows?.(this.#udpServices, signal);
      this.#udpServices = new Map();
      return true;
    } catch (error) {
      if (!signal.aborted)
        log.error({ family: this.family, err: error }, 'UDP flows not cleaned up, will be tried again');
      return false;
    }
  }

  #refused(refusal: Refusal): void {
    const { service, rule, reason } = refusal;
    this.#refusals.set(service, refusal);
    this.#deps.log.error({ family: this.family, service, rule, reason }, 'service refused and left out');
    this.#deps.onRefused(refusal);
  }
}
