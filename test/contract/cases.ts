/**
 * Services of every kind and what their packets must meet, in any mode, under the default configuration. How a row reads is
 * in `flow.ts`. Pods a and b are on the node, c and d are not; the node's zone is zone-a.
 *
 * @module
 */

import {
  answered,
  type Flow,
  type FlowCase,
  type FlowPort,
  type Frontend,
  NOT_CAPTURED,
  PODS,
  REFUSED,
  SILENT,
  type Source,
} from './flow.ts';

/** One port number, two protocols, each with a port of its own in the pods. */
export const TCP_UDP: readonly FlowPort[] = [
  { name: 'tcp', protocol: 'TCP', port: 53, targetPort: 8080 },
  { name: 'udp', protocol: 'UDP', port: 53, targetPort: 8081, nodePortOffset: 1 },
];
const ALL_PROTOCOLS: readonly FlowPort[] = [...TCP_UDP, { name: 'sctp', protocol: 'SCTP', port: 53, targetPort: 8080 }];

const INSIDE: readonly Source[] = ['pod a', 'node'];
export const EVERYWHERE: readonly Source[] = ['pod a', 'node', 'client'];

/**
 * Who is refused where a Service without endpoints is reached from outside. Packets of the node itself to an address that is
 * not its own leave it as they came: kube-proxy looks at those that come in or pass through.
 */
const REFUSED_FROM = {
  'external IP': ['pod b', 'client'],
  'load balancer IP': ['pod b', 'client'],
  'node port': ['pod b', 'node', 'client'],
} as const;

/** The cluster IP, its protocols and ports. */
export const clusterIP: readonly FlowCase[] = [
  {
    name: 'ClusterIP balances evenly over two pods',
    id: 1,
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [
          { from: 'client', to: 'cluster IP', want: answered(['a', 'b'], { even: true }) },
          // Only one that comes from outside or reaches itself is masqueraded.
          { from: 'pod c', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'itself' }) },
          { from: 'node', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'node' }) },
          { from: 'client', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'node' }) },
        ],
      },
      {
        endpoints: { a: 'ready', b: 'ready', c: 'ready', d: 'ready' },
        flows: [{ from: 'node', to: 'cluster IP', want: answered(PODS, { even: true }) }],
      },
    ],
  },
  {
    name: 'a pod reaches itself through its Service',
    id: 2,
    type: 'NodePort',
    stages: [
      {
        endpoints: { a: 'ready' },
        flows: [
          { from: 'pod a', to: 'cluster IP', want: answered(['a'], { seen: 'node' }) },
          { from: 'pod a', to: 'node port', want: answered(['a'], { seen: 'node' }) },
          { from: 'pod b', to: 'cluster IP', want: answered(['a'], { seen: 'itself' }) },
        ],
      },
    ],
  },
  {
    name: 'TCP, UDP and SCTP on one port are three frontends',
    id: 3,
    type: 'NodePort',
    ports: ALL_PROTOCOLS,
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [
          { from: 'pod c', to: 'cluster IP', want: answered(['a', 'b'], { port: 8080, seen: 'itself' }) },
          { from: 'pod c', to: 'cluster IP', over: 'udp', want: answered(['a', 'b'], { port: 8081, seen: 'itself' }) },
          { from: 'client', to: 'node port', want: answered(['a', 'b'], { port: 8080, seen: 'node' }) },
          { from: 'client', to: 'node port', over: 'udp', want: answered(['a', 'b'], { port: 8081, seen: 'node' }) },
          { from: 'node', to: 'cluster IP', over: 'udp', want: answered(['a', 'b'], { port: 8081, seen: 'node' }) },
        ],
      },
      {
        endpoints: {},
        flows: (['tcp', 'udp'] as const).flatMap((over) => [
          ...EVERYWHERE.map((from) => ({ from, over, to: 'cluster IP' as const, want: REFUSED })),
          ...EVERYWHERE.map((from) => ({ from, over, to: 'node port' as const, want: REFUSED })),
        ]),
      },
    ],
  },
  {
    name: 'two ports have pods of their own ports',
    id: 4,
    ports: [
      { name: 'web', protocol: 'TCP', port: 80, targetPort: 8080 },
      { name: 'admin', protocol: 'TCP', port: 81, targetPort: 8081 },
    ],
    stages: [
      {
        endpoints: { a: 'ready' },
        flows: [
          { from: 'client', to: 'cluster IP', port: 80, want: answered(['a'], { port: 8080 }) },
          { from: 'client', to: 'cluster IP', port: 81, want: answered(['a'], { port: 8081 }) },
        ],
      },
    ],
  },
];

