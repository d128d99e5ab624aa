/**
 * UDP flows that the kernel's connection tracking knows (ctnetlink): listed with a filter, deleted one by one.
 *
 *     struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; };      // 4 bytes, then attributes
 *
 *     CTA_TUPLE_ORIG ─┬─ CTA_TUPLE_IP ──── source and destination as the client sent them
 *                     └─ CTA_TUPLE_PROTO ─ number, source and destination port
 *     CTA_TUPLE_REPLY ── the same of the answers: their source is who answers, after address translation
 *     CTA_ZONE, CTA_ID
 *
 * A table may hold hundreds of thousands of flows, so a dump is read with pauses in which other work gets its turn.
 *
 * @module
 */

import { setImmediate } from 'node:timers/promises';
import { decodeAttributes, encodeAttribute, findAttribute, NLA_F_NESTED, NLM_F_DUMP } from './codec.ts';
import { kernelAnswered, NetlinkError } from './error.ts';
import { answers, ask, withSocketAsync } from './request.ts';
import { formatAddress } from './rtnetlink.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, type OpenNetlink, openNetlink } from './socket.ts';

// include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
const NFNL_SUBSYS_CTNETLINK = 1;
const CT_GET = (NFNL_SUBSYS_CTNETLINK << 8) | 1;
const CT_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | 2;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3;
const IPPROTO_UDP = 17;
const NFGENMSG_BYTES = 4;

const FAMILIES = {
  IPv4: { number: 2, source: 1, destination: 2 },
  IPv6: { number: 10, source: 3, destination: 4 },
} as const;

/** A dump during which the table changed is read again, so often; what the last one said is taken as it is. */
export const LIST_TRIES = 5;
/** Flows after which other work gets its turn: a few milliseconds. */
const FLOWS_PER_TURN = 1_000;
const DELETIONS_PER_TURN = 200;

/** One UDP flow. Addresses are dotted IPv4, or eight hexadecimal groups of IPv6 without shortening. */
export interface UdpFlow {
  /** Where the client sends to. */
  readonly toAddress: string;
  readonly toPort: number;
  /** Who answers: an endpoint, if the destination was translated; else the same as `to`. */
  readonly fromAddress: string;
  readonly fromPort: number;
  /** What tells it from every other flow, as the kernel has it: the attributes of both tuples, zone and id. */
  readonly identity: Buffer;
}

export interface FlowQuestion {
  readonly family: 'IPv4' | 'IPv6';
  /** Only flows that are sent to one of these ports. */
  readonly toPorts: ReadonlySet<number>;
  readonly isWanted: (flow: Omit<UdpFlow, 'identity'>) => boolean;
}

export interface FlowList {
  readonly flows: readonly UdpFlow[];
  /** False: the table changed during every try, and flows may be missing. */
  readonly complete: boolean;
}

export interface Conntrack {
  /**
   * Lists UDP flows. One dump, unless the table changes meanwhile.
   *
   * @throws {NetlinkError} EINVAL if the kernel has no ctnetlink.
   */
  listUdp(question: FlowQuestion, signal?: AbortSignal): Promise<FlowList>;
  /**
   * Deletes these very flows. One that is gone is left out, and so is another one that has taken its place.
   *
   * @throws {NetlinkError} If there is no talking to the kernel at all.
   */
  delete(flows: readonly UdpFlow[], signal?: AbortSignal): Promise<Deletion>;
}

export interface Deletion {
  readonly deleted: number;
  /** Why the kernel refused to delete some; the others are deleted. */
  readonly errors: readonly NetlinkError[];
}

