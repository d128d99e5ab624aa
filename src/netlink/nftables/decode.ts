/**
 * What the kernel tells of tables, chains, sets and rules, as the objects that would be written to make them.
 *
 * @module
 */

import { decodeAttributes, findAttribute } from '../codec.ts';
import { keyOfExpressions } from './rule-key.ts';
import { DYNAMIC_SET_SIZE } from './same-set.ts';
import type { ChainObject, FieldType, NftFamily, SetObject } from './transaction.ts';
import {
  HOOKS,
  NF_ACCEPT,
  NFGENMSG_BYTES,
  NFT_CHAIN_BINDING,
  NFT_DATA_VERDICT,
  NFT_SET_ANONYMOUS,
  NFT_SET_CONCAT,
  NFT_SET_EVAL,
  NFT_SET_INTERVAL,
  NFT_SET_MAP,
  NFT_SET_TIMEOUT,
  NFTA_CHAIN_FLAGS,
  NFTA_CHAIN_HOOK,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_POLICY,
  NFTA_CHAIN_TYPE,
  NFTA_CHAIN_USERDATA,
  NFTA_HOOK_HOOKNUM,
  NFTA_HOOK_PRIORITY,
  NFTA_OBJECT_TABLE,
  NFTA_RULE_CHAIN,
  NFTA_RULE_EXPRESSIONS,
  NFTA_RULE_USERDATA,
  NFTA_SET_DATA_LEN,
  NFTA_SET_DATA_TYPE,
  NFTA_SET_DESC,
  NFTA_SET_DESC_SIZE,
  NFTA_SET_FLAGS,
  NFTA_SET_KEY_LEN,
  NFTA_SET_KEY_TYPE,
  NFTA_SET_NAME,
  NFTA_SET_TIMEOUT,
  NFTA_SET_USERDATA,
  SET_COMMENT_UDATA,
} from './uapi.ts';
import { decodeComment, fieldsBytes, fieldsOfNumber } from './user-data.ts';

/** A text that ends in NUL. */
export function textOf(bytes: Buffer | undefined): string {
  if (bytes === undefined) return '';
  const end = bytes.at(-1) === 0 ? bytes.length - 1 : bytes.length;
  return bytes.toString('latin1', 0, end);
}

/** A number of 4 bytes, big endian; of 8 bytes, as far as it can be counted. */
function numberOf(bytes: Buffer | undefined): number | undefined {
  if (bytes?.length === 4) return bytes.readUInt32BE(0);
  return bytes?.length === 8 ? Number(bytes.readBigUInt64BE(0)) : undefined;
}

/** Name of the table a chain, rule, set or element is in. */
export function tableOf(body: Buffer): string {
  return textOf(findAttribute(body.subarray(NFGENMSG_BYTES), NFTA_OBJECT_TABLE));
}

export interface DecodedChain {
  readonly name: string;
  /** Undefined: no `ChainObject` describes it. */
  readonly chain: ChainObject | undefined;
}

/** A chain; undefined for one that belongs to a rule. */
export function decodeChain(body: Buffer): DecodedChain | undefined {
  const attributes = decodeAttributes(body.subarray(NFGENMSG_BYTES));
  const name = textOf(attributes.get(NFTA_CHAIN_NAME));
  const flags = numberOf(attributes.get(NFTA_CHAIN_FLAGS)) ?? 0;
  if ((flags & NFT_CHAIN_BINDING) !== 0) return undefined;
  const comment = decodeComment(attributes.get(NFTA_CHAIN_USERDATA));
  const plain = { name, ...(comment === undefined ? {} : { comment }) };
  const hook = attributes.get(NFTA_CHAIN_HOOK);
  if (hook === undefined) return { name, chain: plain };
  const base = baseOf(hook, textOf(attributes.get(NFTA_CHAIN_TYPE)));
  const accepts = numberOf(attributes.get(NFTA_CHAIN_POLICY)) === NF_ACCEPT;
  return { name, chain: base !== undefined && accepts ? { ...plain, base } : undefined };
}

