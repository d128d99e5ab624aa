/**
 * The modes by name: what the rest of the daemon knows of them. The only place that tells modes apart.
 *
 * @module
 */

import { openIptables } from './iptables/open.ts';
import { BUILT_MODES, type ModeName } from './mode.ts';
import { openNftables } from './nftables/open.ts';
import type { ModeDeps, ModeSettings, OpenMode } from './open-mode.ts';

export type { IptablesMetrics } from './iptables/apply.ts';
export type { DataplaneLog } from './mode.ts';
export type { FamilySettings, ModeDeps, ModeMetrics, ModeSettings, OpenMode } from './open-mode.ts';

type Open = (settings: ModeSettings, deps: ModeDeps, signal?: AbortSignal) => Promise<OpenMode>;

const OPEN: Readonly<Partial<Record<ModeName, Open>>> = {
  iptables: openIptables,
  nftables: openNftables,
};

/**
 * Looks at the node and prepares a mode.
 *
 * @param signal - Ends the wait for restores that a daemon before this one left running.
 * @throws {RangeError} If the mode is not built.
 * @throws {ExecError} If a program of the mode hangs or dies, or what it works on stays locked by another one.
 */
export async function openMode(settings: ModeSettings, deps: ModeDeps, signal?: AbortSignal): Promise<OpenMode> {
  const open = OPEN[settings.mode];
  if (open === undefined) {
    throw new RangeError(
      `Cannot run mode "${settings.mode}": it is not built, must be one of ${BUILT_MODES.join(', ')}`,
    );
  }
  return open(settings, deps, signal);
}
