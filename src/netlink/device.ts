/**
 * Network devices and the addresses on them, through the kernel's routing socket.
 *
 *     struct ifinfomsg {        // offset
 *         __u8  ifi_family;     //      0
 *         __u16 ifi_type;       //      2
 *         __s32 ifi_index;      //      4
 *         __u32 ifi_flags;      //      8
 *         __u32 ifi_change;     //     12
 *     };                        //     16  attributes
 *
 * `struct ifaddrmsg` stands in rtnetlink.ts.
 *
 * @module
 */

import { askAll } from './batch.ts';
import { decodeAttributes, encodeAttribute, encodeTextAttribute, NLA_F_NESTED, NLM_F_CREATE } from './codec.ts';
import { kernelAnswered, NetlinkError } from './error.ts';
import { ask, withSocket } from './request.ts';
import { type InterfaceAddress, listAddresses } from './rtnetlink.ts';
import { NETLINK_ROUTE, type OpenNetlink, openNetlink } from './socket.ts';

// include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h
const NLM_F_EXCL = 0x200;
const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const IFLA_IFNAME = 3;
const IFLA_TXQLEN = 13;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFINFOMSG_BYTES = 16;
const AF_INET = 2;
const AF_INET6 = 10;

export interface Device {
  readonly index: number;
  /** `dummy`, `veth` …; '' for a device of hardware. */
  readonly kind: string;
}

/** A host address to be put on a device, or taken from it. */
export interface AddressChange {
  readonly kind: 'add' | 'remove';
  /** In network order: 4 or 16 bytes. Its prefix is all of it. */
  readonly address: Uint8Array;
}

/** Calls do not wait. All of them throw NetlinkError. */
export interface Devices {
  find(name: string): Device | undefined;
  /** Makes a device of kind `dummy`, which is down. One of that name that exists is refused with EEXIST. */
  createDummy(name: string): void;
  /** Removes a device, with its addresses. */
  remove(index: number): void;
  /** Every address of every device, both families. */
  addresses(): readonly InterfaceAddress[];
  /**
   * Changes the addresses of a device, in order.
   *
   * @returns What was refused, by position in `changes`: EEXIST for one that is there, EADDRNOTAVAIL for one that is not.
   */
  changeAddresses(index: number, changes: readonly AddressChange[]): ReadonlyMap<number, NetlinkError>;
}

function ifinfomsg(index: number): Buffer {
  const header = Buffer.alloc(IFINFOMSG_BYTES);
  header.writeInt32LE(index, 4);
  return header;
}

function dummyBody(name: string): Buffer {
  const queueLength = Buffer.alloc(4);
  return Buffer.concat([
    ifinfomsg(0),
    encodeTextAttribute(IFLA_IFNAME, name),
    encodeAttribute(IFLA_TXQLEN, queueLength),
    encodeAttribute(IFLA_LINKINFO | NLA_F_NESTED, encodeAttribute(IFLA_INFO_KIND, Buffer.from('dummy'))),
  ]);
}

function addressBody(index: number, address: Uint8Array): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt8(address.length === 4 ? AF_INET : AF_INET6, 0);
  header.writeUInt8(address.length * 8, 1);
  header.writeUInt32LE(index, 4);
  return Buffer.concat([header, encodeAttribute(IFA_LOCAL, address), encodeAttribute(IFA_ADDRESS, address)]);
}

function decodeDevice(body: Buffer): Device {
  const info = decodeAttributes(body.subarray(IFINFOMSG_BYTES)).get(IFLA_LINKINFO);
  const kind = info && decodeAttributes(info).get(IFLA_INFO_KIND);
  return { index: body.readInt32LE(4), kind: kind?.toString('latin1').replace(/\0.*$/s, '') ?? '' };
}

export function createDevices(open: OpenNetlink = openNetlink): Devices {
  return {
    find(name) {
      const doing = `find the device "${name}"`;
      try {
        const [answer] = withSocket(open(NETLINK_ROUTE), (socket) =>
          ask(socket, {
            doing,
            type: RTM_GETLINK,
            flags: 0,
            body: Buffer.concat([ifinfomsg(0), encodeTextAttribute(IFLA_IFNAME, name)]),
          }),
        );
        if (answer === undefined) throw new NetlinkError(doing, { code: 'NO_ANSWER' });
        return decodeDevice(answer.body);
      } catch (error) {
        if (kernelAnswered(error, 'ENODEV')) return undefined;
        throw error;
      }
    },
    createDummy(name) {
      withSocket(open(NETLINK_ROUTE), (socket) =>
        ask(socket, {
          doing: `create the device "${name}"`,
          type: RTM_NEWLINK,
          flags: NLM_F_CREATE | NLM_F_EXCL,
          body: dummyBody(name),
        }),
      );
    },
    remove(index) {
      withSocket(open(NETLINK_ROUTE), (socket) =>
        ask(socket, { doing: `remove device ${index}`, type: RTM_DELLINK, flags: 0, body: ifinfomsg(index) }),
      );
    },
    addresses: () => listAddresses(open),
    changeAddresses(index, changes) {
      if (changes.length === 0) return new Map();
      return withSocket(open(NETLINK_ROUTE), (socket) =>
        askAll(
          socket,
          changes.map(({ kind, address }) => ({
            doing: `${kind} an address`,
            type: kind === 'add' ? RTM_NEWADDR : RTM_DELADDR,
            flags: kind === 'add' ? NLM_F_CREATE | NLM_F_EXCL : 0,
            body: addressBody(index, address),
          })),
        ),
      );
    },
  };
}
