/**
 * Addresses of this node, from the kernel's routing socket.
 *
 *     struct ifaddrmsg {        // offset
 *         __u8  ifa_family;     //      0
 *         __u8  ifa_prefixlen;  //      1
 *         __u8  ifa_flags;      //      2
 *         __u8  ifa_scope;      //      3
 *         __u32 ifa_index;      //      4
 *     };                        //      8  attributes
 *
 * @module
 */

import { decodeAttributes, NLM_F_DUMP } from './codec.ts';
import { NetlinkError } from './error.ts';
import { ask, withSocket } from './request.ts';
import { NETLINK_ROUTE, type OpenNetlink, openNetlink } from './socket.ts';

// include/uapi/linux/rtnetlink.h, if_addr.h
const RTM_NEWADDR = 20;
const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFADDRMSG_BYTES = 8;
const AF_INET = 2;
const AF_INET6 = 10;

export interface InterfaceAddress {
  /** Dotted IPv4, or eight hexadecimal groups of IPv6 without shortening: canonical only after parsing. */
  readonly address: string;
  readonly family: 'IPv4' | 'IPv6';
  readonly prefixLength: number;
  readonly interfaceIndex: number;
}

/** Dotted IPv4 of 4 bytes; of 16 bytes eight hexadecimal groups of IPv6 without shortening. */
export function formatAddress(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  return groups.join(':');
}

/**
 * One address, undefined for a family other than the two.
 *
 * @param body - Of an RTM_NEWADDR message.
 * @throws {NetlinkError} MALFORMED, if the address is missing or of the wrong length.
 */
export function decodeAddress(body: Buffer): InterfaceAddress | undefined {
  const family = body[0];
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const attributes = decodeAttributes(body.subarray(IFADDRMSG_BYTES));
  // On a point-to-point link IFA_ADDRESS is the other end.
  const address = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  const length = family === AF_INET ? 4 : 16;
  if (address?.length !== length) {
    const what = `an address has ${address?.length ?? 0} bytes, must be ${length}`;
    throw new NetlinkError('decode an interface address', { code: 'MALFORMED', what });
  }
  return {
    address: formatAddress(address),
    family: family === AF_INET ? 'IPv4' : 'IPv6',
    prefixLength: body.readUInt8(1),
    interfaceIndex: body.readUInt32LE(4),
  };
}

/**
 * Every address of every interface, up or down, both families, in the order of the kernel.
 *
 * @throws {NetlinkError} If the kernel refuses, or the list changes faster than it can be read.
 */
export function listAddresses(open: OpenNetlink = openNetlink): InterfaceAddress[] {
  return withSocket(open(NETLINK_ROUTE), (socket) =>
    ask(socket, {
      doing: 'list the addresses of this node',
      type: RTM_GETADDR,
      flags: NLM_F_DUMP,
      body: Buffer.alloc(IFADDRMSG_BYTES),
    })
      .filter((message) => message.type === RTM_NEWADDR)
      .map((message) => decodeAddress(message.body))
      .filter((address) => address !== undefined),
  );
}
