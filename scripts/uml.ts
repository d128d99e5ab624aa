/**
 * Runs a command inside user-mode-linux: a whole kernel (6.1) that boots as a process in a second, on this machine's own tree. It
 * has what this machine's kernel may lack: IPVS and dummy devices.
 *
 *     node scripts/uml.ts COMMAND [ARGUMENT…]
 *
 * The command runs in this directory with this environment; its output comes out here while it runs, its status is this one's. It
 * is alone on that machine: one processor, loopback only. Files are the machine's own, so what it writes stays.
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

const PROGRAM = 'linux.uml';
const INIT = fileURLToPath(new URL('uml-init.sh', import.meta.url));
const MODULES = '/lib/modules';
const MEMORY = '2048M';

const argv = process.argv.slice(2);
if (argv.length === 0) {
  process.stderr.write('Usage: node scripts/uml.ts COMMAND [ARGUMENT…]\n');
  process.exit(2);
}
// Where the kernel's own modules are mounted, in there only.
if (!existsSync(MODULES)) mkdirSync(MODULES);
const dir = mkdtempSync(`${tmpdir()}/uml-`);
const list = (texts: readonly string[]) => texts.map((text) => `${text}\0`).join('');
writeFileSync(`${dir}/argv`, list(argv));
writeFileSync(`${dir}/env`, list(Object.entries(process.env).map(([name, value]) => `${name}=${value}`)));
writeFileSync(`${dir}/directory`, process.cwd());

const kernel = spawn(
  PROGRAM,
  [
    `mem=${MEMORY}`,
    'root=/dev/root',
    'rootfstype=hostfs',
    'rootflags=/',
    'rw',
    'quiet',
    'con=null',
    'con0=null,fd:1',
    // The command's own terminal: what the kernel says stays apart from it.
    'con1=fd:3,fd:3',
    `UML_DIR=${dir}`,
    `init=${INIT}`,
  ],
  { detached: true, stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env: { PATH: process.env['PATH'], HOME: dir } },
);
let kernelSaid = '';
for (const stream of [kernel.stdout, kernel.stderr]) {
  stream?.setEncoding('utf8').on('data', (text: string) => {
    kernelSaid += text;
  });
}
kernel.stdio[3]?.on('data', (chunk: Buffer) => process.stdout.write(chunk));
// It is several processes, which would outlive the first: all of its group, and it has one of its own.
const stop = () => {
  if (kernel.pid !== undefined && kernel.exitCode === null) process.kill(-kernel.pid, 'SIGKILL');
};
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);

const failure = await new Promise<Error | undefined>((resolve) => {
  kernel.on('error', resolve);
  kernel.on('close', () => resolve(undefined));
});
if (existsSync(`${dir}/status`)) process.exitCode = Number(readFileSync(`${dir}/status`, 'utf8'));
else {
  const todo = failure === undefined ? '' : '; install the package user-mode-linux';
  const why = failure?.message ?? `the kernel ended before the command did:\n${kernelSaid}`;
  process.stderr.write(`Cannot run ${argv[0]} inside user-mode-linux: ${why}${todo}\n`);
  process.exitCode = 3;
}
rmSync(dir, { recursive: true });
