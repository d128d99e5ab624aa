import { createServer } from 'node:net';
import { pino } from 'pino';
import t from 'tap';
import { loadConfig } from '../../src/config/load.ts';
import { type HttpOptions, serveHttp, textAnswer } from '../../src/daemon/http.ts';
import { toOpenMetrics } from '../../src/daemon/open-metrics.ts';
import { profileRoutes } from '../../src/daemon/profiles.ts';
import { healthRoutes, metricsRoutes } from '../../src/daemon/routes.ts';
import { zPages } from '../../src/daemon/zpages.ts';
import { ProxyHealth } from '../../src/proxier/health.ts';
import { createMetrics } from '../../src/proxier/metrics.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { makeNode } from '../lib/make.ts';

const log = pino({ level: 'silent' });

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

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

async function get(url: string, method = 'GET', options: { readonly accept?: string; readonly body?: string } = {}) {
  const { accept = '*/*', body = null } = options;
  const r = await fetch(url, { method, body, headers: { Connection: 'close', Accept: accept } });
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
  const listing = '/configz\n/healthz\n/healthz/ping\n/metrics\n/metrics/slis\n/proxyMode\n';
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

t.test('/metrics/slis', async (t) => {
  const metrics = createMetrics({ version: '1', processMetrics: false });
  const url = await start(t, metricsRoutes({ metrics, mode: 'iptables', configz: () => ({}) }));
  const slis = async () => (await get(`${url}/metrics/slis`)).body;
  t.notMatch(await slis(), /^kubernetes_/m, 'nothing before a check');
  for (const path of ['/healthz', '/healthz?verbose', '/healthz?exclude=ping', '/healthz/ping']) await get(url + path);
  t.match(await slis(), /^kubernetes_healthcheck\{name="ping",type="healthz"\} 1$/m);
  t.match(
    await slis(),
    /^kubernetes_healthchecks_total\{name="ping",type="healthz",status="success"\} 2$/m,
    'checks of the whole that were not left out',
  );
  t.match(await get(`${url}/metrics/slis`, 'DELETE'), { status: 200, body: 'metrics reset\n' });
  t.notMatch(await slis(), /^kubernetes_/m, 'nothing after a reset');
  t.notMatch((await get(`${url}/metrics`)).body, /kubernetes_healthcheck/, 'a registry of their own');
});

t.test('/flagz and /statusz', async (t) => {
  const clock = new FakeClock(Date.parse('2026-01-02T15:04:05.678Z'));
  const pages = async (file: string) => {
    const { config } = await loadConfig({ config: 'config.yaml' }, { readFile: async () => `${HEAD}${file}` });
    return zPages({ config, startedMs: Date.parse('2026-01-02T03:04:05Z') }, { clock });
  };
  const url = await start(
    t,
    metricsRoutes({
      metrics: createMetrics({ version: '1', processMetrics: false }),
      mode: 'iptables',
      configz: () => ({}),
      debug: await pages('iptables: {syncPeriod: 7s}\nnodePortAddresses: [10.0.0.0/8, fd00::/8]\nmode: iptables'),
    }),
  );
  const flagz = await get(`${url}/flagz`);
  t.match(flagz, { status: 200, type: 'text/plain; charset=utf-8' });
  const [blank, title, warning, , ...lines] = flagz.body.split('\n');
  t.same([blank, title], ['', 'switchyard flags']);
  t.match(warning, /^Warning: This endpoint is not meant to be machine parseable/);
  for (const line of [
    'config=config.yaml',
    'iptables-sync-period=7s',
    'nodeport-addresses=10.0.0.0/8,fd00::/8',
    'profiling=false',
    'proxy-mode=iptables',
  ]) {
    t.ok(lines.includes(line), line);
  }
  t.same(
    lines,
    ['', ...lines.slice(0, -1).sort()].toSorted((a, b) => (a === '' ? 1 : b === '' ? -1 : 0)),
    'sorted',
  );
  t.match(await get(`${url}/statusz`), {
    status: 200,
    body: /^\nswitchyard statusz\nWarning: .*\n\nStarted: Fri Jan {2}2 03:04:05 UTC 2026\nUp: 12 hr 00 min 00 sec\nNode version: 24/,
  });
  for (const { accept, status } of [
    { accept: 'text/plain; charset=utf-8', status: 200 },
    { accept: 'text/html, */*;q=0.1', status: 200 },
    { accept: 'application/json', status: 406 },
  ]) {
    for (const path of ['/flagz', '/statusz'])
      t.match(await get(url + path, 'GET', { accept }), { status }, `${path} as ${accept}`);
  }
  t.same(Object.keys(await pages('featureGates: {ComponentFlagz: false}')), ['/statusz']);
  t.same(Object.keys(await pages('featureGates: {AllBeta: false}')), []);
});

t.test('/debug/pprof', async (t) => {
  let collected = 0;
  let verbosity = -1;
  const slept: number[] = [];
  const taking = Promise.withResolvers<void>();
  let go = taking.promise;
  const deps = {
    clock: {
      sleep: async (ms: number) => {
        slept.push(ms);
        await go;
      },
    },
    releaseMemory: () => void collected++,
    setVerbosity: (v: number) => {
      verbosity = v;
    },
  };
  const debug = profileRoutes(deps, new AbortController().signal);
  const metrics = createMetrics({ version: '1', processMetrics: false });
  const url = await start(t, metricsRoutes({ metrics, mode: 'iptables', configz: () => ({}), debug }));
  const path = (rest: string) => `${url}/debug/pprof/${rest}`;

  const first = get(path('profile?seconds=2'));
  while (slept.length === 0) await new Promise((resolve) => setImmediate(resolve));
  t.match(await get(path('heap?seconds=1')), { status: 409, body: /a profile is being taken/ });
  taking.resolve();
  go = Promise.resolve();
  const cpu = await first;
  t.match(cpu, { status: 200, type: 'application/json', nosniff: 'nosniff' });
  t.match(JSON.parse(cpu.body), { nodes: Array, samples: Array, startTime: Number, endTime: Number });
  for (const rest of ['heap', 'allocs', 'heap?seconds=1&gc=1']) {
    const heap = await get(path(rest));
    t.equal(heap.status, 200, rest);
    t.match(JSON.parse(heap.body), { head: { callFrame: Object, children: Array }, samples: Array }, rest);
  }
  t.same(slept, [2000, 10_000, 10_000, 1000]);
  t.match(JSON.parse((await get(path('heap?seconds=0&gc=1'))).body), { used_heap_size: Number }, 'without a profile');
  t.equal(collected, 2, 'garbage is collected when asked for');
  for (const rest of [
    'profile?seconds=0',
    'profile?seconds=301',
    'heap?seconds=-1',
    'heap?seconds=x',
    'allocs?seconds=',
  ]) {
    t.match(await get(path(rest)), { status: 400, body: /must be a whole number from [01] to 300/ }, rest);
  }
  t.equal((await get(path('cmdline'))).body, process.argv.join('\0'));
  t.match(await get(path('')), { status: 200, body: /profile {2}\?seconds=30/ });
  t.match(await get(path('profile'), 'POST'), { status: 405 });
  t.match(await get(path('goroutine')), { status: 404 });

  const flag = `${url}/debug/flags/v`;
  t.match(await get(flag, 'PUT', { body: '4\n' }), {
    status: 200,
    body: 'successfully set klog.logging.verbosity to 4',
  });
  t.equal(verbosity, 4);
  t.match(await get(flag, 'PUT', { body: 'high' }), { status: 400, body: /must be a number from 0 to 99/ });
  t.match(await get(flag), { status: 405 });
  t.match(await get(flag, 'PUT', { body: '1'.repeat(70_000) }), { status: 500 }, 'no body without an end');

  for (const [at, answer] of Object.entries(debug)) {
    const request = { method: 'GET', path: at, query: new URLSearchParams(), accept: '', body: async () => '' };
    t.match(await answer({ ...request, remoteAddress: '192.168.0.2' }), { status: 403 }, `${at} from elsewhere`);
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
