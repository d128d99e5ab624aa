/**
 * The processes that share this network namespace.
 *
 * @module
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Processes {
  /**
   * Program and arguments of each process in this network namespace, this one left out. Those of other process namespaces
   * cannot be seen. A host of 500 processes takes a few milliseconds.
   */
  here(): readonly (readonly string[])[];
}

/** Undefined for a process that has ended, or that is not ours to look at. */
function look<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    // What ends between being listed and being read is not there.
    return undefined;
  }
}

export const realProcesses: Processes = {
  here() {
    const ours = look(() => readlinkSync('/proc/self/ns/net'));
    return (look(() => readdirSync('/proc')) ?? [])
      .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
      .filter((pid) => ours !== undefined && look(() => readlinkSync(`/proc/${pid}/ns/net`)) === ours)
      .flatMap((pid) => {
        const line = look(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ?? '';
        return line === '' ? [] : [line.replace(/\0$/, '').split('\0')];
      });
  },
};

/** Effective capabilities of this process, bit by bit as capabilities(7) numbers them; undefined if they cannot be read. */
export function realCapabilities(): bigint | undefined {
  const [, hex] = /^CapEff:\s+([0-9a-f]+)$/m.exec(look(() => readFileSync('/proc/self/status', 'latin1')) ?? '') ?? [];
  return hex === undefined ? undefined : BigInt(`0x${hex}`);
}
