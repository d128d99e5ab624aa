/**
 * One process in a namespace of its own that is every pod of the benchmark: it answers any address routed to it on
 * port 80 with the address it was asked at.
 *
 * @module
 */

import { createServer } from 'node:net';

const server = createServer((socket) => {
  socket.on('error', () => {});
  socket.end(socket.localAddress ?? '');
});
process.stdin.once('data', () =>
  server.listen({ host: '0.0.0.0', port: 80, backlog: 4096 }, () => console.log('ready')),
);
process.stdin.on('end', () => process.exit(0));
