/**
 * The sets and maps of layout `maps`, which all services share; those it has in common with layout `chains` are in `shared-sets.ts`.
 * No name is one of kube-proxy's or of the other layout's: a name means the same type in both.
 *
 * A frontend is an address, protocol and port a Service answers on, or protocol and port of a node port.
 *
 * @module
 */

import type { FieldType, SetObject } from '../../netlink/nftables/transaction.ts';

const FRONTEND: readonly FieldType[] = ['addr', 'inet_proto', 'inet_service'];
const NODE_PORT: readonly FieldType[] = ['inet_proto', 'inet_service'];
const ENDPOINT: readonly FieldType[] = ['addr', 'inet_service'];
/** Of a service port, in the shape of what carries it from one look-up to the next: the packet's priority. */
const NUMBER: readonly FieldType[] = ['classid'];

/** Whose endpoints: the Cluster policy's or the Local policy's. */
export type EndpointList = 'cluster' | 'local';
export const LISTS: readonly EndpointList[] = ['cluster', 'local'];

/** The sets of one kind of frontend. */
export interface FrontendSets {
  /** Fields of a frontend's key. */
  readonly fields: number;
  /** Where packets to a frontend go first: cluster IPs to a chain that picks, others to one of `external-…`. */
  readonly frontends: SetObject;
  /** Of frontends that `external-…` has looked at: the chain that picks from a list. */
  readonly picks: Readonly<Record<EndpointList, SetObject>>;
  /** Frontend and number, from 0 on → endpoint. */
  readonly endpoints: Readonly<Record<EndpointList, SetObject>>;
  /** Frontends with affinity: the chain that remembers. */
  readonly sticky: SetObject;
  /** Frontends with affinity → the number of their service port (`affinityNumber`). */
  readonly numbers: SetObject;
  /** Frontends with affinity, with each endpoint that clients of one of the lists may have → that number again, for who forgets. */
  readonly stickyEndpoints: Readonly<Record<EndpointList, SetObject>>;
}

function setsOf(key: readonly FieldType[], prefix: string, of: string): FrontendSets {
  const verdicts = (name: string, comment: string): SetObject => ({
    name: `${prefix}${name}`,
    key,
    data: 'verdict',
    comment,
  });
  const endpoints = (list: EndpointList): SetObject => ({
    name: `${prefix}${list}-endpoints`,
    key: [...key, 'integer'],
    data: ENDPOINT,
    comment: `endpoints of ${of} by the ${list} policy`,
  });
  const stickyEndpoints = (list: EndpointList): SetObject => ({
    name: `${prefix}${list}-sticky-endpoints`,
    key: [...key, ...ENDPOINT],
    data: NUMBER,
    comment: `endpoints of ${of} with session affinity, by the ${list} policy`,
  });
  return {
    fields: key.length,
    frontends: verdicts('frontends', `traffic to ${of}`),
    picks: {
      cluster: verdicts('cluster-picks', `external traffic to ${of}, by the cluster policy`),
      local: verdicts('local-picks', `external traffic to ${of}, by the local policy`),
    },
    endpoints: { cluster: endpoints('cluster'), local: endpoints('local') },
    sticky: verdicts('sticky-frontends', `${of} with session affinity`),
    numbers: {
      name: `${prefix}sticky-numbers`,
      key,
      data: NUMBER,
      comment: `service ports of ${of} with session affinity`,
    },
    stickyEndpoints: { cluster: stickyEndpoints('cluster'), local: stickyEndpoints('local') },
  };
}

export const BY_ADDRESS: FrontendSets = setsOf(FRONTEND, 'service-', 'addresses of services');
export const BY_NODE_PORT: FrontendSets = setsOf(NODE_PORT, 'nodeport-', 'node ports');

/**
 * Most entries of what the packet path writes, some 200 bytes of the kernel's memory each. Beyond them clients are served without
 * being remembered.
 */
const CLIENTS_MAX = 1_000_000;

function clientsOf(list: EndpointList): SetObject {
  return {
    name: `${list}-clients`,
    // The number tells protocols apart. nft(8) wants to be told that the packet has ports.
    key: ['addr', 'inet_proto', ...NUMBER],
    data: ENDPOINT,
    flags: ['dynamic', 'timeout'],
    size: CLIENTS_MAX,
    comment: `endpoints that clients are sent to by the ${list} policy`,
  };
}

/**
 * Client and service port → the endpoint it is sent to, of each list: who has an endpoint on another node cannot be sent there where
 * the Local policy holds. The packet path writes it.
 */
export const CLIENTS: Readonly<Record<EndpointList, SetObject>> = {
  cluster: clientsOf('cluster'),
  local: clientsOf('local'),
};

/**
 * The same as a set, of both lists: whether a packet goes where it goes because its client is remembered. The packet path writes it.
 */
export const CLIENT_ENDPOINTS: SetObject = {
  name: 'client-endpoints',
  key: ['addr', ...NUMBER, ...ENDPOINT],
  flags: ['dynamic', 'timeout'],
  size: CLIENTS_MAX,
  comment: 'clients and endpoints they are sent to',
};

/** Frontends that not everyone may use. */
export const FIREWALLED: SetObject = {
  name: 'firewalled-frontends',
  key: FRONTEND,
  comment: 'destinations that are subject to LoadBalancerSourceRanges',
};

/** Frontend and source address that may use it. */
export const SOURCE_RANGES: SetObject = {
  name: 'source-ranges',
  key: [...FRONTEND, 'addr'],
  flags: ['interval'],
  comment: 'sources allowed by LoadBalancerSourceRanges',
};
