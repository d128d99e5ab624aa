import { pino } from 'pino';
import t from 'tap';
import { type EventRecord, Events } from '../../src/daemon/events.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';

const node = { apiVersion: 'v1', kind: 'Node', name: 'node-a' };
const starting: EventRecord = {
  regarding: node,
  type: 'Normal',
  reason: 'Starting',
  action: 'StartKubeProxy',
  note: '',
};
const refused: EventRecord = {
  regarding: { apiVersion: 'v1', kind: 'Service', namespace: 'ns', name: 'svc' },
  type: 'Warning',
  reason: 'FailedToProgramService',
  action: 'Sync',
  note: 'why',
};

function makeEvents() {
  const clock = new FakeClock(Date.UTC(2026, 0, 2, 3, 4, 5, 6));
  const sent: { method: string; path: string; body: Record<string, unknown>; atMs: number }[] = [];
  /** Answers to come: 'ok', 'down' (worth another try) or 'no' (final). */
  const answers: ('ok' | 'down' | 'no')[] = [];
  const call = (method: string) => async (path: string, body: object) => {
    sent.push({ method, path, body: { ...body }, atMs: clock.now() });
    const answer = answers.shift() ?? 'ok';
    if (answer !== 'ok') throw new Error(answer);
  };
  const api = {
    post: call('POST'),
    patch: call('PATCH'),
    isFinal: (error: unknown) => error instanceof Error && error.message === 'no',
  };
  const warnings: string[] = [];
  const log = pino(
    { base: null, level: 'debug' },
    { write: (line: string) => void warnings.push(JSON.parse(line).msg) },
  );
  const events = new Events({ hostname: 'host-a', random: () => 0 }, { api, clock, log });
  const stop = new AbortController();
  const running = events.run(stop.signal);
  return {
    clock,
    sent,
    answers,
    warnings,
    events,
    async stop() {
      stop.abort();
      await running;
    },
  };
}

t.test('Events', async (t) => {
  t.test('have the shape of events.k8s.io/v1', async (t) => {
    const w = makeEvents();
    w.events.record(starting);
    w.events.record(refused);
    await w.clock.advance(0);
    t.match(
      w.sent.map((s) => `${s.method} ${s.path}`),
      ['POST /apis/events.k8s.io/v1/namespaces/default/events', 'POST /apis/events.k8s.io/v1/namespaces/ns/events'],
    );
    t.match(w.sent[0]?.body, {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { namespace: 'default', name: /^node-a\.[0-9a-f]{16}$/ },
      eventTime: '2026-01-02T03:04:05.006000Z',
      reportingController: 'kube-proxy',
      reportingInstance: 'kube-proxy-host-a',
      type: 'Normal',
      reason: 'Starting',
      action: 'StartKubeProxy',
      note: '',
      regarding: node,
    });
    await w.stop();
  });

  t.test('that are equal become a series', async (t) => {
    const w = makeEvents();
    for (let i = 0; i < 3; i++) w.events.record(refused);
    w.events.record({ ...refused, note: 'another reason' });
    await w.clock.advance(0);
    t.same(
      w.sent.map((s) => s.method),
      ['POST', 'PATCH', 'PATCH', 'POST'],
    );
    t.match(w.sent[1]?.path, /^\/apis\/events.k8s.io\/v1\/namespaces\/ns\/events\/svc\.[0-9a-f]{16}$/);
    t.same(w.sent[2]?.body, { series: { count: 3, lastObservedTime: '2026-01-02T03:04:05.006000Z' } });
    await w.stop();
  });

  t.test('that the server has forgotten begin anew', async (t) => {
    const w = makeEvents();
    w.answers.push('ok', 'no', 'ok', 'ok');
    for (let i = 0; i < 3; i++) w.events.record(refused);
    await w.clock.advance(0);
    t.same(
      w.sent.map((s) => s.method),
      ['POST', 'PATCH', 'POST', 'PATCH'],
    );
    t.match(w.sent[3]?.body, { series: { count: 2 } });
    t.same(w.warnings, []);
    await w.stop();
  });

  t.test('are tried again while the server is away, in order', async (t) => {
    const w = makeEvents();
    w.answers.push('down', 'down', 'ok');
    w.events.record(starting);
    w.events.record(refused);
    await w.clock.advance(9_999);
    t.equal(w.sent.length, 1);
    await w.clock.advance(10_001);
    t.same(
      w.sent.map((s) => s.body['reason']),
      ['Starting', 'Starting', 'Starting', 'FailedToProgramService'],
    );
    await w.stop();
  });

  t.test('are given up after 12 tries, or when the server says no', async (t) => {
    const w = makeEvents();
    w.answers.push(...Array.from({ length: 12 }, () => 'down' as const), 'no');
    w.events.record(starting);
    w.events.record(refused);
    w.events.record({ ...starting, note: 'last' });
    await w.clock.advance(1_000_000);
    t.same(
      w.sent.map((s) => s.body['reason']),
      [...Array(12).fill('Starting'), 'FailedToProgramService', 'Starting'],
    );
    t.same(w.warnings, ['event not recorded', 'event not recorded']);
    await w.stop();
  });

  t.test('beyond 1000 that wait are dropped', async (t) => {
    const w = makeEvents();
    w.answers.push('down');
    w.events.record(starting);
    await w.clock.advance(0);
    for (let i = 0; i < 1005; i++) w.events.record({ ...refused, note: `${i}` });
    t.same(w.warnings.length, 5);
    await w.clock.advance(10_000);
    t.equal(w.sent.length, 1002);
    await w.stop();
  });

  t.test('that wait are flushed, but not for ever', async (t) => {
    const w = makeEvents();
    w.events.record(starting);
    await w.events.flush(1000);
    t.equal(w.sent.length, 1);
    t.equal(w.clock.now(), Date.UTC(2026, 0, 2, 3, 4, 5, 6), 'no time has passed');
    w.answers.push('down');
    w.events.record(refused);
    let flushed = false;
    const flushing = w.events.flush(1000).then(() => {
      flushed = true;
    });
    await w.clock.advance(999);
    t.equal(flushed, false);
    await w.clock.advance(1);
    t.equal(flushed, true);
    await flushing;
    await w.stop();
    t.equal(w.clock.sleeping, 0);
  });
});
