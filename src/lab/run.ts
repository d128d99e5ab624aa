/**
 * The demonstration: the tutorial's Services on a node of the lab, real requests to each, the rules they met, and
 * checks of everything that is claimed.
 *
 * @module
 */

import type { ModeName } from '../modes/mode.ts';
import type { Family } from '../proxier/types.ts';
import type { DemoEvent, Reporter, ToldRequest } from './demo.ts';
import { createLab, type Lab } from './lab.ts';
import type { Namespace } from './namespace.ts';
import { decodePodAnswer } from './request.ts';
import { addressOf, withoutPrefix } from './topology.ts';
import { BALANCED, CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, NODE_PORT, scaledTo, serviceObject } from './tutorial.ts';

/** What the rules of a mode are called, and where they do otherwise than others. */
interface Words {
  readonly clusterIP: string;
  readonly nodePort: string;
  /** Whether node ports answer on 127.0.0.1. */
  readonly hasLoopbackNodePorts: boolean;
  /** The chain for traffic from outside to default/nginx-loadbalancer. */
  readonly loadBalancerChain: string;
}

const IPTABLES_WORDS: Words = {
  clusterIP:
    'Reached from inside. KUBE-SERVICES finds the service, KUBE-SVC-… throws the dice, KUBE-SEP-… rewrites the\ndestination to a pod.',
  nodePort:
    'Reached from outside. KUBE-NODEPORTS stands last in KUBE-SERVICES; KUBE-EXT-… marks the packet, so that the pod\nanswers through the node (KUBE-POSTROUTING masquerades it).',
  hasLoopbackNodePorts: true,
  // The one the tutorial prints.
  loadBalancerChain: 'KUBE-EXT-2YKFRC5JDWUQ7NLU',
};

const NFTABLES_WORDS: Words = {
  clusterIP:
    'Reached from inside. One look-up in the map service-ips finds the service among all, its chain service-… throws the\ndice and rewrites the destination to a pod.',
  nodePort:
    'Reached from outside. The map service-nodeports knows the port; external-… marks the packet, so that the pod answers\nthrough the node (chain masquerading).',
  hasLoopbackNodePorts: false,
  loadBalancerChain: 'external-GJBKSMQO-default/nginx-loadbalancer/tcp/',
};

const WORDS: Readonly<Partial<Record<ModeName, Words>>> = { iptables: IPTABLES_WORDS, nftables: NFTABLES_WORDS };

/** Two pods fail to answer both in this many requests once in 2^31 runs. */
const MOST_REQUESTS = 32;

/**
 * A refusal that takes longer than this was a time-out of some kind. Over a link without delay the ICMPv6 error arrives
 * while connect() still holds the socket, and Linux then drops it (TcpExtLockDroppedIcmps): the second SYN, one second
 * later, is the one that is refused. With IPv4 the error is kept.
 */
const REFUSED_WITHIN_MS: Readonly<Record<Family, number>> = { IPv4: 500, IPv6: 2_000 };

interface Story {
  readonly lab: Lab;
  readonly words: Words;
  readonly tell: Reporter;
  check(name: string, ok: boolean, got: unknown): void;
  /** Makes a request, tells it, with all its rules when `rules` is set, and returns it. */
  ask(from: Namespace, address: string, port: number, rules?: 'rules' | 'quiet'): Promise<ToldRequest>;
}

