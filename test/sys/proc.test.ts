/** Kernel settings and programs in memory behave like the real ones. */
import t from 'tap';
import { ExecError, exitedWith } from '../../src/sys/exec.ts';
import { FakeExec } from '../../src/sys/fake-exec.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';
import { ensureSysctl } from '../../src/sys/proc.ts';

t.test('kernel settings', async (t) => {
  const sysctl = new FakeSysctl({ a: 0, b: 1 });
  t.same(
    [ensureSysctl(sysctl, 'a', 1), ensureSysctl(sysctl, 'a', 1), ensureSysctl(sysctl, 'b', 1)],
    [true, false, false],
  );
  t.same(sysctl.writes, ['a=1'], 'written only when it differs');
  sysctl.readOnly.add('b');
  t.equal(ensureSysctl(sysctl, 'b', 1), false, 'a value that is right needs no permission');
  t.throws(() => ensureSysctl(sysctl, 'b', 2), {
    message: 'Cannot set kernel setting b to 2: the kernel answers EROFS',
  });
  t.throws(() => ensureSysctl(sysctl, 'c', 2), { message: /ENOENT/ });
});

t.test('programs', async (t) => {
  const exec = new FakeExec({
    echo: ({ stdin }) => ({ stdout: stdin }),
    no: () => ({ status: 3, stderr: 'because\n' }),
    slow: () => 'hang',
  });
  t.equal(await exec.run({ argv: ['echo'], stdin: ['a', 'b'], timeoutMs: 1 }), 'ab');
  t.equal(await exec.run({ argv: ['echo'], timeoutMs: 1 }), '');
  const failures: readonly { argv: [string]; signal?: AbortSignal; code: string }[] = [
    { argv: ['no'], code: 'EXITED' },
    { argv: ['slow'], code: 'TIMED_OUT' },
    { argv: ['none'], code: 'NOT_STARTED' },
    { argv: ['echo'], signal: AbortSignal.abort(), code: 'ABORTED' },
  ];
  for (const { argv, signal, code } of failures) {
    const error = await exec.run({ argv, timeoutMs: 1 }, signal).catch((e) => e);
    t.ok(error instanceof ExecError);
    t.equal(error.failure.code, code);
    t.equal(exitedWith(error, 3), code === 'EXITED');
  }
  t.equal(exec.calls.length, 6, 'every start is kept');
});
