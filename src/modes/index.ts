/**
 * The modes by name: what the rest of the daemon knows of them. The only place that tells modes apart.
 *
 * @module
 */

import type { Nfacct } from '../netlink/nfacct.ts';
import { FAMILIES, type Family, type IPAddress, type LocalTraffic, type NodePortAddresses } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import type { Exec } from '../sys/exec.ts';
import { ensureSysctl, type Sysctl } from '../sys/proc.ts';
import type { Processes } from '../sys/processes.ts';
import { createIptablesDataplane, type DataplaneLog, type IptablesMetrics } from './iptables/apply.ts';
import { cleanUp } from './iptables/cleanup.ts';
import { CT_STATE_INVALID_COUNTER, LOCALHOST_NODEPORTS_COUNTER } from './iptables/names.ts';
import { waitForPredecessor } from './iptables/predecessor.ts';
import { probeIptables } from './iptables/probe.ts';
import type { Flavour } from './iptables/tools.ts';
import type { Dataplane, ModeName } from './mode.ts';

export type { DataplaneLog, IptablesMetrics } from './iptables/apply.ts';

/** Effects and ears of every mode. */
export interface ModeDeps {
  readonly exec: Exec;
  readonly clock: Clock;
  readonly sysctl: Sysctl;
  readonly processes: Processes;
  readonly nfacct: Nfacct;
  /** All addresses of all interfaces, up or down, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
  readonly log: DataplaneLog;
  /** Asked for when a dataplane is created. */
  readonly metrics: (family: Family) => IptablesMetrics;
}

/** The same for both families. */
export interface ModeSettings {
  readonly mode: ModeName;
  readonly iptablesFlavour: Flavour | 'auto';
  /** 0..31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly syncPeriodMs: number;
}

/** What differs between families. */
export interface FamilySettings {
  readonly family: Family;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  /** Loopback if unknown. */
  readonly nodeIP: IPAddress;
  /** The effective value. spec: iptables.md §16. */
  readonly localhostNodePorts: boolean;
}

/** A mode whose programs and kernel features were looked at. */
export interface OpenMode {
  readonly mode: ModeName;
  /** Where the rules go, of a mode that has two places for them; absent if its programs are missing. */
  readonly flavour?: Flavour | undefined;
  /** In words for a log line, for example `iptables 1.8.9 (nft)`. */
  readonly description: string;
  /** Per family: undefined if it can be served, else what is missing and what to do about it. */
  readonly support: Readonly<Record<Family, Error | undefined>>;
  /** @throws {Error} If the family is not supported, or a kernel setting cannot be made. */
  createDataplane(settings: FamilySettings): Dataplane;
  /** Takes everything of this mode out of the kernel. @returns What could not be done. */
  cleanUp(signal?: AbortSignal): Promise<readonly Error[]>;
  /** Packets counted by the rules of this mode; undefined where the counter does not exist. */
  readonly packets: {
    ctStateInvalidDropped(): Promise<number | undefined>;
    localhostNodePortsAccepted(): Promise<number | undefined>;
  };
}

/**
 * Looks at the node and prepares a mode.
 *
 * @param signal - Ends the wait for restores that a daemon before this one left running.
 * @throws {RangeError} If the mode is not built.
 * @throws {ExecError} If a program of the mode hangs or dies, or what it works on stays locked by another one.
 */
export async function openMode(settings: ModeSettings, deps: ModeDeps, signal?: AbortSignal): Promise<OpenMode> {
  switch (settings.mode) {
    case 'iptables':
      return openIptables(settings, deps, signal);
    case 'nftables':
    case 'ipvs':
    case 'ebpf':
      throw new RangeError(`Cannot run mode "${settings.mode}": it is not built, must be "iptables"`);
  }
}

async function openIptables(settings: ModeSettings, deps: ModeDeps, signal?: AbortSignal): Promise<OpenMode> {
  const { sysctl, nfacct } = deps;
  await waitForPredecessor(deps, signal);
  const { flavour, families } = await probeIptables(settings.iptablesFlavour, deps);
  const packets = async (name: string) => {
    const counter = nfacct.get(name);
    return counter === undefined ? undefined : Number(counter.packets);
  };
  const errorOf = (family: Family) => {
    const found = families[family];
    return found.kind === 'absent' ? found.error : undefined;
  };
  const version = FAMILIES.map((f) => families[f]).find((found) => found.kind === 'present')?.tools.version;
  return {
    mode: 'iptables',
    flavour,
    description: `iptables ${version ?? 'of unknown version'} (${flavour ?? 'not installed'})`,
    support: { IPv4: errorOf('IPv4'), IPv6: errorOf('IPv6') },
    createDataplane({ family, localTraffic, nodePortAddresses, nodeIP, localhostNodePorts }) {
      const found = families[family];
      if (found.kind === 'absent') throw found.error;
      // Packets for 127.0.0.1 that come back translated would be dropped as martians without it.
      if (localhostNodePorts) ensureSysctl(sysctl, 'net/ipv4/conf/all/route_localnet', 1);
      return createIptablesDataplane(
        {
          tools: found.tools,
          clock: deps.clock,
          nfacct,
          nodeAddresses: deps.nodeAddresses,
          metrics: deps.metrics(family),
          log: deps.log,
        },
        {
          family,
          masqueradeBit: settings.masqueradeBit,
          masqueradeAll: settings.masqueradeAll,
          localhostNodePorts,
          localTraffic,
          nodePortAddresses,
          nodeIP,
          features: { randomFully: found.tools.features.randomFully },
          tcpBeLiberal: (sysctl.get('net/netfilter/nf_conntrack_tcp_be_liberal') ?? 0) !== 0,
          syncPeriodMs: settings.syncPeriodMs,
        },
      );
    },
    async cleanUp(signal) {
      const errors: Error[] = [];
      for (const family of FAMILIES) {
        const found = families[family];
        if (found.kind === 'present') errors.push(...(await cleanUp(found.tools, signal)));
        // No programs or no such family in the kernel: no rules either. Otherwise there may be some.
        else if (found.error.code === 'CANNOT_LIST') errors.push(found.error);
      }
      return errors;
    },
    packets: {
      ctStateInvalidDropped: () => packets(CT_STATE_INVALID_COUNTER),
      localhostNodePortsAccepted: () => packets(LOCALHOST_NODEPORTS_COUNTER),
    },
  };
}
