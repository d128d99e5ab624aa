/**
 * Real UDP flows through `switchyard run`: what a change leaves behind in connection tracking is gone when the proxy has settled,
 * and everything else is still there. A flow is told by the port its client sends from; the client sends from the same
 * one before and after, as a program does that keeps its socket.
 */
import t, { type Test } from 'tap';
import type { JsonObject, KubeObject } from '../../src/lab/api/object.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import type { Namespace } from '../../src/lab/namespace.ts';
import { decodePodAnswer } from '../../src/lab/request.ts';
import { addressOf } from '../../src/lab/topology.ts';
import type { ModeName } from '../../src/modes/mode.ts';
import type { Family } from '../../src/proxier/types.ts';

if (process.getuid?.() !== 0) {
  t.fail('Cannot test flows as an ordinary user: run it as root');
  process.exit(1);
}
// Run alone, a file of tap has 30 s.
t.setTimeout(300_000);

const STRANGER = 'program outside';
const NODE_PORT = 30053;

const IPS: Readonly<Record<Family, { cluster: string; external: string; vip: string; network: string; pod: string }>> =
  {
    IPv4: {
      cluster: '10.43.9.9',
      external: '203.0.113.9',
      vip: '203.0.113.10',
      network: '203.0.113.0/24',
      pod: '10.42.0.',
    },
    IPv6: {
      cluster: 'fd00:10:43::99',
      external: 'fd00:f00::9',
      vip: 'fd00:f00::10',
      network: 'fd00:f00::/64',
      pod: 'fd00:10:42::',
    },
  };

/** The Service `dns` of a family. `spec` is laid over the usual. */
function service(family: Family, spec: JsonObject = {}, vip?: string): KubeObject {
  const { cluster } = IPS[family];
  const port = (name: string, protocol: string) => ({ name, protocol, port: 53, targetPort: 53 });
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'dns', namespace: 'default' },
    spec: {
      type: 'ClusterIP',
      clusterIP: cluster,
      clusterIPs: [cluster],
      ipFamilies: [family],
      ports: [port('dns', 'UDP'), port('dns-tcp', 'TCP')],
      ...spec,
    },
    ...(vip === undefined ? {} : { status: { loadBalancer: { ingress: [{ ip: vip }] } } }),
  };
}

/** Its slice: pods by number, counted from 0. `terminating` ones still serve. */
function slice(family: Family, pods: readonly number[], terminating: readonly number[] = []): KubeObject {
  const endpoint = (n: number, ready: boolean) => ({
    addresses: [`${IPS[family].pod}${11 + n}`],
    conditions: { ready, serving: true, terminating: !ready },
  });
  const object: KubeObject & JsonObject = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'dns-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'dns' } },
    addressType: family,
    endpoints: [...pods.map((n) => endpoint(n, true)), ...terminating.map((n) => endpoint(n, false))],
    ports: [
      { name: 'dns', protocol: 'UDP', port: 53 },
      { name: 'dns-tcp', protocol: 'TCP', port: 53 },
    ],
  };
  return object;
}

/** Who sends where, and what comes of it: the number of the pod that answers, or how the request ends. */
interface Ask {
  readonly from: 'client' | 'pod';
  readonly to: 'cluster' | 'external' | 'vip' | 'node' | 'outside';
  readonly before: string;
  /** The flow after the change, before its client sends again. */
  readonly flow: 'kept' | 'gone';
  /** Undefined: not asked again. */
  readonly after?: string;
}

interface Story {
  readonly name: string;
  readonly before: (family: Family) => readonly KubeObject[];
  readonly after: (family: Family) => readonly KubeObject[];
  /** Of those in `before`. */
  readonly removed?: readonly string[];
  readonly asks: readonly Ask[];
}

const EXTERNAL_SPEC = (family: Family, more: JsonObject = {}): JsonObject => ({
  externalIPs: [IPS[family].external],
  ...more,
});
const NODE_PORT_SPEC: JsonObject = {
  type: 'NodePort',
  ports: [{ name: 'dns', protocol: 'UDP', port: 53, targetPort: 53, nodePort: NODE_PORT }],
};

