import t from 'tap';
import { type Command, type ExecError, exitedWith, realExec } from '../../src/sys/exec.ts';

const run = (argv: Command['argv'], more: Partial<Command> = {}) => realExec.run({ argv, timeoutMs: 20_000, ...more });

t.test('run()', async (t) => {
  t.equal(await run(['cat'], { stdin: 'in and out' }), 'in and out');
  t.equal(await run(['cat'], { stdin: ['a'.repeat(300_000), 'b'] }), `${'a'.repeat(300_000)}b`, 'in pieces');
  t.equal(await run(['true'], { stdin: 'x'.repeat(1_000_000) }), '', 'a program that reads nothing');
  const rows: readonly { name: string; argv: Command['argv']; failure: object; more?: Partial<Command> }[] = [
    { name: 'no such program', argv: ['/no/such/program'], failure: { code: 'NOT_STARTED' } },
    { name: 'a status', argv: ['false'], failure: { code: 'EXITED', status: 1 } },
    { name: 'a signal', argv: ['sh', '-c', 'kill -TERM $$'], failure: { code: 'KILLED', signal: 'SIGTERM' } },
    {
      name: 'too long',
      argv: ['sleep', '20'],
      more: { timeoutMs: 50 },
      failure: { code: 'TIMED_OUT', timeoutMs: 50 },
    },
  ];
  for (const { name, argv, failure, more } of rows) {
    const error: unknown = await run(argv, more).catch((e: unknown) => e);
    t.match(error, { name: 'ExecError', failure }, name);
    t.equal(exitedWith(error, 1), name === 'a status');
  }
  const said: ExecError = await run(['sh', '-c', 'echo out; echo why >&2; exit 3']).catch((e) => e);
  t.match(said, { message: /: why$/, stdout: 'out\n', stderr: 'why\n' }, 'what it said');
});

t.test('a process that cannot open another file', async (t) => {
  // `ulimit -n` of a process of its own: all descriptors are used up, then a program is started.
  const program = `
    const { openSync } = await import('node:fs');
    const { realExec } = await import(${JSON.stringify(new URL('../../src/sys/exec.ts', import.meta.url).href)});
    try { for (;;) openSync('/dev/null'); } catch {}
    const error = await realExec.run({ argv: ['true'], timeoutMs: 5000 }).catch((e) => e);
    process.stdout.write(error.failure?.code ?? String(error));
  `;
  const out = await run(['sh', '-c', 'ulimit -n 64; exec "$0" --input-type=module -e "$1"', process.execPath, program]);
  t.equal(out, 'NOT_STARTED', 'fails like one that could not start');
});
