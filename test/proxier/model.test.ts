import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { Model, type ModelChanges, type Unparsable } from '../../src/proxier/model.ts';
import { sameData } from '../../src/proxier/same.ts';
import { objectKey } from '../../src/proxier/slices.ts';
import { assertNever, type Family, type ServicePlan, type WatchEvent } from '../../src/proxier/types.ts';
import { arbHistory } from '../lib/arb.ts';
import { finalState, flushes, tellings } from '../lib/expand.ts';
import { makePort, makeService, makeSlice, makeSliceEndpoint, makeSlicePort, NODE_NAME } from '../lib/make.ts';

type SliceOverrides = Parameters<typeof makeSlice>[0];

const START_MS = 500;
const svc1 = objectKey('ns1', 'svc1');
const svc2 = objectKey('ns1', 'svc2');
const slice1 = objectKey('ns1', 'svc1-1');

function makeModel(family: Family = 'IPv4', onUnparsable?: (report: Unparsable) => void): Model {
  return new Model({ family, nodeName: NODE_NAME, startMs: START_MS, ...(onUnparsable && { onUnparsable }) });
}

/** Gives an event to the model as the daemon does. */
function tell(model: Model, event: WatchEvent): boolean {
  if (event.type === 'synced') return false;
  const kind = event.type === 'upsert' ? event.object.kind : event.kind;
  if (event.type === 'delete') {
    if (kind === 'Service') return model.deleteService(event.key);
    return kind === 'EndpointSlice' ? model.deleteSlice(event.key) : model.setZone('');
  }
  const { object } = event;
  switch (object.kind) {
    case 'Service':
      return model.upsertService(object);
    case 'EndpointSlice':
      return model.upsertSlice(object);
    case 'Node':
      return model.setZone(object.zone);
    case 'ServiceCIDR':
      return false;
    default:
      return assertNever(object, 'object');
  }
}

/** `svc1:name/TCP cluster endpoints`, a line a service port. */
function print(model: Model): string[] {
  return [...model.services.values()].flatMap((plan) =>
    plan.ports.map((p) => {
      const endpoints = p.clusterEndpoints.map((e) => e.text).join(' ');
      return `${p.port.name.replace('ns1/', '')}/${p.port.protocol} ${endpoints}`.trim();
    }),
  );
}

const changed = (changes: ModelChanges) => [...changes.changedServices].sort();

t.test('services: what an event says, and what a sync then sees', async (t) => {
  const model = makeModel();
  const plain = makeService({ ports: [makePort({ name: 'p1' }), makePort({ name: 'p2', port: 81 })] });
  const balanced = makeService({
    type: 'LoadBalancer',
    ports: plain.ports,
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 345,
    ingress: [{ ip: '1.2.3.4', ipMode: undefined }],
  });
  const steps: readonly {
    name: string;
    do: () => boolean;
    pending: boolean;
    sync?: readonly string[];
    ports: readonly string[];
    health?: number;
  }[] = [
    {
      name: 'headless',
      do: () => model.upsertService(makeService({ clusterIP: 'None' })),
      pending: false,
      sync: [],
      ports: [],
    },
    {
      name: 'ExternalName',
      do: () => model.upsertService(makeService({ type: 'ExternalName' })),
      pending: false,
      sync: [],
      ports: [],
    },
    {
      name: 'created',
      do: () => model.upsertService(plain),
      pending: true,
      sync: [svc1],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
    },
    {
      name: 'told again',
      do: () => model.upsertService(plain),
      pending: false,
      sync: [],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
    },
    {
      name: 'only another resourceVersion',
      do: () => model.upsertService({ ...plain, resourceVersion: '9' }),
      pending: false,
      sync: [],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
    },
    {
      name: 'ports in another order',
      do: () => model.upsertService({ ...plain, ports: plain.ports.toReversed() }),
      pending: false,
      sync: [],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
    },
    {
      name: 'a load balancer with health check',
      do: () => model.upsertService(balanced),
      pending: true,
      sync: [svc1],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
      health: 345,
    },
    {
      name: 'changed and not synced',
      do: () => model.upsertService(plain),
      pending: true,
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
      health: 345,
    },
    {
      name: 'and undone',
      do: () => model.upsertService(balanced),
      pending: false,
      sync: [],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
      health: 345,
    },
    {
      name: 'back to ClusterIP',
      do: () => model.upsertService(plain),
      pending: true,
      sync: [svc1],
      ports: ['svc1:p1/TCP', 'svc1:p2/TCP'],
    },
    {
      name: 'ports renamed',
      do: () => model.upsertService({ ...plain, ports: [makePort({ name: 'p3' })] }),
      pending: true,
      sync: [svc1],
      ports: ['svc1:p3/TCP'],
    },
    {
      name: 'no ports',
      do: () => model.upsertService({ ...plain, ports: [] }),
      pending: true,
      sync: [svc1],
      ports: [],
    },
    {
      name: 'another is pending',
      do: () => model.upsertService(makeService({ name: 'svc2' })),
      pending: true,
      ports: [],
    },
    {
      name: 'so an event without effect says there is work',
      do: () => model.upsertService({ ...plain, ports: [] }),
      pending: true,
      sync: [svc2],
      ports: ['svc2/TCP'],
    },
    { name: 'deleted', do: () => model.deleteService(svc2), pending: true, sync: [svc2], ports: [] },
    { name: 'deleted again', do: () => model.deleteService(svc2), pending: false, sync: [], ports: [] },
    { name: 'no ports is not no service', do: () => model.deleteService(svc1), pending: true, sync: [svc1], ports: [] },
  ];
  for (const [i, step] of steps.entries()) {
    t.equal(step.do(), step.pending, `${step.name}: pending`);
    t.equal(model.serviceChangesTotal, i + 1, `${step.name}: counted`);
    t.equal(model.serviceChangesPending > 0, step.pending, `${step.name}: gauge`);
    if (step.sync !== undefined) t.strictSame(changed(model.takeChanges()), step.sync, `${step.name}: changed`);
    t.strictSame(print(model), step.ports, `${step.name}: service ports`);
    t.equal(model.healthCheckNodePorts().get(svc1) ?? 0, step.health ?? 0, `${step.name}: health check node port`);
  }
  t.equal(model.services.size, 0);
});

