import { pino } from 'pino';
import t, { type Test } from 'tap';
import { FakeDataplane } from '../../src/modes/fake-dataplane.ts';
import type { Refusal } from '../../src/modes/mode.ts';
import { createFanOut } from '../../src/proxier/fan-out.ts';
import { ProxyHealth } from '../../src/proxier/health.ts';
import { createMetrics } from '../../src/proxier/metrics.ts';
import { Model } from '../../src/proxier/model.ts';
import { Proxier } from '../../src/proxier/proxier.ts';
import type { Family, Kind, ObjectKey, WatchEvent } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { makeNode, makeService, makeSlice, makeSliceEndpoint, makeSlicePort, NODE_NAME } from '../lib/make.ts';

const SYNC_PERIOD_MS = 30_000;
const HOUR_MS = 3_600_000;
const key = (text: string) => text as ObjectKey;

const upsert = (object: Extract<WatchEvent, { type: 'upsert' }>['object']): WatchEvent => ({ type: 'upsert', object });
const remove = (kind: Kind, name: string): WatchEvent => ({ type: 'delete', kind, key: key(name) });
const synced = (kind: Kind): WatchEvent => ({ type: 'synced', kind });
const service = (name: string, port = 80) =>
  upsert(makeService({ name, ports: [{ name: '', protocol: 'TCP', port, nodePort: 0 }] }));
const allSynced = [synced('Service'), synced('EndpointSlice')];

/** Both families on a fake clock; `plane` and `proxier` are those of IPv4. */
function makeWorld() {
  const clock = new FakeClock();
  const startMs = clock.now();
  const health = new ProxyHealth(2 * SYNC_PERIOD_MS, clock);
  health.setNode(makeNode());
  const metrics = createMetrics({ version: 'test', processMetrics: false });
  const stop = new AbortController();
  const refused: Refusal[] = [];
  const lines: string[] = [];
  const log = pino({ level: 'debug', base: null }, { write: (line: string) => void lines.push(line) });
  const serviceHealth = { services: [] as string[], counts: {} as Record<string, number>, closed: 0 };
  const flows: string[][] = [];
  const faults = { flows: 0 };
  const released: Family[] = [];
  const make = (family: Family) => {
    const plane = new FakeDataplane(family, clock);
    const model = new Model({ family, nodeName: NODE_NAME, startMs });
    const proxier = new Proxier(
      { minSyncPeriodMs: 1000, syncPeriodMs: SYNC_PERIOD_MS, maxSyncPeriodMs: HOUR_MS },
      {
        model,
        dataplane: plane,
        clock,
        health,
        metrics,
        log,
        serviceHealth: {
          syncServices: async (want) => {
            serviceHealth.services = [...want].map(([k, port]) => `${k} ${port}`);
          },
          syncEndpoints: (counts) => {
            serviceHealth.counts = Object.fromEntries(counts);
          },
          close: async () => void serviceHealth.closed++,
        },
        onRefused: (refusal) => void refused.push(refusal),
        cleanUpFlows: async (services) => {
          flows.push([...services].map(([k, had]) => [k, ...had.map((f) => f.port)].join(' ')));
          if (faults.flows-- > 0) throw new Error('the table cannot be read');
        },
        releaseMemory: () => void released.push(family),
      },
    );
    return { plane, proxier };
  };
  const [v4, v6] = [make('IPv4'), make('IPv6')];
  const runs = [v4, v6].map(({ proxier }) => proxier.run(stop.signal));
  const handle = createFanOut([v4.proxier, v6.proxier]);
  return {
    clock,
    startMs,
    health,
    metrics,
    refused,
    lines,
    serviceHealth,
    flows,
    faults,
    released,
    plane: v4.plane,
    plane6: v6.plane,
    async stop() {
      stop.abort();
      await Promise.all(runs);
    },
    /** Delivers events and lets what they start run. */
    async tell(...events: WatchEvent[]) {
      for (const event of events) handle(event);
      await clock.advance(0);
    },
    /** Syncs of IPv4 so far as `second dirty,dirty!`; `!` is a full one. */
    syncs: () =>
      v4.plane.syncs.map(
        (s) => `${(s.atMs - startMs) / 1000} ${s.dirty.map((k) => k.slice(4)).join()}${s.full ? '!' : ''}`,
      ),
    async value(name: string, labels: Record<string, string> = {}) {
      const metric = await metrics.registry.getSingleMetric(name)?.get();
      const found = metric?.values.find(
        (v) =>
          ('metricName' in v ? v.metricName === name || v.metricName === `${name}_count` : true) &&
          Object.entries(labels).every(([k, l]) => v.labels[k] === l) &&
          !('le' in v.labels),
      );
      return found?.value;
    },
  };
}

