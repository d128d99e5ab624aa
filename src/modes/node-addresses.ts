/**
 * This node's addresses in the words of the model.
 *
 * @module
 */

import { type InterfaceAddress, listAddresses } from '../netlink/rtnetlink.ts';
import { parseIP } from '../proxier/addr.ts';
import type { IPAddress } from '../proxier/types.ts';

/**
 * All addresses of all interfaces, up or down, both families, in the order of the kernel.
 *
 * @throws {NetlinkError} If the kernel does not list them.
 */
export async function readNodeAddresses(
  list: () => readonly InterfaceAddress[] = listAddresses,
): Promise<readonly IPAddress[]> {
  return list().flatMap(({ address }) => parseIP(address)?.ip ?? []);
}