const stories: readonly Story[] = [
  {
    name: 'an endpoint is replaced',
    before: (f) => [service(f), slice(f, [0])],
    after: (f) => [slice(f, [1])],
    asks: [
      { from: 'client', to: 'cluster', before: 'pod 0', flow: 'gone', after: 'pod 1' },
      { from: 'pod', to: 'cluster', before: 'pod 0', flow: 'gone', after: 'pod 1' },
    ],
  },
  {
    name: 'an endpoint comes: healthy flows are kept',
    before: (f) => [service(f), slice(f, [0])],
    after: (f) => [slice(f, [0, 1])],
    asks: [{ from: 'client', to: 'cluster', before: 'pod 0', flow: 'kept', after: 'pod 0' }],
  },
  {
    name: 'an endpoint terminates and still serves',
    before: (f) => [service(f), slice(f, [0])],
    after: (f) => [slice(f, [1], [0])],
    asks: [{ from: 'client', to: 'cluster', before: 'pod 0', flow: 'kept', after: 'pod 0' }],
  },
  {
    name: 'the last endpoint goes',
    before: (f) => [service(f), slice(f, [0])],
    after: (f) => [slice(f, [])],
    asks: [{ from: 'client', to: 'cluster', before: 'pod 0', flow: 'gone', after: 'refused' }],
  },
  {
    name: 'the Service is deleted',
    before: (f) => [service(f), slice(f, [0])],
    after: () => [],
    removed: ['Service'],
    asks: [{ from: 'client', to: 'cluster', before: 'pod 0', flow: 'gone', after: 'nobody' }],
  },
  {
    name: 'the Service comes to a flow that was there',
    before: () => [],
    after: (f) => [service(f), slice(f, [1])],
    asks: [{ from: 'client', to: 'cluster', before: 'nobody', flow: 'gone', after: 'pod 1' }],
  },
  {
    name: 'external address and load balancer address are removed',
    before: (f) => [
      service(f, EXTERNAL_SPEC(f, { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false }), IPS[f].vip),
      slice(f, [0]),
    ],
    after: (f) => [service(f)],
    asks: [
      { from: 'client', to: 'external', before: 'pod 0', flow: 'gone', after: 'nobody' },
      { from: 'client', to: 'vip', before: 'pod 0', flow: 'gone', after: 'nobody' },
      { from: 'client', to: 'cluster', before: 'pod 0', flow: 'kept', after: 'pod 0' },
    ],
  },
  {
    name: 'a node port, while a stranger uses its number',
    before: (f) => [service(f, NODE_PORT_SPEC), slice(f, [0])],
    after: (f) => [slice(f, [1])],
    asks: [
      { from: 'client', to: 'node', before: 'pod 0', flow: 'gone', after: 'pod 1' },
      { from: 'pod', to: 'outside', before: STRANGER, flow: 'kept', after: STRANGER },
    ],
  },
  {
    name: 'a node port is given back',
    before: (f) => [service(f, NODE_PORT_SPEC), slice(f, [0])],
    after: (f) => [service(f)],
    asks: [
      { from: 'client', to: 'node', before: 'pod 0', flow: 'gone' },
      { from: 'pod', to: 'outside', before: STRANGER, flow: 'kept', after: STRANGER },
      { from: 'client', to: 'cluster', before: 'pod 0', flow: 'kept', after: 'pod 0' },
    ],
  },
];

async function withLab(mode: ModeName, family: Family, test: (lab: Lab) => Promise<void>): Promise<void> {
  const ports = [
    { kind: 'udp' as const, port: 53 },
    { kind: 'tcp' as const, port: 53 },
  ];
  await using lab = await createLab({ mode, pods: 3, ports });
  const route = { IPv4: ['ip'], IPv6: ['ip', '-6'] }[family];
  const argv = [...route, 'route', 'add', IPS[family].network, 'via', addressOf(lab.topology.node, family)];
  await lab.client.exec.run({ argv: ['env', ...argv], timeoutMs: 5_000 });
  await lab.client.ask('serve', { pod: STRANGER, ports: [{ kind: 'udp', port: NODE_PORT }] });
  await lab.settled();
  await test(lab);
}

/** Ports that UDP flows of the node's table are sent from. */
async function flowSources(lab: Lab, family: Family): Promise<Set<number>> {
  const argv = ['conntrack', '-L', '-p', 'udp', '-f', family.toLowerCase()] as const;
  const list = await lab.node.exec.run({ argv: [...argv], timeoutMs: 5_000 });
  return new Set(list.split('\n').map((line) => Number(/ sport=(\d+)/.exec(line)?.[1])));
}

