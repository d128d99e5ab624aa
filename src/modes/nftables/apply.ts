/**
 * The nftables dataplane of one family: brings the table in line with the plans. spec: nftables.md §6, §9.
 *
 *     partial sync   dirty services: objects applied before → objects wanted → one transaction, and nothing is read
 *     full sync      the table is read → difference with everything wanted → transactions of what differs
 *
 * Rendering is pure, so what is applied is remembered as plans, not as objects. A partial sync that is refused because the table is
 * not what it was left as becomes a full one in the same call.
 *
 * @module
 */

import { setImmediate } from 'node:timers/promises';
import { NetlinkError } from '../../netlink/error.ts';
import type { NftFamily } from '../../netlink/nftables/transaction.ts';
import { compareText, type IPAddress, type ObjectKey, type ServicePlan } from '../../proxier/types.ts';
import type { Dataplane, DataplaneLog, Inspection, Refusal, Snapshot, SyncOptions, SyncReport } from '../mode.ts';
import { TABLE } from './base-chains.ts';
import { type Claims, itemsOf, STATIC } from './claims.ts';
import { nftFamily } from './create.ts';
import { type Change, creation, deltaOf } from './delta.ts';
import { type FactsDeps, haveServiceCIDRsChanged, readFacts } from './facts.ts';
import { forget } from './forget.ts';
import { FoundTable, IncompatibleError } from './found-table.ts';
import { FullRound, renderRefusal, type Start } from './full-round.ts';
import type { Layout, Objects } from './layout.ts';
import type { NftablesMetrics } from './metrics.ts';
import { commandsOf, type Operation, type OwnedCommand } from './operations.ts';
import type { NftablesFacts, NftablesOptions } from './options.ts';
import { type Blame, blame, describeCommand } from './refusal.ts';
import type { TableWatch } from './table-watch.ts';

export interface NftablesDeps {
  readonly watch: TableWatch;
  /** All addresses of all interfaces, up or down, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
  readonly metrics: NftablesMetrics;
  readonly log: DataplaneLog;
}

export interface NftablesDataplaneOptions extends NftablesOptions {
  readonly layout: Layout;
}

/**
 * Services per transaction when much is new: the kernel's cost grows with the square of what one transaction makes. In between, the
 * event loop gets its turn.
 */
const CHUNK_SERVICES = 250;
/** Attempts of a full sync that lead to nobody, because others change rules meanwhile. */
const UNCLEAR_TRIES = 3;

/** What a full sync does with a service that was refused: what it had before, or nothing. */
type Fallback = 'last good' | 'nothing';

/** What is in the kernel, while it is known. */
interface Known {
  readonly facts: NftablesFacts;
  readonly statics: Objects;
  readonly claims: Claims;
}

/** One service to bring in line. */
interface ServiceChange extends Change {
  readonly owner: ObjectKey;
  readonly plan: ServicePlan | undefined;
}

export function createNftablesDataplane(deps: NftablesDeps, options: NftablesDataplaneOptions): Dataplane {
  return new NftablesDataplane(deps, options);
}

class NftablesDataplane implements Dataplane {
  readonly mode = 'nftables';
  readonly family;
  /** A full sync reads and writes little even where there is much. */
  readonly skipsPeriodicFullSync = false;
  readonly #deps: NftablesDeps;
  readonly #options: NftablesDataplaneOptions;
  readonly #factsDeps: FactsDeps;
  readonly #nft: NftFamily;
  #known: Known | undefined;
  /** The facts of the last full sync that succeeded, for `inspect` and where they cannot be had. */
  #lastFacts: NftablesFacts | undefined;
  #applied = new Map<ObjectKey, ServicePlan>();
  /** Services left out. What was applied of one before, stays. */
  #refused = new Set<ObjectKey>();

  constructor(deps: NftablesDeps, options: NftablesDataplaneOptions) {
    this.family = options.family;
    this.#nft = nftFamily(options.family);
    this.#deps = deps;
    this.#options = options;
    const onUnknown = (error: unknown, what: string) =>
      deps.log.warn({ family: options.family, what, error: describe(error) }, 'cannot find out; going on without it');
    this.#factsDeps = { nodeAddresses: deps.nodeAddresses, onUnknown };
  }

