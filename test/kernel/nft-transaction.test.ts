/**
 * Three ways for one transaction: as text through `nft -f`, over netlink into the kernel (each in a namespace of its own), and the fake.
 * They agree on what is refused and why, and `nft -s list ruleset` on what there is.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';
import t from 'tap';
import { FakeNftables } from '../../src/netlink/nftables/fake-nftables.ts';
import { createNftables } from '../../src/netlink/nftables/kernel-nftables.ts';
import type { CommitResult, Nftables } from '../../src/netlink/nftables/nftables.ts';
import { formatTransaction } from '../../src/netlink/nftables/text.ts';
import type { Transaction } from '../../src/netlink/nftables/transaction.ts';
import { caseInside, runInside, sh } from '../lib/namespace.ts';
import { TABLE, TransactionSource } from '../lib/nft-transactions.ts';
import { Seeded, seedOfRun } from '../lib/seeded.ts';

const TRANSACTIONS = Number(process.env['SWITCHYARD_TRANSACTIONS'] ?? 700);
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
    if (table === undefined) return undefined;
    const { comment, chains, sets, elements } = table;
    return {
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

if (caseInside() === undefined) await runInside(t, import.meta.url, 'nft-transaction');
else await inside();
