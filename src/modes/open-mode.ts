/**
 * What opening a mode takes and gives, whichever mode it is.
 *
 * @module
 */

import type { Flavour } from '../iptables/tools.ts';
import type { Nfacct } from '../netlink/nfacct.ts';
import type { Nftables } from '../netlink/nftables/nftables.ts';
import type { Family, IPAddress, LocalTraffic, NodePortAddresses } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import type { Exec } from '../sys/exec.ts';
import type { LegacyTables } from '../sys/legacy-tables.ts';
import type { Sysctl } from '../sys/proc.ts';
import type { Processes } from '../sys/processes.ts';
import type { IptablesMetrics } from './iptables/apply.ts';
import type { Dataplane, DataplaneLog, ModeName } from './mode.ts';
import type { LayoutName } from './nftables/layout.ts';
import type { NftablesMetrics } from './nftables/metrics.ts';

/** What dataplanes tell about themselves; each mode its part. */
export interface ModeMetrics extends IptablesMetrics, NftablesMetrics {}

/** Effects and ears of every mode. */
export interface ModeDeps {
  readonly exec: Exec;
  readonly clock: Clock;
  readonly sysctl: Sysctl;
  readonly processes: Processes;
  readonly legacyTables: LegacyTables;
  readonly nfacct: Nfacct;
  /** All addresses of all interfaces, up or down, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
  readonly log: DataplaneLog;
  /** Asked for when a dataplane is created. */
  readonly metrics: (family: Family) => ModeMetrics;
  /** The way to nf_tables. Absent: the kernel's. */
  readonly openNftables?: () => Nftables;
}

/** The same for both families. */
export interface ModeSettings {
  readonly mode: ModeName;
  readonly iptablesFlavour: Flavour | 'auto';
  /** 0..31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly syncPeriodMs: number;
  /** Of mode nftables; absent: `chains`. */
  readonly nftablesLayout?: LayoutName;
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
  /** Packets counted by the rules of this mode; undefined where the counter does not exist. */
  readonly packets: {
    ctStateInvalidDropped(): Promise<number | undefined>;
    localhostNodePortsAccepted(): Promise<number | undefined>;
  };
}
