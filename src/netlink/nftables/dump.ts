/**
 * A table read whole, as it was at one moment. It takes several dumps, which belong together if the generation of the ruleset is the
 * same before the first and after the last; else all is read again.
 *
 * @module
 */

import { encodeTextAttribute, findAttribute, type NetlinkMessage, NLM_F_DUMP } from '../codec.ts';
import { kernelAnswered, NetlinkError } from '../error.ts';
import { answers, ask, type NetlinkRequest } from '../request.ts';
import type { NetlinkSocket } from '../socket.ts';
import { readGeneration } from './batch.ts';
import { decodeChain, decodeRule, decodeSet, tableOf } from './decode.ts';
import { ElementReader } from './decode-element.ts';
import type { ElementList, ReadOptions, TableContent } from './nftables.ts';
import type { ChainObject, NftFamily, SetElement, SetObject } from './transaction.ts';
import {
  GETCHAIN,
  GETRULE,
  GETSET,
  GETSETELEM,
  GETTABLE,
  NFGENMSG_BYTES,
  NFPROTO,
  NFTA_CHAIN_NAME,
  NFTA_OBJECT_TABLE,
  NFTA_SET_ELEM_LIST_SET,
  NFTA_TABLE_USERDATA,
} from './uapi.ts';
import { decodeComment } from './user-data.ts';

/** How often a table that changes meanwhile is read. */
export const READ_TRIES = 10;

/** One table to read from, and the numbers of the requests on its socket. */
export interface TableSource {
  readonly socket: NetlinkSocket;
  readonly family: NftFamily;
  readonly table: string;
  readonly nextSeq: () => number;
}

/** The generation moved on while something was read. */
class Changed extends Error {}

/** @throws {NetlinkError} INTERRUPTED, if the ruleset changes during each of ten tries. */
function consistently<T>({ socket, table }: TableSource, read: (generation: number) => T): T {
  for (let tries = 0; tries < READ_TRIES; tries++) {
    const generation = readGeneration(socket);
    try {
      const result = read(generation);
      if (readGeneration(socket) === generation) return result;
    } catch (error) {
      // What was listed a moment ago may be gone by now.
      const vanished = kernelAnswered(error, 'ENOENT') && readGeneration(socket) !== generation;
      if (!vanished && !(error instanceof Changed)) throw error;
    }
  }
  throw new NetlinkError(`read the table "${table}"`, { code: 'INTERRUPTED', tries: READ_TRIES });
}

/** @returns Undefined if there is no such table. @throws {NetlinkError} */
export function readTable(source: TableSource, { elementsOf }: ReadOptions = {}): TableContent | undefined {
  return consistently(source, (generation) => {
    const table = findTable(source);
    if (table === undefined) return undefined;
    const chains = readChains(source);
    const sets = readSets(source);
    const elements = new Map<string, readonly SetElement[]>();
    for (const [name, set] of sets) {
      if (set !== undefined && elementsOf?.(set) === true) elements.set(name, dumpElements(source, set));
    }
    return { generation, comment: table.comment, chains, sets, elements };
  });
}

/** @throws {NetlinkError} KERNEL ENOENT, if there is no such set. */
export function readElements(source: TableSource, set: SetObject): ElementList {
  return consistently(source, (generation) => ({ generation, elements: dumpElements(source, set) }));
}

/** @throws {NetlinkError} */
export function hasTable(source: TableSource): boolean {
  return isThere(source, request(source, GETTABLE));
}

/** @throws {NetlinkError} */
export function hasChain(source: TableSource, chain: string): boolean {
  const { doing, type, body } = request(source, GETCHAIN);
  return isThere(source, { doing, type, body: Buffer.concat([body, encodeTextAttribute(NFTA_CHAIN_NAME, chain)]) });
}

/** How a kernel says that it has no such object, or could not have any. */
const NOT_THERE = ['ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EAFNOSUPPORT'];

/** Asks for one object by name, which lists nothing. */
function isThere({ socket }: TableSource, request: Omit<NetlinkRequest, 'flags'>): boolean {
  try {
    ask(socket, { ...request, flags: 0 });
    return true;
  } catch (error) {
    if (NOT_THERE.some((name) => kernelAnswered(error, name))) return false;
    throw error;
  }
}

function request({ family, table }: TableSource, type: number, set?: string) {
  const header = Buffer.of(NFPROTO[family], 0, 0, 0);
  const attributes = [encodeTextAttribute(NFTA_OBJECT_TABLE, table)];
  if (set !== undefined) attributes.push(encodeTextAttribute(NFTA_SET_ELEM_LIST_SET, set));
  return { doing: `read the table "${table}"`, type, body: Buffer.concat([header, ...attributes]) };
}

function findTable(source: TableSource): { readonly comment: string | undefined } | undefined {
  try {
    const [message] = ask(source.socket, { ...request(source, GETTABLE), flags: 0 });
    const userData = message && findAttribute(message.body.subarray(NFGENMSG_BYTES), NFTA_TABLE_USERDATA);
    return { comment: decodeComment(userData) };
  } catch (error) {
    if (kernelAnswered(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Gives each message of a dump to `take`. */
function dump(source: TableSource, type: number, take: (message: NetlinkMessage) => void, set?: string): void {
  const answer = answers(source.socket, { ...request(source, type, set), flags: NLM_F_DUMP }, source.nextSeq());
  let step = answer.next();
  for (; !step.done; step = answer.next()) take(step.value);
  if (step.value.interrupted) throw new Changed();
}

function readChains(source: TableSource): TableContent['chains'] {
  const chains = new Map<string, { readonly chain: ChainObject | undefined; readonly ruleKeys: string[] }>();
  dump(source, GETCHAIN, ({ body }) => {
    // The kernel tells the chains of every table.
    const found = tableOf(body) === source.table ? decodeChain(body) : undefined;
    if (found !== undefined) chains.set(found.name, { chain: found.chain, ruleKeys: [] });
  });
  dump(source, GETRULE, ({ body }) => {
    const { chain, key } = decodeRule(body);
    chains.get(chain)?.ruleKeys.push(key);
  });
  return chains;
}

function readSets(source: TableSource): TableContent['sets'] {
  const sets = new Map<string, SetObject | undefined>();
  dump(source, GETSET, ({ body }) => {
    const found = decodeSet(body, source.family);
    if (found !== undefined) sets.set(found.name, found.set);
  });
  return sets;
}

function dumpElements(source: TableSource, set: SetObject): readonly SetElement[] {
  const reader = new ElementReader(set, source.family);
  dump(source, GETSETELEM, ({ body }) => reader.read(body), set.name);
  return reader.finish();
}
