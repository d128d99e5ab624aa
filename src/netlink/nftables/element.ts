/**
 * Elements of sets as attributes. One element is one entry of the list, except in sets of ranges of a single field: there it is two,
 * where the range begins and where it has ended.
 *
 * @module
 */

import type { MessageWriter } from '../writer.ts';
import { type AddressRange, parseRange, successor, writeAddress } from './address.ts';
import { protocolNumber, verdictChain } from './lower.ts';
import type { FieldType, NftFamily, Scalar, SetElement, SetObject, Verdict } from './transaction.ts';
import {
  fieldLayout,
  NF_ACCEPT,
  NF_DROP_CODE,
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
  NFTA_SET_ELEM_TIMEOUT,
  NFTA_SET_ELEM_USERDATA,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
} from './uapi.ts';
import { encodeComment, fieldsBytes, OPEN_INTERVAL } from './user-data.ts';

/** What elements look like: the part of a set that counts here. */
export type ElementShape = Pick<SetObject, 'key' | 'data' | 'flags'>;

/** True if a field of the key is a range. */
export function hasIntervals({ flags }: ElementShape): boolean {
  return flags?.includes('interval') ?? false;
}

/** How the elements of one set are written. */
export interface ElementWriter {
  /** Entries of the list that one element takes. */
  readonly entries: 1 | 2;
  /**
   * Writes one element.
   *
   * @param index - Of its first entry in its list, from 0; nft numbers them so.
   * @throws {RangeError} If it does not fit the set.
   */
  write(writer: MessageWriter, element: SetElement, index: number): void;
}

const VERDICT_CODES: Readonly<Record<Verdict['kind'], number>> = {
  drop: NF_DROP_CODE,
  accept: NF_ACCEPT,
  jump: NFT_JUMP_CODE,
  goto: NFT_GOTO_CODE,
  return: NFT_RETURN_CODE,
};

/** A verdict as the kernel reads it, in an attribute that holds data. */
export function writeVerdict(writer: MessageWriter, verdict: Verdict): void {
  const start = writer.openNested(NFTA_DATA_VERDICT);
  writer.uint32(NFTA_VERDICT_CODE, VERDICT_CODES[verdict.kind]);
  const chain = verdictChain(verdict);
  if (chain !== undefined) writer.text(NFTA_VERDICT_CHAIN, chain);
  writer.closeNested(start);
}

function wrongCount(what: string, values: readonly Scalar[], types: readonly FieldType[]): RangeError {
  return new RangeError(`Cannot encode the ${what} "${values.join(' . ')}": it must have ${types.length} fields`);
}

function integer(value: Scalar, most: number, type: FieldType): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new RangeError(`Cannot encode "${value}" as ${type}: must be a number of 0..${most}`);
}

const CLASS_ID = /^([\da-f]{1,4}):([\da-f]{1,4})$/;

/** `major:minor` as one number. */
function classNumber(value: Scalar): number {
  const [, major, minor] = CLASS_ID.exec(String(value)) ?? [];
  if (major === undefined || minor === undefined) {
    throw new RangeError(
      `Cannot encode "${value}" as classid: must be two hexadecimal numbers of 0..ffff with a colon`,
    );
  }
  return Number.parseInt(major, 16) * 0x10000 + Number.parseInt(minor, 16);
}

function writeScalar(type: FieldType, value: Scalar, family: NftFamily, bytes: Buffer, at: number): void {
  switch (type) {
    case 'addr':
      writeAddress(String(value), family, bytes, at);
      return;
    case 'inet_proto':
      bytes[at] = protocolNumber(String(value));
      return;
    case 'inet_service': {
      const port = integer(value, 0xffff, type);
      bytes[at] = port >>> 8;
      bytes[at + 1] = port & 0xff;
      return;
    }
    case 'classid':
      bytes.writeUInt32LE(classNumber(value), at);
      return;
    case 'mark':
    case 'integer':
      // The kernel compares these with numbers of its own, which are in host order.
      bytes.writeUInt32LE(integer(value, 0xffffffff, type), at);
      return;
  }
}

