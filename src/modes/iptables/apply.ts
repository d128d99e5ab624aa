/**
 * The iptables dataplane of one family: brings the kernel in line with the plans. spec: iptables.md §4, §8, §10, §12.
 *
 *     partial sync   dirty services: rules applied before → rules wanted → one restore, or no process at all
 *     full sync      iptables-save → difference with everything wanted → restores of what differs
 *
 * Rendering is pure, so what is applied is remembered as plans, not as rules. A partial sync that is refused because the kernel
 * is not what it was left as becomes a full one in the same call.
 *
 * @module
 */

import { type ChainName, TABLES, type Table } from '../../iptables/chain.ts';
import { parseSave, type SavedRules } from '../../iptables/parse.ts';
import { RestoreRefusedError } from '../../iptables/refusal.ts';
import type { Tools } from '../../iptables/tools.ts';
import type { ObjectKey, ServicePlan } from '../../proxier/types.ts';
import type { Clock } from '../../sys/clock.ts';
import type { Dataplane, DataplaneLog, Inspection, Refusal, Snapshot, SyncOptions, SyncReport } from '../mode.ts';
import { watchCanary } from './canary.ts';
import { rewriteCrowded } from './crowded.ts';
import { buildRestore, type Edit, type OwnedEdits, type RestoreInput, serviceDelta, staticDelta } from './delta.ts';
import { type FactsDeps, readFacts } from './facts.ts';
import { formatService } from './format-service.ts';
import { type Applied, FullRound, renderRefusal } from './full-round.ts';
import type { DynamicFacts, IptablesOptions } from './options.ts';
import { countRules, LARGE_CLUSTER_ENDPOINTS, renderService, type ServiceRules } from './render.ts';
import { renderStatic, type StaticChain } from './static.ts';
import { blame, countWritten, type RuleCounts, removal, writeInHalves } from './write.ts';

/** What a sync tells about itself. */
export interface IptablesMetrics {
  /** A restore was refused, or did not get its turn. `partial`: in a partial sync. */
  restoreFailed(partial: boolean): void;
  /**
   * After each sync, for each table.
   *
   * @param total - Rules of ours, as a first full sync would write them; jumps from built-in chains are not counted.
   * @param last - Rules this sync wrote, jumps included. 0 if nothing differed.
   */
  rules(table: Table, total: number, last: number): void;
}

export interface IptablesDeps extends Pick<FactsDeps, 'nfacct' | 'nodeAddresses'> {
  readonly tools: Tools;
  readonly clock: Clock;
  readonly metrics: IptablesMetrics;
  readonly log: DataplaneLog;
}

export interface IptablesDataplaneOptions extends IptablesOptions {
  /** Also the time between looks at the canary, and between removals of stale chains in large-cluster mode. */
  readonly syncPeriodMs: number;
}

/**
 * Services per restore when much is new, in the nft flavour: its cost grows with the square of the input. 5,000 services with 2
 * endpoints took 6.0 s at once, 1.2 s in restores of 250, 1.5 s in restores of 100 or 1,000 (2 cores, iptables 1.8.9, Linux 6.18).
 * The legacy flavour replaces the whole table each time, so there one restore is cheapest.
 */
const CHUNK_SERVICES = 250;
/** Refusals in a row that lead to nobody before the input is tried in halves. The first may be a race with another program. */
const UNCLEAR_TRIES = 2;

/** What a full sync does with a service that was refused: the rules it had before, or none. */
type Fallback = 'last good' | 'nothing';

interface Change {
  readonly key: ObjectKey;
  readonly next: Applied | undefined;
  readonly edits: readonly Edit[];
  readonly added: RuleCounts;
  /** Chains this change writes, and chains it would take away. */
  readonly declares: readonly ChainName[];
  readonly removes: readonly ChainName[];
}

/** What one restore of a partial sync is made of. */
interface PartialInput {
  readonly statics: readonly StaticChain[];
  readonly staticEdits: readonly Edit[];
  readonly changes: readonly Change[];
  /** Stale chains may go. */
  readonly due: boolean;
  readonly facts: DynamicFacts;
}

