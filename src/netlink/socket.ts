/**
 * An AF_NETLINK socket: bytes out, bytes in. The only file that makes native calls.
 *
 * Nothing here blocks: the kernel runs a request inside `send` and continues a dump inside `recv`, so an answer that
 * is not there at once never comes.
 *
 * @module
 */

import { constants } from 'node:os';
import koffi from 'koffi';
import { errnoName, NetlinkError } from './error.ts';

// include/uapi/linux/netlink.h
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
/** The kernel fills dump datagrams up to what the reader takes, 32 KiB at most (netlink_dump). */
const RECEIVE_BYTES = 64 * 1024;

// include/uapi/asm-generic/socket.h, linux/netlink.h
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SOCKADDR_NL_BYTES = 12;

/** A request and its answers, datagram by datagram. */
export interface NetlinkSocket {
  /** What the kernel calls this socket: in messages about what it did, `nlmsg_pid` of the header. */
  readonly portId: number;
  /**
   * Sends one datagram; when it returns, the kernel has done what it says.
   *
   * @throws {NetlinkError} SOCKET EMSGSIZE if it is larger than the send buffer: nothing is done.
   */
  send(datagram: Uint8Array): void;
  /**
   * The next datagram of the answer; undefined if there is none. A copy the caller owns.
   *
   * @throws {NetlinkError} SOCKET ENOBUFS, once, if answers were lost since the last call: the queue was full.
   */
  receive(): Buffer | undefined;
  close(): void;
}

export interface SocketOptions {
  /**
   * Bytes of the largest datagram that can be sent, and of answers that can wait (the kernel counts about 800 for an
   * acknowledgement). As much as the kernel allows; beyond its limits only with CAP_NET_ADMIN.
   */
  readonly sendBytes?: number;
  readonly receiveBytes?: number;
  /** Errors carry a text and what they are about, and not the whole request. */
  readonly extendedAck?: boolean;
  /** Multicast groups whose messages this socket hears. */
  readonly groups?: readonly number[];
}

type OpenNetlink = (protocol: number, options?: SocketOptions) => NetlinkSocket;

/** Declared at first use: a process that only renders loads no native code. */
function bindLibc() {
  const libc = koffi.load(null);
  return {
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    bind: libc.func('int bind(int fd, const uint8_t *addr, uint32_t addrlen)'),
    getsockname: libc.func('int getsockname(int fd, _Out_ uint8_t *addr, _Inout_ uint32_t *addrlen)'),
    setsockopt: libc.func('int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t len)'),
    send: libc.func('intptr_t send(int fd, const uint8_t *buf, size_t len, int flags)'),
    recv: libc.func('intptr_t recv(int fd, _Out_ uint8_t *buf, size_t len, int flags)'),
    close: libc.func('int close(int fd)'),
  };
}
const { EAGAIN } = constants.errno;

let bound: ReturnType<typeof bindLibc> | undefined;

function failed(call: string): NetlinkError {
  const errno = koffi.errno();
  return new NetlinkError('talk netlink', { code: 'SOCKET', call, errno, name: errnoName(errno) });
}

type Libc = ReturnType<typeof bindLibc>;

function setOption(libc: Libc, fd: number, level: number, option: number, value: number): boolean {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return libc.setsockopt(fd, level, option, bytes, bytes.length) === 0;
}

/** A buffer above the limit of the system needs the privilege; without it the limit is what there is. */
function setBuffer(libc: Libc, fd: number, [forced, plain]: readonly [number, number], bytes: number): void {
  if (!setOption(libc, fd, SOL_SOCKET, forced, bytes)) setOption(libc, fd, SOL_SOCKET, plain, bytes);
}

function applyOptions(libc: Libc, fd: number, options: SocketOptions): void {
  const { sendBytes, receiveBytes, extendedAck = false } = options;
  if (sendBytes !== undefined) setBuffer(libc, fd, [SO_SNDBUFFORCE, SO_SNDBUF], sendBytes);
  if (receiveBytes !== undefined) setBuffer(libc, fd, [SO_RCVBUFFORCE, SO_RCVBUF], receiveBytes);
  if (extendedAck) {
    // Kernels before 4.12 know neither; errors then carry a number only.
    setOption(libc, fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    setOption(libc, fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  }
}

function join(libc: Libc, fd: number, groups: readonly number[]): void {
  for (const group of groups) {
    if (!setOption(libc, fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)) throw failed('setsockopt');
  }
}

/** Binds to a port id the kernel chooses. @returns That. */
function bind(libc: Libc, fd: number): number {
  // struct sockaddr_nl { u16 family; u16 pad; u32 pid; u32 groups }
  const address = Buffer.alloc(SOCKADDR_NL_BYTES);
  address.writeUInt16LE(AF_NETLINK, 0);
  if (libc.bind(fd, address, address.length) < 0) throw failed('bind');
  if (libc.getsockname(fd, address, [address.length]) < 0) throw failed('getsockname');
  return address.readUInt32LE(4);
}

/**
 * Opens a socket in the network namespace of this process, where it stays. It must be closed.
 *
 * @param protocol - `NETLINK_ROUTE`, `NETLINK_NETFILTER` …
 * @throws {NetlinkError} SOCKET, for example EPROTONOSUPPORT if the kernel lacks the protocol.
 */
export const openNetlink: OpenNetlink = (protocol, options = {}) => {
  bound ??= bindLibc();
  const libc = bound;
  const fd: number = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) throw failed('socket');
  let portId: number;
  try {
    applyOptions(libc, fd, options);
    portId = bind(libc, fd);
    // Only now: bind() leaves the groups joined before.
    join(libc, fd, options.groups ?? []);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  const buffer = Buffer.alloc(RECEIVE_BYTES);
  return {
    portId,
    send(datagram) {
      if (libc.send(fd, datagram, datagram.length, 0) < 0) throw failed('send');
    },
    receive() {
      const n: number = libc.recv(fd, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC);
      if (n < 0) {
        // What listens asks several times a second: no error is made to say that there is nothing.
        if (koffi.errno() === EAGAIN) return undefined;
        throw failed('recv');
      }
      if (n > buffer.length) {
        const what = `a datagram has ${n} bytes, at most ${buffer.length} are read`;
        throw new NetlinkError('talk netlink', { code: 'MALFORMED', what });
      }
      return Buffer.from(buffer.subarray(0, n));
    },
    close() {
      libc.close(fd);
    },
  };
};

export type { OpenNetlink };
