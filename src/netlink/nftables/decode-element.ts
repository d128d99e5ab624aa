/**
 * Elements as the kernel tells them. It has as many as there are clients and endpoints, so they are read without objects in between.
 *
 * @module
 */

import { findAttribute } from '../codec.ts';
import { formatRange, predecessor, readAddress } from './address.ts';
import { textOf } from './decode.ts';
import { type ElementShape, hasIntervals } from './element.ts';
import type { FieldType, NftFamily, Scalar, SetElement, Verdict } from './transaction.ts';
import {
  fieldLayout,
  NF_ACCEPT,
  NF_DROP_CODE,
  NFGENMSG_BYTES,
  NFT_GOTO_CODE,
  NFT_JUMP_CODE,
  NFT_RETURN_CODE,
  NFT_SET_ELEM_INTERVAL_END,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_SET_ELEM_DATA,
  NFTA_SET_ELEM_EXPIRATION,
  NFTA_SET_ELEM_FLAGS,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_KEY_END,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_TIMEOUT,
  NFTA_SET_ELEM_USERDATA,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
  PROTOCOLS,
} from './uapi.ts';
import { decodeComment } from './user-data.ts';

const NLATTR_BYTES = 4;
const TYPE_MASK = 0x3fff;
const PROTOCOL_NAMES: ReadonlyMap<number, string> = new Map(Object.entries(PROTOCOLS).map(([name, n]) => [n, name]));

/** Where a range of a set of single ranges begins, or the last has ended. */
interface Boundary {
  readonly key: Buffer;
  readonly isEnd: boolean;
  /** What stands beside a beginning. */
  readonly rest: Omit<SetElement, 'key'>;
}

/** Reads the elements of one set, message by message. */
export class ElementReader {
  readonly #shape: ElementShape;
  readonly #family: NftFamily;
  readonly #single: boolean;
  readonly #elements: SetElement[] = [];
  readonly #boundaries: Boundary[] = [];

  constructor(shape: ElementShape, family: NftFamily) {
    this.#shape = shape;
    this.#family = family;
    this.#single = hasIntervals(shape) && shape.key.length === 1;
  }

  /** Takes one NEWSETELEM of a dump. */
  read(body: Buffer): void {
    const list = findAttribute(body.subarray(NFGENMSG_BYTES), NFTA_SET_ELEM_LIST_ELEMENTS);
    if (list === undefined) return;
    for (let at = 0; at + NLATTR_BYTES <= list.length; ) {
      const length = Math.max(NLATTR_BYTES, list.readUInt16LE(at));
      this.#readOne(list, at + NLATTR_BYTES, at + length);
      at += (length + 3) & ~3;
    }
  }

  /** All elements, in the order of the kernel; single ranges in the order of addresses. */
  finish(): readonly SetElement[] {
    return this.#single ? this.#foldRanges() : this.#elements;
  }

  #readOne(bytes: Buffer, from: number, to: number): void {
    let key: Buffer | undefined;
    let keyEnd: Buffer | undefined;
    let flags = 0;
    const rest: { data?: Verdict | readonly Scalar[]; timeoutMs?: number; expiresMs?: number; comment?: string } = {};
    for (let at = from; at + NLATTR_BYTES <= to; ) {
      const length = Math.max(NLATTR_BYTES, bytes.readUInt16LE(at));
      const payload = bytes.subarray(at + NLATTR_BYTES, at + length);
      switch (bytes.readUInt16LE(at + 2) & TYPE_MASK) {
        case NFTA_SET_ELEM_KEY:
          key = findAttribute(payload, NFTA_DATA_VALUE);
          break;
        case NFTA_SET_ELEM_KEY_END:
          keyEnd = findAttribute(payload, NFTA_DATA_VALUE);
          break;
        case NFTA_SET_ELEM_FLAGS:
          flags = payload.readUInt32BE(0);
          break;
        case NFTA_SET_ELEM_DATA: {
          const data = this.#data(payload);
          if (data !== undefined) rest.data = data;
          break;
        }
        case NFTA_SET_ELEM_TIMEOUT:
          rest.timeoutMs = Number(payload.readBigUInt64BE(0));
          break;
        case NFTA_SET_ELEM_EXPIRATION:
          rest.expiresMs = Number(payload.readBigUInt64BE(0));
          break;
        case NFTA_SET_ELEM_USERDATA: {
          const comment = decodeComment(payload);
          if (comment !== undefined) rest.comment = comment;
          break;
        }
      }
      at += (length + 3) & ~3;
    }
    // Without a key: what is for all others, which no element of ours says.
    if (key === undefined) return;
    if (this.#single) this.#boundaries.push({ key, isEnd: (flags & NFT_SET_ELEM_INTERVAL_END) !== 0, rest });
    else this.#elements.push({ key: this.#key(key, keyEnd), ...rest });
  }

