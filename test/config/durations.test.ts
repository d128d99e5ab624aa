import fc from 'fast-check';
import t from 'tap';
import { formatDurationMs, parseDurationMs } from '../../src/config/durations.ts';

const good: readonly (readonly [text: string, ms: number, printed: string])[] = [
  ['0', 0, '0s'],
  ['0s', 0, '0s'],
  ['-0', 0, '0s'],
  ['30s', 30_000, '30s'],
  ['1m', 60_000, '1m0s'],
  ['15m0s', 900_000, '15m0s'],
  ['24h', 86_400_000, '24h0m0s'],
  ['1h15m30.918s', 4_530_918, '1h15m30.918s'],
  ['1.5h', 5_400_000, '1h30m0s'],
  ['-1.5h', -5_400_000, '-1h30m0s'],
  ['+5s', 5000, '5s'],
  ['.5s', 500, '500ms'],
  ['5.s', 5000, '5s'],
  ['1500ms', 1500, '1.5s'],
  ['250us', 0.25, '250µs'],
  ['250\u00b5s', 0.25, '250µs'],
  ['250\u03bcs', 0.25, '250µs'],
  ['1ns', 1e-6, '1ns'],
  ['1s1ns', 1000.000001, '1.000000001s'],
  ['0.1s0.1s', 200, '200ms'],
  ['90m', 5_400_000, '1h30m0s'],
  ['0.000000000000000000001h', 0, '0s'],
  ['2540400h10m10s', 9_145_440_610_000, '2540400h10m10s'],
];

t.test('parseDurationMs() and formatDurationMs()', async (t) => {
  for (const [text, ms, printed] of good) {
    t.equal(parseDurationMs(text), ms === 0 ? 0 : ms, text);
    t.equal(formatDurationMs(ms), printed, `${text} is printed`);
  }
});

t.test('parseDurationMs() refuses', async (t) => {
  for (const bad of [
    '',
    '-',
    '+',
    '3',
    '.s',
    's',
    '1',
    '1x',
    '1s ',
    ' 1s',
    '1 s',
    '1,5s',
    '--1s',
    '1s-1s',
    '1S',
    'NaN',
  ]) {
    t.throws(
      () => parseDurationMs(bad),
      { name: 'SyntaxError', message: `Cannot parse duration "${bad}"` },
      `"${bad}"`,
    );
  }
  for (const long of ['2562048h', '9999999999999999999s']) {
    t.throws(() => parseDurationMs(long), { name: 'RangeError', message: /longer than 292 years/ }, long);
  }
});

t.test('every whole number of nanoseconds below 100 days comes back', async () => {
  fc.assert(
    fc.property(fc.integer({ min: -8.64e15, max: 8.64e15 }), (ns) => {
      const text = formatDurationMs(ns / 1e6);
      return formatDurationMs(parseDurationMs(text)) === text;
    }),
  );
});
