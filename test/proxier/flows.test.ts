/** Which UDP flows are stale. The matrix is that of kube-proxy's own tests, with what it leaves undone added. */
import t from 'tap';
import { type Flow, flowAddress, mergeUdpServices, staleFlows, udpFrontends } from '../../src/proxier/flows.ts';
import type { Endpoint, ObjectKey, ServicePlan, ServicePort } from '../../src/proxier/types.ts';
import { ip, makeEndpoint, makePortPlan, makeServicePort } from '../lib/make.ts';

const VIP = '172.30.1.1';
const EXTERNAL = '192.168.99.11';
const LB = '1.2.3.4';
const NODE_IP = '192.168.0.2';
const SERVING = '10.240.0.4';
const NOT_SERVING = '10.240.0.5';
const DELETED = '10.240.0.6';
const PORT = 8000;
const NODE_PORT = 32_000;

type Overrides = Parameters<typeof makeServicePort>[0];
const udpPort = (overrides: Overrides = {}): ServicePort =>
  makeServicePort({ portName: 'p', protocol: 'UDP', port: PORT, clusterIP: ip(VIP), ...overrides });
const everywhere = { nodePort: NODE_PORT, externalIPs: [ip(EXTERNAL)], loadBalancerVIPs: [ip(LB)] };

const endpoint = (
  address: string,
  overrides: Partial<Pick<Endpoint, 'port' | 'ready' | 'serving' | 'terminating'>> = {},
) => makeEndpoint(address, { port: PORT, ...overrides });
const serving = endpoint(SERVING);
const notServing = endpoint(NOT_SERVING, { ready: false, serving: false });

interface Held {
  readonly ports: readonly ServicePort[];
  readonly endpoints: readonly Endpoint[];
}
const planOf = ({ ports, endpoints }: Held): ServicePlan => ({
  service: ports[0]?.service ?? ('' as ObjectKey),
  ports: ports.map((port) => makePortPlan(port, endpoints)),
});

/** What is stale when Services became what they are now. `had`: the plan before. */
function filterOf({
  now = [],
  had = [],
  others = [],
  nodeIPs = [NODE_IP],
  localhostNodePorts = true,
}: {
  readonly now?: readonly Held[];
  readonly had?: readonly Held[];
  readonly others?: readonly Held[];
  readonly nodeIPs?: readonly string[];
  readonly localhostNodePorts?: boolean;
}) {
  const held = new Map([...now, ...others].map((h) => [planOf(h).service, h]));
  const keys = (list: readonly Held[]) => list.map((h) => planOf(h).service);
  const before = new Map(had.map((h) => [planOf(h).service, udpFrontends(planOf(h))]));
  return staleFlows(new Map([...keys(now), ...keys(had)].map((key) => [key, before.get(key) ?? []])), {
    services: new Map([...held].map(([key, h]) => [key, planOf(h)])),
    udpEndpoints: (service) => {
      const h = held.get(service);
      return new Map(h?.ports.filter((p) => p.protocol === 'UDP').map((p) => [p.portName, h.endpoints]));
    },
    nodePortIPs: nodeIPs.map(ip),
    localhostNodePorts,
  });
}

const flow = (to: string, toPort: number, from: string, fromPort: number): Flow => ({
  toAddress: flowAddress(ip(to)),
  toPort,
  fromAddress: flowAddress(ip(from)),
  fromPort,
});

t.test('the matrix: frontend × who answers', async (t) => {
  const { isStale, toPorts } = filterOf({
    now: [{ ports: [udpPort(everywhere)], endpoints: [serving, notServing] }],
  });
  t.same([...toPorts].sort(), [NODE_PORT, PORT].sort(), 'only these ports are looked at');
  const answerers = [
    { name: 'a serving endpoint', ip: SERVING, port: PORT, stale: false },
    { name: 'an endpoint that does not serve', ip: NOT_SERVING, port: PORT, stale: true },
    { name: 'an endpoint that is gone', ip: DELETED, port: PORT, stale: true },
    { name: 'a serving address at an old port', ip: SERVING, port: 3000, stale: true },
  ];
  for (const { name, ip: from, port, stale } of answerers) {
    for (const to of [VIP, EXTERNAL, LB]) {
      t.equal(isStale(flow(to, PORT, from, port)), stale, `${to}:${PORT} answered by ${name}`);
      t.equal(isStale(flow(to, 3000, from, port)), false, `${to}:3000, no frontend, answered by ${name}`);
    }
    for (const to of [NODE_IP, '127.0.0.1', '127.0.0.53']) {
      t.equal(isStale(flow(to, NODE_PORT, from, port)), stale, `node port at ${to} answered by ${name}`);
    }
    t.equal(isStale(flow('8.8.8.8', NODE_PORT, from, port)), false, `a stranger's ${NODE_PORT} answered by ${name}`);
    t.equal(isStale(flow('8.8.8.8', PORT, from, port)), false, `a stranger's ${PORT} answered by ${name}`);
    t.equal(isStale(flow(NODE_IP, PORT, from, port)), false, `the node's own ${PORT} answered by ${name}`);
  }
  for (const to of [VIP, EXTERNAL, LB]) {
    t.equal(isStale(flow(to, PORT, to, PORT)), true, `${to}:${PORT} that was never translated`);
    t.equal(isStale(flow(to, 3000, to, 3000)), false, `${to}:3000 that was never translated`);
  }
  t.equal(isStale(flow(NODE_IP, NODE_PORT, NODE_IP, NODE_PORT)), true, 'a node port that was never translated');
});

