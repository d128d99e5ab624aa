/**
 * Takes everything of this mode out of the kernel, but for iptables rules, which must go before. spec: ipvs.md §15.
 *
 * @module
 */

import type { Devices } from '../../netlink/device.ts';
import { kernelAnswered } from '../../netlink/error.ts';
import type { Ipvs } from '../../netlink/ipvs.ts';
import { FAMILIES } from '../../proxier/types.ts';
import type { Ipsets } from './ipset.ts';
import { DEVICE } from './objects.ts';
import { SET_IDS, setName } from './sets.ts';

export interface IpvsCleanupDeps {
  readonly ipvs: Ipvs;
  readonly devices: Devices;
  readonly ipsets: Ipsets;
}

/**
 * Flushes the IPVS table, removes the device and destroys the sets of both families. What one step cannot do does not keep the others
 * from being done.
 *
 * @returns What could not be done; empty when all of it is gone. A second call finds nothing to do.
 */
export async function cleanUpIpvs({ ipvs, devices, ipsets }: IpvsCleanupDeps): Promise<readonly Error[]> {
  const errors: Error[] = [];
  const attempt = async (what: string, act: () => void | Promise<void>) => {
    try {
      await act();
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      errors.push(new Error(`Cannot clean up ${what}: ${why}`, { cause }));
    }
  };
  await attempt('the IPVS table', () => {
    try {
      ipvs.flush();
    } catch (error) {
      // A kernel without IPVS has no table, and no services in it.
      if (!kernelAnswered(error, 'ENOENT')) throw error;
    }
  });
  await attempt(`device ${DEVICE}`, () => {
    const device = devices.find(DEVICE);
    if (device === undefined) return;
    if (device.kind !== 'dummy') {
      throw new Error(`Cannot remove ${DEVICE}: it is a device of kind "${device.kind}", ours is a dummy`);
    }
    devices.remove(device.index);
  });
  await attempt('sets', async () => {
    const listed = await ipsets.list();
    const ours = FAMILIES.flatMap((family) => SET_IDS.map((id) => setName(id, family)));
    await ipsets.run(ours.filter((name) => listed.has(name)).map((name) => `destroy ${name}`));
  });
  return errors;
}