/** Values of a key or of data, one behind the other, into an attribute. */
function writeFields(
  writer: MessageWriter,
  types: readonly FieldType[],
  values: readonly Scalar[],
  family: NftFamily,
): void {
  if (values.length !== types.length) throw wrongCount('value', values, types);
  let at = writer.reserveAttribute(NFTA_DATA_VALUE, fieldsBytes(types, family));
  const bytes = writer.buffer();
  for (let i = 0; i < types.length; i++) {
    const type = types[i];
    const value = values[i];
    if (type === undefined || value === undefined) continue;
    writeScalar(type, value, family, bytes, at);
    at += (fieldLayout(type, family).bytes + 3) & ~3;
  }
}

function writeData(writer: MessageWriter, shape: ElementShape, data: SetElement['data'], family: NftFamily): void {
  if (shape.data === undefined || data === undefined) return;
  const start = writer.openNested(NFTA_SET_ELEM_DATA);
  if ('kind' in data) writeVerdict(writer, data);
  else if (shape.data === 'verdict') throw new RangeError('Cannot encode an element: its data must be a verdict');
  else writeFields(writer, shape.data, data, family);
  writer.closeNested(start);
}

/** What stands before the key. */
function writeTimes(writer: MessageWriter, { timeoutMs, expiresMs }: SetElement): void {
  if (timeoutMs !== undefined) writer.uint64(NFTA_SET_ELEM_TIMEOUT, timeoutMs);
  if (expiresMs !== undefined) writer.uint64(NFTA_SET_ELEM_EXPIRATION, expiresMs);
}

/** What stands behind the key: data, comment, and user data besides. */
type WriteRest = (writer: MessageWriter, element: SetElement, more?: Buffer) => void;

const NOTHING = Buffer.alloc(0);

function writeBytesKey(writer: MessageWriter, type: number, key: Uint8Array): void {
  const start = writer.openNested(type);
  writer.bytes(NFTA_DATA_VALUE, key);
  writer.closeNested(start);
}

/**
 * How to write elements of a set.
 *
 * @param keysOnly - For deleting: neither data nor comment nor times.
 * @throws {RangeError} If its key has ranges of something that has no order on the wire.
 */
export function elementWriter(shape: ElementShape, family: NftFamily, keysOnly: boolean): ElementWriter {
  const rest: WriteRest = (writer, element, more = NOTHING) => {
    if (keysOnly) return;
    writeData(writer, shape, element.data, family);
    const userData = element.comment === undefined ? more : Buffer.concat([encodeComment(element.comment), more]);
    if (userData.length > 0) writer.bytes(NFTA_SET_ELEM_USERDATA, userData);
  };
  if (!hasIntervals(shape)) {
    return {
      entries: 1,
      write(writer, element, index) {
        const start = writer.openNested(index + 1);
        if (!keysOnly) writeTimes(writer, element);
        const key = writer.openNested(NFTA_SET_ELEM_KEY);
        writeFields(writer, shape.key, element.key, family);
        writer.closeNested(key);
        rest(writer, element);
        writer.closeNested(start);
      },
    };
  }
  if (shape.key.length === 1) return singleRangeWriter(shape, family, { keysOnly, rest });
  return {
    entries: 1,
    write(writer, element, index) {
      const { first, last } = concatenatedRange(shape.key, element.key, family);
      const start = writer.openNested(index + 1);
      if (!keysOnly) writeTimes(writer, element);
      writeBytesKey(writer, NFTA_SET_ELEM_KEY, first);
      writeBytesKey(writer, NFTA_SET_ELEM_KEY_END, last);
      rest(writer, element);
      writer.closeNested(start);
    },
  };
}

