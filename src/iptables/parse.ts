/**
 * Reads what `iptables-save` prints. Pure.
 *
 * @module
 */

export interface SavedChain {
  /** `ACCEPT` or `DROP` for built-in chains, `-` for others. */
  readonly policy: string;
  /** Bodies of the rules in order: what stands behind `-A CHAIN `. */
  readonly rules: readonly string[];
}

/** Table name → chain name → chain. */
export type SavedRules = ReadonlyMap<string, ReadonlyMap<string, SavedChain>>;

/**
 * Parses the output of `iptables-save`, with or without counters.
 *
 * Tolerant: a line that is none of a table, a chain, a rule or COMMIT is passed over, and a rule makes its chain if no line
 * declared it. The texts share memory with `text`. Linear; 80,000 lines take some tens of milliseconds.
 */
export function parseSave(text: string): SavedRules {
  const tables = new Map<string, Map<string, { policy: string; rules: string[] }>>();
  let chains: Map<string, { policy: string; rules: string[] }> | undefined;
  let lastName = '';
  let lastRules: string[] = [];
  for (let start = 0, end = 0; start < text.length; start = end + 1) {
    end = text.indexOf('\n', start);
    if (end < 0) end = text.length;
    let at = start;
    if (text[at] === '[') at = Math.min(end, text.indexOf(' ', at) + 1 || end);
    switch (text[at]) {
      case '*': {
        const table = text.slice(at + 1, end).trimEnd();
        chains = tables.get(table) ?? new Map();
        tables.set(table, chains);
        lastName = '';
        break;
      }
      case ':': {
        const [name = '', policy = '-'] = text.slice(at + 1, end).split(' ', 2);
        if (name !== '') chains?.set(name, { policy: policy.trimEnd(), rules: [] });
        lastName = '';
        break;
      }
      case '-': {
        if (chains === undefined || !text.startsWith('-A ', at)) break;
        const blank = text.indexOf(' ', at + 3);
        const nameEnd = blank < 0 || blank > end ? end : blank;
        const name = text.slice(at + 3, nameEnd);
        if (name !== lastName) {
          const chain = chains.get(name) ?? { policy: '-', rules: [] };
          chains.set(name, chain);
          lastName = name;
          lastRules = chain.rules;
        }
        lastRules.push(text.slice(nameEnd + 1, end).trimEnd());
        break;
      }
      default:
    }
  }
  return tables;
}