const ep = (n: number, overrides: Parameters<typeof makeSliceEndpoint>[1] = {}) =>
  makeSliceEndpoint(`10.180.0.${n}`, overrides);
const LOCAL = { nodeName: NODE_NAME };
const LOCAL_TERMINATING = { nodeName: NODE_NAME, ready: false, terminating: true };
const LOCAL_GONE = { nodeName: NODE_NAME, ready: false, serving: false, terminating: true };
const DNS = makeSlicePort({ name: 'dns', port: 53, protocol: 'UDP' });
const HTTP = makeSlicePort({ name: 'http' });

/** Slice `ns1/<name>` of `ns1/svc1`. */
function slice(
  name: string,
  port: typeof DNS,
  hosts: readonly ReturnType<typeof ep>[],
  overrides: SliceOverrides = {},
) {
  return makeSlice({ name, ports: [port], endpoints: hosts, ...overrides });
}
const OF_SVC2 = { serviceName: 'svc2' };

/**
 * Slices before a sync and after it. There are ns1/svc1 (dns UDP and http TCP) and ns1/svc2 (http TCP).
 * `want` leaves out service ports without endpoints.
 */
const transitions: readonly {
  readonly name: string;
  readonly before: readonly ReturnType<typeof makeSlice>[];
  readonly after: readonly ReturnType<typeof makeSlice>[];
  readonly changed: string;
  readonly want: readonly string[];
  /** Local ready addresses, of svc1 and of svc2. */
  readonly localReady?: readonly [number, number];
  readonly conntrack: boolean;
}[] = [
  { name: 'nothing', before: [], after: [], changed: '', want: [], conntrack: false },
  {
    name: 'no change',
    before: [slice('a', DNS, [ep(1)])],
    after: [slice('a', DNS, [ep(1)])],
    changed: '',
    want: ['svc1:dns/UDP 10.180.0.1:53'],
    conntrack: false,
  },
  {
    name: 'no change, local',
    before: [slice('a', DNS, [ep(1, LOCAL)])],
    after: [slice('a', DNS, [ep(1, LOCAL)])],
    changed: '',
    want: ['svc1:dns/UDP 10.180.0.1:53'],
    localReady: [1, 0],
    conntrack: false,
  },
  {
    name: 'no change, several slices and services',
    before: [slice('a', DNS, [ep(1)]), slice('b', HTTP, [ep(1, LOCAL)]), slice('c', HTTP, [ep(2)], OF_SVC2)],
    after: [slice('c', HTTP, [ep(2)], OF_SVC2), slice('b', HTTP, [ep(1, LOCAL)]), slice('a', DNS, [ep(1)])],
    changed: '',
    want: ['svc1:dns/UDP 10.180.0.1:53', 'svc1:http/TCP 10.180.0.1:80', 'svc2:http/TCP 10.180.0.2:80'],
    localReady: [1, 0],
    conntrack: false,
  },
  {
    name: 'a slice comes',
    before: [],
    after: [slice('a', DNS, [ep(1, LOCAL)])],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53'],
    localReady: [1, 0],
    conntrack: true,
  },
  {
    name: 'a slice of TCP comes',
    before: [],
    after: [slice('a', HTTP, [ep(1, LOCAL)])],
    changed: 'svc1',
    want: ['svc1:http/TCP 10.180.0.1:80'],
    localReady: [1, 0],
    conntrack: false,
  },
  {
    name: 'a slice goes',
    before: [slice('a', DNS, [ep(1, LOCAL)])],
    after: [],
    changed: 'svc1',
    want: [],
    conntrack: true,
  },
  {
    name: 'a slice of TCP goes',
    before: [slice('a', HTTP, [ep(1)])],
    after: [],
    changed: 'svc1',
    want: [],
    conntrack: false,
  },
  {
    name: 'one of two slices goes',
    before: [slice('a', HTTP, [ep(1)]), slice('b', HTTP, [ep(2)])],
    after: [slice('b', HTTP, [ep(2)])],
    changed: 'svc1',
    want: ['svc1:http/TCP 10.180.0.2:80'],
    conntrack: false,
  },
  {
    name: 'an address comes',
    before: [slice('a', DNS, [ep(1)])],
    after: [slice('a', DNS, [ep(1), ep(2, LOCAL)])],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53 10.180.0.2:53'],
    localReady: [1, 0],
    conntrack: true,
  },
  {
    name: 'an address goes',
    before: [slice('a', DNS, [ep(1), ep(2, LOCAL)])],
    after: [slice('a', DNS, [ep(1)])],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53'],
    conntrack: true,
  },
  {
    name: 'addresses in another order: an event, but no change',
    before: [slice('a', HTTP, [ep(1), ep(2)])],
    after: [slice('a', HTTP, [ep(2), ep(1)])],
    changed: '',
    want: ['svc1:http/TCP 10.180.0.1:80 10.180.0.2:80'],
    conntrack: false,
  },
  {
    name: 'ports in another order: an event, but no change',
    before: [slice('a', HTTP, [ep(1)], { ports: [HTTP, DNS] })],
    after: [slice('a', HTTP, [ep(1)], { ports: [DNS, HTTP] })],
    changed: '',
    want: ['svc1:dns/UDP 10.180.0.1:53', 'svc1:http/TCP 10.180.0.1:80'],
    conntrack: true,
  },
  {
    name: 'a port comes',
    before: [slice('a', HTTP, [ep(1)])],
    after: [slice('a', HTTP, [ep(1)], { ports: [HTTP, DNS] })],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53', 'svc1:http/TCP 10.180.0.1:80'],
    conntrack: true,
  },
  {
    name: 'a port goes',
    before: [slice('a', HTTP, [ep(1)], { ports: [HTTP, DNS] })],
    after: [slice('a', HTTP, [ep(1)])],
    changed: 'svc1',
    want: ['svc1:http/TCP 10.180.0.1:80'],
    conntrack: true,
  },
  {
    name: 'a port is renamed',
    before: [slice('a', DNS, [ep(1)])],
    after: [slice('a', { ...DNS, name: 'other' }, [ep(1)])],
    changed: 'svc1',
    want: [],
    conntrack: true,
  },
  {
    name: 'a port is renumbered',
    before: [slice('a', DNS, [ep(1)])],
    after: [slice('a', { ...DNS, port: 54 }, [ep(1)])],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:54'],
    conntrack: true,
  },
  {
    name: 'from no address to one',
    before: [slice('a', DNS, [])],
    after: [slice('a', DNS, [ep(1)])],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53'],
    conntrack: true,
  },
  {
    name: 'a slice of UDP without addresses tells nothing about flows',
    before: [slice('a', DNS, [])],
    after: [],
    changed: '',
    want: [],
    conntrack: false,
  },
  {
    name: 'a slice of another service',
    before: [slice('a', HTTP, [ep(1)])],
    after: [slice('a', HTTP, [ep(1)]), slice('b', HTTP, [ep(2)], OF_SVC2)],
    changed: 'svc2',
    want: ['svc1:http/TCP 10.180.0.1:80', 'svc2:http/TCP 10.180.0.2:80'],
    conntrack: false,
  },
  {
    name: 'a slice moves to another service',
    before: [slice('a', HTTP, [ep(1, LOCAL)])],
    after: [slice('a', HTTP, [ep(1, LOCAL)], OF_SVC2)],
    changed: 'svc1 svc2',
    want: ['svc2:http/TCP 10.180.0.1:80'],
    localReady: [0, 1],
    conntrack: false,
  },
  {
    name: 'a slice loses its service',
    before: [slice('a', DNS, [ep(1)])],
    after: [slice('a', DNS, [ep(1)], { serviceName: '' })],
    changed: 'svc1',
    want: [],
    conntrack: true,
  },
  {
    name: 'a slice turns up with another family',
    before: [slice('a', DNS, [ep(1)])],
    after: [slice('a', DNS, [ep(1)], { addressType: 'IPv6' })],
    changed: 'svc1',
    want: [],
    conntrack: true,
  },
  {
    name: 'ready, then terminating: still answers, no longer counts',
    before: [slice('a', DNS, [ep(1, LOCAL)])],
    after: [slice('a', DNS, [ep(1, LOCAL_TERMINATING)])],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53'],
    conntrack: true,
  },
  {
    name: 'terminating, then gone',
    before: [slice('a', DNS, [ep(1, LOCAL_TERMINATING)])],
    after: [slice('a', DNS, [ep(1, LOCAL_GONE)])],
    changed: 'svc1',
    want: [],
    conntrack: true,
  },
  {
    name: 'two local ones, all terminating',
    before: [slice('a', HTTP, [ep(1, LOCAL), ep(2, LOCAL)], { ports: [HTTP, DNS] })],
    after: [slice('a', HTTP, [ep(1, LOCAL_TERMINATING), ep(2, LOCAL_TERMINATING)], { ports: [HTTP, DNS] })],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53 10.180.0.2:53', 'svc1:http/TCP 10.180.0.1:80 10.180.0.2:80'],
    conntrack: true,
  },
  {
    name: 'addresses count once over all ports',
    before: [],
    after: [
      slice('a', HTTP, [ep(1, LOCAL), ep(2, LOCAL)], { ports: [HTTP, DNS] }),
      slice('b', { ...HTTP, port: 81 }, [ep(1, LOCAL)]),
    ],
    changed: 'svc1',
    want: ['svc1:dns/UDP 10.180.0.1:53 10.180.0.2:53', 'svc1:http/TCP 10.180.0.1:80 10.180.0.1:81 10.180.0.2:80'],
    localReady: [2, 0],
    conntrack: true,
  },
  {
    name: 'all at once',
    before: [slice('a', DNS, [ep(1)]), slice('b', HTTP, [ep(2, LOCAL)]), slice('c', HTTP, [ep(3), ep(4)], OF_SVC2)],
    after: [
      slice('b', HTTP, [ep(2, LOCAL), ep(5)]),
      slice('c', HTTP, [ep(3)], OF_SVC2),
      slice('d', HTTP, [ep(6, LOCAL)], OF_SVC2),
    ],
    changed: 'svc1 svc2',
    want: ['svc1:http/TCP 10.180.0.2:80 10.180.0.5:80', 'svc2:http/TCP 10.180.0.3:80 10.180.0.6:80'],
    localReady: [1, 1],
    conntrack: true,
  },
];

