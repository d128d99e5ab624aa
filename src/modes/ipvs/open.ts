/**
 * Opens mode IPVS: looks at kernel and programs, and makes dataplanes of them.
 *
 * @module
 */

import { release } from 'node:os';
import { probeIptables } from '../../iptables/probe.ts';
import { createDevices, type Devices } from '../../netlink/device.ts';
import { createIpvs, type Ipvs } from '../../netlink/ipvs.ts';
import { cidrsOfFamily } from '../../proxier/addr.ts';
import type { Family } from '../../proxier/types.ts';
import type { ModeDeps, ModeSettings, OpenMode } from '../open-mode.ts';
import { createIpvsDataplane } from './apply.ts';
import { createIpsets } from './ipset.ts';
import { probeIpvs } from './probe.ts';
import { createRuleWriter } from './rule-writer.ts';
import { ensureKernelSettings } from './settings.ts';

/** What the configuration says for this mode only. */
export interface IpvsSettings {
  /** '' means `rr`. */
  readonly scheduler: string;
  /** Of both families. Virtual servers of others on these addresses are left alone. */
  readonly excludeCIDRs: readonly string[];
  readonly strictARP: boolean;
  /** @see IpvsOptions */
  readonly bindsExternalIPs: boolean;
  /** 0: leave the kernel's value. The same holds for the other two. */
  readonly tcpTimeoutMs: number;
  readonly tcpFinTimeoutMs: number;
  readonly udpTimeoutMs: number;
}

/** What a sync tells about itself. */
export interface IpvsMetrics {
  /** A restore was refused, or did not get its turn. `partial`: in a partial sync. */
  restoreFailed(partial: boolean): void;
}

/** Effects and ears of this mode. */
export interface IpvsModeDeps extends Pick<ModeDeps, 'exec' | 'clock' | 'sysctl' | 'legacyTables' | 'log'> {
  readonly metrics: (family: Family) => IpvsMetrics;
}

/** The way to the kernel. */
export interface IpvsKernel {
  readonly ipvs: Ipvs;
  readonly devices: Devices;
  /** As `uname -r` says it. */
  readonly kernelRelease: string;
}

const DEFAULT_SCHEDULER = 'rr';

/**
 * Looks at kernel and programs.
 *
 * @throws {Error} If IPVS cannot be used; the message says what to do.
 * @throws {ExecError} If a program hangs or dies, or the tables stay locked.
 */
export async function openIpvs(
  settings: Pick<ModeSettings, 'iptablesFlavour' | 'masqueradeBit' | 'masqueradeAll' | 'syncPeriodMs'> & {
    readonly ipvs: IpvsSettings;
  },
  deps: IpvsModeDeps,
  kernel: IpvsKernel = { ipvs: createIpvs(), devices: createDevices(), kernelRelease: release() },
): Promise<OpenMode> {
  const { ipvs, devices, kernelRelease } = kernel;
  const { exec, sysctl, log } = deps;
  const scheduler = settings.ipvs.scheduler || DEFAULT_SCHEDULER;
  const { ipsetVersion } = await probeIpvs(scheduler, { ipvs, exec });
  const { flavour, families } = await probeIptables(settings.iptablesFlavour, deps);
  const errorOf = (family: Family) => {
    const found = families[family];
    return found.kind === 'absent' ? found.error : undefined;
  };
  const ipsets = createIpsets(exec);
  return {
    mode: 'ipvs',
    description: `IPVS with scheduler ${scheduler}, ipset ${ipsetVersion}, iptables (${flavour ?? 'not installed'})`,
    support: { IPv4: errorOf('IPv4'), IPv6: errorOf('IPv6') },
    createDataplane({ family, localTraffic, nodePortAddresses, nodeIP }) {
      const found = families[family];
      if (found.kind === 'absent') throw found.error;
      const { strictARP, excludeCIDRs, bindsExternalIPs } = settings.ipvs;
      const warning = ensureKernelSettings(sysctl, { strictARP, kernelRelease });
      if (warning !== undefined) log.warn({ family }, warning);
      setTimeouts(ipvs, settings.ipvs, log);
      const options = {
        family,
        scheduler,
        masqueradeBit: settings.masqueradeBit,
        masqueradeAll: settings.masqueradeAll,
        localTraffic,
        nodePortAddresses,
        nodeIP,
        bindsExternalIPs,
        excludeCIDRs: cidrsOfFamily(excludeCIDRs, family),
        features: { randomFully: found.tools.features.randomFully },
        syncPeriodMs: settings.syncPeriodMs,
      };
      const metrics = deps.metrics(family);
      const onRestoreFailed = () => metrics.restoreFailed(false);
      const rules = createRuleWriter({ tools: found.tools, onRestoreFailed }, options);
      return createIpvsDataplane({ ipvs, devices, ipsets, rules, clock: deps.clock, log }, options);
    },
    packets: {
      // No rule of this mode counts packets.
      ctStateInvalidDropped: async () => undefined,
      localhostNodePortsAccepted: async () => undefined,
    },
  };
}

/** Idle times of connections. That they cannot be set is no reason not to serve. */
function setTimeouts(ipvs: Ipvs, settings: IpvsSettings, log: IpvsModeDeps['log']): void {
  const seconds = (ms: number) => Math.floor(ms / 1000);
  const { tcpTimeoutMs, tcpFinTimeoutMs, udpTimeoutMs } = settings;
  const timeouts = { tcp: seconds(tcpTimeoutMs), tcpFin: seconds(tcpFinTimeoutMs), udp: seconds(udpTimeoutMs) };
  if (timeouts.tcp + timeouts.tcpFin + timeouts.udp === 0) return;
  try {
    ipvs.setTimeouts(timeouts);
  } catch (error) {
    log.warn({ ...timeouts, err: error }, 'timeouts of IPVS not set');
  }
}
