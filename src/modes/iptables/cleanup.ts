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

/** What a clean-up of one family came to. */
export interface RemovedRules {
  readonly chains: number;
  /** Those in the chains, and the jumps to them. */
  readonly rules: number;
  /** Chains that rules of somebody else jump to: they stay, empty, so that they do nothing. */
  readonly held: readonly ChainName[];
  /** What could not be done. */
  readonly errors: readonly Error[];
}

/** As `removeRules`. @returns What could not be done; empty when all of it is gone. */
export async function cleanUp(tools: CleanupTools, signal?: AbortSignal): Promise<readonly Error[]> {
  return (await removeRules(tools, signal)).errors;
}

/** Cleans up one family. An error in one table does not keep the others from being cleaned; a second call finds nothing to do. */
export async function removeRules(tools: CleanupTools, signal?: AbortSignal): Promise<RemovedRules> {
  let chains = 0;
  let rules = 0;
  const held = new Set<ChainName>();
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
      const saved = parseSave(await tools.save(table, signal)).get(table);
      if (saved === undefined) return;
      const plan = planCleanup(table, saved, tools);
      for (const name of plan.held) held.add(name);
      if (plan.text === '') return;
      await tools.restore(plan.text, signal);
      chains += plan.chains;
      rules += plan.rules;
    });
  }
  await attempt('table mangle', async () => {
    if (!(await tools.hasChain('mangle', CANARY, signal))) return;
    await tools.deleteChain('mangle', CANARY, signal);
    chains++;
  });
  return { chains, rules, held: [...held], errors };
}

/**
 * One input that empties the chains of ours, takes the jumps to them away and then the chains. `text` is '' if there is
 * nothing to do.
 *
 * A chain that a foreign rule jumps to cannot go: it is left, empty, and named in `held`.
 */
function planCleanup(
  table: Table,
  chains: ReadonlyMap<string, SavedChain>,
  { family }: Pick<Tools, 'family'>,
): Omit<RemovedRules, 'errors'> & { readonly text: string } {
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
  const sizeOf = (name: string) => chains.get(name)?.rules.length ?? 0;
  // What is held and empty already has been dealt with.
  const names = [...ours].filter((name) => !held.has(name) || sizeOf(name) > 0).map(toChainName);
  const going = names.filter((name) => !held.has(name));
  const lines = [
    `*${table}`,
    ...names.map((name) => `:${name} - [0:0]`),
    ...deletes,
    ...going.map((name) => `-X ${name}`),
    'COMMIT',
  ];
  return {
    text: names.length === 0 && deletes.length === 0 ? '' : `${lines.join('\n')}\n`,
    chains: going.length,
    rules: deletes.length + names.reduce((sum, name) => sum + sizeOf(name), 0),
    held: [...held].map(toChainName),
  };
}

function isTo({ target }: (typeof JUMPS)[number]['rule'], chain: ChainName): boolean {
  return target?.kind === 'jump' && target.chain === chain;
}
