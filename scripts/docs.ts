/**
 * `npm run docs`: writes the pages that are made from the code. `test/docs.test.ts` fails while one is stale.
 *
 * @module
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { PAGES } from './docs/pages.ts';

for (const [path, render] of Object.entries(PAGES)) {
  const url = new URL(`../${path}`, import.meta.url);
  const text = await render();
  let before = '';
  try {
    before = readFileSync(url, 'utf8');
  } catch {
    // Not written yet.
  }
  writeFileSync(url, text);
  console.log(`${path}: ${before === text ? 'as it was' : 'written'}`);
}
