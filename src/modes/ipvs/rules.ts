/**
 * The iptables rules of this mode. There are some fifty, whatever the number of services: what differs between services stands in
 * sets. Pure. spec: ipvs.md §3, §5, §12.
 *
 * @module
 */

import { type ChainName, type Table, toChainName } from '../../iptables/chain.ts';
import { ifNotLocal } from '../../iptables/local-traffic.ts';
import {
  ACCEPT,
  comment,
  ctstate,
  DROP,
  type Jump,
  jump,
  type Match,
  markOfBit,
  REJECT,
  RETURN,
  type Rule,
  rule,
  source,
  type Target,
} from '../../iptables/rule.ts';
import { compareText, type Protocol } from '../../proxier/types.ts';
import { type VirtualServerKey, virtualServerName } from './objects.ts';
import type { IpvsOptions } from './options.ts';
import { SETS, type SetId, setName } from './sets.ts';

const SERVICES = toChainName('KUBE-SERVICES');
const POSTROUTING = toChainName('KUBE-POSTROUTING');
const NODE_PORT = toChainName('KUBE-NODE-PORT');
const LOAD_BALANCER = toChainName('KUBE-LOAD-BALANCER');
const MARK_MASQ = toChainName('KUBE-MARK-MASQ');
const FORWARD = toChainName('KUBE-FORWARD');
const PROXY_FIREWALL = toChainName('KUBE-PROXY-FIREWALL');
const SOURCE_RANGES_FIREWALL = toChainName('KUBE-SOURCE-RANGES-FIREWALL');
const IPVS_FILTER = toChainName('KUBE-IPVS-FILTER');
const IPVS_OUT_FILTER = toChainName('KUBE-IPVS-OUT-FILTER');

/** What the rules depend on, beside what is fixed for the life of the proxy. */
export interface RuleInput {
  /** A set without elements has no rules that match it. */
  readonly hasElements: (set: SetId) => boolean;
  /** In any order. */
  readonly closedToNode: readonly VirtualServerKey[];
}

/** One chain of ours, with all its rules. */
export interface Chain {
  readonly table: Table;
  readonly name: ChainName;
  readonly rules: readonly Rule[];
}

/** All chains of ours in the order they are declared. */
export const CHAINS: readonly (readonly [Table, ChainName])[] = [
  ['nat', SERVICES],
  ['nat', POSTROUTING],
  ['nat', NODE_PORT],
  ['nat', LOAD_BALANCER],
  ['nat', MARK_MASQ],
  ['filter', FORWARD],
  ['filter', NODE_PORT],
  ['filter', PROXY_FIREWALL],
  ['filter', SOURCE_RANGES_FIREWALL],
  ['filter', IPVS_FILTER],
  ['filter', IPVS_OUT_FILTER],
];

function toJump(table: Table, from: string, to: ChainName, text: string): Jump {
  return { table, from: toChainName(from), rule: rule([comment(text)], jump(to)) };
}

/** The jumps in the order they are ensured: each that is missing is inserted at the head of its chain. */
export const JUMPS: readonly Jump[] = [
  toJump('nat', 'OUTPUT', SERVICES, 'kubernetes service portals'),
  toJump('nat', 'PREROUTING', SERVICES, 'kubernetes service portals'),
  toJump('nat', 'POSTROUTING', POSTROUTING, 'kubernetes postrouting rules'),
  toJump('filter', 'FORWARD', FORWARD, 'kubernetes forwarding rules'),
  toJump('filter', 'INPUT', NODE_PORT, 'kubernetes health check rules'),
  toJump('filter', 'INPUT', PROXY_FIREWALL, 'kube-proxy firewall rules'),
  toJump('filter', 'FORWARD', PROXY_FIREWALL, 'kube-proxy firewall rules'),
  toJump('filter', 'INPUT', IPVS_FILTER, 'kubernetes ipvs access filter'),
  toJump('filter', 'OUTPUT', IPVS_OUT_FILTER, 'kubernetes ipvs access filter'),
];

