/**
 * What every mode gives the daemon. A mode has a pure side (plan to kernel objects) and this side, which
 * brings one IP family of one kernel in line. `if (mode === …)` stands only in `modes/index.ts`.
 *
 * @module
 */

import type { Family, ObjectKey, ServicePlan } from '../proxier/types.ts';

export type ModeName = 'iptables' | 'nftables' | 'ipvs' | 'ebpf';

/** Modes that `openMode` of `index.ts` can open: the others are names that the configuration knows already. */
export const BUILT_MODES: readonly ModeName[] = ['iptables', 'nftables'];

/** One line per event, with fields. */
export interface DataplaneLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What must exist now, and what may differ from what the kernel has. */
export interface Snapshot {
  /** The plan of every service. Read-only for the mode; only valid during the call. */
  readonly services: ReadonlyMap<ObjectKey, ServicePlan>;
  /**
   * Services whose plan changed since the last sync that succeeded. One that is not in `services` is gone.
   * A mode looks at these only, unless the sync is full: work is O(what changed).
   */
  readonly dirty: ReadonlySet<ObjectKey>;
  /** Endpoints of all live service ports, ready or not (large-cluster mode counts them). */
  readonly endpointCount: number;
  /** CIDRs of the ServiceCIDR objects, both families, unsorted. */
  readonly serviceCIDRs: readonly string[];
}

/** A service the kernel or its tools refused. It is left out until it changes or a full sync tries it again; the others go on. */
export interface Refusal {
  readonly service: ObjectKey;
  /** The rule or object at fault, as given to the tool. */
  readonly rule: string;
  /** What the tool or kernel said. */
  readonly reason: string;
}

export interface SyncReport {
  /** What the kernel has was read back: as asked for, or because the mode found that only this helps. */
  readonly full: boolean;
  /** Services left out by this sync, newly refused ones only. */
  readonly refused: readonly Refusal[];
  /** All services left out now. */
  readonly refusedServices: ReadonlySet<ObjectKey>;
}

export interface SyncOptions {
  /** Read back what the kernel has and repair every difference, instead of trusting what was written before. */
  readonly full: boolean;
}

/** What a mode makes of one service, for people to read. */
export interface Inspection {
  /** Lines as the tool of the mode takes them; none if the plan is undefined, or cannot be rendered. */
  readonly rules: readonly string[];
  /** What the last sync that wrote this service left of it in the kernel. */
  readonly applied: 'this plan' | 'an earlier plan' | 'nothing';
}

/**
 * One IP family of one mode. `sync` is never called while a call of it runs.
 */
export interface Dataplane {
  readonly mode: ModeName;
  readonly family: Family;
  /**
   * Makes the kernel be what `snapshot` says.
   *
   * @returns What was left out, when everything else is in the kernel.
   * @throws If the kernel may differ from the snapshot. The caller keeps its work dirty, and the next call is full.
   */
  sync(snapshot: Snapshot, options: SyncOptions, signal?: AbortSignal): Promise<SyncReport>;
  /**
   * Watches for loss of what was programmed (a flush by someone else) until `signal` aborts.
   * Calls `onLost` with a reason; the caller then syncs in full.
   */
  monitor(onLost: (reason: string) => void, signal: AbortSignal): Promise<void>;
  /**
   * Says what `plan` is in the kernel's terms. Looks at memory only, and at this service only; may be called during a sync.
   *
   * @param plan - Undefined: the service is gone, or has no plan yet.
   */
  inspect(service: ObjectKey, plan: ServicePlan | undefined): Inspection;
  /** In large-cluster mode the hourly full sync is left out. Value of the last sync. */
  readonly skipsPeriodicFullSync: boolean;
}
