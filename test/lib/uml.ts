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
  return process.env[INSIDE] === '1';
}

/**
 * Runs this test file inside user-mode-linux, and takes its results over.
 *
 * @param url - `import.meta.url` of the test file.
 */
export async function runInUml(t: Test, url: string): Promise<void> {
  const env = { ...process.env, [INSIDE]: '1', TAP: '1', TAP_TIMEOUT: String(TIMEOUT_MS / 1000) };
  t.setTimeout(TIMEOUT_MS);
  const args = [script, process.execPath, fileURLToPath(url)];
  await t.spawn(process.execPath, args, { env, timeout: TIMEOUT_MS }, 'inside user-mode-linux');
}
