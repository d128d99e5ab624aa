/** A cluster of 10,000 Services and 10,000 EndpointSlices costs at most 60 MB resident. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const here = (file: string) => fileURLToPath(new URL(file, import.meta.url));
const MB = 2 ** 20;
const LIMIT_MB = 60;

/** The flags that the launcher gives to Node: this measures what runs on a node, and nothing better. */
function launcherFlags(): readonly string[] {
  const command = readFileSync(here('../../bin/switchyard'), 'utf8').match(/^exec .*$/m)?.[0] ?? '';
  return command.split(/\s+/).filter((word) => /^--[a-z-]+=/.test(word));
}

t.test('a cluster of 10,000 Services and 20,000 endpoints', async (t) => {
  t.setTimeout(120_000);
  t.ok(launcherFlags().length > 0, 'the flags of the launcher are found');
  const cache = mkdtempSync(join(tmpdir(), 'compile-cache-'));
  t.teardown(() => rmSync(cache, { recursive: true, force: true }));
  const server = spawn(process.execPath, [here('big-cluster.ts')], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => server.kill());
  const port = await new Promise<string>((resolve) => {
    createInterface(server.stdout).once('line', resolve);
  });
  const bare = Number(execFileSync(process.execPath, ['-p', 'process.memoryUsage.rss()'], { encoding: 'utf8' }));
  // As in production, the sources are stripped of their types once and not at each start: the first run fills the cache.
  const env = { ...process.env, NODE_COMPILE_CACHE: cache, NODE_OPTIONS: '' };
  const consume = () =>
    new Promise<{ objects: number; rss: number; cpuMs: number }>((resolve) => {
      const child = spawn(process.execPath, [...launcherFlags(), here('big-consumer.ts'), port], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env,
      });
      t.teardown(() => child.kill());
      createInterface(child.stdout).once('line', (line) => resolve(JSON.parse(line)));
    });
  await consume();
  const { objects, rss, cpuMs } = await consume();
  t.comment(`${((rss - bare) / MB).toFixed(1)} MB above ${(bare / MB).toFixed(1)} MB, ${cpuMs.toFixed(0)} ms of CPU`);
  t.equal(objects, 20_000);
  t.ok(rss - bare < LIMIT_MB * MB, `costs less than ${LIMIT_MB} MB`);
});