/** Families. */
export const singleStack: readonly FlowCase[] = [
  {
    name: 'a Service of IPv6 alone is not served over IPv4, though it has pods there',
    id: 5,
    type: 'NodePort',
    spec: {
      clusterIP: 'fd00:10:43::5',
      clusterIPs: ['fd00:10:43::5'],
      ipFamilies: ['IPv6'],
      ipFamilyPolicy: 'SingleStack',
    },
    stages: [
      {
        endpoints: { a: 'ready' },
        flows: [
          { from: 'client', to: 'cluster IP', family: 'IPv6', want: answered(['a'], { seen: 'node' }) },
          { from: 'client', to: 'node port', family: 'IPv6', want: answered(['a'], { seen: 'node' }) },
          { from: 'client', to: 'node port', family: 'IPv4', want: REFUSED },
        ],
      },
    ],
  },
];

/** Which endpoints are used. */
export const endpoints: readonly FlowCase[] = [
  {
    name: 'only ready pods answer; terminating ones only when none is ready',
    id: 10,
    type: 'NodePort',
    stages: [
      {
        endpoints: { a: 'ready', b: 'not ready', c: 'terminating' },
        flows: [
          { from: 'client', to: 'cluster IP', want: answered(['a']) },
          { from: 'client', to: 'node port', want: answered(['a']) },
        ],
      },
      {
        endpoints: { a: 'terminating', b: 'not ready', c: 'terminating' },
        flows: [
          { from: 'client', to: 'cluster IP', want: answered(['a', 'c']) },
          { from: 'client', to: 'node port', want: answered(['a', 'c']) },
        ],
      },
      {
        endpoints: { a: 'terminating, not serving', b: 'not ready' },
        flows: [
          { from: 'client', to: 'cluster IP', want: REFUSED },
          { from: 'client', to: 'node port', want: REFUSED },
        ],
      },
      {
        endpoints: { b: 'ready' },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['b']) }],
      },
    ],
  },
  {
    name: 'a connection outlives its endpoint while new ones go elsewhere',
    id: 11,
    type: 'NodePort',
    stages: [
      {
        endpoints: { a: 'ready' },
        flows: [
          { from: 'client', to: 'node port', want: { kind: 'held', by: 'a' } },
          { from: 'pod c', to: 'cluster IP', want: { kind: 'held', by: 'a' } },
        ],
      },
      {
        endpoints: { a: 'terminating', b: 'ready' },
        flows: [
          { from: 'client', to: 'node port', want: { kind: 'held', by: 'a' } },
          { from: 'pod c', to: 'cluster IP', want: { kind: 'held', by: 'a' } },
          { from: 'client', to: 'node port', want: answered(['b']) },
          { from: 'pod c', to: 'cluster IP', want: answered(['b']) },
        ],
      },
      {
        endpoints: { b: 'ready' },
        flows: [
          { from: 'client', to: 'node port', want: { kind: 'held', by: 'a' } },
          { from: 'pod c', to: 'cluster IP', want: { kind: 'held', by: 'a' } },
          { from: 'client', to: 'node port', want: answered(['b']) },
        ],
      },
    ],
  },
  {
    name: 'publishNotReadyAddresses: ready counts, whatever else is said',
    id: 12,
    spec: { publishNotReadyAddresses: true },
    stages: [
      {
        endpoints: { a: 'published, terminating', b: 'ready' },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['a', 'b']) }],
      },
    ],
  },
  {
    name: 'zone hints keep traffic in the zone, if every pod has one',
    id: 13,
    stages: [
      {
        endpoints: { a: { zones: ['zone-a'] }, b: { zones: ['zone-a', 'zone-b'] }, c: { zones: ['zone-b'] } },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['a', 'b']) }],
      },
      {
        endpoints: { a: { zones: ['zone-a'] }, b: 'ready', c: { zones: ['zone-b'] } },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['a', 'b', 'c']) }],
      },
      {
        endpoints: { a: { zones: ['zone-c'] }, c: { zones: ['zone-b'] } },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['a', 'c']) }],
      },
    ],
  },
  {
    name: 'node hints keep traffic on the node, if every pod has one',
    id: 14,
    stages: [
      {
        endpoints: {
          a: { zones: ['zone-a'], nodes: ['k3s-node'] },
          b: { zones: ['zone-a'], nodes: ['other-node'] },
          c: { zones: ['zone-b'], nodes: ['other-node'] },
        },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['a']) }],
      },
      {
        endpoints: {
          a: { zones: ['zone-a'] },
          b: { zones: ['zone-a'] },
          c: { zones: ['zone-b'], nodes: ['k3s-node'] },
        },
        flows: [{ from: 'client', to: 'cluster IP', want: answered(['a', 'b']) }],
      },
    ],
  },
];

