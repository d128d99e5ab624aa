/**
 * The configuration in the words of the modes, and their measurements in ours.
 *
 * @module
 */

import type { Config } from '../config/types.ts';
import type { ModeMetrics, ModeSettings } from '../modes/index.ts';
import type { ModeName } from '../modes/mode.ts';
import type { Metrics } from '../proxier/metrics.ts';
import type { Family } from '../proxier/types.ts';

/** Settings of a mode, by default the configured one. */
export function modeSettings(config: Config, mode: ModeName = config.mode): ModeSettings {
  return {
    mode,
    iptablesFlavour: config.iptablesFlavour,
    masqueradeBit: mode === 'nftables' ? config.nftables.masqueradeBit : config.iptables.masqueradeBit,
    masqueradeAll: config.masqueradeAll,
    syncPeriodMs: config.syncPeriodMs,
    nftablesLayout: config.nftables.layout,
  };
}

/** What a dataplane tells, as metrics of its family. */
export function modeMetrics(metrics: Metrics, family: Family): ModeMetrics {
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
    syncFailed() {
      metrics.nftablesSyncFailures.inc(label);
    },
    cleanupFailed() {
      metrics.nftablesCleanupFailures.inc(label);
    },
  };
}
