/**
 * The way a request took through the rules, as the kernel counted it: the packet counters of `iptables-save -c` before
 * and after the request, and a walk along the rules whose counters rose. Pure.
 *
 * Only the first packet of a connection meets the nat table, so there one request is one way. Other connections of the
 * same moment could blur it; the lab makes one request at a time.
 *
 * @module
 */

/** A rule with its counter. */
export interface CountedRule {
  /** As iptables-save prints it after `-A CHAIN `. */
  readonly text: string;
  readonly packets: number;
}

/** Table → chain → rules in order. */
export type Counters = ReadonlyMap<string, ReadonlyMap<string, readonly CountedRule[]>>;

export interface PathStep {
  readonly table: string;
  readonly chain: string;
  /** Without `-A CHAIN `. */
  readonly rule: string;
}

export interface Path {
  /** Rules that matched, in order. */
  readonly steps: readonly PathStep[];
  /** Chains from the hook to the rule that decided, without the ones that only returned (KUBE-MARK-MASQ). */
  readonly chains: readonly string[];
  /** Where DNAT sent it, `address:port`; undefined if nothing rewrote its destination. */
  readonly destination: string | undefined;
  /** Its source was rewritten to the node's address. */
  readonly masqueraded: boolean;
  /** REJECT or DROP, if a rule of the filter table ended it. */
  readonly verdict: 'REJECT' | 'DROP' | undefined;
}

/** Reads the output of `iptables-save -c` (either flavour, either family). */
export function parseCounters(text: string): Counters {
  const tables = new Map<string, Map<string, CountedRule[]>>();
  let chains = new Map<string, CountedRule[]>();
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      chains = new Map();
      tables.set(line.slice(1), chains);
    } else if (line.startsWith(':')) {
      chains.set(line.slice(1, line.indexOf(' ')), []);
    } else {
      const rule = /^\[(\d+):\d+\] -A (\S+) ?(.*)$/.exec(line);
      if (rule) chains.get(rule[2] ?? '')?.push({ packets: Number(rule[1]), text: rule[3] ?? '' });
    }
  }
  return tables;
}

/**
 * What was counted between two readings.
 *
 * @returns Undefined if the rules themselves changed in between: then the counters cannot be compared.
 */
export function countedBetween(before: Counters, after: Counters): Counters | undefined {
  const tables = new Map<string, Map<string, CountedRule[]>>();
  for (const [table, chainsAfter] of after) {
    const chainsBefore = before.get(table);
    const chains = new Map<string, CountedRule[]>();
    for (const [chain, rules] of chainsAfter) {
      const old = chainsBefore?.get(chain) ?? [];
      if (old.length !== rules.length || rules.some((r, i) => r.text !== old[i]?.text)) return undefined;
      chains.set(
        chain,
        rules.map((r, i) => ({ text: r.text, packets: r.packets - (old[i]?.packets ?? 0) })),
      );
    }
    tables.set(table, chains);
  }
  return tables;
}

interface Walk {
  readonly steps: PathStep[];
  /** Chains entered and not returned from. */
  readonly stack: string[];
  readonly counters: Counters;
  readonly table: string;
}

const jumpOf = (rule: string) => /(?:^| )-[jg] (\S+)/.exec(rule)?.[1] ?? '';

/** Targets after which a packet goes on with the next rule. */
const GOES_ON = new Set(['', 'MARK', 'CONNMARK', 'LOG', 'NFLOG', 'TRACE']);

/** Follows counted rules from `chain`. True if a rule decided; then `stack` ends with its chain. */
function walkChain(walk: Walk, chain: string): boolean {
  const chains = walk.counters.get(walk.table);
  const counted = (chains?.get(chain) ?? []).filter((r) => r.packets > 0);
  walk.stack.push(chain);
  for (const [i, { text }] of counted.entries()) {
    const target = jumpOf(text);
    // A RETURN with counted rules after it was somebody else's packet.
    if (target === 'RETURN' && i < counted.length - 1) continue;
    walk.steps.push({ table: walk.table, chain, rule: text });
    if (target === 'RETURN') break;
    if (chains?.has(target)) {
      if (walkChain(walk, target)) return true;
    } else if (!GOES_ON.has(target)) {
      return true;
    }
  }
  walk.stack.pop();
  return false;
}

/** Follows counted jumps to a counted REJECT or DROP: the filter table counts every packet, so nothing else tells. */
function findVerdict(walk: Walk, chain: string): 'REJECT' | 'DROP' | undefined {
  const chains = walk.counters.get(walk.table);
  walk.stack.push(chain);
  for (const { text, packets } of chains?.get(chain) ?? []) {
    if (packets === 0) continue;
    const target = jumpOf(text);
    walk.steps.push({ table: walk.table, chain, rule: text });
    if (target === 'REJECT' || target === 'DROP') return target;
    const verdict = chains?.has(target) ? findVerdict(walk, target) : undefined;
    if (verdict) return verdict;
    walk.steps.pop();
  }
  walk.stack.pop();
  return undefined;
}

/**
 * The way of the one request that was made between two readings.
 *
 * @param origin 'node' for a request made on the node itself (OUTPUT), 'elsewhere' for one that arrived (PREROUTING).
 */
export function pathOf(counted: Counters, origin: 'node' | 'elsewhere'): Path {
  const start = (table: string): Walk => ({ steps: [], stack: [], counters: counted, table });

  const to = start('nat');
  walkChain(to, origin === 'node' ? 'OUTPUT' : 'PREROUTING');
  const destination = /-j DNAT .*--to-destination (\S+)/.exec(to.steps.at(-1)?.rule ?? '')?.[1];

  for (const hook of origin === 'node' ? ['OUTPUT'] : ['INPUT', 'FORWARD']) {
    const filter = start('filter');
    const verdict = findVerdict(filter, hook);
    if (verdict) {
      const steps = [...to.steps, ...filter.steps];
      return { steps, chains: [...to.stack, ...filter.stack], destination, masqueraded: false, verdict };
    }
  }

  const from = start('nat');
  const decided = walkChain(from, 'POSTROUTING');
  const masqueraded = decided && jumpOf(from.steps.at(-1)?.rule ?? '') === 'MASQUERADE';
  return {
    steps: masqueraded ? [...to.steps, ...from.steps] : to.steps,
    chains: to.stack,
    destination,
    masqueraded,
    verdict: undefined,
  };
}