/** A test in a world of its own, which is stopped after it. */
function story(t: Pick<Test, 'test'>, name: string, body: (t: Test, w: ReturnType<typeof makeWorld>) => Promise<void>) {
  t.test(name, async (t) => {
    const w = makeWorld();
    await body(t, w).finally(w.stop);
    t.equal(w.clock.sleeping, 0, 'leaves no timer behind');
    t.equal(w.serviceHealth.closed, 2, 'closes its health servers');
  });
}

story(t, 'nothing is programmed before services and slices are synced', async (t, w) => {
  await w.tell(service('svc1'), upsert(makeSlice()), upsert(makeNode({ zone: 'a' })));
  await w.clock.advance(2 * HOUR_MS);
  t.same(w.syncs(), []);
  t.equal(w.health.isHealthy(), true, 'nothing was asked for');
  await w.tell(synced('Service'));
  t.same(w.syncs(), []);
  await w.tell(synced('EndpointSlice'));
  t.same(w.syncs(), ['7200 svc1!'], 'the second "synced" starts the first sync at once');
  t.same([...w.plane.programmed.keys()], ['ns1/svc1']);
  t.equal(w.plane6.syncs.length, 1, 'of every family');
});

story(t, 'a sync even when there is nothing at all: static rules', async (t, w) => {
  await w.tell(...allSynced);
  t.same(w.syncs(), ['0 !']);
});

t.test('changes', async (t) => {
  story(t, 'run at once, and those of the minimum interval together', async (t, w) => {
    await w.tell(...allSynced);
    await w.clock.advance(5000);
    await w.tell(service('a'));
    await w.tell(service('b'));
    await w.clock.advance(300);
    await w.tell(service('c'), remove('Service', 'ns1/b'));
    await w.clock.advance(5000);
    t.same(w.syncs(), ['0 !', '5 a', '6 c']);
  });

  story(t, 'that change nothing start no sync', async (t, w) => {
    await w.tell(service('a'), ...allSynced);
    await w.clock.advance(5000);
    await w.tell(service('a'), remove('Service', 'ns1/unknown'), remove('EndpointSlice', 'ns1/unknown'));
    await w.clock.advance(5000);
    t.same(w.syncs(), ['0 a!']);
  });

  story(t, 'during a sync are not lost, and are not counted as answered', async (t, w) => {
    await w.tell(...allSynced);
    await w.clock.advance(5000);
    w.plane.lastsMs = 70_000;
    await w.tell(service('a'));
    await w.clock.advance(10_000);
    await w.tell(service('b'));
    await w.clock.advance(60_000);
    t.same(w.syncs(), ['0 !', '5 a'], 'the first one has just ended');
    t.same([...w.plane.programmed.keys()], ['ns1/a']);
    await w.clock.advance(65_000);
    t.equal(w.health.isHealthy(), false, 'the second still waits');
    await w.clock.advance(20_000);
    t.same(w.syncs(), ['0 !', '5 a', '76 b']);
    t.equal(w.health.isHealthy(), true);
  });

  story(t, 'of one family do not touch the other', async (t, w) => {
    await w.tell(...allSynced);
    await w.tell(
      upsert(makeService({ name: 'six', clusterIP: 'fd00::1' })),
      upsert(makeSlice({ serviceName: 'six', addressType: 'IPv6', endpoints: [makeSliceEndpoint('fd00::2')] })),
      upsert(makeSlice({ serviceName: 'name', addressType: 'FQDN', endpoints: [makeSliceEndpoint('example.org')] })),
    );
    await w.clock.advance(5000);
    t.same(w.syncs(), ['0 !'], 'IPv4');
    t.same(w.plane6.syncs[1]?.dirty, ['ns1/six'], 'IPv6');
    t.equal(w.plane6.programmed.get(key('ns1/six'))?.ports[0]?.clusterEndpoints[0]?.text, '[fd00::2]:80');
  });
});

