/**
 * Arbitraries over a small universe: few names, so that events meet on the same objects.
 *
 * @module
 */

import fc from 'fast-check';
import { objectKey } from '../../src/proxier/slices.ts';
import type {
  Endpoint,
  EndpointSliceObject,
  NodeObject,
  ServiceObject,
  SliceEndpoint,
  SlicePort,
  WatchEvent,
} from '../../src/proxier/types.ts';
import { makeEndpoint, makeNode, makeService, makeSlice, makeSliceEndpoint, NODE_NAME } from './make.ts';

const arbZones = fc.subarray(['zone-a', 'zone-b'] as const);
const arbNodes = fc.subarray([NODE_NAME, 'other'] as const, { maxLength: 1 });
const arbProtocol = fc.constantFrom('TCP' as const, 'TCP' as const, 'TCP' as const, 'UDP' as const);
const arbPortName = fc.constantFrom('http', '');

/** Conditions of an endpoint; ready ones are as frequent as all others. */
const arbConditions = fc.constantFrom(
  { ready: true, serving: true, terminating: false },
  { ready: true, serving: true, terminating: false },
  { ready: false, serving: true, terminating: true },
  { ready: false, serving: false, terminating: false },
  { ready: false, serving: false, terminating: true },
  { ready: true, serving: true, terminating: true },
);

/** Up to six endpoints, no two of the same text, in the order of text. */
export const arbEndpoints: fc.Arbitrary<Endpoint[]> = fc
  .uniqueArray(
    fc.record({
      host: fc.integer({ min: 1, max: 9 }),
      isLocal: fc.boolean(),
      zoneHints: arbZones,
      nodeHints: arbNodes,
      conditions: arbConditions,
    }),
    { selector: (e) => e.host, maxLength: 6 },
  )
  .map((all) =>
    all
      .sort((a, b) => a.host - b.host)
      .map(({ host, conditions, ...rest }) => makeEndpoint(`10.180.0.${host}`, { ...rest, ...conditions })),
  );

const arbSliceEndpoint: fc.Arbitrary<SliceEndpoint> = fc
  .record({
    host: fc.integer({ min: 1, max: 6 }),
    nodeName: fc.constantFrom('', NODE_NAME, 'other'),
    zoneHints: arbZones,
    nodeHints: arbNodes,
    conditions: arbConditions,
  })
  .map(({ host, conditions, ...rest }) => makeSliceEndpoint(`10.180.0.${host}`, { ...rest, ...conditions }));

const arbSlicePort: fc.Arbitrary<SlicePort> = fc.record({
  name: fc.oneof({ arbitrary: arbPortName, weight: 9 }, { arbitrary: fc.constant(null), weight: 1 }),
  port: fc.oneof({ arbitrary: fc.constantFrom(80, 8080), weight: 9 }, { arbitrary: fc.constant(null), weight: 1 }),
  protocol: arbProtocol,
});

/** Services `ns1/a` and `ns1/b`, of every type and policy. Some are none of ours. */
export const arbService: fc.Arbitrary<ServiceObject> = fc
  .record({
    name: fc.constantFrom('a', 'b'),
    type: fc.constantFrom('ClusterIP', 'NodePort', 'LoadBalancer', 'LoadBalancer', 'ExternalName'),
    clusterIP: fc.oneof(
      { arbitrary: fc.constantFrom('172.30.1.1', '172.30.1.2', '172.030.1.1'), weight: 8 },
      { arbitrary: fc.constantFrom('fd00::1', 'None', 'bogus'), weight: 3 },
    ),
    // Empty lists of ports and endpoints are rows of tables; here they would only thin out what can go wrong.
    ports: fc.array(
      fc.record({
        name: arbPortName,
        protocol: arbProtocol,
        port: fc.constantFrom(80, 53),
        nodePort: fc.constantFrom(0, 30080),
      }),
      { minLength: 1, maxLength: 3, size: 'max' },
    ),
    sessionAffinity: fc.constantFrom('', 'None', 'ClientIP'),
    externalIPs: fc.subarray(['1.1.1.1', '2.2.2.2', 'fd00::9']),
    loadBalancerSourceRanges: fc.subarray(['10.0.0.0/8', ' 192.168.0.1/16', '0.0.0.0/0', 'fd00::/8'], { maxLength: 2 }),
    ingress: fc.subarray([
      { ip: '10.1.2.3', ipMode: undefined },
      { ip: '10.1.2.4', ipMode: 'Proxy' },
    ]),
    externalTrafficPolicy: fc.constantFrom('Cluster', 'Local', 'Local'),
    internalTrafficPolicy: fc.constantFrom('Cluster', 'Local'),
    healthCheckNodePort: fc.constantFrom(31000, 0, 31001),
  })
  .map((overrides) => makeService(overrides));

/** Slices `ns1/s1` to `ns1/s5`, whose label, ports and family may be anything at any time. */
export const arbSlice: fc.Arbitrary<EndpointSliceObject> = fc
  .record({
    name: fc.constantFrom('s1', 's2', 's3', 's4', 's5'),
    serviceName: fc.constantFrom('a', 'b', 'a', 'b', 'unknown', ''),
    addressType: fc.constantFrom('IPv4', 'IPv4', 'IPv4', 'IPv4', 'IPv6', 'FQDN'),
    ports: fc.array(arbSlicePort, { minLength: 1, maxLength: 3, size: 'max' }),
    endpoints: fc.array(arbSliceEndpoint, { maxLength: 5, size: 'max', minLength: 1 }),
    triggerTimeMs: fc.constantFrom(undefined, 1000, 2000),
  })
  .map((overrides) => makeSlice(overrides));

const arbNode: fc.Arbitrary<NodeObject> = fc.constantFrom('', 'zone-a', 'zone-b').map((zone) => makeNode({ zone }));

const arbDelete: fc.Arbitrary<WatchEvent> = fc.oneof(
  fc
    .constantFrom('a', 'b', 'c')
    .map((name): WatchEvent => ({ type: 'delete', kind: 'Service', key: objectKey('ns1', name) })),
  fc
    .constantFrom('s1', 's2', 's3', 's4', 's5')
    .map((name): WatchEvent => ({ type: 'delete', kind: 'EndpointSlice', key: objectKey('ns1', name) })),
);

/**
 * A history of the universe: upserts and deletes of Services, slices and our Node, in any order. Every object has a
 * resourceVersion of its own, and some come back as they were before (an undo).
 */
export const arbHistory: fc.Arbitrary<WatchEvent[]> = fc
  .array(
    fc.oneof(
      { arbitrary: arbService.map(upsert), weight: 4 },
      { arbitrary: arbSlice.map(upsert), weight: 6 },
      { arbitrary: arbNode.map(upsert), weight: 1 },
      { arbitrary: arbDelete, weight: 2 },
      { arbitrary: fc.nat(), weight: 2 },
    ),
    { minLength: 1, maxLength: 40, size: 'max' },
  )
  .map((parts) => {
    const history: WatchEvent[] = [];
    for (const [i, part] of parts.entries()) {
      if (typeof part === 'number') {
        // Tells an earlier event again, the same object with it.
        const earlier = history[part % Math.max(history.length, 1)];
        if (earlier !== undefined) history.push(earlier);
      } else if (part.type === 'upsert') {
        history.push({ type: 'upsert', object: { ...part.object, resourceVersion: String(i) } });
      } else history.push(part);
    }
    return history;
  });

function upsert(object: ServiceObject | EndpointSliceObject | NodeObject): WatchEvent {
  return { type: 'upsert', object };
}
