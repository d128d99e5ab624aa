/**
 * What the kernel makes of a rule: small machine instructions over registers. Made by `lower.ts`, written by `encode.ts`.
 *
 * The registers are 64 bytes; a word is 4 of them. A register is named by the first word of what lies in it: 1..4 where a block of
 * 16 bytes begins, else 8 and the word.
 *
 * @module
 */

import type { Verdict } from './transaction.ts';

/** A place of the 64 bytes: 1..4 or 8..23. */
export type Register = number;

export type Expression =
  /** Bytes of the packet → `dreg`. */
  | {
      readonly kind: 'payload';
      readonly dreg: Register;
      readonly base: 'network' | 'transport';
      readonly offset: number;
      readonly length: number;
    }
  | { readonly kind: 'meta'; readonly key: 'mark' | 'priority' | 'iifname' | 'l4proto'; readonly dreg: Register }
  | { readonly kind: 'setMark' | 'setPriority'; readonly sreg: Register }
  | { readonly kind: 'ct'; readonly key: 'state' | 'status'; readonly dreg: Register }
  /** Of the tuple a connection began with: address by the family of the table, or port of its destination. */
  | { readonly kind: 'ctOriginal'; readonly key: 'dstIp' | 'dstIp6' | 'protoDst'; readonly dreg: Register }
  /** Goes on if `sreg` is (not) `value`. */
  | { readonly kind: 'cmp'; readonly sreg: Register; readonly op: 'eq' | 'neq'; readonly value: Uint8Array }
  /** dreg = (sreg & mask) ^ xor. `withOp`: nft names the operation in some, though it is the only one. */
  | {
      readonly kind: 'bitwise';
      readonly register: Register;
      readonly mask: Uint8Array;
      readonly xor: Uint8Array;
      readonly withOp: boolean;
    }
  | { readonly kind: 'immediate'; readonly dreg: Register; readonly value: Uint8Array }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  /** `dreg` undefined: goes on if the key is (not) in the set; 0: the verdict found; else data → `dreg`. */
  | {
      readonly kind: 'lookup';
      readonly set: string;
      readonly sreg: Register;
      readonly dreg?: Register;
      readonly negated?: boolean;
    }
  /** Type of the route to an address: RTN_LOCAL 2 → `dreg`. */
  | { readonly kind: 'fibType'; readonly side: 'saddr' | 'daddr'; readonly dreg: Register }
  /** 0..modulus-1 → `dreg`. */
  | { readonly kind: 'random'; readonly modulus: number; readonly dreg: Register }
  /** `flags` undefined: as the kernel chooses. */
  | { readonly kind: 'dnat'; readonly address: Register; readonly port: Register; readonly flags?: number }
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'reject' }
  | {
      readonly kind: 'dynset';
      readonly op: 'add' | 'update' | 'delete';
      readonly set: string;
      readonly key: Register;
      readonly data?: Register;
      readonly timeoutMs?: number;
    };

/** All registers together, in words. */
export const REGISTER_WORDS = 16;

/** Name of the register that begins with a word of 0..15. @throws {RangeError} If there is no such word. */
export function registerAt(word: number): Register {
  if (word >= REGISTER_WORDS) {
    throw new RangeError(`Cannot name the register of word ${word}: the last is ${REGISTER_WORDS - 1}`);
  }
  return word % 4 === 0 ? 1 + word / 4 : 8 + word;
}
