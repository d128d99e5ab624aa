/**
 * Which tables of the legacy flavour of iptables this network namespace has. To ask the program would make them.
 *
 * @module
 */

import { readFileSync } from 'node:fs';

export interface LegacyTables {
  /** As in `nat`; empty if the flavour is not in use, undefined if the kernel does not let us look. */
  names(family: 'IPv4' | 'IPv6'): readonly string[] | undefined;
}

const PATHS = { IPv4: '/proc/self/net/ip_tables_names', IPv6: '/proc/self/net/ip6_tables_names' } as const;

export const realLegacyTables: LegacyTables = {
  names(family) {
    try {
      return readFileSync(PATHS[family], 'latin1').split('\n').filter(Boolean);
    } catch (error) {
      // No such file: the kernel module that would have tables is not loaded.
      return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? [] : undefined;
    }
  },
};
