/**
 * What the kernel tells everyone after each commit: what changed, who did it, and the new generation.
 *
 * @module
 */

import { findAttribute } from '../codec.ts';
import { NetlinkError } from '../error.ts';
import type { NetlinkSocket } from '../socket.ts';
import { textOf } from './decode.ts';
import type { NftWatcher, Notices, TableChange } from './nftables.ts';
import type { NftFamily } from './transaction.ts';
import { NEWGEN, NFGENMSG_BYTES, NFNL_SUBSYS_NFTABLES, NFPROTO, NFTA_GEN_ID, NFTA_OBJECT_TABLE } from './uapi.ts';

const NLMSGHDR_BYTES = 16;
const HEADER_BYTES = NLMSGHDR_BYTES + NFGENMSG_BYTES;
const FAMILIES: ReadonlyMap<number, NftFamily> = new Map([
  [NFPROTO.ip, 'ip'],
  [NFPROTO.ip6, 'ip6'],
]);

/**
 * A watcher over a socket that is in the group NFNLGRP_NFTABLES.
 *
 * @param isOwn - Whether a port id is that of a socket of ours.
 */
export function createWatcher(socket: NetlinkSocket, isOwn: (portId: number) => boolean): NftWatcher {
  return {
    drain() {
      const heard = new Heard(isOwn);
      for (;;) {
        try {
          const datagram = socket.receive();
          if (datagram === undefined) return heard.notices();
          heard.datagram(datagram);
        } catch (error) {
          if (!(error instanceof NetlinkError) || error.failure.code !== 'SOCKET' || error.failure.name !== 'ENOBUFS') {
            throw error;
          }
          heard.overrun = true;
        }
      }
    },
    close: () => socket.close(),
  };
}

class Heard {
  overrun = false;
  readonly #isOwn: (portId: number) => boolean;
  readonly #changes = new Map<string, TableChange>();
  #generation: number | undefined;

  constructor(isOwn: (portId: number) => boolean) {
    this.#isOwn = isOwn;
  }

  notices(): Notices {
    return { changes: [...this.#changes.values()], generation: this.#generation, overrun: this.overrun };
  }

  /** A commit of thousands of elements is as many messages, so they are looked at in place. */
  datagram(bytes: Buffer): void {
    for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
      const length = Math.max(HEADER_BYTES, bytes.readUInt32LE(at));
      const type = bytes.readUInt16LE(at + 4);
      const attributes = bytes.subarray(at + HEADER_BYTES, at + length);
      if (type === NEWGEN) {
        const id = findAttribute(attributes, NFTA_GEN_ID);
        if (id?.length === 4) this.#generation = id.readUInt32BE(0);
      } else if (type >>> 8 === NFNL_SUBSYS_NFTABLES) {
        this.#change(bytes[at + NLMSGHDR_BYTES] ?? 0, bytes.readUInt32LE(at + 12), attributes);
      }
      at += (length + 3) & ~3;
    }
  }

  #change(familyNumber: number, portId: number, attributes: Buffer): void {
    const family = FAMILIES.get(familyNumber);
    if (family === undefined) return;
    const table = textOf(findAttribute(attributes, NFTA_OBJECT_TABLE));
    const own = this.#isOwn(portId);
    const key = `${family} ${own} ${table}`;
    if (!this.#changes.has(key)) this.#changes.set(key, { family, table, own });
  }
}
