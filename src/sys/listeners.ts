/**
 * Who listens on a TCP port of this network namespace.
 *
 * @module
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** A process; without a name if it cannot be seen from here, as from inside a pod. */
export interface Listener {
  readonly pid: number | undefined;
  /** As the kernel names the process, at most 15 characters; '' if it cannot be seen. */
  readonly program: string;
}

export interface Listeners {
  /** Undefined: nobody listens there. Reads all connections and, if somebody does, all processes: some milliseconds and more. */
  on(port: number): Listener | undefined;
}

/** State and inode of a line of /proc/net/tcp: include/net/tcp_states.h, net/ipv4/tcp_ipv4.c. */
const LISTEN = '0A';
const STATE = 3;
const INODE = 9;

/** Undefined for what ends between being listed and being read, or is not ours to look at. */
function look<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** The inode of the socket that listens on a port, in the text of /proc/net/tcp or tcp6. */
export function findListener(text: string, port: number): string | undefined {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  for (const line of text.split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (fields[STATE] === LISTEN && fields[1]?.endsWith(suffix)) return fields[INODE];
  }
  return undefined;
}

function ownerOf(inode: string): number | undefined {
  const pids = (look(() => readdirSync('/proc')) ?? []).filter((name) => /^\d+$/.test(name));
  const has = (pid: string) =>
    (look(() => readdirSync(`/proc/${pid}/fd`)) ?? []).some(
      (fd) => look(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) === `socket:[${inode}]`,
    );
  const pid = pids.find(has);
  return pid === undefined ? undefined : Number(pid);
}

export const realListeners: Listeners = {
  on(port) {
    const inode = ['tcp', 'tcp6']
      .map((name) => findListener(look(() => readFileSync(`/proc/self/net/${name}`, 'latin1')) ?? '', port))
      .find((found) => found !== undefined);
    if (inode === undefined) return undefined;
    const pid = ownerOf(inode);
    const program = pid === undefined ? undefined : look(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim());
    return { pid, program: program ?? '' };
  },
};