function nested(type: number, ...attributes: readonly Buffer[]): Buffer {
  return encodeAttribute(type | NLA_F_NESTED, Buffer.concat(attributes));
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function header(family: FlowQuestion['family']): Buffer {
  return Buffer.of(FAMILIES[family].number, 0, 0, 0);
}

/**
 * The request for all UDP flows. Kernels before 5.8 ignore the filter and tell everything.
 *
 * Exported for tests of its bytes.
 */
export function encodeList(family: FlowQuestion['family']): Buffer {
  const udp = nested(CTA_TUPLE_PROTO, encodeAttribute(CTA_PROTO_NUM, Buffer.of(IPPROTO_UDP)));
  const filter = nested(
    CTA_FILTER,
    encodeAttribute(CTA_FILTER_ORIG_FLAGS, uint32(CTA_FILTER_F_CTA_PROTO_NUM)),
    encodeAttribute(CTA_FILTER_REPLY_FLAGS, uint32(0)),
  );
  return Buffer.concat([header(family), nested(CTA_TUPLE_ORIG, udp), filter]);
}

function need(bytes: Buffer | undefined, what: string, lengths: readonly number[]): Buffer {
  if (bytes !== undefined && (lengths.length === 0 || lengths.includes(bytes.length))) return bytes;
  throw new NetlinkError('decode a flow', {
    code: 'MALFORMED',
    what: `${what} has ${bytes?.length ?? 0} bytes, must be ${lengths.join(' or ') || 'there'}`,
  });
}

function portOf(proto: Buffer, type: number): number {
  return need(findAttribute(proto, type), 'a port', [2]).readUInt16BE(0);
}

function addressOf(tuple: Buffer, type: number, length: number): string {
  const addresses = need(findAttribute(tuple, CTA_TUPLE_IP), 'the part of addresses', []);
  return formatAddress(need(findAttribute(addresses, type), 'an address', [length]));
}

/**
 * One flow of a dump, if it is UDP and the question asks for it.
 *
 * @throws {NetlinkError} MALFORMED
 */
export function decodeFlow(body: Buffer, { family, toPorts, isWanted }: FlowQuestion): UdpFlow | undefined {
  const { number, source, destination } = FAMILIES[family];
  if (body[0] !== number) return undefined;
  const attributes = body.subarray(NFGENMSG_BYTES);
  const original = need(findAttribute(attributes, CTA_TUPLE_ORIG), 'the original tuple', []);
  const proto = need(findAttribute(original, CTA_TUPLE_PROTO), 'the part of ports', []);
  if (findAttribute(proto, CTA_PROTO_NUM)?.[0] !== IPPROTO_UDP) return undefined;
  const toPort = portOf(proto, CTA_PROTO_DST_PORT);
  if (!toPorts.has(toPort)) return undefined;
  const reply = need(findAttribute(attributes, CTA_TUPLE_REPLY), 'the tuple of answers', []);
  const length = family === 'IPv4' ? 4 : 16;
  const ends = {
    toAddress: addressOf(original, destination, length),
    toPort,
    fromAddress: addressOf(reply, source, length),
    fromPort: portOf(need(findAttribute(reply, CTA_TUPLE_PROTO), 'the part of ports', []), CTA_PROTO_SRC_PORT),
  };
  return isWanted(ends) ? { ...ends, identity: identityOf(body) } : undefined;
}

/** Header and the attributes that name one flow, as the kernel gave them: the body of a request about it. */
function identityOf(body: Buffer): Buffer {
  const attributes = decodeAttributes(body.subarray(NFGENMSG_BYTES));
  const parts = [body.subarray(0, NFGENMSG_BYTES)];
  for (const type of [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ZONE, CTA_ID]) {
    const payload = attributes.get(type);
    const isTuple = type === CTA_TUPLE_ORIG || type === CTA_TUPLE_REPLY;
    if (payload !== undefined) parts.push(encodeAttribute(isTuple ? type | NLA_F_NESTED : type, payload));
  }
  return Buffer.concat(parts);
}

/** One try to read the whole table. */
async function readTable(
  socket: NetlinkSocket,
  question: FlowQuestion,
  seq: number,
  signal: AbortSignal | undefined,
): Promise<FlowList> {
  const { family } = question;
  const request = { doing: `list UDP flows (${family})`, type: CT_GET, flags: NLM_F_DUMP, body: encodeList(family) };
  const answer = answers(socket, request, seq);
  const flows: UdpFlow[] = [];
  let step = answer.next();
  for (let count = 1; !step.done; step = answer.next(), count++) {
    const flow = decodeFlow(step.value.body, question);
    if (flow !== undefined) flows.push(flow);
    if (count % FLOWS_PER_TURN === 0) {
      await setImmediate();
      signal?.throwIfAborted();
    }
  }
  return { flows, complete: !step.value.interrupted };
}

/** @returns False if it is gone, or another one stands in its place. */
function deleteFlow(socket: NetlinkSocket, { identity }: UdpFlow): boolean {
  const doing = 'delete a UDP flow';
  try {
    // The kernel looks by the original tuple and the id, and a flow made anew in the same memory has the same id. So who
    // answers is compared here.
    const [now] = ask(socket, { doing, type: CT_GET, flags: 0, body: identity });
    if (now === undefined || !identityOf(now.body).equals(identity)) return false;
    ask(socket, { doing, type: CT_DELETE, flags: 0, body: identity });
    return true;
  } catch (error) {
    if (kernelAnswered(error, 'ENOENT')) return false;
    throw error;
  }
}

/** The flows of the network namespace this process is in. */
export function createConntrack(open: OpenNetlink = openNetlink): Conntrack {
  return {
    listUdp: (question, signal) =>
      withSocketAsync(open(NETLINK_NETFILTER), async (socket) => {
        for (let seq = 1; ; seq++) {
          try {
            const list = await readTable(socket, question, seq, signal);
            if (list.complete || seq === LIST_TRIES) return list;
          } catch (error) {
            if (seq === LIST_TRIES || !kernelAnswered(error, 'EINTR')) throw error;
          }
        }
      }),
    delete: (flows, signal) =>
      withSocketAsync(open(NETLINK_NETFILTER), async (socket) => {
        const errors: NetlinkError[] = [];
        let deleted = 0;
        for (const [i, flow] of flows.entries()) {
          if (i > 0 && i % DELETIONS_PER_TURN === 0) {
            await setImmediate();
            signal?.throwIfAborted();
          }
          try {
            if (deleteFlow(socket, flow)) deleted++;
          } catch (error) {
            if (!(error instanceof NetlinkError)) throw error;
            errors.push(error);
          }
        }
        return { deleted, errors };
      }),
  };
}
