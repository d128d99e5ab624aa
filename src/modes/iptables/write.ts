/**
 * Gives edits to `iptables-restore` and, when it refuses, finds out whose fault it is. spec: iptables.md §10.
 *
 * Each table of an input is one transaction, and the filter table is committed before nat is looked at. So after a refusal
 * it is known only in part what the kernel has, and whoever goes on reads the tables again.
 *
 * @module
 */

import { type ChainName, TABLES, type Table, toChainName } from '../../iptables/chain.ts';
import { RestoreRefusedError, saysMissingTarget } from '../../iptables/refusal.ts';
import type { Tools } from '../../iptables/tools.ts';
import type { Refusal } from '../mode.ts';
import { buildRestore, type Edit, type OwnedEdits, type RestoreInput } from './delta.ts';

/** Who is at fault. At least one of the lists is not empty. */
export interface Blame {
  /** One refusal per service. */
  readonly refusals: readonly Refusal[];
  /** Stale chains that something foreign still jumps to. */
  readonly held: readonly ChainName[];
  /**
   * Every rule refused goes to a chain that the same input declares. Other lines are also refused when somebody changed what
   * they refer to after it was read, and then their service is innocent.
   */
  readonly certain: boolean;
  /**
   * The input can be given again without what was refused: nothing of it reached the kernel, and the fault lies in the rules
   * and not in what the kernel has.
   */
  readonly repeatable: boolean;
}

/**
 * Reads the culprits off the lines a refusal names.
 *
 * @returns Undefined if a line leads to nobody: a COMMIT, the static part, a missing jump target, no line at all.
 */
export function blame(input: RestoreInput, error: RestoreRefusedError): Blame | undefined {
  if (error.lines.length === 0) return undefined;
  const refusals = new Map<string, Refusal>();
  const held: ChainName[] = [];
  const firstCommit = input.lines.indexOf('COMMIT') + 1;
  let certain = true;
  let repeatable = true;
  for (const { line, reason } of error.lines) {
    const rule = input.lines[line - 1];
    const owner = input.ownerOf(line);
    if (rule === undefined || owner === undefined || saysMissingTarget(reason)) return undefined;
    if (rule.startsWith('-X ')) {
      held.push(toChainName(rule.slice('-X '.length)));
      repeatable = false;
      continue;
    }
    if (!appendsToDeclared(input, line)) certain = false;
    if (line > firstCommit || !certain) repeatable = false;
    if (owner === 'static') return undefined;
    if (!refusals.has(owner)) refusals.set(owner, { service: owner, rule, reason });
  }
  return { refusals: [...refusals.values()], held, certain, repeatable };
}

function appendsToDeclared({ lines }: RestoreInput, line: number): boolean {
  const chain = /^-A (\S+)/.exec(lines[line - 1] ?? '')?.[1];
  if (chain === undefined) return false;
  const table = lines.findLastIndex((text, i) => i < line && text.startsWith('*'));
  const at = lines.indexOf(`:${chain} - [0:0]`, table);
  return at >= 0 && at < line;
}

/** Rules written, per table. */
export type RuleCounts = Record<Table, number>;

/** Adds the rules that an input writes (`-A` and `-I` lines) to `counts`. */
export function countWritten(input: RestoreInput, counts: RuleCounts): void {
  let table: Table = 'filter';
  for (const line of input.lines) {
    if (line.startsWith('-A ') || line.startsWith('-I ')) counts[table]++;
    else if (line.startsWith('*')) table = line === '*nat' ? 'nat' : 'filter';
  }
}

function ofTable(part: OwnedEdits, table: Table): OwnedEdits {
  return { owner: part.owner, edits: part.edits.filter((edit) => edit.table === table) };
}

/**
 * Writes what can be written, table by table and in halves where the whole is refused: with one culprit among n services about
 * 2 log2 n restores. What is not refused is in the kernel afterwards.
 *
 * @param parts - Edits of services, which do not depend on each other; static ones in front, which they depend on; and static ones
 *   behind, which depend on all of them.
 * @returns The services at fault. Of one refused in nat, the filter rules may have been written; static edits behind are not.
 * @throws {RestoreRefusedError} If the static part is refused by itself.
 */
export async function writeInHalves(
  tools: Pick<Tools, 'restore'>,
  parts: readonly OwnedEdits[],
  signal: AbortSignal | undefined,
): Promise<readonly Refusal[]> {
  const refusals = new Map<string, Refusal>();
  const halve = async (services: readonly OwnedEdits[]): Promise<void> => {
    const input = buildRestore(services);
    if (input.text === '') return;
    try {
      await tools.restore(input.text, signal);
    } catch (error) {
      if (!(error instanceof RestoreRefusedError)) throw error;
      const [only, ...others] = services;
      if (only === undefined || only.owner === 'static') throw error;
      if (others.length === 0) {
        const rule = input.lines.filter((line) => /^-[AI] /.test(line)).join('\n');
        if (!refusals.has(only.owner)) refusals.set(only.owner, { service: only.owner, rule, reason: error.reason });
        return;
      }
      const middle = services.length >> 1;
      await halve(services.slice(0, middle));
      await halve(services.slice(middle));
    }
  };
  const isStatic = ({ owner }: OwnedEdits) => owner === 'static';
  const services = parts.filter((part) => !isStatic(part));
  const first = parts.findIndex((part) => !isStatic(part));
  const leading = parts.slice(0, first < 0 ? parts.length : first).filter(isStatic);
  const trailing = first < 0 ? [] : parts.slice(first).filter(isStatic);
  for (const table of TABLES) {
    for (const part of leading) await halve([ofTable(part, table)]);
    await halve(services.map((part) => ofTable(part, table)).filter(({ edits }) => edits.length > 0));
  }
  // What a refused service still has may refer to chains that are to go.
  if (refusals.size > 0) return [...refusals.values()];
  for (const table of TABLES) for (const part of trailing) await halve([ofTable(part, table)]);
  return [];
}

/** Edits without those that take the given chains away: they stay, empty. */
export function withoutRemovals(part: OwnedEdits, kept: ReadonlySet<ChainName>): OwnedEdits {
  return { owner: part.owner, edits: part.edits.filter((edit) => edit.op !== 'remove' || !kept.has(edit.chain)) };
}

/** Edits that empty a stale chain and take it away. */
export function removal(chain: ChainName): readonly Edit[] {
  return [
    { op: 'declare', table: 'nat', chain },
    { op: 'remove', table: 'nat', chain },
  ];
}
