/**
 * Sets and maps as attributes: those with a name of their own, and those written in a rule.
 *
 * @module
 */

import type { MessageWriter } from '../writer.ts';
import { addressListSize, hasIntervals } from './element.ts';
import type { AnonymousSet } from './lower.ts';
import type { FieldType, NftFamily, SetObject } from './transaction.ts';
import {
  fieldLayout,
  NFT_DATA_VERDICT,
  NFT_SET_ANONYMOUS,
  NFT_SET_CONCAT,
  NFT_SET_CONSTANT,
  NFT_SET_EVAL,
  NFT_SET_INTERVAL,
  NFT_SET_MAP,
  NFT_SET_TIMEOUT,
  NFTA_LIST_ELEM,
  NFTA_SET_DATA_LEN,
  NFTA_SET_DATA_TYPE,
  NFTA_SET_DESC,
  NFTA_SET_DESC_CONCAT,
  NFTA_SET_DESC_SIZE,
  NFTA_SET_FIELD_LEN,
  NFTA_SET_FLAGS,
  NFTA_SET_ID,
  NFTA_SET_KEY_LEN,
  NFTA_SET_KEY_TYPE,
  NFTA_SET_NAME,
  NFTA_SET_TIMEOUT,
  NFTA_SET_USERDATA,
} from './uapi.ts';
import { addressListData, anonymousMapData, fieldsBytes, namedSetData, typeNumber } from './user-data.ts';

const FLAGS = { interval: NFT_SET_INTERVAL, timeout: NFT_SET_TIMEOUT, dynamic: NFT_SET_EVAL } as const;

/** What the kernel is told of a set. */
export interface SetDescription {
  readonly name: string;
  /** NFT_SET_… */
  readonly flags: number;
  readonly key: readonly FieldType[];
  readonly data: SetObject['data'];
  readonly size: number | undefined;
  /** Ranges in concatenations are looked up field by field. */
  readonly byField: boolean;
  readonly timeoutMs: number | undefined;
  readonly userData: Buffer;
}

export function describeSet(set: SetObject, family: NftFamily): SetDescription {
  const { name, key, data, flags = [], timeoutSeconds, size, comment } = set;
  const byField = hasIntervals(set) && key.length > 1;
  const kind = (data === undefined ? 0 : NFT_SET_MAP) | (byField ? NFT_SET_CONCAT : 0);
  return {
    name,
    flags: flags.reduce((sum, flag) => sum | FLAGS[flag], kind),
    key,
    data,
    size,
    byField,
    timeoutMs: timeoutSeconds === undefined ? undefined : timeoutSeconds * 1000,
    userData: namedSetData(key, data, { family, comment }),
  };
}

export function describeAnonymousSet(set: AnonymousSet, family: NftFamily): SetDescription {
  const flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT;
  const common = { name: set.name, byField: false, timeoutMs: undefined };
  if (set.kind === 'map') {
    const { key, data, elements } = set;
    const userData = anonymousMapData(key, data);
    return { ...common, flags: flags | NFT_SET_MAP, key, data, size: elements.length, userData };
  }
  return {
    ...common,
    flags: flags | NFT_SET_INTERVAL,
    key: ['addr'],
    data: undefined,
    size: addressListSize(set.ranges),
    userData: addressListData(family, set.side),
  };
}

/** The attributes behind the name of the table. `id` is the number of the set in its batch. */
export function writeSet(
  writer: MessageWriter,
  set: SetDescription,
  { family, id }: { readonly family: NftFamily; readonly id: number },
): void {
  const { key, data, size, byField } = set;
  writer.text(NFTA_SET_NAME, set.name);
  writer.uint32(NFTA_SET_FLAGS, set.flags);
  writer.uint32(NFTA_SET_KEY_TYPE, typeNumber(key, family));
  writer.uint32(NFTA_SET_KEY_LEN, fieldsBytes(key, family));
  if (data !== undefined) {
    const isVerdict = data === 'verdict';
    writer.uint32(NFTA_SET_DATA_TYPE, isVerdict ? NFT_DATA_VERDICT : typeNumber(data, family));
    writer.uint32(NFTA_SET_DATA_LEN, isVerdict ? 0 : fieldsBytes(data, family));
  }
  writer.uint32(NFTA_SET_ID, id);
  if (size !== undefined || byField) {
    const desc = writer.openNested(NFTA_SET_DESC);
    if (size !== undefined) writer.uint32(NFTA_SET_DESC_SIZE, size);
    if (byField) writeFieldLengths(writer, key, family);
    writer.closeNested(desc);
  }
  if (set.timeoutMs !== undefined) writer.uint64(NFTA_SET_TIMEOUT, set.timeoutMs);
  writer.bytes(NFTA_SET_USERDATA, set.userData);
}

function writeFieldLengths(writer: MessageWriter, key: readonly FieldType[], family: NftFamily): void {
  const list = writer.openNested(NFTA_SET_DESC_CONCAT);
  for (const field of key) {
    const start = writer.openNested(NFTA_LIST_ELEM);
    writer.uint32(NFTA_SET_FIELD_LEN, fieldLayout(field, family).bytes);
    writer.closeNested(start);
  }
  writer.closeNested(list);
}
