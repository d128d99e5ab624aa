/**
 * What layout `chains` has whatever services there are: base chains, the chains they jump to, shared sets. Pure.
 * spec: nftables.md §5.
 *
 * @module
 */

import type { RuleObject, SetObject, Statement } from '../../netlink/nftables/transaction.ts';
import { compareText } from '../../proxier/types.ts';
import { BASE_CHAINS, type JumpTarget } from './base-chains.ts';
import type { ChainContent, Objects } from './layout.ts';
import { anonymousName } from './names.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';
import {
  CLUSTER_IPS,
  FIREWALL_IPS,
  HAIRPIN_CONNECTIONS,
  NO_ENDPOINT_NODEPORTS,
  NO_ENDPOINT_SERVICES,
  NODEPORT_IPS,
  SERVICE_IPS,
  SERVICE_NODEPORTS,
} from './shared-sets.ts';
import {
  askForMasquerade,
  DROP,
  FRONTEND,
  inSet,
  masqueradeMask,
  NODE_PORT,
  notToLoopback,
  podTraffic,
  REJECT,
  vmap,
} from './statements.ts';

/** Verdict of elements for services without endpoints: `reject` is no verdict, so a chain does it. */
export const REJECT_CHAIN = 'reject-chain';

/** The base chains with their jumps. */
export function baseChains(): readonly ChainContent[] {
  return BASE_CHAINS.map(({ chain, jumps }) =>
    chainOf(
      chain,
      jumps.map(({ when, to }) => [...when, { kind: 'verdict', verdict: { kind: 'jump', chain: to } }]),
    ),
  );
}

/**
 * What is masqueraded on the way out: packets with the mark, which is taken off them, and those of pods that reach themselves.
 */
export function masquerading(options: NftablesOptions): ChainContent {
  const mask = masqueradeMask(options);
  return jumpedTo('masquerading', [
    [{ kind: 'markHas', mask }, { kind: 'setMark', op: 'xor', mask }, { kind: 'masquerade' }],
    [
      { kind: 'ctStatusDnat' },
      inSet(['saddr', 'daddr', 'l4proto', 'dport'], HAIRPIN_CONNECTIONS),
      { kind: 'masquerade' },
    ],
  ]);
}

/** Packets to a cluster IP that no Service translated: the port is not one of it, or the address not allocated. */
export function clusterIPsCheck(facts: NftablesFacts): ChainContent {
  const name: JumpTarget = 'cluster-ips-check';
  const rules: RuleObject[] = [
    {
      chain: name,
      statements: [inSet(['daddr'], CLUSTER_IPS), REJECT],
      comment: 'Reject traffic to invalid ports of ClusterIPs',
    },
  ];
  if (facts.serviceCIDRs.length > 0) {
    const cidrs = [...facts.serviceCIDRs].sort(compareText);
    const anonymous = anonymousName('service-cidrs', name, cidrs.join(','));
    const toService: Statement = {
      kind: 'address',
      side: 'daddr',
      negated: false,
      cidrs,
      ...(cidrs.length > 1 ? { name: anonymous } : {}),
    };
    rules.push({ chain: name, statements: [toService, DROP], comment: 'Drop traffic to unallocated ClusterIPs' });
  }
  return { chain: { name }, rules };
}

/** The rule in chain `services` that asks to masquerade what comes from outside to a cluster IP; none if nobody is outside. */
export function masqueradeOutside(options: NftablesOptions): readonly RuleObject[] {
  const chain: JumpTarget = 'services';
  const mark = askForMasquerade(options);
  if (options.masqueradeAll) {
    return [{ chain, statements: [inSet(['daddr'], CLUSTER_IPS), mark], comment: 'masquerade all clusterIP traffic' }];
  }
  const isOutside = podTraffic(options.localTraffic, false);
  if (isOutside === undefined) return [];
  const statements = [inSet(['daddr'], CLUSTER_IPS), isOutside, mark];
  return [{ chain, statements, comment: 'masquerade clusterIP traffic from outside cluster' }];
}

/** Matches what goes to an address of the node that answers on node ports, before it is translated. */
export function toNode({ family, nodePortAddresses }: NftablesOptions): readonly Statement[] {
  return nodePortAddresses.matchAll
    ? [{ kind: 'fibLocal', side: 'daddr' }, notToLoopback(family)]
    : [inSet(['daddr'], NODEPORT_IPS)];
}

/** The same where packets arrive at the node itself (hook input). */
export function toNodeAtInput({ family, nodePortAddresses }: NftablesOptions): readonly Statement[] {
  return nodePortAddresses.matchAll ? [notToLoopback(family)] : [inSet(['daddr'], NODEPORT_IPS)];
}

/** The set of addresses that answer on node ports, and what is in it; nothing if all do. */
export function nodePortIPs(options: NftablesOptions, facts: NftablesFacts): Pick<Objects, 'sets' | 'elements'> {
  if (options.nodePortAddresses.matchAll) return { sets: [], elements: [] };
  const elements = facts.nodeIPs.map((ip) => ({ key: [ip] }));
  return { sets: [NODEPORT_IPS], elements: [{ set: NODEPORT_IPS, elements }] };
}

/** Where elements lead that are to be refused. */
export function rejectChain(): ChainContent {
  return chainOf({ name: REJECT_CHAIN, comment: 'helper for @no-endpoint-services / @no-endpoint-nodeports' }, [
    [REJECT],
  ]);
}

/** A chain that a base chain jumps to, with rules that have no comment. */
export function jumpedTo(name: JumpTarget, rules: readonly (readonly Statement[])[]): ChainContent {
  return chainOf({ name }, rules);
}

/** Everything of layout `chains` that is there without any service. */
export function renderStatic(options: NftablesOptions, facts: NftablesFacts): Objects {
  const nodePorts = nodePortIPs(options, facts);
  const services = jumpedTo('services', [
    [vmap(FRONTEND, SERVICE_IPS)],
    [...toNode(options), vmap(NODE_PORT, SERVICE_NODEPORTS)],
  ]);
  const sets: readonly SetObject[] = [
    HAIRPIN_CONNECTIONS,
    CLUSTER_IPS,
    ...nodePorts.sets,
    NO_ENDPOINT_SERVICES,
    NO_ENDPOINT_NODEPORTS,
    FIREWALL_IPS,
    SERVICE_IPS,
    SERVICE_NODEPORTS,
  ];
  const chains: readonly ChainContent[] = [
    ...baseChains(),
    jumpedTo('nodeport-endpoints-check', [[...toNodeAtInput(options), vmap(NODE_PORT, NO_ENDPOINT_NODEPORTS)]]),
    jumpedTo('service-endpoints-check', [[vmap(FRONTEND, NO_ENDPOINT_SERVICES)]]),
    jumpedTo('firewall-check', [[vmap(FRONTEND, FIREWALL_IPS)]]),
    { chain: services.chain, rules: [...masqueradeOutside(options), ...services.rules] },
    masquerading(options),
    clusterIPsCheck(facts),
    rejectChain(),
  ];
  return { chains, sets, elements: nodePorts.elements };
}

function chainOf(chain: ChainContent['chain'], rules: readonly (readonly Statement[])[]): ChainContent {
  return { chain, rules: rules.map((statements) => ({ chain: chain.name, statements })) };
}
