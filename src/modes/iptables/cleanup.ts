/**
 * Takes everything of iptables mode out of the kernel. spec: iptables.md §18.
 *
 * What others share or made stays: KUBE-FIREWALL and its jumps, kubelet's chains, foreign chains and rules, the packet counters.
 *
 * @module
 */

import type { ChainName, Table } from '../../iptables/chain.ts';
import { cannotCleanUp, type Removable, type RemovedRules, removeChains } from '../../iptables/remove.ts';
import type { Tools } from '../../iptables/tools.ts';
import {
  CANARY,
  EXTERNAL_SERVICES,
  FORWARD,
  isServiceChain,
  KUBE_FIREWALL,
  MARK_MASQ,
  NODEPORTS,
  POSTROUTING,
  PROXY_FIREWALL,
  SERVICES,
} from './names.ts';
import { JUMPS } from './static.ts';

const TOP_LEVEL: Readonly<Record<Table, readonly ChainName[]>> = {
  filter: [SERVICES, EXTERNAL_SERVICES, FORWARD, NODEPORTS, PROXY_FIREWALL, CANARY],
  nat: [SERVICES, NODEPORTS, POSTROUTING, MARK_MASQ, CANARY],
};

type CleanupTools = Pick<Tools, 'family' | 'save' | 'restore' | 'hasChain' | 'deleteChain'>;

const REMOVABLE: Removable = {
  isOurs: (table, chain) =>
    TOP_LEVEL[table].some((name) => name === chain) || (table === 'nat' && isServiceChain(chain)),
  jumps: JUMPS.filter(({ rule: { target } }) => target?.kind !== 'jump' || target.chain !== KUBE_FIREWALL),
};

/** Cleans up one family. An error in one table does not keep the others from being cleaned; a second call finds nothing to do. */
export async function removeRules(tools: CleanupTools, signal?: AbortSignal): Promise<RemovedRules> {
  const removed = await removeChains(tools, REMOVABLE, signal);
  try {
    if (!(await tools.hasChain('mangle', CANARY, signal))) return removed;
    await tools.deleteChain('mangle', CANARY, signal);
    return { ...removed, chains: removed.chains + 1 };
  } catch (cause) {
    const error = cannotCleanUp(`table mangle of ${tools.family}`, cause);
    return { ...removed, errors: [...removed.errors, error] };
  }
}
