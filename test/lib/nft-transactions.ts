/**
 * Random transactions over a small universe: few names, so that commands meet on the same objects and many are refused. Every kind of
 * statement, of set and of element, both families.
 *
 * Chains stand in groups, each reached from hooks that have what its rules do, and jump forward only: what is left to refuse is what the
 * fake knows of, too.
 *
 * @module
 */

import type {
  ChainObject,
  Command,
  Field,
  FieldType,
  MapReference,
  NftFamily,
  Scalar,
  SetElement,
  SetObject,
  Statement,
  Transaction,
  Verdict,
} from '../../src/netlink/nftables/transaction.ts';
import type { Seeded } from './seeded.ts';

export const TABLE = 'kube-proxy';

type Group = 'dnat' | 'masquerade' | 'filter';
const GROUPS: readonly [Group, ...Group[]] = ['dnat', 'masquerade', 'filter'];
const BASES: Readonly<Record<Group, ChainObject>> = {
  dnat: { name: 'nat-prerouting', base: { type: 'nat', hook: 'prerouting', priority: -100 } },
  masquerade: {
    name: 'nat-postrouting',
    base: { type: 'nat', hook: 'postrouting', priority: 100 },
    comment: 'the last',
  },
  filter: { name: 'filter-input', base: { type: 'filter', hook: 'input', priority: 0 } },
};
/** Regular chains of a group. */
const CHAINS = 3;

const ENDPOINT: readonly FieldType[] = ['addr', 'inet_service'];
const FRONTEND: readonly FieldType[] = ['addr', 'inet_proto', 'inet_service'];

/** Kinds of sets, by what they are for. Two of one name: the second to be added is refused. */
const SETS: readonly [SetObject, ...SetObject[]] = [
  { name: 'addresses', key: ['addr'], comment: 'Active ClusterIPs' },
  { name: 'hairpin', key: ['addr', 'addr', 'inet_proto', 'inet_service'] },
  { name: 'ports', key: ['inet_service'] },
  { name: 'protocols', key: ['inet_proto'] },
  { name: 'marks', key: ['mark'] },
  // Not for rules: what kind it is by then is chance, and nft refuses by type where the kernel looks at lengths alone.
  { name: 'either', key: ['addr'] },
  { name: 'either', key: ['inet_proto', 'inet_service'] },
  { name: 'small', key: ['inet_service'], size: 3 },
  { name: 'ranges', key: ['addr'], flags: ['interval'] },
  { name: 'port-ranges', key: ['inet_service'], flags: ['interval'], comment: 'ranges of ports' },
  { name: 'boxes', key: [...FRONTEND, 'addr'], flags: ['interval'] },
  { name: 'affinity', key: ['addr'], flags: ['dynamic', 'timeout'], timeoutSeconds: 10800 },
  { name: 'affinity', key: ['addr'], flags: ['dynamic', 'timeout'], timeoutSeconds: 600 },
  { name: 'clients', key: FRONTEND, data: ENDPOINT, flags: ['dynamic', 'timeout'], timeoutSeconds: 60, size: 1000 },
  { name: 'pick', key: [...FRONTEND, 'mark'], data: ENDPOINT },
  // Not for rules: nft 1.0.6 cannot load one that looks into such a map, unless it makes the map in the same transaction.
  { name: 'numbered', key: [...FRONTEND, 'integer'], data: ENDPOINT },
  { name: 'by-mark', key: ['mark'], data: ['addr'] },
  { name: 'classes', key: FRONTEND, data: ['classid'] },
  { name: 'by-class', key: ['addr', 'classid', 'inet_service'] },
  ...GROUPS.flatMap((group): SetObject[] => [
    { name: `${group}-services`, key: FRONTEND, data: 'verdict', comment: 'traffic' },
    { name: `${group}-ports`, key: ['inet_proto', 'inet_service'], data: 'verdict' },
    { name: `${group}-ranges`, key: FRONTEND, data: 'verdict', flags: ['interval'] },
  ]),
];

