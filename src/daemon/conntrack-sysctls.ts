/**
 * Limits and time-outs of connection tracking, set once at the start.
 *
 * @module
 */

import type { ConntrackConfig } from '../config/types.ts';

/** Upper bound of the table size that is derived from the number of CPUs. */
const MAX_SCALED = 1_048_576;

/** The kernel's numbers. Paths as below /proc/sys, `net/netfilter/nf_conntrack_max`. */
export interface ConntrackKernel {
  /** Writes a sysctl, only when it has another value. */
  ensureSysctl(path: string, value: number): Promise<void>;
  /** Buckets of the table: /sys/module/nf_conntrack/parameters/hashsize. */
  readHashSize(): Promise<number>;
  writeHashSize(buckets: number): Promise<void>;
}

/**
 * The size of the connection table.
 *
 * @returns 0: leave it alone.
 */
export function conntrackMax({ maxPerCore, min }: Pick<ConntrackConfig, 'maxPerCore' | 'min'>, cpus: number): number {
  if (maxPerCore <= 0) return 0;
  const scaled = maxPerCore * cpus;
  // Beyond the bound, that bound: whatever the minimum says.
  return scaled > MAX_SCALED ? MAX_SCALED : Math.max(scaled, min);
}

/**
 * Writes every value that is configured.
 *
 * @throws {Error} Naming the value, if one cannot be written.
 */
export async function setConntrackSysctls(
  config: ConntrackConfig,
  cpus: number,
  kernel: ConntrackKernel,
): Promise<void> {
  const max = conntrackMax(config, cpus);
  const seconds = (ms: number) => Math.trunc(ms / 1000);
  const wanted: readonly (readonly [name: string, value: number])[] = [
    ['nf_conntrack_max', max],
    ['nf_conntrack_tcp_timeout_established', seconds(config.tcpEstablishedTimeoutMs)],
    ['nf_conntrack_tcp_timeout_close_wait', seconds(config.tcpCloseWaitTimeoutMs)],
    ['nf_conntrack_tcp_be_liberal', config.tcpBeLiberal ? 1 : 0],
    ['nf_conntrack_udp_timeout', seconds(config.udpTimeoutMs)],
    ['nf_conntrack_udp_timeout_stream', seconds(config.udpStreamTimeoutMs)],
  ];
  for (const [name, value] of wanted) {
    if (value <= 0) continue;
    await attempt(`${name} to ${value}`, () => kernel.ensureSysctl(`net/netfilter/${name}`, value));
    if (name !== 'nf_conntrack_max') continue;
    const buckets = Math.trunc(value / 4);
    await attempt(`the conntrack hash size to ${buckets}`, async () => {
      if ((await kernel.readHashSize()) < buckets) await kernel.writeHashSize(buckets);
    });
  }
}

async function attempt(what: string, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot set ${what}: ${why}`, { cause });
  }
}
