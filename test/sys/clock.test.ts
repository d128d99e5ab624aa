import t from 'tap';
import { realClock } from '../../src/sys/clock.ts';

t.test('sleep()', async (t) => {
  const rows: readonly { name: string; ms: number; timers: readonly number[] }[] = [
    { name: 'a time that has passed already', ms: -3, timers: [0] },
    { name: 'a second', ms: 1000, timers: [1000] },
    { name: 'the longest timer there is', ms: 2 ** 31 - 1, timers: [2 ** 31 - 1] },
    { name: 'more than a timer can wait', ms: 2 ** 31 + 4, timers: [2 ** 31 - 1, 5] },
  ];
  for (const { name, ms, timers } of rows) {
    t.test(name, async (t) => {
      const asked: number[] = [];
      const { setTimeout } = globalThis;
      t.intercept(globalThis, 'setTimeout', {
        value: (done: () => void, delayMs: number) => {
          asked.push(delayMs);
          return setTimeout(done, 0);
        },
      });
      await realClock.sleep(ms);
      t.same(asked, timers);
    });
  }
  t.test('ends when told to', async (t) => {
    const stop = new AbortController();
    const slept = realClock.sleep(3_000_000_000, stop.signal);
    stop.abort();
    t.equal(await slept, undefined);
    t.equal(await realClock.sleep(3_000_000_000, stop.signal), undefined, 'at once, if told before');
  });
});
