/**
 * Tables and the names of chains.
 *
 * @module
 */

/** Name of a chain, at most 28 characters (the kernel's limit for a chain that is jumped to). */
export type ChainName = string & { readonly __brand: 'ChainName' };

/** The tables that hold rules. `mangle` holds the canary chain only, which is not rendered. */
export type Table = 'filter' | 'nat';

/** Filter first: it is committed first. */
export const TABLES: readonly Table[] = ['filter', 'nat'];

/**
 * Checks that a text can be a chain name.
 *
 * @throws {SyntaxError} If it is empty, longer than 28 characters, begins with `-` or `!`, or holds a blank, a quote or a backslash.
 */
export function toChainName(text: string): ChainName {
  if (!/^[^\s"'\\!-][^\s"'\\]{0,27}$/.test(text)) {
    throw new SyntaxError(
      `Cannot use ${JSON.stringify(text)} as a chain: must be 1..28 characters without blank or quote`,
    );
  }
  return text as ChainName;
}
