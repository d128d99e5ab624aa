/**
 * The iptables programs of one IP family. All starts of a family go one after the other: the legacy flavour locks the tables, and
 * waiting in the tool costs more than waiting here. spec: iptables.md §15.
 *
 * @module
 */

import type { Family } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import { type Command, type Exec, ExecError, exitedWith } from '../sys/exec.ts';
import type { ChainName, Table } from './chain.ts';
import { parseRestoreError, RestoreRefusedError, saysLocked } from './refusal.ts';

/** `nft`: over nf_tables; `legacy`: over ip_tables. The two do not see each other's rules. */
export type Flavour = 'nft' | 'legacy';

export type AnyTable = Table | 'mangle';

/** Names of the programs, looked up on PATH. */
export interface Binaries {
  readonly iptables: string;
  readonly save: string;
  readonly restore: string;
}

/** What the probe found out. */
export interface ToolsInfo {
  readonly family: Family;
  readonly flavour: Flavour;
  /** As in `1.8.9`; undefined if the program does not say. */
  readonly version: string | undefined;
  readonly binaries: Binaries;
  readonly features: {
    readonly randomFully: boolean;
    /** Both programs wait for the lock when told `-w 5`. */
    readonly wait: boolean;
  };
}

export interface Tools extends ToolsInfo {
  /** The text of `iptables-save` for one table. */
  save(table: AnyTable, signal?: AbortSignal): Promise<string>;
  /**
   * Gives a text to `iptables-restore --noflush`; each table in it is one transaction.
   *
   * @throws {RestoreRefusedError} If something in the text is refused. Tables before the one at fault may be changed.
   * @throws {ExecError} If the tool cannot run, or the tables stay locked.
   */
  restore(input: string | Iterable<string>, signal?: AbortSignal): Promise<void>;
  /** Makes a chain exist. */
  ensureChain(table: AnyTable, chain: ChainName, signal?: AbortSignal): Promise<void>;
  /** True if the chain is there; an error is not a "no". */
  hasChain(table: AnyTable, chain: ChainName, signal?: AbortSignal): Promise<boolean>;
  /** Deletes an empty chain that nothing refers to. */
  deleteChain(table: AnyTable, chain: ChainName, signal?: AbortSignal): Promise<void>;
}

/** A restore over an empty table of 10,000 services takes tens of seconds on a slow node. */
const TIMEOUT_MS = 300_000;
/** How long contention for the lock is waited out, over all tries; each try waits 5 s in the tool. */
const LOCK_DEADLINE_MS = 60_000;
const LOCK_RETRY_MS = 200;

/**
 * Runs one of the programs, again and again while another one holds the lock of the tables.
 *
 * @throws {ExecError} As `exec` does; also if the tables are still locked after a minute.
 */
export async function runUntilUnlocked(
  command: Command,
  { exec, clock }: { readonly exec: Exec; readonly clock: Clock },
  signal?: AbortSignal,
): Promise<string> {
  const deadline = clock.now() + LOCK_DEADLINE_MS;
  for (;;) {
    try {
      return await exec.run(command, signal);
    } catch (error) {
      if (!saysLocked(error) || clock.now() >= deadline || signal?.aborted) throw error;
      await clock.sleep(LOCK_RETRY_MS, signal);
    }
  }
}

/** The programs of one family, for `exec` to start. */
export function createTools(info: ToolsInfo, deps: { readonly exec: Exec; readonly clock: Clock }): Tools {
  const { binaries } = info;
  const wait = info.features.wait ? ['-w', '5'] : [];
  let last: Promise<unknown> = Promise.resolve();

  function run(argv: readonly [string, ...string[]], options: { stdin?: Command['stdin']; signal?: AbortSignal }) {
    const { stdin, signal } = options;
    const command: Command = { argv, timeoutMs: TIMEOUT_MS, ...(stdin === undefined ? {} : { stdin }) };
    const mine = last.then(() => runUntilUnlocked(command, deps, signal));
    last = mine.catch(() => {});
    return mine;
  }

  const onRules = (op: '-N' | '-S' | '-X', chain: ChainName, table: AnyTable, signal?: AbortSignal) =>
    run([binaries.iptables, ...wait, op, chain, '-t', table], signal ? { signal } : {});

  return {
    ...info,
    save: (table, signal) => run([binaries.save, '-t', table], signal ? { signal } : {}),
    async restore(input, signal) {
      try {
        const argv = [binaries.restore, ...wait, '--noflush', '--counters'] as const;
        await run(argv, signal ? { stdin: input, signal } : { stdin: input });
      } catch (error) {
        if (error instanceof ExecError && error.failure.code === 'EXITED' && !saysLocked(error)) {
          const { lines, reason } = parseRestoreError(error.stderr);
          throw new RestoreRefusedError(lines, reason, { cause: error });
        }
        throw error;
      }
    },
    async ensureChain(table, chain, signal) {
      try {
        await onRules('-N', chain, table, signal);
      } catch (error) {
        // Status 1: it exists.
        if (!exitedWith(error, 1)) throw error;
      }
    },
    async hasChain(table, chain, signal) {
      try {
        await onRules('-S', chain, table, signal);
        return true;
      } catch (error) {
        if (exitedWith(error, 1)) return false;
        throw error;
      }
    },
    async deleteChain(table, chain, signal) {
      await onRules('-X', chain, table, signal);
    },
  };
}
