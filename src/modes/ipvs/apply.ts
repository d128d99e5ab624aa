/**
 * The IPVS dataplane of one family: brings the kernel in line with the plans. spec: ipvs.md §6, §13.
 *
 *     partial sync   dirty services: objects before → objects wanted → changes of single objects, nothing is listed
 *     full sync      everything of ours is listed → difference with everything wanted → changes
 *
 * Whatever is referred to comes first and goes last: virtual servers with their real servers, set elements, addresses, rules; then
 * rules that go, addresses, virtual servers, set elements.
 *
 * @module
 */

import type { Devices } from '../../netlink/device.ts';
import type { Ipvs } from '../../netlink/ipvs.ts';
import { cidrContains, familyOf, isLoopback } from '../../proxier/addr.ts';
import type { IPAddress, ObjectKey, ServicePlan } from '../../proxier/types.ts';
import type { Clock } from '../../sys/clock.ts';
import type { Dataplane, DataplaneLog, Inspection, Refusal, Snapshot, SyncOptions, SyncReport } from '../mode.ts';
import type { Change, Claim } from './claims.ts';
import { asKernelServer, formatEdit, type KernelServer, type ServerEdit, serverEdits } from './delta.ts';
import { Desired } from './desired.ts';
import { Draining } from './drain.ts';
import { nodeFacts } from './facts.ts';
import { formatServedAddress } from './format.ts';
import type { Ipsets } from './ipset.ts';
import { readAddresses, readServers } from './kernel.ts';
import { DEVICE, realServerName, virtualServerName } from './objects.ts';
import type { IpvsOptions, NodeFacts } from './options.ts';
import { renderService, type SetElement } from './render.ts';
import type { RuleWriter } from './rule-writer.ts';
import { SET_IDS, setName } from './sets.ts';
import { type BindEdit, bindAddresses, ensureDevice, unbindAddresses } from './write-addresses.ts';
import { addServers, type RefusedEdit, removeServers, StaleTableError } from './write-servers.ts';
import { createCommands, type ElementEdit, writeElements } from './write-sets.ts';

export interface IpvsDeps {
  readonly ipvs: Ipvs;
  readonly devices: Devices;
  readonly ipsets: Ipsets;
  readonly rules: RuleWriter;
  readonly clock: Clock;
  readonly log: DataplaneLog;
}

export interface IpvsDataplaneOptions extends IpvsOptions {
  /** Time between looks at what others did to the kernel, and at the connections of real servers that must go. */
  readonly syncPeriodMs: number;
}

/** What a sync writes. */
interface Edits {
  readonly servers: readonly ServerEdit[];
  readonly elements: readonly ElementEdit[];
  readonly bind: readonly BindEdit[];
  readonly unbind: readonly IPAddress[];
}

export function createIpvsDataplane(deps: IpvsDeps, options: IpvsDataplaneOptions): Dataplane {
  return new IpvsDataplane(deps, options);
}

class IpvsDataplane implements Dataplane {
  readonly mode = 'ipvs';
  readonly family;
  readonly skipsPeriodicFullSync = false;
  readonly #deps: IpvsDeps;
  readonly #options: IpvsDataplaneOptions;
  readonly #draining: Draining;
  /** Facts behind what is in the kernel; undefined if the kernel may hold anything. */
  #facts: NodeFacts | undefined;
  /** Facts of the last sync that succeeded, for `inspect`. */
  #lastFacts: NodeFacts = { nodeAddresses: [], nodePortIPs: [] };
  #desired = new Desired();
  #applied = new Map<ObjectKey, ServicePlan>();
  /** What was refused, by name of the thing: it is not in the kernel though it is wanted. */
  #refused = new Map<string, Refusal>();
  /** One user of the kernel at a time: a sync, or a look of the monitor. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(deps: IpvsDeps, options: IpvsDataplaneOptions) {
    this.family = options.family;
    this.#deps = deps;
    this.#options = options;
    this.#draining = new Draining(deps.ipvs);
  }

  sync(snapshot: Snapshot, { full }: SyncOptions, signal?: AbortSignal): Promise<SyncReport> {
    return this.#exclusive(async () => {
      const known = this.#facts;
      // Whatever fails from here on leaves the kernel unknown, and the next sync reads it.
      this.#facts = undefined;
      const partial = full || known === undefined ? undefined : await this.#partial(snapshot, known, signal);
      const refused = partial ?? (await this.#full(snapshot, signal));
      return { full: partial === undefined, refused, refusedServices: this.#refusedServices() };
    });
  }

  #exclusive<T>(act: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(act);
    this.#last = mine.catch(() => {});
    return mine;
  }

  /** Looks, every sync period, for what others changed and for connections that have ended. */
  async monitor(onLost: (reason: string) => void, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    const { family, syncPeriodMs } = this.#options;
    for (;;) {
      await clock.sleep(syncPeriodMs, signal);
      if (signal.aborted) return;
      try {
        const lost = await this.#exclusive(() => this.#look(signal));
        if (lost !== undefined && !signal.aborted) onLost(lost);
      } catch (error) {
        if (!signal.aborted) log.warn({ family, err: error }, 'cannot look at what is in the kernel; trying again');
      }
    }
  }

