import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { FIRST_DELAY_MS, LONGEST_DELAY_MS } from '../../src/watch/backoff.ts';
import { SERVICE_CIDRS, SERVICES, type WatchedKind } from '../../src/watch/selectors.ts';
import { createApiSource } from '../../src/watch/source.ts';
import { rawService } from './objects.ts';
import { type Asked, Recorder, ScriptedApi } from './scripted-api.ts';

interface Scene {
  readonly api: ScriptedApi;
  readonly clock: FakeClock;
  readonly seen: Recorder;
  readonly list: () => Promise<Asked>;
  readonly watch: () => Promise<Asked>;
  readonly stop: () => Promise<void>;
}

/** A source of Services against a server that does what the test says. Chance always gives 0.5. */
async function scene(t: Test, kinds: readonly WatchedKind[] = [SERVICES]): Promise<Scene> {
  const api = await ScriptedApi.start();
  const clock = new FakeClock();
  const seen = new Recorder();
  const end = new AbortController();
  const cluster = { servers: [api.url], tls: {}, auth: { kind: 'none' } } as const;
  const source = createApiSource({ cluster, kinds, clock, userAgent: 'switchyard/test', random: () => 0.5 });
  const running = source.run(seen, end.signal);
  const stop = async () => {
    end.abort();
    await running;
  };
  t.teardown(async () => {
    await stop();
    await api.close();
  });
  return {
    api,
    clock,
    seen,
    list: () => api.asked((asked) => !asked.isWatch),
    watch: async () => (await api.asked((asked) => asked.isWatch)).open(),
    stop,
  };
}

/** Lists the given objects at version 100 and opens the watch. */
async function synced(s: Scene, ...items: readonly unknown[]): Promise<Asked> {
  (await s.list()).list('100', items);
  const watch = await s.watch();
  await s.seen.until('synced Service');
  await s.seen.status('connected');
  return watch;
}

const svc = rawService;
const bookmark = (resourceVersion: string) => ({ kind: 'Service', metadata: { resourceVersion } });
const gone = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' };