t.test('slices: from one sync to the next', async (t) => {
  for (const { name, before, after, want, localReady: [ready1, ready2] = [0, 0], ...row } of transitions) {
    t.test(name, async (t) => {
      const model = makeModel();
      model.upsertService(
        makeService({ ports: [makePort({ name: 'dns', protocol: 'UDP' }), makePort({ name: 'http' })] }),
      );
      model.upsertService(makeService({ name: 'svc2', ports: [makePort({ name: 'http' })] }));
      for (const s of before) model.upsertSlice(s);
      model.takeChanges();
      t.equal(model.endpointChangesPending, 0, 'nothing pending after a sync');

      const said: boolean[] = [];
      for (const s of before) if (!after.some((a) => a.key === s.key)) said.push(model.deleteSlice(s.key));
      for (const s of after) said.push(model.upsertSlice(s));
      t.equal(said.some(Boolean), !sameData(bySubject(before), bySubject(after)), 'said that something changes');
      t.equal(model.endpointChangesPending, said.filter(Boolean).length, 'gauge');

      const changes = model.takeChanges();
      t.equal(changed(changes).join(' ').replaceAll('ns1/', ''), row.changed, 'changed services');
      t.strictSame([...changes.udpServices.keys()], row.conntrack ? [svc1] : [], 'flows to clean up');
      t.strictSame(
        print(model).filter((line) => line.includes(' ')),
        want,
        'plans',
      );
      t.equal(model.localReadyEndpoints().get(svc1) ?? 0, ready1, 'local ready addresses of svc1');
      t.equal(model.localReadyEndpoints().get(svc2) ?? 0, ready2, 'local ready addresses of svc2');
    });
  }
});

