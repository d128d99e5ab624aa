/**
 * Netlink without a kernel: recorded bytes, played back.
 *
 * @module
 */

import t from 'tap';
import type { NetlinkSocket } from '../../src/netlink/socket.ts';

/** One request as hex and the datagrams it was answered with. */
export type Exchange = readonly [request: string, ...answers: string[]];

/** A kernel that has said it all before. Counts what is left open. */
export function replay(...exchanges: readonly Exchange[]) {
  const left = [...exchanges];
  const state = { open: 0, unused: () => left.length };
  const open = (): NetlinkSocket => {
    state.open++;
    let queue: string[] = [];
    return {
      portId: 1,
      send(datagram) {
        const [request, ...answers] = left.shift() ?? ['nothing more'];
        t.equal(Buffer.from(datagram).toString('hex'), request, 'the request is the recorded one');
        queue = answers;
      },
      receive() {
        const next = queue.shift();
        return next === undefined ? undefined : Buffer.from(next, 'hex');
      },
      close() {
        state.open--;
      },
    };
  };
  return { open, state };
}
