/**
 * Changes of sets, and whose fault it is when one is refused.
 *
 * @module
 */

import type { Family, ObjectKey } from '../../proxier/types.ts';
import type { Refusal } from '../mode.ts';
import { IpsetRefusedError, type Ipsets } from './ipset.ts';
import type { SetElement } from './render.ts';
import { SET_IDS, setDefinition, setName } from './sets.ts';

/** An element that must come, and for whom; or one that must go, which is nobody's. */
export interface ElementEdit extends SetElement {
  readonly op: 'add' | 'del';
  readonly owner: ObjectKey | undefined;
}

/** A refused edit, and what is said about it. */
export interface RefusedElement {
  readonly edit: ElementEdit;
  readonly refusal: Refusal;
}

/** What is refused one after the other is not the fault of single elements. */
const MAX_REFUSALS = 10;

/** The commands that make all sets of a family exist. */
export function createCommands(family: Family): readonly string[] {
  return SET_IDS.map((id) => `create ${setName(id, family)} ${setDefinition(id, family)}`);
}

/**
 * Gives edits to the program; one that is refused is left out, the others are done.
 *
 * @returns What was left out.
 * @throws {IpsetRefusedError} If it is nobody's fault, or everybody's.
 */
export async function writeElements(
  ipsets: Ipsets,
  edits: readonly ElementEdit[],
  family: Family,
  signal: AbortSignal | undefined,
): Promise<readonly RefusedElement[]> {
  const refused: RefusedElement[] = [];
  for (let left = edits; left.length > 0; ) {
    const commands = left.map(({ op, set, text }) => `${op} ${setName(set, family)} ${text}`);
    try {
      await ipsets.run(commands, signal);
      break;
    } catch (error) {
      if (!(error instanceof IpsetRefusedError) || error.position === undefined) throw error;
      const rule = commands[error.position];
      const edit = left[error.position];
      if (rule === undefined || edit?.owner === undefined || refused.length === MAX_REFUSALS) throw error;
      refused.push({ edit, refusal: { service: edit.owner, rule: `ipset ${rule}`, reason: error.reason } });
      // The program gathers commands before it gives them to the kernel: those in front of the bad one may not be done either.
      left = left.filter((one) => one !== edit);
    }
  }
  return refused;
}