const ADDRESSES: Readonly<Record<NftFamily, readonly [string, ...string[]]>> = {
  ip: ['10.43.0.1', '10.43.0.2', '0.0.0.0', '255.255.255.255', '192.168.1.1'],
  ip6: ['fd00::1', 'fd00::2', '::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', '2001:db8:0:1::1'],
};
/** Apart from each other: what the kernel says to ranges that overlap depends on what else there is. */
const RANGES: Readonly<Record<NftFamily, readonly [string, ...string[]]>> = {
  ip: ['10.0.0.0/8', '11.0.0.0/8', '192.168.1.7', '172.16.0.0-172.16.0.9', '0.0.0.0/9', '255.0.0.0/8'],
  ip6: ['fd00::/8', 'fc00::/8', '2001:db8::1', '2001:db8::10-2001:db8::19', '::/9', 'ff00::/8'],
};
const CIDRS: Readonly<Record<NftFamily, readonly [string, ...string[]]>> = {
  ip: [
    '10.0.0.0/8',
    '10.1.0.0/16',
    '11.0.0.0/8',
    '192.168.1.7/32',
    '0.0.0.0/1',
    '128.0.0.0/1',
    '203.0.113.0/25',
    '0.0.0.0/0',
  ],
  ip6: ['fd00::/8', 'fd00:1::/32', 'fc00::/8', '2001:db8::7/128', '::/1', '8000::/1', '2001:db8::/33', '::/0'],
};

/** Draws transactions; `named` counts anonymous sets, whose names must be new. */
export class TransactionSource {
  readonly #random: Seeded;
  #named = 0;

  constructor(random: Seeded) {
    this.#random = random;
  }

  /** All chains and sets of a family, from nothing: without them most commands are refused. */
  everything(family: NftFamily): Transaction {
    const chains = GROUPS.flatMap((group) => [
      BASES[group],
      ...Array.from({ length: CHAINS }, (_, i) => ({ name: `${group}-${i}` })),
    ]);
    const sets = SETS.filter(({ name }, i) => SETS.findIndex((s) => s.name === name) === i);
    return {
      family,
      table: TABLE,
      commands: [
        { verb: 'add', object: 'table' },
        ...chains.map((chain): Command => ({ verb: 'add', object: 'chain', chain })),
        ...sets.map((set): Command => ({ verb: 'add', object: 'set', set })),
      ],
    };
  }

  /** One to three commands in one family; sometimes a second transaction in the other. */
  commit(): Transaction[] {
    const family = this.#random.pick<NftFamily>(['ip', 'ip6']);
    const one = this.#transaction(family);
    return this.#random.integer(0, 9) === 0 ? [one, this.#transaction(family === 'ip' ? 'ip6' : 'ip')] : [one];
  }

