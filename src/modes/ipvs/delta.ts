/**
 * What it takes to get from the virtual servers there are to those wanted, as edits of single objects. Pure.
 *
 * @module
 */

import { assertNever, type ObjectKey } from '../../proxier/types.ts';
import { formatServerKey } from './format.ts';
import {
  type RealServer,
  realServerName,
  sameVirtualServer,
  type VirtualServer,
  type VirtualServerKey,
} from './objects.ts';
import type { ServedAddress } from './render.ts';

/** A real server as the kernel has it. */
export interface KernelRealServer extends RealServer {
  /** 0: no new connections. Ours have 1. */
  readonly weight: number;
  /** Addresses are translated, as ours are. */
  readonly isMasqueraded: boolean;
}

/** A virtual server as the kernel has it. */
export interface KernelServer {
  readonly server: VirtualServer;
  readonly realServers: readonly KernelRealServer[];
}

export type ServerEdit =
  | { readonly op: 'addServer' | 'updateServer'; readonly owner: ObjectKey; readonly server: VirtualServer }
  | { readonly op: 'removeServer'; readonly owner: undefined; readonly server: VirtualServerKey }
  /** `resetReal`: it is there, and must become as ours are. `drainReal`: it must go, when its connections have ended. */
  | {
      readonly op: 'addReal' | 'resetReal';
      readonly owner: ObjectKey;
      readonly server: VirtualServerKey;
      readonly real: RealServer;
    }
  | {
      readonly op: 'drainReal';
      readonly owner: undefined;
      readonly server: VirtualServerKey;
      readonly real: RealServer;
    };

/** What a sync that succeeded has left in the kernel. */
export function asKernelServer({ server, realServers }: ServedAddress): KernelServer {
  return {
    server,
    realServers: realServers.map(({ ip, port }) => ({ ip, port, weight: 1, isMasqueraded: true })),
  };
}

/**
 * Edits of one virtual server.
 *
 * @param after - What it must be, and for whom. Undefined: it goes, with all its real servers and connections.
 */
export function serverEdits(
  before: KernelServer | undefined,
  after: { readonly owner: ObjectKey; readonly value: ServedAddress } | undefined,
): readonly ServerEdit[] {
  if (after === undefined) {
    return before === undefined ? [] : [{ op: 'removeServer', owner: undefined, server: before.server }];
  }
  const { owner, value } = after;
  const { server } = value;
  const edits: ServerEdit[] = [];
  if (before === undefined) edits.push({ op: 'addServer', owner, server });
  else if (!sameVirtualServer(before.server, server)) edits.push({ op: 'updateServer', owner, server });
  const there = new Map((before?.realServers ?? []).map((real) => [realServerName(real), real]));
  for (const real of value.realServers) {
    const name = realServerName(real);
    const is = there.get(name);
    there.delete(name);
    if (is === undefined) edits.push({ op: 'addReal', owner, server, real });
    else if (is.weight !== 1 || !is.isMasqueraded) edits.push({ op: 'resetReal', owner, server, real });
  }
  for (const real of there.values()) edits.push({ op: 'drainReal', owner: undefined, server, real });
  return edits;
}

/** An edit in words, for a person who reads why it was refused: as `ipvsadm` would be told. */
export function formatEdit(edit: ServerEdit): string {
  const key = formatServerKey(edit.server);
  switch (edit.op) {
    case 'addServer':
      return `-A ${key} -s ${edit.server.scheduler}`;
    case 'updateServer':
      return `-E ${key} -s ${edit.server.scheduler}`;
    case 'removeServer':
      return `-D ${key}`;
    case 'addReal':
      return `-a ${key} -r ${realServerName(edit.real)} -m -w 1`;
    case 'resetReal':
      return `-e ${key} -r ${realServerName(edit.real)} -m -w 1`;
    case 'drainReal':
      return `-e ${key} -r ${realServerName(edit.real)} -m -w 0`;
    default:
      return assertNever(edit, 'edit');
  }
}
