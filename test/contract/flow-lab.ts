/**
 * A lab for flows: beside its usual it has second addresses, routes to external ones, and SCTP.
 *
 * @module
 */

import { fileURLToPath } from 'node:url';
import { isJsonObject, type JsonObject } from '../../src/lab/api/object.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import type { Namespace } from '../../src/lab/namespace.ts';
import type { PodAnswer, RequestOutcome } from '../../src/lab/protocol.ts';
import { addressOf, withoutPrefix } from '../../src/lab/topology.ts';
import type { ModeName } from '../../src/modes/mode.ts';
import type { Family } from '../../src/proxier/types.ts';
import { type FlowSuite, PODS, type Source } from './flow.ts';
import {
  EXTERNAL_NETWORKS,
  SECOND_ADDRESS,
  STRANGER,
  serviceCIDRManifest,
  UNALLOCATED_NETWORKS,
  VIP_NETWORKS,
} from './manifests.ts';

const SCTP_PROGRAM = fileURLToPath(new URL('./sctp.pl', import.meta.url));
/** Served on the node itself, to see whether its own address is left alone. */
export const NODE_PROGRAM = { name: 'node program', port: 9000 };

/** Enough that chance does not give all of them one pod. */
const STICKY_CLIENTS = 24;

/** What the same flows are sent through. */
export interface FlowRun {
  readonly mode: ModeName;
  /** As `LabOptions.program`. */
  readonly program?: readonly [string, ...string[]];
  /** Fields of sections of the configuration, beside those of the suite. */
  readonly config?: Readonly<Record<string, JsonObject>>;
}

/** Addresses of the clients whose affinity is looked at. */
export function clientAddresses(family: Family): string[] {
  const base = { IPv4: '192.168.1.', IPv6: 'fd00:192:168:1::' }[family];
  return Array.from({ length: STICKY_CLIENTS }, (_, i) => `${base}${201 + i}`);
}

/**
 * A lab with what the flows need beside its usual: second addresses, routes to external addresses, servers.
 *
 * @throws {LabUnavailableError} As `createLab`.
 */
export async function createFlowLab(suite: Pick<FlowSuite, 'config'>, run: FlowRun): Promise<Lab> {
  const ports = [8080, 8081].flatMap((port) => [
    { kind: 'tcp' as const, port },
    { kind: 'udp' as const, port },
  ]);
  const config: JsonObject = { ...suite.config };
  for (const [section, fields] of Object.entries(run.config ?? {})) {
    const own = config[section];
    config[section] = isJsonObject(own) ? { ...own, ...fields } : fields;
  }
  const lab = await createLab({ ...run, pods: PODS.length, ports, config });
  try {
    const { node, client, topology } = lab;
    const ip = (namespace: Namespace, lines: readonly string[]) =>
      namespace.exec.run({ argv: ['ip', '-batch', '-'], stdin: `${lines.join('\n')}\n`, timeoutMs: 10_000 });
    // Deprecated, or IPv6 would choose one of them to send from.
    const add = (family: Family, address: string) =>
      `address add ${address}${family === 'IPv4' ? '/24 dev eth0' : '/64 dev eth0 nodad preferred_lft 0'}`;
    // Refusals are ICMP errors, of which the kernel sends one address only a few a second.
    const unlimited = (path: string, value: string) => ({ path: `net/${path}`, value, optional: true });
    await node.ask('sysctl', [
      unlimited('ipv4/icmp_ratelimit', '0'),
      unlimited('ipv4/icmp_msgs_per_sec', '100000'),
      unlimited('ipv4/icmp_msgs_burst', '100000'),
      unlimited('ipv6/icmp/ratelimit', '0'),
    ]);
    const { families } = topology;
    const [podD, inPodD] = [topology.pods.at(-1), lab.pods.at(-1)];
    if (podD === undefined || inPodD === undefined) throw new Error('Cannot route to a pod: the lab has none');
    await ip(node, [
      ...families.map((f) => add(f, SECOND_ADDRESS[f])),
      ...families.map((f) => `route add ${UNALLOCATED_NETWORKS[f]} via ${addressOf(podD, f)}`),
    ]);
    await ip(
      inPodD,
      families.map((f) => `route add local ${UNALLOCATED_NETWORKS[f]} dev lo`),
    );
    lab.apply([serviceCIDRManifest(topology)]);
    await ip(client, [
      ...families.flatMap((f) => [STRANGER[f], ...clientAddresses(f)].map((address) => add(f, address))),
      ...families.flatMap((f) =>
        [EXTERNAL_NETWORKS[f], VIP_NETWORKS[f], withoutPrefix(topology.node.gateways[f])].map(
          (to) => `route replace ${to} via ${addressOf(topology.node, f)} dev eth0`,
        ),
      ),
    ]);
    await node.ask('serve', { pod: NODE_PROGRAM.name, ports: [{ kind: 'tcp', port: NODE_PROGRAM.port }] });
    return lab;
  } catch (error) {
    await lab.close();
    throw error;
  }
}

