/**
 * Runs the unit tests in one process: every test/**\/*.test.ts but those that need root, a kernel or seconds of
 * time (test/kernel, test/lab). `npm run t -- PATTERN` runs only files whose path contains PATTERN.
 *
 * @module
 */

import { globSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const pattern = process.argv[2] ?? '';
const files = globSync('test/**/*.test.ts', { cwd: root })
  .filter((f) => !/^test\/(kernel|lab)\//.test(f) && f.includes(pattern))
  .sort();
if (files.length === 0) {
  console.error(`Cannot find a unit test whose path contains "${pattern}"`);
  process.exit(2);
}
for (const file of files) await import(pathToFileURL(`${root}/${file}`).href);
