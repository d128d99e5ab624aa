/**
 * The rules that do not come from a service: the top-level chains, what stands in them always, and the jumps from the
 * built-in chains. spec: iptables.md §3, §5, §9.
 *
 * @module
 */

import { type ChainName, type Table, toChainName } from '../../iptables/chain.ts';
import {
  ACCEPT,
  comment,
  ctstate,
  DROP,
  destination,
  type Jump,
  jump,
  type Match,
  markOfBit,
  RETURN,
  type Rule,
  rule,
  source,
} from '../../iptables/rule.ts';
import { familyOf, isLoopback } from '../../proxier/addr.ts';
import { compareText } from '../../proxier/types.ts';
import {
  CT_STATE_INVALID_COUNTER,
  EXTERNAL_SERVICES,
  FORWARD,
  KUBE_FIREWALL,
  MARK_MASQ,
  NODEPORTS,
  POSTROUTING,
  PROXY_FIREWALL,
  SERVICES,
} from './names.ts';
import type { DynamicFacts, IptablesOptions } from './options.ts';

/** One top-level chain. */
export interface StaticChain {
  readonly table: Table;
  readonly name: ChainName;
  /**
   * `whole`: `rules` is all there is in it. `shared`: services put theirs in, in front of `rules`.
   */
  readonly kind: 'whole' | 'shared';
  readonly rules: readonly Rule[];
}

/**
 * The top-level chains of one family in the order they are declared.
 *
 * KUBE-FIREWALL is among them only when there is a rule of ours for it; as the target of a jump it must exist always.
 */
export function renderStatic(options: IptablesOptions, facts: DynamicFacts): readonly StaticChain[] {
  const mark = markOfBit(options.masqueradeBit);
  const marked = (negated: boolean): Match => ({ kind: 'mark', mark, negated });
  const forward: Rule[] = [
    rule([comment('kubernetes forwarding rules'), marked(false)], ACCEPT),
    rule([comment('kubernetes forwarding conntrack rule'), ctstate('RELATED,ESTABLISHED')], ACCEPT),
  ];
  if (!options.tcpBeLiberal) {
    const counted: readonly Match[] = facts.counters.ctStateInvalid
      ? [{ kind: 'nfacct', counter: CT_STATE_INVALID_COUNTER }]
      : [];
    forward.unshift(rule([ctstate('INVALID'), ...counted], DROP));
  }
  const chains: StaticChain[] = [
    { table: 'filter', name: SERVICES, kind: 'shared', rules: [] },
    { table: 'filter', name: EXTERNAL_SERVICES, kind: 'shared', rules: [] },
    { table: 'filter', name: FORWARD, kind: 'whole', rules: forward },
    { table: 'filter', name: NODEPORTS, kind: 'shared', rules: [] },
    { table: 'filter', name: PROXY_FIREWALL, kind: 'shared', rules: [] },
  ];
  if (options.family === 'IPv4' && options.localhostNodePorts) {
    // route_localnet is on: without this rule a neighbour could reach what listens on loopback only.
    const guard = rule(
      [
        comment('block incoming localnet connections'),
        destination('127.0.0.0/8'),
        source('127.0.0.0/8', true),
        ctstate('RELATED,ESTABLISHED,DNAT', true),
      ],
      DROP,
    );
    chains.push({ table: 'filter', name: KUBE_FIREWALL, kind: 'whole', rules: [guard] });
  }
  chains.push(
    { table: 'nat', name: SERVICES, kind: 'shared', rules: nodePortRules(options, facts) },
    { table: 'nat', name: NODEPORTS, kind: 'shared', rules: [] },
    {
      table: 'nat',
      name: POSTROUTING,
      kind: 'whole',
      rules: [
        rule([marked(true)], RETURN),
        rule([], { kind: 'flipMark', mark }),
        rule([comment('kubernetes service traffic requiring SNAT')], {
          kind: 'masquerade',
          randomFully: options.features.randomFully,
        }),
      ],
    },
    { table: 'nat', name: MARK_MASQ, kind: 'whole', rules: [rule([], { kind: 'setMark', mark })] },
  );
  return chains;
}

/** What sends packets for the node itself to nat KUBE-NODEPORTS. Must stand behind every rule of a service. */
function nodePortRules(options: IptablesOptions, facts: DynamicFacts): readonly Rule[] {
  const note = comment('kubernetes service nodeports; NOTE: this must be the last rule in this chain');
  const loopbackAnswers = options.family === 'IPv4' && options.localhostNodePorts;
  if (options.nodePortAddresses.matchAll) {
    const notLoopback = loopbackAnswers
      ? []
      : [destination(options.family === 'IPv4' ? '127.0.0.0/8' : '::1/128', true)];
    return [rule([note, { kind: 'addrtype', side: 'dst' }, ...notLoopback], jump(NODEPORTS))];
  }
  return [...new Set(facts.nodeIPs)]
    .filter((ip) => familyOf(ip) === options.family && (loopbackAnswers || !isLoopback(ip)))
    .sort(compareText)
    .map((ip) => rule([note, destination(ip)], jump(NODEPORTS)));
}

const NEW: Match = ctstate('NEW');

function toJump(table: Table, from: string, matches: readonly Match[], to: ChainName): Jump {
  return { table, from: toChainName(from), rule: rule(matches, jump(to)) };
}

/**
 * The jumps in the order they are ensured. Each that is missing is inserted at the head of its chain, so on a fresh node
 * the last of a chain comes to stand first. Those that are there are not moved.
 */
export const JUMPS: readonly Jump[] = [
  toJump('filter', 'INPUT', [NEW, comment('kubernetes externally-visible service portals')], EXTERNAL_SERVICES),
  toJump('filter', 'FORWARD', [NEW, comment('kubernetes externally-visible service portals')], EXTERNAL_SERVICES),
  toJump('filter', 'INPUT', [comment('kubernetes health check service ports')], NODEPORTS),
  toJump('filter', 'FORWARD', [NEW, comment('kubernetes service portals')], SERVICES),
  toJump('filter', 'OUTPUT', [NEW, comment('kubernetes service portals')], SERVICES),
  toJump('filter', 'FORWARD', [comment('kubernetes forwarding rules')], FORWARD),
  toJump('filter', 'INPUT', [NEW, comment('kubernetes load balancer firewall')], PROXY_FIREWALL),
  toJump('filter', 'OUTPUT', [NEW, comment('kubernetes load balancer firewall')], PROXY_FIREWALL),
  toJump('filter', 'FORWARD', [NEW, comment('kubernetes load balancer firewall')], PROXY_FIREWALL),
  toJump('nat', 'OUTPUT', [comment('kubernetes service portals')], SERVICES),
  toJump('nat', 'PREROUTING', [comment('kubernetes service portals')], SERVICES),
  toJump('nat', 'POSTROUTING', [comment('kubernetes postrouting rules')], POSTROUTING),
  toJump('filter', 'INPUT', [], KUBE_FIREWALL),
  toJump('filter', 'OUTPUT', [], KUBE_FIREWALL),
];