function singleRangeWriter(
  shape: ElementShape,
  family: NftFamily,
  { keysOnly, rest }: { readonly keysOnly: boolean; readonly rest: WriteRest },
): ElementWriter {
  return {
    entries: 2,
    write(writer, element, index) {
      const [type] = shape.key;
      const [value] = element.key;
      if (type === undefined || value === undefined) throw wrongCount('key', element.key, shape.key);
      const range = scalarRange(type, value, family);
      const end = successor(range.last);
      const start = writer.openNested(index + 1);
      if (!keysOnly) writeTimes(writer, element);
      writeBytesKey(writer, NFTA_SET_ELEM_KEY, range.first);
      rest(writer, element, end === undefined ? OPEN_INTERVAL : NOTHING);
      writer.closeNested(start);
      if (end !== undefined) writeIntervalEnd(writer, end, index + 1);
    },
  };
}

/** The entry behind a range: where it has ended. */
export function writeIntervalEnd(writer: MessageWriter, key: Uint8Array, index: number): void {
  const start = writer.openNested(index + 1);
  writer.uint32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
  writeBytesKey(writer, NFTA_SET_ELEM_KEY, key);
  writer.closeNested(start);
}

/** The entries of a list of addresses in a rule, ranges sorted and apart. @returns How many there are. */
export function writeAddressList(writer: MessageWriter, ranges: readonly AddressRange[]): void {
  let index = 0;
  const [lowest] = ranges;
  // What lies below the first range is out: said by an end that nothing began.
  if (lowest?.first.some((byte) => byte !== 0)) {
    writeIntervalEnd(writer, new Uint8Array(lowest.first.length), index++);
  }
  for (const { first, last } of ranges) {
    const end = successor(last);
    const start = writer.openNested(++index);
    writeBytesKey(writer, NFTA_SET_ELEM_KEY, first);
    if (end === undefined) writer.bytes(NFTA_SET_ELEM_USERDATA, OPEN_INTERVAL);
    writer.closeNested(start);
    if (end !== undefined) writeIntervalEnd(writer, end, index++);
  }
}

/** What nft says the size of such a list is: each range twice, also one without an end. */
export function addressListSize(ranges: readonly AddressRange[]): number {
  return 2 * ranges.length + (ranges[0]?.first.some((byte) => byte !== 0) ? 1 : 0);
}

/** First and last value of one field in network order: `10.0.0.0/8`, `80-90`, 80. */
function scalarRange(type: FieldType, value: Scalar, family: NftFamily): AddressRange {
  if (type === 'addr') return parseRange(String(value), family);
  if (type === 'mark' || type === 'classid' || type === 'integer') {
    throw new RangeError(`Cannot encode the range "${value}": ${type} is in host order and has no ranges here`);
  }
  const [from = value, to = from] = typeof value === 'string' && type === 'inet_service' ? value.split('-') : [value];
  const ends = [from, to].map((end) => {
    const bytes = Buffer.alloc(fieldLayout(type, family).bytes);
    writeScalar(type, type === 'inet_service' ? Number(end) : end, family, bytes, 0);
    return bytes;
  });
  const [first = Buffer.alloc(0), last = first] = ends;
  if (Buffer.compare(first, last) > 0)
    throw new RangeError(`Cannot encode the range "${value}": it ends before it begins`);
  return { first, last };
}

/** First and last of all keys an element of ranges stands for. @throws {RangeError} If a field is none. */
export function concatenatedRange(
  types: readonly FieldType[],
  values: readonly Scalar[],
  family: NftFamily,
): AddressRange {
  if (values.length !== types.length) throw wrongCount('key', values, types);
  const size = fieldsBytes(types, family);
  const first = new Uint8Array(size);
  const last = new Uint8Array(size);
  let at = 0;
  for (const [i, type] of types.entries()) {
    const range = scalarRange(type, values[i] ?? '', family);
    first.set(range.first, at);
    last.set(range.last, at);
    at += (range.first.length + 3) & ~3;
  }
  return { first, last };
}
