/**
 * A K3s node as it is: the rules for Services beside flannel's, host ports by the portmap plugin, network policies, and ServiceLB with
 * addresses of nodes. In the modes of netfilter, and whoever came first.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { createLab, type Lab, type Target } from '../../src/lab/lab.ts';
import type { Namespace } from '../../src/lab/namespace.ts';
import { decodePodAnswer } from '../../src/lab/request.ts';
import { addressOf, withoutPrefix } from '../../src/lab/topology.ts';
import { BUILT_MODES, type ModeName } from '../../src/modes/mode.ts';
import { addFlannel, addHostPort, addNetworkPolicy, becomeServiceLB, moveNetworkPolicyUp } from '../lib/k3s-rules.ts';

t.setTimeout(300_000);

const SWITCHYARD = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));
const PLUGIN = '/usr/lib/cni/portmap';
if (!existsSync(PLUGIN))
  throw new Error(`Cannot test host ports: ${PLUGIN} is in Debian's containernetworking-plugins`);

/** Pods by what they are: an endpoint, one behind a network policy, the pod of ServiceLB. */
const [POD, GUARDED, SERVICE_LB] = [0, 1, 2];
const HOST_PORT = 8081;
const [WEB, LOCAL, GUARDED_SERVICE, LB] = ['10.43.0.80', '10.43.0.81', '10.43.0.82', '10.43.0.83'];

type IPMode = 'VIP' | 'Proxy';

function objects(lab: Lab, ipMode: IPMode): Parameters<Lab['apply']>[0] {
  const { node, pods } = lab.topology;
  const ip = (index: number) => addressOf(pods[index] ?? node, 'IPv4');
  const service = (name: string, spec: string, pod: number, status = '{}') => `
- {apiVersion: v1, kind: Service, metadata: {name: ${name}, namespace: default}, spec: ${spec}, status: ${status}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: ${name}-1, namespace: default, labels: {kubernetes.io/service-name: ${name}}},
   addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [${ip(pod)}], nodeName: ${node.name}}]}`;
  const ports = (nodePort: number) => `ports: [{name: http, port: 80, targetPort: 8080, nodePort: ${nodePort}}]`;
  // As K3s's ServiceLB writes it: addresses of nodes, this one's and another's.
  const ingress = [addressOf(node, 'IPv4'), '192.168.1.101'].map((address) => `{ip: ${address}, ipMode: ${ipMode}}`);
  return parse(
    [
      service('web', `{type: NodePort, clusterIP: ${WEB}, ${ports(30080)}}`, POD),
      service('local', `{type: NodePort, clusterIP: ${LOCAL}, externalTrafficPolicy: Local, ${ports(30081)}}`, POD),
      service('guarded', `{type: NodePort, clusterIP: ${GUARDED_SERVICE}, ${ports(30082)}}`, GUARDED),
      service(
        'lb',
        `{type: LoadBalancer, clusterIP: ${LB}, ${ports(30083)}}`,
        POD,
        `{loadBalancer: {ingress: [${ingress}]}}`,
      ),
    ].join(''),
  );
}

interface Row {
  readonly name: string;
  readonly from: (lab: Lab) => Namespace;
  readonly to: (lab: Lab) => Target;
  /** What becomes of it: the name of who answers and the address it sees, or how it fails. */
  readonly want: (lab: Lab) => string;
}

const node = (lab: Lab) => addressOf(lab.topology.node, 'IPv4');
const gateway = (lab: Lab) => withoutPrefix(lab.topology.node.gateways.IPv4);
const pod = (index: number) => (lab: Lab) => addressOf(lab.topology.pods[index] ?? lab.topology.node, 'IPv4');
const inPod = (index: number) => (lab: Lab) => lab.pods[index] ?? lab.node;
const client = (lab: Lab) => lab.client;
const at = (address: string, port: number) => () => ({ address, port });
const atNode = (port: number) => (lab: Lab) => ({ address: node(lab), port });
const answer = (index: number, seen: (lab: Lab) => string) => (lab: Lab) =>
  `${lab.topology.pods[index]?.name} sees ${seen(lab)}`;
const clientAddress = (lab: Lab) => addressOf(lab.topology.client, 'IPv4');
const refused = () => 'refused';

/** Programs outside listen here, to see who pods are. */
const OUTSIDE = { name: 'outside', port: 9000 };

const rows: readonly Row[] = [
  { name: 'a pod to a Service', from: inPod(SERVICE_LB), to: at(WEB, 80), want: answer(POD, pod(SERVICE_LB)) },
  { name: 'a pod to itself', from: inPod(POD), to: at(WEB, 80), want: answer(POD, gateway) },
  { name: 'the node to a Service', from: (lab) => lab.node, to: at(WEB, 80), want: answer(POD, gateway) },
  { name: 'a node port', from: client, to: atNode(30080), want: answer(POD, gateway) },
  { name: 'a node port, policy Local', from: client, to: atNode(30081), want: answer(POD, clientAddress) },
  {
    name: 'flannel: a pod to the outside',
    from: inPod(POD),
    to: (lab) => ({ address: clientAddress(lab), port: OUTSIDE.port }),
    want: (lab) => `${OUTSIDE.name} sees ${node(lab)}`,
  },
  { name: 'portmap: a host port', from: client, to: atNode(HOST_PORT), want: answer(POD, clientAddress) },
  {
    name: 'portmap: a host port, from a pod',
    from: inPod(SERVICE_LB),
    to: atNode(HOST_PORT),
    // The plugin masquerades what comes from the pods of its node.
    want: answer(POD, gateway),
  },
  { name: 'policy: who may', from: inPod(POD), to: at(GUARDED_SERVICE, 80), want: answer(GUARDED, pod(POD)) },
  { name: 'policy: who may not', from: inPod(SERVICE_LB), to: at(GUARDED_SERVICE, 80), want: refused },
  { name: 'policy: who may not, by the node port', from: client, to: atNode(30082), want: refused },
  {
    name: 'policy: the node may',
    from: (lab) => lab.node,
    to: at(GUARDED_SERVICE, 80),
    want: answer(GUARDED, gateway),
  },
];

