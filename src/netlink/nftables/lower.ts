/**
 * Rules from words to instructions of the kernel, as nft lowers them: the same registers in the same order, so that what either
 * writes reads back alike.
 *
 * @module
 */

import { type AddressRange, familyOfText, maskByte, mergeRanges, parseRange, prefixLength } from './address.ts';
import { type Expression, REGISTER_WORDS, type Register, registerAt } from './expression.ts';
import type {
  Field,
  FieldType,
  MapReference,
  NftFamily,
  RuleObject,
  SetElement,
  Statement,
  Verdict,
} from './transaction.ts';
import { ADDRESS_BYTES, fieldLayout, PROTOCOLS } from './uapi.ts';

/** A set that is made together with its rule and dies with it. */
export type AnonymousSet =
  | {
      readonly kind: 'map';
      readonly name: string;
      readonly key: readonly FieldType[];
      readonly data: 'verdict' | readonly FieldType[];
      readonly elements: readonly SetElement[];
    }
  | {
      readonly kind: 'addresses';
      readonly name: string;
      readonly side: 'saddr' | 'daddr';
      /** Sorted, apart from each other. */
      readonly ranges: readonly AddressRange[];
    };

export interface LoweredRule {
  readonly sets: readonly AnonymousSet[];
  readonly expressions: readonly Expression[];
}

/** Type of the data of a map that `dnat` uses. */
export const DNAT_DATA: readonly FieldType[] = ['addr', 'inet_service'];

/** Type of the data of a map that gives priorities. */
const PRIORITY_DATA: readonly FieldType[] = ['classid'];

const IFNAME_BYTES = 16;
const CT_STATE_NEW = 8;
const CT_STATUS_DNAT = 0x20;
const RTN_LOCAL = 2;
/** NF_NAT_RANGE_PROTO_SPECIFIED */
const RANGE_PROTO = 2;

const SADDR_OFFSET: Readonly<Record<NftFamily, number>> = { ip: 12, ip6: 8 };
const DADDR_OFFSET: Readonly<Record<NftFamily, number>> = { ip: 16, ip6: 24 };

/** Type of the value of a field. */
export function fieldType(field: Field): FieldType {
  if (typeof field === 'object') return 'integer';
  switch (field) {
    case 'saddr':
    case 'daddr':
    case 'originalDaddr':
      return 'addr';
    case 'l4proto':
      return 'inet_proto';
    case 'sport':
    case 'dport':
    case 'originalDport':
      return 'inet_service';
    case 'mark':
      return 'mark';
    case 'priority':
      return 'classid';
  }
}

function hostUint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

/**
 * @throws {RangeError} If the rule says what cannot be: no such address, more fields than registers, a list without a name.
 */
export function lowerRule({ statements }: Pick<RuleObject, 'statements'>, family: NftFamily): LoweredRule {
  const lowering = new Lowering(family);
  for (const statement of statements) lowering.add(statement);
  return lowering;
}

function wordsOf(fields: readonly Field[], family: NftFamily): number {
  return fields.reduce((sum, field) => sum + ((fieldLayout(fieldType(field), family).bytes + 3) >> 2), 0);
}

/**
 * Loads fields into registers from a word on, each in whole words.
 *
 * @throws {RangeError} If the registers end before they do.
 */
export function loadFields(fields: readonly Field[], from: number, family: NftFamily): Expression[] {
  if (from + wordsOf(fields, family) > REGISTER_WORDS) {
    throw new RangeError(
      `Cannot load ${fields.length} fields from word ${from} on: the registers have ${REGISTER_WORDS}`,
    );
  }
  let word = from;
  return fields.map((field) => {
    const expression = loadField(field, registerAt(word), family);
    word += wordsOf([field], family);
    return expression;
  });
}

function networkPayload(dreg: Register, offset: number, length: number): Expression {
  return { kind: 'payload', dreg, base: 'network', offset, length };
}