function bySubject(slices: readonly ReturnType<typeof makeSlice>[]): object {
  return Object.fromEntries(slices.map((s): [string, object] => [s.key, s]).sort(([a], [b]) => (a < b ? -1 : 1)));
}

t.test('slices: what each event says', async (t) => {
  const model = makeModel();
  const a = slice('a', HTTP, [ep(1), ep(2)]);
  const steps: readonly { name: string; do: () => boolean; want: boolean; counted?: boolean }[] = [
    { name: 'a new one', do: () => model.upsertSlice(a), want: true },
    { name: 'the same again', do: () => model.upsertSlice({ ...a }), want: false },
    {
      name: 'one of names',
      do: () => model.upsertSlice({ ...slice('f', HTTP, []), addressType: 'FQDN' }),
      want: false,
      counted: false,
    },
    {
      name: 'one of the other family',
      do: () => model.upsertSlice({ ...slice('six', HTTP, []), addressType: 'IPv6' }),
      want: false,
      counted: false,
    },
    {
      name: 'one of no service',
      do: () => model.upsertSlice(slice('no', HTTP, [], { serviceName: '' })),
      want: false,
      counted: false,
    },
    { name: 'an overlapping one', do: () => model.upsertSlice(slice('b', HTTP, [ep(2), ep(3)])), want: true },
    { name: 'other ports', do: () => model.upsertSlice(slice('b', DNS, [ep(2), ep(3)])), want: true },
    { name: 'only another resourceVersion', do: () => model.upsertSlice({ ...a, resourceVersion: '2' }), want: true },
    {
      name: 'all unready',
      do: () => model.upsertSlice(slice('a', HTTP, [ep(1, { ready: false }), ep(2, { ready: false })])),
      want: true,
    },
    { name: 'back to ready', do: () => model.upsertSlice(a), want: true },
    {
      name: 'some terminating',
      do: () => model.upsertSlice(slice('a', HTTP, [ep(1), ep(2, LOCAL_TERMINATING)])),
      want: true,
    },
    { name: 'removal', do: () => model.deleteSlice(a.key), want: true },
    { name: 'removal again', do: () => model.deleteSlice(a.key), want: false, counted: false },
    {
      name: 'removal of one never seen',
      do: () => model.deleteSlice(objectKey('ns1', 'never')),
      want: false,
      counted: false,
    },
    { name: 'back after removal', do: () => model.upsertSlice(a), want: true },
  ];
  const run = (when: string) => {
    for (const { name, do: act, want, counted = true } of steps) {
      const total = model.endpointChangesTotal;
      const pending = model.endpointChangesPending;
      t.equal(act(), want, `${when}, ${name}`);
      t.equal(model.endpointChangesTotal - total, counted ? 1 : 0, `${when}, ${name}: counted`);
      t.equal(model.endpointChangesPending - pending, want ? 1 : 0, `${when}, ${name}: pending`);
    }
  };
  run('never synced');
  model.takeChanges();
  for (const key of ['a', 'b']) model.deleteSlice(objectKey('ns1', key));
  model.takeChanges();
  run('synced and deleted');
});

