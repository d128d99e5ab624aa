/**
 * What layout `maps` has whatever services there are. The hooks, and what is not about picking an endpoint, are layout `chains`'.
 * Pure.
 *
 *     services ── service-frontends ──┬─ cluster IP ──────────────────────────► pick-…, stick-…
 *              └─ nodeport-frontends ─┴─ external-cluster ── cluster-policy ──► pick-cluster-…
 *                                        external-local ──┬─ cluster-policy         (from pods and the node itself)
 *                                                         └─ local-policy ────► pick-local-…
 *     firewall-check            before the translation: source-ranges
 *     service-endpoints-check   after it: no-endpoint-services, remember-clients
 *
 * @module
 */

import type { RuleObject, Statement } from '../../netlink/nftables/transaction.ts';
import type { ChainContent, Objects } from './layout.ts';
import { ORIGINAL_FRONTEND, ORIGINAL_NODE_PORT } from './maps-layout-chains.ts';
import {
  BY_ADDRESS,
  BY_NODE_PORT,
  CLIENT_ENDPOINTS,
  CLIENTS,
  type EndpointList,
  FIREWALLED,
  type FrontendSets,
  SOURCE_RANGES,
} from './maps-layout-sets.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';
import { CLUSTER_IPS, HAIRPIN_CONNECTIONS, NO_ENDPOINT_NODEPORTS, NO_ENDPOINT_SERVICES } from './shared-sets.ts';
import {
  askForMasquerade,
  DROP,
  FROM_NODE,
  FRONTEND,
  gotoChain,
  inSet,
  NODE_PORT,
  notInSet,
  podTraffic,
  verdict,
  vmap,
} from './statements.ts';
import {
  baseChains,
  clusterIPsCheck,
  jumpedTo,
  masqueradeOutside,
  masquerading,
  nodePortIPs,
  rejectChain,
  toNode,
  toNodeAtInput,
} from './static.ts';

/** Traffic from outside to services that share it between all nodes, or keep it on this one. */
export const EXTERNAL: Readonly<Record<EndpointList, string>> = {
  cluster: 'external-cluster',
  local: 'external-local',
};

const POLICY: Readonly<Record<EndpointList, string>> = { cluster: 'cluster-policy', local: 'local-policy' };
const REMEMBER = 'remember-clients';
const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;

/** Everything of layout `maps` that is there without any service. */
export function renderMapsStatic(options: NftablesOptions, facts: NftablesFacts): Objects {
  const nodePorts = nodePortIPs(options, facts);
  const services = jumpedTo('services', [
    [vmap(FRONTEND, BY_ADDRESS.frontends)],
    [...toNode(options), vmap(NODE_PORT, BY_NODE_PORT.frontends)],
  ]);
  const chains: readonly ChainContent[] = [
    ...baseChains(),
    jumpedTo('nodeport-endpoints-check', [[...toNodeAtInput(options), vmap(NODE_PORT, NO_ENDPOINT_NODEPORTS)]]),
    jumpedTo('service-endpoints-check', [
      [vmap(FRONTEND, NO_ENDPOINT_SERVICES)],
      [{ kind: 'ctStatusDnat' }, verdict({ kind: 'jump', chain: REMEMBER })],
    ]),
    jumpedTo('firewall-check', [[inSet(FRONTEND, FIREWALLED), notInSet([...FRONTEND, 'saddr'], SOURCE_RANGES), DROP]]),
    { chain: services.chain, rules: [...masqueradeOutside(options), ...services.rules] },
    masquerading(options),
    clusterIPsCheck(facts),
    rejectChain(),
    externalCluster(options),
    externalLocal(options),
    policy('cluster'),
    policy('local'),
    rememberClients(),
  ];
  const sets = [
    HAIRPIN_CONNECTIONS,
    CLUSTER_IPS,
    ...nodePorts.sets,
    NO_ENDPOINT_SERVICES,
    NO_ENDPOINT_NODEPORTS,
    FIREWALLED,
    SOURCE_RANGES,
    ...allOf(BY_ADDRESS),
    ...allOf(BY_NODE_PORT),
    CLIENTS.cluster,
    CLIENTS.local,
    CLIENT_ENDPOINTS,
  ];
  return { chains, sets, elements: nodePorts.elements };
}

function allOf({ frontends, picks, endpoints, sticky, numbers, stickyEndpoints }: FrontendSets) {
  return [
    frontends,
    picks.cluster,
    picks.local,
    endpoints.cluster,
    endpoints.local,
    sticky,
    numbers,
    stickyEndpoints.cluster,
    stickyEndpoints.local,
  ];
}

function externalCluster(options: NftablesOptions): ChainContent {
  const chain = EXTERNAL.cluster;
  return {
    chain: { name: chain },
    rules: [
      { chain, statements: [askForMasquerade(options)], comment: 'masquerade' },
      { chain, statements: [verdict(gotoChain(POLICY.cluster))] },
    ],
  };
}

/** The cluster's own pods, and the node itself, reach every endpoint whatever the policy says of others. */
function externalLocal(options: NftablesOptions): ChainContent {
  const chain = EXTERNAL.local;
  const toCluster = verdict(gotoChain(POLICY.cluster));
  const isFromPods = podTraffic(options.localTraffic, true);
  const rules: readonly RuleObject[] = [
    ...(isFromPods === undefined
      ? []
      : [{ chain, statements: [isFromPods, toCluster], comment: 'short-circuit pod traffic' }]),
    { chain, statements: [FROM_NODE, askForMasquerade(options)], comment: 'masquerade local traffic' },
    { chain, statements: [FROM_NODE, toCluster], comment: 'short-circuit local traffic' },
    { chain, statements: [verdict(gotoChain(POLICY.local))] },
  ];
  return { chain: { name: chain }, rules };
}

/** To the chain for as many endpoints as the frontend has in a list. */
function policy(list: EndpointList): ChainContent {
  const chain = POLICY[list];
  return {
    chain: { name: chain },
    rules: [
      { chain, statements: [vmap(FRONTEND, BY_ADDRESS.picks[list])] },
      { chain, statements: [vmap(NODE_PORT, BY_NODE_PORT.picks[list])] },
    ],
  };
}

function rememberClients(): ChainContent {
  const chain = REMEMBER;
  return {
    chain: { name: chain },
    rules: PROTOCOLS.flatMap((protocol) => {
      const isProtocol: Statement = { kind: 'l4proto', protocol };
      return [
        { chain, statements: [isProtocol, vmap(ORIGINAL_FRONTEND, BY_ADDRESS.sticky)] },
        { chain, statements: [isProtocol, vmap(ORIGINAL_NODE_PORT, BY_NODE_PORT.sticky)] },
      ];
    }),
  };
}
