/**
 * What it takes to get from the rules there are to the rules wanted, as edits of single chains and rules, and as one
 * input for `iptables-restore --noflush`. Pure.
 *
 * Chains of one service are rewritten whole. The top-level chains that services share are edited and never rewritten:
 * rewriting KUBE-SERVICES costs as much as all services together.
 *
 * @module
 */

import { type ChainName, TABLES, type Table, toChainName } from '../../iptables/chain.ts';
import { formatRestore, formatSaved } from '../../iptables/format.ts';
import type { SavedChain, SavedRules } from '../../iptables/parse.ts';
import type { Rule } from '../../iptables/rule.ts';
import { assertNever, compareText, type Family, type ObjectKey } from '../../proxier/types.ts';
import { isServiceChain, KUBE_FIREWALL } from './names.ts';
import type { ServiceRules, SharedRules } from './render.ts';
import { JUMPS, type StaticChain } from './static.ts';

/** Where an edit comes from: a service, or the part that does not depend on services. */
export type Owner = ObjectKey | 'static';

export type Edit =
  /** Creates the chain, or empties it. */
  | { readonly op: 'declare'; readonly table: Table; readonly chain: ChainName }
  /** Takes away the first rule that is equal to `body`, which may be in either form. */
  | { readonly op: 'delete'; readonly table: Table; readonly chain: ChainName; readonly body: string }
  | { readonly op: 'append'; readonly table: Table; readonly chain: ChainName; readonly body: string }
  /** At the head of the chain. */
  | { readonly op: 'insert'; readonly table: Table; readonly chain: ChainName; readonly body: string }
  /** Takes away an empty chain that nothing jumps to. */
  | { readonly op: 'remove'; readonly table: Table; readonly chain: ChainName };

/** Edits of one owner. Their order counts within one `op`; `buildRestore` orders the ops. */
export interface OwnedEdits {
  readonly owner: Owner;
  readonly edits: readonly Edit[];
}

/** Chains exist before a rule jumps to them, and nothing jumps to them any more when they go. */
const OPS: readonly Edit['op'][] = ['declare', 'delete', 'append', 'insert', 'remove'];

function write(table: Table, chain: ChainName, rules: readonly Rule[]): Edit[] {
  const edits: Edit[] = [{ op: 'declare', table, chain }];
  for (const rule of rules) edits.push({ op: 'append', table, chain, body: formatRestore(rule) });
  return edits;
}

/** Puts rules at the head of a chain so that they stand there in their order. */
function insert({ table, chain, rules }: SharedRules): Edit[] {
  return rules.map((rule): Edit => ({ op: 'insert', table, chain, body: formatRestore(rule) })).reverse();
}

const sameTexts = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((x, i) => x === b[i]);

function sameRules(a: readonly Rule[], b: readonly Rule[]): boolean {
  return a.length === b.length && sameTexts(a.map(formatRestore), b.map(formatRestore));
}

/**
 * From one rendering of a service to another. Undefined stands for a service that does not exist.
 *
 * Cheap enough to render the old one anew from its plan instead of keeping its rules in memory.
 *
 * @returns Nothing where nothing differs.
 */
export function serviceDelta(before: ServiceRules | undefined, after: ServiceRules | undefined): readonly Edit[] {
  const edits: Edit[] = [];
  for (const [chain, rules] of after?.owned ?? []) {
    const had = before?.owned.get(chain);
    if (had === undefined || !sameRules(had, rules)) edits.push(...write('nat', chain, rules));
  }
  for (const chain of before?.owned.keys() ?? []) {
    if (!after?.owned.has(chain))
      edits.push({ op: 'declare', table: 'nat', chain }, { op: 'remove', table: 'nat', chain });
  }
  const key = ({ table, chain, port }: SharedRules) => `${table} ${chain} ${port}`;
  const old = new Map((before?.shared ?? []).map((part) => [key(part), part]));
  for (const part of after?.shared ?? []) {
    const had = old.get(key(part));
    if (had !== undefined && sameRules(had.rules, part.rules)) old.delete(key(part));
    else edits.push(...insert(part));
  }
  for (const { table, chain, rules } of old.values()) {
    for (const rule of rules) edits.push({ op: 'delete', table, chain, body: formatRestore(rule) });
  }
  return edits;
}

