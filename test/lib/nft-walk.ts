/**
 * What the objects of a table make of the first packet of a connection: a plain reading of the rules, for comparing layouts. Clients
 * are new until they `connect`: only that writes to the sets that the packet path fills.
 *
 * @module
 */

import type { Objects } from '../../src/modes/nftables/layout.ts';
import type {
  Field,
  MapReference,
  RuleObject,
  Scalar,
  SetElement,
  Statement,
  Verdict,
} from '../../src/netlink/nftables/transaction.ts';
import { cidrContains, parseCidr, parseIP } from '../../src/proxier/addr.ts';

export interface Packet {
  readonly from: string;
  /** Interface it comes in by. */
  readonly iif: string;
  readonly to: string;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly port: number;
}

/** The addresses of the node. */
export type IsLocal = (address: string) => boolean;

interface Walked {
  saddr: string;
  daddr: string;
  dport: number;
  mark: number;
  priority: Scalar;
  isTranslated: boolean;
}

const NO_PRIORITY = 'none';

type End = 'accept' | 'drop' | 'reject' | 'masquerade';

/** A table as packets see it. */
export class WalkedTable {
  readonly #rules = new Map<string, readonly RuleObject[]>();
  readonly #sets = new Map<string, Map<string, SetElement>>();
  readonly #isLocal: IsLocal;

  /** @param owners - In order: of those who want one element, the first has it. */
  constructor(owners: readonly Objects[], isLocal: IsLocal) {
    this.#isLocal = isLocal;
    const taken = new Map<string, Objects>();
    for (const objects of owners) {
      for (const { chain, rules } of objects.chains) this.#rules.set(chain.name, rules);
      for (const { set, elements, claimFields } of objects.elements) {
        const there = this.#sets.get(set.name) ?? new Map<string, SetElement>();
        this.#sets.set(set.name, there);
        for (const element of elements) {
          const claim = `${set.name} ${element.key.slice(0, claimFields ?? element.key.length).join(' . ')}`;
          if (!taken.has(claim)) taken.set(claim, objects);
          if (taken.get(claim) === objects) there.set(element.key.join(' . '), element);
        }
      }
    }
  }

  /** Everything that can become of a packet, whatever numbers are drawn: `drop`, `10.0.0.1:80`, `10.0.0.1:80 masqueraded` … Sorted. */
  walk(packet: Packet): string[] {
    return [...this.#outcomes(packet).keys()].sort();
  }

  /** Sends a packet that one thing becomes of, which must be possible, and writes down what its rules write down. */
  connect(packet: Packet, outcome: string): void {
    const draws = this.#outcomes(packet).get(outcome);
    if (draws === undefined) throw new Error(`Cannot connect to ${packet.to}: ${outcome} is impossible`);
    let n = 0;
    new Walk(packet, this.#rules, this.#sets, this.#isLocal, () => draws[n++] ?? 0, true).run();
  }

  /** What may become of a packet, with the numbers drawn for it. */
  #outcomes(packet: Packet): ReadonlyMap<string, readonly number[]> {
    const outcomes = new Map<string, readonly number[]>();
    for (let draws: number[] | undefined = []; draws !== undefined; ) {
      const moduli: number[] = [];
      const given: readonly number[] = draws;
      const draw = (modulus: number) => {
        moduli.push(modulus);
        return given[moduli.length - 1] ?? 0;
      };
      outcomes.set(new Walk(packet, this.#rules, this.#sets, this.#isLocal, draw).run(), given);
      draws = nextDraws(given, moduli);
    }
    return outcomes;
  }
}

/** The draws after these, counted like the digits of a number; undefined after the last. */
function nextDraws(draws: readonly number[], moduli: readonly number[]): number[] | undefined {
  const digits = moduli.map((_, i) => draws[i] ?? 0);
  for (let i = digits.length - 1; i >= 0; i--) {
    const digit = (digits[i] ?? 0) + 1;
    if (digit < (moduli[i] ?? 0)) return [...digits.slice(0, i), digit];
  }
  return undefined;
}

class Walk {
  readonly #packet: Packet;
  readonly #rules: ReadonlyMap<string, readonly RuleObject[]>;
  readonly #sets: Map<string, Map<string, SetElement>>;
  readonly #isLocal: IsLocal;
  readonly #draw: (modulus: number) => number;
  readonly #now: Walked;
  readonly #writes: boolean;

  constructor(
    packet: Packet,
    rules: ReadonlyMap<string, readonly RuleObject[]>,
    sets: Map<string, Map<string, SetElement>>,
    isLocal: IsLocal,
    draw: (modulus: number) => number,
    writes = false,
  ) {
    this.#writes = writes;
    this.#packet = packet;
    this.#rules = rules;
    this.#sets = sets;
    this.#isLocal = isLocal;
    this.#draw = draw;
    this.#now = {
      saddr: packet.from,
      daddr: packet.to,
      dport: packet.port,
      mark: 0,
      priority: NO_PRIORITY,
      isTranslated: false,
    };
  }

  run(): string {
    const isOutgoing = this.#isLocal(this.#packet.from);
    const first = isOutgoing ? 'output' : 'prerouting';
    const before = this.#chain(`filter-${first}-pre-dnat`);
    if (before === 'drop' || before === 'reject') return before;
    this.#chain(`nat-${first}`);
    const hook = isOutgoing ? 'output' : this.#isLocal(this.#now.daddr) ? 'input' : 'forward';
    const after = this.#chain(`filter-${hook}`);
    if (after === 'drop' || after === 'reject') return after;
    const masqueraded = hook !== 'input' && this.#chain('nat-postrouting') === 'masquerade' ? ' masqueraded' : '';
    const to = this.#now.isTranslated ? `${this.#now.daddr}:${this.#now.dport}` : 'as it was';
    return `${to}${masqueraded}`;
  }

  /** @returns How it ended; undefined at the end of the chain. */
  #chain(name: string): End | 'return' | undefined {
    const rules = this.#rules.get(name);
    if (rules === undefined) throw new Error(`Cannot walk chain ${name}: there is none`);
    for (const { statements } of rules) {
      const end = this.#rule(statements);
      if (end === 'return') return undefined;
      if (end === 'gone') return undefined;
      if (end !== undefined) return end;
    }
    return undefined;
  }

  #verdict(verdict: Verdict): End | 'return' | 'gone' | undefined {
    switch (verdict.kind) {
      case 'accept':
      case 'drop':
      case 'return':
        return verdict.kind;
      case 'jump':
        return this.#chain(verdict.chain);
      case 'goto':
        return this.#chain(verdict.chain) ?? 'gone';
    }
  }

