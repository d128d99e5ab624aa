import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { createApiClient, formatUserAgent } from '../../src/watch/api-client.ts';
import { ApiError } from '../../src/watch/api-error.ts';
import type { ApiCluster, Material } from '../../src/watch/credentials.ts';
import { RequestCounts } from '../../src/watch/request-counts.ts';
import { makeCertificates } from './certificates.ts';
import { ScriptedApi } from './scripted-api.ts';

const given = (text: string): Material => ({ kind: 'given', text });

async function start(t: Test, tls?: Parameters<typeof ScriptedApi.start>[0]): Promise<ScriptedApi> {
  const api = await ScriptedApi.start(tls);
  t.teardown(() => api.close());
  return api;
}

function client(t: Test, cluster: Partial<ApiCluster> & Pick<ApiCluster, 'servers'>, clock = new FakeClock()) {
  const made = createApiClient({
    cluster: { tls: {}, auth: { kind: 'none' }, ...cluster },
    clock,
    userAgent: 'switchyard/test',
  });
  t.teardown(() => made.close());
  return made;
}

/** The failure of a request, with its message. */
async function failure(asking: Promise<unknown>) {
  try {
    await asking;
  } catch (error) {
    if (error instanceof ApiError) return { ...error.failure, message: error.message };
    throw error;
  }
  throw new Error('Cannot see a failure: the request succeeded');
}

/** An address where nobody listens. */
async function deadServer(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return `http://127.0.0.1:${port}`;
}

t.test('formatUserAgent() says the architecture as Kubernetes does', async (t) => {
  t.equal(formatUserAgent('1.2.3', 'x64'), 'switchyard/1.2.3 (linux/amd64)');
  t.equal(formatUserAgent('1.2.3', 'arm64'), 'switchyard/1.2.3 (linux/arm64)');
});

