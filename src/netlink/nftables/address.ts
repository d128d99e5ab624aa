/**
 * Addresses and ranges of them between text and the bytes of the wire, without objects in between: a large map has half a
 * million.
 *
 * @module
 */

import type { NftFamily } from './transaction.ts';
import { ADDRESS_BYTES } from './uapi.ts';

const DOT = 46;
const COLON = 58;

function wrong(text: string, family: NftFamily): RangeError {
  return new RangeError(
    `Cannot encode the address "${text}": must be ${family === 'ip' ? 'an IPv4' : 'an IPv6'} address`,
  );
}

/**
 * Writes an address in network order: 4 or 16 bytes.
 *
 * @throws {RangeError} If it is none of this family.
 */
export function writeAddress(text: string, family: NftFamily, bytes: Uint8Array, at: number): void {
  const written = family === 'ip' ? writeIPv4(text, bytes, at) : writeIPv6(text, bytes, at);
  if (!written) throw wrong(text, family);
}

function writeIPv4(text: string, bytes: Uint8Array, at: number): boolean {
  let octet = 0;
  let digits = 0;
  let value = 0;
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : DOT;
    if (c === DOT) {
      if (digits === 0 || octet === 4) return false;
      bytes[at + octet++] = value;
      value = 0;
      digits = 0;
    } else if (c >= 48 && c <= 57) {
      value = value * 10 + c - 48;
      digits++;
      if (value > 255 || digits > 3) return false;
    } else return false;
  }
  return octet === 4;
}

function hexDigit(c: number): number {
  if (c >= 48 && c <= 57) return c - 48;
  if (c >= 97 && c <= 102) return c - 87;
  if (c >= 65 && c <= 70) return c - 55;
  return -1;
}

/** Eight groups, or fewer around one `::`. Dotted tails are no canonical text and not read. */
function writeIPv6(text: string, bytes: Uint8Array, at: number): boolean {
  const gap = text.indexOf('::');
  if (gap === -1) return writeGroups(text, 0, text.length, bytes, at) === 8;
  if (text.indexOf('::', gap + 1) !== -1) return false;
  const head = gap === 0 ? 0 : writeGroups(text, 0, gap, bytes, at);
  const behind = gap + 2;
  if (head < 0) return false;
  if (behind === text.length) {
    bytes.fill(0, at + 2 * head, at + 16);
    return head < 8;
  }
  const tail = writeGroups(text, behind, text.length, bytes, at + 2 * head);
  if (tail < 0 || head + tail > 7) return false;
  bytes.copyWithin(at + 16 - 2 * tail, at + 2 * head, at + 2 * (head + tail));
  bytes.fill(0, at + 2 * head, at + 16 - 2 * tail);
  return true;
}

/** @returns How many groups stand there, −1 if something else does. */
function writeGroups(text: string, from: number, to: number, bytes: Uint8Array, at: number): number {
  let groups = 0;
  let digits = 0;
  let value = 0;
  for (let i = from; i <= to; i++) {
    const c = i < to ? text.charCodeAt(i) : COLON;
    if (c === COLON) {
      if (digits === 0 || groups === 8) return -1;
      if (at + 2 * groups + 1 < bytes.length) {
        bytes[at + 2 * groups] = value >>> 8;
        bytes[at + 2 * groups + 1] = value & 0xff;
      }
      groups++;
      value = 0;
      digits = 0;
    } else {
      const digit = hexDigit(c);
      if (digit < 0 || ++digits > 4) return -1;
      value = value * 16 + digit;
    }
  }
  return groups;
}

