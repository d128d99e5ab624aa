/**
 * Packet counters in memory.
 *
 * @module
 */

import { NetlinkError } from './error.ts';
import type { Nfacct, PacketCounter } from './nfacct.ts';

export class FakeNfacct implements Nfacct {
  /** Packets by name. A test counts by writing here. */
  readonly counters = new Map<string, bigint>();
  /** False: every call fails as on a kernel without counters. */
  present = true;

  #check(doing: string): void {
    if (!this.present) throw new NetlinkError(doing, { code: 'KERNEL', errno: 22, name: 'EINVAL' });
  }

  available(): boolean {
    return this.present;
  }

  get(name: string): PacketCounter | undefined {
    this.#check(`read the packet counter "${name}"`);
    const packets = this.counters.get(name);
    return packets === undefined ? undefined : { name, packets };
  }

  ensure(name: string): void {
    this.#check(`create the packet counter "${name}"`);
    if (!this.counters.has(name)) this.counters.set(name, 0n);
  }
}
