import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import t from 'tap';
import { ServiceHealth, serviceHealthBody } from '../../src/proxier/service-health.ts';
import type { ObjectKey } from '../../src/proxier/types.ts';

const key = (text: string) => text as ObjectKey;
const [a, b, c] = [key('ns/a'), key('ns/b'), key('ns/c')];

/** Ports of this machine that nothing listens on now. Asked of the kernel all at once, so that they differ. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createTcpServer());
  await Promise.all(servers.map((s) => new Promise<void>((resolve) => s.listen(0, '127.0.0.1', resolve))));
  const ports = servers.map((s) => (s.address() as AddressInfo).port);
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))));
  return ports;
}

function makeHealth(hosts: readonly string[] = ['127.0.0.1']) {
  const state = { proxyHealthy: true, failures: [] as [ObjectKey, number, string][] };
  const health = new ServiceHealth({
    hosts,
    isProxyHealthy: () => state.proxyHealthy,
    onListenFailed: (service, port, error) => state.failures.push([service, port, error.message]),
  });
  return { state, health };
}

/** `closed`, or status, count and what the answer says of the proxy. */
async function ask(port: number, host = '127.0.0.1', method = 'GET') {
  try {
    const r = await fetch(`http://${host}:${port}/any/path`, { method, headers: { Connection: 'close' } });
    const body = await r.text();
    return { status: r.status, weight: r.headers.get('x-load-balancing-endpoint-weight'), body, headers: r.headers };
  } catch {
    return 'closed';
  }
}

