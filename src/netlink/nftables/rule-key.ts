/**
 * Rules by value: a text for each rule that is the same for the one wanted and the one the kernel has, if they do the same in the same
 * way and have the same comment.
 *
 * The kernel gives a rule back with its attributes in another order, with defaults filled in and without the numbers of sets. So both
 * are brought to one form here: attributes in the order of their numbers, defaults and set numbers left out. What this file does not
 * know stays in the text as it is, and makes it another one than any of ours. The text is of bytes, not for reading.
 *
 * @module
 */

import { MessageWriter } from '../writer.ts';
import { encodeExpressions } from './encode.ts';
import type { NftFamily, RuleObject } from './transaction.ts';
import { NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM } from './uapi.ts';

const NLATTR_BYTES = 4;
const TYPE_MASK = 0x3fff;
/** More than any expression has. */
const TYPES_MAX = 32;

/** Attributes of an expression that say nothing when they are 0. */
const ZERO_IS_NOTHING: Readonly<Record<string, readonly number[]>> = {
  bitwise: [6],
  lookup: [5],
  dynset: [6, 9],
};
/** Numbers of sets, which only mean something in the batch that makes them. */
const SET_NUMBER: Readonly<Record<string, number>> = { lookup: 4, dynset: 2 };
const NAT_FLAGS = 7;
/** Of `nat`: the end of a range, which is the beginning where there is none. */
const NAT_ENDS: readonly (readonly [begin: number, end: number, flag: number])[] = [
  [3, 4, 1],
  [5, 6, 2],
];

const writer = new MessageWriter();
let scratch = Buffer.alloc(4_096);

/** The text of a rule as wanted. @throws {RangeError} If it says what cannot be. */
export function ruleKey(rule: Pick<RuleObject, 'statements' | 'comment'>, family: NftFamily): string {
  writer.reset();
  encodeExpressions(writer, rule, family);
  return keyOfExpressions(writer.written(), rule.comment);
}

/** The text of a rule of the kernel: its NFTA_RULE_EXPRESSIONS and its comment. */
export function keyOfExpressions(list: Buffer, comment: string | undefined): string {
  // Each attribute takes no more room than before, but for a flag that may be added.
  if (scratch.length < list.length * 2) scratch = Buffer.alloc(list.length * 2);
  let length = 0;
  for (let at = 0; at + NLATTR_BYTES <= list.length; ) {
    const end = at + attributeLength(list, at);
    if ((list.readUInt16LE(at + 2) & TYPE_MASK) === NFTA_LIST_ELEM) {
      length = writeExpression(list, at + NLATTR_BYTES, end, length);
    }
    at = (end + 3) & ~3;
  }
  const text = scratch.toString('latin1', 0, length);
  return comment === undefined ? text : `${text}#${comment}`;
}

function attributeLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt16LE(at);
  // Bytes that are no attributes are taken as one that ends them.
  return length < NLATTR_BYTES || at + length > bytes.length ? bytes.length - at : length;
}

/** Where the payload of each attribute begins and ends, by type; −1: there is none. */
const begins = new Int32Array(TYPES_MAX);
const ends = new Int32Array(TYPES_MAX);

function findAll(bytes: Buffer, from: number, to: number): void {
  begins.fill(-1);
  for (let at = from; at + NLATTR_BYTES <= to; ) {
    const end = at + attributeLength(bytes, at);
    const type = bytes.readUInt16LE(at + 2) & TYPE_MASK;
    if (type < TYPES_MAX) {
      begins[type] = at + NLATTR_BYTES;
      ends[type] = end;
    }
    at = (end + 3) & ~3;
  }
}

function isNumber(bytes: Buffer, type: number, number: number): boolean {
  const at = begins[type] ?? -1;
  if (at === -1) return false;
  for (let i = at; i < (ends[type] ?? 0) - 1; i++) if (bytes[i] !== 0) return false;
  return bytes[(ends[type] ?? 0) - 1] === number;
}

/** @returns Where the next one begins. */
function writeExpression(bytes: Buffer, from: number, to: number, start: number): number {
  findAll(bytes, from, to);
  const nameAt = begins[NFTA_EXPR_NAME] ?? -1;
  if (nameAt === -1) return start;
  const nameEnd = ends[NFTA_EXPR_NAME] ?? nameAt;
  const name = bytes.toString('latin1', nameAt, nameEnd - 1);
  let at = start + bytes.copy(scratch, start, nameAt, nameEnd);
  const dataAt = begins[NFTA_EXPR_DATA] ?? -1;
  if (dataAt === -1) return at;
  findAll(bytes, dataAt, ends[NFTA_EXPR_DATA] ?? dataAt);
  dropDefaults(bytes, name);
  for (let type = 1; type < TYPES_MAX; type++) {
    const begin = begins[type] ?? -1;
    if (begin === -1) continue;
    const end = ends[type] ?? begin;
    scratch[at++] = type;
    scratch[at++] = end - begin;
    const copied = at;
    at += bytes.copy(scratch, at, begin, end);
    // Attributes inside, which only data has: the kernel does not say that they hold attributes.
    if (end - begin > NLATTR_BYTES) scratch[copied + 3] = (scratch[copied + 3] ?? 0) & 0x7f;
  }
  // The kernel always names the flags, also those it adds by itself.
  if (name === 'nat') at = scratch.writeUInt32BE(natFlags, at);
  scratch[at++] = 0;
  return at;
}

/** Flags of the `nat` that was looked at last. */
let natFlags = 0;

function dropDefaults(bytes: Buffer, name: string): void {
  const number = SET_NUMBER[name];
  if (number !== undefined) begins[number] = -1;
  for (const type of ZERO_IS_NOTHING[name] ?? []) if (isNumber(bytes, type, 0)) begins[type] = -1;
  if (name !== 'nat') return;
  natFlags = 0;
  for (const [begin, end, flag] of NAT_ENDS) {
    const at = begins[begin] ?? -1;
    if (at === -1) continue;
    natFlags |= flag;
    if (isNumber(bytes, end, bytes[at + 3] ?? 0)) begins[end] = -1;
  }
  if ((begins[NAT_FLAGS] ?? -1) !== -1) {
    natFlags |= bytes.readUInt32BE(begins[NAT_FLAGS] ?? 0);
    begins[NAT_FLAGS] = -1;
  }
}
