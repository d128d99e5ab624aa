/**
 * Dumps in one order, so that two of them compare as text. What has no order of its own (chains, services) is sorted;
 * what has one (the rules of one service inside a chain) keeps it.
 *
 * @module
 */

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
          UNORDERED.has(chain) ? all.toSorted((a, b) => compare(sortKey(a), sortKey(b))) : all,
        );
      tables.push([name, ...declared.sort(compare), ...body, 'COMMIT'].join('\n'));
    }
  }
  return `${tables.sort(compare).join('\n')}\n`;
}