t.test('a failed sync', async (t) => {
  story(t, 'keeps its work, is tried again after the sync period, and then in full', async (t, w) => {
    await w.tell(service('a'), ...allSynced);
    await w.clock.advance(5000);
    w.plane.failures = 2;
    await w.tell(service('b'), service('c'));
    await w.clock.advance(29_000);
    t.same(w.syncs(), ['0 a!', '5 b,c']);
    t.equal(w.plane.programmed.size, 2, 'half of the work was done');
    await w.clock.advance(60_000);
    t.same(w.syncs(), ['0 a!', '5 b,c', '35 b,c!', '65 b,c!']);
    t.equal(w.plane.programmed.size, 3);
    await w.clock.advance(120_000);
    t.equal(w.syncs().length, 4, 'and rests');
    t.equal(w.lines.filter((l) => l.includes('sync failed')).length, 2);
  });

  story(t, 'is followed at once by a change, with the work of both', async (t, w) => {
    await w.tell(...allSynced);
    await w.clock.advance(5000);
    w.plane.failures = 1;
    await w.tell(service('a'));
    await w.clock.advance(2000);
    await w.tell(service('b'));
    t.same(w.syncs(), ['0 !', '5 a', '7 a,b!']);
    await w.clock.advance(5000);
    await w.tell(service('c'));
    t.same(w.syncs().at(-1), '12 c', 'the one after is partial again');
  });

  story(t, 'at the start is tried again too, and makes the proxy unhealthy', async (t, w) => {
    w.plane.failures = 3;
    await w.tell(service('a'), ...allSynced);
    await w.clock.advance(60_000);
    t.same(w.syncs(), ['0 a!', '30 a!', '60 a!']);
    t.equal(w.health.isHealthy(), false);
    await w.clock.advance(30_000);
    t.equal(w.health.isHealthy(), true);
  });

  story(t, 'that nobody asked for makes the proxy unhealthy', async (t, w) => {
    await w.tell(...allSynced);
    w.plane.failures = 4;
    await w.clock.advance(HOUR_MS);
    t.equal(w.health.isHealthy(), true);
    await w.clock.advance(60_000);
    t.equal(w.health.isHealthy(), false);
  });

  story(t, 'keeps health queued: unhealthy until one succeeds', async (t, w) => {
    await w.tell(...allSynced);
    await w.clock.advance(5000);
    w.plane.failures = 3;
    await w.tell(service('a'));
    await w.clock.advance(59_999);
    t.equal(w.health.livez().status, 200);
    await w.clock.advance(1);
    t.equal(w.health.livez().status, 503);
    t.equal(w.health.healthz().status, 503);
    await w.clock.advance(30_000);
    t.equal(w.health.livez().status, 200);
  });
});