t.test('slices: undone before the sync, nothing is left to do', async (t) => {
  const model = makeModel();
  const a = slice('a', DNS, [ep(1)]);
  model.upsertService(makeService({ ports: [makePort({ name: 'dns', protocol: 'UDP' })] }));
  model.upsertSlice(a);
  model.takeChanges();
  const plan = model.services.get(svc1);
  model.deleteSlice(a.key);
  model.upsertSlice({ ...a });
  model.upsertSlice(slice('b', DNS, [ep(2)]));
  model.deleteSlice(objectKey('ns1', 'b'));
  const changes = model.takeChanges();
  t.strictSame(changed(changes), []);
  t.equal(changes.udpServices.size, 0);
  t.equal(model.services.get(svc1), plan, 'the plan is the very same');
});

t.test('slices: one address in two of them, whichever comes first', async (t) => {
  const both = [slice('a', HTTP, [ep(1)]), slice('b', HTTP, [ep(1, LOCAL)])];
  for (const order of [both, both.toReversed()]) {
    const model = makeModel();
    for (const s of order) model.upsertSlice(s);
    model.takeChanges();
    t.equal(model.localReadyEndpoints().get(svc1), 1, order.map((s) => s.name).join(' '));
  }
});

t.test('flows are to be cleaned up when UDP frontends or the endpoints behind them change', async (t) => {
  const model = makeModel();
  const dns = makePort({ name: 'dns', protocol: 'UDP', port: 53 });
  const service = (overrides: Parameters<typeof makeService>[0] = {}) =>
    model.upsertService(makeService({ ports: [dns, makePort({ name: 'http' })], ...overrides }));
  const steps: readonly { name: string; do: () => unknown; had: readonly string[] | undefined }[] = [
    {
      name: 'UDP endpoints come before their Service',
      do: () => model.upsertSlice(slice('a', DNS, [ep(1)])),
      had: undefined,
    },
    { name: 'the Service comes', do: () => service(), had: [] },
    { name: 'it gets external addresses', do: () => service({ externalIPs: ['1.2.3.4'] }), had: ['172.30.1.1:53'] },
    {
      name: 'and a node port in their place',
      do: () => service({ type: 'NodePort', ports: [{ ...dns, nodePort: 30053 }] }),
      had: ['172.30.1.1:53', '1.2.3.4:53'],
    },
    {
      name: 'a timeout that no frontend has',
      do: () => service({ type: 'NodePort', ports: [{ ...dns, nodePort: 30053 }], sessionAffinity: 'ClientIP' }),
      had: undefined,
    },
    {
      name: 'its port is TCP now',
      do: () => service({ ports: [makePort({ name: 'dns' })] }),
      had: ['172.30.1.1:53', '*:30053'],
    },
    { name: 'an endpoint behind it changes', do: () => model.upsertSlice(slice('a', HTTP, [ep(1)])), had: undefined },
    { name: 'it is UDP again', do: () => service(), had: [] },
    { name: 'TCP endpoints change', do: () => model.upsertSlice(slice('a', HTTP, [ep(2)])), had: undefined },
    { name: 'UDP endpoints come', do: () => model.upsertSlice(slice('b', DNS, [ep(3)])), had: ['172.30.1.1:53'] },
    {
      name: 'an endpoint that no traffic uses goes',
      do: () => [
        model.upsertSlice(slice('b', DNS, [ep(3), ep(4, { ready: false, serving: false })])),
        model.takeChanges(),
        model.upsertSlice(slice('b', DNS, [ep(3)])),
      ],
      had: ['172.30.1.1:53'],
    },
    { name: 'the Service goes', do: () => model.deleteService(svc1), had: ['172.30.1.1:53'] },
    { name: 'the endpoints go', do: () => model.deleteSlice(objectKey('ns1', 'b')), had: undefined },
  ];
  for (const { name, do: act, had } of steps) {
    act();
    const before = model.takeChanges().udpServices.get(svc1);
    t.strictSame(
      before?.map(({ ip, port }) => `${ip ?? '*'}:${port}`),
      had,
      name,
    );
  }
});

