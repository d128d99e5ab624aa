/**
 * Runs the unit tests: every test/**\/*.test.ts but those that need root, a kernel or a lab (test/kernel, test/lab, test/uml).
 * One process a core, not one a file: starting a process for each costs more than the tests.
 *
 *     npm run t                     all, and what failed
 *     npm run t -- model            files whose path contains "model", with their whole output
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const SHARD = process.env['SWITCHYARD_UNIT_SHARD'];

async function runHere(files: readonly string[]): Promise<void> {
  for (const file of files) await import(pathToFileURL(`${root}/${file}`).href);
}

/** Runs a share of the files in a process of its own. */
function runShard(shard: string): Promise<{ readonly output: string; readonly status: number | null }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url)], {
      // tap gives a process 30 s; this one holds half the suite, and the machine may be busy.
      env: { TAP_TIMEOUT: '300', ...process.env, SWITCHYARD_UNIT_SHARD: shard },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (s: string) => {
      output += s;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ output, status }));
  });
}

/** The top-level subtests that failed, whole. */
function failures(tap: string): string {
  const blocks = tap.split(/(?<=^(?:not )?ok \d+.*\n(?: {2}---\n(?: {2}.*\n)*? {2}\.\.\.\n)?)/m);
  return blocks.filter((block) => /^not ok /m.test(block)).join('');
}

const pattern = process.argv[2] ?? '';
const all = globSync('test/**/*.test.ts', { cwd: root })
  .filter((f) => !/^test\/(kernel|lab|uml)\//.test(f) && f.includes(pattern))
  .sort();
if (all.length === 0) {
  console.error(`Cannot find a unit test whose path contains "${pattern}"`);
  process.exit(2);
}
if (SHARD !== undefined) {
  const [index = 0, count = 1] = SHARD.split('/').map(Number);
  await runHere(all.filter((_, i) => i % count === index));
} else if (pattern !== '') {
  await runHere(all);
} else {
  const startedMs = Date.now();
  const count = Math.max(1, availableParallelism());
  const shards = await Promise.all(Array.from({ length: count }, (_, i) => runShard(`${i}/${count}`)));
  let total = 0;
  let passed = 0;
  for (const { output, status } of shards) {
    const sum = /^# \{ total: (\d+), pass: (\d+)/m.exec(output);
    total += Number(sum?.[1] ?? 0);
    passed += Number(sum?.[2] ?? 0);
    if (status === 0 && sum !== null) continue;
    console.log(failures(output) || output.slice(-4000));
    process.exitCode = 1;
  }
  console.log(`${all.length} files, ${passed} of ${total} passed, ${((Date.now() - startedMs) / 1000).toFixed(1)} s`);
}
