/**
 * What can go wrong on a netlink socket.
 *
 * @module
 */

import { constants } from 'node:os';

export type NetlinkFailure =
  /** The kernel answered with an errno. `name` is `errno(3)`'s, for example `ENOENT`; `text` is what it adds, rarely. */
  | { readonly code: 'KERNEL'; readonly errno: number; readonly name: string; readonly text?: string }
  /** The socket itself failed in `call`. */
  | { readonly code: 'SOCKET'; readonly call: string; readonly errno: number; readonly name: string }
  /** More than the send buffer takes; only CAP_NET_ADMIN in the initial user namespace raises it beyond the system's limit. */
  | { readonly code: 'TOO_LARGE'; readonly bytes: number }
  /** The kernel had nothing (more) to say where an answer was due. */
  | { readonly code: 'NO_ANSWER' }
  /** Bytes that are not what the protocol says. */
  | { readonly code: 'MALFORMED'; readonly what: string }
  /** The dumped objects kept changing while they were dumped, time and again. */
  | { readonly code: 'INTERRUPTED'; readonly tries: number };

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    // One number has two names; these are the ones the kernel does not use.
    .filter(([name]) => name !== 'EWOULDBLOCK' && name !== 'ENOTSUP')
    .map(([name, value]) => [value, name]),
);

/** Name of a positive errno, `E<number>` if it has none here. */
export function errnoName(errno: number): string {
  return ERRNO_NAMES.get(errno) ?? `E${errno}`;
}

function describe(failure: NetlinkFailure): string {
  switch (failure.code) {
    case 'KERNEL':
      return `the kernel answers ${failure.name}${failure.text === undefined ? '' : ` (${failure.text})`}`;
    case 'SOCKET':
      return `${failure.call}() fails with ${failure.name}`;
    case 'TOO_LARGE':
      return `${failure.bytes} bytes are more than the send buffer takes`;
    case 'NO_ANSWER':
      return 'the kernel does not answer';
    case 'MALFORMED':
      return `${failure.what}`;
    case 'INTERRUPTED':
      return `what is dumped changed during each of ${failure.tries} dumps`;
  }
}

export class NetlinkError extends Error {
  override readonly name = 'NetlinkError';
  readonly failure: NetlinkFailure;

  /** @param doing - What was tried, as in `read the nfacct counter "x"`. */
  constructor(doing: string, failure: NetlinkFailure, options?: ErrorOptions) {
    super(`Cannot ${doing}: ${describe(failure)}`, options);
    this.failure = failure;
  }
}

/** True if the error is the kernel answering this errno, for example `ENOENT`. */
export function kernelAnswered(error: unknown, name: string): error is NetlinkError {
  return error instanceof NetlinkError && error.failure.code === 'KERNEL' && error.failure.name === name;
}