const join = (address: string, port: number) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`);

function createStory(lab: Lab, words: Words, tell: Reporter): Story {
  return {
    lab,
    words,
    tell,
    check: (name, ok, got) =>
      tell({ kind: 'check', name, ok, got: typeof got === 'string' ? got : JSON.stringify(got) }),
    ask: async (from, address, port, rules) => {
      const { outcome, path } = await lab.trace(from, { address, port });
      const request = { from: from.name, to: join(address, port), outcome, answer: decodePodAnswer(outcome), path };
      if (rules !== 'quiet') tell({ kind: 'request', request, rules: rules === 'rules' });
      return request;
    },
  };
}

async function tellClusterIP(story: Story): Promise<void> {
  const { lab, tell, check, ask } = story;
  const [pod, ...others] = lab.pods;
  if (pod === undefined) return;
  tell({
    kind: 'chapter',
    title: `1. ClusterIP: ${CLUSTER_IP.name}`,
    about: story.words.clusterIP,
  });
  for (const family of lab.topology.families) {
    const address = CLUSTER_IP.clusterIPs[family];
    const self = lab.topology.pods[0];
    const own = self && addressOf(self, family);
    const gateway = withoutPrefix(lab.topology.node.gateways[family]);
    const first = await ask(pod, address, 80, 'rules');
    check(`${family}: a pod reaches the cluster IP`, first.answer !== undefined, first.outcome);

    const all = [first];
    const answered = () => new Set(all.flatMap((r) => r.answer?.pod ?? []));
    while (answered().size < 1 + others.length && all.length < MOST_REQUESTS) {
      all.push(await ask(pod, address, 80, 'quiet'));
    }
    const counts = [...answered()].map((name) => `${name} ${all.filter((r) => r.answer?.pod === name).length}`);
    check(`${family}: every pod answers (${counts.join(', ')})`, answered().size === 1 + others.length, counts);
    const ok = all.every((r) => r.answer?.client === (r.answer?.pod === pod.name ? gateway : own));
    check(
      `${family}: pods see the address of the pod that asks; one that reaches itself sees the node (${gateway})`,
      ok,
      all.map((r) => r.answer),
    );
  }
  const fromNode = await ask(lab.node, CLUSTER_IP.clusterIPs.IPv4, 80);
  check('the node itself reaches the cluster IP', fromNode.answer !== undefined, fromNode.outcome);
}

async function tellNodePort(story: Story): Promise<void> {
  const { lab, words, tell, check, ask } = story;
  const port = NODE_PORT.nodePort ?? 0;
  tell({
    kind: 'chapter',
    title: `2. NodePort: ${NODE_PORT.name}, port ${port} of every address of the node`,
    about: story.words.nodePort,
  });
  for (const family of lab.topology.families) {
    const address = addressOf(lab.topology.node, family);
    const outside = await ask(lab.client, address, port, family === 'IPv4' ? 'rules' : undefined);
    check(`${family}: the client reaches the node port`, outside.answer !== undefined, outside.outcome);
    check(
      `${family}: the pod sees the node, not the client`,
      outside.answer?.client === withoutPrefix(lab.topology.node.gateways[family]),
      outside.answer,
    );
  }
  const local = await ask(lab.node, '127.0.0.1', port);
  if (words.hasLoopbackNodePorts) {
    check('the node reaches the node port on its loopback address', local.answer !== undefined, local.outcome);
  } else {
    check('node ports do not answer on loopback addresses', local.outcome.kind === 'refused', local.outcome);
  }
}

async function tellLoadBalancer(story: Story): Promise<void> {
  const { lab, words, tell, check, ask } = story;
  tell({
    kind: 'chapter',
    title: `3. LoadBalancer: ${LOAD_BALANCER.name}, whose address is the node's`,
    about: "K3s's ServiceLB gives the service the addresses of the nodes.",
  });
  for (const family of lab.topology.families) {
    const address = addressOf(lab.topology.node, family);
    const r = await ask(lab.client, address, 80, family === 'IPv4' ? 'rules' : undefined);
    check(`${family}: the client reaches the load balancer's address`, r.answer !== undefined, r.outcome);
    check(
      `${family}: it went through ${words.loadBalancerChain}`,
      r.path?.chains.includes(words.loadBalancerChain) === true,
      r.path?.chains.join(' → ') ?? 'no path',
    );
  }
}

/** All rules of the node, both families. */
async function allRules(lab: Lab): Promise<string> {
  return (await Promise.all(lab.topology.families.map(lab.rules))).join('');
}

/** What differs, as `+ line` and `- line`; '' when nothing does. */
function difference(before: string, after: string): string {
  const [old, now] = [new Set(before.split('\n')), new Set(after.split('\n'))];
  const gone = [...old].filter((l) => !now.has(l)).map((l) => `- ${l}`);
  const come = [...now].filter((l) => !old.has(l)).map((l) => `+ ${l}`);
  if (gone.length + come.length === 0 && before !== after) return 'the same lines in another order';
  return [...gone, ...come].join('\n');
}

async function tellExternalName(story: Story): Promise<void> {
  const { lab, tell, check } = story;
  tell({
    kind: 'chapter',
    title: `4. ExternalName: ${EXTERNAL_NAME.metadata.name}`,
    about: 'A name in DNS and nothing else: the proxy has nothing to do.',
  });
  const before = await allRules(lab);
  lab.apply([EXTERNAL_NAME]);
  await lab.settled();
  const changed = difference(before, await allRules(lab));
  check(`no rule was added (${before.split('\n').length} lines before and after)`, changed === '', changed);
}

