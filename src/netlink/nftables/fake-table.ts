/**
 * One table in memory, with the kernel's rules of what may be added and removed. Every change can be taken back.
 *
 * What it leaves out: whether `dnat`, `masquerade` and `reject` are reached from hooks that have them, and loops of jumps.
 *
 * @module
 */

import { MessageWriter } from '../writer.ts';
import { concatenatedRange, elementWriter, hasIntervals } from './element.ts';
import { type AnonymousSet, lowerRule, verdictChain } from './lower.ts';
import { sameSetKind } from './same-set.ts';
import type { ChainObject, Command, NftFamily, RuleObject, SetElement, SetObject } from './transaction.ts';
import { fieldLayout } from './uapi.ts';
import { fieldsBytes } from './user-data.ts';
import { WrittenWords } from './written-words.ts';

/** Name of an errno. */
export type Errno = 'EEXIST' | 'ENOENT' | 'EBUSY' | 'EOPNOTSUPP' | 'EINVAL' | 'ENFILE' | 'ENODATA';

/** What became of a command: done, and whether the kernel counts it as a change; or refused. */
export type Outcome =
  | { readonly done: true; readonly changed: boolean }
  | { readonly done: false; readonly errno: Errno; readonly element?: number };

/** Takes a change back. */
type Undo = () => void;

interface FakeChain {
  readonly chain: ChainObject;
  readonly rules: readonly RuleObject[];
}

interface FakeSet {
  readonly set: SetObject;
  /** By key as bytes. */
  readonly elements: Map<string, SetElement>;
}

const DONE: Outcome = { done: true, changed: true };
const UNCHANGED: Outcome = { done: true, changed: false };
const refuse = (errno: Errno): Outcome => ({ done: false, errno });

const writer = new MessageWriter();

export class FakeTable {
  readonly family: NftFamily;
  readonly comment: string | undefined;
  readonly chains = new Map<string, FakeChain>();
  readonly sets = new Map<string, FakeSet>();
  /** Names of the sets that rules have brought. */
  readonly #anonymous = new Set<string>();
  /** How many rules and elements name a chain or set: `chain x`, `set x`. */
  readonly #uses = new Map<string, number>();
  readonly #undo: Undo[] = [];
  /** New times of sets and elements: the kernel has them only when all is done, and goes by the old ones until then. */
  readonly #later: (() => void)[] = [];

  constructor(family: NftFamily, comment: string | undefined) {
    this.family = family;
    this.comment = comment;
  }

  /** What was done since is for good. */
  keep(): void {
    for (const change of this.#later.splice(0)) change();
    this.#undo.length = 0;
  }

  /** What was done since has not been. */
  takeBack(): void {
    this.#later.length = 0;
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) undo();
  }

  do(command: Exclude<Command, { readonly object: 'table' }>): Outcome {
    switch (command.object) {
      case 'chain':
        if (command.verb === 'add') return this.#addChain(command.chain);
        return command.verb === 'flush' ? this.#flushChain(command.name) : this.#deleteChain(command.name);
      case 'set':
        if (command.verb === 'add') return this.#addSet(command.set);
        return command.verb === 'flush' ? this.#flushSet(command.name) : this.#deleteSet(command.name);
      case 'rule':
        return this.#addRule(command.rule);
      case 'element':
        return command.verb === 'add'
          ? this.#addElements(command.set, command.elements)
          : this.#deleteElements(command.set, command.elements);
    }
  }