/**
 * From one rendering of the static part to another. Undefined stands for nothing known: every chain is created, **or
 * emptied of what services have in it**; where rules may exist, `deltaFromDump` is the one to ask.
 */
export function staticDelta(
  before: readonly StaticChain[] | undefined,
  after: readonly StaticChain[],
): readonly Edit[] {
  const edits: Edit[] = [];
  for (const { table, name: chain, kind, rules } of after) {
    const had = before?.find((c) => c.table === table && c.name === chain);
    if (had !== undefined && sameRules(had.rules, rules)) continue;
    if (had === undefined || kind === 'whole') {
      edits.push(...write(table, chain, rules));
      continue;
    }
    for (const rule of had.rules) edits.push({ op: 'delete', table, chain, body: formatRestore(rule) });
    for (const rule of rules) edits.push({ op: 'append', table, chain, body: formatRestore(rule) });
  }
  return edits;
}

/** What a first or full sync has to write. To be written in this order, or all at once. */
export interface DumpDelta {
  /** Static chains and rules, and jumps. */
  readonly before: OwnedEdits;
  /**
   * One entry per service that differs, last key first: rules are inserted at the head, so the first key comes to stand first.
   * They may be written some at a time, behind `before`: rules in shared chains name their service in a comment, so equal rules,
   * which `-D` cannot tell apart, are of one service, and no part takes away what another has put there.
   */
  readonly services: readonly OwnedEdits[];
  /** Takes away what nobody wants: rules in our chains, and chains of services and endpoints that are gone. */
  readonly after: OwnedEdits;
}

/** What must be in the kernel. */
export interface Wanted {
  readonly family: Family;
  readonly statics: readonly StaticChain[];
  /** In any order. Gone through once; each rendering may be made when it is asked for. */
  readonly services: Iterable<readonly [ObjectKey, ServiceRules]>;
}

interface Group {
  readonly owner: ObjectKey;
  readonly part: SharedRules;
  /** The rules as the dump would have them. */
  readonly saved: readonly string[];
}

/**
 * From a dump of the kernel's rules to the rules wanted: start over existing rules, and repair.
 *
 * Foreign chains are not touched, nor what foreigners have in the built-in chains; what they put into chains of ours is
 * taken away. A jump that exists stays where it is. KUBE-FIREWALL, shared with kubelet, is made if it is missing and
 * rewritten only if a rule of ours belongs into it.
 *
 * @returns No edits at all where the dump is what is wanted, up to the order across service ports.
 */
