/**
 * Which of the clients that packets wrote down in layout `maps` were sent to an endpoint that is gone. Pure.
 *
 * @module
 */

import type { SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { Learned } from './layout.ts';
import { BY_ADDRESS, BY_NODE_PORT, CLIENT_ENDPOINTS, CLIENTS, type EndpointList, LISTS } from './maps-layout-sets.ts';

const namesOf = (list: EndpointList) =>
  [BY_ADDRESS, BY_NODE_PORT].map(({ stickyEndpoints }) => stickyEndpoints[list].name);

export const LEARNED: Learned = {
  sets: [CLIENTS.cluster, CLIENTS.local, CLIENT_ENDPOINTS],
  about: new Set(LISTS.flatMap(namesOf)),
  staleIn(set: SetObject, gone: ReadonlyMap<string, readonly SetElement[]>) {
    // A pair of client and endpoint is of both lists: it only says who forgets at once where a packet finds the endpoint gone.
    const names = LISTS.filter((list) => set === CLIENTS[list] || set === CLIENT_ENDPOINTS).flatMap(namesOf);
    // Of what goes, only elements at a cluster IP are about endpoints; they bear a name.
    const endpoints = (name: string) => (gone.get(name) ?? []).filter(({ comment }) => comment !== undefined);
    const stale = new Set(names.flatMap((name) => endpoints(name).map(({ key, data }) => about(data, key.slice(-2)))));
    return ({ key, data }: SetElement) =>
      stale.has(data === undefined ? about(key.slice(1, 2), key.slice(2)) : about(key.slice(2), data));
  },
};

/** Number of the service port and endpoint, as text. */
function about(number: SetElement['data'], endpoint: SetElement['data']): string {
  const texts = [number, endpoint].map((part) => (part === undefined || 'kind' in part ? '' : part.join(' . ')));
  return texts.join(' . ');
}