/** Internal and external traffic policies. */
export const policies: readonly FlowCase[] = [
  {
    name: 'internalTrafficPolicy Local: pods of the node only, else silence',
    id: 20,
    spec: { internalTrafficPolicy: 'Local' },
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready', c: 'ready' },
        flows: [
          { from: 'pod c', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'itself' }) },
          { from: 'node', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'node' }) },
        ],
      },
      {
        endpoints: { a: 'terminating', b: 'not ready', c: 'ready' },
        flows: [{ from: 'node', to: 'cluster IP', want: answered(['a']) }],
      },
      {
        endpoints: { c: 'ready', d: 'ready' },
        flows: EVERYWHERE.map((from) => ({ from, to: 'cluster IP', want: SILENT })),
      },
      { endpoints: {}, flows: INSIDE.map((from) => ({ from, to: 'cluster IP', want: REFUSED })) },
    ],
  },
  {
    name: 'internalTrafficPolicy Local narrows the cluster IP alone',
    id: 21,
    type: 'NodePort',
    spec: { internalTrafficPolicy: 'Local' },
    stages: [
      {
        endpoints: { a: 'ready', c: 'ready' },
        flows: [
          { from: 'client', to: 'cluster IP', want: answered(['a']) },
          { from: 'client', to: 'node port', want: answered(['a', 'c'], { seen: 'node' }) },
        ],
      },
    ],
  },
  {
    name: 'externalTrafficPolicy Cluster: every frontend, masqueraded',
    id: 22,
    type: 'LoadBalancer',
    externalIP: true,
    stages: [
      {
        endpoints: { a: 'ready', c: 'ready' },
        flows: (['external IP', 'load balancer IP', 'node port'] as const).flatMap((to) =>
          (['pod b', 'node', 'client'] as const).map((from) => ({
            from,
            to,
            want: answered(['a', 'c'], { seen: 'node' }),
          })),
        ),
      },
      {
        endpoints: {},
        flows: (['external IP', 'load balancer IP', 'node port'] as const).flatMap((to) =>
          REFUSED_FROM[to].map((from) => ({ from, to, want: REFUSED })),
        ),
      },
    ],
  },
  {
    name: 'externalTrafficPolicy Local: pods of the node only and the client as it is; inside as Cluster',
    id: 23,
    type: 'LoadBalancer',
    externalIP: true,
    spec: { externalTrafficPolicy: 'Local' },
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready', c: 'ready' },
        flows: [
          ...(['external IP', 'load balancer IP', 'node port'] as const).flatMap((to) => [
            { from: 'client' as const, to, want: answered(['a', 'b'], { seen: 'itself' }) },
            { from: 'pod b' as const, to, want: answered(['a', 'b', 'c']) },
            { from: 'node' as const, to, want: answered(['a', 'b', 'c'], { seen: 'node' }) },
          ]),
          { from: 'client', to: 'cluster IP', want: answered(['a', 'b', 'c'], { seen: 'node' }) },
          { from: 'client', to: 'health check port', want: { kind: 'health', status: 200, localEndpoints: 2 } },
        ],
      },
      {
        endpoints: { a: 'terminating', b: 'not ready', c: 'ready' },
        flows: [
          { from: 'client', to: 'load balancer IP', want: answered(['a'], { seen: 'itself' }) },
          { from: 'client', to: 'node port', want: answered(['a'], { seen: 'itself' }) },
          { from: 'client', to: 'health check port', want: { kind: 'health', status: 503, localEndpoints: 0 } },
        ],
      },
      {
        endpoints: { c: 'ready', d: 'ready' },
        flows: [
          ...(['external IP', 'load balancer IP', 'node port'] as const).flatMap((to) => [
            { from: 'client' as const, to, want: SILENT },
            { from: 'pod a' as const, to, want: answered(['c', 'd'], { seen: 'itself' }) },
            { from: 'node' as const, to, want: answered(['c', 'd'], { seen: 'node' }) },
          ]),
          { from: 'client', to: 'health check port', want: { kind: 'health', status: 503, localEndpoints: 0 } },
        ],
      },
      {
        endpoints: {},
        flows: (['external IP', 'load balancer IP', 'node port'] as const).flatMap((to) =>
          REFUSED_FROM[to].map((from) => ({ from, to, want: REFUSED })),
        ),
      },
      {
        endpoints: { b: 'ready' },
        flows: [
          { from: 'client', to: 'node port', want: answered(['b'], { seen: 'itself' }) },
          { from: 'client', to: 'health check port', want: { kind: 'health', status: 200, localEndpoints: 1 } },
        ],
      },
    ],
  },
  {
    name: 'both policies Local',
    id: 24,
    type: 'NodePort',
    spec: { externalTrafficPolicy: 'Local', internalTrafficPolicy: 'Local' },
    stages: [
      {
        endpoints: { a: 'ready', c: 'ready' },
        flows: [
          { from: 'node', to: 'cluster IP', want: answered(['a']) },
          { from: 'client', to: 'node port', want: answered(['a'], { seen: 'itself' }) },
          { from: 'pod b', to: 'node port', want: answered(['a', 'c'], { seen: 'itself' }) },
        ],
      },
      {
        endpoints: { c: 'ready' },
        flows: [
          { from: 'node', to: 'cluster IP', want: SILENT },
          { from: 'client', to: 'node port', want: SILENT },
          { from: 'pod b', to: 'node port', want: answered(['c'], { seen: 'itself' }) },
        ],
      },
    ],
  },
];