t.test('a list', async (t) => {
  t.test('is asked for in pages, with the selectors, from the cache, and then watched', async (t) => {
    const s = await scene(t);
    const first = await s.list();
    t.equal(first.path, '/api/v1/services');
    t.equal(first.headers['user-agent'], 'switchyard/test');
    t.same(first.query, {
      labelSelector: '!service.kubernetes.io/service-proxy-name',
      fieldSelector: 'spec.clusterIP!=None',
      limit: '500',
      resourceVersion: '0',
    });
    first.list('100', [svc('a', '1'), svc('b', '2')], 'page 2&more');
    const second = await s.list();
    t.match(second.query, { limit: '500', continue: 'page 2&more' });
    t.notOk('resourceVersion' in second.query, 'the token says the version');
    t.same(await s.seen.until('upsert default/b 2'), ['upsert default/a 1', 'upsert default/b 2']);
    second.list('100', [svc('c', '3')]);
    t.same(await s.seen.until('synced Service'), ['upsert default/c 3', 'synced Service']);
    const watch = await s.watch();
    t.match(watch.query, { watch: 'true', allowWatchBookmarks: 'true', resourceVersion: '100', timeoutSeconds: '450' });
    t.equal(watch.query['labelSelector'], '!service.kubernetes.io/service-proxy-name');
    t.match(await s.seen.status('connected'), { kind: 'Service', server: s.api.url });
  });

  t.test('that is empty is synced too, null items or none', async (t) => {
    for (const body of ['{"items":null,"metadata":{"resourceVersion":"7"}}', '{"metadata":{"resourceVersion":"7"}}']) {
      const s = await scene(t);
      (await s.list()).bytes(body);
      t.same(await s.seen.until('synced Service'), ['synced Service']);
      t.equal((await s.watch()).query['resourceVersion'], '7');
    }
  });

  t.test('of a server that ignores the limit, packed, with the items before the metadata', async (t) => {
    const s = await scene(t);
    const items = Array.from({ length: 2000 }, (_, i) => svc(`s${i}`, `${i}`));
    const body = gzipSync(JSON.stringify({ items, kind: 'ServiceList', metadata: { resourceVersion: '5000' } }));
    const list = await s.list();
    t.equal(list.headers['accept-encoding'], 'gzip');
    list.bytes(body, { 'Content-Encoding': 'gzip' });
    t.equal((await s.seen.until('synced Service')).length, 2001);
    t.equal((await s.watch()).query['resourceVersion'], '5000');
  });

  const broken: readonly { name: string; answer: (list: Asked) => void; why: RegExp }[] = [
    { name: 'an error', answer: (l) => l.status(500, 'InternalError'), why: /500 InternalError/ },
    { name: 'an error that is no JSON', answer: (l) => l.json('<html>', 502), why: /502/ },
    { name: 'a Status with HTTP 200', answer: (l) => l.json({ kind: 'Status', code: 500 }), why: /500/ },
    { name: 'a cut connection', answer: (l) => l.open().write('{"items":[{').cut(), why: /Cannot read from http/ },
    { name: 'half a list', answer: (l) => l.bytes('{"metadata":{},"items":[{"a":'), why: /ends in its middle/ },
    { name: 'an item that is no JSON', answer: (l) => l.bytes('{"metadata":{},"items":[{"a":b}]}'), why: /no JSON/ },
    { name: 'no object', answer: (l) => l.bytes('[]'), why: /no object/ },
    { name: 'metadata that is none', answer: (l) => l.bytes('{"metadata":[],"items":[]}'), why: /metadata/ },
    {
      name: 'half a gzip',
      answer: (l) => l.bytes(gzipSync('{"metadata":{},"items":[]}').subarray(0, 30), { 'Content-Encoding': 'gzip' }),
      why: /unexpected end of file/,
    },
    { name: 'no gzip', answer: (l) => l.bytes('{"items":[]}', { 'Content-Encoding': 'gzip' }), why: /header check/ },
  ];
  for (const { name, answer, why } of broken) {
    t.test(`that is ${name} is told, and asked for again`, async (t) => {
      const s = await scene(t);
      answer(await s.list());
      const down = await s.seen.status('disconnected');
      t.match(down.why, why);
      t.equal(down.sinceMs, s.clock.now());
      t.equal(down.retryInMs, FIRST_DELAY_MS * 1.5);
      t.same(s.seen.log, [], 'nothing is synced');
      await s.clock.advance(down.retryInMs);
      await synced(s, svc('a', '1'));
    });
  }

  t.test('whose next page has expired is read whole, and loses and repeats nothing', async (t) => {
    const s = await scene(t);
    (await s.list()).list('100', [svc('a', '1'), svc('b', '2')], 'token');
    (await s.list()).status(410, 'Expired');
    const down = await s.seen.status('disconnected');
    await s.clock.advance(down.retryInMs);
    const whole = await s.list();
    t.notOk('limit' in whole.query);
    t.notOk('resourceVersion' in whole.query, 'not from a cache that may be older than what is delivered');
    whole.list('200', [svc('a', '1'), svc('c', '3')]);
    t.same(await s.seen.until('synced Service'), [
      'upsert default/a 1',
      'upsert default/b 2',
      'upsert default/c 3',
      'delete default/b',
      'synced Service',
    ]);
  });
});

t.test('back-off doubles to 30 s, keeps to Retry-After, and starts anew after two quiet minutes', async (t) => {
  const s = await scene(t);
  const waits: number[] = [];
  for (let i = 0; i < 8; i++) {
    (await s.list()).status(500, `Reason${i}`);
    const down = await s.seen.status('disconnected');
    waits.push(down.retryInMs / 1.5);
    await s.clock.advance(down.retryInMs - 1);
    t.equal(s.clock.sleeping, 1, 'not a millisecond early');
    await s.clock.advance(1);
  }
  t.same(waits, [800, 1600, 3200, 6400, 12_800, 25_600, LONGEST_DELAY_MS, LONGEST_DELAY_MS]);
  for (const { asked, waits } of [
    { asked: '50', waits: 62_500 },
    // Patience has its limit: a day of old rules on the word of one answer.
    { asked: '86400', waits: 75_000 },
  ]) {
    (await s.list()).status(429, `TooManyRequests${asked}`, { 'Retry-After': asked });
    t.equal((await s.seen.status('disconnected')).retryInMs, waits, `Retry-After: ${asked}, and a quarter by chance`);
    await s.clock.advance(waits);
  }
  const watch = await synced(s, svc('a', '1'));
  await s.clock.advance(120_000);
  watch.line('MODIFIED', svc('a', '102'));
  await s.seen.until('upsert default/a 102');
  watch.cut();
  const down = await s.seen.status('disconnected');
  t.equal(down.retryInMs, FIRST_DELAY_MS * 1.5);
});