t.test('a client', async (t) => {
  t.test('gets, posts and patches JSON over one connection', async (t) => {
    const api = await start(t);
    const c = client(t, { servers: [`${api.url}/prefix/`], headers: { 'Impersonate-User': 'jane' } });
    const got = c.get('/api/v1/nodes/a');
    const get = await api.asked();
    t.match(get, { method: 'GET', path: '/prefix/api/v1/nodes/a', body: '' });
    t.match(get.headers, { accept: 'application/json', 'user-agent': 'switchyard/test', 'impersonate-user': 'jane' });
    t.notOk('authorization' in get.headers);
    get.bytes(gzipSync('{"kind":"Node"}'), { 'Content-Encoding': 'gzip' });
    t.same(await got, { kind: 'Node' });
    const posted = c.post('/events', { note: 'é' });
    const post = await api.asked();
    t.match(post, { method: 'POST', body: '{"note":"é"}', headers: { 'content-type': 'application/json' } });
    post.json({ ok: true }, 201);
    t.same(await posted, { ok: true });
    const patched = c.patch('/events/1', {}, 'application/merge-patch+json');
    const patch = await api.asked();
    t.match(patch, { method: 'PATCH', body: '{}', headers: { 'content-type': 'application/merge-patch+json' } });
    patch.json({});
    await patched;
    t.equal(api.connections, 1);
  });

  t.test('tells a status, its reason and when to come back', async (t) => {
    const api = await start(t);
    const c = client(t, { servers: [api.url] });
    const first = failure(c.get('/a?b=c'));
    (await api.asked()).status(403, 'Forbidden');
    t.match(await first, {
      code: 'STATUS',
      status: 403,
      reason: 'Forbidden',
      message: 'Cannot GET /a: 403 Forbidden.',
    });
    const second = failure(c.get('/a'));
    (await api.asked()).json({ code: 429, details: { retryAfterSeconds: 7 } }, 429);
    t.match(await second, { status: 429, retryAfterMs: 7000 });
    const third = failure(c.get('/a'));
    (await api.asked()).json({ code: 'x', details: 1 }, 302, { Location: '/elsewhere' });
    t.match(await third, { status: 302, reason: '' }, 'a redirect is not followed: it would carry the token away');
    const fourth = failure(c.get('/a'));
    (await api.asked()).bytes('no JSON');
    t.match(await fourth, { code: 'BROKEN' });
  });

  t.test('tells about each attempt', async (t) => {
    const api = await start(t);
    const counts = new RequestCounts();
    const dead = await deadServer();
    const clock = new FakeClock();
    const c = createApiClient({
      cluster: { servers: [dead, api.url], tls: {}, auth: { kind: 'none' } },
      clock,
      userAgent: 'switchyard/test',
      onAnswered: (request, seconds) => counts.add(request, seconds),
    });
    t.teardown(() => c.close());
    for (const status of [200, 200, 404]) {
      const got = c.get('/a').catch(() => {});
      const asked = await api.asked();
      clock.advance(status);
      asked.json({}, status);
      await got;
    }
    const stop = new AbortController();
    const stopped = failure(c.get('/a', stop.signal));
    await api.asked();
    stop.abort();
    await stopped;
    const host = new URL(api.url).host;
    t.same(counts.all(), [
      { method: 'GET', host: new URL(dead).host, code: '<error>', count: 1 },
      { method: 'GET', host, code: '200', count: 2 },
      { method: 'GET', host, code: '404', count: 1 },
    ]);
    const times: string[] = [];
    counts.listen(({ code }, seconds) => times.push(`${code} ${seconds}`));
    counts.add({ method: 'GET', host, code: '201' }, 7);
    t.same(times, ['<error> 0', '200 0.2', '200 0.2', '404 0.404', '201 7'], 'those from before, and later ones');
  });

  t.test('asks once more when the connection it kept was just closed', async (t) => {
    const api = await start(t);
    const c = client(t, { servers: [api.url] });
    const first = c.post('/a', {});
    (await api.asked()).json({});
    await first;
    const second = c.post('/b', {});
    (await api.asked()).cut();
    (await api.asked()).json({ ok: true });
    t.same(await second, { ok: true });
    t.equal(api.connections, 2);
  });

  t.test('stops when told to, whatever it waits for', async (t) => {
    const api = await start(t);
    const clock = new FakeClock();
    const c = client(t, { servers: [api.url] }, clock);
    t.match(await failure(c.get('/a', AbortSignal.abort())), { code: 'ABORTED' });
    const end = new AbortController();
    const waiting = failure(c.get('/a', end.signal));
    const asked = await api.asked();
    end.abort();
    t.match(await waiting, { code: 'ABORTED' });
    asked.cut();
    const endBody = new AbortController();
    const reading = failure(c.get('/a', endBody.signal));
    (await api.asked()).open().write('{"a":');
    await clock.advance(0);
    endBody.abort();
    t.match(await reading, { code: 'ABORTED' });
    t.equal(clock.sleeping, 0, 'and leaves no timer');
  });
});

