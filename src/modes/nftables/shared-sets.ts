/**
 * The named sets and maps that all services of layout `chains` share, as kube-proxy has them. spec: nftables.md §5.
 *
 * @module
 */

import type { FieldType, SetObject } from '../../netlink/nftables/transaction.ts';

/** Where packets go to: address, protocol and port. */
const FRONTEND: readonly FieldType[] = ['addr', 'inet_proto', 'inet_service'];
const NODE_PORT: readonly FieldType[] = ['inet_proto', 'inet_service'];

/** Connections of a pod to itself through a Service: source, destination, protocol and port after the translation. */
export const HAIRPIN_CONNECTIONS: SetObject = {
  name: 'hairpin-connections',
  key: ['addr', 'addr', 'inet_proto', 'inet_service'],
  comment: 'service hairpin connections',
};

export const CLUSTER_IPS: SetObject = { name: 'cluster-ips', key: ['addr'], comment: 'Active ClusterIPs' };

/** Is there only if not all addresses of the node answer on node ports. */
export const NODEPORT_IPS: SetObject = {
  name: 'nodeport-ips',
  key: ['addr'],
  comment: 'IPs that accept NodePort traffic',
};

export const NO_ENDPOINT_SERVICES: SetObject = {
  name: 'no-endpoint-services',
  key: FRONTEND,
  data: 'verdict',
  comment: 'vmap to drop or reject packets to services with no endpoints',
};

export const NO_ENDPOINT_NODEPORTS: SetObject = {
  name: 'no-endpoint-nodeports',
  key: NODE_PORT,
  data: 'verdict',
  comment: 'vmap to drop or reject packets to service nodeports with no endpoints',
};

export const FIREWALL_IPS: SetObject = {
  name: 'firewall-ips',
  key: FRONTEND,
  data: 'verdict',
  comment: 'destinations that are subject to LoadBalancerSourceRanges',
};

export const SERVICE_IPS: SetObject = {
  name: 'service-ips',
  key: FRONTEND,
  data: 'verdict',
  comment: 'ClusterIP, ExternalIP and LoadBalancer IP traffic',
};

export const SERVICE_NODEPORTS: SetObject = {
  name: 'service-nodeports',
  key: NODE_PORT,
  data: 'verdict',
  comment: 'NodePort traffic',
};