t.test('full syncs', async (t) => {
  story(t, 'happen when more than an hour has passed', async (t, w) => {
    await w.tell(...allSynced);
    await w.clock.advance(HOUR_MS);
    await w.tell(service('a'));
    await w.clock.advance(1000);
    await w.tell(service('b'));
    await w.clock.advance(1000);
    t.same(w.syncs(), ['0 !', '3600 ', '3601 a!', '3602 b']);
    const ofIPv4 = w.released.filter((family) => family === 'IPv4');
    t.equal(ofIPv4.length, 2, 'memory is released after each full one, and after no other');
  });

  story(t, 'are also those that the dataplane made of partial ones', async (t, w) => {
    const v4 = { ip_family: 'IPv4' };
    const counts = async () => [
      await w.value('kubeproxy_sync_full_proxy_rules_duration_seconds', v4),
      await w.value('kubeproxy_sync_partial_proxy_rules_duration_seconds', v4),
      w.released.filter((family) => family === 'IPv4').length,
      w.lines.filter((line) => line.includes('"IPv4","full":true')).length,
    ];
    await w.tell(...allSynced);
    await w.clock.advance(HOUR_MS / 2);
    w.plane.goesFull = true;
    await w.tell(service('a'));
    t.same(w.syncs(), ['0 !', '1800 a'], 'it was not asked for');
    t.same(await counts(), [2, undefined, 2, 2], 'duration, memory and log know');
    w.plane.goesFull = false;
    await w.clock.advance(HOUR_MS);
    await w.tell(service('b'));
    await w.clock.advance(1000);
    t.same(w.syncs(), ['0 !', '1800 a', '5400 ', '5401 b!'], 'the hour begins with it');
    t.same(await counts(), [3, 1, 3, 3]);
    w.plane.goesFull = true;
    w.plane.failures = 1;
    await w.tell(service('c'));
    await w.clock.advance(1000);
    t.same(await counts(), [3, 2, 3, 3], 'one that fails counts as what was asked for');
  });

  story(t, 'and not then, if the dataplane leaves them out', async (t, w) => {
    w.plane.skipsPeriodicFullSync = true;
    await w.tell(...allSynced);
    await w.clock.advance(2 * HOUR_MS);
    await w.tell(service('a'));
    await w.clock.advance(5000);
    t.notOk(
      w
        .syncs()
        .slice(1)
        .some((s) => s.endsWith('!')),
    );
    w.plane.failures = 1;
    await w.tell(service('b'));
    await w.clock.advance(30_000);
    t.equal(w.syncs().at(-1), '7235 b!', 'a failure still calls for one');
  });

  story(t, 'repair a loss at once', async (t, w) => {
    await w.tell(service('a'), ...allSynced);
    await w.clock.advance(10);
    w.plane.lose('flushed');
    t.equal(w.plane.programmed.size, 0);
    await w.clock.advance(0);
    t.same(w.syncs(), ['0 a!', '0.01 !']);
    t.equal(w.plane.programmed.size, 1);
    t.match(w.lines.join(''), /"reason":"flushed"/);
  });

  story(t, 'repair a loss noticed while a sync runs', async (t, w) => {
    await w.tell(service('a'), ...allSynced);
    await w.clock.advance(5000);
    w.plane.lastsMs = 2000;
    await w.tell(service('b'));
    await w.clock.advance(1000);
    w.plane.lose('flushed');
    await w.clock.advance(5000);
    t.same(w.syncs(), ['0 a!', '5 b', '7 !']);
    t.equal(w.plane.programmed.size, 2);
  });
});

story(t, 'a zone', async (t, w) => {
  const hinted = makeSlice({
    serviceName: 'a',
    endpoints: [
      makeSliceEndpoint('10.0.0.1', { zoneHints: ['east'] }),
      makeSliceEndpoint('10.0.0.2', { zoneHints: ['west'] }),
    ],
  });
  await w.tell(service('a'), service('b'), upsert(hinted), upsert(makeNode({ zone: 'east' })), ...allSynced);
  const reachable = () => w.plane.programmed.get(key('ns1/a'))?.ports[0]?.reachableEndpoints.map((e) => e.ip);
  t.same(reachable(), ['10.0.0.1'], 'known before the first sync');
  await w.clock.advance(5000);
  await w.tell(upsert(makeNode({ zone: 'east', resourceVersion: '2' })));
  await w.tell(remove('Node', NODE_NAME));
  t.equal(w.syncs().length, 1, 'one that stays, and a node that goes, change nothing');
  await w.tell(upsert(makeNode({ zone: 'west' })));
  t.same(w.syncs(), ['0 a,b!', '5 a'], 'only the services with hints, and not in full');
  t.same(reachable(), ['10.0.0.2']);
});

story(t, 'service CIDRs', async (t, w) => {
  const cidrs = (name: string, list: readonly string[]) =>
    upsert({ kind: 'ServiceCIDR', key: key(name), name, resourceVersion: '1', cidrs: list });
  await w.tell(cidrs('a', ['10.0.0.0/16', 'fd00::/112']), cidrs('b', ['10.0.0.0/16', '10.1.0.0/16']), ...allSynced);
  await w.clock.advance(5000);
  await w.clock.advance(5000);
  await w.tell(cidrs('b', ['10.1.0.0/16', '10.0.0.0/16']));
  t.equal(w.syncs().length, 1, 'in another order are the same');
  await w.tell(remove('ServiceCIDR', 'a'));
  t.same(w.syncs(), ['0 !', '10 '], 'that are others start a sync, not in full and of no service');
  t.same(
    w.plane.syncs.map((s) => s.serviceCIDRs),
    [
      ['10.0.0.0/16', 'fd00::/112', '10.1.0.0/16'],
      ['10.1.0.0/16', '10.0.0.0/16'],
    ],
    'one that two objects name lives as long as either',
  );
});

