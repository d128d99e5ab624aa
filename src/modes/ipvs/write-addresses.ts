/**
 * The device that holds service addresses, and changes of what is on it.
 *
 * @module
 */

import type { Devices } from '../../netlink/device.ts';
import { kernelAnswered, type NetlinkError } from '../../netlink/error.ts';
import { ipBytes } from '../../proxier/addr.ts';
import type { IPAddress, ObjectKey } from '../../proxier/types.ts';
import type { Refusal } from '../mode.ts';
import { DEVICE } from './objects.ts';

/** An address that must be bound, and for whom. */
export interface BindEdit {
  readonly owner: ObjectKey;
  readonly ip: IPAddress;
}

/** A refused edit, and what is said about it. */
export interface RefusedBind {
  readonly edit: BindEdit;
  readonly refusal: Refusal;
}

/**
 * Makes the device be there.
 *
 * @returns Its number.
 * @throws {NetlinkError} If it cannot be made, for example because the kernel has no dummy devices.
 */
export function ensureDevice(devices: Devices): number {
  const there = devices.find(DEVICE);
  if (there !== undefined) return there.index;
  try {
    devices.createDummy(DEVICE);
  } catch (error) {
    // The other family was quicker.
    if (!kernelAnswered(error, 'EEXIST')) throw error;
  }
  const made = devices.find(DEVICE);
  if (made === undefined) throw new Error(`Cannot use device ${DEVICE}: it went as soon as it was made`);
  return made.index;
}

/** Binds addresses; those that are bound stay. @returns What the kernel refused: it is left out. */
export function bindAddresses(devices: Devices, edits: readonly BindEdit[]): readonly RefusedBind[] {
  if (edits.length === 0) return [];
  const refused = devices.changeAddresses(
    ensureDevice(devices),
    edits.map(({ ip }) => ({ kind: 'add', address: ipBytes(ip) })),
  );
  return [...refused].flatMap(([i, error]) => {
    const edit = edits[i];
    const { message: reason } = error;
    if (edit === undefined || kernelAnswered(error, 'EEXIST')) return [];
    return [{ edit, refusal: { service: edit.owner, rule: `ip addr add ${edit.ip} dev ${DEVICE}`, reason } }];
  });
}

/**
 * Takes addresses off the device. One that is not there is no error, nor is one with another prefix length: somebody else put it there.
 *
 * @returns What the kernel refused.
 */
export function unbindAddresses(devices: Devices, ips: readonly IPAddress[]): readonly NetlinkError[] {
  if (ips.length === 0) return [];
  const refused = devices.changeAddresses(
    ensureDevice(devices),
    ips.map((ip) => ({ kind: 'remove', address: ipBytes(ip) })),
  );
  return [...refused.values()].filter((error) => !kernelAnswered(error, 'EADDRNOTAVAIL'));
}