  async sync(snapshot: Snapshot, { full }: SyncOptions, signal?: AbortSignal): Promise<SyncReport> {
    const known = this.#known;
    // Whatever fails from here on leaves the kernel unknown, and the next sync reads it.
    this.#known = undefined;
    let partial: readonly Refusal[] | undefined;
    try {
      // What names the service CIDRs is no service's, and they change next to never: worth a reading of the table.
      const isPartial =
        !full &&
        known !== undefined &&
        !haveServiceCIDRsChanged(known.facts, snapshot.serviceCIDRs, this.#options.family);
      partial = isPartial ? await this.#partial(snapshot, known, signal) : undefined;
      const refused = partial ?? (await this.#full(snapshot, signal));
      return { full: partial === undefined, refused, refusedServices: new Set(this.#refused) };
    } catch (error) {
      if (!signal?.aborted) this.#deps.metrics.syncFailed();
      throw error;
    }
  }

  monitor(onLost: (reason: string) => void, signal: AbortSignal): Promise<void> {
    return this.#deps.watch.monitor(this.#nft, onLost, signal);
  }

  inspect(service: ObjectKey, plan: ServicePlan | undefined): Inspection {
    const applied = this.#applied.get(service);
    const facts = this.#lastFacts ?? { nodeIPs: [], serviceCIDRs: [] };
    let rules: readonly string[] = [];
    try {
      const objects = plan && this.#options.layout.renderService(plan, this.#options, facts);
      const operations = [...itemsOf(objects ?? EMPTY).values()].flatMap((item) => creation(item, service));
      rules = commandsOf(operations).map(({ command }) => describeCommand(command, this.#place));
    } catch (error) {
      // The sync refuses such a plan, and its refusal says why.
      renderRefusal(service, error);
    }
    const is = applied === undefined ? 'nothing' : applied === plan ? 'this plan' : 'an earlier plan';
    return { rules, applied: is };
  }

  get #place() {
    return { family: this.#nft, table: TABLE };
  }

  /** @returns Who is to blame if it was refused, undefined if it is in force. */
  #commit(commands: readonly OwnedCommand[]): Blame | undefined {
    const result = this.#deps.watch.commit(
      this.#nft,
      commands.map(({ command }) => command),
    );
    if (result.kind === 'committed') return undefined;
    return blame(commands, result.kind === 'refused' ? result.refused : [], this.#place);
  }

  // -------------------------------------------------------------------------------------------------------
  // Partial

  /** @returns Undefined if the table is not what it was left as: only a full sync helps. */
  async #partial(
    snapshot: Snapshot,
    known: Known,
    signal: AbortSignal | undefined,
  ): Promise<readonly Refusal[] | undefined> {
    const refusals: Refusal[] = [];
    const dirty = [...snapshot.dirty].sort(compareText);
    for (let at = 0; at < dirty.length; at += CHUNK_SERVICES) {
      if (at > 0) await setImmediate(undefined, signal ? { signal } : {});
      const isThrough = this.#writeChanges(dirty.slice(at, at + CHUNK_SERVICES), snapshot, known, refusals);
      if (!isThrough) return undefined;
    }
    for (const key of snapshot.dirty) this.#refused.delete(key);
    for (const { service } of refusals) this.#refused.add(service);
    this.#known = known;
    return refusals;
  }

  /** Brings some services in line in one transaction, without those that are refused. @returns False if that does not do. */
  #writeChanges(dirty: readonly ObjectKey[], snapshot: Snapshot, known: Known, refusals: Refusal[]): boolean {
    let changes = this.#changesOf(dirty, snapshot, known, refusals);
    const objectsOf = (owner: ObjectKey | typeof STATIC) => {
      const plan = owner === STATIC ? undefined : this.#applied.get(owner);
      if (plan === undefined) return owner === STATIC ? known.statics : EMPTY;
      return this.#options.layout.renderService(plan, this.#options, known.facts);
    };
    for (;;) {
      const delta = deltaOf(changes, known.claims, objectsOf);
      const commands = commandsOf(delta.operations);
      const blamed = commands.length > 0 ? this.#commit(commands) : undefined;
      if (blamed === undefined) {
        delta.settle();
        this.#forget(delta.operations);
        for (const { owner, plan } of changes) {
          if (plan === undefined) this.#applied.delete(owner);
          else this.#applied.set(owner, plan);
        }
        return true;
      }
      const out = new Set(blamed.refusals.map(({ service }) => service));
      const left = changes.filter(({ owner }) => !out.has(owner));
      if (blamed.unclear !== undefined || left.length === changes.length) {
        const reason = blamed.unclear ?? blamed.refusals[0]?.reason;
        this.#deps.log.info({ family: this.family, reason }, 'partial sync refused; syncing in full');
        this.#deps.metrics.syncFailed();
        return false;
      }
      refusals.push(...blamed.refusals.filter(({ service }) => changes.some(({ owner }) => owner === service)));
      changes = left;
    }
  }

  /** A failure is none of the sync: the rules do without. */
  #forget(operations: readonly Operation[]): void {
    const { learned } = this.#options.layout;
    if (learned === undefined) return;
    const { watch, log } = this.#deps;
    try {
      forget(learned, operations, {
        readElements: (set) => watch.readElements(this.#nft, set),
        commit: (commands) => watch.commit(this.#nft, commands),
      });
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      log.warn({ family: this.family, error: error.message }, 'cannot forget clients of endpoints that are gone');
    }
  }

  #changesOf(
    dirty: readonly ObjectKey[],
    snapshot: Snapshot,
    { facts }: Known,
    refusals: Refusal[],
  ): readonly ServiceChange[] {
    const { layout } = this.#options;
    const changes: ServiceChange[] = [];
    for (const owner of dirty) {
      const plan = snapshot.services.get(owner);
      const applied = this.#applied.get(owner);
      if (plan === applied) continue;
      try {
        changes.push({
          owner,
          plan,
          before: applied && layout.renderService(applied, this.#options, facts),
          after: plan && layout.renderService(plan, this.#options, facts),
        });
      } catch (error) {
        refusals.push(renderRefusal(owner, error));
      }
    }
    return changes;
  }

  // -------------------------------------------------------------------------------------------------------
  // Full

  async #full(snapshot: Snapshot, signal: AbortSignal | undefined): Promise<readonly Refusal[]> {
    const facts = await readFacts(this.#options, snapshot.serviceCIDRs, this.#factsDeps, this.#lastFacts);
    const fallbacks = new Map<ObjectKey, Fallback>();
    const refusals = new Map<ObjectKey, Refusal>();
    const refuse = (refusal: Refusal) => {
      const key = refusal.service;
      const before = fallbacks.get(key);
      if (before === 'nothing') throw new Error(`Cannot leave out service "${key}": ${refusal.reason}`);
      // What was there before may be wrong by now (other facts), so it gets one more try only.
      fallbacks.set(key, before === undefined && this.#applied.has(key) ? 'last good' : 'nothing');
      if (!refusals.has(key)) refusals.set(key, refusal);
    };
    const choose = (key: ObjectKey, plan: ServicePlan): ServicePlan | undefined => {
      const fallback = fallbacks.get(key);
      return fallback === undefined ? plan : fallback === 'last good' ? this.#applied.get(key) : undefined;
    };
    let start: Start = 'as found';
    for (let unclear = 0; ; ) {
      signal?.throwIfAborted();
      const round = new FullRound(
        this.#options,
        facts,
        start === 'anew' ? new FoundTable(this.#nft, undefined) : this.#find(),
      );
      try {
        const services = round.render(snapshot.services, choose, refuse);
        const blamed = await this.#writeRound(round.batches(services, CHUNK_SERVICES, start), signal);
        if (blamed === undefined) {
          this.#settleFull(round, facts, refusals);
          const wasRefused = this.#setRefused(new Set(refusals.keys()));
          return [...refusals.values()].filter(
            ({ service }) => !wasRefused.has(service) || snapshot.dirty.has(service),
          );
        }
        // What may be a race counts when it does not pass.
        const isSure = blamed.unclear === undefined || (++unclear >= UNCLEAR_TRIES && blamed.refusals.length > 0);
        if (isSure) blamed.refusals.forEach(refuse);
        else if (unclear >= UNCLEAR_TRIES) throw new Error(`Cannot write the table ${TABLE}: ${blamed.unclear}`);
      } catch (error) {
        if (!(error instanceof IncompatibleError) || start === 'anew') throw error;
        this.#deps.log.warn({ family: this.family, reason: error.message }, 'writing the table anew');
        start = 'anew';
      }
    }
  }

  /** The table as it is, without what packets put into it. */
  #find(): FoundTable {
    const statics = new Set(this.#options.layout.renderStatic(this.#options, NO_FACTS).sets.map(({ name }) => name));
    const content = this.#deps.watch.read(
      this.#nft,
      ({ name, flags }) => statics.has(name) && !flags?.includes('dynamic'),
    );
    return new FoundTable(this.#nft, content);
  }

  /** Writes what differs; stops at the first refusal. */
  async #writeRound(
    batches: Iterable<{ readonly commands: readonly OwnedCommand[]; readonly isCleanup: boolean }>,
    signal: AbortSignal | undefined,
  ): Promise<Blame | undefined> {
    for (const { commands, isCleanup } of batches) {
      const blamed = this.#commit(commands);
      if (blamed !== undefined) {
        if (isCleanup) this.#deps.metrics.cleanupFailed();
        else this.#deps.metrics.syncFailed();
        return blamed;
      }
      this.#forget(commands.flatMap(elementsTakenOut));
      await setImmediate(undefined, signal ? { signal } : {});
    }
    return undefined;
  }

  #settleFull(round: FullRound, facts: NftablesFacts, refusals: ReadonlyMap<ObjectKey, Refusal>): void {
    this.#known = { facts, statics: round.statics, claims: round.claims };
    this.#lastFacts = facts;
    this.#applied = round.applied;
    this.#deps.watch.begin();
    if (refusals.size > 0) {
      this.#deps.log.warn({ family: this.family, services: [...refusals.keys()] }, 'services left out');
    }
  }

  /** @returns Those before. */
  #setRefused(refused: Set<ObjectKey>): ReadonlySet<ObjectKey> {
    const before = this.#refused;
    this.#refused = refused;
    return before;
  }
}

const EMPTY: Objects = { chains: [], sets: [], elements: [] };
const NO_FACTS: NftablesFacts = { nodeIPs: [], serviceCIDRs: [] };

function elementsTakenOut({ owner, command }: OwnedCommand): readonly Operation[] {
  if (command.object !== 'element' || command.verb !== 'delete') return [];
  return command.elements.map((element) => ({ owner, kind: 'deleteElement', set: command.set, element }));
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