story(t, 'a refused service', async (t, w) => {
  const count = () => w.value('switchyard_refused_services', { ip_family: 'IPv4' });
  w.plane.refuses.add(key('ns1/bad'));
  await w.tell(service('bad'), service('good'), ...allSynced);
  t.same([...w.plane.programmed.keys()], ['ns1/good'], 'is left out alone');
  t.same(w.refused, [{ service: 'ns1/bad', rule: '-A X ns1/bad', reason: 'Invalid argument' }]);
  t.equal(await count(), 1);
  const said = w.lines.filter((l) => l.includes('refused')).map((l) => JSON.parse(l));
  t.match(said, [{ level: 50, service: 'ns1/bad', rule: '-A X ns1/bad', reason: 'Invalid argument', family: 'IPv4' }]);
  await w.clock.advance(5000);
  await w.tell(service('other'));
  t.equal(w.refused.length, 1, 'is reported once');
  t.equal(await count(), 1, 'and counted as long as it is out');
  w.plane.refuses.clear();
  await w.clock.advance(5000);
  await w.tell(service('bad', 81));
  t.equal(await count(), 0, 'comes back when it changes');
  t.equal(w.plane.programmed.size, 3);
});

story(t, 'success is told in metrics, health servers and to the flow clean-up; failure is not', async (t, w) => {
  const v4 = { ip_family: 'IPv4' };
  const lb = makeService({
    name: 'lb',
    type: 'LoadBalancer',
    ports: [{ name: '', protocol: 'UDP', port: 53, nodePort: 30053 }],
    externalTrafficPolicy: 'Local',
    internalTrafficPolicy: 'Local',
    healthCheckNodePort: 31000,
  });
  const slice = (nodeName: string, triggerTimeMs: number) =>
    upsert(
      makeSlice({
        serviceName: 'lb',
        triggerTimeMs,
        ports: [makeSlicePort({ protocol: 'UDP', port: 53 })],
        endpoints: [makeSliceEndpoint('10.0.0.1', { nodeName }), makeSliceEndpoint('10.0.0.2', { nodeName })],
      }),
    );
  await w.tell(...allSynced);
  await w.clock.advance(5000);
  w.plane.failures = 1;
  w.plane.lastsMs = 500;
  await w.tell(upsert(lb), slice('elsewhere', w.startMs + 4000));
  t.equal(await w.value('kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds', v4), (w.startMs + 5000) / 1000);
  await w.clock.advance(1000);
  t.equal(await w.value('kubeproxy_sync_proxy_rules_last_timestamp_seconds', v4), w.startMs / 1000);
  t.same(w.serviceHealth, { services: [], counts: {}, closed: 0 });
  t.same(w.flows, []);
  t.equal(await w.value('kubeproxy_network_programming_duration_seconds', v4), undefined);
  t.equal(await w.value('kubeproxy_sync_partial_proxy_rules_duration_seconds', v4), 1, 'a failed sync took time, too');

  await w.clock.advance(30_000);
  t.equal(await w.value('kubeproxy_sync_proxy_rules_last_timestamp_seconds', v4), (w.startMs + 36_000) / 1000);
  t.same(w.serviceHealth, { services: ['ns1/lb 31000'], counts: {}, closed: 0 });
  t.same(w.flows, [['ns1/lb']]);
  t.equal(
    await w.value('kubeproxy_network_programming_duration_seconds', v4),
    1,
    'the change that failed first counts once',
  );
  for (const traffic_policy of ['internal', 'external']) {
    t.equal(
      await w.value('kubeproxy_sync_proxy_rules_no_local_endpoints_total', { ...v4, traffic_policy }),
      1,
      traffic_policy,
    );
  }
  t.equal(await w.value('kubeproxy_sync_proxy_rules_duration_seconds', v4), 3);
  t.equal(await w.value('kubeproxy_sync_full_proxy_rules_duration_seconds', v4), 2);

  await w.tell(slice(NODE_NAME, w.startMs + 35_600));
  t.equal(await w.value('kubeproxy_sync_proxy_rules_endpoint_changes_pending'), 1);
  await w.clock.advance(2000);
  t.equal(await w.value('kubeproxy_network_programming_duration_seconds', v4), 2);
  t.same(w.serviceHealth.counts, { 'ns1/lb': 2 });
  t.equal(w.flows.length, 2);
  t.equal(
    await w.value('kubeproxy_sync_proxy_rules_no_local_endpoints_total', { ...v4, traffic_policy: 'internal' }),
    0,
  );
  t.equal(await w.value('kubeproxy_sync_proxy_rules_endpoint_changes_pending'), 0);
  t.equal(await w.value('kubeproxy_sync_proxy_rules_endpoint_changes_total'), 2);
  t.equal(await w.value('kubeproxy_sync_proxy_rules_service_changes_total'), 2, 'each family counts its own');
});

