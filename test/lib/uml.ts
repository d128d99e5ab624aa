/**
 * Tests that need IPVS run inside user-mode-linux: a test file starts itself again there, on a kernel of its own.
 *
 * @module
 */

import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

/** That kernel has one processor, and starts programs a hundred times slower than this machine; this is for what hangs. */
const TIMEOUT_MS = 1_800_000;
const INSIDE = 'SWITCHYARD_TEST_UML';
const script = fileURLToPath(new URL('../../scripts/uml.ts', import.meta.url));

/** True in there; outside, nothing may be done but starting it. */
export function isInsideUml(): boolean {
  return process.env[INSIDE] !== undefined;
}

/** Which of `parts` this one is, from 0; 0 outside. */
export function partInside(): number {
  return Number(process.env[INSIDE] ?? 0);
}

/**
 * Runs this test file inside user-mode-linux, and takes its results over.
 *
 * @param url - `import.meta.url` of the test file.
 * @param parts - In how many kernels at a time; the file finds out by `partInside` which one it is in.
 */
export async function runInUml(t: Test, url: string, parts = 1): Promise<void> {
  t.setTimeout(TIMEOUT_MS);
  await t.test('inside user-mode-linux', { jobs: parts, timeout: TIMEOUT_MS }, async (t) => {
    for (let part = 0; part < parts; part++) {
      const env = { ...process.env, [INSIDE]: String(part), TAP: '1', TAP_TIMEOUT: String(TIMEOUT_MS / 1000) };
      const args = [script, process.execPath, fileURLToPath(url)];
      const options = { env, timeout: TIMEOUT_MS, buffered: parts > 1 };
      const done = t.spawn(process.execPath, args, options, `part ${part + 1} of ${parts}`);
      if (parts === 1) await done;
    }
  });
}
