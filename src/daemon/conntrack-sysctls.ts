/**
 * Limits and time-outs of connection tracking, set once at the start.
 *
 * @module
 */

import { readFileSync, writeFileSync } from 'node:fs';
import type { ConntrackConfig } from '../config/types.ts';
import { ensureSysctl, type Sysctl } from '../sys/proc.ts';

/** Upper bound of the table size that is derived from the number of CPUs. */
const MAX_SCALED = 1_048_576;

/** Buckets of the connection table. Not a sysctl: a parameter of the module. */
export interface ConntrackHashSize {
  /** @throws If it cannot be read. */
  get(): number;
  /** @throws If it cannot be written. */
  set(buckets: number): void;
}

const HASH_SIZE_PATH = '/sys/module/nf_conntrack/parameters/hashsize';

export const realHashSize: ConntrackHashSize = {
  get: () => Number(readFileSync(HASH_SIZE_PATH, 'latin1').trim()),
  set: (buckets) => writeFileSync(HASH_SIZE_PATH, `${buckets}`, { flag: 'r+' }),
};

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
 * Writes every value that is configured and differs.
 *
 * @throws {Error} If one cannot be written; the message names it.
 */
export function setConntrackSysctls(
  config: ConntrackConfig,
  cpus: number,
  { sysctl, hashSize }: { readonly sysctl: Sysctl; readonly hashSize: ConntrackHashSize },
): void {
  const set = (name: string, value: number) => {
    if (value > 0) ensureSysctl(sysctl, `net/netfilter/${name}`, value);
  };
  const seconds = (ms: number) => Math.trunc(ms / 1000);
  const max = conntrackMax(config, cpus);
  set('nf_conntrack_max', max);
  if (max > 0) ensureHashSize(hashSize, Math.trunc(max / 4));
  set('nf_conntrack_tcp_timeout_established', seconds(config.tcpEstablishedTimeoutMs));
  set('nf_conntrack_tcp_timeout_close_wait', seconds(config.tcpCloseWaitTimeoutMs));
  set('nf_conntrack_tcp_be_liberal', config.tcpBeLiberal ? 1 : 0);
  set('nf_conntrack_udp_timeout', seconds(config.udpTimeoutMs));
  set('nf_conntrack_udp_timeout_stream', seconds(config.udpStreamTimeoutMs));
}

function ensureHashSize(hashSize: ConntrackHashSize, buckets: number): void {
  try {
    if (hashSize.get() < buckets) hashSize.set(buckets);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot set the hash size of conntrack to ${buckets}: ${why}`, { cause });
  }
}
