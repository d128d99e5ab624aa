import t from 'tap';
import { Runner, type RunOutcome } from '../../src/proxier/runner.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';

const SECOND = 1000;

/** A step of a story: at `at` seconds something happens, or by then the runs so far were at exactly `ran`. */
type Step =
  | { readonly at: number; readonly do: 'request' | 'requestNow' | 'fail' | 'succeed' }
  | { readonly at: number; readonly ran: readonly number[] };

interface Story {
  readonly name: string;
  /** Seconds. */
  readonly min?: number;
  readonly retry?: number;
  readonly max?: number;
  /** How long a run lasts, in seconds. */
  readonly lasts?: number;
  /** Requests made before the loop starts. */
  readonly before?: number;
  readonly steps: readonly Step[];
}

const stories: readonly Story[] = [
  { name: 'no request, no run before the longest interval', steps: [{ at: 9.9, ran: [] }] },
  {
    name: 'no request: a run at the longest interval, and at the next',
    steps: [{ at: 20, ran: [10, 20] }],
  },
  {
    name: 'the first run starts at once',
    steps: [
      { at: 0, do: 'request' },
      { at: 0, ran: [0] },
    ],
  },
  {
    name: 'requests before the loop are one run',
    before: 2,
    steps: [{ at: 9, ran: [0] }],
  },
  {
    name: 'requests in the cool-down become one run when it ends',
    steps: [
      { at: 0, do: 'request' },
      { at: 0.2, do: 'request' },
      { at: 0.5, do: 'request' },
      { at: 0.9, ran: [0] },
      { at: 1, ran: [0, 1] },
      { at: 9, ran: [0, 1] },
    ],
  },
  {
    name: 'after the cool-down a request runs at once',
    steps: [
      { at: 0, do: 'request' },
      { at: 3.5, do: 'request' },
      { at: 3.5, ran: [0, 3.5] },
    ],
  },
  {
    name: 'the longest interval counts from the last run',
    steps: [
      { at: 4, do: 'request' },
      { at: 13.9, ran: [4] },
      { at: 14, ran: [4, 14] },
    ],
  },
  {
    name: 'a failed run is tried again after the retry interval, until it succeeds',
    steps: [
      { at: 0, do: 'fail' },
      { at: 0, do: 'request' },
      { at: 4.9, ran: [0] },
      { at: 5, ran: [0, 5] },
      { at: 6, do: 'succeed' },
      { at: 19.9, ran: [0, 5, 10] },
      { at: 20, ran: [0, 5, 10, 20] },
    ],
  },
  {
    name: 'a run that succeeds in between cancels the retry',
    steps: [
      { at: 0, do: 'fail' },
      { at: 0, do: 'request' },
      { at: 2, do: 'succeed' },
      { at: 2, do: 'request' },
      { at: 11.9, ran: [0, 2] },
      { at: 12, ran: [0, 2, 12] },
    ],
  },
  {
    name: 'a retry interval shorter than the shortest waits for that',
    retry: 0.5,
    steps: [
      { at: 0, do: 'fail' },
      { at: 0, do: 'request' },
      { at: 0.9, ran: [0] },
      { at: 1, ran: [0, 1] },
    ],
  },
  {
    name: 'a retry interval longer than the longest is the longest',
    retry: 60,
    steps: [
      { at: 0, do: 'fail' },
      { at: 0, do: 'request' },
      { at: 9.9, ran: [0] },
      { at: 10, ran: [0, 10] },
    ],
  },
  {
    name: 'the shortest interval counts from the end of a run',
    lasts: 2,
    steps: [
      { at: 0, do: 'request' },
      { at: 1, do: 'request' },
      { at: 2.9, ran: [0] },
      { at: 3, ran: [0, 3] },
    ],
  },
  {
    name: 'a request while a run lasts is not lost',
    lasts: 2,
    min: 0,
    steps: [
      { at: 0, do: 'request' },
      { at: 0, ran: [0] },
      { at: 1, do: 'request' },
      { at: 2, ran: [0, 2] },
      { at: 9, ran: [0, 2] },
    ],
  },
  {
    name: 'an urgent request does not wait for the cool-down',
    steps: [
      { at: 0, do: 'request' },
      { at: 0.1, do: 'request' },
      { at: 0.4, ran: [0] },
      { at: 0.4, do: 'requestNow' },
      { at: 0.4, ran: [0, 0.4] },
      { at: 5, ran: [0, 0.4] },
    ],
  },
  {
    name: 'an urgent request that fails is tried again after the retry interval',
    steps: [
      { at: 0, do: 'fail' },
      { at: 0, do: 'requestNow' },
      { at: 5, ran: [0, 5] },
    ],
  },
  {
    name: 'no cool-down at all',
    min: 0,
    steps: [
      { at: 0, do: 'request' },
      { at: 0, ran: [0] },
      { at: 0, do: 'request' },
      { at: 0, ran: [0, 0] },
    ],
  },
];

t.test('Runner', async (t) => {
  for (const { name, min = 1, retry = 5, max = 10, lasts = 0, before = 0, steps } of stories) {
    t.test(name, async (t) => {
      const clock = new FakeClock(0);
      const stop = new AbortController();
      const ran: number[] = [];
      let outcome: RunOutcome = 'ok';
      const run = async (signal: AbortSignal) => {
        ran.push(clock.now() / SECOND);
        if (lasts > 0) await clock.sleep(lasts * SECOND, signal);
        return outcome;
      };
      const options = { minIntervalMs: min * SECOND, retryIntervalMs: retry * SECOND, maxIntervalMs: max * SECOND };
      const runner = new Runner(options, run, clock);
      for (let i = 0; i < before; i++) runner.request();
      const loop = runner.loop(stop.signal);
      for (const step of steps) {
        await clock.advance(step.at * SECOND - clock.now());
        if ('ran' in step) t.same(ran, step.ran, `runs until ${step.at} s`);
        else if (step.do === 'fail') outcome = 'failed';
        else if (step.do === 'succeed') outcome = 'ok';
        else runner[step.do]();
      }
      stop.abort();
      await loop;
      t.equal(clock.sleeping, 0, 'leaves no timer behind');
    });
  }

  t.test('refuses a longest interval below the shortest', async (t) => {
    const options = { minIntervalMs: 2, retryIntervalMs: 5, maxIntervalMs: 1 };
    t.throws(() => new Runner(options, async () => 'ok', new FakeClock()), { name: 'RangeError' });
  });

  t.test('ends with what a run throws', async (t) => {
    const options = { minIntervalMs: 0, retryIntervalMs: 5, maxIntervalMs: 9 };
    const runner = new Runner(options, () => Promise.reject(new TypeError('a defect')), new FakeClock());
    runner.request();
    await t.rejects(runner.loop(new AbortController().signal), { name: 'TypeError', message: 'a defect' });
  });
});
