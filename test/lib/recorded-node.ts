/**
 * A lab in place of a recorded scenario: its pods have the addresses of the recorded endpoints, its node has the rules that
 * kube-proxy left there, and its API server the objects.
 *
 * @module
 */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Flavour } from '../../src/iptables/tools.ts';
import type { JsonObject } from '../../src/lab/api/object.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { addressOf } from '../../src/lab/topology.ts';
import type { SteadyTarget } from './steady-client.ts';
import { routeOutside } from './switch-cluster.ts';

interface RecordedPort {
  readonly protocol: string;
  readonly port: number;
  readonly nodePort?: number;
}

interface RecordedObject {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec?: {
    readonly clusterIPs?: readonly string[];
    readonly ports?: readonly RecordedPort[];
    readonly loadBalancerSourceRanges?: readonly string[];
  };
  readonly status?: { readonly loadBalancer?: { readonly ingress?: readonly { readonly ip: string }[] } };
  readonly endpoints?: readonly { readonly addresses: readonly string[] }[];
}

interface Scenario {
  readonly proxy: JsonObject;
  readonly steps: readonly { readonly objects: readonly RecordedObject[] }[];
}

/** TCP ports that the endpoints of the recordings have. */
export const RECORDED_PORTS = [80, 53, 9153];
/** The one service that is left out of the objects: its rules are stale when another proxy takes over. */
const GONE = { name: 'kubernetes', clusterIP: '10.43.0.1' };

const folderOf = (scenario: string) => fileURLToPath(new URL(`../reference/${scenario}`, import.meta.url));
const familyOf = (address: string) => (address.includes(':') ? 'IPv6' : 'IPv4');

/** What the recordings hold is known: this repository has them. */
const decodeScenario = (text: string) => JSON.parse(text) as Scenario;

/** The last step of a recorded scenario. */
export class RecordedNode {
  readonly #folder: string;
  readonly #objects: readonly RecordedObject[];
  /** Of the KubeProxyConfiguration. */
  readonly proxy: JsonObject;

  constructor(scenario: string) {
    this.#folder = folderOf(scenario);
    const { proxy, steps } = decodeScenario(readFileSync(`${this.#folder}/scenario.json`, 'utf8'));
    this.proxy = proxy;
    const objects = steps.at(-1)?.objects ?? [];
    this.#objects = objects.filter(({ metadata }) => metadata.name !== GONE.name);
  }

  /** Gives pods, routes and objects to a lab. */
  async furnish(lab: Lab): Promise<void> {
    const { node, pods } = lab;
    const addresses = this.#objects.flatMap(({ endpoints = [] }) => endpoints.flatMap((e) => e.addresses));
    await Promise.all(
      pods.map((pod, i) => {
        const mine = [...new Set(addresses)].filter((_, n) => n % pods.length === i);
        const lines = mine.map((a) => `address add ${a}/${a.includes(':') ? '128 nodad' : '32'} dev eth0`);
        return pod.exec.run({ argv: ['ip', '-batch', '-'], stdin: `${lines.join('\n')}\n`, timeoutMs: 10_000 });
      }),
    );
    const { bridge } = lab.topology.node;
    const routes = ['10.42.1.0/24', '10.42.2.0/24', 'fd00:10:42:1::/64'].map((to) => `route add ${to} dev ${bridge}`);
    await node.exec.run({ argv: ['ip', '-batch', '-'], stdin: `${routes.join('\n')}\n`, timeoutMs: 10_000 });
    await routeOutside(lab, ['fd00:43::/64', '2001:db8::/64']);
    lab.api.apply(this.#objects, 'asGiven');
  }

  /** Loads what kube-proxy in iptables mode had programmed. */
  async loadIptables(lab: Lab, flavour: Flavour): Promise<void> {
    for (const tool of ['iptables', 'ip6tables']) {
      const text = readFileSync(`${this.#folder}/iptables/00.${tool}`, 'utf8');
      for (const [, counter = ''] of text.matchAll(/--nfacct-name\s+(\S+)/g)) {
        // It is there already from the second rule on.
        await lab.node.exec.run({ argv: ['nfacct', 'add', counter], timeoutMs: 10_000 }).catch(() => {});
      }
      // The restore wants counters behind a chain.
      const stdin = text.replace(/^(:\S+ \S+)$/gm, '$1 [0:0]');
      await lab.node.exec.run({ argv: [`${tool}-${flavour}-restore`], stdin, timeoutMs: 10_000 });
    }
  }

  /** Loads what kube-proxy in nftables mode had programmed. */
  async loadNftables(lab: Lab): Promise<void> {
    await lab.node.exec.run({ argv: ['nft', '-f', `${this.#folder}/nftables/00.nft`], timeoutMs: 10_000 });
  }

  /** Everything that the client outside is allowed to reach by TCP. */
  targets({ topology }: Lab): readonly SteadyTarget[] {
    return this.#objects.flatMap(({ kind, metadata: { name }, spec, status }) => {
      if (kind !== 'Service' || spec === undefined) return [];
      const clusterIPs = spec.clusterIPs ?? [];
      return (spec.ports ?? []).flatMap(({ protocol, port, nodePort }) => {
        if (protocol !== 'TCP') return [];
        const balancers = spec.loadBalancerSourceRanges
          ? []
          : (status?.loadBalancer?.ingress ?? []).map(({ ip }) => ip);
        const nodes = nodePort ? clusterIPs.map((ip) => addressOf(topology.node, familyOf(ip))) : [];
        return [
          ...clusterIPs.map((address) => ({ name: `${name}, cluster IP ${address}`, address, port })),
          ...nodes.map((address) => ({ name: `${name}, node port`, address, port: nodePort ?? 0 })),
          ...balancers.map((address) => ({ name: `${name}, balancer ${address}`, address, port })),
        ];
      });
    });
  }

  /** True if a dump has rules of a service that is not among the objects. */
  hasStale(dump: string): boolean {
    return new RegExp(`\\b${GONE.clusterIP.replaceAll('.', '\\.')}(?!\\d)|default/${GONE.name}/`).test(dump);
  }
}