async function tellNoEndpoints(story: Story): Promise<void> {
  const { lab, tell, check, ask } = story;
  const { topology } = lab;
  tell({
    kind: 'chapter',
    title: '5. No pods left',
    about:
      'The deployment is scaled to zero. Nobody can answer, so the kernel says so at once instead of\nletting clients wait.',
  });
  lab.apply(scaledTo(topology, []));
  await lab.settled();
  const places: readonly [Namespace, string, number][] = [
    [lab.pods[0] ?? lab.node, CLUSTER_IP.clusterIPs.IPv4, 80],
    [lab.client, addressOf(topology.node, 'IPv4'), NODE_PORT.nodePort ?? 0],
    [lab.client, addressOf(topology.node, 'IPv4'), 80],
    ...(topology.families.includes('IPv6')
      ? [[lab.client, addressOf(topology.node, 'IPv6'), 80] satisfies [Namespace, string, number]]
      : []),
  ];
  for (const [from, address, port] of places) {
    const r = await ask(from, address, port, 'rules');
    const limitMs = REFUSED_WITHIN_MS[address.includes(':') ? 'IPv6' : 'IPv4'];
    check(
      `${r.from} → ${r.to} is refused by a REJECT rule, within ${limitMs} ms`,
      r.outcome.kind === 'refused' && r.outcome.ms < limitMs && r.path?.verdict === 'REJECT',
      { outcome: r.outcome, verdict: r.path?.verdict },
    );
  }
  tell({ kind: 'note', text: '\nScaled up again:' });
  lab.apply(scaledTo(topology, topology.pods));
  await lab.settled();
  const again = await ask(lab.client, addressOf(topology.node, 'IPv4'), 80);
  check('the client is answered again', again.answer !== undefined, again.outcome);
}

async function tellRestart(story: Story): Promise<void> {
  const { lab, tell, check, ask } = story;
  tell({
    kind: 'chapter',
    title: '6. The proxy is killed (SIGKILL) and started again',
    about: 'The rules are in the kernel: traffic does not need the proxy.',
  });
  const before = await allRules(lab);
  await lab.proxy.kill();
  const without = await ask(lab.client, addressOf(lab.topology.node, 'IPv4'), 80);
  check(
    'the client is answered while no proxy runs',
    without.answer !== undefined && !lab.proxy.running,
    without.outcome,
  );
  await lab.proxy.start();
  await lab.settled();
  const changed = difference(before, await allRules(lab));
  check('the new proxy found every rule as it must be', changed === '', changed);
}

const CHAPTERS = [tellClusterIP, tellNodePort, tellLoadBalancer, tellExternalName, tellNoEndpoints, tellRestart];

/**
 * Runs the demonstration.
 *
 * @param mode One whose rules the lab can read.
 * @param signal Ends it early; the lab is gone when the promise settles, in any case.
 * @returns True if every check passed.
 * @throws {LabUnavailableError} If this machine does not allow namespaces.
 * @throws If a step could not be done, or `signal` was aborted.
 */
export async function runDemo(mode: ModeName, report: Reporter, signal: AbortSignal): Promise<boolean> {
  const startedMs = performance.now();
  const elapsedMs = () => Math.round(performance.now() - startedMs);
  let passed = 0;
  let failed = 0;
  const tell = (event: DemoEvent) => {
    if (event.kind === 'check') event.ok ? passed++ : failed++;
    report(event);
  };
  signal.throwIfAborted();
  const words = WORDS[mode] ?? IPTABLES_WORDS;
  const lab = await createLab({ mode });
  // Whatever is under way then fails, and the story ends there.
  const stop = () => void lab.close();
  signal.addEventListener('abort', stop, { once: true });
  try {
    signal.throwIfAborted();
    const { topology } = lab;
    tell({ kind: 'lab', topology, ms: elapsedMs() });
    const services = BALANCED.map((service) => serviceObject(topology, service));
    lab.apply([...services, ...scaledTo(topology, topology.pods)]);
    await lab.settled();
    tell({ kind: 'services', services: [...services, EXTERNAL_NAME] });
    const story = createStory(lab, words, tell);
    for (const chapter of CHAPTERS) {
      signal.throwIfAborted();
      await chapter(story);
    }
  } finally {
    signal.removeEventListener('abort', stop);
    await lab.close();
    signal.throwIfAborted();
  }
  tell({ kind: 'end', passed, failed, ms: elapsedMs() });
  return failed === 0;
}
