/**
 * Whose fault it is that the kernel refused a transaction: its answer names the commands, and each command has an owner.
 *
 * @module
 */

import type { RefusedCommand } from '../../netlink/nftables/nftables.ts';
import { type CommandPlace, formatCommand } from '../../netlink/nftables/text.ts';
import type { Command } from '../../netlink/nftables/transaction.ts';
import type { ObjectKey } from '../../proxier/types.ts';
import type { Refusal } from '../mode.ts';
import { STATIC } from './claims.ts';
import type { OwnedCommand } from './operations.ts';

/** Answers that come as well when the table is not what it was taken for. */
const MAY_BE_A_RACE: ReadonlySet<string> = new Set(['ENOENT', 'EEXIST', 'EBUSY']);

/**
 * Answers of a check of everything that can be reached: once one command has made something reachable that may not be, later ones
 * that are innocent get them, too.
 */
const IS_CONTAGIOUS: ReadonlySet<string> = new Set(['EOPNOTSUPP', 'EMLINK', 'ELOOP']);

export interface Blame {
  /** One for each service at fault. */
  readonly refusals: readonly Refusal[];
  /** Why the table is not taken for what it is, if so; or something that belongs to no service was refused. */
  readonly unclear: string | undefined;
}

/** Reads the culprits off the refused commands. */
export function blame(
  commands: readonly OwnedCommand[],
  refused: readonly RefusedCommand[],
  place: CommandPlace,
): Blame {
  const refusals = new Map<ObjectKey, Refusal>();
  let unclear: string | undefined;
  for (const [i, { command: index, errno, message }] of refused.entries()) {
    if (i > 0 && IS_CONTAGIOUS.has(errno)) continue;
    const found = commands[index];
    const reason = message === undefined ? errno : `${errno}: ${message}`;
    const rule = found === undefined ? 'the whole transaction' : describeCommand(found.command, place);
    if (found === undefined || found.owner === STATIC || MAY_BE_A_RACE.has(errno)) unclear ??= `${rule}: ${reason}`;
    if (found === undefined || found.owner === STATIC || refusals.has(found.owner)) continue;
    refusals.set(found.owner, { service: found.owner, rule, reason });
  }
  return { refusals: [...refusals.values()], unclear };
}

/** As nft(8) would be told it; what its language has no words for, as data. */
export function describeCommand(command: Command, place: CommandPlace): string {
  try {
    return formatCommand(command, place);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return JSON.stringify(command);
  }
}