export function deltaFromDump(dump: SavedRules, { family, statics, services }: Wanted): DumpDelta {
  const before: Edit[] = [];
  const after: Edit[] = [];
  const byService = new Map<ObjectKey, Edit[]>();
  const editsOf = (owner: ObjectKey): Edit[] => {
    const known = byService.get(owner);
    if (known !== undefined) return known;
    const made: Edit[] = [];
    byService.set(owner, made);
    return made;
  };
  const saved = (rules: readonly Rule[]) => rules.map((rule) => formatSaved(rule, family));
  const nat = dump.get('nat') ?? new Map<string, SavedChain>();

  const active = new Set<string>();
  const groups = new Map<string, Group[]>();
  for (const [owner, { owned, shared }] of services) {
    for (const [chain, rules] of owned) {
      active.add(chain);
      const there = nat.get(chain);
      if (there === undefined || !sameTexts(there.rules, saved(rules)))
        editsOf(owner).push(...write('nat', chain, rules));
    }
    for (const part of shared) {
      const key = `${part.table} ${part.chain}`;
      const group = { owner, part, saved: saved(part.rules) };
      const known = groups.get(key);
      if (known === undefined) groups.set(key, [group]);
      else known.push(group);
    }
  }

  for (const chain of statics) {
    const there = dump.get(chain.table)?.get(chain.name);
    if (chain.kind === 'shared') {
      const sharers = groups.get(`${chain.table} ${chain.name}`) ?? [];
      editShared({ chain, there, sharers, trailing: saved(chain.rules), before, after, editsOf });
    } else if (there === undefined || !sameTexts(there.rules, saved(chain.rules))) {
      before.push(...write(chain.table, chain.name, chain.rules));
    }
  }
  const hasFirewall = statics.some(({ name }) => name === KUBE_FIREWALL);
  if (!hasFirewall && !dump.get('filter')?.has(KUBE_FIREWALL)) {
    before.push({ op: 'declare', table: 'filter', chain: KUBE_FIREWALL });
  }
  for (const { table, from, rule } of JUMPS) {
    if (dump.get(table)?.get(from)?.rules.includes(formatSaved(rule, family))) continue;
    before.push({ op: 'insert', table, chain: from, body: formatRestore(rule) });
  }

  const held = foreignTargets(nat, statics);
  for (const [name, { rules }] of nat) {
    if (!isServiceChain(name) || active.has(name)) continue;
    const chain = toChainName(name);
    if (!held.has(name)) after.push({ op: 'declare', table: 'nat', chain }, { op: 'remove', table: 'nat', chain });
    // A foreign rule jumps to it, so the kernel would refuse to let it go: it stays, empty.
    else if (rules.length > 0) after.push({ op: 'declare', table: 'nat', chain });
  }

  return {
    before: { owner: 'static', edits: before },
    services: [...byService]
      .sort(([a], [b]) => compareText(b, a))
      .map(([owner, edits]): OwnedEdits => ({ owner, edits })),
    after: { owner: 'static', edits: after },
  };
}

/** Chains that rules in chains not ours jump to. */
function foreignTargets(chains: ReadonlyMap<string, SavedChain>, statics: readonly StaticChain[]): ReadonlySet<string> {
  const ours = new Set<string>(statics.filter(({ table }) => table === 'nat').map(({ name }) => name));
  const targets = new Set<string>();
  for (const [name, { rules }] of chains) {
    if (ours.has(name) || isServiceChain(name)) continue;
    for (const rule of rules) {
      const target = / -[jg] (KUBE-\S+)/.exec(` ${rule}`)?.[1];
      if (target !== undefined) targets.add(target);
    }
  }
  return targets;
}

interface SharedEdit {
  readonly chain: StaticChain;
  readonly there: SavedChain | undefined;
  readonly sharers: readonly Group[];
  readonly trailing: readonly string[];
  readonly before: Edit[];
  readonly after: Edit[];
  readonly editsOf: (owner: ObjectKey) => Edit[];
}

/**
 * One chain that services share, compared as a multiset in which the rules of one group keep their order.
 *
 * A group that is there in full and in order stays. Of any other, the rules that are there go and all come anew.
 * `-D` takes the first of equal rules, so a text is either right in number and stays, or all copies of it go.
 */
