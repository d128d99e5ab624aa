/**
 * The API server as a program of its own, for a network namespace that the starting process is not in.
 *
 *     node src/lab/api/main.ts [--host 127.0.0.1] [--port 0] [--bookmark-ms 5000] [--kubeconfig FILE]
 *
 * Prints `{"url": "http://…"}` and a newline when it listens. Ends when its standard input ends, so that it does not outlive
 * who started it.
 *
 * @module
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { createApiServer } from './server.ts';

const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '0' },
    'bookmark-ms': { type: 'string', default: '5000' },
    kubeconfig: { type: 'string' },
  },
});
const server = await createApiServer({
  host: values.host,
  port: Number(values.port),
  bookmarkMs: Number(values['bookmark-ms']),
});
if (values.kubeconfig !== undefined) writeFileSync(values.kubeconfig, server.kubeconfig(), { mode: 0o600 });
process.stdout.write(`${JSON.stringify({ url: server.url })}\n`);
process.stdin.on('end', () => void server.close()).resume();