  #put<V>(map: Map<string, V>, key: string, value: V | undefined): void {
    const before = map.get(key);
    const had = map.has(key);
    this.#undo.push(() => {
      if (had && before !== undefined) map.set(key, before);
      else map.delete(key);
    });
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }

  #use(what: string, by: 1 | -1): void {
    const count = (this.#uses.get(what) ?? 0) + by;
    this.#put(this.#uses, what, count === 0 ? undefined : count);
  }

  #addChain(chain: ChainObject): Outcome {
    const there = this.chains.get(chain.name)?.chain;
    if (there === undefined) {
      this.#put(this.chains, chain.name, { chain, rules: [] });
      return DONE;
    }
    if (chain.base === undefined) return DONE;
    if (there.base === undefined || there.base.type !== chain.base.type) return refuse('EEXIST');
    const same = there.base.hook === chain.base.hook && there.base.priority === chain.base.priority;
    return same ? DONE : refuse('EOPNOTSUPP');
  }

  #flushChain(name: string): Outcome {
    const there = this.chains.get(name);
    if (there === undefined) return refuse('ENOENT');
    for (const rule of there.rules) this.#countRule(rule, -1);
    this.#put(this.chains, name, { chain: there.chain, rules: [] });
    return { done: true, changed: there.rules.length > 0 };
  }

  #deleteChain(name: string): Outcome {
    const flushed = this.#flushChain(name);
    if (!flushed.done) return flushed;
    if (this.#uses.has(`chain ${name}`)) return refuse('EBUSY');
    this.#put(this.chains, name, undefined);
    return DONE;
  }

  #addSet(set: SetObject): Outcome {
    if (this.#anonymous.has(set.name)) return refuse('EOPNOTSUPP');
    const there = this.sets.get(set.name);
    if (there === undefined) {
      this.#put(this.sets, set.name, { set, elements: new Map() });
      return DONE;
    }
    const { size: _, ...kind } = there.set;
    const { size: __, ...wanted } = set;
    if (!sameSetKind(kind, wanted)) return refuse('EEXIST');
    const { timeoutSeconds } = set;
    if (timeoutSeconds !== undefined) {
      this.#later.push(() => {
        const now = this.sets.get(set.name);
        if (now !== undefined) this.sets.set(set.name, { ...now, set: { ...now.set, timeoutSeconds } });
      });
    }
    return DONE;
  }

  #flushSet(name: string): Outcome {
    const there = this.sets.get(name);
    if (there === undefined) return refuse('ENOENT');
    const changed = there.elements.size > 0;
    for (const [key, element] of [...there.elements]) this.#remove(there, key, element);
    return { done: true, changed };
  }

  #deleteSet(name: string): Outcome {
    const there = this.sets.get(name);
    if (there === undefined) return refuse('ENOENT');
    if (this.#uses.has(`set ${name}`)) return refuse('EBUSY');
    this.#flushSet(name);
    this.#put(this.sets, name, undefined);
    return DONE;
  }

  #addRule(rule: RuleObject): Outcome {
    const there = this.chains.get(rule.chain);
    const { sets } = lowerRule(rule, this.family);
    // The sets of a rule come before it.
    for (const set of sets) {
      const outcome = this.#checkAnonymous(set);
      if (!outcome.done) return outcome;
    }
    if (there === undefined) return refuse('ENOENT');
    const fault = this.#faultOf(rule, sets);
    if (fault !== undefined) return refuse(fault);
    this.#countRule(rule, 1);
    this.#put(this.chains, rule.chain, { chain: there.chain, rules: [...there.rules, rule] });
    return DONE;
  }

  #checkAnonymous(set: AnonymousSet): Outcome {
    if (this.#anonymous.has(set.name)) return refuse('EOPNOTSUPP');
    if (this.sets.has(set.name)) return refuse('EEXIST');
    if (set.kind === 'addresses') return DONE;
    for (const element of set.elements) {
      const fault = this.#verdictFault(element);
      if (fault !== undefined) return refuse(fault);
    }
    return DONE;
  }

  /** Why a chain cannot be gone to. */
  #chainFault(name: string | undefined): Errno | undefined {
    if (name === undefined) return undefined;
    const there = this.chains.get(name);
    if (there === undefined) return 'ENOENT';
    return there.chain.base === undefined ? undefined : 'EOPNOTSUPP';
  }

  #verdictFault({ data }: SetElement): Errno | undefined {
    return data !== undefined && 'kind' in data ? this.#chainFault(verdictChain(data)) : undefined;
  }

  #faultOf(rule: RuleObject, own: readonly AnonymousSet[]): Errno | undefined {
    const written = new WrittenWords();
    const bytes = (fields: SetObject['data']) => (typeof fields === 'object' ? fieldsBytes(fields, this.family) : 0);
    for (const expression of lowerRule(rule, this.family).expressions) {
      let data: SetObject['data'];
      if (expression.kind === 'verdict') {
        const fault = this.#chainFault(verdictChain(expression.verdict));
        if (fault !== undefined) return fault;
      } else if (expression.kind === 'lookup' || expression.kind === 'dynset') {
        const brought = own.find(({ name }) => name === expression.set);
        const set = this.sets.get(expression.set)?.set;
        if (brought !== undefined) data = brought.kind === 'map' ? brought.data : undefined;
        else if (set === undefined) return 'ENOENT';
        else {
          data = set.data;
          if (expression.kind === 'dynset' && !set.flags?.includes('dynamic')) return 'EOPNOTSUPP';
          const key = expression.kind === 'lookup' ? expression.sreg : expression.key;
          if (!written.has(key, bytes(set.key))) return 'ENODATA';
          if (expression.kind === 'lookup' && expression.dreg !== undefined && data === undefined) return 'EINVAL';
        }
      }
      written.add(expression, bytes(data));
    }
    return undefined;
  }

  /** Counts what a rule names, and has or forgets the sets it brings. */
  #countRule(rule: RuleObject, by: 1 | -1): void {
    const { sets, expressions } = lowerRule(rule, this.family);
    const own = new Set(sets.map(({ name }) => name));
    for (const name of own) {
      if (by === 1) this.#anonymous.add(name);
      else this.#anonymous.delete(name);
      this.#undo.push(() => {
        if (by === 1) this.#anonymous.delete(name);
        else this.#anonymous.add(name);
      });
    }
    for (const set of sets) {
      if (set.kind === 'map') for (const element of set.elements) this.#countElement(element, by);
    }
    for (const expression of expressions) {
      if (expression.kind === 'verdict') this.#countChain(verdictChain(expression.verdict), by);
      else if ((expression.kind === 'lookup' || expression.kind === 'dynset') && !own.has(expression.set)) {
        this.#use(`set ${expression.set}`, by);
      }
    }
  }

  #countChain(name: string | undefined, by: 1 | -1): void {
    if (name !== undefined) this.#use(`chain ${name}`, by);
  }

  #countElement({ data }: SetElement, by: 1 | -1): void {
    if (data !== undefined && 'kind' in data) this.#countChain(verdictChain(data), by);
  }

  #remove(from: FakeSet, key: string, element: SetElement): void {
    this.#countElement(element, -1);
    this.#put(from.elements, key, undefined);
  }

  #addElements(set: SetObject, elements: readonly SetElement[]): Outcome {
    const there = this.sets.get(set.name);
    if (there === undefined) return elements.length === 0 ? UNCHANGED : refuse('ENOENT');
    let changed = false;
    for (const [index, element] of elements.entries()) {
      const outcome = this.#addElement(there, set, element);
      if (!outcome.done) return { ...outcome, element: index };
      changed ||= outcome.changed;
    }
    return { done: true, changed };
  }

  #addElement(to: FakeSet, shape: SetObject, element: SetElement): Outcome {
    const fault = this.#verdictFault(element);
    if (fault !== undefined) return refuse(fault);
    if (!this.#fits(to.set, shape)) return refuse('EINVAL');
    const key = bytesOf(to.set, { key: element.key }, this.family, true);
    const same = to.elements.get(key);
    const { timeoutMs } = this.#timed(to.set, element);
    if (same !== undefined) {
      const data = ({ key: values, data: value }: SetElement) =>
        bytesOf(to.set, { key: values, ...(value === undefined ? {} : { data: value }) }, this.family, false);
      if (data(same) !== data(element)) return refuse('EEXIST');
      if (timeoutMs === same.timeoutMs) return UNCHANGED;
      // Linux 6.12 and later: what is named again lives as long as it would if it were new.
      const { timeoutMs: _, ...rest } = same;
      this.#later.push(() => {
        if (to.elements.has(key)) to.elements.set(key, timeoutMs === undefined ? rest : { ...rest, timeoutMs });
      });
      return DONE;
    }
    if (hasIntervals(to.set) && this.#overlaps(to, element)) return refuse('EEXIST');
    if (to.set.size !== undefined && to.elements.size >= to.set.size) return refuse('ENFILE');
    this.#countElement(element, 1);
    this.#put(to.elements, key, this.#timed(to.set, element));
    return DONE;
  }

  /** The element with its time: of its own, or that of the set as it is now. */
  #timed({ flags, timeoutSeconds }: SetObject, element: SetElement): SetElement {
    const { timeoutMs: own, ...rest } = element;
    if (!flags?.includes('timeout')) return rest;
    const timeoutMs = own ?? (timeoutSeconds ?? 0) * 1000;
    return timeoutMs === 0 ? rest : { ...rest, timeoutMs };
  }

  /** Keys and data are as long as those of the set: more the kernel does not look at. */
  #fits(set: SetObject, shape: SetObject): boolean {
    const bytes = ({ key, data }: SetObject) =>
      [key, typeof data === 'object' ? data : []].map((fields) => fieldsBytes(fields, this.family)).join();
    return bytes(set) === bytes(shape);
  }

  /** True if both have some value in common, in every field. */
  #overlaps({ set, elements }: FakeSet, element: SetElement): boolean {
    const box = concatenatedRange(set.key, element.key, this.family);
    for (const other of elements.values()) {
      const { first, last } = concatenatedRange(set.key, other.key, this.family);
      const apart = fieldsApart(set, this.family, [box.first, box.last], [first, last]);
      if (!apart) return true;
    }
    return false;
  }

  #deleteElements(set: SetObject, elements: readonly SetElement[]): Outcome {
    const there = this.sets.get(set.name);
    if (there === undefined) return elements.length === 0 ? UNCHANGED : refuse('ENOENT');
    for (const [index, { key: values }] of elements.entries()) {
      if (!this.#fits(there.set, set)) return { done: false, errno: 'EINVAL', element: index };
      const key = bytesOf(there.set, { key: values }, this.family, true);
      const element = there.elements.get(key);
      if (element === undefined) return { done: false, errno: 'ENOENT', element: index };
      this.#remove(there, key, element);
    }
    return elements.length === 0 ? UNCHANGED : DONE;
  }
}

/** What the kernel would read of an element. */
function bytesOf(set: SetObject, element: SetElement, family: NftFamily, keysOnly: boolean): string {
  writer.reset();
  elementWriter(set, family, keysOnly).write(writer, element, 0);
  return writer.written().toString('latin1');
}

function fieldsApart(
  set: SetObject,
  family: NftFamily,
  [aFirst, aLast]: readonly [Uint8Array, Uint8Array],
  [bFirst, bLast]: readonly [Uint8Array, Uint8Array],
): boolean {
  let at = 0;
  for (const field of set.key) {
    const size = (fieldLayout(field, family).bytes + 3) & ~3;
    const part = (bytes: Uint8Array) => bytes.subarray(at, at + size);
    if (Buffer.compare(part(aLast), part(bFirst)) < 0 || Buffer.compare(part(bLast), part(aFirst)) < 0) return true;
    at += size;
  }
  return false;
}
