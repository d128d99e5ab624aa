/**
 * Recorded scenarios lived through by the real command on a real kernel, each in a process and namespaces of its own.
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { readScenario } from './reference-scenarios.ts';

const script = fileURLToPath(new URL('reference-run.ts', import.meta.url));

interface StepResult {
  readonly step: number;
  readonly kind: string;
  readonly diff: string;
}

/** @param mode - As `reference-run.ts` takes it. @throws {Error} If the run does not come to its end. */
async function live(name: string, mode: string): Promise<readonly StepResult[]> {
  const child = spawn('unshare', ['-n', '-m', process.execPath, script, name, mode]);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (s: string) => {
    out += s;
  });
  child.stderr.setEncoding('utf8').on('data', (s: string) => {
    err += s;
  });
  const status = await new Promise((resolve) => child.on('close', resolve));
  if (status !== 0) throw new Error(`${name}: the run ended with status ${status}: ${err}`);
  return out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as StepResult);
}

/**
 * A test for each scenario, two at a time.
 *
 * @param dumps - How many are compared after each step.
 */
export async function liveThrough(t: Test, mode: string, names: readonly string[], dumps: number): Promise<void> {
  await t.test(mode, { jobs: 2 }, async (t) => {
    for (const name of names) {
      t.test(name, { buffered: true }, async (t) => {
        const results = await live(name, mode);
        t.equal(results.length, readScenario(name).steps.length * dumps, 'every step was compared');
        for (const { step, kind, diff } of results) t.equal(diff, '', `step ${step}, ${kind}`);
      });
    }
  });
}