t.test('slices wait for their Service', async (t) => {
  const model = makeModel();
  model.upsertSlice(slice('a', HTTP, [ep(1, LOCAL), ep(2)]));
  t.strictSame(changed(model.takeChanges()), [], 'no plan without a Service');
  t.equal(model.endpointCount, 0, 'and nothing to count');
  t.equal(model.localReadyEndpoints().get(svc1), 1, 'but its health is known');
  model.upsertService(makeService({ ports: [makePort({ name: 'http' })] }));
  t.strictSame(changed(model.takeChanges()), [svc1]);
  t.strictSame(print(model), ['svc1:http/TCP 10.180.0.1:80 10.180.0.2:80']);
  t.equal(model.endpointCount, 2);
  model.deleteService(svc1);
  t.strictSame(changed(model.takeChanges()), [svc1]);
  t.equal(model.endpointCount, 0);
  model.upsertService(makeService({ ports: [makePort({ name: 'http' })] }));
  t.strictSame(changed(model.takeChanges()), [svc1]);
  t.equal(model.endpointCount, 2, 'a Service that comes back finds its slices');
});

const at = (triggerTimeMs: number | undefined, overrides: SliceOverrides = {}) =>
  makeSlice({ triggerTimeMs, ...overrides });
const times: readonly {
  name: string;
  do: (model: Model) => void;
  want: Readonly<Record<string, readonly number[]>>;
}[] = [
  { name: 'add', do: (m) => m.upsertSlice(at(1000)), want: { [svc1]: [1000] } },
  {
    name: 'add, update',
    do: (m) => [m.upsertSlice(at(1000)), m.upsertSlice(at(2000))],
    want: { [svc1]: [1000, 2000] },
  },
  {
    name: 'add twice the same',
    do: (m) => [m.upsertSlice(at(1000)), m.upsertSlice(at(1000))],
    want: { [svc1]: [1000] },
  },
  {
    name: 'two services, one changes',
    do: (m) => [m.upsertSlice(at(1000)), m.upsertSlice(at(1500, OF_SVC2)), m.upsertSlice(at(2000))],
    want: { [svc1]: [1000, 2000], [svc2]: [1500] },
  },
  { name: 'no time', do: (m) => m.upsertSlice(at(undefined)), want: {} },
  {
    name: 'older than the process',
    do: (m) => [m.upsertSlice(at(START_MS)), m.upsertSlice(at(START_MS - 1, OF_SVC2))],
    want: {},
  },
  { name: 'add, delete', do: (m) => [m.upsertSlice(at(1000)), m.deleteSlice(slice1)], want: {} },
  {
    name: 'add, delete, add',
    do: (m) => [m.upsertSlice(at(1000)), m.deleteSlice(slice1), m.upsertSlice(at(2000))],
    want: { [svc1]: [2000] },
  },
  { name: 'delete', do: (m) => m.deleteSlice(slice1), want: {} },
  {
    name: 'delete forgets all times of the service',
    do: (m) => [m.upsertSlice(at(1000)), m.upsertSlice(at(1500, { name: 'x' })), m.deleteSlice(slice1)],
    want: {},
  },
  {
    name: 'moved to another service',
    do: (m) => [m.upsertSlice(at(1000)), m.upsertSlice(at(2000, { ...OF_SVC2, name: 'svc1-1' }))],
    want: { [svc2]: [2000] },
  },
];

t.test('trigger times', async (t) => {
  for (const { name, do: act, want } of times) {
    const model = makeModel();
    act(model);
    t.strictSame(Object.fromEntries(model.takeChanges().triggerTimesMs), want, name);
    t.equal(model.takeChanges().triggerTimesMs.size, 0, `${name}: handed out once`);
  }
});

