/**
 * Network devices in memory.
 *
 * @module
 */

import type { AddressChange, Device, Devices } from './device.ts';
import { NetlinkError } from './error.ts';
import { formatAddress, type InterfaceAddress } from './rtnetlink.ts';

function refusal(doing: string, errno: number, name: string): NetlinkError {
  return new NetlinkError(doing, { code: 'KERNEL', errno, name });
}

export class FakeDevices implements Devices {
  readonly devices = new Map<string, Device>();
  /** In the order they were added. */
  readonly held: InterfaceAddress[] = [];
  #nextIndex = 2;

  find(name: string): Device | undefined {
    return this.devices.get(name);
  }

  createDummy(name: string): void {
    const doing = `create the device "${name}"`;
    if (name.length > 15) throw refusal(doing, 34, 'ERANGE');
    if (this.devices.has(name)) throw refusal(doing, 17, 'EEXIST');
    this.devices.set(name, { index: this.#nextIndex++, kind: 'dummy' });
  }

  remove(index: number): void {
    const name = [...this.devices].find(([, device]) => device.index === index)?.[0];
    if (name === undefined) throw refusal(`remove device ${index}`, 19, 'ENODEV');
    this.devices.delete(name);
    for (let i = this.held.length - 1; i >= 0; i--) if (this.held[i]?.interfaceIndex === index) this.held.splice(i, 1);
  }

  addresses(): readonly InterfaceAddress[] {
    return [...this.held];
  }

  changeAddresses(index: number, changes: readonly AddressChange[]): ReadonlyMap<number, NetlinkError> {
    const refused = new Map<number, NetlinkError>();
    const exists = [...this.devices.values()].some((device) => device.index === index);
    changes.forEach(({ kind, address }, i) => {
      const text = formatAddress(Buffer.from(address));
      const prefixLength = address.length * 8;
      const at = this.held.findIndex(
        (a) => a.interfaceIndex === index && a.address === text && a.prefixLength === prefixLength,
      );
      const refuse = (errno: number, name: string) => refused.set(i, refusal(`${kind} an address`, errno, name));
      if (!exists) refuse(19, 'ENODEV');
      else if (kind === 'remove') {
        if (at < 0) refuse(99, 'EADDRNOTAVAIL');
        else this.held.splice(at, 1);
      } else if (at >= 0) refuse(17, 'EEXIST');
      else if (address.length === 16 && address[0] === 0xff) refuse(99, 'EADDRNOTAVAIL');
      else {
        const family = address.length === 4 ? 'IPv4' : 'IPv6';
        this.held.push({ address: text, family, prefixLength, interfaceIndex: index });
      }
    });
    return refused;
  }
}