  inspect(service: ObjectKey, plan: ServicePlan | undefined): Inspection {
    const applied = this.#applied.get(service);
    const objects = plan && renderService(plan, this.#options, this.#lastFacts);
    const rules = [
      ...[...(objects?.servers.values() ?? [])].flatMap(formatServedAddress).map((line) => `ipvsadm ${line}`),
      ...[...(objects?.elements.values() ?? [])].map(
        ({ set, text }) => `ipset add ${setName(set, this.#options.family)} ${text}`,
      ),
    ];
    return { rules, applied: applied === undefined ? 'nothing' : applied === plan ? 'this plan' : 'an earlier plan' };
  }

  #refusedServices(): ReadonlySet<ObjectKey> {
    return new Set(Array.from(this.#refused.values(), ({ service }) => service));
  }

  #readFacts(): NodeFacts {
    const { devices } = this.#deps;
    return nodeFacts(this.#options, readAddresses(devices, devices.find(DEVICE)?.index));
  }

  // -------------------------------------------------------------------------------------------------------
  // Partial

  /** @returns Undefined if the kernel or the node is not what it was: only a full sync helps. */
  async #partial(
    snapshot: Snapshot,
    known: NodeFacts,
    signal: AbortSignal | undefined,
  ): Promise<readonly Refusal[] | undefined> {
    const plans = [...snapshot.dirty].sort().map((key) => {
      return { key, before: this.#applied.get(key), after: snapshot.services.get(key) };
    });
    const asksNode = plans.some(({ before, after }) => dependsOnNode(before) || dependsOnNode(after));
    if (asksNode && !sameFacts(known, this.#readFacts())) return undefined;
    for (const { key, before, after } of plans) {
      this.#desired.replace(
        key,
        before && renderService(before, this.#options, known),
        after && renderService(after, this.#options, known),
      );
      if (after === undefined) this.#applied.delete(key);
      else this.#applied.set(key, after);
    }
    const edits = this.#changedEdits();
    try {
      const refused = await this.#write(edits, { full: false }, signal);
      this.#settle(known);
      return refused;
    } catch (error) {
      if (!(error instanceof StaleTableError)) throw error;
      this.#deps.log.info({ family: this.family, reason: error.message }, 'partial sync refused; syncing in full');
      return undefined;
    }
  }

  /** From what was wanted to what is wanted. What was refused before is tried again where its service changed. */
  #changedEdits(): Edits {
    const { servers, elements, addresses } = this.#desired;
    const serverChanges = servers.takeChanges();
    const addressChanges = addresses.takeChanges();
    this.#desired.closedToNode.takeChanges();
    const before = (name: string, claim: (typeof serverChanges)[number]['before']): KernelServer | undefined => {
      if (claim === undefined) return undefined;
      const all = asKernelServer(claim.value);
      const realServers = all.realServers.filter((real) => !this.#refused.delete(realName(name, real)));
      return { ...all, realServers };
    };
    return {
      servers: serverChanges.flatMap((change) => {
        const edits = serverEdits(before(change.name, change.before), change.after);
        return change.after === undefined && this.#isExcluded(edits) ? [] : edits;
      }),
      elements: [...elements.takeChanges(), ...addressChanges.map(asElementChange)].flatMap(
        ({ before, after }): readonly ElementEdit[] => {
          const wasRefused = before && this.#refused.delete(elementName(before.value));
          if (after === undefined) return before ? [{ op: 'del', owner: undefined, ...before.value }] : [];
          return before && !wasRefused ? [] : [{ op: 'add', owner: after.owner, ...after.value }];
        },
      ),
      bind: addressChanges.flatMap(({ before, after }) => {
        if (after === undefined) return [];
        const wasRefused = this.#refused.delete(addressName(after.value));
        return before && !wasRefused ? [] : [{ owner: after.owner, ip: after.value }];
      }),
      unbind: addressChanges.flatMap(({ before, after }) => {
        if (before === undefined || after !== undefined) return [];
        return this.#refused.delete(addressName(before.value)) ? [] : [before.value];
      }),
    };
  }

  /** Virtual servers of a CIDR that is left to others are not deleted, as nobody can tell ours from theirs. */
  #isExcluded(edits: readonly ServerEdit[]): boolean {
    const { excludeCIDRs } = this.#options;
    return edits.some(({ server }) => excludeCIDRs.some((cidr) => cidrContains(cidr, server.ip)));
  }

  // -------------------------------------------------------------------------------------------------------
  // Full

  async #full(snapshot: Snapshot, signal: AbortSignal | undefined): Promise<readonly Refusal[]> {
    const wasRefused = this.#refusedServices();
    ensureDevice(this.#deps.devices);
    await this.#deps.ipsets.run(createCommands(this.#options.family), signal);
    const facts = this.#readFacts();
    const desired = new Desired();
    for (const [key, plan] of snapshot.services) {
      desired.replace(key, undefined, renderService(plan, this.#options, facts));
    }
    this.#desired = desired;
    this.#applied = new Map(snapshot.services);
    this.#refused = new Map();
    const edits = await this.#differences(signal);
    for (const claims of [desired.servers, desired.elements, desired.addresses, desired.closedToNode]) {
      claims.takeChanges();
    }
    const refused = await this.#write(edits, { full: true }, signal);
    this.#settle(facts);
    return refused.filter(({ service }) => !wasRefused.has(service) || snapshot.dirty.has(service));
  }

  /** Between everything wanted and everything there is. */
  async #differences(signal: AbortSignal | undefined): Promise<Edits> {
    const { ipvs, devices, ipsets } = this.#deps;
    const { family } = this.#options;
    const { servers, elements, addresses } = this.#desired;

    const there = readServers(ipvs, family);
    const serverChanges = [...servers.entries()].flatMap(([name, claim]) => serverEdits(there.get(name), claim));
    const gone = [...there]
      .filter(([name]) => servers.get(name) === undefined)
      .flatMap(([, server]) => serverEdits(server, undefined));

    const listed = await ipsets.list(signal);
    const elementEdits: ElementEdit[] = [];
    for (const [, { owner, value }] of elements.entries()) {
      if (!listed.get(setName(value.set, family))?.has(value.text)) elementEdits.push({ op: 'add', owner, ...value });
    }
    for (const [text, { owner }] of addresses.entries()) {
      const isThere = listed.get(setName('IPVS-IPS', family))?.has(text);
      if (!isThere) elementEdits.push({ op: 'add', owner, set: 'IPVS-IPS', text });
    }
    for (const set of SET_IDS) {
      for (const text of listed.get(setName(set, family)) ?? []) {
        const isWanted = set === 'IPVS-IPS' ? addresses.get(text) : elements.get(`${set} ${text}`);
        if (isWanted === undefined) elementEdits.push({ op: 'del', owner: undefined, set, text });
      }
    }

    const all = readAddresses(devices, devices.find(DEVICE)?.index);
    const bound = new Set(all.filter(({ ip, isOurs }) => isOurs && familyOf(ip) === family).map(({ ip }) => ip));
    return {
      servers: [...serverChanges, ...gone.filter((edit) => !this.#isExcluded([edit]))],
      elements: elementEdits,
      bind: [...addresses.entries()].flatMap(([, { owner, value: ip }]) => (bound.has(ip) ? [] : [{ owner, ip }])),
      unbind: [...bound].filter((ip) => addresses.get(ip) === undefined && !isLoopback(ip)),
    };
  }

  // -------------------------------------------------------------------------------------------------------

  async #write(
    { servers, elements, bind, unbind }: Edits,
    { full }: SyncOptions,
    signal: AbortSignal | undefined,
  ): Promise<readonly Refusal[]> {
    const { ipvs, devices, ipsets, rules, log } = this.#deps;
    const { family } = this.#options;
    const refusals: Refusal[] = [];
    const refuse = (name: string, refusal: Refusal) => {
      this.#refused.set(name, refusal);
      refusals.push(refusal);
    };
    for (const { edit, refusal } of await addServers(ipvs, this.#draining, servers)) {
      refuse(refusedName(edit), refusal);
    }
    const added = elements.filter(({ op }) => op === 'add');
    for (const { edit, refusal } of await writeElements(ipsets, added, family, signal))
      refuse(elementName(edit), refusal);
    for (const { edit, refusal } of bindAddresses(devices, bind)) refuse(addressName(edit.ip), refusal);

    const closedToNode = Array.from(this.#desired.closedToNode.entries(), ([, { value }]) => value);
    await rules.write({ hasElements: (set) => this.#desired.has(set), closedToNode }, { full }, signal);

    for (const error of unbindAddresses(devices, unbind)) {
      log.warn({ family, err: error }, 'address not removed');
    }
    removeServers(ipvs, this.#draining, servers);
    const removed = elements.filter(({ op }) => op === 'del');
    await writeElements(ipsets, removed, family, signal);
    return oneEach(refusals);
  }

  /** The sync succeeded: this is what the kernel has. */
  #settle(facts: NodeFacts): void {
    this.#facts = facts;
    this.#lastFacts = facts;
  }

  /** @returns What somebody else changed, in words; undefined if nothing. */
  async #look(signal: AbortSignal): Promise<string | undefined> {
    for (const error of this.#draining.deleteIdle()) {
      this.#deps.log.warn({ family: this.family, err: error }, 'real server not deleted');
    }
    const facts = this.#facts;
    if (facts === undefined) return undefined;
    if (!sameFacts(facts, this.#readFacts())) return 'the addresses of this node are others';
    const { servers, elements, bind, unbind } = await this.#differences(signal);
    const server = servers.find((edit) => !this.#isExpected(edit));
    if (server !== undefined) return `virtual servers differ, for example: ipvsadm ${formatEdit(server)}`;
    const element = elements.find((edit) => edit.op === 'del' || !this.#refused.has(elementName(edit)));
    if (element !== undefined) return `sets differ, for example in ${setName(element.set, this.#options.family)}`;
    const address = bind.find(({ ip }) => !this.#refused.has(addressName(ip)))?.ip ?? unbind[0];
    if (address !== undefined) return `addresses on ${DEVICE} differ, for example ${address}`;
    return (await this.#deps.rules.differs(signal)) ? 'rules differ' : undefined;
  }

  /** Refused before, or waiting for its last connection. */
  #isExpected(edit: ServerEdit): boolean {
    if (edit.op === 'drainReal') return this.#draining.has(edit);
    return edit.op === 'addReal' && this.#refused.has(refusedName(edit));
  }
}

/** Bound addresses are elements of a set, too. */
function asElementChange({ name, before, after }: Change<IPAddress>): Change<SetElement> {
  const element = (claim: Claim<IPAddress> | undefined): Claim<SetElement> | undefined =>
    claim && { owner: claim.owner, value: { set: 'IPVS-IPS', text: claim.value } };
  return { name, before: element(before), after: element(after) };
}

const realName = (server: string, real: Parameters<typeof realServerName>[0]) => `${server} ${realServerName(real)}`;
const refusedName = (edit: RefusedEdit['edit']) =>
  'real' in edit ? realName(virtualServerName(edit.server), edit.real) : virtualServerName(edit.server);
const elementName = ({ set, text }: Pick<ElementEdit, 'set' | 'text'>) => `${set} ${text}`;
const addressName = (ip: IPAddress) => `address ${ip}`;

/** Whether what a plan becomes may be another thing on another node. */
function dependsOnNode(plan: ServicePlan | undefined): boolean {
  return plan?.ports.some(({ port }) => port.externallyAccessible || port.externalIPs.length > 0) ?? false;
}

function sameFacts(a: NodeFacts, b: NodeFacts): boolean {
  const same = (x: readonly IPAddress[], y: readonly IPAddress[]) =>
    x.length === y.length && x.every((ip, i) => ip === y[i]);
  return same(a.nodeAddresses, b.nodeAddresses) && same(a.nodePortIPs, b.nodePortIPs);
}

/** The first refusal of each service. */
function oneEach(refusals: readonly Refusal[]): readonly Refusal[] {
  const first = new Map<ObjectKey, Refusal>();
  for (const refusal of refusals) if (!first.has(refusal.service)) first.set(refusal.service, refusal);
  return [...first.values()];
}
