/**
 * The IPVS table of the network namespace this process is in.
 *
 * @module
 */

import { readFileSync } from 'node:fs';
import { askAll } from './batch.ts';
import { decodeAttributes, NLM_F_DUMP } from './codec.ts';
import { NetlinkError } from './error.ts';
import { encodeGeneric, GENLMSGHDR_BYTES, NETLINK_GENERIC, resolveFamily } from './genetlink.ts';
import {
  decodeDestination,
  decodeService,
  encodeDestination,
  encodeDestinationKey,
  encodeService,
  encodeServiceKey,
  type IpvsDestination,
  type IpvsDestinationKey,
  type IpvsLiveDestination,
  type IpvsService,
  type IpvsServiceKey,
  u32,
} from './ipvs-codec.ts';
import { type IpvsTableEntry, parseIpvsTable } from './ipvs-table.ts';
import { ask, withSocket } from './request.ts';
import { type NetlinkSocket, type OpenNetlink, openNetlink } from './socket.ts';

// include/uapi/linux/ip_vs.h
const IPVS_CMD_NEW_SERVICE = 1;
const IPVS_CMD_SET_SERVICE = 2;
const IPVS_CMD_DEL_SERVICE = 3;
const IPVS_CMD_GET_SERVICE = 4;
const IPVS_CMD_NEW_DEST = 5;
const IPVS_CMD_SET_DEST = 6;
const IPVS_CMD_DEL_DEST = 7;
const IPVS_CMD_GET_DEST = 8;
const IPVS_CMD_SET_CONFIG = 12;
const IPVS_CMD_GET_CONFIG = 13;
const IPVS_CMD_FLUSH = 17;
const IPVS_CMD_ATTR_TIMEOUT_TCP = 4;
const IPVS_CMD_ATTR_TIMEOUT_TCP_FIN = 5;
const IPVS_CMD_ATTR_TIMEOUT_UDP = 6;

const TABLE = '/proc/net/ip_vs';

/** One change of the table. */
export type IpvsChange =
  /** Refused with EEXIST if there is one of this key. */
  | { readonly kind: 'newService'; readonly service: IpvsService }
  /** Keeps destinations and connections. Refused with ESRCH if there is none. */
  | { readonly kind: 'setService'; readonly service: IpvsService }
  /** Takes its destinations with it. Refused with ESRCH if there is none. */
  | { readonly kind: 'deleteService'; readonly service: IpvsServiceKey }
  /**
   * Refused with EEXIST if there is one of this key, with ESRCH if there is no such service, with EINVAL if the address is none that
   * the kernel sends to.
   */
  | { readonly kind: 'newDestination'; readonly service: IpvsServiceKey; readonly destination: IpvsDestination }
  /** Refused with ENOENT if there is none, with ESRCH if there is no such service. */
  | { readonly kind: 'setDestination'; readonly service: IpvsServiceKey; readonly destination: IpvsDestination }
  /** As `setDestination`. */
  | { readonly kind: 'deleteDestination'; readonly service: IpvsServiceKey; readonly destination: IpvsDestinationKey };

/** Idle times of connections, in seconds. */
export interface IpvsTimeouts {
  readonly tcp: number;
  readonly tcpFin: number;
  readonly udp: number;
}

/** Calls do not wait. All of them throw NetlinkError: KERNEL ENOENT where there is no IPVS, EPERM without the right to it. */
export interface Ipvs {
  /** Every service but those of firewall marks, both families, in no order. */
  listServices(): readonly IpvsService[];
  /** Of one service, in no order; none if there is no such service. */
  listDestinations(service: IpvsServiceKey): readonly IpvsLiveDestination[];
  /** All destinations of all services in one look. */
  readTable(): readonly IpvsTableEntry[];
  /** Changes the table, in order. @returns What was refused, by position in `changes`. */
  change(changes: readonly IpvsChange[]): ReadonlyMap<number, NetlinkError>;
  timeouts(): IpvsTimeouts;
  /** 0: stays as it is. */
  setTimeouts(timeouts: IpvsTimeouts): void;
  /** Takes every service away, whoever made it. */
  flush(): void;
}

