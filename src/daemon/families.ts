/**
 * Which IP families this node can serve.
 *
 * @module
 */

import { existsSync } from 'node:fs';
import { FAMILIES, type Family } from '../proxier/types.ts';
import type { Sysctl } from '../sys/proc.ts';

/** What the mode found: undefined where it can serve the family, else why not. */
export type FamilySupport = Readonly<Record<Family, Error | undefined>>;

/** True unless the kernel has no IPv6, or has it switched off. */
export function hasIPv6(sysctl: Sysctl, exists: (path: string) => boolean = existsSync): boolean {
  return exists('/proc/net/if_inet6') && sysctl.get('net/ipv6/conf/all/disable_ipv6') !== 1;
}

/**
 * The families to serve, IPv4 first.
 *
 * @throws {Error} If there is none, or the primary one is missing. `cause` is what the mode found.
 */
export function servedFamilies(support: FamilySupport, primary: Family, ipv6: boolean): readonly Family[] {
  const why = (family: Family) =>
    support[family] ?? (family === 'IPv6' && !ipv6 ? new Error('IPv6 is switched off in this kernel') : undefined);
  const missing = why(primary);
  if (missing !== undefined) {
    throw new Error(`Cannot serve ${primary}, the family of this node's address: ${missing.message}`, {
      cause: missing,
    });
  }
  return FAMILIES.filter((family) => why(family) === undefined);
}
