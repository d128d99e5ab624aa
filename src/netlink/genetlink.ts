/**
 * Generic netlink: one protocol for many families, whose numbers the kernel gives out as their modules are loaded.
 *
 *     struct genlmsghdr { __u8 cmd; __u8 version; __u16 reserved; };      // 4 bytes, then attributes
 *
 * @module
 */

import { decodeAttributes, encodeTextAttribute } from './codec.ts';
import { NetlinkError } from './error.ts';
import { ask } from './request.ts';
import type { NetlinkSocket } from './socket.ts';

// include/uapi/linux/netlink.h, genetlink.h
export const NETLINK_GENERIC = 16;
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;

export const GENLMSGHDR_BYTES = 4;

/** Body of a request: header and attributes. */
export function encodeGeneric(command: number, attributes: readonly Buffer[]): Buffer {
  return Buffer.concat([Buffer.from([command, 1, 0, 0]), ...attributes]);
}

/**
 * The number of a family, which is the type of its messages. The kernel loads the module of a family it does not have yet, where
 * it may.
 *
 * @throws {NetlinkError} KERNEL ENOENT, if there is no such family.
 */
export function resolveFamily(socket: NetlinkSocket, name: string): number {
  const doing = `find the generic netlink family "${name}"`;
  const body = encodeGeneric(CTRL_CMD_GETFAMILY, [encodeTextAttribute(CTRL_ATTR_FAMILY_NAME, name)]);
  const [answer] = ask(socket, { doing, type: GENL_ID_CTRL, flags: 0, body });
  const id = answer && decodeAttributes(answer.body.subarray(GENLMSGHDR_BYTES)).get(CTRL_ATTR_FAMILY_ID);
  if (id?.length !== 2) throw new NetlinkError(doing, { code: 'MALFORMED', what: 'the answer has no number' });
  return id.readUInt16LE(0);
}
