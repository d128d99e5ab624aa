/**
 * The way of a packet through the rules of nftables mode, from what `nft monitor trace` says of it. Pure.
 *
 *     trace id 5efc5c8d ip kube-proxy nat-prerouting packet: iif "cni0" … ip daddr 10.43.172.101 … tcp dport 80 …
 *     trace id 5efc5c8d ip kube-proxy nat-prerouting rule jump services (verdict jump services)
 *     trace id 5efc5c8d ip kube-proxy services rule … vmap @service-ips (verdict goto service-…)
 *     trace id 5efc5c8d ip kube-proxy nat-prerouting policy accept
 *
 * A `packet` line begins each base chain, and shows the packet as it is by then.
 *
 * @module
 */

import type { Path, PathStep } from './path.ts';

/** One base chain and what matched from there on. */
interface Traversal {
  readonly base: string;
  readonly packet: string;
  readonly rules: { readonly chain: string; readonly rule: string; readonly verdict: string }[];
  /** It is known how it ended: by a rule that decides, or by the policy. */
  ended: boolean;
}

const LINE = /^trace id (\S+) (ip6?) kube-proxy (\S+) (packet:|rule|policy) ?(.*)$/;
const RULE = /^(.*) \(verdict (\S+)(?: \S+)?\)\s*$/;

/** The base chains a packet meets last, unless a rule ends it before. */
const LAST: ReadonlySet<string> = new Set(['filter-input', 'nat-postrouting']);

/** What the first packet met in our table. */
function traversalsOf(text: string): readonly Traversal[] {
  const traversals: Traversal[] = [];
  let first: string | undefined;
  // The last line may be on its way still.
  for (const line of text.split('\n').slice(0, -1)) {
    const [, id, , chain = '', what, rest = ''] = LINE.exec(line) ?? [];
    if (id === undefined) continue;
    first ??= id;
    if (id !== first) continue;
    const current = traversals.at(-1);
    // Packets that come after may have the same number.
    if (what === 'packet:' && traversals.some(({ base }) => base === chain)) break;
    if (what === 'packet:') traversals.push({ base: chain, packet: rest, rules: [], ended: false });
    else if (what === 'policy' && current) current.ended = true;
    else if (current) {
      const [, rule = rest, verdict = ''] = RULE.exec(rest) ?? [];
      current.rules.push({ chain, rule, verdict });
      if (verdict === 'accept' || verdict === 'drop') current.ended = true;
    }
  }
  return traversals;
}

/** True if there is nothing more to come of the first packet. */
export function isTraceComplete(text: string): boolean {
  const last = traversalsOf(text).at(-1);
  return last?.ended === true && (LAST.has(last.base) || last.rules.at(-1)?.verdict === 'drop');
}

/** Chains from the hook to the rule that decided, without those that only returned; none if no rule decided. */
function chainsOf({ base, rules }: Traversal): readonly string[] {
  const verdict = rules.at(-1)?.verdict;
  if (verdict !== 'accept' && verdict !== 'drop') return [];
  const stack = [base];
  for (const { chain } of rules) {
    const at = stack.indexOf(chain);
    if (at >= 0) stack.splice(at + 1);
    else stack.push(chain);
  }
  return stack;
}

function destinationOf(packet: string): string | undefined {
  const [, address, port] = /ip6? daddr (\S+) .*(?:tcp|udp) dport (\d+)/.exec(packet) ?? [];
  if (address === undefined) return undefined;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** @returns Undefined if no packet met our table. */
export function pathOfTrace(text: string): Path | undefined {
  const traversals = traversalsOf(text);
  if (traversals.length === 0) return undefined;
  const tableOf = ({ base }: Traversal) => (base.startsWith('nat-') ? 'nat' : 'filter');
  const stepsOf = (traversal: Traversal): PathStep[] =>
    traversal.rules.map(({ chain, rule }) => ({ table: tableOf(traversal), chain, rule }));
  const to = traversals.find(({ base }) => base === 'nat-prerouting' || base === 'nat-output');
  const chains = to === undefined ? [] : chainsOf(to);
  const isTranslated = to?.rules.at(-1)?.rule.includes('dnat') === true;
  const after = to && traversals[traversals.indexOf(to) + 1];
  const destination = isTranslated && after ? destinationOf(after.packet) : undefined;
  const end = traversals.find(({ rules }) => rules.at(-1)?.verdict === 'drop');
  if (end !== undefined) {
    const verdict = /\breject\b/.test(end.rules.at(-1)?.rule ?? '') ? 'REJECT' : 'DROP';
    const steps = [...(to ? stepsOf(to) : []), ...stepsOf(end)];
    return { steps, chains: [...chains, ...chainsOf(end)], destination, masqueraded: false, verdict };
  }
  const from = traversals.find(({ base }) => base === 'nat-postrouting');
  const masqueraded = from?.rules.some(({ rule }) => rule.includes('masquerade ')) === true;
  const steps = [...(to ? stepsOf(to) : []), ...(masqueraded && from ? stepsOf(from) : [])];
  return { steps, chains, destination, masqueraded, verdict: undefined };
}
