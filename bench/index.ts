/**
 * `npm run bench`: readiness, change latency, CPU and memory at several sizes, with the bare tool's time of the same
 * run beside them. Each size runs in network namespaces of its own. As root.
 *
 *     npm run bench -- [--services 1000,5000,10000] [--endpoints 2] [--flips 10] [--runs 1] [--mode iptables] [--json]
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median } from './world.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '1000,5000,10000' },
    endpoints: { type: 'string', default: '2' },
    flips: { type: 'string', default: '10' },
    runs: { type: 'string', default: '1' },
    mode: { type: 'string', default: 'iptables' },
    json: { type: 'boolean', default: false },
  },
});

/** What one run prints: numbers by name, and the mode. */
type Result = Readonly<Record<string, number | string>>;

const columns: readonly (readonly [string, string])[] = [
  ['services', 'services'],
  ['readyMs', 'ready ms'],
  ['bareColdMs', 'bare tool: cold ms'],
  ['changeP50Ms', 'change p50 ms'],
  ['bareChangeMs', 'bare tool: change ms'],
  ['bareRewriteMs', 'bare tool: shared chains rewritten ms'],
  ['changeMaxMs', 'change max ms'],
  ['cpuPerChangeMs', 'CPU a change ms'],
  ['readyCpuMs', 'CPU to ready ms'],
  ['rssMb', 'RSS MB'],
  ['peakMb', 'peak MB'],
  ['connectP50Us', 'connect p50 µs'],
];

async function once(services: string): Promise<Result> {
  const script = fileURLToPath(new URL('./scale.ts', import.meta.url));
  const child = spawn(
    'unshare',
    ['-n', '-m', process.execPath, script, services, values.endpoints, values.flips, values.mode],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (s: string) => {
    out += s;
  });
  const status = await new Promise((resolve) => child.on('close', resolve));
  if (status !== 0) throw new Error(`Cannot measure ${services} services: the run ended with status ${status}`);
  return JSON.parse(out) as Result;
}

const rows: Result[] = [];
for (const services of values.services.split(',')) {
  const results: Result[] = [];
  for (let i = 0; i < Number(values.runs); i++) {
    process.stderr.write(`${values.mode}: ${services} services × ${values.endpoints} endpoints, run ${i + 1}\n`);
    results.push(await once(services));
  }
  const merged: Record<string, number | string> = { mode: values.mode };
  for (const [key] of columns) merged[key] = Math.round(median(results.map((r) => Number(r[key]))));
  rows.push(merged);
  if (values.json) console.log(JSON.stringify(merged));
}
if (!values.json) {
  console.log(`| ${columns.map(([, title]) => title).join(' | ')} |`);
  console.log(`|${columns.map(() => '---|').join('')}`);
  for (const row of rows) console.log(`| ${columns.map(([key]) => row[key]).join(' | ')} |`);
}
