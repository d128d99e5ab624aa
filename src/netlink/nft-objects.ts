/**
 * Single objects of nf_tables by name: is a table or chain there, and away with a table. A question takes microseconds and
 * lists nothing, however large the ruleset is.
 *
 *     struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; };      // 4 bytes; res_id: of a batch the subsystem, else 0
 *
 * @module
 */

import { decodeMessages, encodeMessage, encodeTextAttribute, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR } from './codec.ts';
import { errnoName, kernelAnswered, NetlinkError } from './error.ts';
import { ask, withSocket } from './request.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, type OpenNetlink, openNetlink } from './socket.ts';

// include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFT_MSG_GETTABLE = (NFNL_SUBSYS_NFTABLES << 8) | 1;
const NFT_MSG_DELTABLE = (NFNL_SUBSYS_NFTABLES << 8) | 2;
const NFT_MSG_GETCHAIN = (NFNL_SUBSYS_NFTABLES << 8) | 4;
const NFTA_TABLE_NAME = 1;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;

/** include/uapi/linux/netfilter.h: NFPROTO_IPV4, NFPROTO_IPV6. */
const NFPROTO = { ip: 2, ip6: 10 } as const;

/** Family of a table, as `nft` writes it. */
export type TableFamily = keyof typeof NFPROTO;

/** @throws {NetlinkError} From every method, if the kernel cannot be asked or refuses the caller (EPERM). */
export interface NftObjects {
  hasTable(family: TableFamily, table: string): boolean;
  hasChain(family: TableFamily, table: string, chain: string): boolean;
  /** Takes a table away with all that is in it, in one step. @returns False if there was none. */
  deleteTable(family: TableFamily, table: string): boolean;
}

const header = (family: number, subsystem = 0) => Buffer.from([family, 0, 0, subsystem]);

/** A batch of one command, which has to be acknowledged. Exported for tests of its bytes. */
export function encodeDeleteTable(family: TableFamily, table: string): Buffer {
  const edge = (type: number, seq: number) =>
    encodeMessage({ type, flags: NLM_F_REQUEST, seq, body: header(0, NFNL_SUBSYS_NFTABLES) });
  const body = Buffer.concat([header(NFPROTO[family]), encodeTextAttribute(NFTA_TABLE_NAME, table)]);
  return Buffer.concat([
    edge(NFNL_MSG_BATCH_BEGIN, 1),
    encodeMessage({ type: NFT_MSG_DELTABLE, flags: NLM_F_REQUEST | NLM_F_ACK, seq: 2, body }),
    edge(NFNL_MSG_BATCH_END, 3),
  ]);
}

/** Reads up to the first refusal, or the acknowledgement of the command. @throws {NetlinkError} */
function readVerdict(socket: NetlinkSocket, doing: string): void {
  for (let datagram = socket.receive(); datagram !== undefined; datagram = socket.receive()) {
    for (const { type, body } of decodeMessages(datagram)) {
      if (type !== NLMSG_ERROR) continue;
      const errno = -body.readInt32LE(0);
      if (errno > 0) throw new NetlinkError(doing, { code: 'KERNEL', errno, name: errnoName(errno) });
      return;
    }
  }
  throw new NetlinkError(doing, { code: 'NO_ANSWER' });
}

/** The nf_tables of the network namespace this process is in. */
export function createNftObjects(open: OpenNetlink = openNetlink): NftObjects {
  const has = (doing: string, type: number, body: Buffer): boolean =>
    withSocket(open(NETLINK_NETFILTER), (socket) => {
      try {
        ask(socket, { doing, type, flags: 0, body });
        return true;
      } catch (error) {
        // EINVAL, EOPNOTSUPP: a kernel without nf_tables, or without this family.
        if (['ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EAFNOSUPPORT'].some((name) => kernelAnswered(error, name)))
          return false;
        throw error;
      }
    });
  return {
    hasTable: (family, table) =>
      has(
        `look for the table "${family} ${table}"`,
        NFT_MSG_GETTABLE,
        Buffer.concat([header(NFPROTO[family]), encodeTextAttribute(NFTA_TABLE_NAME, table)]),
      ),
    hasChain: (family, table, chain) =>
      has(
        `look for the chain "${family} ${table} ${chain}"`,
        NFT_MSG_GETCHAIN,
        Buffer.concat([
          header(NFPROTO[family]),
          encodeTextAttribute(NFTA_CHAIN_TABLE, table),
          encodeTextAttribute(NFTA_CHAIN_NAME, chain),
        ]),
      ),
    deleteTable: (family, table) =>
      withSocket(open(NETLINK_NETFILTER), (socket) => {
        const doing = `delete the table "${family} ${table}"`;
        try {
          socket.send(encodeDeleteTable(family, table));
          readVerdict(socket, doing);
          return true;
        } catch (error) {
          if (kernelAnswered(error, 'ENOENT')) return false;
          throw error;
        }
      }),
  };
}
