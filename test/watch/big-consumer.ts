/**
 * Holds every object of an API server, as the model does, and says what that cost. As a program: its argument is the
 * server's port.
 *
 * @module
 */

import type { ApiObject } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { createApiSource, proxyKinds } from '../../src/watch/source.ts';

const port = process.argv[2] ?? '';
const objects = new Map<string, ApiObject>();
const kinds = proxyKinds('node-1');
const stop = new AbortController();
const missing = new Set<string>(kinds.map(({ kind }) => kind));
const before = process.cpuUsage();
const source = createApiSource({
  cluster: { servers: [`http://127.0.0.1:${port}`], tls: {}, auth: { kind: 'none' } },
  kinds,
  clock: realClock,
  userAgent: 'switchyard/test',
  random: Math.random,
});
await source.run(
  {
    onEvent: (event) => {
      if (event.type === 'upsert') objects.set(`${event.object.kind} ${event.object.key}`, event.object);
      if (event.type === 'synced') missing.delete(event.kind);
      if (missing.size > 0 || stop.signal.aborted) return;
      const { user, system } = process.cpuUsage(before);
      const cpuMs = (user + system) / 1000;
      process.stdout.write(`${JSON.stringify({ objects: objects.size, rss: process.memoryUsage.rss(), cpuMs })}\n`);
      stop.abort();
    },
    onInvalid: (report) => process.stdout.write(`${JSON.stringify(report)}\n`),
  },
  stop.signal,
);
