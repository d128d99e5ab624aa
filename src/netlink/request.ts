/**
 * One request and all of its answer: acknowledgements, errors, dumps and their restarts.
 *
 * @module
 */

import { decodeAck, kernelFailure } from './ack.ts';
import {
  decodeMessages,
  encodeMessage,
  type NetlinkMessage,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
} from './codec.ts';
import { NetlinkError } from './error.ts';
import type { NetlinkSocket } from './socket.ts';

/** Dumps of one object list before it is given up; each restart means that the list changed meanwhile. */
const DUMP_TRIES = 10;

export interface NetlinkRequest {
  /** What it does, for the error message: `read the nfacct counter "x"`. */
  readonly doing: string;
  readonly type: number;
  /** Besides NLM_F_REQUEST. `NLM_F_DUMP` makes it a dump; otherwise the kernel is asked to acknowledge. */
  readonly flags: number;
  readonly body: Buffer;
}

/**
 * Sends a request and reads until it is acknowledged or the dump is done.
 *
 * @returns The messages of the answer, without acknowledgement and end mark.
 * @throws {NetlinkError} KERNEL if the kernel refuses it; INTERRUPTED if a dump never comes out whole.
 */
export function ask(socket: NetlinkSocket, request: NetlinkRequest): NetlinkMessage[] {
  for (let seq = 1; seq <= DUMP_TRIES; seq++) {
    const answer = answers(socket, request, seq);
    const messages: NetlinkMessage[] = [];
    let step = answer.next();
    for (; !step.done; step = answer.next()) messages.push(step.value);
    if (!step.value.interrupted) return messages;
  }
  throw new NetlinkError(request.doing, { code: 'INTERRUPTED', tries: DUMP_TRIES });
}

/**
 * Sends a request once and gives the messages of the answer one by one: of a dump the kernel holds what is not read yet,
 * so a reader of many may pause. To be read to its end before the socket serves another request.
 *
 * @param seq - Another one for each request on a socket.
 * @returns `interrupted`: the list changed while it was dumped, so that something may be missing or there twice.
 * @throws {NetlinkError} KERNEL if the kernel refuses it, NO_ANSWER if it stops in the middle.
 */
export function* answers(
  socket: NetlinkSocket,
  { doing, type, flags, body }: NetlinkRequest,
  seq: number,
): Generator<NetlinkMessage, { readonly interrupted: boolean }> {
  const dump = (flags & NLM_F_DUMP) === NLM_F_DUMP;
  socket.send(encodeMessage({ type, flags: flags | NLM_F_REQUEST | (dump ? 0 : NLM_F_ACK), seq, body }));
  let interrupted = false;
  for (;;) {
    const datagram = socket.receive();
    if (datagram === undefined) throw new NetlinkError(doing, { code: 'NO_ANSWER' });
    for (const message of decodeMessages(datagram)) {
      if (message.seq !== seq) continue;
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
      if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
        const ack = decodeAck(message);
        if (ack.errno > 0) throw new NetlinkError(doing, kernelFailure(ack));
        return { interrupted };
      }
      yield message;
    }
  }
}

/** Opens a socket for one conversation and closes it whatever happens. */
export function withSocket<T>(socket: NetlinkSocket, talk: (socket: NetlinkSocket) => T): T {
  try {
    return talk(socket);
  } finally {
    socket.close();
  }
}

/** As `withSocket`, for a conversation with pauses. */
export async function withSocketAsync<T>(
  socket: NetlinkSocket,
  talk: (socket: NetlinkSocket) => Promise<T>,
): Promise<T> {
  try {
    return await talk(socket);
  } finally {
    socket.close();
  }
}
