/**
 * Types, lint and every test, each test file in a process of its own, two at a time. Prints a line a file as it
 * ends, the whole output of what failed, every skip with its reason, and last `N passed, N failed`.
 *
 * @module
 */

import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const startedMs = Date.now();
let passed = 0;
let failed = 0;

for (const [name, argv] of [
  ['types', ['tsc', '--noEmit']],
  ['lint', ['biome', 'check', '--error-on-warnings', '.']],
] as const) {
  const [file, ...args] = argv;
  const r = spawnSync(file, args, { cwd: root, encoding: 'utf8' });
  if (r.status === 0) passed++;
  else {
    failed++;
    console.log(r.stdout + r.stderr + (r.error ? String(r.error) : ''));
  }
  console.log(`${r.status === 0 ? 'ok    ' : 'FAILED'} ${name}`);
}

mkdirSync(`${root}/.tap`, { recursive: true });
const log = createWriteStream(`${root}/.tap/last.tap`);
const files = process.argv.slice(2);
const tap = spawn('tap', ['--reporter=tap', '--jobs=2', ...files], {
  cwd: root,
  stdio: ['ignore', 'pipe', 'inherit'],
});

/** Lines of the test file that is being told now; a failing file is printed whole. */
let told: string[] = [];
const skips: string[] = [];
for await (const line of createInterface({ input: tap.stdout })) {
  log.write(`${line}\n`);
  told.push(line);
  const leaf = /^ {4,}(not )?ok \d+(?: - (.*))?$/.exec(line);
  const file = /^(not )?ok \d+ - (\S+\.test\.ts)(.*)$/.exec(line);
  if (leaf && /# SKIP/i.test(line)) skips.push(line.trim());
  if (!file) continue;
  // Assertions of a file: its leaves. A subtest's own line repeats what its leaves said, so count by the deepest.
  const leaves = told.filter((l, i) => /^ +(not )?ok \d+/.test(l) && !isSummary(told, i));
  const bad = leaves.filter((l) => /^ +not ok/.test(l)).length;
  passed += leaves.length - bad;
  failed += file[1] ? Math.max(1, bad) : 0;
  if (file[1]) console.log(told.join('\n'));
  console.log(`${file[1] ? 'FAILED' : 'ok    '} ${file[2]} (${leaves.length})${file[3] ?? ''}`);
  told = [];
}
const status = await new Promise<number>((resolve) => {
  if (tap.exitCode !== null) resolve(tap.exitCode);
  else tap.on('close', (code) => resolve(code ?? 1));
});
if (status !== 0 && failed === 0) {
  failed++;
  console.log(told.join('\n'));
  console.log(`tap ended with status ${status}`);
}
for (const skip of skips) console.log(`skipped: ${skip}`);
console.log(`${Math.round((Date.now() - startedMs) / 1000)} s`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

/** True if the line closes a subtest, whose plan `1..N` stands deeper and just above. */
function isSummary(lines: readonly string[], at: number): boolean {
  const indent = /^ */.exec(lines[at] ?? '')?.[0].length ?? 0;
  for (let i = at - 1; i >= 0; i--) {
    const line = lines[i] ?? '';
    if (line.trim() === '' || line.trim().startsWith('#')) continue;
    return (/^ */.exec(line)?.[0].length ?? 0) > indent && /^ +1\.\.\d+/.test(line);
  }
  return false;
}