/** The client's two addresses, the node and the pods have each their own way through a firewall of source ranges. */
export const loadBalancers: readonly FlowCase[] = [
  {
    name: 'loadBalancerSourceRanges: who is in them reaches the address, all others get no answer',
    id: 30,
    type: 'LoadBalancer',
    spec: { loadBalancerSourceRanges: ['192.168.1.50/32', 'fd00:192:168:1::50/128'] },
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [
          { from: 'client', to: 'load balancer IP', want: answered(['a', 'b'], { seen: 'node' }) },
          { from: 'stranger', to: 'load balancer IP', want: SILENT },
          { from: 'pod c', to: 'load balancer IP', want: SILENT },
          { from: 'node', to: 'load balancer IP', want: SILENT },
          { from: 'stranger', to: 'node port', want: answered(['a', 'b'], { seen: 'node' }) },
          { from: 'stranger', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'node' }) },
          { from: 'pod c', to: 'cluster IP', want: answered(['a', 'b'], { seen: 'itself' }) },
        ],
      },
      {
        spec: { loadBalancerSourceRanges: ['192.168.1.51/32', 'fd00:192:168:1::51/128', '10.42.0.0/16'] },
        flows: [
          { from: 'client', to: 'load balancer IP', want: SILENT },
          { from: 'stranger', to: 'load balancer IP', want: answered(['a', 'b']) },
          { from: 'pod c', to: 'load balancer IP', family: 'IPv4', want: answered(['a', 'b']) },
          { from: 'pod c', to: 'load balancer IP', family: 'IPv6', want: SILENT },
        ],
      },
      {
        spec: { loadBalancerSourceRanges: [] },
        flows: [{ from: 'client', to: 'load balancer IP', want: answered(['a', 'b']) }],
      },
      {
        spec: { loadBalancerSourceRanges: ['192.168.1.50/32', 'fd00:192:168:1::50/128'] },
        endpoints: {},
        flows: [
          { from: 'client', to: 'load balancer IP', want: REFUSED },
          // Mode nftables looks at the ranges before anything else.
          { from: 'stranger', to: 'load balancer IP', want: REFUSED, otherwise: { nftables: SILENT } },
          { from: 'stranger', to: 'node port', want: REFUSED },
        ],
      },
    ],
  },
  {
    name: 'source ranges with the node in them let the load balancer address itself in',
    id: 31,
    type: 'LoadBalancer',
    vip: 'node second address',
    ports: [{ name: '', protocol: 'TCP', port: 82, targetPort: 8080 }],
    spec: { loadBalancerSourceRanges: ['192.168.1.100/32', 'fd00:192:168:1::100/128'] },
    stages: [
      {
        endpoints: { a: 'ready' },
        flows: [
          { from: 'node, first address', to: 'load balancer IP', want: answered(['a'], { seen: 'node' }) },
          { from: 'node, second address', to: 'load balancer IP', want: answered(['a'], { seen: 'node' }) },
          { from: 'client', to: 'load balancer IP', want: SILENT },
        ],
      },
    ],
  },
  {
    name: 'the load balancer address is the node',
    id: 32,
    type: 'LoadBalancer',
    vip: 'node',
    ports: [{ name: '', protocol: 'TCP', port: 83, targetPort: 8080 }],
    stages: [
      {
        endpoints: { a: 'ready', c: 'ready' },
        flows: (['pod b', 'node', 'client'] as const).map((from) => ({
          from,
          to: 'load balancer IP',
          want: answered(['a', 'c'], { seen: 'node' }),
        })),
      },
    ],
  },
  {
    name: 'ipMode Proxy: the address is left alone, the node port is not',
    id: 33,
    type: 'LoadBalancer',
    vip: 'node',
    ipMode: 'Proxy',
    // A program of the node listens there.
    ports: [{ name: '', protocol: 'TCP', port: 9000, targetPort: 8080 }],
    stages: [
      {
        endpoints: { a: 'ready' },
        flows: [
          ...EVERYWHERE.map((from) => ({ from, to: 'load balancer IP' as const, want: NOT_CAPTURED })),
          { from: 'client', to: 'node port', want: answered(['a']) },
        ],
      },
      { endpoints: {}, flows: [{ from: 'client', to: 'load balancer IP', want: NOT_CAPTURED }] },
    ],
  },
];