t.test('a watch', async (t) => {
  t.test('delivers what changes, once', async (t) => {
    const s = await scene(t);
    const watch = await synced(s, svc('a', '1'));
    watch.line('ADDED', svc('a', '1'));
    watch.line('ADDED', svc('b', '101')).line('MODIFIED', svc('a', '102')).line('MODIFIED', svc('a', '102'));
    watch.line('DELETED', svc('b', '103')).line('DELETED', svc('never-seen', '104')).line('ADDED', svc('b', '105'));
    t.same(await s.seen.until('upsert default/b 105'), [
      'upsert default/b 101',
      'upsert default/a 102',
      'delete default/b',
      'upsert default/b 105',
    ]);
  });

  t.test('may be cut anywhere, also inside a character', async (t) => {
    const s = await scene(t);
    const watch = await synced(s);
    const line = `${JSON.stringify({ type: 'ADDED', object: svc('a', '101', { externalIPs: ['é€𝄞'] }) })}\n`;
    for (const byte of Buffer.from(line)) watch.write(Buffer.from([byte]) as unknown as string);
    await s.seen.until('upsert default/a 101');
    t.match(s.seen.events.at(-1), { object: { externalIPs: ['é€𝄞'] } });
  });

  t.test('that the server ends goes on at the last version, told by an event or a bookmark', async (t) => {
    const s = await scene(t);
    const first = await synced(s, svc('a', '1'));
    first.line('MODIFIED', svc('a', '101')).line('BOOKMARK', bookmark('150'));
    first.end();
    const second = await s.watch();
    t.equal(second.query['resourceVersion'], '150');
    second.line('DELETED', svc('a', '160'));
    t.same(await s.seen.until('delete default/a'), ['upsert default/a 101', 'delete default/a']);
    second.end();
    t.equal((await s.watch()).query['resourceVersion'], '160');
    t.same(s.seen.statuses, [], 'an end is no failure');
  });

  const lost: readonly { name: string; break: (watch: Asked) => void; why: RegExp }[] = [
    { name: 'is cut', break: (w) => w.cut(), why: /aborted/ },
    { name: 'has a line that is no JSON', break: (w) => w.write('{"type":"ADDED"\n'), why: /no JSON/ },
    { name: 'has a line that is no event', break: (w) => w.write('{"kind":"Service"}\n'), why: /no event/ },
    { name: 'ends within a line', break: (w) => w.write('{"type":"ADD').end(), why: /within a line/ },
    { name: 'tells an error', break: (w) => w.line('ERROR', { kind: 'Status', code: 500, reason: 'X' }), why: /500 X/ },
    { name: 'ends as soon as it begins', break: (w) => w.end(), why: /as soon as/ },
  ];
  for (const c of lost) {
    t.test(`that ${c.name} goes on from the last version, after a pause`, async (t) => {
      const s = await scene(t);
      c.break(await synced(s, svc('a', '1')));
      const down = await s.seen.status('disconnected');
      t.match(down.why, c.why);
      await s.clock.advance(down.retryInMs);
      const again = await s.watch();
      t.equal(again.query['resourceVersion'], '100');
      again.line('MODIFIED', svc('a', '101'));
      t.same(await s.seen.until('upsert default/a 101'), ['upsert default/a 101']);
    });
  }

  t.test('that is not understood twice in a row is given up for a new list', async (t) => {
    const s = await scene(t);
    (await synced(s, svc('a', '1'), svc('b', '2'))).write('garbage\n');
    await s.clock.advance((await s.seen.status('disconnected')).retryInMs);
    (await s.watch()).line('ERROR', { kind: 'Status', code: 500 });
    await s.seen.status('connected');
    await s.clock.advance((await s.seen.status('disconnected')).retryInMs);
    const list = await s.list();
    t.notOk('resourceVersion' in list.query, 'not from a cache that may be older than what is delivered');
    list.list('200', [svc('a', '1'), svc('c', '3')]);
    t.same(await s.seen.until('delete default/b'), ['upsert default/c 3', 'delete default/b']);
  });

  t.test('of a server that is away goes on without a new list, however long that lasts', async (t) => {
    const s = await scene(t);
    (await synced(s, svc('a', '1'))).cut();
    for (let i = 0; i < 5; i++) {
      const down = await s.seen.status('disconnected');
      await s.clock.advance(down.retryInMs);
      (await s.api.asked()).status(503, `Unavailable${i}`);
    }
    await s.clock.advance((await s.seen.status('disconnected')).retryInMs);
    t.equal((await s.watch()).query['resourceVersion'], '100');
  });

  t.test('on which nothing comes, not even a bookmark, is taken for dead', async (t) => {
    const s = await scene(t);
    const watch = await synced(s, svc('a', '1'));
    await s.clock.advance(100_000);
    watch.line('BOOKMARK', bookmark('110')).line('MODIFIED', svc('a', '111'));
    await s.seen.until('upsert default/a 111');
    await s.clock.advance(149_999);
    t.same(s.seen.statuses, [], 'a bookmark is a sign of life');
    await s.clock.advance(1);
    const down = await s.seen.status('disconnected');
    t.match(down.why, /nothing for 150000 ms/);
    await s.clock.advance(down.retryInMs);
    t.equal((await s.watch()).query['resourceVersion'], '111');
  });
});

