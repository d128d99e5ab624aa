/**
 * The chains that the kernel's hooks call, and what they jump to: the same in both layouts and in kube-proxy, so that each can
 * take over from the others. spec: nftables.md §4.
 *
 * @module
 */

import type { ChainObject, Statement } from '../../netlink/nftables/transaction.ts';

/** Table of each family that holds everything this mode has in the kernel. */
export const TABLE = 'kube-proxy';
export const TABLE_COMMENT = 'rules for kube-proxy';

/** A chain that base chains jump to. Each layout has its own rules in it. */
export type JumpTarget =
  | 'nodeport-endpoints-check'
  | 'service-endpoints-check'
  | 'firewall-check'
  | 'services'
  | 'masquerading'
  | 'cluster-ips-check';

const NEW: Statement = { kind: 'ctStateNew' };

interface BaseChain {
  readonly chain: ChainObject;
  /** In order. */
  readonly jumps: readonly { readonly when: readonly Statement[]; readonly to: JumpTarget }[];
}

function base(
  type: 'filter' | 'nat',
  hook: NonNullable<ChainObject['base']>['hook'],
  priority: number,
  name: string,
  jumps: BaseChain['jumps'],
): BaseChain {
  return { chain: { name, base: { type, hook, priority } }, jumps };
}

const ifNew = (to: JumpTarget) => ({ when: [NEW], to });
const always = (to: JumpTarget) => ({ when: [], to });

/**
 * In the order of creation.
 *
 * The firewall looks at packets before their address is translated (priority -110 is just before dnat), checks for missing
 * endpoints and unknown ports see those that were not translated.
 */
export const BASE_CHAINS: readonly BaseChain[] = [
  base('filter', 'prerouting', -110, 'filter-prerouting-pre-dnat', [ifNew('firewall-check')]),
  base('filter', 'output', -110, 'filter-output-pre-dnat', [ifNew('firewall-check')]),
  base('filter', 'input', 0, 'filter-input', [ifNew('nodeport-endpoints-check'), ifNew('service-endpoints-check')]),
  base('filter', 'forward', 0, 'filter-forward', [ifNew('service-endpoints-check'), ifNew('cluster-ips-check')]),
  base('filter', 'output', 0, 'filter-output', [ifNew('service-endpoints-check'), ifNew('cluster-ips-check')]),
  base('nat', 'prerouting', -100, 'nat-prerouting', [always('services')]),
  base('nat', 'output', -100, 'nat-output', [always('services')]),
  base('nat', 'postrouting', 100, 'nat-postrouting', [always('masquerading')]),
];