function loadField(field: Field, dreg: Register, family: NftFamily): Expression {
  if (typeof field === 'object') return { kind: 'random', modulus: field.random, dreg };
  switch (field) {
    case 'saddr':
      return networkPayload(dreg, SADDR_OFFSET[family], ADDRESS_BYTES[family]);
    case 'daddr':
      return networkPayload(dreg, DADDR_OFFSET[family], ADDRESS_BYTES[family]);
    case 'l4proto':
    case 'mark':
    case 'priority':
      return { kind: 'meta', key: field, dreg };
    case 'originalDaddr':
      return { kind: 'ctOriginal', key: family === 'ip' ? 'dstIp' : 'dstIp6', dreg };
    case 'originalDport':
      return { kind: 'ctOriginal', key: 'protoDst', dreg };
    case 'sport':
      return { kind: 'payload', dreg, base: 'transport', offset: 0, length: 2 };
    case 'dport':
      return { kind: 'payload', dreg, base: 'transport', offset: 2, length: 2 };
  }
}

class Lowering implements LoweredRule {
  readonly sets: AnonymousSet[] = [];
  readonly expressions: Expression[] = [];
  readonly #family: NftFamily;

  constructor(family: NftFamily) {
    this.#family = family;
  }

  add(statement: Statement): void {
    const { expressions } = this;
    switch (statement.kind) {
      case 'ctStateNew':
        expressions.push({ kind: 'ct', key: 'state', dreg: 1 });
        this.#anyBit(CT_STATE_NEW, false);
        return;
      case 'ctStatusDnat':
        expressions.push({ kind: 'ct', key: 'status', dreg: 1 });
        this.#anyBit(CT_STATUS_DNAT, false);
        return;
      case 'markHas':
        expressions.push({ kind: 'meta', key: 'mark', dreg: 1 });
        this.#anyBit(statement.mask, true);
        return;
      case 'setMark':
        this.#setMark(statement.op, statement.mask);
        return;
      case 'setPriority':
        this.#lookup(statement.fields, statement.map, PRIORITY_DATA, 1);
        expressions.push({ kind: 'setPriority', sreg: 1 });
        return;
      case 'clearPriority':
        expressions.push({ kind: 'immediate', dreg: 1, value: hostUint32(0) }, { kind: 'setPriority', sreg: 1 });
        return;
      case 'address':
        this.#address(statement);
        return;
      case 'l4proto':
        expressions.push({ kind: 'meta', key: 'l4proto', dreg: 1 });
        this.#compare('eq', Buffer.of(protocolNumber(statement.protocol)));
        return;
      case 'iifname':
        expressions.push({ kind: 'meta', key: 'iifname', dreg: 1 });
        this.#compare(statement.negated ? 'neq' : 'eq', interfaceBytes(statement));
        return;
      case 'fibLocal':
        expressions.push({ kind: 'fibType', side: statement.side, dreg: 1 });
        this.#compare('eq', hostUint32(RTN_LOCAL));
        return;
      case 'inSet':
        this.#load(statement.fields, 0);
        expressions.push({ kind: 'lookup', set: statement.set, sreg: 1, negated: statement.negated ?? false });
        return;
      case 'vmap':
        this.#lookup(statement.fields, statement.map, 'verdict', 0);
        return;
      case 'verdict':
        expressions.push({ kind: 'verdict', verdict: statement.verdict });
        return;
      case 'reject':
      case 'masquerade':
        expressions.push({ kind: statement.kind });
        return;
      case 'dnat':
        this.#dnat(statement.address, statement.port);
        return;
      case 'dnatMap':
        this.#lookup(statement.fields, statement.map, DNAT_DATA, 1);
        expressions.push({ kind: 'dnat', address: 1, port: registerAt(ADDRESS_BYTES[this.#family] / 4) });
        return;
      case 'dynamic':
        this.#dynamic(statement);
        return;
    }
  }

  /** @returns The word behind them. */
  #load(fields: readonly Field[], from: number): number {
    this.expressions.push(...loadFields(fields, from, this.#family));
    return from + wordsOf(fields, this.#family);
  }

  #compare(op: 'eq' | 'neq', value: Uint8Array): void {
    this.expressions.push({ kind: 'cmp', sreg: 1, op, value });
  }

  /** Goes on if a bit of the mask is set in register 1. */
  #anyBit(mask: number, withOp: boolean): void {
    this.expressions.push({ kind: 'bitwise', register: 1, mask: hostUint32(mask), xor: hostUint32(0), withOp });
    this.#compare('neq', hostUint32(0));
  }

  #setMark(op: 'or' | 'xor', mask: number): void {
    const kept = op === 'or' ? ~mask : -1;
    this.expressions.push(
      { kind: 'meta', key: 'mark', dreg: 1 },
      { kind: 'bitwise', register: 1, mask: hostUint32(kept), xor: hostUint32(mask), withOp: true },
      { kind: 'setMark', sreg: 1 },
    );
  }

  #address(statement: Extract<Statement, { kind: 'address' }>): void {
    const { side, negated, cidrs, name } = statement;
    const [only, second] = cidrs;
    if (only === undefined) throw new RangeError('Cannot compare an address: the list of CIDRs is empty');
    const family = second === undefined ? familyOfText(only) : this.#family;
    const offset = (side === 'saddr' ? SADDR_OFFSET : DADDR_OFFSET)[family];
    if (second === undefined) {
      this.#inCidr(parseRange(only, family), offset, negated);
      return;
    }
    if (name === undefined) throw new RangeError(`Cannot make a set of ${cidrs.length} CIDRs: it has no name`);
    const ranges = mergeRanges(cidrs.map((cidr) => parseRange(cidr, family)));
    this.sets.push({ kind: 'addresses', name, side, ranges });
    this.expressions.push(networkPayload(1, offset, ADDRESS_BYTES[family]), {
      kind: 'lookup',
      set: name,
      sreg: 1,
      negated,
    });
  }

  #inCidr(range: AddressRange, offset: number, negated: boolean): void {
    const { first } = range;
    const prefix = prefixLength(range);
    if (prefix === undefined) throw new RangeError('Cannot compare an address with a range: it must be a CIDR');
    const whole = prefix !== 0 && prefix % 8 === 0;
    this.expressions.push(networkPayload(1, offset, whole ? prefix / 8 : first.length));
    if (!whole) {
      const mask = first.map((_, i) => maskByte(prefix, i));
      const xor = new Uint8Array(first.length);
      this.expressions.push({ kind: 'bitwise', register: 1, mask, xor, withOp: false });
    }
    this.#compare(negated ? 'neq' : 'eq', whole ? first.subarray(0, prefix / 8) : first);
  }

  #lookup(fields: readonly Field[], map: MapReference, data: 'verdict' | readonly FieldType[], dreg: Register): void {
    this.#load(fields, 0);
    if (map.kind === 'anonymous') {
      this.sets.push({ kind: 'map', name: map.name, key: fields.map(fieldType), data, elements: map.elements });
    }
    this.expressions.push({ kind: 'lookup', set: map.kind === 'named' ? map.map : map.name, sreg: 1, dreg });
  }

