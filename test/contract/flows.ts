/**
 * The flow suites: the cases of `cases.ts`, and those that need a configuration of their own.
 *
 * @module
 */

import {
  affinity,
  clusterIP,
  EVERYWHERE,
  endpoints,
  loadBalancers,
  nodePorts,
  onNodePort,
  policies,
  singleStack,
  TCP_UDP,
} from './cases.ts';
import { answered, type FlowCase, type FlowSuite, REFUSED, SILENT } from './flow.ts';

const loopback: readonly FlowCase[] = [
  {
    name: 'a node port answers on the IPv4 loopback address, not on that of IPv6',
    id: 41,
    type: 'NodePort',
    ports: TCP_UDP,
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [
          { from: 'node', to: 'node port, loopback', family: 'IPv4', want: answered(['a', 'b'], { seen: 'node' }) },
          {
            from: 'node',
            to: 'node port, loopback',
            family: 'IPv4',
            over: 'udp',
            want: answered(['a', 'b'], { port: 8081, seen: 'node' }),
          },
          { from: 'node', to: 'node port, loopback', family: 'IPv6', want: REFUSED },
        ],
      },
    ],
  },
];

/** What the default configuration is asked for. */
export const MAIN: FlowSuite = {
  name: 'by default',
  config: {},
  cases: [...clusterIP, ...singleStack, ...endpoints, ...policies, ...loadBalancers, ...nodePorts, ...affinity],
};

/** Of iptables mode alone: others have no node ports on loopback. */
export const LOCALHOST_NODE_PORTS: FlowSuite = {
  name: 'node ports on loopback',
  config: { iptables: { localhostNodePorts: true } },
  cases: loopback,
};

/** A few rows of everything. */
export const CORE: FlowSuite = {
  name: 'the core',
  config: {},
  cases: MAIN.cases.filter(({ id }) => [1, 2, 3, 10, 20, 23, 30, 50].includes(id)),
};

/** nodePortAddresses names the node's second address. */
export const NODE_PORT_ADDRESSES: FlowSuite = {
  name: 'nodePortAddresses of one address',
  config: {
    nodePortAddresses: ['192.168.1.101/32', 'fd00:192:168:1::101/128'],
    iptables: { localhostNodePorts: false },
  },
  cases: [
    {
      name: 'a node port answers there alone',
      id: 42,
      type: 'NodePort',
      stages: [
        {
          endpoints: { a: 'ready' },
          flows: [
            ...EVERYWHERE.flatMap((from) => [
              { from, to: 'node port, second address' as const, want: answered(['a'], { seen: 'node' }) },
              // Nobody listens on the port, and the rules leave it alone.
              { from, to: 'node port' as const, want: REFUSED },
              { from, to: 'node port, pod gateway' as const, want: REFUSED },
            ]),
            { from: 'node', to: 'node port, loopback', want: REFUSED },
            { from: 'client', to: 'cluster IP', want: answered(['a']) },
          ],
        },
      ],
    },
  ],
};

/** Every address of the node but loopback has node ports, also in modes that have them on one by default. */
export const NODE_PORTS_EVERYWHERE: FlowSuite = {
  name: 'nodePortAddresses of every address',
  config: { nodePortAddresses: ['0.0.0.0/0', '::/0'], iptables: { localhostNodePorts: false } },
  cases: [
    {
      name: 'a node port answers on all of them',
      id: 43,
      type: 'NodePort',
      ports: TCP_UDP,
      stages: [
        {
          endpoints: { a: 'ready', b: 'ready' },
          flows: [
            ...(['node port', 'node port, second address', 'node port, pod gateway'] as const).flatMap((to) =>
              onNodePort(to, {}),
            ),
          ],
        },
        {
          endpoints: {},
          flows: (['node port', 'node port, second address', 'node port, pod gateway'] as const).flatMap((to) =>
            EVERYWHERE.map((from) => ({ from, to, want: REFUSED })),
          ),
        },
      ],
    },
  ],
};

/** Of nftables mode alone: what no Service has translated goes nowhere. */
export const NOT_SERVED: FlowSuite = {
  name: 'addresses for Services that lead nowhere',
  config: {},
  cases: [
    {
      name: 'an unknown port of a cluster IP is refused, an address that no Service has is silent',
      id: 44,
      type: 'NodePort',
      stages: [
        {
          endpoints: { a: 'ready' },
          flows: [
            ...EVERYWHERE.flatMap((from) => [
              { from, to: 'cluster IP' as const, want: answered(['a']) },
              { from, to: 'cluster IP, unknown port' as const, want: REFUSED },
              { from, to: 'unallocated cluster IP' as const, want: SILENT },
            ]),
            { from: 'node', to: 'node port, loopback', want: REFUSED },
          ],
        },
      ],
    },
  ],
};

