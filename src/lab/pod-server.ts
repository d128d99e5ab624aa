/**
 * What runs in a pod: HTTP, TCP and UDP servers that tell who answered and whom they saw.
 *
 * SCTP is not served: Node has no sockets for it.
 *
 * @module
 */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, isIPv6 } from 'node:net';
import type { PodAnswer, ServedPort } from './protocol.ts';

/** A socket of both families shows an IPv4 peer as `::ffff:10.42.0.1`. */
function plain(address: string | undefined): string {
  return (address ?? '?').replace(/^::ffff:/, '');
}

interface Ends {
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

function answer(pod: string, ends: Ends): string {
  const said: PodAnswer = {
    pod,
    address: plain(ends.localAddress),
    port: ends.localPort ?? 0,
    client: plain(ends.remoteAddress),
    clientPort: ends.remotePort ?? 0,
  };
  return `${JSON.stringify(said)}\n`;
}

async function serveHttp(pod: string, port: number): Promise<void> {
  const server = createHttpServer((request, response) => {
    // A connection a request: every request is balanced anew.
    response.setHeader('connection', 'close');
    response.setHeader('content-type', 'application/json');
    response.end(answer(pod, request.socket));
  });
  await once(server.listen(port, '::'), 'listening');
}

async function serveTcp(pod: string, port: number): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.write(answer(pod, socket));
    socket.pipe(socket);
  });
  await once(server.listen(port, '::'), 'listening');
}

/** One socket a family, bound to the pod's own address: a socket bound to :: could not tell where a packet was sent to. */
async function serveUdp(pod: string, port: number, addresses: readonly string[]): Promise<void> {
  for (const address of addresses) {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    socket.on('message', (_, peer) => {
      const ends = { localAddress: address, localPort: port, remoteAddress: peer.address, remotePort: peer.port };
      socket.send(answer(pod, ends), peer.port, peer.address);
    });
    socket.bind(port, address);
    await once(socket, 'listening');
  }
}

/**
 * Starts every server of a pod; resolves when all of them listen.
 *
 * @param addresses The pod's own addresses.
 */
export async function servePod(pod: string, addresses: readonly string[], ports: readonly ServedPort[]): Promise<void> {
  for (const { kind, port } of ports) {
    if (kind === 'http') await serveHttp(pod, port);
    else if (kind === 'tcp') await serveTcp(pod, port);
    else await serveUdp(pod, port, addresses);
  }
}
