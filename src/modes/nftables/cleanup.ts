/**
 * Takes the table of nftables mode out of the kernel, whoever wrote it. spec: nftables.md §12.
 *
 * @module
 */

import type { Nftables } from '../../netlink/nftables/nftables.ts';
import { FAMILIES } from '../../proxier/types.ts';
import { TABLE } from './base-chains.ts';
import { nftFamily } from './create.ts';

/** @returns What could not be done; a table that is not there is no error. */
export function cleanUpNftables(nftables: Pick<Nftables, 'commit'>): readonly Error[] {
  const errors: Error[] = [];
  for (const family of FAMILIES) {
    const fail = (why: string, cause?: unknown) =>
      errors.push(new Error(`Cannot remove the table ${nftFamily(family)} ${TABLE}: ${why}`, { cause }));
    try {
      const commands = [{ verb: 'delete', object: 'table' }] as const;
      const result = nftables.commit([{ family: nftFamily(family), table: TABLE, commands }]);
      const [refused] = result.kind === 'refused' ? result.refused : [];
      if (refused !== undefined && refused.errno !== 'ENOENT') fail(`the kernel answers ${refused.errno}`);
    } catch (error) {
      fail(error instanceof Error ? error.message : String(error), error);
    }
  }
  return errors;
}
