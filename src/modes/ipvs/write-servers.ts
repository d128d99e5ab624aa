/**
 * Edits of virtual servers as changes of the IPVS table, and what it means when one of them is refused.
 *
 * @module
 */

import type { NetlinkError } from '../../netlink/error.ts';
import type { Ipvs, IpvsChange } from '../../netlink/ipvs.ts';
import type { Refusal } from '../mode.ts';
import { formatEdit, type ServerEdit } from './delta.ts';
import type { Draining } from './drain.ts';
import { toDestination, toService, toServiceKey } from './kernel.ts';

/** The kernel does not hold what it was left with: somebody else changed the table. Reading it again helps. */
export class StaleTableError extends Error {
  override readonly name = 'StaleTableError';
}

/** A refused edit, and what is said about it. */
export interface RefusedEdit {
  readonly edit: ServerEdit;
  readonly refusal: Refusal;
}

/** Changes between which other work gets its turn. 1,000 take some 20 ms. */
const SLICE = 1_000;

/** Each service in the order in which its edits are to be made. */
type AddingEdit = Exclude<ServerEdit, { readonly op: 'removeServer' | 'drainReal' }>;

function isAdding(edit: ServerEdit): edit is AddingEdit {
  return edit.op !== 'removeServer' && edit.op !== 'drainReal';
}

function toChange(edit: AddingEdit): IpvsChange {
  switch (edit.op) {
    case 'addServer':
      return { kind: 'newService', service: toService(edit.server) };
    case 'updateServer':
      return { kind: 'setService', service: toService(edit.server) };
    case 'addReal':
    case 'resetReal': {
      const kind = edit.op === 'addReal' ? 'newDestination' : 'setDestination';
      return { kind, service: toServiceKey(edit.server), destination: toDestination(edit.real, 1) };
    }
  }
}

/**
 * Makes virtual and real servers be there.
 *
 * @returns Real servers whose address the kernel sends nothing to: they are left out.
 * @throws {StaleTableError} If the table is not what `edits` were made for.
 * @throws {NetlinkError} If the kernel refuses for another reason, for example a scheduler it does not have.
 */
export async function addServers(
  ipvs: Ipvs,
  draining: Draining,
  edits: readonly ServerEdit[],
): Promise<readonly RefusedEdit[]> {
  const adding = edits.filter(isAdding).map((edit) => keepServing(edit, draining));
  const refused: RefusedEdit[] = [];
  for (let from = 0; from < adding.length; from += SLICE) {
    const slice = adding.slice(from, from + SLICE);
    for (const [i, error] of ipvs.change(slice.map(toChange))) {
      const edit = slice[i];
      if (edit !== undefined) refused.push(judge(edit, error));
    }
    if (from + SLICE < adding.length) await new Promise(setImmediate);
  }
  return refused;
}

/** One that drains and is wanted again is still there: a new one of its address would be refused. */
function keepServing(edit: AddingEdit, draining: Draining): AddingEdit {
  if (edit.op !== 'addReal' && edit.op !== 'resetReal') return edit;
  return draining.take(edit) ? { ...edit, op: 'resetReal' } : edit;
}

function judge(edit: AddingEdit, error: NetlinkError): RefusedEdit {
  const { failure } = error;
  const name = failure.code === 'KERNEL' ? failure.name : '';
  if (edit.op === 'addReal' && name === 'EINVAL') {
    const reason = `${error.message}: it sends nothing to this address`;
    return { edit, refusal: { service: edit.owner, rule: `ipvsadm ${formatEdit(edit)}`, reason } };
  }
  const isOtherThanThought =
    (name === 'EEXIST' && (edit.op === 'addServer' || edit.op === 'addReal')) ||
    (name === 'ESRCH' && edit.op !== 'addServer') ||
    (name === 'ENOENT' && edit.op === 'resetReal');
  if (isOtherThanThought) {
    throw new StaleTableError(`Cannot run ipvsadm ${formatEdit(edit)}: ${error.message}`, { cause: error });
  }
  throw error;
}

/**
 * Takes virtual servers away, and real servers as their connections allow.
 *
 * @throws {NetlinkError} If the kernel refuses; the others are gone.
 */
export function removeServers(ipvs: Ipvs, draining: Draining, edits: readonly ServerEdit[]): void {
  const errors: NetlinkError[] = [...draining.drain(edits.filter((edit) => edit.op === 'drainReal'))];
  const gone = edits.filter((edit) => edit.op === 'removeServer');
  for (const { server } of gone) draining.forget(server);
  const changes = gone.map(({ server }): IpvsChange => ({ kind: 'deleteService', service: toServiceKey(server) }));
  for (const error of ipvs.change(changes).values()) {
    if (error.failure.code !== 'KERNEL' || error.failure.name !== 'ESRCH') errors.push(error);
  }
  if (errors[0] !== undefined) throw errors[0];
}
