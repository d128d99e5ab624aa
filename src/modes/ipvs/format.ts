/**
 * Virtual servers and sets as the tools print and take them: `ipvsadm -Sn`, `ipset save`. Pure. spec: ipvs.md §16.
 *
 * @module
 */

import { compareText, type Family } from '../../proxier/types.ts';
import type { Desired } from './desired.ts';
import {
  IP_VS_SVC_F_PERSISTENT,
  IP_VS_SVC_F_SCHED_MH_PORT,
  realServerName,
  type VirtualServer,
  type VirtualServerKey,
} from './objects.ts';
import type { ServedAddress } from './render.ts';
import { SET_IDS, setDefinition, setName } from './sets.ts';

const SERVICE_OPTION = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' } as const;

/** `-t 10.43.0.1:443`: how the tool is told a virtual server. */
export function formatServerKey({ ip, port, protocol }: VirtualServerKey): string {
  return `${SERVICE_OPTION[protocol]} ${realServerName({ ip, port })}`;
}

function formatServer(server: VirtualServer): string {
  const persistent = (server.flags & IP_VS_SVC_F_PERSISTENT) === 0 ? '' : ` -p ${server.timeoutSeconds}`;
  const schedulerFlags = (server.flags & IP_VS_SVC_F_SCHED_MH_PORT) === 0 ? '' : ' -b mh-port';
  return `${formatServerKey(server)} -s ${server.scheduler}${persistent}${schedulerFlags}`;
}

/** The lines of one virtual server. */
export function formatServedAddress({ server, realServers }: ServedAddress): readonly string[] {
  const key = formatServerKey(server);
  return [`-A ${formatServer(server)}`, ...realServers.map((real) => `-a ${key} -r ${realServerName(real)} -m -w 1`)];
}

/** Everything as `ipvsadm -R` takes it, in the order of the virtual servers' names. */
export function formatServers({ servers }: Desired): string {
  const lines = [...servers.entries()]
    .sort(([a], [b]) => compareText(a, b))
    .flatMap(([, { value }]) => formatServedAddress(value));
  return lines.map((line) => `${line}\n`).join('');
}

/** All sets of a family as `ipset restore` takes them, elements in the order of text. */
export function formatSets(desired: Desired, family: Family): string {
  const elements = new Map(SET_IDS.map((id): [string, string[]] => [id, []]));
  for (const [, { value }] of desired.elements.entries()) elements.get(value.set)?.push(value.text);
  for (const [ip] of desired.addresses.entries()) elements.get('IPVS-IPS')?.push(ip);
  const lines = SET_IDS.flatMap((id) => {
    const name = setName(id, family);
    const sorted = (elements.get(id) ?? []).sort(compareText);
    return [`create ${name} ${setDefinition(id, family)}`, ...sorted.map((text) => `add ${name} ${text}`)];
  });
  return lines.map((line) => `${line}\n`).join('');
}
