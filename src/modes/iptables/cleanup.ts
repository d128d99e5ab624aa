/**
 * Takes everything of iptables mode out of the kernel. spec: iptables.md §18.
 *
 * What others share or made stays: KUBE-FIREWALL and its jumps, kubelet's chains, foreign chains and rules, the packet counters.
 *
 * @module
 */

import { formatSaved } from './format.ts';
import {
  CANARY,
  type ChainName,
  EXTERNAL_SERVICES,
  FORWARD,
  isServiceChain,
  KUBE_FIREWALL,
  MARK_MASQ,
  NODEPORTS,
  POSTROUTING,
  PROXY_FIREWALL,
  SERVICES,
  TABLES,
  type Table,
  toChainName,
} from './names.ts';
import { parseSave, type SavedChain } from './parse.ts';
import { JUMPS } from './static.ts';
import type { Tools } from './tools.ts';

const TOP_LEVEL: Readonly<Record<Table, readonly ChainName[]>> = {
  filter: [SERVICES, EXTERNAL_SERVICES, FORWARD, NODEPORTS, PROXY_FIREWALL, CANARY],
  nat: [SERVICES, NODEPORTS, POSTROUTING, MARK_MASQ, CANARY],
};

type CleanupTools = Pick<Tools, 'family' | 'save' | 'restore' | 'hasChain' | 'deleteChain'>;

/**
 * Cleans up one family. An error in one table does not keep the others from being cleaned.
 *
 * @returns What could not be done; empty when all of it is gone. A second call finds nothing to do.
 */
export async function cleanUp(tools: CleanupTools, signal?: AbortSignal): Promise<readonly Error[]> {
  const errors: Error[] = [];
  const attempt = async (what: string, act: () => Promise<void>) => {
    try {
      await act();
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      errors.push(new Error(`Cannot clean up ${what} of ${tools.family}: ${why}`, { cause }));
    }
  };
  for (const table of TABLES) {
    await attempt(`table ${table}`, async () => {
      const chains = parseSave(await tools.save(table, signal)).get(table);
      const text = chains && renderCleanup(table, chains, tools);
      if (text) await tools.restore(text, signal);
    });
  }
  await attempt('table mangle', async () => {
    if (await tools.hasChain('mangle', CANARY, signal)) await tools.deleteChain('mangle', CANARY, signal);
  });
  return errors;
}

/**
 * One input that empties the chains of ours, takes the jumps to them away and then the chains. '' if there is nothing of ours.
 *
 * A chain that a foreign rule jumps to cannot go: it is left, empty.
 */
export function renderCleanup(
  table: Table,
  chains: ReadonlyMap<string, SavedChain>,
  { family }: Pick<Tools, 'family'>,
): string {
  const ours = new Set<string>(TOP_LEVEL[table].filter((name) => chains.has(name)));
  if (table === 'nat') for (const name of chains.keys()) if (isServiceChain(name)) ours.add(name);
  const jumps = new Set(
    JUMPS.filter(({ table: of, rule }) => of === table && !isTo(rule, KUBE_FIREWALL)).map(
      ({ from, rule }) => `${from} ${formatSaved(rule, family)}`,
    ),
  );
  const deletes: string[] = [];
  const held = new Set<string>();
  for (const [from, { rules }] of chains) {
    if (ours.has(from)) continue;
    for (const body of rules) {
      if (jumps.has(`${from} ${body}`)) deletes.push(`-D ${from} ${body}`);
      else {
        const target = / -[jg] (\S+)/.exec(` ${body}`)?.[1];
        if (target !== undefined && ours.has(target)) held.add(target);
      }
    }
  }
  // What is held and empty already has been dealt with.
  const names = [...ours]
    .filter((name) => !held.has(name) || (chains.get(name)?.rules.length ?? 0) > 0)
    .map(toChainName);
  if (names.length === 0 && deletes.length === 0) return '';
  const lines = [
    `*${table}`,
    ...names.map((name) => `:${name} - [0:0]`),
    ...deletes,
    ...names.filter((name) => !held.has(name)).map((name) => `-X ${name}`),
    'COMMIT',
  ];
  return `${lines.join('\n')}\n`;
}

function isTo({ target }: (typeof JUMPS)[number]['rule'], chain: ChainName): boolean {
  return target?.kind === 'jump' && target.chain === chain;
}
