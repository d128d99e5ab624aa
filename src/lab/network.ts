/**
 * Builds a topology out of namespaces: node, client, pods, and the links between them.
 *
 * @module
 */

import { existsSync } from 'node:fs';
import type { Family } from '../proxier/types.ts';
import { clientLinks, endSysctls, nodeLinks, nodeSysctls, podLinks } from './links.ts';
import { createNamespace, createNodeNamespace, type Namespace, namespacePath } from './namespace.ts';
import { type Host, labTopology, type Topology } from './topology.ts';

export interface Network {
  readonly topology: Topology;
  readonly node: Namespace;
  readonly client: Namespace;
  /** In the order of `topology.pods`. */
  readonly pods: readonly Namespace[];
  /** Ends every process in the lab; namespaces and links go with them. */
  close(): Promise<void>;
}

/** Families this kernel has. */
export function kernelFamilies(): Family[] {
  return existsSync('/proc/sys/net/ipv6') ? ['IPv4', 'IPv6'] : ['IPv4'];
}

/** Runs `ip -batch` in a namespace: one process for all lines. */
async function ip(namespace: Namespace, lines: readonly string[]): Promise<void> {
  await namespace.exec.run({ argv: ['ip', '-batch', '-'], stdin: `${lines.join('\n')}\n`, timeoutMs: 10_000 });
}

/**
 * Builds the network.
 *
 * @throws {LabUnavailableError} If this machine does not allow it. Nothing is left behind then.
 */
export async function createNetwork(podCount: number): Promise<Network> {
  const topology = labTopology(podCount, kernelFamilies());
  const node = await createNodeNamespace(topology.node.name);
  try {
    const ends = await Promise.all([topology.client, ...topology.pods].map((host) => createNamespace(host.name, node)));
    const [client, ...pods] = ends;
    if (client === undefined)
      throw new Error('Cannot build the network: the client has no namespace, it must have one');

    await node.ask('sysctl', nodeSysctls(topology));
    await Promise.all(ends.map((end) => end.ask('sysctl', endSysctls(topology))));

    const byName = new Map(ends.map((end) => [end.name, end]));
    const namespaceOf = (host: Host) => namespacePath(byName.get(host.name) ?? node);
    await ip(node, nodeLinks(topology, namespaceOf));
    await Promise.all([
      ip(client, clientLinks(topology)),
      ...topology.pods.map((pod, i) => ip(pods[i] ?? node, podLinks(topology, pod))),
    ]);
    const close = async () => {
      await node.close();
      await Promise.all(ends.map((end) => end.close()));
    };
    return { topology, node, client, pods, close };
  } catch (error) {
    await node.close();
    throw error;
  }
}
