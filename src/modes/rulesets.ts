/**
 * The rulesets a service proxy may have left in this kernel, whoever ran it: ours and kube-proxy's have the same names. Each
 * can be looked for without starting a program, and taken away.
 *
 * Of iptables mode there are two, since the flavours do not see each other's rules and packets meet both.
 *
 * @module
 */

import { probeFamily } from '../iptables/probe.ts';
import type { AnyTable, Flavour } from '../iptables/tools.ts';
import { kernelAnswered } from '../netlink/error.ts';
import { createNftables } from '../netlink/nftables/kernel-nftables.ts';
import type { Nftables } from '../netlink/nftables/nftables.ts';
import { FAMILIES, type Family } from '../proxier/types.ts';
import { type Clock, realClock } from '../sys/clock.ts';
import { type Exec, realExec } from '../sys/exec.ts';
import { type LegacyTables, realLegacyTables } from '../sys/legacy-tables.ts';
import { removeRules } from './iptables/cleanup.ts';
import { CANARY, EXTERNAL_SERVICES, FORWARD, NODEPORTS, PROXY_FIREWALL, SERVICES } from './iptables/names.ts';
import { usersOfOtherFlavour } from './iptables/other-flavour.ts';
import type { ModeName } from './mode.ts';
import { TABLE } from './nftables/base-chains.ts';
import { removeTable } from './nftables/cleanup.ts';
import { nftFamily } from './nftables/create.ts';

/** `perhaps`: only the programs of the ruleset can tell. */
export type Presence = 'none' | 'some' | 'perhaps';

/** What was taken away. */
export interface Removal {
  /** One line a family, in words, as in `IPv4: 34 chains, 120 rules`; empty if there was nothing. */
  readonly removed: readonly string[];
  /** What stays although it is a proxy's, and why. */
  readonly kept: readonly string[];
  /** What could not be done. */
  readonly errors: readonly Error[];
}

export interface Ruleset {
  readonly mode: ModeName;
  /** Of iptables mode; undefined for the others. */
  readonly flavour: Flavour | undefined;
  /** Modes that write to the same chains: they take such a ruleset over, and must not remove it. */
  readonly sharedWith: readonly ModeName[];
  /** For people: `iptables (nft)`. */
  readonly name: string;
  /** Takes microseconds. @throws {NetlinkError} If the kernel does not let us look. */
  look(family: Family): Presence;
  /** Takes all of it away, in both families; starts programs only where there may be something. */
  remove(signal?: AbortSignal): Promise<Removal>;
}

export interface RulesetDeps {
  readonly exec: Exec;
  readonly clock: Clock;
  readonly nft: Pick<Nftables, 'hasTable' | 'hasChain' | 'commit'>;
  readonly legacyTables: LegacyTables;
}

/** Chains that nobody but a service proxy makes: kubelet had KUBE-MARK-MASQ and KUBE-POSTROUTING, too. */
const TELLING: readonly (readonly [AnyTable, string])[] = [
  ['nat', SERVICES],
  ['filter', SERVICES],
  ['filter', EXTERNAL_SERVICES],
  ['nat', NODEPORTS],
  ['filter', NODEPORTS],
  ['filter', FORWARD],
  ['filter', PROXY_FIREWALL],
  ['nat', CANARY],
  ['filter', CANARY],
  ['mangle', CANARY],
];

const UNREADABLE =
  'the list of legacy tables (/proc/net/ip_tables_names) cannot be read; run as root, or with the supplementary group 0';

/** Those of the kernel, of this network namespace. */
export function realRulesets(): readonly Ruleset[] {
  return createRulesets({ exec: realExec, clock: realClock, nft: createNftables(), legacyTables: realLegacyTables });
}

/** Who writes rules in the other flavour of iptables; see `usersOfOtherFlavour`. */
export type OtherFlavourUsers = (own: Flavour) => Promise<readonly string[]>;

/** Of the kernel, in this network namespace. */
export const realOtherFlavourUsers: OtherFlavourUsers = (own) =>
  usersOfOtherFlavour(own, { exec: realExec, nft: createNftables(), legacyTables: realLegacyTables });

/** All rulesets there can be. */
export function createRulesets(deps: RulesetDeps): readonly Ruleset[] {
  return [iptables('nft', deps), iptables('legacy', deps), nftables(deps)];
}

function iptables(flavour: Flavour, deps: RulesetDeps): Ruleset {
  const { nft, legacyTables } = deps;
  const look = (family: Family): Presence => {
    if (flavour === 'legacy') return legacyTables.names(family)?.length === 0 ? 'none' : 'perhaps';
    return TELLING.some(([table, chain]) => nft.hasChain(nftFamily(family), table, chain)) ? 'some' : 'none';
  };
  return {
    mode: 'iptables',
    flavour,
    sharedWith: ['ipvs'],
    name: `iptables (${flavour})`,
    look,
    remove: async (signal) => {
      const removal = { removed: [] as string[], kept: [] as string[], errors: [] as Error[] };
      for (const family of FAMILIES) {
        await attempt(
          removal.errors,
          `take the rules of iptables (${flavour}) away for ${family}, if there are any`,
          async () => {
            if (look(family) === 'none') return;
            // Not by its program: to ask that makes tables.
            if (flavour === 'legacy' && legacyTables.names(family) === undefined) throw new Error(UNREADABLE);
            const found = await probeFamily(family, flavour, deps);
            // The kernel has tables of this flavour, so whatever is missing keeps us from seeing what is in them.
            if (found.kind === 'absent') throw found.error;
            const { chains, rules, held, errors } = await removeRules(found.tools, signal);
            if (chains + rules > 0) removal.removed.push(`${family}: ${chains} chains, ${rules} rules`);
            for (const chain of held)
              removal.kept.push(`${family}: ${chain}, empty: a rule of somebody else jumps to it`);
            removal.errors.push(...errors);
          },
        );
      }
      return removal;
    },
  };
}

function nftables({ nft }: RulesetDeps): Ruleset {
  return {
    mode: 'nftables',
    flavour: undefined,
    sharedWith: [],
    name: 'nftables',
    look: (family) => (nft.hasTable(nftFamily(family), TABLE) ? 'some' : 'none'),
    remove: async () => {
      const removal = { removed: [] as string[], kept: [], errors: [] as Error[] };
      for (const family of FAMILIES) {
        await attempt(removal.errors, `take the rules of nftables away for ${family}`, async () => {
          if (removeTable(family, nft)) removal.removed.push(`${family}: table ${nftFamily(family)} ${TABLE}`);
        });
      }
      return removal;
    },
  };
}

async function attempt(errors: Error[], what: string, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const todo = kernelAnswered(cause, 'EPERM') ? '; run as root with CAP_NET_ADMIN' : '';
    errors.push(new Error(`Cannot ${what}: ${why}${todo}`, { cause }));
  }
}
