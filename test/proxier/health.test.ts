import t from 'tap';
import { formatRfc3339Nano, ProxyHealth } from '../../src/proxier/health.ts';
import type { Family, NodeObject, ObjectKey } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';

const TIMEOUT_MS = 10_000;

const node: NodeObject = {
  kind: 'Node',
  key: 'node-a' as ObjectKey,
  name: 'node-a',
  resourceVersion: '1',
  zone: '',
  podCIDRs: [],
  addresses: [],
  deleting: false,
  taintKeys: [],
};

type Step =
  | { readonly wait: number }
  | { readonly queued: Family }
  | { readonly updated: Family }
  | { readonly node: NodeObject | undefined }
  /** `late`: families that are unhealthy; `listed`: families in the status. `since`: lastUpdated, seconds after the start. */
  | {
      readonly healthz: number;
      readonly livez: number;
      readonly late?: readonly Family[];
      readonly listed?: readonly Family[];
      readonly eligible?: boolean;
      readonly since?: number | 'now' | 'never';
    };

const both: readonly Family[] = ['IPv4', 'IPv6'];
const ok = { healthz: 200, livez: 200, listed: both } as const;
const start: readonly Step[] = [{ updated: 'IPv4' }, { updated: 'IPv6' }];

const stories: readonly { readonly name: string; readonly steps: readonly Step[] }[] = [
  { name: 'nothing yet', steps: [{ healthz: 200, livez: 200, listed: [] }] },
  { name: 'both families updated', steps: [...start, ok] },
  { name: 'one family: only that one is listed', steps: [{ updated: 'IPv6' }, { ...ok, listed: ['IPv6'] }] },
  { name: 'idle for long', steps: [...start, { wait: 25 }, ok] },
  {
    name: 'IPv4 late, then updated',
    steps: [
      ...start,
      { wait: 5 },
      { updated: 'IPv6' },
      { queued: 'IPv4' },
      { wait: 25 },
      { healthz: 503, livez: 503, late: ['IPv4'], since: 5 },
      { updated: 'IPv4' },
      ok,
    ],
  },
  {
    name: 'IPv6 late, then updated',
    steps: [
      ...start,
      { queued: 'IPv6' },
      { wait: 25 },
      { healthz: 503, livez: 503, late: ['IPv6'], since: 0 },
      { updated: 'IPv6' },
      ok,
    ],
  },
  {
    name: 'both late, one of them updated, then both',
    steps: [
      ...start,
      { queued: 'IPv4' },
      { queued: 'IPv6' },
      { wait: 25 },
      { healthz: 503, livez: 503, late: both, since: 0 },
      { updated: 'IPv4' },
      { healthz: 503, livez: 503, late: ['IPv6'], since: 25 },
      { updated: 'IPv6' },
      ok,
    ],
  },
  {
    name: 'just below the time-out, and at it',
    steps: [
      ...start,
      { queued: 'IPv4' },
      { wait: 9.999 },
      ok,
      { wait: 0.001 },
      { healthz: 503, livez: 503, late: ['IPv4'] },
    ],
  },
  {
    name: 'the oldest request counts, not the newest',
    steps: [
      ...start,
      { queued: 'IPv4' },
      { wait: 6 },
      { queued: 'IPv4' },
      { wait: 4 },
      { healthz: 503, livez: 503, late: ['IPv4'] },
    ],
  },
  {
    name: 'a family that has not reported does not count',
    steps: [{ updated: 'IPv4' }, { queued: 'IPv6' }, { wait: 25 }, { ...ok, listed: ['IPv4'] }],
  },
  {
    name: 'another taint',
    steps: [...start, { node: { ...node, taintKeys: ['node.kubernetes.io/not-ready'] } }, ok],
  },
  {
    name: 'the taint of the autoscaler, and without it again',
    steps: [
      ...start,
      { wait: 3 },
      { node: { ...node, taintKeys: ['a', 'ToBeDeletedByClusterAutoscaler'] } },
      { healthz: 503, livez: 200, eligible: false, since: 0 },
      { node },
      ok,
    ],
  },
  {
    name: 'the node is being deleted',
    steps: [...start, { node: { ...node, deleting: true } }, { healthz: 503, livez: 200, eligible: false, since: 0 }],
  },
  {
    name: 'the node is gone',
    steps: [{ node: undefined }, { healthz: 503, livez: 200, listed: [], eligible: false, since: 'never' }],
  },
];

