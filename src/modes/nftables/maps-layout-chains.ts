/**
 * The chains of layout `maps` that exist while some service uses them: one for each number of endpoints and list, with affinity a
 * second one, and one for each protocol and timeout that clients are remembered with. Whichever service asks for a chain, it is the
 * same. Pure.
 *
 * @module
 */

import type { Field, RuleObject, SetObject, Statement } from '../../netlink/nftables/transaction.ts';
import type { ChainContent } from './layout.ts';
import {
  BY_ADDRESS,
  BY_NODE_PORT,
  CLIENT_ENDPOINTS,
  CLIENTS,
  type EndpointList,
  type FrontendSets,
  LISTS,
} from './maps-layout-sets.ts';
import { DROP, FRONTEND, gotoChain, inSet, NODE_PORT, notInSet, type protocolWord, verdict } from './statements.ts';

type ProtocolWord = ReturnType<typeof protocolWord>;

/** Where a packet was sent to before it was translated. */
export const ORIGINAL_FRONTEND: readonly Field[] = ['originalDaddr', 'l4proto', 'originalDport'];
export const ORIGINAL_NODE_PORT: readonly Field[] = ['l4proto', 'originalDport'];
/** Where it goes after that. */
const ENDPOINT: readonly Field[] = ['daddr', 'dport'];

function chainOf(name: string, rules: readonly (readonly Statement[])[]): ChainContent {
  return { chain: { name }, rules: rules.map((statements): RuleObject => ({ chain: name, statements })) };
}

function dnat(fields: readonly Field[], { name }: SetObject): Statement {
  return { kind: 'dnatMap', fields, map: { kind: 'named', map: name } };
}

export function pickName(list: EndpointList, count: number): string {
  return `pick-${list}-${count}`;
}

/**
 * Picks one of `count` endpoints, each with the same odds.
 *
 * A packet that was on its way when the list became shorter may draw a number that is not there any more. It gets the first
 * endpoint: there is one as long as the frontend leads here.
 */
export function pickChain(list: EndpointList, count: number): ChainContent {
  const draws = count === 1 ? [1] : [count, 1];
  return chainOf(
    pickName(list, count),
    draws.flatMap((random) => [
      [dnat([...FRONTEND, { random }], BY_ADDRESS.endpoints[list])],
      [dnat([...NODE_PORT, { random }], BY_NODE_PORT.endpoints[list])],
    ]),
  );
}

export function stickName(list: EndpointList, count: number): string {
  return `stick-${list}-${count}`;
}

/**
 * Sends a client where it was sent before, or else picks.
 *
 * The number of the service port is carried from the first look-up to the next by the packet's priority. An address comes last: its
 * port may be a node port of another service.
 */
export function stickChain(list: EndpointList, count: number): ChainContent {
  return chainOf(stickName(list, count), [
    [numbered(NODE_PORT, BY_NODE_PORT)],
    [numbered(FRONTEND, BY_ADDRESS)],
    [dnat(['saddr', 'l4proto', 'priority'], CLIENTS[list])],
    [{ kind: 'clearPriority' }],
    [verdict(gotoChain(pickName(list, count)))],
  ]);
}

function numbered(fields: readonly Field[], { numbers }: FrontendSets): Statement {
  return { kind: 'setPriority', fields, map: { kind: 'named', map: numbers.name } };
}

export function rememberName(protocol: ProtocolWord, timeoutSeconds: number): string {
  return `remember-${protocol}-${timeoutSeconds}`;
}

/**
 * Sees new connections after their translation. Remembers client and endpoint, for each list that has it, if the endpoint is still
 * there; if it is not, and the packet goes there only because the client was remembered, forgets both and drops the packet: the
 * client's next one is sent elsewhere.
 *
 * The number is looked up again: the kernel sets the priority of what it forwards anew (IPv4). nft(8) reads `ct original proto-dst`
 * only behind a protocol, which is why there is a chain for each.
 */
export function rememberChain(protocol: ProtocolWord, timeoutSeconds: number): ChainContent {
  const isProtocol: Statement = { kind: 'l4proto', protocol };
  const client: readonly Field[] = ['saddr', 'l4proto', 'priority'];
  const pair: readonly Field[] = ['saddr', 'priority', ...ENDPOINT];
  const places = [
    { fields: [...ORIGINAL_FRONTEND, ...ENDPOINT], sets: BY_ADDRESS },
    { fields: [...ORIGINAL_NODE_PORT, ...ENDPOINT], sets: BY_NODE_PORT },
  ];
  const update = (list: EndpointList): readonly Statement[] => [
    { kind: 'dynamic', op: 'update', set: CLIENTS[list].name, fields: client, data: ENDPOINT, timeoutSeconds },
    { kind: 'dynamic', op: 'update', set: CLIENT_ENDPOINTS.name, fields: pair, timeoutSeconds },
  ];
  return chainOf(rememberName(protocol, timeoutSeconds), [
    [isProtocol, numbered(ORIGINAL_NODE_PORT, BY_NODE_PORT)],
    [isProtocol, numbered(ORIGINAL_FRONTEND, BY_ADDRESS)],
    ...LISTS.flatMap((list) =>
      places.map(({ fields, sets }) => [isProtocol, inSet(fields, sets.stickyEndpoints[list]), ...update(list)]),
    ),
    [
      isProtocol,
      inSet(pair, CLIENT_ENDPOINTS),
      ...LISTS.flatMap((list) => places.map(({ fields, sets }) => notInSet(fields, sets.stickyEndpoints[list]))),
      ...LISTS.map((list): Statement => {
        return { kind: 'dynamic', op: 'delete', set: CLIENTS[list].name, fields: client, data: ENDPOINT };
      }),
      { kind: 'dynamic', op: 'delete', set: CLIENT_ENDPOINTS.name, fields: pair },
      DROP,
    ],
    [{ kind: 'clearPriority' }],
  ]);
}
