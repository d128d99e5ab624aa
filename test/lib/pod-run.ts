/**
 * `node pod-run.ts DIR` starts the containers in DIR (0-name, 1-name …, each an OCI bundle) one after the other by runc, as a
 * kubelet starts a pod with init containers. Ends as the last one ends, or the first that fails; passes SIGTERM on. Runs in the
 * namespaces of a node of the lab, with a /proc of its own. `/run/NAME.pid` has the process id of each.
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';

const dir = process.argv[2] ?? '';

for (const name of readdirSync(dir).sort()) {
  const bundle = `${dir}/${name}`;
  const runtime = spawn('runc', ['run', '--bundle', bundle, '--pid-file', `/run/${name}.pid`, name], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const pass = () => void runtime.kill('SIGTERM');
  process.on('SIGTERM', pass);
  const status = await new Promise<number>((resolve) => runtime.on('close', (code) => resolve(code ?? 1)));
  process.off('SIGTERM', pass);
  if (status !== 0) process.exit(status);
}
