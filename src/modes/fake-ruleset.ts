/**
 * The rules of a mode in memory: there or not, removed on demand, and able to come back.
 *
 * @module
 */

import type { Family } from '../proxier/types.ts';
import type { ModeName } from './mode.ts';
import type { Presence, Removal, Ruleset } from './rulesets.ts';

export class FakeRuleset implements Ruleset {
  readonly mode: ModeName;
  readonly flavour: Ruleset['flavour'];
  readonly name: string;
  readonly sharedWith: readonly ModeName[];
  /** Families in which there is something. */
  readonly there = new Set<Family>();
  /** Removals that fail from now on. */
  failures = 0;
  removals = 0;
  #held: Family | undefined;

  constructor(mode: ModeName, flavour?: Ruleset['flavour']) {
    this.mode = mode;
    this.flavour = flavour;
    this.sharedWith = mode === 'iptables' ? ['ipvs'] : [];
    this.name = flavour === undefined ? mode : `${mode} (${flavour})`;
  }

  /** A rule of somebody else needs something in this family: it stays. */
  hold(family: Family): void {
    this.#held = family;
  }

  look(family: Family): Presence {
    return this.there.has(family) ? 'some' : 'none';
  }

  async remove(): Promise<Removal> {
    this.removals++;
    if (this.failures > 0) {
      this.failures--;
      return { removed: [], kept: [], errors: [new Error(`Cannot remove ${this.name}: told to fail`)] };
    }
    const removed = [...this.there].filter((family) => family !== this.#held);
    for (const family of removed) this.there.delete(family);
    const kept = this.#held === undefined ? [] : [`${this.#held}: held`];
    return { removed: removed.map((family) => `${family}: all`), kept, errors: [] };
  }
}