t.test('410 Gone', async (t) => {
  const ways: readonly { name: string; say: (s: Scene, watch: Asked) => Promise<void> }[] = [
    {
      name: 'as an event',
      say: async (_, watch) => {
        watch.line('BOOKMARK', bookmark('101')).line('ERROR', gone);
      },
    },
    {
      name: 'as the status of the answer',
      say: async (s, watch) => {
        watch.line('BOOKMARK', bookmark('101')).end();
        (await s.api.asked()).status(410, 'Expired');
      },
    },
  ];
  for (const { name, say } of ways) {
    t.test(`${name} leads to a list at once: what vanished is deleted, what did not change is not told`, async (t) => {
      const s = await scene(t);
      await say(s, await synced(s, svc('a', '1'), svc('b', '2'), svc('c', '3')));
      const list = await s.list();
      t.notOk('resourceVersion' in list.query, 'not from a cache');
      list.list('300', [svc('a', '1'), svc('b', '250')], 'more');
      (await s.list()).list('300', [svc('d', '260')]);
      t.same(await s.seen.until('delete default/c'), [
        'upsert default/b 250',
        'upsert default/d 260',
        'delete default/c',
      ]);
      t.equal((await s.watch()).query['resourceVersion'], '300');
      t.same(s.seen.log, [], 'synced is said once in a life');
    });
  }

  t.test('right after a list waits, so that the two do not chase each other', async (t) => {
    const s = await scene(t);
    (await synced(s, svc('a', '1'))).line('ERROR', gone);
    const down = await s.seen.status('disconnected');
    await s.clock.advance(down.retryInMs);
    (await s.list()).list('200', [svc('a', '1')]);
    await s.watch();
    t.same(s.seen.log, []);
  });

  t.test('a re-list that breaks off deletes nothing', async (t) => {
    const s = await scene(t);
    (await synced(s, svc('a', '1'), svc('b', '2'))).line('BOOKMARK', bookmark('101')).line('ERROR', gone);
    (await s.list()).list('300', [svc('b', '2')], 'more');
    (await s.list()).open().write('{').cut();
    await s.clock.advance((await s.seen.status('disconnected')).retryInMs);
    t.same(s.seen.log, []);
    (await s.list()).list('300', [svc('b', '2')]);
    t.same(await s.seen.until('delete default/a'), ['delete default/a']);
  });
});

