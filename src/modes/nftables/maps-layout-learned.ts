/**
 * Which of the clients that packets wrote down in layout `maps` were sent to an endpoint that is gone. Pure.
 *
 * @module
 */

import type { SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { Learned } from './layout.ts';
import { BY_ADDRESS, BY_NODE_PORT, STICKY_CLIENTS, STICKY_CONNECTIONS } from './maps-layout-sets.ts';

export const LEARNED: Learned = {
  sets: [STICKY_CLIENTS, STICKY_CONNECTIONS],
  about: new Set([BY_ADDRESS.stickyEndpoints.name, BY_NODE_PORT.stickyEndpoints.name]),
  staleIn(set: SetObject, gone: ReadonlyMap<string, readonly SetElement[]>) {
    const hasProtocol = set === STICKY_CLIENTS;
    const texts = ({ stickyEndpoints }: typeof BY_ADDRESS) => {
      const keys = (gone.get(stickyEndpoints.name) ?? []).map(({ key }) => key);
      const isFrontend = (part: string | number) => part !== 'tcp' && part !== 'udp' && part !== 'sctp';
      return new Set(keys.map((key) => textOf(hasProtocol ? key : key.filter(isFrontend))));
    };
    const [byAddress, byNodePort] = [texts(BY_ADDRESS), texts(BY_NODE_PORT)];
    return ({ key, data }: SetElement) => {
      // Without the client: address, protocol (in the map), port, then the endpoint.
      const rest = [...key.slice(1), ...(data === undefined || 'kind' in data ? [] : data)];
      return byAddress.has(textOf(rest)) || byNodePort.has(textOf(rest.slice(1)));
    };
  },
};

function textOf(key: SetElement['key']): string {
  return key.join(' . ');
}
