/**
 * Three ways for one transaction: as text through `nft -f`, over netlink into the kernel (each in a namespace of its own), and the fake.
 * They agree on what is refused and why, and `nft -s list ruleset` on what there is.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { FakeNftables } from '../../src/netlink/nftables/fake-nftables.ts';
import { createNftables } from '../../src/netlink/nftables/kernel-nftables.ts';
import type { CommitResult, Nftables } from '../../src/netlink/nftables/nftables.ts';
import { formatTransaction } from '../../src/netlink/nftables/text.ts';
import type {
  Command,
  Field,
  NftFamily,
  SetObject,
  Statement,
  Transaction,
} from '../../src/netlink/nftables/transaction.ts';
import { openNetlink } from '../../src/netlink/socket.ts';
import { caseInside, runInside, sh } from '../lib/namespace.ts';
import { TABLE, TransactionSource } from '../lib/nft-transactions.ts';
import { Seeded, seedOfRun } from '../lib/seeded.ts';

const CLIENTS: SetObject = {
  name: 'clients',
  key: ['addr', 'addr', 'inet_proto', 'inet_service'],
  data: ['addr', 'inet_service'],
  flags: ['dynamic', 'timeout'],
  timeoutSeconds: 10800,
  size: 1000,
};

const TRANSACTIONS = Number(process.env['SWITCHYARD_TRANSACTIONS'] ?? 500);
/** How many transactions pass between two looks at the whole ruleset. */
const LOOK_EVERY = 100;

/** How many transactions pass before all begins anew: with time, more and more is refused. */
const RESTART_EVERY = 250;

/** Both tables away, and all chains and sets made. */
function anew(source: TransactionSource, isThere: boolean): Transaction[] {
  return (['ip', 'ip6'] as const).flatMap((family) => [
    ...(isThere ? [{ family, table: TABLE, commands: [{ verb: 'delete', object: 'table' }] } as const] : []),
    source.everything(family),
  ]);
}

/** Runs texts through nft in another namespace; starting a shell for each would take most of the time. */
class OtherNamespace {
  readonly #directory = mkdtempSync(join(tmpdir(), 'switchyard-nft-'));
  readonly #shell = spawn(
    'unshare',
    ['-n', 'sh', '-c', 'while read -r file; do nft -s $(cat "$file.args") <"$file" >"$file.out" 2>&1; echo $?; done'],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  readonly #lines = createInterface({ input: this.#shell.stdout })[Symbol.asyncIterator]();
  #count = 0;