async function who(lab: Lab, family: Family, { from, to }: Ask, fromPort: number): Promise<string> {
  const { topology } = lab;
  const sender: Namespace = (from === 'client' ? lab.client : lab.pods[2]) ?? lab.client;
  const hosts = { node: addressOf(topology.node, family), outside: addressOf(topology.client, family) };
  const address = to === 'node' || to === 'outside' ? hosts[to] : IPS[family][to];
  const port = to === 'node' || to === 'outside' ? NODE_PORT : 53;
  const outcome = await lab.request(sender, { address, port, kind: 'udp', fromPort, timeoutMs: 1_000 });
  const pod = decodePodAnswer(outcome)?.pod;
  const index = topology.pods.findIndex(({ name }) => name === pod);
  if (outcome.kind === 'answered') return index === -1 ? String(pod) : `pod ${index}`;
  return outcome.kind === 'refused' ? 'refused' : 'nobody';
}

async function tell(t: Test, lab: Lab, family: Family, { before, after, removed = [], asks }: Story): Promise<void> {
  const deleted = async () =>
    (await lab.proxy.metrics())?.get(`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="${family}"}`) ??
    0;
  const objects = before(family);
  lab.apply(objects);
  await lab.settled();
  const numbered = asks.map((ask, i) => ({ ask, fromPort: 41_000 + i, name: `${ask.from} to ${ask.to}` }));
  for (const { ask, fromPort, name } of numbered)
    t.equal(await who(lab, family, ask, fromPort), ask.before, `${name}, before`);
  const known = await flowSources(lab, family);
  for (const { fromPort, name } of numbered) t.ok(known.has(fromPort), `${name} is a flow`);

  const deletedBefore = await deleted();
  lab.api.delete(objects.filter(({ kind }) => removed.includes(kind)));
  lab.apply(after(family));
  await lab.settled();
  const left = await flowSources(lab, family);
  for (const { ask, fromPort, name } of numbered) {
    t.equal(left.has(fromPort) ? 'kept' : 'gone', ask.flow, `${name}: the flow`);
    if (ask.after !== undefined) t.equal(await who(lab, family, ask, fromPort), ask.after, `${name}, after`);
  }
  t.equal(
    (await deleted()) - deletedBefore,
    asks.filter(({ flow }) => flow === 'gone').length,
    'flows deleted, as counted',
  );
}

/** Takes everything away, the flows too. */
async function clear(lab: Lab, family: Family): Promise<void> {
  lab.api.delete([service(family), slice(family, [])]);
  await lab.settled();
  await lab.node.exec.run({ argv: ['conntrack', '-F'], timeoutMs: 5_000 });
}

t.jobs = 2;
/** Flows are looked at beside the mode; it must have moved the way of new ones before they are. */
const MODES: readonly ModeName[] = ['iptables', 'nftables'];
const RUNS = MODES.flatMap((mode) => (['IPv4', 'IPv6'] as const).map((family) => ({ mode, family })));
for (const { mode, family } of RUNS) {
  t.test(`${mode}, ${family}`, { buffered: true }, async (t) => {
    await withLab(mode, family, async (lab) => {
      for (const story of stories) {
        await t.test(story.name, async (t) => {
          await tell(t, lab, family, story);
          await clear(lab, family);
        });
      }

      await t.test('a TCP connection to an endpoint that goes lives on', async (t) => {
        lab.apply([service(family), slice(family, [0])]);
        await lab.settled();
        const args = { kind: 'tcp', path: '/', timeoutMs: 2_000, from: undefined, fromPort: 0, port: 53 } as const;
        const { id, greeting } = await lab.client.ask('open', { ...args, address: IPS[family].cluster });
        t.equal(greeting.kind, 'line');
        lab.apply([slice(family, [1])]);
        await lab.settled();
        const said = await lab.client.ask('say', { id, text: 'still there?', timeoutMs: 2_000 });
        t.equal(said.kind, 'line');
        await lab.client.ask('hangup', { id });
        await clear(lab, family);
      });

      await t.test('after a restart flows of what has gone meanwhile are cleaned up', async (t) => {
        lab.apply([service(family), slice(family, [0])]);
        await lab.settled();
        const ask: Ask = { from: 'client', to: 'cluster', before: '', flow: 'gone' };
        t.equal(await who(lab, family, ask, 42_000), 'pod 0');
        await lab.proxy.kill();
        lab.apply([slice(family, [1])]);
        await lab.proxy.start();
        await lab.settled();
        t.equal(await who(lab, family, ask, 42_000), 'pod 1');
      });
    });
  });
}
