/**
 * What a proxier tells about itself: data for people and their tools, made when asked for.
 *
 * @module
 */

import type { Inspection, Refusal } from '../modes/mode.ts';
import type { PortExplanation } from './explain.ts';
import type { Family, ObjectKey, ServicePlan } from './types.ts';

/** How one family stands. Times are milliseconds since the epoch; undefined: not yet. */
export interface ProxierState {
  readonly family: Family;
  readonly servicesSynced: boolean;
  readonly slicesSynced: boolean;
  /** The next sync reads back what the kernel has: nothing is programmed yet, rules were lost, or a sync failed. */
  readonly needsFull: boolean;
  /** Services of which the kernel may not have the last state. In the order of text. */
  readonly dirty: readonly ObjectKey[];
  readonly lastSyncMs: number | undefined;
  readonly lastFullSyncMs: number | undefined;
  readonly lastFailure: { readonly atMs: number; readonly reason: string } | undefined;
  /** In the order of `service`. */
  readonly refused: readonly Refusal[];
  /** Services with a plan. */
  readonly services: number;
  /** Of their ports, ready or not. */
  readonly endpoints: number;
  readonly zone: string;
  /** Value of the last sync. */
  readonly largeCluster: boolean;
}

/** One service in one family. */
export interface ServiceInspection {
  readonly family: Family;
  /** `dirty`: a sync that is to come, or runs, has work to do for it, or must look whether it has. */
  readonly status: 'applied' | 'dirty' | 'refused';
  readonly refusal: Refusal | undefined;
  /** Undefined: gone, or not planned yet. */
  readonly plan: ServicePlan | undefined;
  readonly why: readonly PortExplanation[];
  readonly kernel: Inspection;
}