function bodyOf(change: IpvsChange): Buffer {
  switch (change.kind) {
    case 'newService':
      return encodeGeneric(IPVS_CMD_NEW_SERVICE, [encodeService(change.service)]);
    case 'setService':
      return encodeGeneric(IPVS_CMD_SET_SERVICE, [encodeService(change.service)]);
    case 'deleteService':
      return encodeGeneric(IPVS_CMD_DEL_SERVICE, [encodeServiceKey(change.service)]);
    case 'newDestination':
      return encodeGeneric(IPVS_CMD_NEW_DEST, [
        encodeServiceKey(change.service),
        encodeDestination(change.destination),
      ]);
    case 'setDestination':
      return encodeGeneric(IPVS_CMD_SET_DEST, [
        encodeServiceKey(change.service),
        encodeDestination(change.destination),
      ]);
    case 'deleteDestination':
      return encodeGeneric(IPVS_CMD_DEL_DEST, [
        encodeServiceKey(change.service),
        encodeDestinationKey(change.destination),
      ]);
  }
}

/** What a change does, for error messages. */
export const IPVS_DOING: Readonly<Record<IpvsChange['kind'], string>> = {
  newService: 'add a virtual server',
  setService: 'change a virtual server',
  deleteService: 'delete a virtual server',
  newDestination: 'add a real server',
  setDestination: 'change a real server',
  deleteDestination: 'delete a real server',
};

/** @param readText - Reads a file. */
export function createIpvs(
  open: OpenNetlink = openNetlink,
  readText: (path: string) => string = (path) => readFileSync(path, 'latin1'),
): Ipvs {
  const talk = <T>(act: (socket: NetlinkSocket, family: number) => T): T =>
    withSocket(open(NETLINK_GENERIC), (socket) => act(socket, resolveFamily(socket, 'IPVS')));
  return {
    listServices: () =>
      talk((socket, type) =>
        ask(socket, {
          doing: 'list the virtual servers',
          type,
          flags: NLM_F_DUMP,
          body: encodeGeneric(IPVS_CMD_GET_SERVICE, []),
        }).flatMap(({ body }) => decodeService(body.subarray(GENLMSGHDR_BYTES)) ?? []),
      ),
    listDestinations: (service) =>
      talk((socket, type) =>
        ask(socket, {
          doing: 'list the real servers of a virtual server',
          type,
          flags: NLM_F_DUMP,
          body: encodeGeneric(IPVS_CMD_GET_DEST, [encodeServiceKey(service)]),
        }).map(({ body }) => decodeDestination(body.subarray(GENLMSGHDR_BYTES), service.address.length)),
      ),
    readTable: () => parseIpvsTable(readText(TABLE)),
    change(changes) {
      if (changes.length === 0) return new Map();
      return talk((socket, type) =>
        askAll(
          socket,
          changes.map((change) => ({ doing: IPVS_DOING[change.kind], type, flags: 0, body: bodyOf(change) })),
        ),
      );
    },
    timeouts: () =>
      talk((socket, type) => {
        const doing = 'read the timeouts of IPVS';
        const [answer] = ask(socket, { doing, type, flags: 0, body: encodeGeneric(IPVS_CMD_GET_CONFIG, []) });
        const attributes = decodeAttributes(answer?.body.subarray(GENLMSGHDR_BYTES) ?? Buffer.alloc(0));
        const number = (attribute: number) => {
          const value = attributes.get(attribute);
          if (value?.length !== 4) throw new NetlinkError(doing, { code: 'MALFORMED', what: 'a timeout is missing' });
          return value.readUInt32LE(0);
        };
        return {
          tcp: number(IPVS_CMD_ATTR_TIMEOUT_TCP),
          tcpFin: number(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN),
          udp: number(IPVS_CMD_ATTR_TIMEOUT_UDP),
        };
      }),
    setTimeouts({ tcp, tcpFin, udp }) {
      talk((socket, type) =>
        ask(socket, {
          doing: 'set the timeouts of IPVS',
          type,
          flags: 0,
          body: encodeGeneric(IPVS_CMD_SET_CONFIG, [
            u32(IPVS_CMD_ATTR_TIMEOUT_TCP, tcp),
            u32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, tcpFin),
            u32(IPVS_CMD_ATTR_TIMEOUT_UDP, udp),
          ]),
        }),
      );
    },
    flush() {
      talk((socket, type) =>
        ask(socket, {
          doing: 'flush the IPVS table',
          type,
          flags: 0,
          body: encodeGeneric(IPVS_CMD_FLUSH, []),
        }),
      );
    },
  };
}
