import { createServer } from 'node:net';
import { pino } from 'pino';
import t from 'tap';
import { type HttpOptions, serveHttp, textAnswer } from '../../src/daemon/http.ts';
import { toOpenMetrics } from '../../src/daemon/open-metrics.ts';
import { healthRoutes, metricsRoutes } from '../../src/daemon/routes.ts';
import { ProxyHealth } from '../../src/proxier/health.ts';
import { createMetrics } from '../../src/proxier/metrics.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { makeNode } from '../lib/make.ts';

const log = pino({ level: 'silent' });

/** Starts a server on a free port of loopback and returns its URL. */
async function start(
  t: { teardown(stop: () => unknown): void },
  answer: HttpOptions['answer'],
  address = '127.0.0.1:0',
) {
  const stop = new AbortController();
  const listening = Promise.withResolvers<string>();
  const serving = serveHttp(
    {
      name: 'test',
      address,
      answer,
      hardFail: true,
      onListening: ({ family, address, port }) =>
        listening.resolve(`http://${family === 'IPv6' ? `[${address}]` : address}:${port}`),
    },
    { clock: new FakeClock(), log },
    stop.signal,
  );
  t.teardown(async () => {
    stop.abort();
    await serving;
  });
  return listening.promise;
}

async function get(url: string, method = 'GET') {
  const r = await fetch(url, { method, headers: { Connection: 'close' } });
  return {
    status: r.status,
    type: r.headers.get('content-type'),
    nosniff: r.headers.get('x-content-type-options'),
    body: await r.text(),
  };
}

