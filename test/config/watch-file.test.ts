import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { watchConfigFile } from '../../src/config/watch-file.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';

/** One turn of I/O: file events, and reads that follow them, come with it. */
const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 1));

/** Advances the clock with the event loop turning between, until `done` or some turns have passed. */
async function turns(clock: FakeClock, n: number, done: () => boolean = () => false): Promise<void> {
  for (let i = 0; i < n && !done(); i++) {
    await turn();
    await clock.advance(100);
  }
}

/** A folder with `config` as a plain file, and as a ConfigMap volume has it. */
function makeFolder(t: Test) {
  const dir = mkdtempSync(join(tmpdir(), 'watch-file-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, 'plain'), 'one');
  mkdirSync(join(dir, 'v1'));
  writeFileSync(join(dir, 'v1/linked'), 'one');
  symlinkSync('v1', join(dir, '..data'));
  symlinkSync('..data/linked', join(dir, 'linked'));
  return dir;
}

const changes: readonly { name: string; file: string; act: (dir: string) => void; changed: boolean }[] = [
  { name: 'written in place', file: 'plain', act: (d) => writeFileSync(join(d, 'plain'), 'two'), changed: true },
  {
    name: 'replaced by rename',
    file: 'plain',
    act: (d) => {
      writeFileSync(join(d, 'new'), 'two');
      renameSync(join(d, 'new'), join(d, 'plain'));
    },
    changed: true,
  },
  {
    name: 'removed and made again',
    file: 'plain',
    act: (d) => {
      rmSync(join(d, 'plain'));
      writeFileSync(join(d, 'plain'), 'two');
    },
    changed: true,
  },
  {
    name: 'swapped by symlink, as a ConfigMap volume does',
    file: 'linked',
    act: (d) => {
      mkdirSync(join(d, 'v2'));
      writeFileSync(join(d, 'v2/linked'), 'two');
      symlinkSync('v2', join(d, '..data_tmp'));
      renameSync(join(d, '..data_tmp'), join(d, '..data'));
      rmSync(join(d, 'v1'), { recursive: true });
    },
    changed: true,
  },
  {
    name: 'written behind the symlink',
    file: 'linked',
    act: (d) => writeFileSync(join(d, 'v1/linked'), 'two'),
    changed: true,
  },
  { name: 'touched', file: 'plain', act: (d) => utimesSync(join(d, 'plain'), 1, 1), changed: false },
  { name: 'written as it was', file: 'plain', act: (d) => writeFileSync(join(d, 'plain'), 'one'), changed: false },
  { name: 'removed', file: 'plain', act: (d) => rmSync(join(d, 'plain')), changed: false },
  {
    name: 'not touched, but another file is',
    file: 'plain',
    act: (d) => writeFileSync(join(d, 'other'), 'two'),
    changed: false,
  },
];

t.test('watchConfigFile() on a file that is', async (t) => {
  for (const { name, file, act, changed } of changes) {
    t.test(name, async (t) => {
      const dir = makeFolder(t);
      const clock = new FakeClock();
      const stop = new AbortController();
      let calls = 0;
      const watching = watchConfigFile(join(dir, file), () => calls++, stop.signal, { clock, initial: 'one' });
      await turns(clock, 5);
      t.equal(calls, 0, 'nothing before');
      act(dir);
      await turns(clock, changed ? 500 : 20, () => calls > 0);
      t.equal(calls, changed ? 1 : 0);
      stop.abort();
      await watching;
      t.equal(clock.sleeping, 0, 'nothing is left waiting');
    });
  }
});

t.test('watchConfigFile()', async (t) => {
  t.test('notices what changed before it began', async (t) => {
    const clock = new FakeClock();
    let calls = 0;
    const watching = watchConfigFile(join(makeFolder(t), 'plain'), () => calls++, new AbortController().signal, {
      clock,
      initial: 'zero',
    });
    await turns(clock, 500, () => calls > 0);
    await watching;
    t.equal(calls, 1);
  });

  t.test('waits for a writer it met half-way', async (t) => {
    const dir = makeFolder(t);
    const clock = new FakeClock();
    const stop = new AbortController();
    let calls = 0;
    writeFileSync(join(dir, 'plain'), '');
    const watching = watchConfigFile(join(dir, 'plain'), () => calls++, stop.signal, { clock, initial: 'one' });
    for (let i = 0; i < 100 && clock.sleeping === 0; i++) await turn();
    writeFileSync(join(dir, 'plain'), 'one');
    await turns(clock, 20);
    t.equal(calls, 0);
    stop.abort();
    await watching;
  });

  t.test('waits for a writer that truncates first', async (t) => {
    const dir = makeFolder(t);
    const clock = new FakeClock();
    const stop = new AbortController();
    let calls = 0;
    const watching = watchConfigFile(join(dir, 'plain'), () => calls++, stop.signal, { clock, initial: 'one' });
    await turns(clock, 3);
    writeFileSync(join(dir, 'plain'), '');
    for (let i = 0; i < 10; i++) await turn();
    writeFileSync(join(dir, 'plain'), 'one');
    await turns(clock, 20);
    t.equal(calls, 0);
    stop.abort();
    await watching;
  });
});
