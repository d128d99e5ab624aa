/**
 * Many requests in few datagrams, each of which succeeds or fails by itself.
 *
 * The kernel runs all requests of a datagram in their order while it is sent; one that fails does not stop those behind it. Errors
 * come back unasked, so only the last request asks for an acknowledgement, which also tells that all have been looked at.
 *
 * @module
 */

import { decodeAck, kernelFailure } from './ack.ts';
import { decodeMessages, encodeMessage, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR } from './codec.ts';
import { NetlinkError } from './error.ts';
import type { NetlinkRequest } from './request.ts';
import type { NetlinkSocket } from './socket.ts';

/**
 * Requests in a datagram. An error takes 768 bytes of a receive buffer that has 212,992 by default, so 277 are never lost; and the
 * requests themselves, of some hundred bytes, fit the send buffer of the same size.
 */
const BATCH_REQUESTS = 250;

/**
 * Runs requests in their order.
 *
 * @returns What was refused, by position in `requests`; empty if nothing was.
 * @throws {NetlinkError} If the socket fails, or the kernel stops answering: then it is not known what was done.
 */
export function askAll(socket: NetlinkSocket, requests: readonly NetlinkRequest[]): ReadonlyMap<number, NetlinkError> {
  const refused = new Map<number, NetlinkError>();
  for (let from = 0; from < requests.length; from += BATCH_REQUESTS) {
    const batch = requests.slice(from, from + BATCH_REQUESTS);
    askBatch(socket, batch, from, refused);
  }
  return refused;
}

function askBatch(
  socket: NetlinkSocket,
  batch: readonly NetlinkRequest[],
  from: number,
  refused: Map<number, NetlinkError>,
): void {
  // Positions count from 0 and sequence numbers from 1.
  const lastSeq = from + batch.length;
  const datagram = Buffer.concat(
    batch.map(({ type, flags, body }, i) => {
      const seq = from + i + 1;
      return encodeMessage({ type, flags: flags | NLM_F_REQUEST | (seq === lastSeq ? NLM_F_ACK : 0), seq, body });
    }),
  );
  socket.send(datagram);
  for (;;) {
    const answer = socket.receive();
    if (answer === undefined) throw new NetlinkError(batch.at(-1)?.doing ?? 'ask', { code: 'NO_ANSWER' });
    for (const message of decodeMessages(answer)) {
      const { type, seq } = message;
      const request = batch[seq - from - 1];
      if (type !== NLMSG_ERROR || request === undefined) continue;
      const ack = decodeAck(message);
      if (ack.errno > 0) refused.set(seq - 1, new NetlinkError(request.doing, kernelFailure(ack)));
      if (seq === lastSeq) return;
    }
  }
}
