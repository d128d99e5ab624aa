/**
 * Addresses and CIDRs: texts of the API in, canonical texts out. The only place where `IPAddress` and `Cidr` are made.
 *
 * Kubernetes has always read addresses leniently, and stored objects rely on it: `172.30.0.041` is 172.30.0.41, and
 * `::ffff:1.2.3.4` is an IPv4 address. What reaches a rule is therefore always the text printed here, never the one
 * read: chain names are hashes of it, and a tool may read a leading zero as octal.
 *
 * @module
 */

import ipaddr from 'ipaddr.js';
import type { Cidr, Family, IPAddress } from './types.ts';

/** A canonical address with its family. */
export interface ParsedIP {
  readonly ip: IPAddress;
  readonly family: Family;
}

/** A canonical CIDR, host bits masked off, with its parts. */
export interface ParsedCidr {
  readonly cidr: Cidr;
  readonly family: Family;
  /** The network address. */
  readonly address: IPAddress;
  /** 0..32 or 0..128. */
  readonly prefixLength: number;
}

/** First address of 127.0.0.0/8. */
export const IPV4_LOOPBACK_START = '127.0.0.0' as IPAddress;

const DOT = 46;
const ZERO = 48;
const NINE = 57;
/** What an IPv6 text may be made of once a trailing dotted IPv4 is gone: no zone, no sign, no blank. */
const HEX_AND_COLONS = /^[0-9a-fA-F:]+$/;
const PREFIX_LENGTH = /^[0-9]+$/;

/**
 * Reads four decimal octets; leading zeros are allowed and mean nothing.
 *
 * @returns The canonical text (`text` itself where it is canonical already, so that nothing is copied), or undefined.
 */
function canonicalIPv4(text: string): string | undefined {
  let canonical = true;
  let octets = 0;
  let value = 0;
  let digits = 0;
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : DOT;
    if (c >= ZERO && c <= NINE) {
      if (digits > 0 && value === 0) canonical = false;
      value = value * 10 + c - ZERO;
      digits++;
      if (value > 255) return undefined;
    } else if (c === DOT) {
      if (digits === 0) return undefined;
      octets++;
      value = 0;
      digits = 0;
    } else return undefined;
  }
  if (octets !== 4) return undefined;
  return canonical ? text : text.split('.').map(Number).join('.');
}

function octets(dotted: string): number[] {
  return dotted.split('.').map(Number);
}

