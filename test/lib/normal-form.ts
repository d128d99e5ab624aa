/**
 * Dumps in one order, so that two of them compare as text. What has no order of its own (chains, services) is sorted;
 * what has one (the rules of one service inside a chain) keeps it.
 *
 * @module
 */

/** Chains of iptables in which services stand in no order. */
const UNORDERED = new Set(['KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-EXTERNAL-SERVICES', 'KUBE-PROXY-FIREWALL']);

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Sorts by service and protocol; the order of one service port's rules is kept. */
function sortKey(rule: string): string {
  if (rule.includes('this must be the last rule')) return `~\0${rule}`;
  const name = /--comment "?(\S+?)"?(?: |$)/.exec(rule)?.[1] ?? '';
  const protocol = / -p (\S+)/.exec(rule)?.[1] ?? '';
  return `${name}\0${protocol}`;
}

/** Brings the output of `iptables-save` (or ip6tables-save) into normal form: no counters, no comments, no order. */
export function normalForm(dump: string): string {
  const tables: string[] = [];
  let name = '';
  let declared: string[] = [];
  let rules = new Map<string, string[]>();
  for (const raw of dump.split('\n')) {
    const line = raw.trimEnd().replace(/ \[\d+:\d+\]$/, '');
    if (line === '' || line.startsWith('#')) continue;
    if (line.startsWith('*')) {
      name = line;
      declared = [];
      rules = new Map();
    } else if (line.startsWith(':')) {
      declared.push(line);
    } else if (line.startsWith('-A ')) {
      const chain = line.split(' ')[1] ?? '';
      const known = rules.get(chain);
      if (known === undefined) rules.set(chain, [line]);
      else known.push(line);
    } else if (line === 'COMMIT') {
      const body = [...rules]
        .sort(([a], [b]) => compare(a, b))
        .flatMap(([chain, all]) =>
          chain === 'KUBE-IPVS-OUT-FILTER'
            ? all.toSorted(compare)
            : UNORDERED.has(chain)
              ? all.toSorted((a, b) => compare(sortKey(a), sortKey(b)))
              : all,
        );
      tables.push([name, ...declared.sort(compare), ...body, 'COMMIT'].join('\n'));
    }
  }
  return `${tables.sort(compare).join('\n')}\n`;
}

interface NftBlock {
  /** `chain X {`, `set X {`, `map X {` */
  readonly head: string;
  readonly lines: string[];
}

/** Something ours does not leave behind, but kube-proxy for a while: emptied chains, affinity sets that no rule names. */
function isStale({ head, lines }: NftBlock, blocks: readonly NftBlock[]): boolean {
  if (head.startsWith('chain ')) return lines.length === 0;
  if (!head.startsWith('set affinity-')) return false;
  const reference = `@${head.split(' ')[1]} `;
  return !blocks.some((other) => other.head.startsWith('chain ') && other.lines.some((l) => l.includes(reference)));
}

/** `elements = { b, a }` with its elements in order. */
function sortElements(line: string): string {
  const [, list] = /^elements = \{(.*)\}$/.exec(line) ?? [];
  if (list === undefined) return line;
  const elements = list.split(',').map((element) => element.trim());
  return `elements = { ${elements.sort(compare).join(', ')} }`;
}

/**
 * Brings the output of `nft -s list ruleset` into normal form: no order of tables, objects and elements.
 *
 * @param stale - Whether chains and sets stay in it that kube-proxy leaves for a later clean-up at no fixed time.
 */
export function nftNormalForm(dump: string, stale: 'keep' | 'leave out'): string {
  const tables: string[] = [];
  let head = '';
  let properties: string[] = [];
  let blocks: NftBlock[] = [];
  let block: NftBlock | undefined;
  for (const raw of dump.replace(/,\n\s+/g, ', ').split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    if (line.startsWith('table ')) {
      head = line;
      properties = [];
      blocks = [];
    } else if (block !== undefined) {
      if (line === '}') block = undefined;
      else block.lines.push(sortElements(line));
    } else if (/^(?:set|map|chain) /.test(line)) {
      block = { head: line, lines: [] };
      blocks.push(block);
    } else if (line === '}') {
      const kept = stale === 'keep' ? blocks : withoutStale(blocks);
      const texts = kept.map((b) => [`  ${b.head}`, ...b.lines.map((l) => `    ${l}`)].join('\n'));
      tables.push([head, ...properties.sort(compare), ...texts.sort(compare)].join('\n'));
    } else {
      properties.push(`  ${line}`);
    }
  }
  return `${tables.sort(compare).join('\n')}\n`;
}

/** Sets are looked at when emptied chains are gone. */
function withoutStale(blocks: readonly NftBlock[]): readonly NftBlock[] {
  const filled = blocks.filter((b) => !b.head.startsWith('chain ') || !isStale(b, blocks));
  return filled.filter((b) => !isStale(b, filled));
}

/** Lines that are in only one of the two, as a short text; '' if both are the same. */
export function differenceOf(wanted: string, got: string): string {
  if (wanted === got) return '';
  const [a, b] = [wanted.split('\n'), got.split('\n')];
  const [inA, inB] = [new Set(a), new Set(b)];
  const missing = a.filter((line) => !inB.has(line)).map((line) => `missing: ${line}`);
  const extra = b.filter((line) => !inA.has(line)).map((line) => `extra:   ${line}`);
  const told = [...missing.slice(0, 10), ...extra.slice(0, 10)].join('\n');
  return told === '' ? `other order or number of lines: ${a.length}, ${b.length}` : told;
}