/** All of the cluster's traffic is masqueraded. */
export const MASQUERADE_ALL: FlowSuite = {
  name: 'masqueradeAll',
  config: { iptables: { masqueradeAll: true }, nftables: { masqueradeAll: true }, ipvs: { masqueradeAll: true } },
  cases: [
    {
      name: 'a pod is masqueraded to the cluster IP',
      id: 60,
      type: 'NodePort',
      spec: { externalTrafficPolicy: 'Local' },
      stages: [
        {
          endpoints: { a: 'ready', c: 'ready' },
          flows: [
            { from: 'pod b', to: 'cluster IP', want: answered(['a', 'c'], { seen: 'node' }) },
            { from: 'client', to: 'node port', want: answered(['a'], { seen: 'itself' }) },
          ],
        },
      ],
    },
  ],
};

/** The proxy cannot tell pods from others: nothing of the inside is known. */
export const NO_LOCAL_DETECTION: FlowSuite = {
  name: 'no cluster CIDR',
  config: { clusterCIDR: '' },
  cases: [
    {
      name: 'traffic to the cluster IP keeps its sender; pods are outside for externalTrafficPolicy Local',
      id: 61,
      type: 'NodePort',
      spec: { externalTrafficPolicy: 'Local' },
      stages: [
        {
          endpoints: { a: 'ready', c: 'ready' },
          flows: [
            { from: 'pod b', to: 'cluster IP', want: answered(['a', 'c'], { seen: 'itself' }) },
            { from: 'client', to: 'cluster IP', want: answered(['a', 'c'], { seen: 'itself' }) },
            { from: 'pod b', to: 'node port', want: answered(['a'], { seen: 'itself' }) },
            { from: 'node', to: 'node port', want: answered(['a', 'c'], { seen: 'node' }) },
          ],
        },
        { endpoints: { c: 'ready' }, flows: [{ from: 'pod b', to: 'node port', want: SILENT }] },
      ],
    },
  ],
};

/** Affinity of a second, beside one of three hours. */
export const AFFINITY_TIMEOUT: FlowSuite = {
  name: 'affinity over time',
  config: {},
  cases: [1, 10_800].map((timeoutSeconds, i) => ({
    name: `a client that was away for longer than a second has its pod again if the time-out is ${timeoutSeconds} s`,
    id: 51 + i,
    spec: { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds } } },
    stages: [
      {
        endpoints: { a: 'ready', b: 'ready' },
        flows: [{ from: 'client', to: 'cluster IP', want: { kind: 'sticky', by: ['a', 'b'] } }],
      },
      {
        // The kernel counts in ticks, and a fraction of a second may be rounded up.
        afterMs: 2_200,
        flows: [
          {
            from: 'client',
            to: 'cluster IP',
            want: { kind: 'sticky', by: ['a', 'b'], asBefore: timeoutSeconds > 1 },
          },
        ],
      },
    ],
  })),
};

/** Over raw sockets, since kernels and Node may have no others for it. */
export const SCTP: FlowSuite = {
  name: 'SCTP',
  config: {},
  cases: [
    {
      name: 'SCTP is balanced, masqueraded and refused as TCP is',
      id: 70,
      type: 'LoadBalancer',
      externalIP: true,
      ports: [{ name: '', protocol: 'SCTP', port: 90, targetPort: 8090 }],
      stages: [
        {
          endpoints: { a: 'ready', b: 'ready' },
          flows: [
            { from: 'pod c', to: 'cluster IP', over: 'sctp', want: answered(['a', 'b'], { seen: 'itself' }) },
            { from: 'node', to: 'cluster IP', over: 'sctp', want: answered(['a', 'b'], { seen: 'node' }) },
            ...(['external IP', 'load balancer IP', 'node port'] as const).map((to) => ({
              from: 'client' as const,
              to,
              over: 'sctp' as const,
              want: answered(['a', 'b'], { seen: 'node' }),
            })),
          ],
        },
        {
          endpoints: {},
          flows: (['cluster IP', 'external IP', 'load balancer IP', 'node port'] as const).map((to) => ({
            from: 'client',
            to,
            over: 'sctp',
            want: REFUSED,
          })),
        },
      ],
    },
  ],
};
