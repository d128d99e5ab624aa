/**
 * Short names made of long ones, as kube-proxy makes them: the beginning of the base32 of SHA-256.
 *
 * @module
 */

import { hash } from 'node:crypto';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/**
 * The beginning of the base32 (RFC 4648) of the SHA-256 of a text.
 *
 * @param characters - 8 or 16, that is 40 or 80 bits. Of 1,000,000 names of 80 bits two are the same with odds of 4 in 10^13.
 */
export function base32Hash(text: string, characters: 8 | 16): string {
  const digest = hash('sha256', text, 'buffer');
  let out = '';
  // 8 characters are 5 bytes, read as 32 bits and 8 to stay within exact integers.
  for (let at = 0; out.length < characters; at += 5) {
    const high = digest.readUInt32BE(at);
    const low = digest.readUInt8(at + 4);
    for (let shift = 27; shift >= 2; shift -= 5) out += ALPHABET[(high >>> shift) & 31];
    out += ALPHABET[((high & 3) << 3) | (low >>> 5)];
    out += ALPHABET[low & 31];
  }
  return out;
}
