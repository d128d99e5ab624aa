/**
 * `npm run bench`: readiness, change latency, CPU and memory at several sizes, with the time of the bare tool (mode nftables: of the
 * kernel alone) of the same run beside them. Each size runs in network namespaces of its own. As root.
 *
 *     npm run bench -- [--services 1000,5000,10000] [--endpoints 2] [--flips 10] [--runs 1] [--mode iptables] [--layout chains] [--json]
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
    layout: { type: 'string', default: 'chains' },
    json: { type: 'boolean', default: false },
  },
});

/** What one run prints: numbers by name, and the mode. */
type Result = Readonly<Record<string, number | string>>;

const bare = values.mode === 'nftables' ? 'kernel alone' : 'bare tool';

const columns: readonly (readonly [string, string])[] = [
  ['services', 'services'],
  ['readyMs', 'ready ms'],
  ['bareColdMs', `${bare}: cold ms`],
  ['changeP50Ms', 'change p50 ms'],
  ['bareChangeMs', `${bare}: change ms`],
  ...(values.mode === 'nftables' ? [] : [['bareRewriteMs', 'bare tool: shared chains rewritten ms'] as const]),
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
    ['-n', '-m', process.execPath, script, services, values.endpoints, values.flips, values.mode, values.layout],
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

const title = values.mode === 'nftables' ? `nftables, ${values.layout}` : values.mode;
const rows: Result[] = [];
for (const services of values.services.split(',')) {
  const results: Result[] = [];
  for (let i = 0; i < Number(values.runs); i++) {
    process.stderr.write(`${title}: ${services} services × ${values.endpoints} endpoints, run ${i + 1}\n`);
    results.push(await once(services));
  }
  const merged: Record<string, number | string> = { mode: title };
  for (const [key] of columns) merged[key] = Math.round(median(results.map((r) => Number(r[key]))) * 10) / 10;
  rows.push(merged);
  if (values.json) console.log(JSON.stringify(merged));
}
if (!values.json) {
  console.log(`| ${columns.map(([, title]) => title).join(' | ')} |`);
  console.log(`|${columns.map(() => '---|').join('')}`);
  for (const row of rows) console.log(`| ${columns.map(([key]) => row[key]).join(' | ')} |`);
}
