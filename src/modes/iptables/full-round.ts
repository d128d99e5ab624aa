/**
 * One attempt of a full sync: what one dump lacks of everything wanted, restore by restore. Pure but for what it remembers
 * of the services it rendered.
 *
 * @module
 */

import { type ChainName, TABLES, toChainName } from '../../iptables/chain.ts';
import type { SavedRules } from '../../iptables/parse.ts';
import type { ObjectKey, ServicePlan } from '../../proxier/types.ts';
import type { Refusal } from '../mode.ts';
import { rewriteCrowded } from './crowded.ts';
import { deltaFromDump, type OwnedEdits, serviceDelta } from './delta.ts';
import { isServiceChain } from './names.ts';
import type { DynamicFacts, IptablesOptions } from './options.ts';
import { countRules, renderService, type ServiceRules } from './render.ts';
import type { StaticChain } from './static.ts';
import { type RuleCounts, withoutRemovals } from './write.ts';

/** What is in the kernel of one service. */
export interface Applied {
  readonly plan: ServicePlan;
  readonly comments: boolean;
}

/** What one restore is made of. */
export interface Chunk {
  readonly parts: readonly OwnedEdits[];
  /** A chain is emptied and written anew in it: parts of it must not be written by themselves. */
  readonly isWhole: boolean;
}

/** One attempt to bring everything in line, from one dump. */
export class FullRound {
  readonly #options: IptablesOptions;
  readonly #facts: DynamicFacts;
  readonly #statics: readonly StaticChain[];
  readonly #dump: SavedRules;
  readonly applied = new Map<ObjectKey, Applied>();
  readonly total: RuleCounts;
  /** Chains of services in the dump that no service rendered so far has claimed. */
  readonly unclaimed = new Set<ChainName>();
  /** Stale chains that nothing in the dump keeps from being taken away. Known when `chunks` is through. */
  readonly removable = new Set<ChainName>();

  constructor(options: IptablesOptions, facts: DynamicFacts, statics: readonly StaticChain[], dump: SavedRules) {
    this.#options = options;
    this.#facts = facts;
    this.#statics = statics;
    this.#dump = dump;
    this.total = { ...countRules(statics) };
    for (const name of dump.get('nat')?.keys() ?? []) if (isServiceChain(name)) this.unclaimed.add(toChainName(name));
  }

  /** Renders service by service, as they are asked for. */
  *render(
    services: ReadonlyMap<ObjectKey, ServicePlan>,
    choose: (key: ObjectKey, plan: ServicePlan) => Applied | undefined,
    refuse: (refusal: Refusal) => void,
  ): Generator<readonly [ObjectKey, ServiceRules]> {
    for (const [key, plan] of services) {
      for (let chosen = choose(key, plan); chosen !== undefined; chosen = choose(key, plan)) {
        let rules: ServiceRules;
        try {
          rules = renderService(chosen.plan, this.#options, this.#facts, chosen);
        } catch (error) {
          refuse(renderRefusal(key, error));
          continue;
        }
        this.applied.set(key, chosen);
        const count = countRules(rules);
        for (const table of TABLES) this.total[table] += count[table];
        for (const chain of rules.owned.keys()) this.unclaimed.delete(chain);
        yield [key, rules];
        break;
      }
    }
  }

  /** Nothing of a service is in the kernel: everything is to be written, and nothing needs to be compared. */
  get #isEmpty(): boolean {
    return (
      this.unclaimed.size === 0 &&
      this.#statics.every(
        ({ table, name, kind }) => kind === 'whole' || (this.#dump.get(table)?.get(name)?.rules.length ?? 0) === 0,
      )
    );
  }

  /** What to write, restore by restore. The static part comes with the first, so traffic flows as soon as a service is there. */
  *chunks(
    services: Iterable<readonly [ObjectKey, ServiceRules]>,
    size: number,
    {
      held,
      keepStale,
      mayRewrite,
    }: {
      readonly held: ReadonlySet<ChainName>;
      readonly keepStale: 'keeps' | 'removes';
      /** A shared chain that loses many rules is written anew, in one restore. */
      readonly mayRewrite: boolean;
    },
  ): Generator<Chunk> {
    const statics = this.#statics;
    const family = this.#options.family;
    if (this.#isEmpty) {
      const { before } = deltaFromDump(this.#dump, { family, statics, services: [] });
      let parts: OwnedEdits[] = [before];
      for (const [owner, rules] of services) {
        parts.push({ owner, edits: serviceDelta(undefined, rules) });
        if (parts.length > size) {
          yield { parts, isWhole: false };
          parts = [];
        }
      }
      yield { parts, isWhole: false };
      return;
    }
    const delta = deltaFromDump(this.#dump, { family, statics, services });
    for (const edit of delta.after.edits) if (edit.op === 'remove') this.removable.add(edit.chain);
    const stale =
      keepStale === 'keeps' ? delta.after.edits.filter(({ chain }) => !this.removable.has(chain)) : undefined;
    const after = stale ? { owner: delta.after.owner, edits: stale } : withoutRemovals(delta.after, held);
    const all = [delta.before, ...delta.services, after];
    const { parts, rewrite } = mayRewrite
      ? rewriteCrowded(all, statics, () => this.#renderApplied())
      : { parts: all, rewrite: [] };
    // Behind the chains of all services, which rewritten ones jump to, and before those that they no longer jump to go.
    const last = [...rewrite, ...parts.slice(-1)];
    const isWhole = rewrite.length > 0;
    if (delta.services.length <= size) {
      yield { parts: [...parts.slice(0, -1), ...last], isWhole };
      return;
    }
    // The static part comes on top of the first `size` services.
    yield { parts: parts.slice(0, size + 1), isWhole: false };
    for (let at = size + 1; at < parts.length - 1; at += size) {
      yield { parts: parts.slice(at, Math.min(at + size, parts.length - 1)), isWhole: false };
    }
    yield { parts: last, isWhole };
  }

  /** What was rendered, once more: kept only as plans. */
  *#renderApplied(): Generator<readonly [ObjectKey, ServiceRules]> {
    for (const [key, is] of this.applied) yield [key, renderService(is.plan, this.#options, this.#facts, is)];
  }
}

/** A plan that cannot be rendered is refused like one whose rules are. Rethrows what is not about the plan. */
export function renderRefusal(service: ObjectKey, error: unknown): Refusal {
  if (!(error instanceof RangeError || error instanceof SyntaxError)) throw error;
  return { service, rule: '', reason: error.message };
}
