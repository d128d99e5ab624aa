/**
 * Cluster IPs and node ports that Services hold, and the next free ones.
 *
 * Choosing and holding are apart: a dry run chooses and holds nothing. The choice is the next free one in order, so that
 * the same requests get the same addresses.
 *
 * @module
 */

import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { Family } from '../../proxier/types.ts';

interface Range {
  readonly family: Family;
  readonly cidr: string;
  readonly base: bigint;
  /** Number of usable addresses after the base address. */
  readonly size: bigint;
}

/** How far into a range the search for a free address goes before it is called full. */
const SEARCH_LIMIT = 100_000;

export function familyOf(address: string): Family | undefined {
  const version = isIP(address);
  return version === 4 ? 'IPv4' : version === 6 ? 'IPv6' : undefined;
}

function toNumber(address: string): bigint {
  return ipaddr
    .parse(address)
    .toByteArray()
    .reduce((n, byte) => (n << 8n) | BigInt(byte), 0n);
}

function toAddress(family: Family, n: bigint): string {
  const bytes = Array.from({ length: family === 'IPv4' ? 4 : 16 }, (_, i, length = family === 'IPv4' ? 4 : 16) =>
    Number((n >> BigInt(8 * (length - 1 - i))) & 0xffn),
  );
  return ipaddr.fromByteArray(bytes).toString();
}

/**
 * Reads `address/prefix`.
 *
 * @throws {SyntaxError} If it is no CIDR.
 */
function parseRange(cidr: string): Range {
  const [address = '', prefix = ''] = cidr.split('/');
  const family = familyOf(address);
  const bits = family === 'IPv4' ? 32 : 128;
  if (family === undefined || !/^\d{1,3}$/.test(prefix) || Number(prefix) > bits) {
    throw new SyntaxError(`Cannot use "${cidr}" as a service CIDR: must be address/prefix`);
  }
  const hosts = 1n << BigInt(bits - Number(prefix));
  const base = (toNumber(address) / hosts) * hosts;
  // The IPv4 broadcast address is not handed out; the base address never is.
  return { family, cidr, base, size: family === 'IPv4' ? hosts - 2n : hosts - 1n };
}

export class Allocations {
  readonly nodePorts: { readonly from: number; readonly to: number };
  #ranges: readonly Range[];
  readonly #configured: readonly Range[];
  readonly #holders = new Map<string, string>();
  readonly #next = new Map<string, bigint>();
  #nextPort: number;

  /** @throws {SyntaxError} If a CIDR is none. */
  constructor(cidrs: readonly string[], nodePorts: { readonly from: number; readonly to: number }) {
    this.#configured = cidrs.map(parseRange);
    this.#ranges = this.#configured;
    this.nodePorts = nodePorts;
    this.#nextPort = nodePorts.from;
  }

  /** Families that have a range, the default one first. */
  get families(): readonly Family[] {
    return [...new Set(this.#ranges.map((r) => r.family))];
  }

  /** Ranges besides the configured ones: those of ServiceCIDR objects. */
  setExtraRanges(cidrs: readonly string[]): void {
    this.#ranges = [...this.#configured, ...cidrs.map(parseRange)];
  }

  /** True if the address lies in a range and may be handed out. */
  covers(address: string): boolean {
    const n = toNumber(address);
    const family = familyOf(address);
    return this.#ranges.some((r) => r.family === family && n > r.base && n <= r.base + r.size);
  }

  /** Key of the Service that holds an address or port; undefined if it is free. */
  holder(resource: string | number): string | undefined {
    return this.#holders.get(typeof resource === 'number' ? String(resource) : canonical(resource));
  }

  /**
   * Finds a free address. The lower part of a range (16 to 256 addresses) is left to Services that name theirs, and used
   * only when the rest is full.
   *
   * @returns Undefined if every range of the family is full.
   */
  freeAddress(family: Family): string | undefined {
    for (const range of this.#ranges) {
      if (range.family !== family) continue;
      const sixteenth = range.size / 16n;
      const lower = sixteenth < 16n ? 16n : sixteenth > 256n ? 256n : sixteenth;
      const start = this.#next.get(range.cidr) ?? (lower < range.size ? lower + 1n : 1n);
      for (let i = 0n; i < range.size && i < SEARCH_LIMIT; i++) {
        const offset = ((start - 1n + i) % range.size) + 1n;
        const address = toAddress(family, range.base + offset);
        if (this.#holders.has(address)) continue;
        this.#next.set(range.cidr, offset);
        return address;
      }
    }
    return undefined;
  }

  /** Finds a free node port that is not in `taken`; undefined if there is none. */
  freePort(taken: ReadonlySet<number>): number | undefined {
    const { from, to } = this.nodePorts;
    const count = to - from + 1;
    for (let i = 0; i < count; i++) {
      const port = from + ((this.#nextPort - from + i) % count);
      if (taken.has(port) || this.#holders.has(String(port))) continue;
      this.#nextPort = port;
      return port;
    }
    return undefined;
  }

  /** Notes what a Service holds now, in place of what it held. A thing that another one holds stays with that one. */
  move(key: string, before: readonly (string | number)[], after: readonly (string | number)[]): void {
    for (const resource of before) {
      const name = canonical(resource);
      if (this.#holders.get(name) === key) this.#holders.delete(name);
    }
    for (const resource of after) {
      const name = canonical(resource);
      if (!this.#holders.has(name)) this.#holders.set(name, key);
    }
  }
}

function canonical(resource: string | number): string {
  if (typeof resource === 'number') return String(resource);
  return isIP(resource) ? ipaddr.parse(resource).toString() : resource;
}