t.test('of several servers', async (t) => {
  t.test('the next is asked when one is away, and kept', async (t) => {
    const api = await start(t);
    const c = client(t, { servers: [await deadServer(), await deadServer(), api.url] });
    for (const method of ['get', 'post'] as const) {
      const asking = method === 'get' ? c.get('/a') : c.post('/a', {});
      (await api.asked()).json({});
      await asking;
    }
  });

  t.test('each is asked once before a request fails', async (t) => {
    const c = client(t, { servers: [await deadServer(), await deadServer()] });
    t.match(await failure(c.get('/a')), { code: 'UNREACHABLE', message: /Cannot connect to http:.*ECONNREFUSED/ });
  });

  const rows: readonly { name: string; method: 'get' | 'post'; status: number; next: boolean }[] = [
    { name: 'a server behind which there is none', method: 'get', status: 503, next: true },
    { name: 'the same, but what was sent might be done twice', method: 'post', status: 503, next: false },
    { name: 'a server that wants patience', method: 'get', status: 429, next: false },
    { name: 'a server that forbids', method: 'get', status: 403, next: false },
  ];
  for (const { name, method, status, next } of rows) {
    t.test(`${next ? 'another answers' : 'no other is asked'} for ${name} (${method} ${status})`, async (t) => {
      const [one, two] = [await start(t), await start(t)];
      const c = client(t, { servers: [one.url, two.url] });
      const asking = method === 'get' ? c.get('/a') : c.post('/a', {});
      const failed = next ? undefined : failure(asking);
      (await one.asked()).status(status, 'No');
      if (next) {
        (await two.asked()).json({ ok: true });
        t.same(await asking, { ok: true });
      } else t.match(await failed, { status });
    });
  }

  t.test('one that takes connections and says nothing is left for the next', async (t) => {
    const hole = createServer((socket) => void socket.on('error', () => {}));
    await new Promise<void>((resolve) => {
      hole.listen(0, '127.0.0.1', resolve);
    });
    t.teardown(() => hole.close());
    const { port } = hole.address() as AddressInfo;
    const api = await start(t);
    for (const [scheme, waitMs] of [
      ['https', 10_000],
      ['http', 70_000],
    ] as const) {
      const clock = new FakeClock();
      const c = client(t, { servers: [`${scheme}://127.0.0.1:${port}`, api.url] }, clock);
      const connected = new Promise<void>((resolve) => {
        hole.once('connection', () => resolve());
      });
      const asking = c.get('/a');
      await connected;
      // The client's end of the connection is a turn of the event loop later than the server's, or two.
      for (let turn = 0; turn < 5; turn++) await clock.advance(0);
      await clock.advance(waitMs - 1);
      t.equal(clock.sleeping, scheme === 'https' ? 2 : 1, 'not a millisecond early');
      await clock.advance(1);
      (await api.asked()).json({ ok: true });
      t.same(await asking, { ok: true });
    }
  });
});

t.test('TLS', async (t) => {
  const [pki, strangers] = [makeCertificates(), makeCertificates()];
  const serverTls = { ...pki.server, ca: pki.ca };
  const client_ = { cert: given(pki.client.cert), key: given(pki.client.key) };
  const rows: readonly {
    name: string;
    server: Parameters<typeof ScriptedApi.start>[0];
    tls: ApiCluster['tls'];
    refused?: RegExp;
  }[] = [
    { name: 'the right authority', server: serverTls, tls: { ca: given(pki.ca) } },
    { name: "a stranger's authority", server: serverTls, tls: { ca: given(strangers.ca) }, refused: /certificate/ },
    { name: 'the authorities Node trusts', server: serverTls, tls: {}, refused: /certificate/ },
    { name: 'no check', server: serverTls, tls: { insecureSkipVerify: true } },
    {
      name: 'another name',
      server: pki.otherServer,
      tls: { ca: given(pki.ca) },
      refused: /does not match certificate/,
    },
    { name: 'the name to expect', server: pki.otherServer, tls: { ca: given(pki.ca), serverName: 'other.example' } },
    {
      name: 'a client certificate',
      server: { ...serverTls, requestCert: true, rejectUnauthorized: true },
      tls: { ca: given(pki.ca), ...client_ },
    },
    {
      name: 'no client certificate where one is asked for',
      server: { ...serverTls, requestCert: true, rejectUnauthorized: true },
      tls: { ca: given(pki.ca) },
      refused: /certificate required|socket hang up|ECONNRESET|alert/,
    },
    {
      name: 'a key that is none',
      server: serverTls,
      tls: { ca: given(pki.ca), cert: client_.cert, key: given('x') },
      refused: /Cannot use the credentials for https/,
    },
  ];
  for (const { name, server, tls, refused } of rows) {
    t.test(`with ${name} ${refused ? 'fails' : 'works'}`, async (t) => {
      const api = await start(t, server);
      const c = client(t, { servers: [api.url], tls });
      if (refused) {
        t.match(await failure(c.get('/a')), { code: /UNREACHABLE|BROKEN|CREDENTIALS/, message: refused });
        return;
      }
      const asking = c.get('/a');
      (await api.asked()).json({ ok: true });
      t.same(await asking, { ok: true });
    });
  }

  t.test('takes the authority and the client certificate anew when their files change', async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'tls-'));
    t.teardown(() => rmSync(dir, { recursive: true }));
    const file = (name: string): Material => ({ kind: 'file', path: join(dir, name) });
    const put = (from: typeof pki) => {
      writeFileSync(join(dir, 'ca'), from.ca);
      writeFileSync(join(dir, 'cert'), from.client.cert);
      writeFileSync(join(dir, 'key'), from.client.key);
    };
    put(strangers);
    const api = await start(t, { ...serverTls, requestCert: true, rejectUnauthorized: true });
    const c = client(t, { servers: [api.url], tls: { ca: file('ca'), cert: file('cert'), key: file('key') } });
    t.match(await failure(c.get('/a')), { code: 'UNREACHABLE' });
    put(pki);
    const asking = c.get('/a');
    (await api.asked()).json({ ok: true });
    t.same(await asking, { ok: true });
    rmSync(join(dir, 'key'));
    t.match(await failure(c.get('/a')), { code: 'CREDENTIALS', message: /Cannot read the client key from/ });
  });
});