function baseOf(hook: Buffer, type: string): ChainObject['base'] {
  const word = HOOKS[numberOf(findAttribute(hook, NFTA_HOOK_HOOKNUM)) ?? -1];
  const priority = findAttribute(hook, NFTA_HOOK_PRIORITY);
  if (word === undefined || priority?.length !== 4 || (type !== 'filter' && type !== 'nat')) return undefined;
  return { type, hook: word, priority: priority.readInt32BE(0) };
}

/** A rule: its chain, and the text it is compared by. */
export function decodeRule(body: Buffer): { readonly chain: string; readonly key: string } {
  const attributes = body.subarray(NFGENMSG_BYTES);
  const expressions = findAttribute(attributes, NFTA_RULE_EXPRESSIONS) ?? Buffer.alloc(0);
  return {
    chain: textOf(findAttribute(attributes, NFTA_RULE_CHAIN)),
    key: keyOfExpressions(expressions, decodeComment(findAttribute(attributes, NFTA_RULE_USERDATA))),
  };
}

export interface DecodedSet {
  readonly name: string;
  /** Undefined: no `SetObject` describes it. */
  readonly set: SetObject | undefined;
}

const KNOWN_FLAGS = NFT_SET_INTERVAL | NFT_SET_MAP | NFT_SET_TIMEOUT | NFT_SET_EVAL | NFT_SET_CONCAT;

/** A set or map; undefined for one that belongs to a rule. */
export function decodeSet(body: Buffer, family: NftFamily): DecodedSet | undefined {
  const attributes = decodeAttributes(body.subarray(NFGENMSG_BYTES));
  const name = textOf(attributes.get(NFTA_SET_NAME));
  const flags = numberOf(attributes.get(NFTA_SET_FLAGS)) ?? 0;
  if ((flags & NFT_SET_ANONYMOUS) !== 0) return undefined;
  const key = typesOf(attributes, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, family);
  const data = (flags & NFT_SET_MAP) === 0 ? undefined : dataOf(attributes, family);
  const ranges = (flags & NFT_SET_INTERVAL) !== 0 && (key?.length ?? 0) > 1;
  const strange =
    (flags & ~KNOWN_FLAGS) !== 0 ||
    key === undefined ||
    ((flags & NFT_SET_MAP) !== 0 && data === undefined) ||
    ranges !== ((flags & NFT_SET_CONCAT) !== 0);
  if (strange) return { name, set: undefined };
  const words = flagWords(flags);
  const timeout = numberOf(attributes.get(NFTA_SET_TIMEOUT));
  const desc = attributes.get(NFTA_SET_DESC);
  const size = desc === undefined ? undefined : numberOf(findAttribute(desc, NFTA_SET_DESC_SIZE));
  const given = size === DYNAMIC_SET_SIZE && words.includes('dynamic') ? undefined : size;
  const comment = decodeComment(attributes.get(NFTA_SET_USERDATA), SET_COMMENT_UDATA);
  return {
    name,
    set: {
      name,
      key,
      ...(data === undefined ? {} : { data }),
      ...(words.length === 0 ? {} : { flags: words }),
      ...(timeout === undefined || timeout === 0 ? {} : { timeoutSeconds: timeout / 1000 }),
      ...(given === undefined ? {} : { size: given }),
      ...(comment === undefined ? {} : { comment }),
    },
  };
}

function flagWords(flags: number): NonNullable<SetObject['flags']> {
  const words: ('dynamic' | 'interval' | 'timeout')[] = [];
  if ((flags & NFT_SET_EVAL) !== 0) words.push('dynamic');
  if ((flags & NFT_SET_INTERVAL) !== 0) words.push('interval');
  if ((flags & NFT_SET_TIMEOUT) !== 0) words.push('timeout');
  return words;
}

function typesOf(
  attributes: ReadonlyMap<number, Buffer>,
  type: number,
  length: number,
  family: NftFamily,
): readonly FieldType[] | undefined {
  const fields = fieldsOfNumber(numberOf(attributes.get(type)) ?? 0, family);
  if (fields === undefined || fieldsBytes(fields, family) !== numberOf(attributes.get(length))) return undefined;
  return fields;
}

function dataOf(attributes: ReadonlyMap<number, Buffer>, family: NftFamily): SetObject['data'] {
  if (numberOf(attributes.get(NFTA_SET_DATA_TYPE)) === NFT_DATA_VERDICT) return 'verdict';
  return typesOf(attributes, NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN, family);
}
