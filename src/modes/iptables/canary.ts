/**
 * Notices that someone else flushed the tables: an empty chain of ours in each table, which goes when a table is flushed and
 * its chains are deleted, as firewall scripts do when they restart. spec: iptables.md §14.
 *
 * @module
 */

import type { AnyTable, Tools } from '../../iptables/tools.ts';
import type { Clock } from '../../sys/clock.ts';
import { CANARY } from './names.ts';

const TABLES: readonly AnyTable[] = ['mangle', 'nat', 'filter'];
/** A firewall script flushes table after table; rules written between are lost again. So long is waited for the others at most. */
const MAX_SETTLE_MS = 5_000;
const SETTLE_POLL_MS = 100;

export interface CanaryDeps {
  readonly tools: Pick<Tools, 'ensureChain' | 'hasChain'>;
  readonly clock: Clock;
  /** Told when the tools cannot say whether a chain is there, which is neither a loss nor its absence. */
  readonly onUnknown: (error: unknown) => void;
}

/**
 * Watches until `signal` aborts. Every table is looked at, so a flush of one of them is noticed too.
 *
 * @param periodMs - A loss is told within this time, the wait for a flush that goes on included: looks are closer together.
 * @param onLost - Called with the tables that lost their canary, when the flush seems over.
 */
export async function watchCanary(
  deps: CanaryDeps,
  periodMs: number,
  onLost: (reason: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const settleMs = Math.min(MAX_SETTLE_MS, periodMs / 2);
  const intervalMs = periodMs - settleMs;
  while (!signal.aborted) {
    if (!(await createAll(deps, signal))) {
      await deps.clock.sleep(intervalMs, signal);
      continue;
    }
    const lost = await waitForLoss(deps, { intervalMs, settleMs }, signal);
    if (!signal.aborted) onLost(`the chain ${CANARY} is gone from ${lost.join(', ')}`);
  }
}

/** @returns False if a table could not be reached: nothing can be concluded from a chain missing there. */
async function createAll(deps: CanaryDeps, signal: AbortSignal): Promise<boolean> {
  for (const table of TABLES) {
    try {
      await deps.tools.ensureChain(table, CANARY, signal);
    } catch (error) {
      if (!signal.aborted) deps.onUnknown(error);
      return false;
    }
  }
  return true;
}

async function waitForLoss(
  deps: CanaryDeps,
  { intervalMs, settleMs }: { readonly intervalMs: number; readonly settleMs: number },
  signal: AbortSignal,
): Promise<readonly AnyTable[]> {
  let lost: readonly AnyTable[] = [];
  while (lost.length === 0 && !signal.aborted) {
    await deps.clock.sleep(intervalMs, signal);
    lost = await missing(deps, signal);
  }
  const settled = deps.clock.now() + settleMs;
  while (lost.length < TABLES.length && deps.clock.now() < settled && !signal.aborted) {
    await deps.clock.sleep(SETTLE_POLL_MS, signal);
    lost = await missing(deps, signal);
  }
  return lost;
}

async function missing(deps: CanaryDeps, signal: AbortSignal): Promise<readonly AnyTable[]> {
  const lost: AnyTable[] = [];
  for (const table of TABLES) {
    if (signal.aborted) return [];
    try {
      if (!(await deps.tools.hasChain(table, CANARY, signal))) lost.push(table);
    } catch (error) {
      // The lock is held, or the tool failed: unknown is not lost.
      if (!signal.aborted) deps.onUnknown(error);
    }
  }
  return lost;
}