t.test('a server that begins to count anew', async (t) => {
  const ways: readonly { name: string; say: (s: Scene, watch: Asked) => Promise<void> }[] = [
    {
      name: 'told by a bookmark',
      say: async (s, watch) => {
        watch.line('BOOKMARK', bookmark('1001')).end();
        (await s.watch()).line('BOOKMARK', bookmark('99'));
      },
    },
    {
      name: 'told by an event',
      say: async (s, watch) => {
        watch.line('BOOKMARK', bookmark('1001')).end();
        (await s.watch()).line('MODIFIED', svc('a', '99'));
      },
    },
    {
      name: 'told by the list',
      say: async (_, watch) => void watch.line('BOOKMARK', bookmark('1001')).line('ERROR', gone),
    },
    {
      name: 'told by two watches on which nothing comes',
      say: async (s) => {
        for (const opened of [s.watch, undefined]) {
          await s.clock.advance(150_000);
          await s.clock.advance((await s.seen.status('disconnected')).retryInMs);
          await opened?.();
          if (opened) await s.seen.status('connected');
        }
      },
    },
  ];
  for (const { name, say } of ways) {
    t.test(`${name} is listed, and told whole: the same number may mean another object`, async (t) => {
      const s = await scene(t);
      await say(s, await synced(s, svc('a', '7'), svc('b', '8'), svc('c', '9')));
      for (let waits = 0; waits < 2; waits++) {
        const list = await s.list();
        t.notOk('resourceVersion' in list.query, 'not from a cache');
        list.list('99', [svc('a', '7', { clusterIP: '10.43.0.77' }), svc('b', '8')]);
      }
      t.same(await s.seen.until('upsert default/b 8'), [
        'delete default/c',
        'upsert default/a 7',
        'upsert default/b 8',
      ]);
      t.equal((await s.watch()).query['resourceVersion'], '99');
    });
  }

  t.test('an old event that was told before is none of that, and a resume does not go back to it', async (t) => {
    const s = await scene(t);
    (await synced(s, svc('a', '7'))).line('ADDED', svc('a', '7')).line('DELETED', svc('b', '8')).end();
    t.equal((await s.watch()).query['resourceVersion'], '100');
    t.same(s.seen.log, []);
  });
});

t.test('an object that does not decode', async (t) => {
  const bad = (name: string, version: string, port: unknown = 0) => svc(name, version, { ports: [{ port }] });

  t.test('is reported once and left out, and the rest goes on', async (t) => {
    const s = await scene(t);
    (await s.list()).list('100', [bad('a', '1'), svc('b', '2')]);
    t.same(await s.seen.until('synced Service'), [
      'invalid default/a spec.ports[0].port',
      'upsert default/b 2',
      'synced Service',
    ]);
    t.same(s.seen.invalid, [
      {
        kind: 'Service',
        key: 'default/a',
        field: 'spec.ports[0].port',
        message: 'is 0, must be an integer in 1..65535',
      },
    ]);
    const watch = await s.watch();
    watch
      .line('MODIFIED', bad('a', '101'))
      .line('MODIFIED', bad('a', '102', -1))
      .line('MODIFIED', svc('a', '103'));
    watch.line('MODIFIED', bad('a', '104'));
    t.same(
      await s.seen.until('upsert default/a 103'),
      ['invalid default/a spec.ports[0].port', 'upsert default/a 103'],
      'the same fault is told once, another fault again',
    );
    t.same(await s.seen.until('invalid default/a spec.ports[0].port'), ['invalid default/a spec.ports[0].port']);
  });

  t.test('leaves what was last good, also on a re-list, until it is deleted', async (t) => {
    const s = await scene(t);
    const watch = await synced(s, svc('a', '1'), svc('b', '2'));
    watch.line('MODIFIED', bad('a', '101')).line('ERROR', gone);
    (await s.list()).list('200', [bad('a', '101'), svc('b', '150')]);
    t.same(await s.seen.until('upsert default/b 150'), [
      'invalid default/a spec.ports[0].port',
      'upsert default/b 150',
    ]);
    (await s.watch()).line('DELETED', bad('a', '201'));
    t.same(await s.seen.until('delete default/a'), ['delete default/a']);
  });

  t.test('and whose name cannot be read holds back the deletes of a re-list: it may be any of them', async (t) => {
    const s = await scene(t);
    (await synced(s, svc('a', '1'), svc('b', '2'))).line('BOOKMARK', bookmark('101')).line('ERROR', gone);
    (await s.list()).list('200', [{ spec: {} }, svc('b', '150')]);
    t.same(await s.seen.until('upsert default/b 150'), ['invalid ? metadata', 'upsert default/b 150']);
    (await s.watch()).line('ADDED', svc('c', '201')).line('ERROR', gone);
    t.same(await s.seen.until('upsert default/c 201'), ['upsert default/c 201'], 'a is not deleted');
    // Too old again so soon: lists back to back would help nobody.
    await s.clock.advance((await s.seen.status('disconnected')).retryInMs);
    (await s.list()).list('300', [svc('b', '150'), svc('c', '201')]);
    t.same(await s.seen.until('delete default/a'), ['delete default/a']);
  });

  t.test(
    'nor its name, is reported once too, told apart from others by its uid or what it gives as name',
    async (t) => {
      const s = await scene(t);
      const named = (name: unknown, uid?: unknown) => ({ metadata: { name, namespace: 'default', uid } });
      const bad = [
        named('A'),
        named('\u007f'),
        named(7, 'u1'),
        named('B', 'u2'),
        named({ toString: 1 }),
        { metadata: 1 },
      ];
      const watch = await synced(s, ...bad);
      t.equal(s.seen.invalid.length, bad.length);
      t.match(s.seen.invalid[1], { key: '?', message: /^is "\\u\{7f\}", must be/ }, 'nothing a terminal would obey');
      watch
        .line('MODIFIED', { ...named('A'), spec: {} })
        .line('BOOKMARK', bookmark('101'))
        .line('ERROR', gone);
      (await s.list()).list('200', bad);
      (await s.watch())
        .line('DELETED', named('B', 'u2'))
        .line('ADDED', named('B', 'u2'))
        .line('ADDED', svc('z', '201'));
      await s.seen.until('upsert default/z 201');
      t.equal(s.seen.invalid.length, bad.length + 1, 'again only when it was deleted in between');
    },
  );
});