t.test('a defect ends the loop', async (t) => {
  const clock = new FakeClock();
  const plane = new FakeDataplane('IPv4', clock);
  const model = new Model({ family: 'IPv4', nodeName: NODE_NAME });
  model.takeChanges = () => {
    throw new TypeError('a defect');
  };
  let closed = 0;
  const proxier = new Proxier(
    { minSyncPeriodMs: 0, syncPeriodMs: 1, maxSyncPeriodMs: 2 },
    {
      model,
      dataplane: plane,
      clock,
      health: new ProxyHealth(1, clock),
      metrics: createMetrics({ version: '', processMetrics: false }),
      log: pino({ level: 'silent' }),
      serviceHealth: { syncServices: async () => {}, syncEndpoints: () => {}, close: async () => void closed++ },
      onRefused: () => {},
    },
  );
  createFanOut([proxier])(synced('Service'));
  createFanOut([proxier])(synced('EndpointSlice'));
  await t.rejects(proxier.run(new AbortController().signal), { message: 'a defect' });
  t.equal(closed, 1);
});

story(t, 'a change that came while a sync ran shows as out of date until it is programmed', async (t, w) => {
  const outOfDate = () => w.value('switchyard_out_of_date', { ip_family: 'IPv4' });
  t.equal(await outOfDate(), 1, 'nothing is programmed yet');
  await w.tell(...allSynced);
  t.equal(await outOfDate(), 0);
  await w.clock.advance(5000);
  w.plane.lastsMs = 500;
  await w.tell(service('a'));
  t.equal(await outOfDate(), 1, 'a sync runs');
  await w.tell(service('b'));
  await w.clock.advance(500);
  t.same(w.syncs(), ['0 !', '5 a']);
  t.equal(await outOfDate(), 1, 'the sync that ended had not seen the second change');
  w.plane.failures = 1;
  await w.clock.advance(1500);
  t.equal(await outOfDate(), 1, 'it failed');
  await w.clock.advance(SYNC_PERIOD_MS + 1000);
  t.equal(await outOfDate(), 0);
  t.equal(w.plane.programmed.size, 2);
});

story(t, 'UDP flows are cleaned up after a sync, and again with what comes meanwhile if that fails', async (t, w) => {
  const udp = (name: string, port: number) =>
    upsert(makeService({ name, ports: [{ name: '', protocol: 'UDP', port, nodePort: 0 }] }));
  await w.tell(service('tcp'), udp('a', 53), ...allSynced);
  t.same(w.flows, [['ns1/a']], 'at the start of all');
  await w.clock.advance(5000);
  await w.tell(service('tcp', 81));
  await w.clock.advance(5000);
  t.equal(w.flows.length, 1, 'not without UDP');

  w.faults.flows = 2;
  await w.tell(udp('a', 54));
  await w.clock.advance(5000);
  t.same(w.flows.at(-1), ['ns1/a 53']);
  t.equal(w.health.isHealthy(), true, 'the rules are there');
  await w.tell(udp('a', 55), udp('b', 53));
  await w.clock.advance(5000);
  t.same(w.flows.at(-1), ['ns1/a 53 54', 'ns1/b'], 'with every frontend there was');
  await w.clock.advance(SYNC_PERIOD_MS);
  t.same(w.flows.slice(3), [['ns1/a 53 54', 'ns1/b']], 'and after the sync period without a change');
  t.same(w.syncs().slice(-3), ['10 a', '15 a,b', '45 '], 'none of which is full');
  t.equal(w.lines.filter((l) => l.includes('UDP flows not cleaned up')).length, 2);
  await w.clock.advance(10 * SYNC_PERIOD_MS);
  t.equal(w.flows.length, 4, 'then it rests');
});
