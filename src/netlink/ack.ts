/**
 * Acknowledgements and errors, which are the same message.
 *
 *     struct nlmsgerr {            // offset, in the body of NLMSG_ERROR
 *         __s32 error;             //      0  0, or the errno made negative
 *         struct nlmsghdr msg;     //      4  the request's header; its body, too, unless flags has NLM_F_CAPPED
 *     };                           //     20  attributes, if flags has NLM_F_ACK_TLVS
 *
 * @module
 */

import { findAttribute, type NetlinkMessage } from './codec.ts';
import { errnoName, type NetlinkFailure } from './error.ts';

// include/uapi/linux/netlink.h
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;
const NLMSGERR_BYTES = 20;

export interface Ack {
  /** 0: done. */
  readonly errno: number;
  /** What the kernel says about the error, if it says something. */
  readonly text: string | undefined;
  /** Of the attribute at fault, in bytes from the beginning of the request's header. */
  readonly offset: number | undefined;
}

/** Reads a message of type NLMSG_ERROR. NLMSG_DONE begins alike: an empty one means 0. */
export function decodeAck({ flags, body }: NetlinkMessage): Ack {
  const errno = body.length >= 4 ? -body.readInt32LE(0) : 0;
  if ((flags & NLM_F_ACK_TLVS) === 0 || body.length < NLMSGERR_BYTES) {
    return { errno: errno || 0, text: undefined, offset: undefined };
  }
  // Without NLM_F_CAPPED the whole request stands before the attributes; its length is the first field of its header.
  const request = (flags & NLM_F_CAPPED) === 0 ? (body.readUInt32LE(4) + 3) & ~3 : NLMSGERR_BYTES - 4;
  const attributes = body.subarray(4 + request);
  const text = findAttribute(attributes, NLMSGERR_ATTR_MSG);
  const offset = findAttribute(attributes, NLMSGERR_ATTR_OFFS);
  return {
    errno: errno || 0,
    text: text?.toString('utf8').replace(/\0.*$/s, ''),
    offset: offset?.length === 4 ? offset.readUInt32LE(0) : undefined,
  };
}

/** The failure an errno of the kernel is. */
export function kernelFailure({ errno, text }: Pick<Ack, 'errno' | 'text'>): NetlinkFailure {
  const name = errnoName(errno);
  return text === undefined ? { code: 'KERNEL', errno, name } : { code: 'KERNEL', errno, name, text };
}