  #dnat(address: string, port: number): void {
    const { first } = parseRange(address, this.#family);
    this.expressions.push(
      { kind: 'immediate', dreg: 1, value: first },
      { kind: 'immediate', dreg: 2, value: Buffer.of(port >>> 8, port & 0xff) },
      { kind: 'dnat', address: 1, port: 2, flags: RANGE_PROTO },
    );
  }

  #dynamic({ op, set, fields, data, timeoutSeconds }: Extract<Statement, { kind: 'dynamic' }>): void {
    const word = this.#load(fields, 0);
    const withData = data === undefined ? {} : { data: registerAt(word) };
    if (data !== undefined) this.#load(data, word);
    const timeout = timeoutSeconds === undefined ? {} : { timeoutMs: timeoutSeconds * 1000 };
    this.expressions.push({ kind: 'dynset', op, set, key: 1, ...withData, ...timeout });
  }
}

/** @throws {RangeError} If there is no such protocol. */
export function protocolNumber(name: string): number {
  const number = PROTOCOLS[name];
  if (number === undefined) throw new RangeError(`Cannot encode the protocol "${name}": must be tcp, udp or sctp`);
  return number;
}

function interfaceBytes({ name, wildcard }: { readonly name: string; readonly wildcard: boolean }): Uint8Array {
  const text = Buffer.from(name);
  if (text.length === 0 || text.length >= IFNAME_BYTES) {
    throw new RangeError(`Cannot match the interface "${name}": its name must be of 1..${IFNAME_BYTES - 1} bytes`);
  }
  return wildcard ? text : Buffer.concat([text], IFNAME_BYTES);
}

/** A verdict that needs no chain, or needs one. */
export function verdictChain(verdict: Verdict): string | undefined {
  return verdict.kind === 'jump' || verdict.kind === 'goto' ? verdict.chain : undefined;
}
