/**
 * A batch to the kernel and what it says to it.
 *
 * The kernel answers unasked to each message it refuses, so the culprits are known, several at once. To what it accepts it says
 * nothing; so the last message asks for an acknowledgement, which with no error beside it means that all is in force.
 *
 * @module
 */

import { type Ack, decodeAck, kernelFailure } from '../ack.ts';
import { decodeMessages, findAttribute, type NetlinkMessage, NLMSG_ERROR } from '../codec.ts';
import { errnoName, NetlinkError } from '../error.ts';
import { ask } from '../request.ts';
import type { NetlinkSocket } from '../socket.ts';
import { type Batch, encodeBatch, type MessageOwner } from './encode.ts';
import type { CommitOptions, CommitResult, RefusedCommand } from './nftables.ts';
import type { Transaction } from './transaction.ts';
import { GETGEN, NFGENMSG_BYTES, NFTA_GEN_ID, NFTA_SET_ELEM_LIST_ELEMENTS } from './uapi.ts';

const DOING = 'change nf_tables';
const NLMSGHDR_BYTES = 16;
const ERESTART = 85;

/** The generation of the ruleset: each commit by anyone makes the next one. @throws {NetlinkError} */
export function readGeneration(socket: NetlinkSocket): number {
  const doing = 'read the generation of nf_tables';
  const [answer] = ask(socket, { doing, type: GETGEN, flags: 0, body: Buffer.alloc(NFGENMSG_BYTES) });
  const id = answer === undefined ? undefined : findAttribute(answer.body.subarray(NFGENMSG_BYTES), NFTA_GEN_ID);
  if (id?.length !== 4) throw new NetlinkError(doing, { code: 'NO_ANSWER' });
  return id.readUInt32BE(0);
}

/**
 * Sends transactions as one batch.
 *
 * @param options - `firstSeq`: beyond every number used on this socket before, so that no old answer is taken for one to this.
 * @throws {NetlinkError} KERNEL if the batch as a whole is refused (EPERM); TOO_LARGE; NO_ANSWER if it is not known what became of it.
 */
export function sendTransactions(
  socket: NetlinkSocket,
  transactions: readonly Transaction[],
  { firstSeq, ...options }: CommitOptions & { readonly firstSeq: number },
): { readonly result: CommitResult; readonly nextSeq: number } {
  const batch = encodeBatch(transactions, { ...options, firstSeq });
  return { result: commit(socket, batch), nextSeq: firstSeq + batch.owners.length + 2 };
}

function commit(socket: NetlinkSocket, batch: Batch): CommitResult {
  if (batch.unencodable.length > 0) return { kind: 'refused', refused: batch.unencodable };
  if (batch.owners.length > 0) {
    send(socket, batch.bytes);
    const answer = readAnswer(socket, batch);
    if (answer !== undefined) return answer;
  }
  return { kind: 'committed', generation: readGeneration(socket) };
}

function send(socket: NetlinkSocket, bytes: Buffer): void {
  try {
    socket.send(bytes);
  } catch (error) {
    if (error instanceof NetlinkError && error.failure.code === 'SOCKET' && error.failure.name === 'EMSGSIZE') {
      throw new NetlinkError(DOING, { code: 'TOO_LARGE', bytes: bytes.length }, { cause: error });
    }
    throw error;
  }
}

/** @returns Undefined if all is done. */
function readAnswer(socket: NetlinkSocket, batch: Batch): CommitResult | undefined {
  const { firstSeq, owners } = batch;
  const refused: RefusedCommand[] = [];
  let whole: Ack | undefined;
  let acknowledged = false;
  for (const message of readAll(socket)) {
    const ack = decodeAck(message);
    const index = message.seq - firstSeq - 1;
    const owner = owners[index];
    if (index === -1) whole = ack;
    else if (owner !== undefined && ack.errno > 0) refused.push(refusal(owner, ack, batch, message.seq));
    else if (index === owners.length - 1) acknowledged = true;
  }
  if (whole?.errno === ERESTART) return { kind: 'outdated' };
  if (whole !== undefined && whole.errno > 0) throw new NetlinkError(DOING, kernelFailure(whole));
  if (refused.length > 0) return { kind: 'refused', refused };
  if (!acknowledged) throw new NetlinkError(DOING, { code: 'NO_ANSWER' });
  return undefined;
}

/** Every acknowledgement and error that waits. Nothing may stay behind for the next request. */
function readAll(socket: NetlinkSocket): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let datagram = receive(socket); datagram !== undefined; datagram = receive(socket)) {
    messages.push(...decodeMessages(datagram).filter(({ type }) => type === NLMSG_ERROR));
  }
  return messages;
}

/** Reads on after an overrun: one acknowledgement is asked for, so what did not fit the queue were errors, and others are in it. */
function receive(socket: NetlinkSocket): Buffer | undefined {
  try {
    return socket.receive();
  } catch (error) {
    if (error instanceof NetlinkError && error.failure.code === 'SOCKET' && error.failure.name === 'ENOBUFS') {
      return socket.receive();
    }
    throw error;
  }
}

function refusal(owner: MessageOwner, ack: Ack, batch: Batch, seq: number): RefusedCommand {
  const { transaction, command } = owner;
  const element = elementAt(owner, ack.offset, batch, seq);
  return {
    transaction,
    command,
    errno: errnoName(ack.errno),
    ...(element === undefined ? {} : { element }),
    ...(ack.text === undefined ? {} : { message: ack.text }),
  };
}

/** Which element of the command lies at an offset of its message. */
function elementAt(owner: MessageOwner, offset: number | undefined, batch: Batch, seq: number): number | undefined {
  if (owner.elements === undefined || offset === undefined) return undefined;
  const message = messageOf(batch.bytes, seq);
  const header = NLMSGHDR_BYTES + NFGENMSG_BYTES;
  const list = message && findAttribute(message.subarray(header), NFTA_SET_ELEM_LIST_ELEMENTS);
  if (message === undefined || list === undefined) return undefined;
  const target = offset - (list.byteOffset - message.byteOffset);
  let entry = 0;
  for (let at = 0; at + 4 <= list.length; entry++) {
    const length = (list.readUInt16LE(at) + 3) & ~3;
    if (target >= at && target < at + length) return owner.elements.first + Math.floor(entry / owner.elements.entries);
    at += length;
  }
  return undefined;
}

function messageOf(bytes: Buffer, seq: number): Buffer | undefined {
  for (let at = 0; at + NLMSGHDR_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    if (bytes.readUInt32LE(at + 8) === seq) return bytes.subarray(at, at + length);
    at += (length + 3) & ~3;
  }
  return undefined;
}