export interface Sender {
  readonly namespace: Namespace;
  readonly from: string | undefined;
}

/** Who sends the flows of a source. */
export function senderOf(lab: Lab, source: Source, family: Family): Sender {
  const [a, b, c] = lab.pods;
  switch (source) {
    case 'pod a':
      return { namespace: a ?? lab.node, from: undefined };
    case 'pod b':
      return { namespace: b ?? lab.node, from: undefined };
    case 'pod c':
      return { namespace: c ?? lab.node, from: undefined };
    case 'node':
      return { namespace: lab.node, from: undefined };
    case 'node, first address':
      return { namespace: lab.node, from: addressOf(lab.topology.node, family) };
    case 'node, second address':
      return { namespace: lab.node, from: SECOND_ADDRESS[family] };
    case 'client':
      return { namespace: lab.client, from: addressOf(lab.topology.client, family) };
    case 'stranger':
      return { namespace: lab.client, from: STRANGER[family] };
  }
}

/** INITs one after the other, and who answers them, in the form of every other request. */
export async function askSctp(
  from: Namespace,
  to: { readonly address: string; readonly port: number; readonly timeoutMs: number },
  times: number,
): Promise<RequestOutcome[]> {
  const version = to.address.includes(':') ? '6' : '4';
  const { address, port, timeoutMs } = to;
  const told = await from.exec.run({
    argv: ['perl', SCTP_PROGRAM, 'ask', version, address, String(port), String(timeoutMs / 1000), String(times)],
    timeoutMs: times * timeoutMs + 5_000,
  });
  return told
    .trimEnd()
    .split('\n')
    .map((line) => sctpOutcome(line));
}

/** Reads a line of `sctp.pl ask`. */
function sctpOutcome(line: string): RequestOutcome {
  const [time = '', word = '', pod = '', client = ''] = line.split(' ');
  const ms = Number(time);
  if (word === 'refused') return { kind: 'refused', code: 'ECONNREFUSED', ms };
  if (word === 'timeout') return { kind: 'timeout', ms };
  if (word !== 'answered') return { kind: 'failed', code: line, ms };
  const answer: PodAnswer = { pod, address: '', port: 0, client, clientPort: 0 };
  return { kind: 'answered', status: 200, text: JSON.stringify(answer), ms };
}

/** Starts the SCTP answerers in every pod; resolves when all of them listen. */
export async function serveSctp(lab: Lab, port: number): Promise<void> {
  await Promise.all(
    lab.pods.flatMap((pod) =>
      lab.topology.families.map(async (family) => {
        const version = family === 'IPv4' ? '4' : '6';
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        const early = new Set<number>();
        let pid = 0;
        pod.onEvent((said) => {
          if (said.event === 'exit') reject(new Error(`Cannot serve SCTP in ${pod.name}: perl ended (${said.status})`));
          else if (said.pid === pid) resolve();
          else early.add(said.pid);
        });
        pid = (await pod.ask('start', { argv: ['perl', SCTP_PROGRAM, 'serve', version, String(port), pod.name] })).pid;
        if (early.has(pid)) resolve();
        await promise;
      }),
    ),
  );
}
