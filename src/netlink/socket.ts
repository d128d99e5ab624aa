/**
 * An AF_NETLINK socket: bytes out, bytes in. The only file that makes native calls.
 *
 * Nothing here blocks: the kernel runs a request inside `send` and continues a dump inside `recv`, so an answer that
 * is not there at once never comes.
 *
 * @module
 */

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

/** A request and its answers, datagram by datagram. */
export interface NetlinkSocket {
  /** Sends one datagram; when it returns, the kernel has done what it says. */
  send(datagram: Uint8Array): void;
  /** The next datagram of the answer; undefined if there is none. A copy the caller owns. */
  receive(): Buffer | undefined;
  close(): void;
}

type OpenNetlink = (protocol: number) => NetlinkSocket;

/** Declared at first use: a process that only renders loads no native code. */
function bindLibc() {
  const libc = koffi.load(null);
  return {
    socket: libc.func('int socket(int domain, int type, int protocol)'),
    bind: libc.func('int bind(int fd, const uint8_t *addr, uint32_t addrlen)'),
    send: libc.func('intptr_t send(int fd, const uint8_t *buf, size_t len, int flags)'),
    recv: libc.func('intptr_t recv(int fd, _Out_ uint8_t *buf, size_t len, int flags)'),
    close: libc.func('int close(int fd)'),
  };
}
let bound: ReturnType<typeof bindLibc> | undefined;

function failed(call: string): NetlinkError {
  const errno = koffi.errno();
  return new NetlinkError('talk netlink', { code: 'SOCKET', call, errno, name: errnoName(errno) });
}

/**
 * Opens a socket in the network namespace of this process. It must be closed.
 *
 * @param protocol - `NETLINK_ROUTE`, `NETLINK_NETFILTER` …
 * @throws {NetlinkError} SOCKET, for example EPROTONOSUPPORT if the kernel lacks the protocol.
 */
export const openNetlink: OpenNetlink = (protocol) => {
  bound ??= bindLibc();
  const libc = bound;
  const fd: number = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) throw failed('socket');
  // struct sockaddr_nl { u16 family; u16 pad; u32 pid; u32 groups }; pid 0: the kernel chooses one.
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  if (libc.bind(fd, address, address.length) < 0) {
    const error = failed('bind');
    libc.close(fd);
    throw error;
  }
  const buffer = Buffer.alloc(RECEIVE_BYTES);
  return {
    send(datagram) {
      if (libc.send(fd, datagram, datagram.length, 0) < 0) throw failed('send');
    },
    receive() {
      const n: number = libc.recv(fd, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC);
      if (n < 0) {
        const error = failed('recv');
        if (error.failure.code === 'SOCKET' && error.failure.name === 'EAGAIN') return undefined;
        throw error;
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