  #rule(statements: readonly Statement[]): End | 'return' | 'gone' | undefined {
    const now = this.#now;
    for (const statement of statements) {
      switch (statement.kind) {
        case 'ctStateNew':
          continue;
        case 'ctStatusDnat':
          if (!now.isTranslated) return undefined;
          continue;
        case 'markHas':
          if ((now.mark & statement.mask) === 0) return undefined;
          continue;
        case 'setMark':
          now.mark = statement.op === 'or' ? now.mark | statement.mask : now.mark ^ statement.mask;
          continue;
        case 'address':
          if (statement.cidrs.some((cidr) => isIn(now[statement.side], cidr)) === statement.negated) return undefined;
          continue;
        case 'l4proto':
          if (statement.protocol !== this.#packet.protocol) return undefined;
          continue;
        case 'iifname': {
          const { iif } = this.#packet;
          const isSame = statement.wildcard ? iif.startsWith(statement.name) : iif === statement.name;
          if (isSame === statement.negated) return undefined;
          continue;
        }
        case 'fibLocal':
          if (!this.#isLocal(now[statement.side])) return undefined;
          continue;
        case 'inSet':
          if (this.#contains(statement.set, statement.fields) === (statement.negated ?? false)) return undefined;
          continue;
        case 'dynamic':
          if (this.#writes) this.#write(statement);
          continue;
        case 'setPriority': {
          const data = this.#find(statement.map, statement.fields)?.data;
          if (data === undefined || 'kind' in data) return undefined;
          now.priority = data[0] ?? NO_PRIORITY;
          continue;
        }
        case 'clearPriority':
          now.priority = NO_PRIORITY;
          continue;
        case 'vmap': {
          const data = this.#find(statement.map, statement.fields)?.data;
          if (data === undefined || !('kind' in data)) return undefined;
          return this.#verdict(data);
        }
        case 'verdict':
          return this.#verdict(statement.verdict);
        case 'reject':
        case 'masquerade':
          return statement.kind;
        case 'dnat':
          return this.#translate(statement.address, statement.port);
        case 'dnatMap': {
          const data = this.#find(statement.map, statement.fields)?.data;
          if (data === undefined || 'kind' in data) return undefined;
          return this.#translate(String(data[0]), Number(data[1]));
        }
      }
    }
    return undefined;
  }

  #translate(address: string, port: number): End {
    Object.assign(this.#now, { daddr: address, dport: port, isTranslated: true });
    return 'accept';
  }

  #write({ op, set, fields, data }: Extract<Statement, { kind: 'dynamic' }>): void {
    const elements = this.#sets.get(set) ?? new Map<string, SetElement>();
    this.#sets.set(set, elements);
    const key = fields.map((field) => this.#value(field));
    if (op === 'delete') elements.delete(key.join(' . '));
    // The kernel only renews the time of an entry that is there.
    else if (!elements.has(key.join(' . '))) {
      const value = data === undefined ? {} : { data: data.map((field) => this.#value(field)) };
      elements.set(key.join(' . '), { key, ...value });
    }
  }

  #value(field: Field): Scalar {
    if (typeof field === 'object') return this.#draw(field.random);
    switch (field) {
      case 'saddr':
      case 'daddr':
      case 'dport':
      case 'mark':
      case 'priority':
        return this.#now[field];
      case 'l4proto':
        return this.#packet.protocol;
      case 'originalDaddr':
        return this.#packet.to;
      case 'originalDport':
        return this.#packet.port;
      case 'sport':
        return 0;
    }
  }

  #find(map: MapReference, fields: readonly Field[]): SetElement | undefined {
    const key = fields.map((field) => this.#value(field)).join(' . ');
    if (map.kind === 'named') return this.#sets.get(map.map)?.get(key);
    return map.elements.find((element) => element.key.join(' . ') === key);
  }

  #contains(set: string, fields: readonly Field[]): boolean {
    const values = fields.map((field) => this.#value(field));
    const elements = this.#sets.get(set) ?? new Map<string, SetElement>();
    if (elements.has(values.join(' . '))) return true;
    return [...elements.values()].some(({ key }) => key.every((part, i) => isIn(values[i], part)));
  }
}

/** True if a value is another, or lies in it. */
function isIn(value: Scalar | undefined, range: Scalar): boolean {
  if (value === range) return true;
  if (typeof range === 'number' || !range.includes('/')) return false;
  const [ip, cidr] = [parseIP(String(value)), parseCidr(String(range))];
  return ip !== undefined && cidr !== undefined && cidrContains(cidr.cidr, ip.ip);
}
