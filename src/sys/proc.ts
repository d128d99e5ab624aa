/**
 * Kernel settings below /proc/sys.
 *
 * @module
 */

import { readFileSync, writeFileSync } from 'node:fs';

/** Integers by name, as in `net/ipv4/conf/all/route_localnet`. Calls do not wait: procfs is memory. */
export interface Sysctl {
  /** The value; undefined if this kernel has no such setting, or it is not an integer. */
  get(name: string): number | undefined;
  /** Writes the value. @throws If the kernel refuses or the setting does not exist; `cause` has the system error. */
  set(name: string, value: number): void;
}

/**
 * Makes a setting have a value; writes only when it differs, so that a read-only /proc/sys with the right value will do.
 *
 * @returns True if it had another value.
 * @throws If it cannot be written.
 */
export function ensureSysctl(sysctl: Sysctl, name: string, value: number): boolean {
  if (sysctl.get(name) === value) return false;
  sysctl.set(name, value);
  return true;
}

function pathOf(name: string): string {
  if (!/^[\w.-]+(\/[\w.-]+)*$/.test(name) || name.split('/').includes('..')) {
    throw new RangeError(`Cannot use "${name}" as a kernel setting: must be a path below /proc/sys`);
  }
  return `/proc/sys/${name}`;
}

export const realSysctl: Sysctl = {
  get(name) {
    const path = pathOf(name);
    let text: string;
    try {
      text = readFileSync(path, 'latin1').trim();
    } catch {
      // No such file, or not readable: there is no value to speak of.
      return undefined;
    }
    return /^-?\d+$/.test(text) ? Number(text) : undefined;
  },
  set(name, value) {
    if (!Number.isSafeInteger(value)) {
      throw new RangeError(`Cannot set kernel setting ${name}: the value is ${value}, it must be an integer`);
    }
    const path = pathOf(name);
    try {
      // r+: a setting is never created.
      writeFileSync(path, `${value}`, { flag: 'r+' });
    } catch (cause) {
      const why = cause instanceof Error && 'code' in cause ? cause.code : 'an error';
      const isDenied = why === 'EROFS' || why === 'EACCES' || why === 'EPERM';
      // A container's /proc/sys is read-only unless it is privileged.
      const todo = isDenied ? '; set it before, as a privileged `run --init-only` does' : '';
      throw new Error(`Cannot set kernel setting ${name} to ${value}: the kernel answers ${why}${todo}`, { cause });
    }
  },
};
