/**
 * Netlink messages written one behind the other into one growing buffer: what `codec.ts` makes message by message, for batches
 * of hundreds of thousands. Lengths of messages and nested attributes are filled in when they end.
 *
 * @module
 */

import { NLA_F_NESTED } from './codec.ts';

const NLMSGHDR_BYTES = 16;
const NLATTR_BYTES = 4;
/** nla_len is 16 bits wide and counts the header. */
export const ATTRIBUTE_BYTES_MAX = 65_535;

export class MessageWriter {
  #bytes: Buffer;
  #at = 0;

  /** @param bytes - Room to begin with. */
  constructor(bytes = 4_096) {
    this.#bytes = Buffer.allocUnsafe(bytes);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#at;
  }

  /** Everything written. A view: what is written later may move. */
  written(): Buffer {
    return this.#bytes.subarray(0, this.#at);
  }

  /** Begins anew in the same memory. */
  reset(): void {
    this.#at = 0;
  }

  #reserve(count: number): Buffer {
    if (this.#at + count > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at + count));
      this.#bytes.copy(larger, 0, 0, this.#at);
      this.#bytes = larger;
    }
    return this.#bytes;
  }

  /** Begins a message. @returns What `endMessage` wants. */
  beginMessage(type: number, flags: number, seq: number): number {
    const start = this.#at;
    const bytes = this.#reserve(NLMSGHDR_BYTES);
    bytes.writeUInt16LE(type, start + 4);
    bytes.writeUInt16LE(flags, start + 6);
    bytes.writeUInt32LE(seq, start + 8);
    bytes.writeUInt32LE(0, start + 12);
    this.#at += NLMSGHDR_BYTES;
    return start;
  }

  endMessage(start: number): void {
    this.#bytes.writeUInt32LE(this.#at - start, start);
  }

  /** Sets flags of a message that has begun. */
  addFlags(start: number, flags: number): void {
    this.#bytes.writeUInt16LE(this.#bytes.readUInt16LE(start + 6) | flags, start + 6);
  }

  /** Four bytes as they are: a protocol header such as nfgenmsg. */
  raw4(a: number, b: number, c: number, d: number): void {
    const bytes = this.#reserve(4);
    const at = this.#at;
    bytes[at] = a;
    bytes[at + 1] = b;
    bytes[at + 2] = c;
    bytes[at + 3] = d;
    this.#at += 4;
  }

  /** Begins an attribute that holds attributes. @returns What `closeNested` wants. */
  openNested(type: number): number {
    const start = this.#at;
    this.#header(0, type | NLA_F_NESTED);
    return start;
  }

  /** @throws {RangeError} If it has become longer than an attribute can be. */
  closeNested(start: number): void {
    const length = this.#at - start;
    if (length > ATTRIBUTE_BYTES_MAX) {
      throw new RangeError(
        `Cannot encode an attribute: it has ${length} bytes, must be at most ${ATTRIBUTE_BYTES_MAX}`,
      );
    }
    this.#bytes.writeUInt16LE(length, start);
  }

  #header(payload: number, type: number): void {
    const bytes = this.#reserve(NLATTR_BYTES);
    const at = this.#at;
    const length = NLATTR_BYTES + payload;
    bytes[at] = length & 0xff;
    bytes[at + 1] = length >>> 8;
    bytes[at + 2] = type & 0xff;
    bytes[at + 3] = type >>> 8;
    this.#at += NLATTR_BYTES;
  }

  /**
   * An attribute of so many bytes, zero to begin with, padded.
   *
   * @returns Where its payload begins in `buffer()`, until something else is written.
   */
  reserveAttribute(type: number, count: number): number {
    this.#header(count, type);
    const start = this.#at;
    const padded = (count + 3) & ~3;
    this.#reserve(padded).fill(0, start, start + padded);
    this.#at += padded;
    return start;
  }

  /** The memory written to, for who reserved something in it. */
  buffer(): Buffer {
    return this.#bytes;
  }

  /** A number in 4 bytes, big endian, as nfnetlink has it. Negative ones as two's complement. */
  uint32(type: number, value: number): void {
    this.#header(4, type);
    const bytes = this.#reserve(4);
    const at = this.#at;
    bytes[at] = value >>> 24;
    bytes[at + 1] = (value >>> 16) & 0xff;
    bytes[at + 2] = (value >>> 8) & 0xff;
    bytes[at + 3] = value & 0xff;
    this.#at += 4;
  }

  /** A non-negative integer in 8 bytes, big endian. */
  uint64(type: number, value: number): void {
    const at = this.reserveAttribute(type, 8);
    this.#bytes.writeBigUInt64BE(BigInt(value), at);
  }

  uint8(type: number, value: number): void {
    this.#bytes[this.reserveAttribute(type, 1)] = value;
  }

  bytes(type: number, payload: Uint8Array): void {
    const at = this.reserveAttribute(type, payload.length);
    this.#bytes.set(payload, at);
  }

  /** A text ended by NUL, which the length counts. */
  text(type: number, text: string): void {
    const count = Buffer.byteLength(text);
    const at = this.reserveAttribute(type, count + 1);
    this.#bytes.write(text, at, count === text.length ? 'latin1' : 'utf8');
  }
}
