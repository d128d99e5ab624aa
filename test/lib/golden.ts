/**
 * Golden files: exact text kept beside the tests in the form its tool reads.
 *
 * @module
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';

const UPDATE = process.env['UPDATE_GOLDEN'] === '1';

const pathOf = (name: string) => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));

/**
 * Compares text with `test/golden/<name>`.
 *
 * A file that is not there fails; only `UPDATE_GOLDEN=1` writes one.
 */
export function golden(t: Test, name: string, got: string): void {
  const path = pathOf(name);
  if (UPDATE) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, got);
  }
  if (!existsSync(path)) {
    t.fail(`Cannot find test/golden/${name}: run with UPDATE_GOLDEN=1, then read what it wrote`);
    return;
  }
  t.equal(got, readFileSync(path, 'utf8'), `matches test/golden/${name}`);
}

/** Fails if `test/golden/<folder>` holds a file that no test compares with. `names` are relative to the folder. */
export function noOrphans(t: Test, folder: string, names: readonly string[]): void {
  const there = existsSync(pathOf(folder)) ? readdirSync(pathOf(folder)) : [];
  t.same(there.toSorted(), names.toSorted(), `test/golden/${folder} holds what is compared and nothing else`);
}