/** Reads an IPv6 text; the last 32 bits may be dotted. ipaddr.js reads the groups: its own dotted forms are not ours. */
function parseIPv6(text: string): ipaddr.IPv6 | undefined {
  let groups = text;
  if (text.includes('.')) {
    const at = text.lastIndexOf(':') + 1;
    const tail = canonicalIPv4(text.slice(at));
    if (tail === undefined) return undefined;
    const [a = 0, b = 0, c = 0, d = 0] = octets(tail);
    groups = `${text.slice(0, at)}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  }
  if (!HEX_AND_COLONS.test(groups) || !ipaddr.IPv6.isValid(groups)) return undefined;
  return ipaddr.IPv6.parse(groups);
}

function printIPv6(address: ipaddr.IPv6): ParsedIP {
  return address.isIPv4MappedAddress()
    ? { ip: address.toIPv4Address().toString() as IPAddress, family: 'IPv4' }
    : { ip: address.toRFC5952String() as IPAddress, family: 'IPv6' };
}

/**
 * Parses an address leniently. Blanks around it and zones (`%eth0`) are not lenient, they are errors.
 *
 * @returns Undefined if `text` is not an address.
 */
export function parseIP(text: string): ParsedIP | undefined {
  if (!text.includes(':')) {
    const ip = canonicalIPv4(text);
    return ip === undefined ? undefined : { ip: ip as IPAddress, family: 'IPv4' };
  }
  const address = parseIPv6(text);
  return address === undefined ? undefined : printIPv6(address);
}

/**
 * Parses a CIDR leniently and masks its host bits: `1.2.3.4/028` is `1.2.3.0/28`. A bare address is not a CIDR.
 *
 * @returns Undefined if `text` is not a CIDR.
 */
export function parseCidr(text: string): ParsedCidr | undefined {
  const slash = text.indexOf('/');
  const suffix = text.slice(slash + 1);
  if (slash === -1 || !PREFIX_LENGTH.test(suffix)) return undefined;
  const prefixLength = Number(suffix);
  const host = text.slice(0, slash);
  if (!host.includes(':')) {
    const ip = canonicalIPv4(host);
    if (ip === undefined || prefixLength > 32) return undefined;
    return cidrOf(mask(octets(ip), prefixLength).join('.') as IPAddress, 'IPv4', prefixLength);
  }
  const address = parseIPv6(host);
  if (address === undefined || prefixLength > 128) return undefined;
  const { ip, family } = printIPv6(new ipaddr.IPv6(mask(address.toByteArray(), prefixLength)));
  // Masked above bit 96 a mapped address is no longer one, so here the prefix covers at least the mapping.
  return cidrOf(ip, family, family === 'IPv4' ? prefixLength - 96 : prefixLength);
}

function cidrOf(address: IPAddress, family: Family, prefixLength: number): ParsedCidr {
  return { cidr: `${address}/${prefixLength}` as Cidr, family, address, prefixLength };
}

/** Clears all bits behind the first `prefixLength`. */
function mask(bytes: readonly number[], prefixLength: number): number[] {
  return bytes.map((byte, i) => {
    const kept = Math.min(8, Math.max(0, prefixLength - i * 8));
    return byte & (0xff00 >> kept) & 0xff;
  });
}

/** Family of a canonical address or CIDR. */
export function familyOf(text: IPAddress | Cidr): Family {
  return text.includes(':') ? 'IPv6' : 'IPv4';
}

/** True for a CIDR that holds every address of its family. */
export function isZeroCidr(cidr: Cidr): boolean {
  return cidr.endsWith('/0');
}

/** True if the address lies in the CIDR; false across families. */
export function cidrContains(cidr: Cidr, ip: IPAddress): boolean {
  const address = ipaddr.parse(ip);
  const [network, prefixLength] = ipaddr.parseCIDR(cidr);
  return address.kind() === network.kind() && address.match(network, prefixLength);
}

/** True for 127.0.0.0/8 and `::1`. */
export function isLoopback(ip: IPAddress): boolean {
  return ip === '::1' || ip.startsWith('127.');
}

/** True for `0.0.0.0` and `::`. */
export function isUnspecified(ip: IPAddress): boolean {
  return ip === '0.0.0.0' || ip === '::';
}

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export function joinHostPort(ip: IPAddress, port: number): string {
  return familyOf(ip) === 'IPv4' ? `${ip}:${port}` : `[${ip}]:${port}`;
}

/** The address in network order: 4 or 16 bytes. */
export function ipBytes(ip: IPAddress): Uint8Array {
  return Uint8Array.from(familyOf(ip) === 'IPv4' ? octets(ip) : ipaddr.IPv6.parse(ip).toByteArray());
}

/** Called with a text that is neither blank nor an address (a CIDR). */
export type OnUnparsable = (text: string) => void;

const NONE: readonly never[] = [];

/** Addresses of one family, in the order given, printed canonically. Duplicates stay. */
export function ipsOfFamily(
  texts: readonly string[],
  family: Family,
  onUnparsable?: OnUnparsable,
): readonly IPAddress[] {
  if (texts.length === 0) return NONE;
  return pick(texts, parseIP, onUnparsable)
    .filter((p) => p.family === family)
    .map((p) => p.ip);
}

/** CIDRs of one family, in the order given, masked and printed canonically. Blanks around each text are left out. */
export function cidrsOfFamily(texts: readonly string[], family: Family, onUnparsable?: OnUnparsable): readonly Cidr[] {
  if (texts.length === 0) return NONE;
  return pick(texts, (text) => parseCidr(text.trim()), onUnparsable)
    .filter((p) => p.family === family)
    .map((p) => p.cidr);
}

function pick<T>(texts: readonly string[], parse: (text: string) => T | undefined, onUnparsable?: OnUnparsable): T[] {
  const parsed: T[] = [];
  for (const text of texts) {
    const one = parse(text);
    if (one !== undefined) parsed.push(one);
    else if (text.trim() !== '') onUnparsable?.(text);
  }
  return parsed;
}
