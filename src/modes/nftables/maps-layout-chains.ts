/**
 * The chains of layout `maps` that exist while some service uses them: one for each number of endpoints and list, with affinity a
 * second one, and one for each protocol and timeout that clients are remembered with. Whichever service asks for a chain, it is the
 * same. Pure.
 *
 * @module
 */

import type { Field, RuleObject, SetObject, Statement } from '../../netlink/nftables/transaction.ts';
import type { ChainContent } from './layout.ts';
import { BY_ADDRESS, BY_NODE_PORT, type EndpointList, STICKY_CLIENTS, STICKY_CONNECTIONS } from './maps-layout-sets.ts';
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

/** Sends a client where it was sent before, or else picks. */
export function stickChain(list: EndpointList, count: number): ChainContent {
  return chainOf(stickName(list, count), [
    [dnat(['saddr', ...FRONTEND], STICKY_CLIENTS)],
    [verdict(gotoChain(pickName(list, count)))],
  ]);
}

export function rememberName(protocol: ProtocolWord, timeoutSeconds: number): string {
  return `remember-${protocol}-${timeoutSeconds}`;
}

/**
 * Sees new connections after their translation. Remembers client and endpoint if the endpoint is still there; if it is not, and the
 * packet goes there only because the client was remembered, forgets both and drops the packet: the client's next one is sent
 * elsewhere.
 *
 * nft(8) reads `ct original proto-dst` only behind a protocol, which is why there is a chain for each.
 */
export function rememberChain(protocol: ProtocolWord, timeoutSeconds: number): ChainContent {
  const isProtocol: Statement = { kind: 'l4proto', protocol };
  const client: readonly Field[] = ['saddr', ...ORIGINAL_FRONTEND];
  const connection: readonly Field[] = ['saddr', 'originalDaddr', 'originalDport', ...ENDPOINT];
  const change = (op: 'update' | 'delete'): readonly Statement[] => {
    const timeout = op === 'update' ? { timeoutSeconds } : {};
    return [
      { kind: 'dynamic', op, set: STICKY_CLIENTS.name, fields: client, data: ENDPOINT, ...timeout },
      { kind: 'dynamic', op, set: STICKY_CONNECTIONS.name, fields: connection, ...timeout },
    ];
  };
  const byAddress: readonly Field[] = [...ORIGINAL_FRONTEND, ...ENDPOINT];
  const byNodePort: readonly Field[] = [...ORIGINAL_NODE_PORT, ...ENDPOINT];
  const isGone: readonly Statement[] = [
    notInSet(byAddress, BY_ADDRESS.stickyEndpoints),
    notInSet(byNodePort, BY_NODE_PORT.stickyEndpoints),
  ];
  return chainOf(rememberName(protocol, timeoutSeconds), [
    [isProtocol, inSet(byAddress, BY_ADDRESS.stickyEndpoints), ...change('update')],
    [isProtocol, inSet(byNodePort, BY_NODE_PORT.stickyEndpoints), ...change('update')],
    [isProtocol, inSet(connection, STICKY_CONNECTIONS), ...isGone, ...change('delete'), DROP],
  ]);
}
