/**
 * `ip:port` texts of the two servers, and their deprecated port flags. Brackets as in URLs: `[::1]:10256`.
 *
 * @module
 */

import { parseIP } from '../proxier/addr.ts';

/** Host without brackets and port text, or undefined if `text` is not `host:port`. */
export function splitHostPort(text: string): { readonly host: string; readonly port: string } | undefined {
  const match = /^(?:\[([^[\]]*)\]|([^:[\]]*)):([^:[\]]*)$/.exec(text);
  if (match === null) return undefined;
  return { host: match[1] ?? match[2] ?? '', port: match[3] ?? '' };
}

/** True for `ip:port` with a port in 1..65535. */
export function isIPPort(text: string): boolean {
  const parts = splitHostPort(text);
  if (parts === undefined || parseIP(parts.host) === undefined || !/^\d+$/.test(parts.port)) return false;
  const port = Number(parts.port);
  return port >= 1 && port <= 65535;
}

/** Adds `:port` to a text that is an address without one (IPv6 gets brackets); any other text stays as it is. */
export function withPort(text: string, port: number): string {
  const ip = parseIP(text);
  if (ip === undefined) return text;
  return text.includes(':') ? `[${text}]:${port}` : `${text}:${port}`;
}
