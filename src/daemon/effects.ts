/**
 * Everything of the world that the daemon touches: real, unless a test gives its own.
 *
 * @module
 */

import type { Config } from '../config/types.ts';
import { type ModeDeps, openMode } from '../modes/index.ts';
import { readNodeAddresses } from '../modes/node-addresses.ts';
import { type OtherFlavourUsers, type Ruleset, realOtherFlavourUsers, realRulesets } from '../modes/rulesets.ts';
import { type Conntrack, createConntrack } from '../netlink/conntrack.ts';
import { createNfacct } from '../netlink/nfacct.ts';
import type { Log } from '../proxier/proxier.ts';
import type { IPAddress } from '../proxier/types.ts';
import { type Clock, realClock } from '../sys/clock.ts';
import { type Exec, realExec } from '../sys/exec.ts';
import { realLegacyTables } from '../sys/legacy-tables.ts';
import { type Listeners, realListeners } from '../sys/listeners.ts';
import { releaseMemory } from '../sys/memory.ts';
import { setOomScore } from '../sys/oom.ts';
import { realSysctl, type Sysctl } from '../sys/proc.ts';
import { type Processes, realCapabilities, realProcesses } from '../sys/processes.ts';
import { type ClusterAccess, openCluster } from './cluster.ts';
import { type ConntrackHashSize, realHashSize } from './conntrack-sysctls.ts';
import { hasIPv6 } from './families.ts';

export interface Effects {
  readonly log: Log;
  readonly clock: Clock;
  readonly exec: Exec;
  readonly sysctl: Sysctl;
  readonly hashSize: ConntrackHashSize;
  /** The kernel has IPv6, and it is on. */
  readonly hasIPv6: boolean;
  readonly conntrack: Conntrack;
  readonly setOomScore: (score: number) => Promise<void>;
  readonly releaseMemory: () => void;
  /** Changes how much is logged, by the numbers of `-v`. Absent: it stays as it was configured. */
  readonly setVerbosity?: (verbosity: number) => void;
  readonly openCluster: (config: Config, clock: Clock) => Promise<ClusterAccess>;
  readonly openMode: typeof openMode;
  readonly processes: Processes;
  readonly listeners: Listeners;
  /** Effective capabilities of this process as bits; undefined if they cannot be read. */
  readonly capabilities: () => bigint | undefined;
  readonly otherFlavourUsers: OtherFlavourUsers;
  /** What a proxy of any mode may have left in the kernel. */
  readonly rulesets: readonly Ruleset[];
  /** All addresses of all interfaces, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
}

/** What `runDaemon` must be given, and what it may be given. */
export type DaemonDeps = Pick<Effects, 'log'> & Partial<Effects>;

/** The real ones for all that is not given. */
export function completeEffects(deps: DaemonDeps): Effects {
  return {
    clock: realClock,
    exec: realExec,
    sysctl: realSysctl,
    hashSize: realHashSize,
    hasIPv6: hasIPv6(deps.sysctl ?? realSysctl),
    conntrack: createConntrack(),
    setOomScore,
    releaseMemory,
    openCluster,
    openMode,
    processes: realProcesses,
    listeners: realListeners,
    capabilities: realCapabilities,
    otherFlavourUsers: realOtherFlavourUsers,
    rulesets: realRulesets(),
    nodeAddresses: readNodeAddresses,
    ...deps,
  };
}

/** The part of them that a mode works with. */
export function modeDeps(effects: Effects, metrics: ModeDeps['metrics']): ModeDeps {
  const { exec, clock, sysctl, nodeAddresses, log } = effects;
  return {
    exec,
    clock,
    sysctl,
    nodeAddresses,
    log,
    nfacct: createNfacct(),
    processes: realProcesses,
    legacyTables: realLegacyTables,
    metrics,
  };
}
