/**
 * The program as it is shipped: compiled, in a folder of its own.
 *
 * @module
 */

import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sh } from './namespace.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Compiles the package as the image has it: `dist`, the launcher, and the packages that are no development packages.
 *
 * @returns A new folder, which is the caller's to remove.
 */
export function buildPackage(): string {
  const dir = mkdtempSync(`${tmpdir()}/package-`);
  // The test runner loads itself into every Node that has its options; the compiler's cannot take it.
  sh(
    'env',
    '-u',
    'NODE_OPTIONS',
    `${root}/node_modules/.bin/tsc`,
    '-p',
    `${root}/tsconfig.build.json`,
    '--outDir',
    `${dir}/dist`,
  );
  cpSync(`${root}/bin`, `${dir}/bin`, { recursive: true });
  cpSync(`${root}/package.json`, `${dir}/package.json`);
  const lock: { packages: Record<string, { dev?: boolean }> } = JSON.parse(
    readFileSync(`${root}/package-lock.json`, 'utf8'),
  );
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    if (dev || !/^node_modules\/(@[^/]+\/)?[^/]+$/.test(path)) continue;
    mkdirSync(dirname(`${dir}/${path}`), { recursive: true });
    symlinkSync(`${root}/${path}`, `${dir}/${path}`);
  }
  return dir;
}
