/**
 * What `nft -s list ruleset` (1.0.6) prints of a table that holds certain objects: a second, plain writer to compare
 * layouts with recordings without a kernel. Order is left to the normal form. spec: nftables.md §13.
 *
 * @module
 */

import type { Objects } from '../../src/modes/nftables/layout.ts';
import type {
  ChainObject,
  Field,
  FieldType,
  MapReference,
  NftFamily,
  RuleObject,
  SetElement,
  SetObject,
  Statement,
  Verdict,
} from '../../src/netlink/nftables/transaction.ts';
import { ipBytes, parseIP } from '../../src/proxier/addr.ts';

/** A table of one family with the objects of several owners; what two of them have is printed once. */
export function nftListing(family: NftFamily, owners: readonly Objects[]): string {
  const sets = new Map<string, { readonly set: SetObject; readonly elements: Set<string> }>();
  const chains = new Map<string, string>();
  const blocks: string[] = [];
  for (const { sets: added } of owners) for (const set of added) sets.set(set.name, { set, elements: new Set() });
  const filled = new Set<string>();
  for (const { chains: added, elements } of owners) {
    for (const { chain, rules } of added) {
      for (const statement of rules.flatMap((rule) => rule.statements)) {
        if (statement.kind === 'dynamic') filled.add(statement.set);
      }
      chains.set(chain.name, chainBlock(family, chain, rules));
    }
    for (const content of elements) {
      const known = sets.get(content.set.name);
      if (known === undefined) throw new Error(`Cannot put elements into ${content.set.name}: there is no such set`);
      for (const element of content.elements) known.elements.add(elementText(element));
    }
  }
  for (const { set, elements } of sets.values()) blocks.push(setBlock(family, set, elements, filled.has(set.name)));
  return `table ${family} kube-proxy {\n\tcomment "rules for kube-proxy"\n${[...blocks, ...chains.values()].join('\n')}}\n`;
}

const note = (comment: string | undefined) => (comment === undefined ? '' : ` comment "${comment}"`);

const PRIORITIES: Readonly<Record<string, string>> = {
  'prerouting -110': 'dstnat - 10',
  'prerouting -100': 'dstnat',
  'postrouting 100': 'srcnat',
  'input 0': 'filter',
  'forward 0': 'filter',
  'output 0': 'filter',
};

function chainBlock(family: NftFamily, { name, base, comment }: ChainObject, rules: readonly RuleObject[]): string {
  const lines: string[] = [];
  if (comment !== undefined) lines.push(`comment "${comment}"`);
  if (base !== undefined) {
    const priority = PRIORITIES[`${base.hook} ${base.priority}`] ?? String(base.priority);
    lines.push(`type ${base.type} hook ${base.hook} priority ${priority}; policy accept;`);
  }
  for (const rule of rules) {
    if (rule.chain !== name) throw new Error(`Cannot print a rule of ${rule.chain}: it stands in ${name}`);
    lines.push(rule.statements.map((s) => statementText(family, s)).join(' ') + note(rule.comment));
  }
  return `\tchain ${name} {\n${lines.map((line) => `\t\t${line}\n`).join('')}\t}\n`;
}

function setBlock(family: NftFamily, set: SetObject, elements: ReadonlySet<string>, isFilled: boolean): string {
  const type = (of: readonly FieldType[]) => of.map((f) => (f === 'addr' ? ADDR_TYPE[family] : f)).join(' . ');
  const data = set.data === undefined ? '' : ` : ${set.data === 'verdict' ? 'verdict' : type(set.data)}`;
  const lines = [`type ${type(set.key)}${data}`];
  if (isFilled) lines.push('size 65535');
  if (set.flags !== undefined) lines.push(`flags ${set.flags.join(',')}`);
  if (set.timeoutSeconds !== undefined) lines.push(`timeout ${duration(set.timeoutSeconds)}`);
  if (set.comment !== undefined) lines.push(`comment "${set.comment}"`);
  if (elements.size > 0) lines.push(`elements = { ${[...elements].join(', ')} }`);
  const word = set.data === undefined ? 'set' : 'map';
  return `\t${word} ${set.name} {\n${lines.map((line) => `\t\t${line}\n`).join('')}\t}\n`;
}

const ADDR_TYPE: Readonly<Record<NftFamily, string>> = { ip: 'ipv4_addr', ip6: 'ipv6_addr' };

function duration(seconds: number): string {
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ] as const;
  return parts.map(([n, unit]) => (n === 0 ? '' : `${n}${unit}`)).join('');
}

function elementText({ key, data, comment }: SetElement): string {
  return key.join(' . ') + note(comment) + (data === undefined ? '' : ` : ${dataText(data)}`);
}

function dataText(data: NonNullable<SetElement['data']>): string {
  return 'kind' in data ? verdictText(data) : data.join(' . ');
}

