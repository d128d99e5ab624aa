/**
 * One request and all of its answer: acknowledgements, errors, dumps and their restarts.
 *
 * @module
 */

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
import { errnoName, NetlinkError } from './error.ts';
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
  const dump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP;
  const flags = request.flags | NLM_F_REQUEST | (dump ? 0 : NLM_F_ACK);
  for (let seq = 1; seq <= DUMP_TRIES; seq++) {
    socket.send(encodeMessage({ type: request.type, flags, seq, body: request.body }));
    const answer = readAnswer(socket, request.doing, seq);
    if (!answer.interrupted) return answer.messages;
  }
  throw new NetlinkError(request.doing, { code: 'INTERRUPTED', tries: DUMP_TRIES });
}

function readAnswer(socket: NetlinkSocket, doing: string, seq: number) {
  const messages: NetlinkMessage[] = [];
  let interrupted = false;
  for (;;) {
    const datagram = socket.receive();
    if (datagram === undefined) throw new NetlinkError(doing, { code: 'NO_ANSWER' });
    for (const message of decodeMessages(datagram)) {
      if (message.seq !== seq) continue;
      if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
      if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
        // Both begin with an int: 0, or the errno made negative. The end of an empty dump may carry none.
        const errno = message.body.length >= 4 ? -message.body.readInt32LE(0) : 0;
        if (errno > 0) throw new NetlinkError(doing, { code: 'KERNEL', errno, name: errnoName(errno) });
        return { messages, interrupted };
      }
      messages.push(message);
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