t.test('ProxyHealth', async (t) => {
  for (const { name, steps } of stories) {
    t.test(name, async (t) => {
      const clock = new FakeClock();
      const startMs = clock.now();
      const health = new ProxyHealth(TIMEOUT_MS, clock);
      health.setNode(node);
      for (const step of steps) {
        if ('wait' in step) await clock.advance(step.wait * 1000);
        else if ('queued' in step) health.queued(step.queued);
        else if ('updated' in step) health.updated(step.updated);
        else if ('node' in step) health.setNode(step.node);
        else {
          const { healthz, livez, late = [], listed = both, eligible = true, since = 'now' } = step;
          t.equal(health.isHealthy(), late.length === 0);
          for (const [path, want] of [
            ['healthz', healthz],
            ['livez', livez],
          ] as const) {
            const answer = health[path]();
            const body = JSON.parse(answer.body);
            t.equal(answer.status, want, path);
            t.equal(body.healthy, late.length === 0, `${path}: healthy`);
            t.equal(body.nodeEligible, path === 'healthz' ? eligible : undefined, `${path}: nodeEligible`);
            t.same(Object.keys(body.status ?? {}), listed, `${path}: families`);
            t.equal('status' in body, listed.length > 0, `${path}: no empty status`);
            for (const family of listed) t.equal(body.status[family].healthy, !late.includes(family), family);
            t.equal(Date.parse(body.currentTime), clock.now());
            if (want === 200) t.equal(body.lastUpdated, body.currentTime, 'a 200 is updated now');
            else if (since === 'never') t.equal(body.lastUpdated, '0001-01-01T00:00:00Z');
            else if (since !== 'now') t.equal(Date.parse(body.lastUpdated) - startMs, since * 1000, 'last real update');
          }
        }
      }
    });
  }

  t.test('the body, byte for byte', async (t) => {
    const clock = new FakeClock(Date.UTC(2026, 0, 2, 3, 4, 5, 120));
    const health = new ProxyHealth(TIMEOUT_MS, clock);
    health.setNode(node);
    health.updated('IPv6');
    health.updated('IPv4');
    await clock.advance(1380);
    const [at, now] = [formatRfc3339Nano(clock.now() - 1380), formatRfc3339Nano(clock.now())];
    const status = `"status":{"IPv4":{"lastUpdated":"${at}","healthy":true},"IPv6":{"lastUpdated":"${at}","healthy":true}}`;
    t.same(health.healthz(), {
      status: 200,
      body: `{"lastUpdated":"${now}","currentTime":"${now}","nodeEligible":true,"healthy":true,${status}}`,
    });
    t.same(health.livez(), {
      status: 200,
      body: `{"lastUpdated":"${now}","currentTime":"${now}","healthy":true,${status}}`,
    });
  });
});

t.test('formatRfc3339Nano()', async (t) => {
  const zone = process.env['TZ'];
  t.teardown(() => {
    if (zone === undefined) delete process.env['TZ'];
    else process.env['TZ'] = zone;
  });
  const noon = Date.UTC(2026, 5, 7, 12, 0, 0);
  for (const { name, tz, ms, want } of [
    { name: 'UTC is Z', tz: 'UTC', ms: noon, want: '2026-06-07T12:00:00Z' },
    { name: 'milliseconds', tz: 'UTC', ms: noon + 120, want: '2026-06-07T12:00:00.12Z' },
    { name: 'microseconds', tz: 'UTC', ms: noon + 0.125, want: '2026-06-07T12:00:00.000125Z' },
    { name: 'a fraction that rounds to the next second', tz: 'UTC', ms: noon + 999.9999, want: '2026-06-07T12:00:01Z' },
    { name: 'east, half an hour', tz: 'Asia/Kolkata', ms: noon, want: '2026-06-07T17:30:00+05:30' },
    {
      name: 'west, the day before',
      tz: 'America/Los_Angeles',
      ms: noon - 6 * 3_600_000,
      want: '2026-06-06T23:00:00-07:00',
    },
  ]) {
    t.test(name, async (t) => {
      process.env['TZ'] = tz;
      t.equal(formatRfc3339Nano(ms), want);
    });
  }
});
