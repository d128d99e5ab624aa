/**
 * Netlink messages and attributes, bytes to data and back.
 *
 *     struct nlmsghdr {       // offset                struct nlattr {       // offset
 *         __u32 nlmsg_len;    //      0  with header       __u16 nla_len;    //      0  with header, without padding
 *         __u16 nlmsg_type;   //      4                    __u16 nla_type;   //      2
 *         __u16 nlmsg_flags;  //      6                };                    //      4  payload, padded to 4
 *         __u32 nlmsg_seq;    //      8
 *         __u32 nlmsg_pid;    //     12  0: the kernel
 *     };                      //     16  body, padded to 4
 *
 * Headers are in host order, which is little endian on every machine this runs on (x86-64, arm64).
 *
 * @module
 */

import { NetlinkError } from './error.ts';

// include/uapi/linux/netlink.h
export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CREATE = 0x400;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
/** Set in the type of an attribute that holds attributes; the kernel insists on it in newer requests. */
export const NLA_F_NESTED = 0x8000;
/** Type bits that are flags (nested, byte order), not type. */
const NLA_TYPE_MASK = 0x3fff;

const NLMSGHDR_BYTES = 16;
const NLATTR_BYTES = 4;

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  /** What follows the header, without padding: usually a protocol header, then attributes. */
  readonly body: Buffer;
}

const align4 = (n: number): number => (n + 3) & ~3;

/** Bytes of one message, padded to a multiple of 4. */
export function encodeMessage(message: NetlinkMessage): Buffer {
  const length = NLMSGHDR_BYTES + message.body.length;
  const bytes = Buffer.alloc(align4(length));
  bytes.writeUInt32LE(length, 0);
  bytes.writeUInt16LE(message.type, 4);
  bytes.writeUInt16LE(message.flags, 6);
  bytes.writeUInt32LE(message.seq, 8);
  bytes.set(message.body, NLMSGHDR_BYTES);
  return bytes;
}

/**
 * Takes a datagram apart. Bodies are views of it, not copies.
 *
 * @throws {NetlinkError} MALFORMED, if a length points outside the datagram.
 */
export function decodeMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  for (let at = 0; at < datagram.length; ) {
    const length = at + NLMSGHDR_BYTES <= datagram.length ? datagram.readUInt32LE(at) : 0;
    if (length < NLMSGHDR_BYTES || at + length > datagram.length) {
      const what = `a message of ${length} bytes stands at byte ${at} of ${datagram.length}`;
      throw new NetlinkError('decode netlink messages', { code: 'MALFORMED', what });
    }
    messages.push({
      type: datagram.readUInt16LE(at + 4),
      flags: datagram.readUInt16LE(at + 6),
      seq: datagram.readUInt32LE(at + 8),
      body: datagram.subarray(at + NLMSGHDR_BYTES, at + length),
    });
    at += align4(length);
  }
  return messages;
}

/** Bytes of one attribute, padded to a multiple of 4. */
export function encodeAttribute(type: number, payload: Uint8Array): Buffer {
  const length = NLATTR_BYTES + payload.length;
  const bytes = Buffer.alloc(align4(length));
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(payload, NLATTR_BYTES);
  return bytes;
}

/** An attribute that holds a text ended by NUL. */
export function encodeTextAttribute(type: number, text: string): Buffer {
  return encodeAttribute(type, Buffer.from(`${text}\0`));
}

/**
 * Attributes by type. Payloads are views. Of a type that comes twice the last counts, as in the kernel.
 *
 * @throws {NetlinkError} MALFORMED, if a length points outside `bytes`.
 */
export function decodeAttributes(bytes: Buffer): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  for (let at = 0; at + NLATTR_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < NLATTR_BYTES || at + length > bytes.length) {
      const what = `an attribute of ${length} bytes stands at byte ${at} of ${bytes.length}`;
      throw new NetlinkError('decode netlink attributes', { code: 'MALFORMED', what });
    }
    attributes.set(bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK, bytes.subarray(at + NLATTR_BYTES, at + length));
    at += align4(length);
  }
  return attributes;
}

/**
 * The payload of the first attribute of a type, a view; undefined if there is none. For long dumps of which little is
 * read: it builds no map.
 *
 * @throws {NetlinkError} MALFORMED, if a length before it points outside `bytes`.
 */
export function findAttribute(bytes: Buffer, type: number): Buffer | undefined {
  for (let at = 0; at + NLATTR_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < NLATTR_BYTES || at + length > bytes.length) {
      const what = `an attribute of ${length} bytes stands at byte ${at} of ${bytes.length}`;
      throw new NetlinkError('decode netlink attributes', { code: 'MALFORMED', what });
    }
    if ((bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK) === type) return bytes.subarray(at + NLATTR_BYTES, at + length);
    at += align4(length);
  }
  return undefined;
}