t.test('ServiceHealth', async (t) => {
  const [p1 = 0, p2 = 0, p3 = 0, p4 = 0] = await freePorts(4);
  const services = (entries: readonly [ObjectKey, number][]) => new Map(entries);
  const counts = services;

  const stories: readonly {
    readonly name: string;
    readonly steps: readonly {
      readonly services?: readonly [ObjectKey, number][];
      readonly counts?: readonly [ObjectKey, number][];
      readonly unhealthy?: boolean;
      /** By port: 'closed', or [status, count]. */
      readonly want: readonly [number, 'closed' | readonly [number, number]][];
    }[];
  }[] = [
    { name: 'nothing', steps: [{ services: [], counts: [], want: [[p1, 'closed']] }] },
    { name: 'counts of unknown services are dropped', steps: [{ counts: [[a, 3]], want: [[p1, 'closed']] }] },
    {
      name: 'one service: none, 18, none, absent, gone',
      steps: [
        { services: [[a, p1]], want: [[p1, [503, 0]]] },
        { counts: [[a, 18]], want: [[p1, [200, 18]]] },
        { counts: [[a, 0]], want: [[p1, [503, 0]]] },
        { counts: [[a, 2]], want: [[p1, [200, 2]]] },
        { counts: [[b, 7]], want: [[p1, [503, 0]]] },
        { services: [], want: [[p1, 'closed']] },
      ],
    },
    {
      name: 'three services, then one gone, one kept, one on another port, one new',
      steps: [
        {
          services: [
            [a, p1],
            [b, p2],
            [c, p3],
          ],
          counts: [
            [a, 9],
            [b, 3],
            [c, 7],
          ],
          want: [
            [p1, [200, 9]],
            [p2, [200, 3]],
            [p3, [200, 7]],
          ],
        },
        {
          services: [
            [b, p2],
            [c, p4],
            [key('ns/d'), p1],
          ],
          want: [
            [p1, [503, 0]],
            [p2, [200, 3]],
            [p3, 'closed'],
            [p4, [503, 0]],
          ],
        },
        {
          counts: [[c, 1]],
          want: [
            [p1, [503, 0]],
            [p2, [503, 0]],
            [p4, [200, 1]],
          ],
        },
      ],
    },
    {
      name: 'two services that swap their ports',
      steps: [
        {
          services: [
            [a, p1],
            [b, p2],
          ],
          want: [],
        },
        {
          services: [
            [a, p2],
            [b, p1],
          ],
          counts: [[a, 1]],
          want: [
            [p1, [503, 0]],
            [p2, [200, 1]],
          ],
        },
      ],
    },
    {
      name: 'a proxy that does not keep up',
      steps: [
        { services: [[a, p1]], counts: [[a, 4]], unhealthy: true, want: [[p1, [503, 4]]] },
        { unhealthy: false, want: [[p1, [200, 4]]] },
      ],
    },
  ];
  for (const { name, steps } of stories) {
    t.test(name, async (t) => {
      const { health, state } = makeHealth();
      t.teardown(() => health.close());
      for (const step of steps) {
        if (step.unhealthy !== undefined) state.proxyHealthy = !step.unhealthy;
        if (step.services !== undefined) await health.syncServices(services(step.services));
        if (step.counts !== undefined) health.syncEndpoints(counts(step.counts));
        for (const [port, want] of step.want) {
          const got = await ask(port);
          if (got === 'closed' || want === 'closed') t.equal(got, want);
          else {
            t.same([got.status, got.weight], [want[0], String(want[1])]);
            t.equal(JSON.parse(got.body).localEndpoints, want[1]);
            t.equal(JSON.parse(got.body).serviceProxyHealthy, state.proxyHealthy);
            t.equal(got.headers.get('content-type'), 'application/json');
            t.equal(got.headers.get('x-content-type-options'), 'nosniff');
            t.equal(
              got.headers.get('content-length'),
              String(got.body.length),
              'in one piece, as simple checkers expect',
            );
          }
        }
      }
      t.same(state.failures, []);
    });
  }

  t.test('any path and method are answered', async (t) => {
    const { health } = makeHealth();
    t.teardown(() => health.close());
    await health.syncServices(services([[a, p1]]));
    for (const method of ['POST', 'PUT', 'DELETE', 'HEAD'])
      t.match(await ask(p1, '127.0.0.1', method), { status: 503 });
  });

  t.test('listens on the given addresses only, each family on its own', async (t) => {
    const { health } = makeHealth(['127.0.0.1', '127.0.0.3']);
    t.teardown(() => health.close());
    await health.syncServices(services([[a, p1]]));
    t.match(await ask(p1, '127.0.0.1'), { status: 503 });
    t.match(await ask(p1, '127.0.0.3'), { status: 503 });
    t.equal(await ask(p1, '127.0.0.2'), 'closed');
    const v6 = makeHealth(['::']).health;
    t.teardown(() => v6.close());
    await v6.syncServices(services([[a, p1]]));
    t.match(await ask(p1, '[::1]'), { status: 503 }, 'the wildcard of IPv6 leaves the port of IPv4 alone');
  });

  t.test('a port in use is reported, closes the other addresses, and is tried again at the next sync', async (t) => {
    const other = createServer().listen(p2, '127.0.0.2');
    await new Promise((resolve) => other.once('listening', resolve));
    const { health, state } = makeHealth(['127.0.0.1', '127.0.0.2']);
    t.teardown(() => health.close());
    await health.syncServices(
      services([
        [a, p1],
        [b, p2],
      ]),
    );
    t.match(state.failures, [[b, p2, /EADDRINUSE/]]);
    t.equal(await ask(p2, '127.0.0.1'), 'closed', 'all addresses or none');
    t.match(await ask(p1, '127.0.0.1'), { status: 503 }, 'the other service is served');
    await new Promise((resolve) => other.close(resolve));
    await health.syncServices(
      services([
        [a, p1],
        [b, p2],
      ]),
    );
    t.match(await ask(p2, '127.0.0.2'), { status: 503 });
    t.equal(state.failures.length, 1);
  });
});

t.test('serviceHealthBody()', async (t) => {
  const want =
    '{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "svc"\n\t},\n\t"localEndpoints": 1,\n\t"serviceProxyHealthy": true\n}';
  t.equal(serviceHealthBody(key('ns/svc'), 1, true), want);
});