/** Everybody reaches pods a and b at an address of the node's ports. */
export function onNodePort(to: Frontend, more: Pick<Flow, 'otherwise'>): readonly Flow[] {
  const tcp = (['client', 'node', 'pod c'] as const).map((from) => ({
    from,
    to,
    want: answered(['a', 'b'], { seen: 'node' }),
    ...more,
  }));
  return [
    ...tcp,
    { from: 'client', to, over: 'udp', want: answered(['a', 'b'], { port: 8081, seen: 'node' }), ...more },
  ];
}

/** The addresses of node ports. */
export const nodePorts: readonly FlowCase[] = [
  {
    name: 'a node port answers on every address of the node',
    id: 40,
    type: 'NodePort',
    ports: TCP_UDP,
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [
          ...onNodePort('node port', {}),
          // By default, mode nftables has them on the node's own address alone; nobody listens on the others.
          ...onNodePort('node port, second address', { otherwise: { nftables: REFUSED } }),
          ...onNodePort('node port, pod gateway', { otherwise: { nftables: REFUSED } }),
        ],
      },
    ],
  },
];

const OUTSIDE_FRONTENDS: readonly Frontend[] = ['external IP', 'load balancer IP', 'node port'];

/** ClientIP affinity: kept for a service port, whatever address it is reached at. */
export const affinity: readonly FlowCase[] = [
  {
    name: 'ClientIP affinity: a pod for each client',
    id: 50,
    type: 'NodePort',
    spec: { sessionAffinity: 'ClientIP' },
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [
          { from: 'client', to: 'cluster IP', want: { kind: 'sticky', by: ['a', 'b'] } },
          { from: 'client', to: 'node port', want: { kind: 'sticky', by: ['a', 'b'] } },
        ],
      },
      {
        endpoints: { a: 'ready', b: 'ready', c: 'ready' },
        flows: [{ from: 'client', to: 'cluster IP', want: { kind: 'sticky', by: ['a', 'b'], asBefore: true } }],
      },
      {
        endpoints: { c: 'ready', d: 'ready' },
        flows: [{ from: 'client', to: 'cluster IP', want: { kind: 'sticky', by: ['c', 'd'], asBefore: false } }],
      },
    ],
  },
  {
    name: 'ClientIP affinity: the same pod at every frontend',
    id: 55,
    type: 'LoadBalancer',
    externalIP: true,
    spec: { sessionAffinity: 'ClientIP' },
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready', c: 'ready' },
        flows: [{ from: 'client', to: 'cluster IP', want: { kind: 'sticky', by: ['a', 'b', 'c'] } }],
      },
      {
        flows: OUTSIDE_FRONTENDS.map((to) => ({
          from: 'client',
          to,
          want: { kind: 'sticky', by: ['a', 'b', 'c'], asAt: 'cluster IP' },
        })),
      },
      {
        endpoints: { c: 'ready', d: 'ready' },
        flows: [{ from: 'client', to: 'node port', want: { kind: 'sticky', by: ['c', 'd'] } }],
      },
      {
        flows: [{ from: 'client', to: 'cluster IP', want: { kind: 'sticky', by: ['c', 'd'], asAt: 'node port' } }],
      },
    ],
  },
];
