/**
 * User data: what nft keeps with an object for itself; the kernel stores it unread. A list of entries of one byte type, one
 * byte length and the value, without padding. Numbers are in host order.
 *
 *     00 08 "traffic\0"         a comment is entry 0, in sets entry 7
 *
 * @module
 */

import type { FieldType, NftFamily } from './transaction.ts';
import { COMMENT_UDATA, type FieldLayout, fieldLayout, SET_COMMENT_UDATA } from './uapi.ts';

/** The length of an entry is one byte, and the whole may have 256. */
const COMMENT_BYTES_MAX = 253;

function entry(type: number, value: Uint8Array): Buffer {
  if (value.length > 255)
    throw new RangeError(`Cannot encode user data: an entry has ${value.length} bytes, must be at most 255`);
  return Buffer.concat([Buffer.of(type, value.length), value]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/**
 * The user data of a table, chain, rule or element with a comment.
 *
 * @throws {RangeError} If it is longer than 253 bytes.
 */
export function encodeComment(comment: string, type: number = COMMENT_UDATA): Buffer {
  const bytes = Buffer.byteLength(comment);
  if (bytes > COMMENT_BYTES_MAX || comment.includes('\0')) {
    throw new RangeError(
      `Cannot encode the comment "${comment}": it must be text of at most ${COMMENT_BYTES_MAX} bytes`,
    );
  }
  return entry(type, Buffer.from(`${comment}\0`));
}

/** The comment in user data; undefined if there is none. `type` is another one in sets. */
export function decodeComment(userData: Buffer | undefined, type: number = COMMENT_UDATA): string | undefined {
  if (userData === undefined) return undefined;
  for (let at = 0; at + 2 <= userData.length; at += 2 + userData.readUInt8(at + 1)) {
    if (userData[at] !== type) continue;
    const value = userData.subarray(at + 2, at + 2 + userData.readUInt8(at + 1));
    const end = value.indexOf(0);
    return value.toString('utf8', 0, end === -1 ? value.length : end);
  }
  return undefined;
}

/** Marks the first element of a range that has no end element, since it ends with the last address of all. */
export const OPEN_INTERVAL = entry(1, uint32(1));

// Byte orders of nft (include/datatype.h).
const ORDER_NONE = 0;
const ORDER_HOST = 1;
const ORDER_NETWORK = 2;

function byteOrder(fields: readonly FieldType[]): number {
  const [only, second] = fields;
  if (second !== undefined || only === 'inet_proto') return ORDER_NONE;
  return only === 'integer' || only === 'mark' || only === 'classid' ? ORDER_HOST : ORDER_NETWORK;
}

// Kinds of expressions of nft (include/expression.h), and the protocols and fields of its payload expressions (include/proto.h).
const EXPR_PAYLOAD = 7;
const EXPR_META = 9;
const EXPR_CONCAT = 13;
const EXPR_NUMGEN = 23;
const PROTO_TH = 11;
const PROTO_IP = { ip: 12, ip6: 13 } as const;
const SADDR_FIELD = { ip: 11, ip6: 8 } as const;
const DADDR_FIELD = { ip: 12, ip6: 9 } as const;
const TH_DPORT_FIELD = 2;
const META_PRIORITY = 2;
const META_MARK = 3;
const META_L4PROTO = 16;
/** `numgen random mod 65536`: nft needs some number, and this one says "any". */
export const TYPEOF_MODULUS = 65_536;

/** `typeof` of one field, the nearest expression of its type: kind, and what nft writes of it. */
function typeofField(type: FieldType, family: NftFamily, addressField: number): Buffer {
  const kind = (expression: number, ...rest: readonly Buffer[]) =>
    Buffer.concat([entry(0, uint32(expression)), entry(1, Buffer.concat(rest))]);
  switch (type) {
    case 'addr':
      return kind(EXPR_PAYLOAD, entry(0, uint32(PROTO_IP[family])), entry(1, uint32(addressField)));
    case 'inet_service':
      return kind(EXPR_PAYLOAD, entry(0, uint32(PROTO_TH)), entry(1, uint32(TH_DPORT_FIELD)));
    case 'inet_proto':
      return kind(EXPR_META, entry(0, uint32(META_L4PROTO)));
    case 'mark':
      return kind(EXPR_META, entry(0, uint32(META_MARK)));
    case 'classid':
      return kind(EXPR_META, entry(0, uint32(META_PRIORITY)));
    case 'integer':
      return kind(EXPR_NUMGEN, entry(0, uint32(1)), entry(1, uint32(TYPEOF_MODULUS)), entry(2, uint32(0)));
  }
}

/** True if nft can only say the type by `typeof`: a number has no name of its own. */
export function needsTypeof(fields: readonly FieldType[]): boolean {
  return fields.includes('integer');
}

function typeofFields(fields: readonly FieldType[], family: NftFamily, whole: boolean): Buffer {
  const typeofOne = (field: FieldType) => typeofField(field, family, DADDR_FIELD[family]);
  const [only] = fields;
  if (fields.length === 1 && only !== undefined) return typeofOne(only);
  const parts = whole ? fields.map((field, i) => entry(i, typeofOne(field))) : [];
  return Buffer.concat([entry(0, uint32(EXPR_CONCAT)), entry(1, Buffer.concat(parts))]);
}

/** What nft keeps with a named set. */
export function namedSetData(
  key: readonly FieldType[],
  data: 'verdict' | readonly FieldType[] | undefined,
  { family, comment }: { readonly family: NftFamily; readonly comment: string | undefined },
): Buffer {
  const parts = [entry(0, uint32(byteOrder(key)))];
  if (data !== undefined) parts.push(entry(1, uint32(data === 'verdict' ? ORDER_NONE : byteOrder(data))));
  const whole = needsTypeof(key) || (data !== undefined && data !== 'verdict' && needsTypeof(data));
  if (whole || key.length > 1) parts.push(entry(3, typeofFields(key, family, whole)));
  if (data !== undefined && data !== 'verdict' && (whole || data.length > 1)) {
    parts.push(entry(4, typeofFields(data, family, whole)));
  }
  if (data !== undefined) parts.push(entry(6, uint32(0)));
  if (comment !== undefined) parts.push(encodeComment(comment, SET_COMMENT_UDATA));
  return Buffer.concat(parts);
}

/** What nft keeps with a map written in a rule. */
export function anonymousMapData(key: readonly FieldType[], data: 'verdict' | readonly FieldType[]): Buffer {
  const parts = [entry(0, uint32(byteOrder(key))), entry(1, uint32(data === 'verdict' ? ORDER_NONE : byteOrder(data)))];
  if (key.length > 1) parts.push(entry(3, typeofFields(key, 'ip', false)));
  if (data === 'verdict') parts.push(entry(4, Buffer.concat([entry(0, uint32(1)), entry(1, Buffer.alloc(0))])));
  parts.push(entry(6, uint32(0)));
  return Buffer.concat(parts);
}

/** What nft keeps with a list of addresses written in a rule. */
export function addressListData(family: NftFamily, side: 'saddr' | 'daddr'): Buffer {
  const field = side === 'saddr' ? SADDR_FIELD[family] : DADDR_FIELD[family];
  return Buffer.concat([
    entry(0, uint32(ORDER_NETWORK)),
    entry(2, uint32(1)),
    entry(3, typeofField('addr', family, field)),
  ]);
}

/** Most fields that the number of a type has bits for. */
const FIELDS_MAX = 5;

/**
 * Refuses what nft(8) would take, but could not list any more: of six fields it forgets the first and reads the others at wrong places
 * or aborts (1.0.6, `concat_expr_msort_value`), also when it only lists tables.
 *
 * @throws {RangeError} If there are more fields than the number of a type has bits for.
 */
export function checkFieldCount(fields: readonly FieldType[]): void {
  if (fields.length <= FIELDS_MAX) return;
  throw new RangeError(`Cannot make a type of "${fields.join(' . ')}": nft lists at most ${FIELDS_MAX} fields`);
}

/**
 * The number nft puts fields together to, 6 bits each, the first highest.
 *
 * @throws {RangeError} As `checkFieldCount`.
 */
export function typeNumber(fields: readonly FieldType[], family: NftFamily): number {
  checkFieldCount(fields);
  return fields.reduce((number, field) => (number << 6) | fieldLayout(field, family).id, 0);
}

const ALL_FIELDS: readonly FieldType[] = ['addr', 'inet_proto', 'inet_service', 'mark', 'classid', 'integer'];

/** Fields of a number; undefined if one of them has no word here. */
export function fieldsOfNumber(number: number, family: NftFamily): readonly FieldType[] | undefined {
  const fields: FieldType[] = [];
  for (let rest = number; rest !== 0; rest >>>= 6) {
    const field = ALL_FIELDS.find((f) => fieldLayout(f, family).id === (rest & 0x3f));
    if (field === undefined) return undefined;
    fields.unshift(field);
  }
  return fields.length === 0 ? undefined : fields;
}

/** Bytes of a key or of data: one field as it is, several in whole words each. */
export function fieldsBytes(fields: readonly FieldType[], family: NftFamily): number {
  const layouts = fields.map((field): FieldLayout => fieldLayout(field, family));
  return layouts.length === 1
    ? (layouts[0]?.bytes ?? 0)
    : layouts.reduce((sum, { bytes }) => sum + ((bytes + 3) & ~3), 0);
}