const full: Held = { ports: [udpPort(everywhere)], endpoints: [serving] };
const dead = (to: string, toPort = PORT) => flow(to, toPort, DELETED, PORT);
const alive = (to: string, toPort = PORT) => flow(to, toPort, SERVING, PORT);
const direct = (to: string, toPort = PORT) => flow(to, toPort, to, toPort);

const changes: readonly {
  name: string;
  change: Parameters<typeof filterOf>[0];
  stale?: readonly Flow[];
  fresh?: readonly Flow[];
}[] = [
  {
    name: 'no endpoint is left',
    change: { now: [{ ...full, endpoints: [] }], had: [full] },
    stale: [
      alive(VIP),
      dead(VIP),
      alive(EXTERNAL),
      alive(LB),
      alive(NODE_IP, NODE_PORT),
      alive('127.0.0.1', NODE_PORT),
    ],
    fresh: [direct(VIP), direct(NODE_IP, NODE_PORT)],
  },
  {
    name: 'only one that does not serve is left',
    change: { now: [{ ...full, endpoints: [notServing] }], had: [full] },
    stale: [alive(VIP), flow(VIP, PORT, NOT_SERVING, PORT)],
  },
  {
    name: 'one that terminates still serves',
    change: { now: [{ ...full, endpoints: [endpoint(SERVING, { ready: false, terminating: true })] }] },
    stale: [dead(VIP), direct(VIP)],
    fresh: [alive(VIP)],
  },
  {
    name: 'one that is ready without serving gets traffic',
    change: { now: [{ ...full, endpoints: [endpoint(SERVING, { serving: false })] }] },
    fresh: [alive(VIP)],
  },
  {
    name: 'the Service is gone',
    change: { had: [full] },
    stale: [alive(VIP), alive(EXTERNAL), alive(LB), alive(NODE_IP, NODE_PORT)],
    fresh: [direct(VIP), direct(EXTERNAL), direct(NODE_IP, NODE_PORT), alive('8.8.8.8', NODE_PORT)],
  },
  {
    name: 'all frontends but the cluster IP are gone',
    change: { now: [{ ...full, ports: [udpPort()] }], had: [full] },
    stale: [alive(EXTERNAL), alive(LB), alive(NODE_IP, NODE_PORT), dead(VIP)],
    fresh: [alive(VIP), direct(EXTERNAL), direct(LB)],
  },
  {
    name: 'the port is another',
    change: { now: [{ ...full, ports: [udpPort({ port: 9000 })] }], had: [{ ...full, ports: [udpPort()] }] },
    stale: [alive(VIP), direct(VIP, 9000)],
    fresh: [alive(VIP, 9000), direct(VIP)],
  },
  {
    name: 'the port is TCP now',
    change: { now: [{ ...full, ports: [udpPort({ protocol: 'TCP' })] }], had: [full] },
    stale: [alive(VIP)],
  },
  {
    name: 'its cluster IP went to another Service in the same sync',
    change: { now: [{ ports: [udpPort({ serviceName: 'heir' })], endpoints: [endpoint('10.240.0.9')] }], had: [full] },
    stale: [alive(VIP), direct(VIP)],
    fresh: [flow(VIP, PORT, '10.240.0.9', PORT)],
  },
  {
    name: 'TCP and SCTP ports are none of ours',
    change: {
      now: [{ ports: [udpPort({ protocol: 'TCP' }), udpPort({ protocol: 'SCTP' })], endpoints: [serving] }],
      had: [{ ports: [udpPort({ protocol: 'TCP' })], endpoints: [] }],
    },
    fresh: [dead(VIP), direct(VIP)],
  },
  {
    name: 'node ports on some addresses only',
    change: { now: [full], nodeIPs: ['10.0.0.1'], localhostNodePorts: false },
    stale: [dead('10.0.0.1', NODE_PORT)],
    fresh: [dead(NODE_IP, NODE_PORT), dead('127.0.0.1', NODE_PORT)],
  },
  {
    name: 'a frontend at the node, with the number of a node port',
    change: {
      now: [
        { ports: [udpPort({ nodePort: NODE_PORT })], endpoints: [serving] },
        {
          ports: [
            udpPort({ serviceName: 'b', clusterIP: ip('172.30.1.2'), port: NODE_PORT, externalIPs: [ip(NODE_IP)] }),
          ],
          endpoints: [endpoint('10.240.0.9')],
        },
      ],
    },
    stale: [alive(NODE_IP, NODE_PORT)],
    fresh: [flow(NODE_IP, NODE_PORT, '10.240.0.9', PORT), alive('127.0.0.1', NODE_PORT)],
  },
  {
    name: 'IPv6, with addresses as connection tracking prints them',
    change: {
      now: [
        {
          ports: [udpPort({ clusterIP: ip('fd00:96::10'), nodePort: NODE_PORT })],
          endpoints: [endpoint('fd00:244::2')],
        },
      ],
      nodeIPs: ['fd00::2'],
    },
    stale: [
      { toAddress: 'fd00:96:0:0:0:0:0:10', toPort: PORT, fromAddress: 'fd00:244:0:0:0:0:0:3', fromPort: PORT },
      { toAddress: 'fd00:0:0:0:0:0:0:2', toPort: NODE_PORT, fromAddress: 'fd00:244:0:0:0:0:0:3', fromPort: PORT },
    ],
    fresh: [
      { toAddress: 'fd00:96:0:0:0:0:0:10', toPort: PORT, fromAddress: 'fd00:244:0:0:0:0:0:2', fromPort: PORT },
      flow('::1', NODE_PORT, 'fd00:244::3', PORT),
    ],
  },
  {
    name: 'two ports, each with its frontends',
    change: {
      now: [{ ports: [udpPort(), udpPort({ portName: 'q', port: 9000 })], endpoints: [serving] }],
    },
    stale: [dead(VIP), dead(VIP, 9000)],
    fresh: [alive(VIP), alive(VIP, 9000)],
  },
];

