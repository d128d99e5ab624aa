/**
 * What this mode keeps in the kernel, as data: virtual servers with their real servers, addresses on the dummy device, set elements.
 * Each thing has one text that names it; two things of the same name are the same thing.
 *
 * @module
 */

import { joinHostPort } from '../../proxier/addr.ts';
import type { IPAddress, Protocol } from '../../proxier/types.ts';

/** The device that holds service addresses. It is never up; its addresses are local all the same. */
export const DEVICE = 'kube-ipvs0';

/** Flags of a virtual server. include/uapi/linux/ip_vs.h */
export const IP_VS_SVC_F_PERSISTENT = 0x1;
/** IP_VS_SVC_F_SCHED2: what the scheduler `mh` calls mh-port. */
export const IP_VS_SVC_F_SCHED_MH_PORT = 0x10;

/** What names a virtual server. */
export interface VirtualServerKey {
  readonly ip: IPAddress;
  readonly port: number;
  readonly protocol: Protocol;
}

export interface VirtualServer extends VirtualServerKey {
  readonly scheduler: string;
  /** `IP_VS_SVC_F_…`, without the one the kernel sets itself. */
  readonly flags: number;
  /** Of persistence. */
  readonly timeoutSeconds: number;
}

export interface RealServer {
  readonly ip: IPAddress;
  readonly port: number;
}

/** `10.43.0.1:443/TCP`, IPv6 in brackets. */
export function virtualServerName({ ip, port, protocol }: VirtualServerKey): string {
  return `${joinHostPort(ip, port)}/${protocol}`;
}

/** `10.42.0.15:6443`, IPv6 in brackets. */
export function realServerName({ ip, port }: RealServer): string {
  return joinHostPort(ip, port);
}

/** True if nothing but the real servers can differ. */
export function sameVirtualServer(a: VirtualServer, b: VirtualServer): boolean {
  return a.scheduler === b.scheduler && a.flags === b.flags && a.timeoutSeconds === b.timeoutSeconds;
}