  #transaction(family: NftFamily): Transaction {
    const commands = Array.from({ length: this.#random.integer(1, 3) }, () => this.#command(family));
    return { family, table: TABLE, commands };
  }

  #command(family: NftFamily): Command {
    const random = this.#random;
    const draw = random.integer(0, 99);
    if (draw < 3) return { verb: 'add', object: 'table', comment: 'rules for kube-proxy' };
    if (draw < 18) return { verb: 'add', object: 'chain', chain: this.#chain() };
    if (draw < 22) return { verb: 'flush', object: 'chain', name: this.#chain().name };
    if (draw < 25) return { verb: 'delete', object: 'chain', name: this.#chain().name };
    if (draw < 43) return { verb: 'add', object: 'set', set: random.pick(SETS) };
    const set = random.pick(SETS);
    const named = { object: 'set', name: set.name, isMap: set.data !== undefined } as const;
    if (draw < 46) return { verb: 'flush', ...named };
    if (draw < 49) return { verb: 'delete', ...named };
    if (draw < 72) return this.#rule(family);
    const verb = draw < 88 ? 'add' : 'delete';
    // Of ranges nft merges those of one command before it looks at them, so there is one a command.
    const most = set.flags?.includes('interval') ? 1 : 3;
    const elements = Array.from({ length: random.integer(1, most) }, () => this.#element(set, family));
    return { verb, object: 'element', set, elements };
  }

  #chain(): ChainObject {
    const group = this.#random.pick(GROUPS);
    const index = this.#random.integer(0, CHAINS);
    if (index === CHAINS) return BASES[group];
    return index === 0 ? { name: `${group}-0`, comment: `first of ${group}` } : { name: `${group}-${index}` };
  }

  #rule(family: NftFamily): Command {
    const random = this.#random;
    const group = random.pick(GROUPS);
    const index = random.integer(-1, CHAINS - 1);
    const chain = index === -1 ? BASES[group].name : `${group}-${index}`;
    const action = this.#action(family, group, index);
    const matches = this.#matches(family);
    const statements = [...matches, ...action];
    const comment = random.pick([undefined, undefined, 'masquerade', 'x'.repeat(128)]);
    return { verb: 'add', object: 'rule', rule: { chain, statements, ...(comment === undefined ? {} : { comment }) } };
  }

  /** A chain behind this one in its group, which may not exist. */
  #verdict(group: Group, index: number): Verdict {
    const random = this.#random;
    if (index >= CHAINS - 1) return { kind: random.pick(['accept', 'drop', 'return']) };
    const chain = `${group}-${random.integer(index + 1, CHAINS - 1)}`;
    return random.pick<Verdict>([{ kind: 'goto', chain }, { kind: 'jump', chain }, { kind: 'drop' }]);
  }

  #matches(family: NftFamily): Statement[] {
    const random = this.#random;
    const matches: readonly [() => Statement[], ...(() => Statement[])[]] = [
      () => [],
      () => [],
      () => [{ kind: 'ctStateNew' }],
      () => [{ kind: 'ctStatusDnat' }],
      () => [{ kind: 'markHas', mask: random.pick([0x4000, 0x80000000, 1]) }],
      () => [{ kind: 'setMark', op: random.pick(['or', 'xor']), mask: random.pick([0x4000, 0x80000000]) }],
      () => [{ kind: 'setPriority', fields: ['daddr', 'l4proto', 'dport'], map: { kind: 'named', map: 'classes' } }],
      () => [{ kind: 'clearPriority' }],
      () => [this.#address(family)],
      () => [
        {
          kind: 'iifname',
          name: random.pick(['cni0', 'br-lan.10', '0abc']),
          wildcard: random.integer(0, 1) === 1,
          negated: random.integer(0, 1) === 1,
        },
      ],
      () => [{ kind: 'fibLocal', side: random.pick(['saddr', 'daddr']) }],
      () => [
        {
          kind: 'inSet',
          fields: [random.pick(['saddr', 'daddr'])],
          set: random.pick(['addresses', 'ranges']),
          negated: random.integer(0, 3) === 0,
        },
      ],
      () => [{ kind: 'inSet', fields: ['saddr', 'daddr', 'l4proto', 'dport'], set: 'hairpin' }],
      () => [
        {
          kind: 'inSet',
          fields: [random.pick(['sport', 'dport'])],
          set: random.pick(['ports', 'small', 'port-ranges']),
        },
      ],
      () => [{ kind: 'inSet', fields: ['mark'], set: 'marks' }],
      () => [{ kind: 'inSet', fields: ['saddr', 'priority', 'dport'], set: 'by-class' }],
      () => [{ kind: 'inSet', fields: ['l4proto'], set: 'protocols' }],
      () => [
        {
          kind: 'inSet',
          fields: ['daddr', 'l4proto', 'dport', 'saddr'],
          set: 'boxes',
          negated: random.integer(0, 1) === 0,
        },
      ],
      () => [
        { kind: 'l4proto', protocol: 'udp' },
        { kind: 'inSet', fields: ['originalDaddr', 'originalDaddr', 'l4proto', 'originalDport'], set: 'hairpin' },
      ],
      () => [this.#dynamic(family)],
    ];
    return random.pick(matches)();
  }

  #address(family: NftFamily): Statement {
    const random = this.#random;
    const cidrs = Array.from({ length: random.integer(1, 4) }, () => random.pick(CIDRS[family]));
    const named = cidrs.length > 1 || random.integer(0, 1) === 0 ? { name: this.#name('list') } : {};
    return {
      kind: 'address',
      side: random.pick(['saddr', 'daddr']),
      negated: random.integer(0, 1) === 0,
      cidrs,
      ...named,
    };
  }

  #dynamic(family: NftFamily): Statement {
    const random = this.#random;
    const timeout = random.integer(0, 1) === 0 ? {} : { timeoutSeconds: random.pick([30, 7200]) };
    const op = random.pick<'add' | 'update' | 'delete'>(['add', 'update', 'delete']);
    const plain = family === 'ip6' || random.integer(0, 1) === 0;
    if (plain) return { kind: 'dynamic', op, set: 'affinity', fields: ['saddr'], ...timeout };
    return {
      kind: 'dynamic',
      op,
      set: 'clients',
      fields: ['saddr', 'l4proto', 'dport'],
      data: ['daddr', 'dport'],
      ...timeout,
    };
  }

  #action(family: NftFamily, group: Group, index: number): Statement[] {
    const random = this.#random;
    const draw = random.integer(0, 9);
    if (draw < 3) return [{ kind: 'verdict', verdict: this.#verdict(group, index) }];
    if (draw < 5) return [this.#vmap(group, index)];
    if (group === 'masquerade') return [{ kind: 'masquerade' }];
    if (group === 'filter') return [{ kind: 'reject' }];
    const protocol: Statement = {
      kind: 'l4proto',
      protocol: random.pick<'tcp' | 'udp' | 'sctp'>(['tcp', 'udp', 'sctp']),
    };
    if (draw < 7) return [protocol, { kind: 'dnat', address: random.pick(ADDRESSES[family]), port: 8080 }];
    return draw < 9 ? [protocol, this.#dnatToAny(family)] : [this.#dnatToPicked()];
  }

  #vmap(group: Group, index: number): Statement {
    const random = this.#random;
    const map = random.pick([`${group}-services`, `${group}-ranges`]);
    // The elements of these go to the last chain of the group: a rule in it must not look there.
    const named: Statement =
      random.integer(0, 1) === 0
        ? { kind: 'vmap', fields: ['daddr', 'l4proto', 'dport'], map: { kind: 'named', map } }
        : { kind: 'vmap', fields: ['l4proto', 'dport'], map: { kind: 'named', map: `${group}-ports` } };
    if (index < CHAINS - 1 && random.integer(0, 1) === 0) return named;
    const count = random.integer(1, 3);
    const elements = Array.from({ length: count }, (_, i) => ({ key: [i], data: this.#verdict(group, index) }));
    return {
      kind: 'vmap',
      fields: [{ random: count }],
      map: { kind: 'anonymous', name: this.#name('verdicts'), elements },
    };
  }

  #dnatToAny(family: NftFamily): Statement {
    const count = this.#random.integer(1, 3);
    const elements = Array.from({ length: count }, (_, i) => ({ key: [i], data: this.#values(ENDPOINT, family) }));
    const map: MapReference = { kind: 'anonymous', name: this.#name('pick'), elements };
    return { kind: 'dnatMap', fields: [{ random: count }], map };
  }

  #dnatToPicked(): Statement {
    const fields: readonly Field[] = ['daddr', 'l4proto', 'dport', 'mark'];
    return { kind: 'dnatMap', fields, map: { kind: 'named', map: 'pick' } };
  }

  #name(what: string): string {
    return `${what}-${this.#named++}`;
  }

  #values(types: readonly FieldType[], family: NftFamily): Scalar[] {
    return types.map((type) => this.#value(type, family));
  }

  #value(type: FieldType, family: NftFamily): Scalar {
    const random = this.#random;
    switch (type) {
      case 'addr':
        return random.pick(ADDRESSES[family]);
      case 'inet_proto':
        return random.pick(['tcp', 'udp', 'sctp']);
      case 'inet_service':
        return random.pick([80, 443, 53, 65535, 8080]);
      case 'mark':
        return random.pick([0, 0x4000, 0xffffffff]);
      case 'classid':
        return random.pick(['1:0', 'a1b2:c3d4', 'dead:beef', '12:34', 'ffff:1']);
      case 'integer':
        return random.integer(0, 3);
    }
  }

  #ranges(types: readonly FieldType[], family: NftFamily): Scalar[] {
    const random = this.#random;
    return types.map((type) => {
      if (type === 'addr') return random.pick(RANGES[family]);
      if (type === 'inet_service') return random.pick<Scalar>([80, '90-99', 443, '0-10', '65000-65535']);
      return this.#value(type, family);
    });
  }

  #element(set: SetObject, family: NftFamily): SetElement {
    const random = this.#random;
    const key = set.flags?.includes('interval') ? this.#ranges(set.key, family) : this.#values(set.key, family);
    const comment = random.pick([undefined, undefined, 'ns1/svc1:p80']);
    const timeout = set.flags?.includes('timeout') && random.integer(0, 1) === 0 ? { timeoutMs: 1800_000 } : {};
    const group = GROUPS.find((g) => set.name.startsWith(g)) ?? 'filter';
    const data =
      set.data === undefined
        ? {}
        : { data: set.data === 'verdict' ? this.#verdict(group, CHAINS - 2) : this.#values(set.data, family) };
    return { key, ...data, ...timeout, ...(comment === undefined ? {} : { comment }) };
  }
}
