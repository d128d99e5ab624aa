/**
 * Instructions of rules as attributes, each in the order nft writes them.
 *
 * @module
 */

import type { MessageWriter } from '../writer.ts';
import { writeVerdict } from './element.ts';
import type { Expression } from './expression.ts';
import type { NftFamily } from './transaction.ts';
import { NFPROTO, NFTA_DATA_VALUE, NFTA_EXPR_DATA, NFTA_EXPR_NAME } from './uapi.ts';

/** Number of a set made in the same batch, by name. */
export type SetIdOf = (name: string) => number | undefined;

// include/uapi/linux/netfilter/nf_tables.h: the attributes of each expression are numbered for themselves.
const BASES = { network: 1, transport: 2 } as const;
const META_KEYS = { priority: 2, mark: 3, iifname: 6, l4proto: 16 } as const;
const CT_KEYS = { state: 0, status: 2 } as const;
const CT_TUPLE_KEYS = { dstIp: 20, dstIp6: 22, protoDst: 12 } as const;
/** IP_CT_DIR_ORIGINAL */
const CT_ORIGINAL = 0;
const CMP_OPS = { eq: 0, neq: 1 } as const;
const BITWISE_BOOL = 0;
const LOOKUP_INVERTED = 1;
const FIB_ADDRTYPE = 3;
const FIB_SIDES = { saddr: 1, daddr: 2 } as const;
const NUMGEN_RANDOM = 1;
const NAT_DNAT = 1;
const RANGE_RANDOM_FULLY = 16;
const REJECT_ICMP_UNREACHABLE = 0;
/** Port unreachable: of ICMP 3, of ICMPv6 4. */
const PORT_UNREACHABLE: Readonly<Record<NftFamily, number>> = { ip: 3, ip6: 4 };
const DYNSET_OPS = { add: 0, update: 1, delete: 2 } as const;

const NAMES: Readonly<Record<Expression['kind'], string>> = {
  payload: 'payload',
  meta: 'meta',
  setMark: 'meta',
  setPriority: 'meta',
  ct: 'ct',
  ctOriginal: 'ct',
  cmp: 'cmp',
  bitwise: 'bitwise',
  immediate: 'immediate',
  verdict: 'immediate',
  lookup: 'lookup',
  fibType: 'fib',
  random: 'numgen',
  dnat: 'nat',
  masquerade: 'masq',
  reject: 'reject',
  dynset: 'dynset',
};

function value(writer: MessageWriter, type: number, bytes: Uint8Array): void {
  const start = writer.openNested(type);
  writer.bytes(NFTA_DATA_VALUE, bytes);
  writer.closeNested(start);
}

/** Name and data of one expression, inside its entry of the list. */
export function writeExpression(
  writer: MessageWriter,
  expression: Expression,
  family: NftFamily,
  setIdOf: SetIdOf | undefined,
): void {
  writer.text(NFTA_EXPR_NAME, NAMES[expression.kind]);
  const start = writer.openNested(NFTA_EXPR_DATA);
  writeData(writer, expression, family, setIdOf);
  writer.closeNested(start);
}

function writeData(
  writer: MessageWriter,
  expression: Expression,
  family: NftFamily,
  setIdOf: SetIdOf | undefined,
): void {
  switch (expression.kind) {
    case 'payload':
      writer.uint32(1, expression.dreg);
      writer.uint32(2, BASES[expression.base]);
      writer.uint32(3, expression.offset);
      writer.uint32(4, expression.length);
      return;
    case 'meta':
      writer.uint32(2, META_KEYS[expression.key]);
      writer.uint32(1, expression.dreg);
      return;
    case 'setMark':
      writer.uint32(2, META_KEYS.mark);
      writer.uint32(3, expression.sreg);
      return;
    case 'setPriority':
      writer.uint32(2, META_KEYS.priority);
      writer.uint32(3, expression.sreg);
      return;
    case 'ct':
      writer.uint32(2, CT_KEYS[expression.key]);
      writer.uint32(1, expression.dreg);
      return;
    case 'ctOriginal':
      writer.uint32(2, CT_TUPLE_KEYS[expression.key]);
      writer.uint32(1, expression.dreg);
      writer.uint8(3, CT_ORIGINAL);
      return;
    case 'cmp':
      writer.uint32(1, expression.sreg);
      writer.uint32(2, CMP_OPS[expression.op]);
      value(writer, 3, expression.value);
      return;
    case 'bitwise':
      writer.uint32(1, expression.register);
      writer.uint32(2, expression.register);
      if (expression.withOp) writer.uint32(6, BITWISE_BOOL);
      writer.uint32(3, expression.mask.length);
      value(writer, 4, expression.mask);
      value(writer, 5, expression.xor);
      return;
    case 'immediate':
      writer.uint32(1, expression.dreg);
      value(writer, 2, expression.value);
      return;
    case 'verdict': {
      writer.uint32(1, 0);
      const start = writer.openNested(2);
      writeVerdict(writer, expression.verdict);
      writer.closeNested(start);
      return;
    }
    case 'lookup':
      writer.uint32(2, expression.sreg);
      if (expression.dreg !== undefined) writer.uint32(3, expression.dreg);
      writeSet(writer, expression.set, { name: 1, id: 4 }, setIdOf);
      if (expression.negated) writer.uint32(5, LOOKUP_INVERTED);
      return;
    case 'fibType':
      writer.uint32(3, FIB_SIDES[expression.side]);
      writer.uint32(2, FIB_ADDRTYPE);
      writer.uint32(1, expression.dreg);
      return;
    case 'random':
      writer.uint32(1, expression.dreg);
      writer.uint32(2, expression.modulus);
      writer.uint32(3, NUMGEN_RANDOM);
      writer.uint32(4, 0);
      return;
    case 'dnat':
      writer.uint32(1, NAT_DNAT);
      writer.uint32(2, NFPROTO[family]);
      writer.uint32(3, expression.address);
      writer.uint32(5, expression.port);
      if (expression.flags !== undefined) writer.uint32(7, expression.flags);
      return;
    case 'masquerade':
      writer.uint32(1, RANGE_RANDOM_FULLY);
      return;
    case 'reject':
      writer.uint32(1, REJECT_ICMP_UNREACHABLE);
      writer.uint8(2, PORT_UNREACHABLE[family]);
      return;
    case 'dynset':
      writer.uint32(4, expression.key);
      if (expression.data !== undefined) writer.uint32(5, expression.data);
      writer.uint32(3, DYNSET_OPS[expression.op]);
      if (expression.timeoutMs !== undefined) writer.uint64(6, expression.timeoutMs);
      writeSet(writer, expression.set, { name: 1, id: 2 }, setIdOf);
      return;
  }
}

function writeSet(
  writer: MessageWriter,
  name: string,
  attribute: { readonly name: number; readonly id: number },
  setIdOf: SetIdOf | undefined,
): void {
  writer.text(attribute.name, name);
  const id = setIdOf?.(name);
  if (id !== undefined) writer.uint32(attribute.id, id);
}