  #key(first: Buffer, last: Buffer | undefined): Scalar[] {
    const { key } = this.#shape;
    return last === undefined ? readFields(first, key, this.#family) : readRanges(first, last, key, this.#family);
  }

  /** Undefined for a verdict that has no words here. */
  #data(payload: Buffer): Verdict | readonly Scalar[] | undefined {
    const { data } = this.#shape;
    if (data === undefined) return undefined;
    if (data === 'verdict') {
      const verdict = findAttribute(payload, NFTA_DATA_VERDICT);
      return verdict === undefined ? undefined : readVerdict(verdict);
    }
    const value = findAttribute(payload, NFTA_DATA_VALUE);
    return value === undefined ? undefined : readFields(value, data, this.#family);
  }

  #foldRanges(): readonly SetElement[] {
    // At one address the range before ends, then the next begins.
    const sorted = this.#boundaries.toSorted(
      (a, b) => Buffer.compare(a.key, b.key) || Number(b.isEnd) - Number(a.isEnd),
    );
    const [type] = this.#shape.key;
    const elements: SetElement[] = [];
    let open: Boundary | undefined;
    const close = (last: Uint8Array) => {
      if (open !== undefined && type !== undefined) {
        elements.push({ key: [readRange(open.key, last, type, this.#family)], ...open.rest });
      }
      open = undefined;
    };
    for (const boundary of sorted) {
      if (open !== undefined) close(predecessor(boundary.key));
      if (!boundary.isEnd) open = boundary;
    }
    if (open !== undefined) close(new Uint8Array(open.key.length).fill(0xff));
    return elements;
  }
}

const VERDICTS: ReadonlyMap<number, 'accept' | 'drop' | 'return' | 'jump' | 'goto'> = new Map([
  [NF_ACCEPT, 'accept'],
  [NF_DROP_CODE, 'drop'],
  [NFT_RETURN_CODE, 'return'],
  [NFT_JUMP_CODE, 'jump'],
  [NFT_GOTO_CODE, 'goto'],
]);

function readVerdict(bytes: Buffer): Verdict | undefined {
  const code = findAttribute(bytes, NFTA_VERDICT_CODE);
  const kind = code === undefined ? undefined : VERDICTS.get(code.readInt32BE(0));
  if (kind === undefined) return undefined;
  if (kind !== 'jump' && kind !== 'goto') return { kind };
  return { kind, chain: textOf(findAttribute(bytes, NFTA_VERDICT_CHAIN)) };
}

function readScalar(bytes: Buffer, at: number, type: FieldType, family: NftFamily): Scalar {
  switch (type) {
    case 'addr':
      return readAddress(bytes, at, family);
    case 'inet_proto': {
      const number = bytes[at] ?? 0;
      return PROTOCOL_NAMES.get(number) ?? number;
    }
    case 'inet_service':
      return bytes.readUInt16BE(at);
    case 'classid':
      return `${bytes.readUInt16LE(at + 2).toString(16)}:${bytes.readUInt16LE(at).toString(16)}`;
    case 'mark':
    case 'integer':
      return bytes.readUInt32LE(at);
  }
}

function readFields(bytes: Buffer, types: readonly FieldType[], family: NftFamily): Scalar[] {
  const values: Scalar[] = [];
  let at = 0;
  for (const type of types) {
    values.push(readScalar(bytes, at, type, family));
    at += (fieldLayout(type, family).bytes + 3) & ~3;
  }
  return values;
}

function readRanges(first: Buffer, last: Buffer, types: readonly FieldType[], family: NftFamily): Scalar[] {
  let at = 0;
  return types.map((type) => {
    const { bytes } = fieldLayout(type, family);
    const from = at;
    at += (bytes + 3) & ~3;
    return readRange(first.subarray(from, from + bytes), last.subarray(from, from + bytes), type, family);
  });
}

/** One value if the range holds one, a CIDR if it is one, else both ends. */
function readRange(first: Buffer, last: Uint8Array, type: FieldType, family: NftFamily): Scalar {
  if (type === 'addr') return formatRange({ first, last }, family);
  const end = Buffer.from(last);
  if (first.equals(end)) return readScalar(first, 0, type, family);
  return `${readScalar(first, 0, type, family)}-${readScalar(end, 0, type, family)}`;
}
