/**
 * What the rules depend on that only this node knows: which packet counters exist and which addresses answer on node ports.
 *
 * @module
 */

import type { Nfacct } from '../../netlink/nfacct.ts';
import { selectNodeIPs } from '../../proxier/node-port-addresses.ts';
import type { IPAddress } from '../../proxier/types.ts';
import { CT_STATE_INVALID_COUNTER, LOCALHOST_NODEPORTS_COUNTER } from './names.ts';
import type { DynamicFacts, IptablesOptions } from './options.ts';

export interface FactsDeps {
  readonly nfacct: Nfacct;
  /** All addresses of all interfaces, up or down, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
  /** Something could not be found out; the rules do without it. */
  readonly onUnknown: (error: unknown, what: string) => void;
}

function ensured(name: string, { nfacct, onUnknown }: FactsDeps): boolean {
  try {
    nfacct.ensure(name);
    return true;
  } catch (error) {
    onUnknown(error, `packet counter ${name}`);
    return false;
  }
}

/**
 * Looks at the node.
 *
 * @param known - Facts of the last sync: if given, counters are not looked at again. A list of addresses that cannot be had is
 *   replaced by the last one, so that node ports go on answering.
 */
export async function readFacts(
  options: IptablesOptions,
  deps: FactsDeps,
  known: { readonly counters?: DynamicFacts['counters'] | undefined; readonly nodeIPs: readonly IPAddress[] },
): Promise<DynamicFacts> {
  const counters = known.counters ?? {
    ctStateInvalid: ensured(CT_STATE_INVALID_COUNTER, deps),
    localhostNodePorts: ensured(LOCALHOST_NODEPORTS_COUNTER, deps),
  };
  if (options.nodePortAddresses.matchAll) return { counters, nodeIPs: [] };
  try {
    return { counters, nodeIPs: selectNodeIPs(options.nodePortAddresses, await deps.nodeAddresses()) };
  } catch (error) {
    deps.onUnknown(error, 'addresses of this node');
    return { counters, nodeIPs: known.nodeIPs };
  }
}