function editShared({ chain, there, sharers, trailing, before, after, editsOf }: SharedEdit): void {
  const { table, name } = chain;
  if (there === undefined) before.push({ op: 'declare', table, chain: name });
  const rules = there?.rules ?? [];
  const positions = new Map<string, number[]>();
  rules.forEach((text, i) => {
    const known = positions.get(text);
    if (known === undefined) positions.set(text, [i]);
    else known.push(i);
  });
  const wanted = new Map<string, number>();
  for (const { saved } of sharers) for (const text of saved) wanted.set(text, (wanted.get(text) ?? 0) + 1);

  const taken = new Map<string, number>();
  const inPlace = ({ saved }: Group): boolean => {
    let last = -1;
    return saved.every((text) => {
      const at = positions.get(text);
      const next = taken.get(text) ?? 0;
      taken.set(text, next + 1);
      if (at === undefined || at.length !== wanted.get(text)) return false;
      const position = at[next] ?? -1;
      const isBehind = position > last;
      last = position;
      return isBehind;
    });
  };
  const anew = new Set(sharers.filter((group) => !inPlace(group)));
  const goes = new Map<string, ObjectKey>();
  const spread = (group: Group) => {
    for (const text of group.saved) if (!goes.has(text)) goes.set(text, group.owner);
  };
  anew.forEach(spread);
  // Groups may hold equal rules (one health check node port, several ports): what makes one go makes its likes go.
  for (let size = -1; size !== anew.size; ) {
    size = anew.size;
    for (const group of sharers) {
      if (anew.has(group) || !group.saved.some((text) => goes.has(text))) continue;
      anew.add(group);
      spread(group);
    }
  }
  for (const group of anew) editsOf(group.owner).push(...insert(group.part));

  let lastKept = -1;
  let firstTrailing = rules.length;
  rules.forEach((text, i) => {
    if (trailing.includes(text)) firstTrailing = Math.min(firstTrailing, i);
    else if (wanted.has(text) && !goes.has(text)) lastKept = i;
  });
  const trails =
    lastKept < firstTrailing &&
    trailing.every((text) => positions.get(text)?.length === trailing.filter((other) => other === text).length);
  if (!trails)
    for (const rule of chain.rules) before.push({ op: 'append', table, chain: name, body: formatRestore(rule) });

  for (const text of rules) {
    const edit: Edit = { op: 'delete', table, chain: name, body: text };
    const owner = goes.get(text);
    if (owner !== undefined) editsOf(owner).push(edit);
    else if (trailing.includes(text)) {
      if (!trails) before.push(edit);
    } else if (!wanted.has(text)) after.push(edit);
  }
}

/** An input for `iptables-restore --noflush`, and whose each line is. Lines count from 1, as the tool counts them. */
export interface RestoreInput {
  /** '' when there is nothing to do. */
  readonly text: string;
  readonly lines: readonly string[];
  /** Whose line it is; undefined for `*table`, `COMMIT` and lines that are not there. */
  ownerOf(line: number): Owner | undefined;
}

/**
 * Joins edits into one input: filter first, a table without edits left out. Within a table all chains are declared first
 * and removed last; edits of one op keep the order they are given in.
 */
export function buildRestore(parts: Iterable<OwnedEdits>): RestoreInput {
  const all = [...parts];
  const lines: string[] = [];
  const owners: (Owner | undefined)[] = [];
  for (const table of TABLES) {
    const byOp = new Map(OPS.map((op) => [op, { lines: [] as string[], owners: [] as Owner[] }]));
    let isEmpty = true;
    for (const { owner, edits } of all) {
      for (const edit of edits) {
        if (edit.table !== table) continue;
        isEmpty = false;
        const of = byOp.get(edit.op);
        of?.lines.push(formatEdit(edit));
        of?.owners.push(owner);
      }
    }
    if (isEmpty) continue;
    lines.push(`*${table}`);
    owners.push(undefined);
    for (const of of byOp.values()) {
      for (const line of of.lines) lines.push(line);
      for (const owner of of.owners) owners.push(owner);
    }
    lines.push('COMMIT');
    owners.push(undefined);
  }
  const text = lines.length === 0 ? '' : `${lines.join('\n')}\n`;
  return { text, lines, ownerOf: (line) => owners[line - 1] };
}

function formatEdit(edit: Edit): string {
  switch (edit.op) {
    case 'declare':
      return `:${edit.chain} - [0:0]`;
    case 'delete':
      return `-D ${edit.chain} ${edit.body}`;
    case 'append':
      return `-A ${edit.chain} ${edit.body}`;
    case 'insert':
      return `-I ${edit.chain} ${edit.body}`;
    case 'remove':
      return `-X ${edit.chain}`;
    default:
      return assertNever(edit, 'edit');
  }
}