/** A rule for what a set holds, and where it stands; in the order in which they are written. */
interface SetRule {
  readonly set: SetId;
  readonly chain: ChainName;
  readonly protocol?: Protocol;
  readonly directions: string;
  readonly target: Target;
}

const SET_RULES: readonly SetRule[] = [
  {
    set: 'LOOP-BACK',
    chain: POSTROUTING,
    directions: 'dst,dst,src',
    target: { kind: 'masquerade', randomFully: false },
  },
  { set: 'LOAD-BALANCER', chain: SERVICES, directions: 'dst,dst', target: jump(LOAD_BALANCER) },
  { set: 'LOAD-BALANCER-LOCAL', chain: LOAD_BALANCER, directions: 'dst,dst', target: RETURN },
  { set: 'NODE-PORT-LOCAL-TCP', chain: NODE_PORT, protocol: 'TCP', directions: 'dst', target: RETURN },
  { set: 'NODE-PORT-TCP', chain: NODE_PORT, protocol: 'TCP', directions: 'dst', target: jump(MARK_MASQ) },
  { set: 'NODE-PORT-LOCAL-UDP', chain: NODE_PORT, protocol: 'UDP', directions: 'dst', target: RETURN },
  { set: 'NODE-PORT-UDP', chain: NODE_PORT, protocol: 'UDP', directions: 'dst', target: jump(MARK_MASQ) },
  { set: 'NODE-PORT-LOCAL-SCTP-HASH', chain: NODE_PORT, protocol: 'SCTP', directions: 'dst,dst', target: RETURN },
  { set: 'NODE-PORT-SCTP-HASH', chain: NODE_PORT, protocol: 'SCTP', directions: 'dst,dst', target: jump(MARK_MASQ) },
  { set: 'LOAD-BALANCER-FW', chain: PROXY_FIREWALL, directions: 'dst,dst', target: jump(SOURCE_RANGES_FIREWALL) },
  { set: 'LOAD-BALANCER-SOURCE-CIDR', chain: SOURCE_RANGES_FIREWALL, directions: 'dst,dst,src', target: RETURN },
  { set: 'LOAD-BALANCER-SOURCE-IP', chain: SOURCE_RANGES_FIREWALL, directions: 'dst,dst,src', target: RETURN },
];

/** Sets whose addresses this node answers for, whatever the port: what is in none of them is refused. */
const ANSWERED: readonly SetId[] = ['LOAD-BALANCER', 'CLUSTER-IP', 'EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'];