/** Canonical text of the 4 or 16 bytes at `at`: dotted, or RFC 5952. */
export function readAddress(bytes: Uint8Array, at: number, family: NftFamily): string {
  if (family === 'ip') return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
  const groups: number[] = [];
  for (let i = at; i < at + 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  // The longest run of two or more zero groups becomes "::", the first of equals.
  let start = -1;
  let longest = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > longest) {
      start = i;
      longest = end - i;
    }
    if (end > i) i = end;
  }
  const hex = groups.map((group) => group.toString(16));
  if (start === -1) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + longest).join(':')}`;
}

/** First and last address of a range, each 4 or 16 bytes in network order. */
export interface AddressRange {
  readonly first: Uint8Array;
  readonly last: Uint8Array;
}

/** Family of an address, CIDR or range as written. */
export function familyOfText(text: string): NftFamily {
  return text.includes(':') ? 'ip6' : 'ip';
}

/**
 * Reads `address`, `address/prefix` or `first-last`.
 *
 * @throws {RangeError} If it is none of these in this family.
 */
export function parseRange(text: string, family: NftFamily): AddressRange {
  const size = ADDRESS_BYTES[family];
  const first = new Uint8Array(size);
  const last = new Uint8Array(size);
  const dash = text.indexOf('-');
  if (dash !== -1) {
    writeAddress(text.slice(0, dash), family, first, 0);
    writeAddress(text.slice(dash + 1), family, last, 0);
    if (Buffer.compare(first, last) > 0)
      throw new RangeError(`Cannot encode the range "${text}": it ends before it begins`);
    return { first, last };
  }
  const slash = text.indexOf('/');
  const prefix = slash === -1 ? size * 8 : prefixOf(text, slash, size * 8);
  writeAddress(slash === -1 ? text : text.slice(0, slash), family, first, 0);
  for (let i = 0; i < size; i++) {
    const mask = maskByte(prefix, i);
    const byte = first[i] ?? 0;
    first[i] = byte & mask;
    last[i] = byte | (~mask & 0xff);
  }
  return { first, last };
}

function prefixOf(text: string, slash: number, bits: number): number {
  const digits = text.slice(slash + 1);
  const prefix = /^[0-9]{1,3}$/.test(digits) ? Number(digits) : bits + 1;
  if (prefix > bits) throw new RangeError(`Cannot encode the CIDR "${text}": its prefix length must be 0..${bits}`);
  return prefix;
}

/** Byte `index` of the netmask of a prefix length. */
export function maskByte(prefix: number, index: number): number {
  const kept = Math.min(8, Math.max(0, prefix - index * 8));
  return (0xff00 >> kept) & 0xff;
}

/** Prefix length of a range that is one CIDR; undefined if it is not. */
export function prefixLength({ first, last }: AddressRange): number | undefined {
  const bits = first.length * 8;
  let prefix = 0;
  while (prefix < bits && bitOf(first, prefix) === bitOf(last, prefix)) prefix++;
  for (let i = prefix; i < bits; i++) if (bitOf(first, i) !== 0 || bitOf(last, i) !== 1) return undefined;
  return prefix;
}

function bitOf(bytes: Uint8Array, index: number): number {
  return ((bytes[index >> 3] ?? 0) >> (7 - (index & 7))) & 1;
}

/** Canonical text of a range: an address if it is one, a CIDR if it is one, else `first-last`. */
export function formatRange(range: AddressRange, family: NftFamily): string {
  const first = readAddress(range.first, 0, family);
  const prefix = prefixLength(range);
  if (prefix === undefined) return `${first}-${readAddress(range.last, 0, family)}`;
  return prefix === range.first.length * 8 ? first : `${first}/${prefix}`;
}

/** The address after this one; undefined after the last of all. */
export function successor(address: Uint8Array): Uint8Array | undefined {
  const next = Uint8Array.from(address);
  for (let i = next.length - 1; i >= 0; i--) {
    const byte = next[i] ?? 0;
    next[i] = (byte + 1) & 0xff;
    if (byte !== 0xff) return next;
  }
  return undefined;
}

/** The address before this one, which must not be the first of all. */
export function predecessor(address: Uint8Array): Uint8Array {
  const before = Uint8Array.from(address);
  for (let i = before.length - 1; i >= 0; i--) {
    const byte = before[i] ?? 0;
    before[i] = (byte - 1) & 0xff;
    if (byte !== 0) return before;
  }
  return before;
}

/** Sorts ranges and merges those that overlap or touch, as nft does with a list in a rule. */
export function mergeRanges(ranges: readonly AddressRange[]): AddressRange[] {
  const sorted = ranges.toSorted((a, b) => Buffer.compare(a.first, b.first));
  const merged: AddressRange[] = [];
  for (const range of sorted) {
    const before = merged.at(-1);
    const next = before === undefined ? undefined : successor(before.last);
    if (before === undefined || (next !== undefined && Buffer.compare(range.first, next) > 0)) merged.push(range);
    else if (Buffer.compare(range.last, before.last) > 0)
      merged[merged.length - 1] = { first: before.first, last: range.last };
  }
  return merged;
}
