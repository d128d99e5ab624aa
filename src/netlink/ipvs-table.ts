/**
 * /proc/net/ip_vs: all services and their destinations in one text. The only way to all destinations at once: over netlink they are
 * dumped service by service, which takes a hundred times as long. Schedulers, flags and timeouts are not all in it. Pure.
 *
 *     TCP  0A2B0001:01BB rr
 *       -> 0A2A000F:192B      Masq    1      2          1
 *     UDP  [fd00:0043:0000:0000:0000:0000:0000:000a]:0035 rr persistent 1080000 80000000
 *
 * @module
 */

import type { IpvsLiveDestination, IpvsServiceKey } from './ipvs-codec.ts';

/** A service and its destinations. */
export interface IpvsTableEntry {
  readonly key: IpvsServiceKey;
  readonly destinations: readonly IpvsLiveDestination[];
}

const PROTOCOLS: ReadonlyMap<string, number> = new Map([
  ['TCP', 6],
  ['UDP', 17],
  ['SCTP', 132],
]);

/** IP_VS_CONN_F_… */
const FORWARDING: ReadonlyMap<string, number> = new Map([
  ['Masq', 0],
  ['Local', 1],
  ['Tunnel', 2],
  ['Route', 3],
]);

const ENDPOINT = /^(?:([0-9A-F]{8})|\[([0-9a-f:]{39})\]):([0-9A-F]{4})$/;

function parseEndpoint(text: string): { readonly address: Uint8Array; readonly port: number } | undefined {
  const [, v4, v6, port] = ENDPOINT.exec(text) ?? [];
  if (port === undefined) return undefined;
  return { address: Buffer.from(v4 ?? v6?.replaceAll(':', '') ?? '', 'hex'), port: Number.parseInt(port, 16) };
}

/** Reads the whole table. Services of firewall marks or other protocols are left out, with their destinations. */
export function parseIpvsTable(text: string): IpvsTableEntry[] {
  const entries: IpvsTableEntry[] = [];
  let destinations: IpvsLiveDestination[] | undefined;
  for (const line of text.split('\n')) {
    const words = line.split(' ').filter((word) => word !== '');
    const [first = '', second = ''] = words;
    const at = parseEndpoint(second);
    if (first === '->') {
      const [, , method = '', ...numbers] = words;
      const [weight = 0, activeConnections = 0, inactiveConnections = 0] = numbers.map(Number);
      const forwarding = FORWARDING.get(method);
      if (at === undefined || forwarding === undefined) continue;
      destinations?.push({ ...at, weight, forwarding, activeConnections, inactiveConnections });
      continue;
    }
    const protocol = PROTOCOLS.get(first);
    destinations = undefined;
    if (protocol === undefined || at === undefined) continue;
    destinations = [];
    entries.push({ key: { ...at, protocol }, destinations });
  }
  return entries;
}
