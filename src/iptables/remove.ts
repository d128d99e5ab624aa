/**
 * Takes chains and the jumps to them out of the kernel. What others made stays.
 *
 * @module
 */

import { type ChainName, TABLES, type Table, toChainName } from './chain.ts';
import { formatSaved } from './format.ts';
import { parseSave, type SavedChain } from './parse.ts';
import type { Jump } from './rule.ts';
import type { Tools } from './tools.ts';

/** What is to go. */
export interface Removable {
  readonly isOurs: (table: Table, chain: string) => boolean;
  /** From built-in chains. Other rules that jump to chains of ours stay, and with them the chain. */
  readonly jumps: readonly Jump[];
}

/** What a removal came to. */
export interface RemovedRules {
  readonly chains: number;
  /** Those in the chains, and the jumps to them. */
  readonly rules: number;
  /** Chains that rules of somebody else jump to: they stay, empty, so that they do nothing. */
  readonly held: readonly ChainName[];
  /** What could not be done. */
  readonly errors: readonly Error[];
}

type RemovalTools = Pick<Tools, 'family' | 'save' | 'restore'>;

/** Cleans up one family. An error in one table does not keep the others from being cleaned; a second call finds nothing to do. */
export async function removeChains(
  tools: RemovalTools,
  removable: Removable,
  signal?: AbortSignal,
): Promise<RemovedRules> {
  let chains = 0;
  let rules = 0;
  const held = new Set<ChainName>();
  const errors: Error[] = [];
  for (const table of TABLES) {
    try {
      const saved = parseSave(await tools.save(table, signal)).get(table);
      if (saved === undefined) continue;
      const plan = planRemoval(table, saved, removable, tools);
      for (const name of plan.held) held.add(name);
      if (plan.text === '') continue;
      await tools.restore(plan.text, signal);
      chains += plan.chains;
      rules += plan.rules;
    } catch (cause) {
      errors.push(cannotCleanUp(`table ${table} of ${tools.family}`, cause));
    }
  }
  return { chains, rules, held: [...held], errors };
}

/** An error that says what was being cleaned up. */
export function cannotCleanUp(what: string, cause: unknown): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new Error(`Cannot clean up ${what}: ${why}`, { cause });
}

/**
 * One input that empties the chains of ours, takes the jumps to them away and then the chains. `text` is '' if there is
 * nothing to do.
 *
 * A chain that a foreign rule jumps to cannot go: it is left, empty, and named in `held`.
 */
function planRemoval(
  table: Table,
  chains: ReadonlyMap<string, SavedChain>,
  { isOurs, jumps }: Removable,
  { family }: Pick<Tools, 'family'>,
): Omit<RemovedRules, 'errors'> & { readonly text: string } {
  const ours = new Set([...chains.keys()].filter((name) => isOurs(table, name)));
  const going = new Set(
    jumps.filter((jump) => jump.table === table).map(({ from, rule }) => `${from} ${formatSaved(rule, family)}`),
  );
  const deletes: string[] = [];
  const held = new Set<string>();
  for (const [from, { rules }] of chains) {
    if (ours.has(from)) continue;
    for (const body of rules) {
      if (going.has(`${from} ${body}`)) deletes.push(`-D ${from} ${body}`);
      else {
        const target = / -[jg] (\S+)/.exec(` ${body}`)?.[1];
        if (target !== undefined && ours.has(target)) held.add(target);
      }
    }
  }
  const sizeOf = (name: string) => chains.get(name)?.rules.length ?? 0;
  // What is held and empty already has been dealt with.
  const names = [...ours].filter((name) => !held.has(name) || sizeOf(name) > 0).map(toChainName);
  const free = names.filter((name) => !held.has(name));
  const lines = [
    `*${table}`,
    ...names.map((name) => `:${name} - [0:0]`),
    ...deletes,
    ...free.map((name) => `-X ${name}`),
    'COMMIT',
  ];
  return {
    text: names.length === 0 && deletes.length === 0 ? '' : `${lines.join('\n')}\n`,
    chains: free.length,
    rules: deletes.length + names.reduce((sum, name) => sum + sizeOf(name), 0),
    held: [...held].map(toChainName),
  };
}