t.test('health server', async (t) => {
  const clock = new FakeClock();
  const metrics = createMetrics({ version: '1', processMetrics: false });
  const health = new ProxyHealth(10_000, clock);
  health.updated('IPv4');
  const url = await start(t, healthRoutes(health, metrics));
  const json = { type: 'application/json', nosniff: 'nosniff' };
  t.match(await get(`${url}/livez`), {
    ...json,
    status: 200,
    body: /^\{"lastUpdated":".*"healthy":true,"status":\{"IPv4":.*\}$/,
  });
  t.match(await get(`${url}/healthz`), { ...json, status: 503, body: /"nodeEligible":false,"healthy":true/ });
  health.setNode(makeNode());
  t.match(await get(`${url}/healthz?x=1`, 'POST'), {
    ...json,
    status: 200,
    body: /"nodeEligible":true,"healthy":true/,
  });
  t.match(await get(`${url}/healthz`, 'HEAD'), { status: 200, body: '' });
  for (const path of ['/', '/healthz/', '/metrics', '/livez/x']) {
    t.match(await get(url + path), { status: 404, type: 'text/plain; charset=utf-8', body: '404 page not found\n' });
  }
  const text = await metrics.registry.metrics();
  for (const line of [
    'proxy_livez_total{code="200"} 1',
    'proxy_healthz_total{code="503"} 1',
    'proxy_healthz_total{code="200"} 2',
  ]) {
    t.ok(text.includes(`kubeproxy_${line}\n`), line);
  }
});

t.test('metrics server', async (t) => {
  const metrics = createMetrics({ version: '1.2.3', processMetrics: false });
  const url = await start(
    t,
    metricsRoutes({ metrics, mode: 'iptables', configz: () => ({ kind: 'K', mode: 'iptables' }) }),
    '[::1]:0',
  );
  const text = { type: 'text/plain; charset=utf-8', nosniff: 'nosniff' };
  const listing = '/configz\n/healthz\n/healthz/ping\n/metrics\n/proxyMode\n';
  for (const { path, want } of [
    { path: '/proxyMode', want: { ...text, status: 200, body: 'iptables' } },
    { path: '/healthz', want: { ...text, status: 200, body: 'ok' } },
    { path: '/healthz/ping', want: { ...text, status: 200, body: 'ok' } },
    { path: '/healthz?verbose', want: { ...text, status: 200, body: '[+]ping ok\nhealthz check passed\n' } },
    {
      path: '/healthz?verbose=true&exclude=ping',
      want: { status: 200, body: '[+]ping excluded: ok\nhealthz check passed\n' },
    },
    {
      path: '/healthz?verbose&exclude=etcd',
      want: {
        status: 200,
        body: '[+]ping ok\nwarn: some health checks cannot be excluded: no matches for "etcd"\nhealthz check passed\n',
      },
    },
    {
      path: '/configz',
      want: {
        type: 'application/json',
        status: 200,
        body: '{"kubeproxy.config.k8s.io":{"kind":"K","mode":"iptables"}}',
      },
    },
    {
      path: '/metrics',
      want: { status: 200, type: /^text\/plain; version=0.0.4/, body: /^switchyard_build_info\{version="1.2.3",/m },
    },
    { path: '/', want: { ...text, status: 404, body: listing } },
    { path: '/nothing', want: { ...text, status: 404, body: '404 page not found\n' } },
    { path: '/__proto__', want: { status: 404 } },
    { path: '/debug/pprof/', want: { status: 404 } },
  ]) {
    t.match(await get(url + path), want, path);
  }
});

t.test('the form of the metrics', async (t) => {
  const metrics = createMetrics({ version: '1"2', processMetrics: false });
  metrics.syncDuration.observe({ ip_family: 'IPv4' }, 2);
  metrics.serviceChanges.inc(3);
  metrics.iptablesRules.set({ table: 'nat', ip_family: 'IPv4' }, 5);
  const url = await start(t, metricsRoutes({ metrics, mode: 'iptables', configz: () => ({}) }));
  const prometheus =
    'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2';
  for (const { accept, open } of [
    { accept: '*/*', open: false },
    { accept: 'text/plain', open: false },
    { accept: 'text/html,application/xhtml+xml,*/*;q=0.8', open: false },
    { accept: prometheus, open: true },
    { accept: 'application/openmetrics-text', open: true },
    { accept: 'Application/OpenMetrics-Text; version=0.0.1', open: true },
    { accept: 'application/openmetrics-text;version=2.0.0', open: false },
    { accept: 'application/openmetrics-text;q=0.1,text/plain;q=0.9', open: false },
    { accept: 'application/openmetrics-text;q=0', open: false },
    { accept: 'application/openmetrics-text;q=high', open: false },
  ]) {
    const r = await fetch(`${url}/metrics`, { headers: { Accept: accept, Connection: 'close' } });
    const type = r.headers.get('content-type') ?? '';
    const lines = (await r.text()).split('\n');
    const has = (line: string) => t.ok(lines.includes(line), `${accept}: ${line}`);
    t.equal(type.startsWith('application/openmetrics-text; version=1.0.0'), open, accept);
    if (!open) t.match(type, /^text\/plain; version=0\.0\.4/);
    has('kubeproxy_sync_proxy_rules_service_changes_total 3');
    has('kubeproxy_sync_proxy_rules_iptables_total{table="nat",ip_family="IPv4"} 5');
    has('# TYPE kubeproxy_sync_proxy_rules_iptables_total gauge');
    has(`# TYPE kubeproxy_sync_proxy_rules_service_changes${open ? '' : '_total'} counter`);
    has(
      `# HELP kubeproxy_sync_proxy_rules_service_changes${open ? '' : '_total'} [ALPHA] Cumulative proxy rules Service changes`,
    );
    has('kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="2.048",ip_family="IPv4"} 1');
    has('kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="+Inf",ip_family="IPv4"} 1');
    t.same(lines.slice(-2), open ? ['# EOF', ''] : [lines.at(-2), ''], 'the end');
    t.equal(lines.slice(0, -1).includes(''), !open, 'blank lines');
  }
  t.equal(
    toOpenMetrics('# HELP h a "word"\n# TYPE h histogram\nh_bucket{le="1",a="b"} 1\nh_bucket{a="b",le="30"} 1\n\n'),
    '# HELP h a \\"word\\"\n# TYPE h histogram\nh_bucket{le="1.0",a="b"} 1\nh_bucket{a="b",le="30.0"} 1\n# EOF\n',
  );
});

t.test('an unspecified address of either family stands for both', async (t) => {
  for (const address of ['0.0.0.0:0', '[::]:0']) {
    const url = new URL(await start(t, () => textAnswer(200, 'here'), address));
    for (const host of ['127.0.0.1', '[::1]']) {
      t.match(await get(`http://${host}:${url.port}/`), { body: 'here' }, `${address} at ${host}`);
    }
  }
  const url = new URL(await start(t, () => textAnswer(200, 'here')));
  await t.rejects(get(`http://[::1]:${url.port}/`), 'any other address for itself');
});

t.test('serveHttp()', async (t) => {
  t.test('answers 500 when an answer fails, and goes on', async (t) => {
    const url = await start(t, ({ path }) => {
      if (path === '/bad') throw new Error('a defect');
      return textAnswer(200, 'good');
    });
    t.match(await get(`${url}/bad`), { status: 500, body: 'Internal Server Error\n' });
    t.match(await get(`${url}/`), { status: 200, body: 'good' });
  });

  const blocker = createServer();
  await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
  const at = blocker.address();
  const address = `127.0.0.1:${at !== null && typeof at !== 'string' ? at.port : 0}`;
  const options = { name: 'metrics', address, answer: () => textAnswer(200, 'here') };

  t.test('with hardFail, fails when the address is taken', async (t) => {
    const serving = serveHttp(
      { ...options, hardFail: true },
      { clock: new FakeClock(), log },
      new AbortController().signal,
    );
    await t.rejects(serving, { message: new RegExp(`^Cannot serve metrics on "${address}": .*EADDRINUSE`) });
  });

  t.test('without, tries every 5 s until it is free', async (t) => {
    // The fake clock cannot wait for the kernel: each try ends in a sleep, which says that it has failed.
    const clock = new FakeClock();
    const stop = new AbortController();
    const listening = Promise.withResolvers<void>();
    let failed = 0;
    const counting = {
      now: () => clock.now(),
      sleep: (ms: number, signal?: AbortSignal) => {
        t.equal(ms, 5000);
        failed++;
        if (failed === 2) blocker.close();
        const slept = clock.sleep(ms, signal);
        setImmediate(() => clock.advance(5000));
        return slept;
      },
    };
    const serving = serveHttp(
      { ...options, hardFail: false, onListening: () => listening.resolve() },
      { clock: counting, log },
      stop.signal,
    );
    await listening.promise;
    t.ok(failed >= 2);
    t.match(await get(`http://${address}/`), { status: 200, body: 'here' });
    stop.abort();
    await serving;
  });
});
