/**
 * Kernel settings this mode needs. spec: ipvs.md §2.
 *
 * @module
 */

import { ensureSysctl, type Sysctl } from '../../sys/proc.ts';

export interface KernelSettings {
  /** Nobody answers ARP for addresses of the dummy device on other devices. Never taken back. */
  readonly strictARP: boolean;
  /** As `uname -r` says it. */
  readonly kernelRelease: string;
}

const CONN_REUSE_MODE = 'net/ipv4/vs/conn_reuse_mode';

/** `[5, 9]` of `5.9.0-1-amd64`. */
function versionOf(release: string): readonly [number, number] {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  return [Number(major), Number(minor)];
}

const isOlder = ([major, minor]: readonly [number, number], than: readonly [number, number]) =>
  major < than[0] || (major === than[0] && minor < than[1]);

/**
 * Makes the settings be what they must; those that are right already are not written.
 *
 * @returns What should be done and cannot be, in words; undefined if there is nothing.
 * @throws {Error} If one cannot be made.
 */
export function ensureKernelSettings(sysctl: Sysctl, { strictARP, kernelRelease }: KernelSettings): string | undefined {
  const version = versionOf(kernelRelease);
  let warning: string | undefined;
  // Replies of real servers are translated back by conntrack, and rules match connections of IPVS.
  ensureSysctl(sysctl, 'net/ipv4/vs/conntrack', 1);
  // A client that uses a port again within two minutes would wait for a second before Linux 5.9.
  if (isOlder(version, [4, 1])) warning = `${CONN_REUSE_MODE} cannot be switched off before Linux 4.1`;
  else if (isOlder(version, [5, 9])) ensureSysctl(sysctl, CONN_REUSE_MODE, 0);
  // Connections to a real server that is gone end at once, and persistence does not hold clients to one that must go.
  ensureSysctl(sysctl, 'net/ipv4/vs/expire_nodest_conn', 1);
  ensureSysctl(sysctl, 'net/ipv4/vs/expire_quiescent_template', 1);
  ensureSysctl(sysctl, 'net/ipv4/ip_forward', 1);
  if (strictARP) {
    ensureSysctl(sysctl, 'net/ipv4/conf/all/arp_ignore', 1);
    ensureSysctl(sysctl, 'net/ipv4/conf/all/arp_announce', 2);
  }
  return warning;
}
