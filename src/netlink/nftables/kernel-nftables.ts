/**
 * The nf_tables of the network namespace this process is in.
 *
 * @module
 */

import { NetlinkError } from '../error.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, type OpenNetlink, openNetlink } from '../socket.ts';
import { readGeneration, sendTransactions } from './batch.ts';
import { hasChain, hasTable, readElements, readTable, type TableSource } from './dump.ts';
import type { Nftables } from './nftables.ts';
import { createWatcher } from './notify.ts';
import type { NftFamily } from './transaction.ts';
import { NFNLGRP_NFTABLES } from './uapi.ts';

/** Room for a batch: 250,000 endpoints with their comments are about 60 MB. Taken only while it is sent. */
const SEND_BYTES = 512 * 1024 * 1024;
/** Room for answers: errors, one for each message refused, about 800 bytes each as the kernel counts. */
const RECEIVE_BYTES = 8 * 1024 * 1024;
/** Room for notices between two looks: what 250 services bring is about 1 MB as the kernel counts. */
const WATCH_BYTES = 16 * 1024 * 1024;
/** Sequence numbers are 32 bits wide; from here on they begin anew on another socket. */
const SEQ_MAX = 0xf000_0000;

/** Opens no socket before the first use of it. Then it keeps one, in the namespace it was first used in. */
export function createNftables(open: OpenNetlink = openNetlink): Nftables {
  let kept: NetlinkSocket | undefined;
  let seq = 1;
  const portIds = new Set<number>();
  const connect = (): NetlinkSocket => {
    if (kept !== undefined && seq < SEQ_MAX) return kept;
    kept?.close();
    kept = open(NETLINK_NETFILTER, { sendBytes: SEND_BYTES, receiveBytes: RECEIVE_BYTES, extendedAck: true });
    portIds.add(kept.portId);
    seq = 1;
    return kept;
  };
  /** Does something on the socket. After a failure of the conversation itself the next one is on a new socket. */
  const talk = <T>(use: (socket: NetlinkSocket) => T): T => {
    try {
      return use(connect());
    } catch (error) {
      if (error instanceof NetlinkError && error.failure.code !== 'KERNEL') {
        kept?.close();
        kept = undefined;
      }
      throw error;
    }
  };
  const source = (socket: NetlinkSocket, family: NftFamily, table: string): TableSource => ({
    socket,
    family,
    table,
    nextSeq: () => seq++,
  });
  return {
    commit: (transactions, options = {}) =>
      talk((socket) => {
        const { result, nextSeq } = sendTransactions(socket, transactions, { ...options, firstSeq: seq });
        seq = nextSeq;
        return result;
      }),
    hasTable: (family, table) => talk((socket) => hasTable(source(socket, family, table))),
    hasChain: (family, table, chain) => talk((socket) => hasChain(source(socket, family, table), chain)),
    readTable: (family, table, options) => talk((socket) => readTable(source(socket, family, table), options)),
    readElements: (family, table, set) => talk((socket) => readElements(source(socket, family, table), set)),
    generation: () => talk(readGeneration),
    watch: () =>
      createWatcher(open(NETLINK_NETFILTER, { receiveBytes: WATCH_BYTES, groups: [NFNLGRP_NFTABLES] }), (portId) =>
        portIds.has(portId),
      ),
    close() {
      kept?.close();
      kept = undefined;
    },
  };
}
