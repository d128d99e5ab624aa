/**
 * Kernel settings in memory.
 *
 * @module
 */

import type { Sysctl } from './proc.ts';

export class FakeSysctl implements Sysctl {
  readonly values: Map<string, number>;
  /** Names that exist but cannot be written, as in a container without privileges. */
  readonly readOnly = new Set<string>();
  /** Every write, in order: `name=value`. */
  readonly writes: string[] = [];

  constructor(values: Readonly<Record<string, number>> = {}) {
    this.values = new Map(Object.entries(values));
  }

  get(name: string): number | undefined {
    return this.values.get(name);
  }

  set(name: string, value: number): void {
    if (!this.values.has(name) || this.readOnly.has(name)) {
      const code = this.values.has(name) ? 'EROFS' : 'ENOENT';
      throw new Error(`Cannot set kernel setting ${name} to ${value}: the kernel answers ${code}`);
    }
    this.values.set(name, value);
    this.writes.push(`${name}=${value}`);
  }
}
