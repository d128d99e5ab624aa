/**
 * `lab up`: the lab with the tutorial's Services, kept until it is interrupted, for looking round by hand.
 *
 * @module
 */

import { once } from 'node:events';
import type { ModeName } from '../modes/mode.ts';
import { createLab, type Lab } from './lab.ts';
import { BALANCED, EXTERNAL_NAME, scaledTo, serviceObject } from './tutorial.ts';

export interface UpOptions {
  readonly mode: ModeName;
  readonly pods: number;
}

/** How to run commands in each namespace, and what to run. */
function directions(lab: Lab, mode: ModeName): string {
  const width = Math.max(...[lab.node, lab.client, ...lab.pods].map((n) => n.name.length));
  const enter = [lab.node, lab.client, ...lab.pods].map(
    (n) => `  ${n.name.padEnd(width)}  ${n.enter.join(' ')} COMMAND`,
  );
  return [
    'Run commands in a namespace (as root, or as the user who started this):',
    ...enter,
    '',
    `For example on the node:    ${mode === 'nftables' ? 'nft list table ip kube-proxy' : 'iptables-save -t nat'}      curl http://192.168.1.100:30080/`,
    'and as the API server has it, from outside:',
    `  kubectl --server ${lab.api.url} get services`,
    '',
    'Ctrl-C ends it; nothing stays.',
    '',
  ].join('\n');
}

/**
 * Runs a lab until `signal` aborts.
 *
 * @throws {LabUnavailableError} If this machine does not allow namespaces.
 */
export async function runUp(options: UpOptions, write: (text: string) => void, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await using lab = await createLab({ mode: options.mode, pods: options.pods });
  const { topology } = lab;
  const services = BALANCED.map((service) => serviceObject(topology, service));
  lab.apply([...services, EXTERNAL_NAME, ...scaledTo(topology, topology.pods)]);
  await lab.settled();
  write(directions(lab, options.mode));
  if (!signal.aborted) await once(signal, 'abort');
}