t.test('stale after', async (t) => {
  for (const { name, change, stale = [], fresh = [] } of changes) {
    t.test(name, async (t) => {
      const { isStale, toPorts } = filterOf(change);
      const print = (f: Flow) => `${f.toAddress} ${f.toPort} answered by ${f.fromAddress} ${f.fromPort}`;
      for (const f of stale) t.equal(toPorts.has(f.toPort) && isStale(f), true, `stale: ${print(f)}`);
      for (const f of fresh) t.equal(toPorts.has(f.toPort) && isStale(f), false, `fresh: ${print(f)}`);
    });
  }
});

t.test('an external address shared with a Service that did not change', async (t) => {
  const other: Held = {
    ports: [udpPort({ serviceName: 'other', clusterIP: ip('172.30.1.2'), externalIPs: [ip(EXTERNAL)] })],
    endpoints: [endpoint('10.240.0.9')],
  };
  const { isStale, withoutThoseOfOthers } = filterOf({ had: [full], others: [other] });
  const theirs = flow(EXTERNAL, PORT, '10.240.0.9', PORT);
  const found = [alive(EXTERNAL), theirs, dead(EXTERNAL), flow(VIP, PORT, '10.240.0.9', PORT)];
  t.same(found.map(isStale), [true, true, true, true]);
  t.same(withoutThoseOfOthers(found), [found[0], found[2], found[3]], 'only theirs is left out');
});

t.test('nothing is looked at without UDP', async (t) => {
  const tcp: Held = { ports: [udpPort({ protocol: 'TCP', ...everywhere })], endpoints: [serving] };
  t.equal(filterOf({ now: [tcp], had: [tcp] }).toPorts.size, 0);
});

t.test('frontends of changes that come one after the other', async (t) => {
  const [a, b] = ['ns1/a', 'ns1/b'] as ObjectKey[];
  if (a === undefined || b === undefined) throw new Error('Cannot test: two keys are needed');
  const frontend = (port: number) => ({ portName: 'p', ip: ip(VIP), port });
  const first = new Map([[a, [frontend(1)]]]);
  const second = new Map([
    [a, [frontend(1), frontend(2)]],
    [b, []],
  ]);
  t.same(mergeUdpServices(new Map(), first), first);
  t.same(mergeUdpServices(mergeUdpServices(first, second), first), second, 'each once, and Services without any stay');
  t.same(first.get(a), [frontend(1)], 'what was given is as it was');
});

t.test('a long list is filtered fast enough to be done at each sync', async (t) => {
  const services = Array.from(
    { length: 1000 },
    (_, i): Held => ({
      ports: [udpPort({ serviceName: `s${i}`, clusterIP: ip(`172.30.${i >> 8}.${i & 255}`) })],
      endpoints: [endpoint(`10.1.${i >> 8}.${i & 255}`)],
    }),
  );
  const { isStale } = filterOf({ now: services });
  const flows = Array.from({ length: 100_000 }, (_, i) => {
    const n = i % 1000;
    return flow(
      `172.30.${n >> 8}.${n & 255}`,
      PORT,
      `10.1.${n >> 8}.${(n & 255) + (i % 10 === 0 ? 1 : 0)}`.replace(/256$/, '0'),
      PORT,
    );
  });
  const startMs = performance.now();
  t.equal(flows.filter(isStale).length, 10_000);
  t.comment(`${Math.round(performance.now() - startMs)} ms for 100,000 flows`);
});