  async run(args: string, input = ''): Promise<{ readonly status: number; readonly output: string }> {
    const file = join(this.#directory, String(this.#count++));
    writeFileSync(file, input);
    writeFileSync(`${file}.args`, args);
    this.#shell.stdin.write(`${file}\n`);
    const line = await this.#lines.next();
    return { status: Number(line.value), output: readFileSync(`${file}.out`, 'utf8') };
  }

  close(): void {
    this.#shell.stdin.end();
    rmSync(this.#directory, { recursive: true });
  }
}

/** What is refused and why, in a form to compare: the first fault of each command. */
function outcome(result: CommitResult): unknown {
  if (result.kind !== 'refused') return result.kind;
  const faults = new Map<string, string>();
  for (const { transaction, command, errno } of result.refused) {
    const place = `${transaction}.${command}`;
    if (!faults.has(place)) faults.set(place, errno);
  }
  return Object.fromEntries(faults);
}

/** A dynamic set gets a size from a rule that would add to it, even if the rule is refused later; nft refuses some before the kernel sees them. */
function listed(ruleset: string): string {
  return ruleset.replace(/^\t\tsize 65535\n/gm, '');
}

/** Any value as text, whatever the order of its properties. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, v) =>
    typeof v === 'object' && v !== null && !Array.isArray(v) ? Object.fromEntries(Object.entries(v).sort()) : v,
  );
}

/** Everything readTable() tells, in no order that matters, and without the time that runs on. */
function contents(nftables: Nftables) {
  return (['ip', 'ip6'] as const).map((family) => {
    const table = nftables.readTable(family, TABLE, { elementsOf: () => true });
    const isThere = nftables.hasTable(family, TABLE);
    if (table === undefined) return { isThere };
    const { comment, chains, sets, elements } = table;
    return {
      isThere,
      found: [...chains.keys(), 'no-such-chain', ...sets.keys()]
        .filter((name) => nftables.hasChain(family, TABLE, name))
        .sort(),
      comment,
      chains: [...chains].map(canonical).sort(),
      sets: [...sets].map(canonical).sort(),
      elements: [...elements]
        .flatMap(([name, all]) => all.map(({ expiresMs: _, ...e }) => `${name} ${canonical(e)}`))
        .sort(),
    };
  });
}

async function inside() {
  overNetlinkOnly();
  conversations();
  t.test('random transactions as text, over netlink, and in the fake', async (t) => {
    const seed = seedOfRun();
    t.comment(`SWITCHYARD_SEED=${seed}`);
    const source = new TransactionSource(new Seeded(seed));
    const other = new OtherNamespace();
    const kernel = createNftables();
    const fake = new FakeNftables();
    let refused = 0;
    for (let i = 0; i < TRANSACTIONS; i++) {
      const commit: Transaction[] = i % RESTART_EVERY === 0 ? anew(source, i > 0) : source.commit();
      const text = commit.map(formatTransaction).join('');
      const byText = other.run('-f -', text);
      const got = kernel.commit(commit);
      const want = outcome(fake.commit(commit));
      const place = `transaction ${i} of seed ${seed}:\n${text}`;
      const nft = await byText;
      if (got.kind === 'refused') refused++;
      const faults = outcome(got);
      if (!isDeepStrictEqual(faults, want) || (nft.status === 0) !== (got.kind === 'committed')) {
        t.fail(`${place}\nkernel: ${canonical(faults)}\nfake: ${canonical(want)}\nnft: ${nft.status} ${nft.output}`);
        break;
      }
      if (i % LOOK_EVERY !== LOOK_EVERY - 1 && i !== TRANSACTIONS - 1) continue;
      const { output } = await other.run('list ruleset');
      if (!t.equal(listed(sh('nft', '-s', 'list', 'ruleset')), listed(output), place)) break;
      if (!t.strictSame(contents(kernel), contents(fake), place)) break;
    }
    t.comment(`${refused} of ${TRANSACTIONS} refused`);
    other.close();
    kernel.close();
  });
}

const RULES: Transaction = {
  family: 'ip6',
  table: TABLE,
  commands: [
    { verb: 'add', object: 'table', comment: 'é'.repeat(126) },
    { verb: 'add', object: 'chain', chain: { name: 'c'.repeat(255), comment: 'x'.repeat(253) } },
    { verb: 'add', object: 'set', set: { name: 's', key: ['addr'], comment: 'y'.repeat(240) } },
    { verb: 'add', object: 'set', set: CLIENTS },
    {
      verb: 'add',
      object: 'rule',
      rule: {
        chain: 'c'.repeat(255),
        statements: [
          {
            kind: 'dynamic',
            op: 'update',
            set: 'clients',
            fields: ['saddr', 'daddr', 'l4proto', 'dport'],
            data: ['daddr', 'dport'],
          },
        ],
        comment: 'z'.repeat(253),
      },
    },
    {
      verb: 'add',
      object: 'element',
      set: { name: 's', key: ['addr'] },
      elements: [{ key: ['fd00::1'], comment: 'w'.repeat(251) }],
    },
  ],
};

/** What nft cannot load, and the kernel can. */
function overNetlinkOnly() {
  t.test('what nft has no text for', async (t) => {
    const nftables = createNftables();
    const fake = new FakeNftables();
    t.match(nftables.commit([RULES]), { kind: 'committed' });
    t.match(fake.commit([RULES]), { kind: 'committed' });
    t.strictSame(contents(nftables), contents(fake));
    const listed = sh('nft', 'list', 'ruleset');
    for (const text of ['é'.repeat(126), 'x'.repeat(253), 'y'.repeat(240), 'z'.repeat(253), 'w'.repeat(251)]) {
      t.ok(listed.includes(`comment "${text}"`), `${text.length} characters`);
    }
    t.match(listed, /update @clients { ip6 saddr \. ip6 daddr \. meta l4proto \. th dport : ip6 daddr \. th dport }/);
    const long: Transaction = {
      ...RULES,
      commands: [
        { verb: 'add', object: 'set', set: { name: 't', key: ['addr'], comment: 'y'.repeat(250) } },
        {
          verb: 'add',
          object: 'element',
          set: { name: 's', key: ['addr'] },
          elements: [{ key: ['::1'] }, { key: ['::2'], comment: 'w'.repeat(252) }],
        },
      ],
    };
    t.match(nftables.commit([long]), {
      kind: 'refused',
      refused: [
        { command: 0, errno: 'ERANGE' },
        { command: 1, errno: 'EINVAL' },
      ],
    });
    nftables.commit([{ ...RULES, commands: [{ verb: 'delete', object: 'table' }] }]);
    nftables.close();
  });

  t.test('rules that read registers nothing was written to', async (t) => {
    const nftables = createNftables();
    const fake = new FakeNftables();
    for (const family of ['ip', 'ip6'] as const) {
      for (const [name, statements, isRefused] of READERS[family]) {
        const commands: Command[] = [
          ...SETS_TO_READ,
          { verb: 'add', object: 'rule', rule: { chain: 'c', statements } },
        ];
        const got = outcome(nftables.commit([{ family, table: TABLE, commands }]));
        t.same(got, isRefused ? { [`0.${SETS_TO_READ.length}`]: 'ENODATA' } : 'committed', `${family}: ${name}`);
        t.same(outcome(fake.commit([{ family, table: TABLE, commands }])), got, 'the fake says the same');
      }
      nftables.commit([{ family, table: TABLE, commands: [{ verb: 'delete', object: 'table' }] }]);
    }
    nftables.close();
  });
}

const SETS_TO_READ: readonly Command[] = [
  { verb: 'add', object: 'table' },
  { verb: 'add', object: 'chain', chain: { name: 'c' } },
  { verb: 'add', object: 'set', set: { name: 'four', key: ['mark'] } },
  { verb: 'add', object: 'set', set: { name: 'eight', key: ['inet_proto', 'inet_service'] } },
  { verb: 'add', object: 'set', set: { name: 'learned', key: ['inet_proto', 'inet_service'], flags: ['dynamic'] } },
];

const inSet = (fields: readonly Field[], set: string): Statement => ({ kind: 'inSet', fields, set });
const learn = (fields: readonly Field[]): Statement => ({ kind: 'dynamic', op: 'update', set: 'learned', fields });

/** Rules over sets whose keys are not what the rules look for: nft refuses them all, the kernel those that read too far. */
const READERS: Readonly<Record<NftFamily, readonly (readonly [string, readonly Statement[], boolean])[]>> = {
  ip: [
    ['an address is 4 bytes', [inSet(['saddr'], 'eight')], true],
    ['a protocol takes a whole word', [inSet(['l4proto'], 'four')], false],
    ['two fields are more than enough', [inSet(['saddr', 'dport'], 'four')], false],
    [
      'a name before it is 16 bytes',
      [{ kind: 'iifname', name: 'lo', wildcard: false, negated: false }, inSet(['mark'], 'eight')],
      false,
    ],
    ['a state before it is 4 bytes', [{ kind: 'ctStateNew' }, inSet(['mark'], 'eight')], true],
    ['a set that is added to', [learn(['saddr'])], true],
    ['with all it needs', [learn(['saddr', 'mark'])], false],
  ],
  ip6: [
    ['an address is 16 bytes', [inSet(['saddr'], 'eight')], false],
    [
      'half an address is 8 bytes',
      [{ kind: 'address', side: 'saddr', negated: false, cidrs: ['fd00::/64'] }, inSet(['mark'], 'eight')],
      false,
    ],
    [
      '2 bytes of an address are a word',
      [{ kind: 'address', side: 'saddr', negated: false, cidrs: ['fd00::/16'] }, inSet(['mark'], 'eight')],
      true,
    ],
    ['bytes of the last rule', [inSet(['mark'], 'eight')], true],
  ],
};

/** One chain, and what is not asked for. */
const CHAIN: Transaction = {
  family: 'ip',
  table: 'watched',
  commands: [
    { verb: 'add', object: 'table' },
    { verb: 'add', object: 'chain', chain: { name: 'a' } },
  ],
};

function conversations() {
  t.test('a commit for one generation only', async (t) => {
    const nftables = createNftables();
    const onlyIfGeneration = nftables.generation();
    t.match(nftables.commit([CHAIN], { onlyIfGeneration }), { kind: 'committed', generation: onlyIfGeneration + 1 });
    t.same(nftables.commit([CHAIN], { onlyIfGeneration }), { kind: 'outdated' });
    t.equal(nftables.generation(), onlyIfGeneration + 1);
    nftables.close();
  });

  t.test('who changed what', async (t) => {
    const nftables = createNftables();
    const watcher = nftables.watch();
    t.same(watcher.drain(), { changes: [], generation: undefined, overrun: false });
    nftables.commit([CHAIN, { ...CHAIN, family: 'ip6' }]);
    sh('nft', 'add', 'chain', 'ip', 'watched', 'b');
    sh('nft', 'add', 'table', 'inet', 'other');
    t.same(watcher.drain(), {
      changes: [
        { family: 'ip', table: 'watched', own: true },
        { family: 'ip6', table: 'watched', own: true },
        { family: 'ip', table: 'watched', own: false },
      ],
      generation: nftables.generation(),
      overrun: false,
    });
    sh('nft', 'flush', 'ruleset');
    t.same(
      watcher
        .drain()
        .changes.map((c) => `${c.family} ${c.own}`)
        .sort(),
      ['ip false', 'ip6 false'],
    );
    watcher.close();
    nftables.close();
  });

  t.test('buffers that are too small', async (t) => {
    const nftables = createNftables((protocol, options) =>
      openNetlink(protocol, { ...options, receiveBytes: 4_096, sendBytes: 8_192 }),
    );
    const watcher = nftables.watch();
    const chains = (from: number, to: number): Command[] =>
      Array.from({ length: to - from }, (_, i) => ({
        verb: 'add',
        object: 'chain',
        chain: { name: `chain-${from + i}` },
      }));
    t.throws(() => nftables.commit([{ ...CHAIN, commands: chains(0, 1_000) }]), {
      name: 'NetlinkError',
      failure: { code: 'TOO_LARGE' },
    });
    const refused = nftables.commit([{ ...CHAIN, commands: chains(0, 100) }]);
    t.equal(refused.kind, 'refused', 'no table: each command is refused, and not all refusals fit the queue');
    t.equal(nftables.commit([CHAIN]).kind, 'committed', 'and the next commit is not mixed up with them');
    for (let i = 0; i < 300; i += 50) nftables.commit([{ ...CHAIN, commands: chains(i, i + 50) }]);
    t.equal(watcher.drain().overrun, true, 'notices are lost, and it is known');
    t.same(watcher.drain(), { changes: [], generation: undefined, overrun: false }, 'once');
    t.equal(
      nftables.readTable('ip', 'watched')?.chains.size,
      301,
      'a dump needs no room: the kernel waits for its reader',
    );
    watcher.close();
    nftables.close();
    sh('nft', 'flush', 'ruleset');
  });

  t.test('a table is read as it was at one moment, while another changes it', async (t) => {
    const nftables = createNftables();
    sh('nft', 'add table ip watched; add chain ip watched a; add chain ip watched b');
    const writer = spawn('sh', [
      '-c',
      'for i in $(seq 150); do nft "add rule ip watched a accept; add rule ip watched b accept"; done',
    ]);
    const closed = once(writer, 'close');
    let reads = 0;
    let last = 0;
    while (last < 150 && writer.exitCode === null) {
      const table = nftables.readTable('ip', 'watched');
      const [a = -1, b = -2] = ['a', 'b'].map((name) => table?.chains.get(name)?.ruleKeys.length);
      if (a !== b || a < last) t.fail(`${a} and ${b} rules after ${last}`);
      last = a;
      reads++;
      await setImmediate();
    }
    await closed;
    t.ok(reads > 20, `${reads} reads`);
    t.equal(nftables.readTable('ip', 'watched')?.chains.get('b')?.ruleKeys.length, 150);
    sh('nft', 'flush', 'ruleset');
    nftables.close();
  });
}

if (caseInside() === undefined) await runInside(t, import.meta.url, 'nft-transaction');
else await inside();