/** Every chain of one family with its rules. */
export function renderRules(options: IpvsOptions, { hasElements, closedToNode }: RuleInput): readonly Chain[] {
  const { family } = options;
  const mark = markOfBit(options.masqueradeBit);
  const marked = (negated: boolean): Match => ({ kind: 'mark', mark, negated });
  const inSet = (set: SetId, directions: string): Match => ({ kind: 'set', name: setName(set, family), directions });
  const noted = (set: SetId): Match => ({ kind: 'comment', text: SETS[set].comment });
  const rules: Record<Table, Map<ChainName, Rule[]>> = { nat: new Map(), filter: new Map() };
  for (const [table, name] of CHAINS) rules[table].set(name, []);
  const add = (table: Table, chain: ChainName, ...added: readonly Rule[]) => rules[table].get(chain)?.push(...added);
  const nat = (chain: ChainName, ...added: readonly Rule[]) => add('nat', chain, ...added);
  const filter = (chain: ChainName, ...added: readonly Rule[]) => add('filter', chain, ...added);

  nat(SERVICES, rule([source(family === 'IPv4' ? '127.0.0.0/8' : '::1/128')], RETURN));
  for (const { set, chain, protocol, directions, target } of SET_RULES) {
    if (!hasElements(set)) continue;
    const ofProtocol: readonly Match[] = protocol ? [{ kind: 'onlyProtocol', protocol: LOWER[protocol] }] : [];
    const table = chain === PROXY_FIREWALL || chain === SOURCE_RANGES_FIREWALL ? 'filter' : 'nat';
    add(table, chain, rule([...ofProtocol, noted(set), inSet(set, directions)], target));
  }
  if (hasElements('CLUSTER-IP')) {
    const matches = clusterMatches(options, noted, inSet);
    if (matches !== undefined) nat(SERVICES, rule(matches, jump(MARK_MASQ)));
  }
  for (const set of ['EXTERNAL-IP', 'EXTERNAL-IP-LOCAL'] as const) {
    if (!hasElements(set)) continue;
    const matches = [noted(set), inSet(set, 'dst,dst')];
    if (set === 'EXTERNAL-IP') nat(SERVICES, rule(matches, jump(MARK_MASQ)));
    nat(
      SERVICES,
      // From another host, and not through a bridge, whose ports may be pods.
      rule(
        [...matches, { kind: 'physdevIn', negated: true }, { kind: 'addrtype', side: 'src', negated: true }],
        ACCEPT,
      ),
      rule([...matches, { kind: 'addrtype', side: 'dst' }], ACCEPT),
    );
  }
  nat(SERVICES, rule([{ kind: 'addrtype', side: 'dst' }], jump(NODE_PORT)));
  nat(LOAD_BALANCER, rule([], jump(MARK_MASQ)));
  filter(SOURCE_RANGES_FIREWALL, rule([], DROP));
  filter(IPVS_OUT_FILTER, ...closedRules(closedToNode));
  for (const set of ['CLUSTER-IP', 'LOAD-BALANCER'] as const) {
    if (hasElements(set)) nat(SERVICES, rule([inSet(set, 'dst,dst')], ACCEPT));
  }
  filter(
    FORWARD,
    rule([comment('kubernetes forwarding rules'), marked(false)], ACCEPT),
    rule([comment('kubernetes forwarding conntrack rule'), ctstate('RELATED,ESTABLISHED')], ACCEPT),
  );
  filter(NODE_PORT, rule([noted('HEALTH-CHECK-NODE-PORT'), inSet('HEALTH-CHECK-NODE-PORT', 'dst')], ACCEPT));
  filter(
    IPVS_FILTER,
    ...ANSWERED.map((set) => rule([inSet(set, 'dst,dst')], RETURN)),
    rule([inSet('HEALTH-CHECK-NODE-PORT', 'dst')], RETURN),
    rule([ctstate('NEW'), inSet('IPVS-IPS', 'dst')], REJECT),
  );
  nat(
    POSTROUTING,
    rule([marked(true)], RETURN),
    rule([], { kind: 'flipMark', mark }),
    rule([comment('kubernetes service traffic requiring SNAT')], {
      kind: 'masquerade',
      randomFully: options.features.randomFully,
    }),
  );
  nat(MARK_MASQ, rule([], { kind: 'setMark', mark }));
  return CHAINS.map(([table, name]) => ({ table, name, rules: rules[table].get(name) ?? [] }));
}

const LOWER = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const satisfies Record<Protocol, string>;

/**
 * Traffic to cluster IPs that is masqueraded: all of it, that of other than pods, or that which comes from a cluster IP; undefined if
 * all traffic is that of pods.
 */
function clusterMatches(
  { masqueradeAll, localTraffic }: IpvsOptions,
  noted: (set: SetId) => Match,
  inSet: (set: SetId, directions: string) => Match,
): readonly Match[] | undefined {
  const note = noted('CLUSTER-IP');
  if (masqueradeAll) return [note, inSet('CLUSTER-IP', 'dst,dst')];
  if (localTraffic.kind === 'none') return [note, inSet('CLUSTER-IP', 'src,dst')];
  const notLocal = ifNotLocal(localTraffic);
  return notLocal && [note, inSet('CLUSTER-IP', 'dst,dst'), notLocal];
}

function closedRules(closedToNode: readonly VirtualServerKey[]): readonly Rule[] {
  return closedToNode
    .toSorted((a, b) => compareText(virtualServerName(a), virtualServerName(b)))
    .map(({ ip, protocol, port }) =>
      rule([source(ip), { kind: 'virtualServer', address: ip, protocol: LOWER[protocol], port }], DROP),
    );
}
