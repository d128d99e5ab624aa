/**
 * Takes the table of nftables mode out of the kernel, whoever wrote it. spec: nftables.md §12.
 *
 * @module
 */

import type { Nftables } from '../../netlink/nftables/nftables.ts';
import type { Family } from '../../proxier/types.ts';
import { TABLE } from './base-chains.ts';
import { nftFamily } from './create.ts';

/**
 * Takes the table of one family away with all that is in it, in one step.
 *
 * @returns False if there was none.
 * @throws {Error} If the kernel keeps it.
 * @throws {NetlinkError} If there is no talking to the kernel, or it refuses the caller (EPERM).
 */
export function removeTable(family: Family, nftables: Pick<Nftables, 'hasTable' | 'commit'>): boolean {
  const place = { family: nftFamily(family), table: TABLE };
  if (!nftables.hasTable(place.family, TABLE)) return false;
  const result = nftables.commit([{ ...place, commands: [{ verb: 'delete', object: 'table' }] }]);
  const [refused] = result.kind === 'refused' ? result.refused : [];
  if (refused === undefined) return true;
  // Somebody else was faster.
  if (refused.errno === 'ENOENT') return false;
  throw new Error(`Cannot remove the table ${place.family} ${TABLE}: the kernel answers ${refused.errno}`);
}
