/**
 * The configuration in the words of the modes, and their measurements in ours.
 *
 * @module
 */

import type { Config } from '../config/types.ts';
import type { IptablesMetrics, ModeSettings } from '../modes/index.ts';
import type { ModeName } from '../modes/mode.ts';
import type { Metrics } from '../proxier/metrics.ts';
import type { Family } from '../proxier/types.ts';

/** Modes of which something may be left in the kernel. */
export const CLEANED_MODES: readonly ModeName[] = ['iptables'];

/** Settings of a mode, by default the configured one. */
export function modeSettings(config: Config, mode: ModeName = config.mode): ModeSettings {
  return {
    mode,
    iptablesFlavour: config.iptablesFlavour,
    masqueradeBit: mode === 'nftables' ? config.nftables.masqueradeBit : config.iptables.masqueradeBit,
    masqueradeAll: config.masqueradeAll,
    syncPeriodMs: config.syncPeriodMs,
  };
}

/** What an iptables dataplane tells, as metrics of its family. */
export function iptablesMetrics(metrics: Metrics, family: Family): IptablesMetrics {
  const label = { ip_family: family };
  return {
    restoreFailed(partial) {
      metrics.restoreFailures.inc(label);
      if (partial) metrics.partialRestoreFailures.inc(label);
    },
    rules(table, total, last) {
      metrics.iptablesRules.set({ ...label, table }, total);
      metrics.iptablesRulesLast.set({ ...label, table }, last);
    },
  };
}