t.test('who we are', async (t) => {
  t.test('a token in a file is read anew when it changes', async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'token-'));
    t.teardown(() => rmSync(dir, { recursive: true }));
    const path = join(dir, 'token');
    const api = await start(t);
    const c = client(t, { servers: [api.url], auth: { kind: 'token', token: { kind: 'file', path } } });
    t.match(await failure(c.get('/a')), { code: 'CREDENTIALS', message: /Cannot read the bearer token from .*ENOENT/ });
    for (const token of ['first', 'second']) {
      writeFileSync(path, `${token}\n`);
      const asking = c.get('/a');
      const asked = await api.asked();
      t.equal(asked.headers.authorization, `Bearer ${token}`);
      asked.json({});
      await asking;
    }
    for (const token of ['', ' \n', 'two words', 'é', 'a\r\nX: y']) {
      writeFileSync(path, token);
      t.match(await failure(c.get('/a')), {
        code: 'CREDENTIALS',
        message: /Cannot use the bearer token in .*must be one/,
      });
    }
  });

  t.test('a password', async (t) => {
    const api = await start(t);
    const asking = client(t, { servers: [api.url], auth: { kind: 'basic', username: 'u', password: 'p:w' } }).get('/a');
    const asked = await api.asked();
    t.equal(asked.headers.authorization, `Basic ${Buffer.from('u:p:w').toString('base64')}`);
    asked.json({});
    await asking;
  });

  t.test('a plugin, that may fail', async (t) => {
    const pki = makeCertificates();
    const api = await start(t, { ...pki.server, ca: pki.ca, requestCert: true, rejectUnauthorized: true });
    let answer: () => Promise<{ headers: Record<string, string>; cert?: string; key?: string }> = async () => {
      throw new Error('the plugin is not there');
    };
    const auth = { kind: 'plugin', read: () => answer() } as const;
    const c = client(t, { servers: [api.url], tls: { ca: given(pki.ca) }, auth });
    t.match(await failure(c.get('/a')), { code: 'CREDENTIALS', message: /the plugin is not there/ });
    answer = async () => ({ headers: { Authorization: 'Bearer from-plugin' }, ...pki.client });
    const asking = c.get('/a');
    const asked = await api.asked();
    t.equal(asked.headers.authorization, 'Bearer from-plugin');
    asked.json({});
    await asking;
  });
});