function verdictText(verdict: Verdict): string {
  return 'chain' in verdict ? `${verdict.kind} ${verdict.chain}` : verdict.kind;
}

const mark = (mask: number) => `0x${mask.toString(16).padStart(8, '0')}`;

function fieldText(family: NftFamily, field: Field): string {
  if (typeof field === 'object') return `numgen random mod ${field.random}`;
  const texts: Readonly<Record<typeof field, string>> = {
    saddr: `${family} saddr`,
    daddr: `${family} daddr`,
    l4proto: 'meta l4proto',
    sport: 'th sport',
    dport: 'th dport',
    mark: 'meta mark',
    priority: 'meta priority',
    originalDaddr: `ct original ${family} daddr`,
    originalDport: 'ct original proto-dst',
  };
  return texts[field];
}

function mapText(map: MapReference): string {
  return map.kind === 'named' ? `@${map.map}` : `{ ${map.elements.map(elementText).join(', ')} }`;
}

function statementText(family: NftFamily, s: Statement): string {
  const fields = (of: readonly Field[]) => of.map((f) => fieldText(family, f)).join(' . ');
  switch (s.kind) {
    case 'ctStateNew':
      return 'ct state new';
    case 'ctStatusDnat':
      return 'ct status dnat';
    case 'markHas':
      return `meta mark & ${mark(s.mask)} != 0x00000000`;
    case 'setMark':
      return `meta mark set meta mark ${s.op === 'or' ? '|' : '^'} ${mark(s.mask)}`;
    case 'setPriority':
      return `meta priority set ${fields(s.fields)} map ${mapText(s.map)}`;
    case 'clearPriority':
      return 'meta priority set none';
    case 'address': {
      const [only = ''] = s.cidrs;
      const list = s.name === undefined ? only : `{ ${mergedRanges(s.cidrs).join(', ')} }`;
      return `${family} ${s.side} ${s.negated ? '!= ' : ''}${list}`;
    }
    case 'l4proto':
      return `meta l4proto ${s.protocol}`;
    case 'iifname':
      return `iifname ${s.negated ? '!= ' : ''}"${s.name}${s.wildcard ? '*' : ''}"`;
    case 'fibLocal':
      return `fib ${s.side} type local`;
    case 'inSet':
      return `${fields(s.fields)} ${s.negated === true ? '!= ' : ''}@${s.set}`;
    case 'vmap':
      return `${fields(s.fields)} vmap ${mapText(s.map)}`;
    case 'verdict':
      return verdictText(s.verdict);
    case 'reject':
      return 'reject';
    case 'masquerade':
      return 'masquerade fully-random';
    case 'dnat':
      return `dnat to ${family === 'ip6' ? `[${s.address}]` : s.address}:${s.port}`;
    case 'dnatMap':
      return `dnat ${family} to ${fields(s.fields)} map ${mapText(s.map)}`;
    case 'dynamic':
      return `${s.op} @${s.set} { ${fields(s.fields)} }`;
  }
}

/** Ranges of addresses as nft prints a set of intervals: merged, in order, as CIDRs where they are. */
export function mergedRanges(cidrs: readonly string[]): readonly string[] {
  const bits = cidrs.some((text) => text.includes(':')) ? 128n : 32n;
  const ranges = cidrs
    .map((text) => {
      const [address = '', prefix = String(bits)] = text.split('/');
      const parsed = parseIP(address);
      if (parsed === undefined) throw new Error(`Cannot print ${text}: not an address`);
      const first = BigInt(`0x${Buffer.from(ipBytes(parsed.ip)).toString('hex')}`);
      return { first, last: first + (1n << (bits - BigInt(prefix))) - 1n };
    })
    .sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  const merged: { first: bigint; last: bigint }[] = [];
  for (const range of ranges) {
    const before = merged.at(-1);
    if (before === undefined || range.first > before.last + 1n) merged.push(range);
    else if (range.last > before.last) before.last = range.last;
  }
  return merged.map(({ first, last }) => {
    if (first === last) return addressText(first, bits);
    const size = last - first + 1n;
    const isCidr = (size & (size - 1n)) === 0n && first % size === 0n;
    const length = bits - BigInt(size.toString(2).length - 1);
    return isCidr ? `${addressText(first, bits)}/${length}` : `${addressText(first, bits)}-${addressText(last, bits)}`;
  });
}

function addressText(value: bigint, bits: bigint): string {
  const hex = value.toString(16).padStart(Number(bits / 4n), '0');
  const text =
    bits === 32n
      ? (hex.match(/../g) ?? []).map((b) => Number.parseInt(b, 16)).join('.')
      : hex.match(/..../g)?.join(':');
  return parseIP(text ?? '')?.ip ?? '';
}
