/**
 * Feeds numbered files to `iptables-restore` one after the other and prints how long each took, in ms, as JSON.
 *
 *     node bench/bare-times.ts FOLDER COUNT     (in a network and mount namespace of its own: bench/bare.ts does that)
 *
 * @module
 */

import { readFileSync } from 'node:fs';
import { run, runWith } from './run.ts';

const [dir = '', count = '0'] = process.argv.slice(2);
run('mount', '-t', 'tmpfs', 'run', '/run');
const times: number[] = [];
for (let n = 0; n < Number(count); n++) {
  const text = readFileSync(`${dir}/${n}`, 'utf8');
  const t0 = performance.now();
  runWith(text, 'iptables-restore', '-w', '5', '--noflush', '--counters');
  times.push(performance.now() - t0);
}
console.log(JSON.stringify(times));
