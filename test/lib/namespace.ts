/**
 * Tests that need a kernel run inside network and mount namespaces of their own: a test file starts itself again there, once per case.
 *
 * @module
 */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

/** Processes are slow on a busy machine; this is for what hangs. */
const TIMEOUT_MS = 600_000;
const CASE = 'SWITCHYARD_TEST_CASE';

/** The case this process is to run; undefined outside, where nothing may touch the kernel. */
export function caseInside(): string | undefined {
  return process.env[CASE];
}

/**
 * Runs this test file inside fresh namespaces, as root, and takes its results over.
 *
 * @param url - `import.meta.url` of the test file.
 * @param timeoutMs - For a case that is meant to be long.
 */
export async function runInside(t: Test, url: string, name: string, timeoutMs = TIMEOUT_MS): Promise<void> {
  const args = ['-n', '-m', process.execPath, fileURLToPath(url)];
  const env = { ...process.env, [CASE]: name, TAP: '1', TAP_TIMEOUT: String(timeoutMs / 1000) };
  t.setTimeout(timeoutMs);
  await t.spawn('unshare', args, { env, timeout: timeoutMs }, name);
}

/**
 * Runs a program to its end.
 *
 * @returns Its standard output.
 * @throws {Error} If it fails; the message has what it said.
 */
export function sh(program: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`Cannot run ${program} ${args.join(' ')}: ${stderr || error?.message}`);
  return stdout;
}

/** Gives a text to a program. @throws {Error} If it fails. */
export function feed(input: string, program: string, ...args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`Cannot run ${program} ${args.join(' ')}: ${stderr || error?.message}`);
}

/** A /run of this namespace alone: legacy iptables locks a file in it, whatever the network namespace. */
export function privateRun(): void {
  sh('mount', '-t', 'tmpfs', 'none', '/run');
}
