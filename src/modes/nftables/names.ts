/**
 * Names in the table of layout `chains`. They are those of kube-proxy, which takes over from this proxy and is taken over by
 * it, and depend on nothing but what an object is for. spec: nftables.md §3.
 *
 * @module
 */

import type { Endpoint, ServicePort } from '../../proxier/types.ts';
import { base32Hash } from '../base32.ts';

/** What a service port is told by. */
type Identity = Pick<ServicePort, 'namespace' | 'serviceName' | 'protocol' | 'portName'>;

/** Longer ones end in `...`: with its longest prefix a name then has 249 bytes, and the kernel takes 255. */
const MAX_LENGTH = 240;

/** Names of objects that belong to one service port. */
export interface ServicePortNames {
  readonly clusterPolicy: string;
  readonly localPolicy: string;
  readonly external: string;
  readonly firewall: string;
  /** 8 characters that begin the hash of the service port: part of all its names. */
  readonly hash: string;
}

/** Chain and set of one endpoint of a service port with affinity. */
export interface EndpointNames {
  readonly chain: string;
  readonly affinitySet: string;
}

/**
 * Names the chains of a service port.
 *
 * @throws {RangeError} If namespace, name or port name holds anything but letters, digits, `.`, `_` and `-`. The API server
 *   accepts no such name.
 */
export function servicePortNames(port: Identity): ServicePortNames {
  const base = hashed(baseOf(port));
  return {
    clusterPolicy: `service-${base}`,
    localPolicy: `local-${base}`,
    external: `external-${base}`,
    firewall: `firewall-${base}`,
    hash: base.slice(0, 8),
  };
}

/** Names what an endpoint of a service port has of its own. @throws {RangeError} As `servicePortNames`. */
export function endpointNames(port: Identity, endpoint: Pick<Endpoint, 'ip' | 'port'>): EndpointNames {
  const base = hashed(`${baseOf(port)}__${endpoint.ip.replaceAll(':', '.')}/${endpoint.port}`);
  return { chain: `endpoint-${base}`, affinitySet: `affinity-${base}` };
}

/**
 * Names a set or map that is written in a rule. It holds what its name says, and two of one table differ: the name comes of the
 * chain and of all that is in it.
 *
 * @param owner - Whose it is, for people who meet the name in a message of the kernel.
 * @param chain - The chain of the rule, which has at most one with this content.
 */
export function anonymousName(owner: string, chain: string, content: string): string {
  return `${owner}-${base32Hash(`${chain}\n${content}`, 16)}`;
}

function baseOf({ namespace, serviceName, protocol, portName }: Identity): string {
  const base = `${namespace}/${serviceName}/${protocol.toLowerCase()}/${portName}`;
  if (!/^[\w./-]*$/.test(base)) {
    throw new RangeError(
      `Cannot name a chain after ${JSON.stringify(base)}: names must be letters, digits, ".", "_" and "-"`,
    );
  }
  return base;
}

function hashed(base: string): string {
  const name = `${base32Hash(base, 8)}-${base}`;
  return name.length > MAX_LENGTH ? `${name.slice(0, MAX_LENGTH - 3)}...` : name;
}