t.test('zone', async (t) => {
  const model = makeModel();
  const zones = [ep(1, { zoneHints: ['a'] }), ep(2, { zoneHints: ['b'] })];
  model.upsertService(makeService({ ports: [makePort({ name: 'http' })] }));
  model.upsertService(makeService({ name: 'svc2', ports: [makePort({ name: 'http' })] }));
  model.upsertSlice(slice('a', HTTP, zones));
  model.upsertSlice(slice('b', HTTP, [ep(1), ep(2)], OF_SVC2));
  model.takeChanges();
  t.equal(model.setZone('a'), true);
  t.equal(model.setZone('a'), false, 'the same zone');
  t.strictSame(changed(model.takeChanges()), [svc1], 'only the service with hints');
  t.strictSame(print(model), ['svc1:http/TCP 10.180.0.1:80', 'svc2:http/TCP 10.180.0.1:80 10.180.0.2:80']);
  model.setZone('c');
  model.setZone('a');
  t.strictSame(changed(model.takeChanges()), [], 'there and back');
  model.setZone('');
  t.strictSame(changed(model.takeChanges()), [svc1]);
  t.strictSame(print(model)[0], 'svc1:http/TCP 10.180.0.1:80 10.180.0.2:80');
  model.upsertSlice(slice('a', HTTP, [ep(1), ep(2)]));
  model.takeChanges();
  model.setZone('b');
  t.strictSame(changed(model.takeChanges()), [], 'hints are gone');
});

