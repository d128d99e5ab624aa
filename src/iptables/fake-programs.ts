/**
 * The iptables programs in memory, over rulesets in memory: what `FakeExec` starts in place of the real ones.
 *
 * @module
 */

import type { Family } from '../proxier/types.ts';
import type { FakeCall, FakeProgram, FakeResult } from '../sys/fake-exec.ts';
import { FakeRestoreError, type FakeRuleset } from './fake.ts';

/** Something that happens to the next starts instead of what they do. */
export interface FakeTrouble {
  /** Starts that find the tables locked. */
  locked: number;
  /** Called before each start that does its work; a test changes the rules here as another program would. */
  before: (call: FakeCall) => void;
}

export function noTrouble(): FakeTrouble {
  return { locked: 0, before: () => {} };
}

const PREFIX: Readonly<Record<Family, string>> = { IPv4: 'iptables', IPv6: 'ip6tables' };
const LOCKED: FakeResult = {
  status: 4,
  stderr: 'Another app is currently holding the xtables lock. Stopped waiting after 5s.\n',
};

/** The programs of a ruleset's family and flavour, under their flavoured names: `iptables-nft`, `iptables-nft-save` … */
export function fakePrograms(
  ruleset: FakeRuleset,
  trouble: FakeTrouble = noTrouble(),
): Readonly<Record<string, FakeProgram>> {
  const base = `${PREFIX[ruleset.family]}-${ruleset.flavour}`;
  const guarded =
    (program: (args: readonly string[], stdin: string) => FakeResult): FakeProgram =>
    (call) => {
      const args = call.argv.slice(1);
      if (args.includes('--version')) {
        return { stdout: `${PREFIX[ruleset.family]} v1.8.9 (${ruleset.flavour === 'nft' ? 'nf_tables' : 'legacy'})\n` };
      }
      if (trouble.locked > 0) {
        trouble.locked--;
        return LOCKED;
      }
      trouble.before(call);
      return program(args, call.stdin);
    };
  return {
    [base]: guarded((args) => operate(ruleset, args)),
    [`${base}-save`]: guarded((args) => ({ stdout: ruleset.save(valueAfter(args, '-t')) })),
    [`${base}-restore`]: guarded((args, stdin) => {
      if (!args.includes('--noflush'))
        return { status: 2, stderr: 'this fake keeps what is there: give it --noflush\n' };
      return restore(ruleset, stdin);
    }),
  };
}

function valueAfter(args: readonly string[], option: string): string {
  return args[args.indexOf(option) + 1] ?? '';
}

function restore(ruleset: FakeRuleset, input: string): FakeResult {
  try {
    ruleset.restore(input);
    return {};
  } catch (error) {
    if (error instanceof FakeRestoreError) return { status: error.status, stderr: error.stderr };
    throw error;
  }
}

/** `iptables -w 5 -N|-S|-X CHAIN -t TABLE`. */
function operate(ruleset: FakeRuleset, args: readonly string[]): FakeResult {
  const table = valueAfter(args, '-t');
  const op = args.find((arg) => /^-[NSX]$/.test(arg)) ?? '';
  const chain = valueAfter(args, op);
  const missing = { status: 1, stderr: 'iptables: No chain/target/match by that name.\n' };
  if (op === '-S') return chain === 'POSTROUTING' || ruleset.hasChain(table, chain) ? {} : missing;
  const { status, stderr } = restore(ruleset, `*${table}\n${op} ${chain}\nCOMMIT\n`);
  return status === undefined ? {} : { status, ...(stderr === undefined ? {} : { stderr }) };
}
