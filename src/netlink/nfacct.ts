/**
 * Named packet counters of the kernel (nfnetlink_acct). One set of names per network namespace, shared by both families.
 *
 *     struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; };      // 4 bytes, all 0 here
 *
 * @module
 */

import { decodeAttributes, encodeTextAttribute, NLM_F_CREATE } from './codec.ts';
import { kernelAnswered, NetlinkError } from './error.ts';
import { ask, withSocket } from './request.ts';
import { NETLINK_NETFILTER, type OpenNetlink, openNetlink } from './socket.ts';

// include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_acct.h
const NFNL_SUBSYS_ACCT = 7;
const NFNL_MSG_ACCT_NEW = (NFNL_SUBSYS_ACCT << 8) | 0;
const NFNL_MSG_ACCT_GET = (NFNL_SUBSYS_ACCT << 8) | 1;
const NFACCT_NAME = 1;
const NFACCT_PKTS = 2;
/** NFACCT_NAME_MAX is 32 with the NUL. */
const NAME_BYTES_MAX = 31;

const nfgenmsg = Buffer.alloc(4);

/** Any name serves to see whether the kernel knows counters at all. */
const PROBE_NAME = 'IMayExist';

export interface PacketCounter {
  readonly name: string;
  readonly packets: bigint;
}

/** The counters a mode may use. Calls take microseconds and do not wait. */
export interface Nfacct {
  /** True if this kernel has packet counters. */
  available(): boolean;
  /** The counter, or undefined if there is none of that name. @throws {NetlinkError} */
  get(name: string): PacketCounter | undefined;
  /** Makes the counter exist; one that exists keeps its count. @throws {NetlinkError} */
  ensure(name: string): void;
}

/** The request body for one counter. Exported for tests of its bytes. */
export function encodeName(name: string): Buffer {
  if (!/^[\x21-\x7e]+$/.test(name) || name.length > NAME_BYTES_MAX) {
    throw new RangeError(
      `Cannot name a packet counter "${name}": must be 1..${NAME_BYTES_MAX} visible ASCII characters`,
    );
  }
  return Buffer.concat([nfgenmsg, encodeTextAttribute(NFACCT_NAME, name)]);
}

/** @throws {NetlinkError} MALFORMED, if name or packet count is missing. */
export function decodeCounter(body: Buffer): PacketCounter {
  const attributes = decodeAttributes(body.subarray(nfgenmsg.length));
  const name = attributes.get(NFACCT_NAME);
  const packets = attributes.get(NFACCT_PKTS);
  if (name === undefined || packets?.length !== 8) {
    throw new NetlinkError('decode a packet counter', { code: 'MALFORMED', what: 'it has no name or no packet count' });
  }
  return { name: name.toString('latin1').replace(/\0.*$/s, ''), packets: packets.readBigUInt64BE(0) };
}

/** The counters of the network namespace this process is in. */
export function createNfacct(open: OpenNetlink = openNetlink): Nfacct {
  const get = (name: string): PacketCounter | undefined =>
    withSocket(open(NETLINK_NETFILTER), (socket) => {
      const doing = `read the packet counter "${name}"`;
      try {
        const [message] = ask(socket, { doing, type: NFNL_MSG_ACCT_GET, flags: 0, body: encodeName(name) });
        if (message === undefined) throw new NetlinkError(doing, { code: 'NO_ANSWER' });
        return decodeCounter(message.body);
      } catch (error) {
        if (kernelAnswered(error, 'ENOENT')) return undefined;
        throw error;
      }
    });
  return {
    available() {
      try {
        get(PROBE_NAME);
        return true;
      } catch (error) {
        if (error instanceof NetlinkError) return false;
        throw error;
      }
    },
    get,
    ensure(name) {
      if (get(name) !== undefined) return;
      const doing = `create the packet counter "${name}"`;
      withSocket(open(NETLINK_NETFILTER), (socket) => {
        try {
          ask(socket, { doing, type: NFNL_MSG_ACCT_NEW, flags: NLM_F_CREATE, body: encodeName(name) });
        } catch (error) {
          // Someone else made it since we looked.
          if (!kernelAnswered(error, 'EBUSY') && !kernelAnswered(error, 'EEXIST')) throw error;
        }
      });
    },
  };
}