export function createIptablesDataplane(deps: IptablesDeps, options: IptablesDataplaneOptions): Dataplane {
  return new IptablesDataplane(deps, options);
}

class IptablesDataplane implements Dataplane {
  readonly mode = 'iptables';
  readonly family;
  skipsPeriodicFullSync = false;
  readonly #deps: IptablesDeps;
  readonly #options: IptablesDataplaneOptions;
  readonly #factsDeps: FactsDeps;
  /** Facts behind the rules in the kernel; undefined if the kernel may hold anything. */
  #facts: DynamicFacts | undefined;
  #nodeIPs: DynamicFacts['nodeIPs'] = [];
  /** The facts of the last sync that succeeded, for `inspect`. */
  #lastFacts: DynamicFacts = { nodeIPs: [], counters: { ctStateInvalid: false, localhostNodePorts: false } };
  #applied = new Map<ObjectKey, Applied>();
  #total: RuleCounts = { filter: 0, nat: 0 };
  /** Services left out. What was applied of one before, stays. */
  #refused = new Set<ObjectKey>();
  /** Chains that nothing refers to, whose removal waits for a sync that is due for it (large-cluster mode). */
  #stale = new Set<ChainName>();
  #lastCleanupMs = Number.NEGATIVE_INFINITY;
  /** Stale chains the kernel keeps because a foreign rule jumps to them. */
  #held = new Set<ChainName>();
  #lastHeldTryMs = Number.NEGATIVE_INFINITY;

  constructor(deps: IptablesDeps, options: IptablesDataplaneOptions) {
    this.family = options.family;
    this.#deps = deps;
    this.#options = options;
    const onUnknown = (error: unknown, what: string) =>
      deps.log.warn({ family: options.family, what, error: describe(error) }, 'cannot find out; going on without it');
    this.#factsDeps = { nfacct: deps.nfacct, nodeAddresses: deps.nodeAddresses, onUnknown };
  }