/**
 * With its addresses translated here ServiceLB is passed by; if not, the request meets its pod first. The address of this node can be
 * either's: of two nat chains at one hook the one that came last is asked first, and its host port is one of them.
 */
const byIPMode: Readonly<Record<IPMode, readonly Row[]>> = {
  VIP: [
    {
      name: 'ServiceLB: a pod to another node',
      from: inPod(GUARDED),
      to: at('192.168.1.101', 80),
      want: answer(POD, gateway),
    },
  ],
  Proxy: [
    { name: 'ServiceLB: a client', from: client, to: atNode(80), want: answer(POD, pod(SERVICE_LB)) },
    { name: 'ServiceLB: a pod to this node', from: inPod(GUARDED), to: atNode(80), want: answer(POD, pod(SERVICE_LB)) },
  ],
};

async function ask(lab: Lab, row: Row): Promise<string> {
  const outcome = await lab.request(row.from(lab), row.to(lab));
  const told = decodePodAnswer(outcome);
  return told === undefined ? outcome.kind : `${told.pod} sees ${told.client.replace('::ffff:', '')}`;
}

async function check(t: Test, lab: Lab, when: string, list: readonly Row[]): Promise<void> {
  for (const row of list) t.equal(await ask(lab, row), row.want(lab), `${when}: ${row.name}`);
}

async function addOthers(lab: Lab): Promise<void> {
  await addFlannel(lab);
  await addHostPort(lab, POD, HOST_PORT, 8080);
  await addHostPort(lab, SERVICE_LB, 80, 80);
  await addNetworkPolicy(lab, pod(GUARDED)(lab), pod(POD)(lab));
}

/** Where a jump stands in a chain, from 0; -1 if it is not there. */
function positionOf(rules: readonly string[], chain: string, target: string): number {
  const jumps = rules.filter((line) => line.startsWith(`-A ${chain} `));
  return jumps.findIndex((line) => line.endsWith(`-j ${target}`));
}

/** Rules of iptables, but those of KUBE-FIREWALL, which kubelet writes too and a clean-up leaves. */
async function rulesOf({ node }: Lab): Promise<readonly string[]> {
  const saved = await node.exec.run({ argv: ['iptables-save'], timeoutMs: 10_000 });
  return saved.split('\n').filter((line) => /^-A (?!.*KUBE-FIREWALL)/.test(line));
}

async function onNode(t: Test, mode: ModeName, first: 'others' | 'switchyard'): Promise<void> {
  const ports = [{ kind: 'http' as const, port: 8080 }];
  const lab = await createLab({ mode, pods: 3, ports, startProxy: false });
  t.teardown(() => lab.close());
  await lab.client.ask('serve', { pod: OUTSIDE.name, ports: [{ kind: 'http', port: OUTSIDE.port }] });
  const addresses = () => lab.node.exec.run({ argv: ['ip', '-brief', 'address'], timeoutMs: 5_000 });
  // Refusals are ICMP errors, of which the kernel sends one address only one a second.
  await lab.node.ask('sysctl', [{ path: 'net/ipv4/icmp_ratelimit', value: '0', optional: false }]);
  await becomeServiceLB(inPod(SERVICE_LB)(lab), 80, LB);
  lab.apply(objects(lab, 'VIP'));
  const before = await addresses();
  if (first === 'others') await addOthers(lab);
  const untouched = await rulesOf(lab);
  await lab.proxy.start();
  await lab.settled();
  if (first === 'switchyard') await addOthers(lab);
  else await moveNetworkPolicyUp(lab);

  await check(t, lab, 'ipMode VIP', [...rows, ...byIPMode.VIP]);
  for (const from of [client, inPod(GUARDED)]) {
    const outcome = await lab.request(from(lab), atNode(80)(lab));
    t.equal(decodePodAnswer(outcome)?.pod, lab.topology.pods[POD]?.name, `ipMode VIP: ServiceLB: ${from(lab).name}`);
  }
  lab.apply(objects(lab, 'Proxy'));
  await lab.settled();
  await check(t, lab, 'ipMode Proxy', byIPMode.Proxy);
  t.equal(await addresses(), before, 'no address is claimed');

  await lab.proxy.stop();
  await lab.proxy.start();
  await lab.settled();
  t.equal(positionOf(await rulesOf(lab), 'FORWARD', 'KUBE-ROUTER-FORWARD'), 0, 'a restart leaves policies first');
  await check(t, lab, 'after a restart', rows);

  await lab.proxy.stop();
  await lab.node.exec.run({ argv: [SWITCHYARD, 'run', '--cleanup'], timeoutMs: 60_000 });
  if (first === 'others') t.same(await rulesOf(lab), untouched, 'a clean-up leaves the rules of others');
  await check(
    t,
    lab,
    'after a clean-up',
    rows.filter(({ name }) => /^(flannel|portmap)/.test(name)),
  );
}

/** The modes that put no address on an interface; where a kernel has what ipvs mode needs is for its own tests. */
const modes = (['iptables', 'nftables'] as const).filter((mode) => BUILT_MODES.includes(mode));

for (const mode of modes) {
  for (const first of ['others', 'switchyard'] as const) {
    t.test(`${mode}, ${first} first`, async (t) => onNode(t, mode, first));
  }
}