t.test('kinds go their own ways', async (t) => {
  for (const status of [404, 403]) {
    t.test(`one the server does not give (${status}) counts as empty and is asked for again, slowly`, async (t) => {
      const s = await scene(t, [SERVICE_CIDRS]);
      (await s.list()).status(status, 'No');
      await s.seen.until('synced ServiceCIDR');
      t.match(await s.seen.status('absent'), { kind: 'ServiceCIDR', why: /No/ });
      await s.clock.advance(449_999);
      t.equal(s.clock.sleeping, 1, 'not a millisecond early');
      await s.clock.advance(1);
      (await s.list()).list('100', [{ metadata: { name: 'kubernetes' }, spec: { cidrs: ['10.43.0.0/16'] } }]);
      t.same(await s.seen.until('upsert kubernetes'), ['upsert kubernetes'], 'synced is said once');
    });
  }

  t.test('one that hangs does not hold up another', async (t) => {
    const s = await scene(t, [SERVICE_CIDRS, SERVICES]);
    const hangs = await s.api.asked((asked) => asked.path.endsWith('/servicecidrs'));
    await synced(s, svc('a', '1'));
    hangs.list('1', []);
    await s.seen.until('synced ServiceCIDR');
  });

  t.test('but Services must be there: 404 is a failure, and nothing is synced', async (t) => {
    const s = await scene(t);
    (await s.list()).status(404, 'NotFound');
    t.match((await s.seen.status('disconnected')).why, /404/);
    t.same(s.seen.log, []);
  });
});

t.test('stopping', async (t) => {
  const s = await scene(t);
  await synced(s, svc('a', '1'));
  await s.stop();
  t.equal(s.clock.sleeping, 0, 'leaves no timer');
});

t.test('what a handler throws ends the source', async (t) => {
  const api = await ScriptedApi.start();
  t.teardown(() => api.close());
  const clock = new FakeClock();
  const cluster = { servers: [api.url], tls: {}, auth: { kind: 'none' } } as const;
  const source = createApiSource({ cluster, kinds: [SERVICES], clock, userAgent: 'x', random: Math.random });
  const handlers = {
    onEvent: () => {
      throw new RangeError('a fault of ours');
    },
    onInvalid: () => {},
  };
  const running = source.run(handlers, new AbortController().signal);
  (await api.asked()).list('1', [svc('a', '1')]);
  await t.rejects(running, { name: 'RangeError' });
  t.equal(clock.sleeping, 0);
});
