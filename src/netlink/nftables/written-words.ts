/**
 * Which registers a rule has written so far. Linux 6.18 refuses a rule that reads others, with ENODATA: what lies in them
 * was left there by whoever used the stack before.
 *
 * @module
 */

import type { Expression, Register } from './expression.ts';

const WORD_BYTES = 4;
const BYTES_OF_META = { mark: 4, priority: 4, iifname: 16, l4proto: 1 } as const;
const BYTES_OF_CT_ORIGINAL = { dstIp: 4, dstIp6: 16, protoDst: 2 } as const;

export class WrittenWords {
  readonly #words = new Set<number>();

  /** @param dataBytes - Length of the data of the map, where the expression is a lookup in one. */
  add(expression: Expression, dataBytes = 0): void {
    const [register, bytes] = written(expression, dataBytes);
    for (const word of wordsAt(register, bytes)) this.#words.add(word);
  }

  /** True if all of so many bytes from a register on were written. */
  has(register: Register, bytes: number): boolean {
    return wordsAt(register, bytes).every((word) => this.#words.has(word));
  }
}

/** Words that bytes from a register on take: the reverse of `registerAt()`. */
function wordsAt(register: Register, bytes: number): number[] {
  const first = register < 8 ? (register - 1) * 4 : register - 8;
  return Array.from({ length: Math.ceil(bytes / WORD_BYTES) }, (_, i) => first + i);
}

function written(expression: Expression, dataBytes: number): readonly [register: Register, bytes: number] {
  switch (expression.kind) {
    case 'payload':
      return [expression.dreg, expression.length];
    case 'meta':
      return [expression.dreg, BYTES_OF_META[expression.key]];
    case 'ctOriginal':
      return [expression.dreg, BYTES_OF_CT_ORIGINAL[expression.key]];
    case 'ct':
    case 'fibType':
    case 'random':
      return [expression.dreg, 4];
    case 'bitwise':
      return [expression.register, expression.mask.length];
    case 'immediate':
      return [expression.dreg, expression.value.length];
    case 'lookup':
      return [expression.dreg ?? 1, expression.dreg === undefined ? 0 : dataBytes];
    default:
      return [1, 0];
  }
}
