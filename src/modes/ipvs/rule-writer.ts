/**
 * The iptables rules of this mode in the kernel: whole chains are written, and only those that differ.
 *
 * @module
 */

import type { Table } from '../../iptables/chain.ts';
import { formatRestore, formatSaved } from '../../iptables/format.ts';
import { parseSave, type SavedChain } from '../../iptables/parse.ts';
import type { Tools } from '../../iptables/tools.ts';
import type { SyncOptions } from '../mode.ts';
import type { IpvsOptions } from './options.ts';
import { type Chain, JUMPS, type RuleInput, renderRules } from './rules.ts';

/** nat first, as kube-proxy writes them: each table of a restore is a transaction of its own. */
const TABLES: readonly Table[] = ['nat', 'filter'];

export interface RuleWriter {
  /** Makes the rules be there. @param options - `full`: the kernel is read first; otherwise it has what was written last. */
  write(input: RuleInput, options: SyncOptions, signal?: AbortSignal): Promise<void>;
  /** True if the kernel does not have what was written last. */
  differs(signal?: AbortSignal): Promise<boolean>;
}

export interface RuleWriterDeps {
  readonly tools: Pick<Tools, 'save' | 'restore'>;
  /** A restore was refused, or did not get its turn. */
  readonly onRestoreFailed: () => void;
}

/** What one table takes. */
interface TableEdits {
  readonly chains: readonly Chain[];
  readonly jumps: readonly string[];
}

export function createRuleWriter({ tools, onRestoreFailed }: RuleWriterDeps, options: IpvsOptions): RuleWriter {
  /** What the kernel has, one text a chain; undefined if it may have anything. */
  let written: ReadonlyMap<string, string> | undefined;
  let last: readonly Chain[] = [];

  async function read(signal: AbortSignal | undefined) {
    const saved = new Map<Table, ReadonlyMap<string, SavedChain>>();
    for (const table of TABLES) {
      saved.set(table, parseSave(await tools.save(table, signal)).get(table) ?? new Map());
    }
    return saved;
  }

  function differences(
    chains: readonly Chain[],
    saved: ReadonlyMap<Table, ReadonlyMap<string, SavedChain>>,
    table: Table,
  ): TableEdits {
    const there = saved.get(table);
    const isThere = ({ name, rules }: Chain) => {
      const has = there?.get(name)?.rules;
      return has?.length === rules.length && rules.every((rule, i) => formatSaved(rule, options.family) === has[i]);
    };
    return {
      chains: chains.filter((chain) => chain.table === table && !isThere(chain)),
      jumps: JUMPS.filter((jump) => jump.table === table)
        .filter(({ from, rule }) => !there?.get(from)?.rules.includes(formatSaved(rule, options.family)))
        .map(({ from, rule }) => `-I ${from} ${formatRestore(rule)}`),
    };
  }

  return {
    async write(input, { full }, signal) {
      const chains = renderRules(options, input);
      const had = full ? undefined : written;
      written = undefined;
      let edits: readonly (readonly [Table, TableEdits])[];
      if (had === undefined) {
        const saved = await read(signal);
        edits = TABLES.map((table) => [table, differences(chains, saved, table)]);
      } else {
        const changed = chains.filter((chain) => had.get(keyOf(chain)) !== textOf(chain));
        edits = TABLES.map((table) => [table, { chains: changed.filter((c) => c.table === table), jumps: [] }]);
      }
      const text = edits.map(([table, of]) => tableText(table, of)).join('');
      try {
        if (text !== '') await tools.restore(text, signal);
      } catch (error) {
        if (!signal?.aborted) onRestoreFailed();
        throw error;
      }
      last = chains;
      written = new Map(chains.map((chain) => [keyOf(chain), textOf(chain)]));
    },
    async differs(signal) {
      const saved = await read(signal);
      return TABLES.some((table) => tableText(table, differences(last, saved, table)) !== '');
    },
  };
}

/** Two tables have a chain of one name. */
function keyOf({ table, name }: Chain): string {
  return `${table} ${name}`;
}

function textOf({ rules }: Chain): string {
  return rules.map((rule) => formatRestore(rule)).join('\n');
}

/** Declaring a chain empties it; then its rules come, and jumps last, to chains that are complete. */
function tableText(table: Table, { chains, jumps }: TableEdits): string {
  if (chains.length === 0 && jumps.length === 0) return '';
  const lines = [
    `*${table}`,
    ...chains.map(({ name }) => `:${name} - [0:0]`),
    ...chains.flatMap(({ name, rules }) => rules.map((rule) => `-A ${name} ${formatRestore(rule)}`)),
    ...jumps,
    'COMMIT',
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/** Everything as one input of `iptables-restore --noflush`, jumps included: for people. */
export function formatRules(chains: readonly Chain[]): string {
  return TABLES.map((table) =>
    tableText(table, {
      chains: chains.filter((chain) => chain.table === table),
      jumps: JUMPS.filter((jump) => jump.table === table).map(({ from, rule }) => `-I ${from} ${formatRestore(rule)}`),
    }),
  ).join('');
}
