/**
 * The ipsets of this mode: their names, types and what stands in them. They are all the memory that a fresh process has of the run
 * before it. spec: ipvs.md §4.
 *
 * @module
 */

import { assertNever, type Cidr, type Family, type IPAddress, type Protocol } from '../../proxier/types.ts';

export type SetType = 'hash:ip' | 'hash:ip,port' | 'hash:ip,port,ip' | 'hash:ip,port,net' | 'bitmap:port';

interface SetDefinition {
  readonly type: SetType;
  /** What rules that match the set say about it. */
  readonly comment: string;
}

/** The sets in the order of the specification, by the part of their name behind `KUBE-`. */
export const SETS = {
  'LOOP-BACK': {
    type: 'hash:ip,port,ip',
    comment: 'Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose',
  },
  'CLUSTER-IP': { type: 'hash:ip,port', comment: 'Kubernetes service cluster ip + port for masquerade purpose' },
  'EXTERNAL-IP': {
    type: 'hash:ip,port',
    comment: 'Kubernetes service external ip + port for masquerade and filter purpose',
  },
  'EXTERNAL-IP-LOCAL': {
    type: 'hash:ip,port',
    comment: 'Kubernetes service external ip + port with externalTrafficPolicy=local',
  },
  'LOAD-BALANCER': { type: 'hash:ip,port', comment: 'Kubernetes service lb portal' },
  'LOAD-BALANCER-FW': {
    type: 'hash:ip,port',
    comment: 'Kubernetes service load balancer ip + port for load balancer with sourceRange',
  },
  'LOAD-BALANCER-LOCAL': {
    type: 'hash:ip,port',
    comment: 'Kubernetes service load balancer ip + port with externalTrafficPolicy=local',
  },
  'LOAD-BALANCER-SOURCE-IP': {
    type: 'hash:ip,port,ip',
    comment: 'Kubernetes service load balancer ip + port + source IP for packet filter purpose',
  },
  'LOAD-BALANCER-SOURCE-CIDR': {
    type: 'hash:ip,port,net',
    comment: 'Kubernetes service load balancer ip + port + source cidr for packet filter purpose',
  },
  'NODE-PORT-TCP': { type: 'bitmap:port', comment: 'Kubernetes nodeport TCP port for masquerade purpose' },
  'NODE-PORT-LOCAL-TCP': {
    type: 'bitmap:port',
    comment: 'Kubernetes nodeport TCP port with externalTrafficPolicy=local',
  },
  'NODE-PORT-UDP': { type: 'bitmap:port', comment: 'Kubernetes nodeport UDP port for masquerade purpose' },
  'NODE-PORT-LOCAL-UDP': {
    type: 'bitmap:port',
    comment: 'Kubernetes nodeport UDP port with externalTrafficPolicy=local',
  },
  'NODE-PORT-SCTP-HASH': {
    type: 'hash:ip,port',
    comment: "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
  },
  'NODE-PORT-LOCAL-SCTP-HASH': {
    type: 'hash:ip,port',
    comment: "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
  },
  'HEALTH-CHECK-NODE-PORT': { type: 'bitmap:port', comment: 'Kubernetes health check node port' },
  'IPVS-IPS': { type: 'hash:ip', comment: 'Addresses on the ipvs interface' },
} as const satisfies Readonly<Record<string, SetDefinition>>;

/** Which set, whatever the family. */
export type SetId = keyof typeof SETS;

function isSetId(text: string): text is SetId {
  return Object.hasOwn(SETS, text);
}

export const SET_IDS: readonly SetId[] = Object.keys(SETS).filter(isSetId);

/** IPSET_MAXNAMELEN is 32 with the NUL. */
const NAME_MAX = 31;

/** Name of a set in the kernel. IPv6 names are cut to what the kernel takes; two of them are. */
export function setName(id: SetId, family: Family): string {
  return (family === 'IPv4' ? `KUBE-${id}` : `KUBE-6-${id}`).slice(0, NAME_MAX);
}

/** What follows `create NAME` for the tool. */
export function setDefinition(id: SetId, family: Family): string {
  const { type } = SETS[id];
  if (type === 'bitmap:port') return `${type} range 0-65535`;
  return `${type} family ${family === 'IPv4' ? 'inet' : 'inet6'} hashsize 1024 maxelem 65536`;
}

/** One element of a set; which fields it has depends on the type of the set. */
export type Entry =
  | { readonly kind: 'ip'; readonly ip: IPAddress }
  | { readonly kind: 'ip,port'; readonly ip: IPAddress; readonly protocol: Protocol; readonly port: number }
  | {
      readonly kind: 'ip,port,source';
      readonly ip: IPAddress;
      readonly protocol: Protocol;
      readonly port: number;
      readonly source: IPAddress | Cidr;
    }
  | { readonly kind: 'port'; readonly port: number };

/**
 * The element as the tool prints it, which is also a form that it takes: one text for one element. A source range of a single
 * address is written without its prefix length.
 */
export function formatEntry(entry: Entry): string {
  switch (entry.kind) {
    case 'ip':
      return entry.ip;
    case 'ip,port':
      return `${entry.ip},${entry.protocol.toLowerCase()}:${entry.port}`;
    case 'ip,port,source':
      return `${entry.ip},${entry.protocol.toLowerCase()}:${entry.port},${hostless(entry.source)}`;
    case 'port':
      return `${entry.port}`;
    default:
      return assertNever(entry, 'entry');
  }
}

function hostless(source: string): string {
  return source.replace(source.includes(':') ? /\/128$/ : /\/32$/, '');
}