/** Ways in which policy leaves a service port without an endpoint here. */
const noLocal: readonly { name: string; service: Parameters<typeof makeService>[0]; here: boolean; want: object }[] = [
  {
    name: 'internal, one here',
    service: { internalTrafficPolicy: 'Local' },
    here: true,
    want: { internal: 0, external: 0 },
  },
  {
    name: 'internal, none here',
    service: { internalTrafficPolicy: 'Local' },
    here: false,
    want: { internal: 1, external: 0 },
  },
  {
    name: 'external, one here',
    service: { type: 'NodePort', externalTrafficPolicy: 'Local' },
    here: true,
    want: { internal: 0, external: 0 },
  },
  {
    name: 'external, none here',
    service: { type: 'NodePort', externalTrafficPolicy: 'Local' },
    here: false,
    want: { internal: 0, external: 1 },
  },
  {
    name: 'both, one here',
    service: { type: 'NodePort', internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
    here: true,
    want: { internal: 0, external: 0 },
  },
  {
    name: 'both, none here',
    service: { type: 'NodePort', internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
    here: false,
    want: { internal: 1, external: 1 },
  },
];

t.test('noLocalEndpoints', async (t) => {
  for (const { name, service, here, want } of noLocal) {
    const model = makeModel();
    model.upsertService(makeService({ ...service, ports: [makePort({ name: 'http', nodePort: 30080 })] }));
    model.takeChanges();
    t.strictSame(model.noLocalEndpoints, { internal: 0, external: 0 }, `${name}: not without endpoints anywhere`);
    model.upsertSlice(slice('a', HTTP, [ep(1, here ? LOCAL : {})]));
    model.takeChanges();
    t.strictSame(model.noLocalEndpoints, want, name);
    model.deleteService(svc1);
    model.takeChanges();
    t.strictSame(model.noLocalEndpoints, { internal: 0, external: 0 }, `${name}: deleted`);
  }
});

t.test('reports a text that is no address once, and goes on', async (t) => {
  const reports: Unparsable[] = [];
  const model = makeModel('IPv4', (report) => reports.push(report));
  const bad = makeService({ externalIPs: ['nonsense', '1.1.1.1'], ports: [makePort({ name: 'http' })] });
  const wrong = slice('a', HTTP, [makeSliceEndpoint('fd00::1'), ep(1)]);
  for (const resourceVersion of ['1', '2', '3']) {
    model.upsertService({ ...bad, resourceVersion });
    model.upsertSlice({ ...wrong, resourceVersion });
    model.takeChanges();
  }
  t.strictSame(reports.splice(0), [
    { service: svc1, field: 'spec.externalIPs', text: 'nonsense' },
    { service: svc1, field: 'EndpointSlice endpoints[].addresses[0]', text: 'fd00::1' },
  ]);
  t.strictSame(print(model), ['svc1:http/TCP 10.180.0.1:80']);
  t.strictSame(model.services.get(svc1)?.ports[0]?.port.externalIPs, ['1.1.1.1']);
  model.deleteService(svc1);
  model.deleteSlice(wrong.key);
  model.takeChanges();
  model.upsertService(bad);
  t.equal(reports.splice(0).length, 1, 'a Service that comes back is reported again');
  const none = makeService({ name: 'svc2', clusterIP: 'bogus' });
  for (const event of ['upsert', 'upsert', 'delete', 'upsert'] as const) {
    if (event === 'upsert') model.upsertService(none);
    else model.deleteService(none.key);
  }
  t.equal(reports.length, 2, 'so is one that never had a plan');
});

/** What the model counts as it goes, counted afresh from its plans. */
function counted(plans: Iterable<ServicePlan>): object {
  const ports = [...plans].flatMap((plan) => plan.ports);
  const answered = ports.filter((p) => p.hasAnyEndpoints);
  return {
    endpoints: ports.reduce((sum, p) => sum + p.endpointCount, 0),
    internal: answered.filter((p) => p.port.internalPolicyLocal && p.localEndpoints.length === 0).length,
    external: answered.filter((p) => p.port.externalPolicyLocal && p.localEndpoints.length === 0).length,
    health: ports.flatMap(({ port }) =>
      port.healthCheckNodePort ? [`${port.service} ${port.healthCheckNodePort}`] : [],
    ),
  };
}

function outcome(model: Model): object {
  const sorted = <V>(map: ReadonlyMap<string, V>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    services: sorted(model.services),
    localReady: sorted(model.localReadyEndpoints()),
    health: sorted(model.healthCheckNodePorts()),
    endpointCount: model.endpointCount,
    noLocal: model.noLocalEndpoints,
  };
}

t.test('the same history told otherwise ends in the same plans', async (t) => {
  const met = { changed: 0, endpoints: 0, localReady: 0, noLocal: 0, health: 0 };
  fc.assert(
    fc.property(arbHistory, fc.constantFrom('IPv4' as const, 'IPv4' as const, 'IPv6' as const), (history, family) => {
      const fresh = makeModel(family);
      for (const event of finalState(history)) tell(fresh, event);
      fresh.takeChanges();
      const want = outcome(fresh);
      for (const telling of tellings) {
        for (const flush of flushes) {
          const how = `${telling.name}, ${flush.name}`;
          const model = makeModel(family);
          for (const batch of flush.cut(telling.tell(history))) {
            const before = new Map(model.services);
            for (const event of batch) tell(model, event);
            if (!isDeepStrictEqual(new Map(model.services), before)) throw new Error(`${how}: an event changed a plan`);
            const { changedServices } = model.takeChanges();
            const different = new Set([...before.keys(), ...model.services.keys()]).values();
            const expected = new Set(different.filter((k) => !isDeepStrictEqual(before.get(k), model.services.get(k))));
            if (!isDeepStrictEqual(changedServices, expected)) {
              throw new Error(`${how}: says ${[...changedServices]} changed, but ${[...expected]} did`);
            }
            met.changed += expected.size;
            met.endpoints += model.endpointCount;
            met.localReady += model.localReadyEndpoints().size;
            met.noLocal += model.noLocalEndpoints.internal + model.noLocalEndpoints.external;
            met.health += model.healthCheckNodePorts().size;
          }
          if (model.serviceChangesPending + model.endpointChangesPending > 0)
            throw new Error(`${how}: something is pending`);
          if (!isDeepStrictEqual(outcome(model), want)) {
            t.strictSame(outcome(model), want, how);
            throw new Error(`${how}: ends otherwise`);
          }
          const { endpoints, internal, external, health } = Object.assign(
            { endpoints: -1, internal: -1, external: -1, health: [''] },
            counted(model.services.values()),
          );
          if (model.endpointCount !== endpoints) throw new Error(`${how}: endpointCount`);
          if (!isDeepStrictEqual(model.noLocalEndpoints, { internal, external })) throw new Error(`${how}: noLocal`);
          const ports = [...model.healthCheckNodePorts()].map(([k, port]) => `${k} ${port}`);
          if (!isDeepStrictEqual(new Set(health), new Set(ports))) throw new Error(`${how}: health check node ports`);
        }
      }
    }),
    { numRuns: 60 },
  );
  for (const [what, n] of Object.entries(met)) t.ok(n > 0, `histories had ${what}: ${n}`);
});

t.test('sameData() is the equality of plain data', async (t) => {
  const pairs: readonly [unknown, unknown, boolean][] = [
    [undefined, undefined, true],
    [undefined, null, false],
    [undefined, [], false],
    [{ a: undefined }, {}, false],
    [{}, { a: undefined }, false],
    [{ a: undefined }, { b: undefined }, false],
    [{ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] }, true],
    [{ a: [1, { b: 2 }] }, { a: [1, { b: 3 }] }, false],
    [[1], [1, 2], false],
    [[], {}, false],
    [{}, [], false],
    ['1', 1, false],
  ];
  for (const [a, b, want] of pairs) t.equal(sameData(a, b), want, `${JSON.stringify(a)} ${JSON.stringify(b)}`);
  const small = fc.object({ key: fc.constantFrom('a', 'b'), values: [fc.integer({ min: 0, max: 1 })], maxDepth: 2 });
  let equal = 0;
  fc.assert(
    fc.property(small, small, (a, b) => {
      const want = isDeepStrictEqual(a, b);
      if (want) equal++;
      return sameData(a, b) === want && sameData(a, structuredClone(a));
    }),
    { numRuns: 500, examples: [[{ a: [0] }, { a: [0] }]] },
  );
  t.ok(equal > 0 && equal < 500, `equal pairs: ${equal}`);
});