  async sync(snapshot: Snapshot, { full }: SyncOptions, signal?: AbortSignal): Promise<SyncReport> {
    const known = this.#facts;
    // Whatever fails from here on leaves the kernel unknown, and the next sync reads it.
    this.#facts = undefined;
    this.skipsPeriodicFullSync = snapshot.endpointCount > LARGE_CLUSTER_ENDPOINTS;
    const written: RuleCounts = { filter: 0, nat: 0 };
    const partial = full || known === undefined ? undefined : await this.#partial(snapshot, known, written, signal);
    const refused = partial ?? (await this.#full(snapshot, written, signal));
    for (const table of TABLES) this.#deps.metrics.rules(table, this.#total[table], written[table]);
    return { full: partial === undefined, refused, refusedServices: new Set(this.#refused) };
  }

  async monitor(onLost: (reason: string) => void, signal: AbortSignal): Promise<void> {
    const { tools, clock, log } = this.#deps;
    const onUnknown = (error: unknown) =>
      log.warn({ family: this.family, error: describe(error) }, 'cannot look for the canary chains; trying again');
    await watchCanary({ tools, clock, onUnknown }, this.#options.syncPeriodMs, onLost, signal);
  }

  inspect(service: ObjectKey, plan: ServicePlan | undefined): Inspection {
    const applied = this.#applied.get(service);
    const switches = { comments: !this.skipsPeriodicFullSync };
    let rules: readonly string[] = [];
    try {
      if (plan !== undefined) rules = formatService(renderService(plan, this.#options, this.#lastFacts, switches));
    } catch (error) {
      // The sync refuses such a plan, and its refusal says why.
      renderRefusal(service, error);
    }
    const is = applied === undefined ? 'nothing' : applied.plan === plan ? 'this plan' : 'an earlier plan';
    return { rules, applied: is };
  }

  #readFacts(counters: DynamicFacts['counters'] | undefined): Promise<DynamicFacts> {
    return readFacts(this.#options, this.#factsDeps, { counters, nodeIPs: this.#nodeIPs });
  }

  /** The sync succeeded: this is what the kernel has. */
  #settle(facts: DynamicFacts): void {
    this.#facts = facts;
    this.#nodeIPs = facts.nodeIPs;
    this.#lastFacts = facts;
  }

  #cleanupIsDue(): boolean {
    return !this.skipsPeriodicFullSync || this.#deps.clock.now() - this.#lastCleanupMs > this.#options.syncPeriodMs;
  }

  // -------------------------------------------------------------------------------------------------------
  // Partial

  /** @returns Undefined if the kernel is not what it was left as: only a full sync helps. */
  async #partial(
    snapshot: Snapshot,
    known: DynamicFacts,
    written: RuleCounts,
    signal: AbortSignal | undefined,
  ): Promise<readonly Refusal[] | undefined> {
    const facts = await this.#readFacts(known.counters);
    const refusals: Refusal[] = [];
    const statics = renderStatic(this.#options, facts);
    const staticBefore = renderStatic(this.#options, known);
    const staticEdits = staticDelta(staticBefore, statics);
    const due = this.#cleanupIsDue();
    // Inserted at the head one after the other: the first key comes to stand first.
    let changes: Change[] = [];
    for (const key of [...snapshot.dirty].sort().reverse()) {
      try {
        changes.push(this.#change(key, snapshot.services.get(key), known, facts));
      } catch (error) {
        refusals.push(renderRefusal(key, error));
      }
    }
    for (;;) {
      const input = this.#partialInput({ statics, staticEdits, changes, due, facts });
      if (input.text === '') break;
      try {
        await this.#deps.tools.restore(input.text, signal);
        countWritten(input, written);
        break;
      } catch (error) {
        if (!signal?.aborted) this.#deps.metrics.restoreFailed(true);
        if (!(error instanceof RestoreRefusedError)) throw error;
        const culprits = blame(input, error);
        const out = new Map(culprits?.refusals.map((refusal) => [refusal.service, refusal]));
        const left = changes.filter(({ key }) => !out.has(key));
        // A rewritten chain also has rules of services without a change: leaving out changes does not help against those.
        const helps = culprits?.repeatable === true && culprits.held.length === 0 && left.length < changes.length;
        if (!helps) {
          this.#deps.log.info({ family: this.family, reason: error.reason }, 'partial sync refused; syncing in full');
          return undefined;
        }
        refusals.push(...changes.flatMap(({ key }) => out.get(key) ?? []));
        changes = left;
      }
    }
    for (const key of snapshot.dirty) this.#refused.delete(key);
    for (const { service } of refusals) this.#refused.add(service);
    this.#accept(changes, due);
    const staticAdded = difference(countRules(staticBefore), countRules(statics));
    for (const table of TABLES) this.#total[table] += staticAdded[table];
    this.#settle(facts);
    await this.#retryHeld(signal);
    return refusals;
  }

  /** @throws {RangeError} If the plan cannot be rendered. */
  #change(key: ObjectKey, plan: ServicePlan | undefined, known: DynamicFacts, facts: DynamicFacts): Change {
    const applied = this.#applied.get(key);
    const next = plan && { plan, comments: !this.skipsPeriodicFullSync };
    const before = applied && renderService(applied.plan, this.#options, known, applied);
    const after = next && renderService(next.plan, this.#options, facts, next);
    const edits = serviceDelta(before, after);
    const chains = (op: Edit['op']) => edits.filter((edit) => edit.op === op).map(({ chain }) => chain);
    const removes = chains('remove');
    return {
      key,
      next,
      edits,
      added: difference(before && countRules(before), after && countRules(after)),
      declares: chains('declare').filter((chain) => !removes.includes(chain)),
      removes,
    };
  }

  #partialInput({ statics, staticEdits, changes, due, facts }: PartialInput): RestoreInput {
    const parts: OwnedEdits[] = [{ owner: 'static', edits: staticEdits }];
    for (const { key, edits, removes } of changes) {
      // Not due: chains that go stay as they are, complete but unreferenced.
      const kept = due ? edits : edits.filter(({ chain }) => !removes.includes(chain));
      parts.push({ owner: key, edits: kept });
    }
    if (due) {
      const back = new Set(changes.flatMap(({ declares }) => declares));
      const gone = [...this.#stale].filter((chain) => !back.has(chain)).sort();
      parts.push({ owner: 'static', edits: gone.flatMap(removal) });
    }
    const rewritten = rewriteCrowded(parts, statics, () => this.#renderWanted(changes, facts));
    return buildRestore([...rewritten.parts, ...rewritten.rewrite]);
  }

  /** Every service as it will be once `changes` are in the kernel. */
  *#renderWanted(changes: readonly Change[], facts: DynamicFacts): Generator<readonly [ObjectKey, ServiceRules]> {
    const next = new Map(changes.map((change) => [change.key, change.next]));
    for (const [key, applied] of this.#applied) if (!next.has(key)) next.set(key, applied);
    for (const [key, is] of next) if (is) yield [key, renderService(is.plan, this.#options, facts, is)];
  }

  #accept(changes: readonly Change[], due: boolean): void {
    if (due) {
      this.#stale.clear();
      this.#lastCleanupMs = this.#deps.clock.now();
    }
    for (const { key, next, added, declares, removes } of changes) {
      if (next === undefined) this.#applied.delete(key);
      else this.#applied.set(key, next);
      for (const table of TABLES) this.#total[table] += added[table];
      for (const chain of declares) {
        this.#stale.delete(chain);
        this.#held.delete(chain);
      }
      if (!due) for (const chain of removes) this.#stale.add(chain);
    }
  }

  /** A stale chain that a foreign rule held may be free by now. Its staying does no harm, so nothing fails here. */
  async #retryHeld(signal: AbortSignal | undefined): Promise<void> {
    const { clock, tools } = this.#deps;
    if (this.#held.size === 0 || clock.now() - this.#lastHeldTryMs <= this.#options.syncPeriodMs) return;
    this.#lastHeldTryMs = clock.now();
    for (const chain of this.#held) {
      try {
        await tools.restore(buildRestore([{ owner: 'static', edits: removal(chain) }]).text, signal);
        this.#held.delete(chain);
      } catch (error) {
        if (!(error instanceof RestoreRefusedError)) throw error;
      }
    }
  }

  // -------------------------------------------------------------------------------------------------------
  // Full

  async #full(snapshot: Snapshot, written: RuleCounts, signal: AbortSignal | undefined): Promise<readonly Refusal[]> {
    const facts = await this.#readFacts(undefined);
    const statics = renderStatic(this.#options, facts);
    const fallbacks = new Map<ObjectKey, Fallback>();
    const refusals = new Map<ObjectKey, Refusal>();
    const refuse = (refusal: Refusal) => {
      const key = refusal.service;
      const before = fallbacks.get(key);
      if (before === 'nothing') throw new Error(`Cannot leave out service "${key}": ${refusal.reason}`);
      // What was there before may be wrong by now (other facts, other comments), so it gets one more try only.
      fallbacks.set(key, before === undefined && this.#applied.has(key) ? 'last good' : 'nothing');
      if (!refusals.has(key)) refusals.set(key, refusal);
    };
    const held = new Set<ChainName>();
    const suspects = new Set<ObjectKey>();
    let unclear = 0;
    for (;;) {
      const round = new FullRound(this.#options, facts, statics, await this.#dump(signal));
      const choose = (key: ObjectKey, plan: ServicePlan): Applied | undefined => {
        const fallback = fallbacks.get(key);
        if (fallback === undefined) return { plan, comments: !this.skipsPeriodicFullSync };
        return fallback === 'last good' ? this.#applied.get(key) : undefined;
      };
      const keepStale = this.#cleanupIsDue() ? 'removes' : 'keeps';
      const services = round.render(snapshot.services, choose, refuse);
      const outcome = await this.#writeRound(round, services, { held, suspects, keepStale, unclear, written }, signal);
      if (outcome.kind === 'written') {
        this.#settleFull(round, facts, refusals, { held, keepStale });
        const wasRefused = this.#refused;
        this.#refused = new Set(refusals.keys());
        return [...refusals.values()].filter(({ service }) => !wasRefused.has(service) || snapshot.dirty.has(service));
      }
      if (outcome.kind === 'unclear') unclear++;
      else {
        outcome.refusals.forEach(refuse);
        for (const chain of outcome.held) held.add(chain);
      }
    }
  }

  async #dump(signal: AbortSignal | undefined): Promise<SavedRules> {
    const tables = new Map<string, SavedRules extends ReadonlyMap<string, infer T> ? T : never>();
    for (const table of TABLES) {
      for (const [name, chains] of parseSave(await this.#deps.tools.save(table, signal))) tables.set(name, chains);
    }
    return tables;
  }

  /** Writes what differs; stops at the first refusal. */
  async #writeRound(
    round: FullRound,
    services: Iterable<readonly [ObjectKey, ServiceRules]>,
    state: {
      readonly held: ReadonlySet<ChainName>;
      /** Services that a round before was refused over, perhaps only because of what somebody else did meanwhile. */
      readonly suspects: Set<ObjectKey>;
      readonly keepStale: 'keeps' | 'removes';
      readonly unclear: number;
      readonly written: RuleCounts;
    },
    signal: AbortSignal | undefined,
  ): Promise<
    | { kind: 'written' }
    | { kind: 'unclear' }
    | { kind: 'blamed'; refusals: readonly Refusal[]; held: readonly ChainName[] }
  > {
    const { tools, metrics } = this.#deps;
    const size = tools.flavour === 'nft' ? CHUNK_SERVICES : Number.POSITIVE_INFINITY;
    // Where only halving is left, chains are not rewritten: a rewritten one must be written as a whole.
    const mayRewrite = state.unclear < UNCLEAR_TRIES;
    for (const { parts, isWhole } of round.chunks(services, size, { ...state, mayRewrite })) {
      const input = buildRestore(parts);
      if (input.text === '') continue;
      try {
        await tools.restore(input.text, signal);
      } catch (error) {
        if (!signal?.aborted) metrics.restoreFailed(false);
        if (!(error instanceof RestoreRefusedError)) throw error;
        const culprits = blame(input, error);
        const isSure = culprits?.certain || culprits?.refusals.every(({ service }) => state.suspects.has(service));
        if (culprits !== undefined && isSure) return { kind: 'blamed', ...culprits };
        for (const { service } of culprits?.refusals ?? []) state.suspects.add(service);
        if (isWhole || state.unclear + 1 < UNCLEAR_TRIES) return { kind: 'unclear' };
        const refusals = await writeInHalves(tools, parts, signal);
        if (refusals.length > 0) return { kind: 'blamed', refusals, held: [] };
      }
      countWritten(input, state.written);
    }
    return { kind: 'written' };
  }

  #settleFull(
    round: FullRound,
    facts: DynamicFacts,
    refusals: ReadonlyMap<ObjectKey, Refusal>,
    { held, keepStale }: { readonly held: ReadonlySet<ChainName>; readonly keepStale: 'keeps' | 'removes' },
  ): void {
    this.#applied = round.applied;
    this.#total = round.total;
    this.#stale = new Set(keepStale === 'keeps' ? round.removable : []);
    this.#held = new Set(
      [...held, ...round.unclaimed].filter((chain) => !round.removable.has(chain) || held.has(chain)),
    );
    if (keepStale === 'removes') this.#lastCleanupMs = this.#deps.clock.now();
    if (refusals.size > 0) {
      this.#deps.log.warn({ family: this.family, services: [...refusals.keys()] }, 'services left out');
    }
    this.#settle(facts);
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function difference(before: Readonly<RuleCounts> | undefined, after: Readonly<RuleCounts> | undefined): RuleCounts {
  return {
    filter: (after?.filter ?? 0) - (before?.filter ?? 0),
    nat: (after?.nat ?? 0) - (before?.nat ?? 0),
  };
}
