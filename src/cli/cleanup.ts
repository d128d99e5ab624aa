/**
 * `cleanup`: takes the rules of a service proxy out of the kernel, whichever mode they are of and whoever wrote them.
 *
 * @module
 */

import { Command, Option } from 'commander';
import type { Ruleset } from '../modes/rulesets.ts';
import type { ExitCode, Io } from './command.ts';

export interface CleanupOptions {
  readonly output: 'text' | 'json';
}

const EXAMPLES = `
Examples:
  switchyard cleanup
  switchyard cleanup --output json

Takes away what Switchyard or kube-proxy has programmed on this node in any mode: chains and jumps of iptables in both
flavours, the tables of nftables. What kubelet, CNI plug-ins, network policies and users have there stays, and so do
KUBE-FIREWALL, which kubelet shares, kernel settings and established connections. Stop the proxy first: one that runs
writes its rules again. Needs CAP_NET_ADMIN (and CAP_NET_RAW for the legacy flavour).

Exit code: 0 all is gone, 1 something stays or may stay, 2 wrong usage.`;

/** What became of one ruleset. */
interface Outcome {
  readonly ruleset: string;
  readonly removed: readonly string[];
  readonly kept: readonly string[];
  readonly errors: readonly string[];
}

/**
 * Removes every ruleset and prints a line for each, or one JSON array.
 *
 * @returns 0, or 1 if something stays; what and why is in the output.
 */
export async function runCleanup({ output }: CleanupOptions, io: Io, rulesets: readonly Ruleset[]): Promise<ExitCode> {
  const outcomes: Outcome[] = [];
  for (const ruleset of rulesets) {
    const { removed, kept, errors } = await ruleset.remove(io.signal);
    outcomes.push({ ruleset: ruleset.name, removed, kept, errors: errors.map((error) => error.message) });
  }
  if (output === 'json') io.stdout.write(`${JSON.stringify(outcomes, null, 2)}\n`);
  else io.stdout.write(outcomes.map((outcome) => `${describe(outcome)}\n`).join(''));
  return outcomes.every(({ kept, errors }) => kept.length === 0 && errors.length === 0) ? 0 : 1;
}

function describe({ ruleset, removed, kept, errors }: Outcome): string {
  const gone = removed.length > 0 ? `removed ${removed.join('; ')}` : 'nothing there';
  const told = removed.length > 0 || kept.length + errors.length === 0 ? [gone] : [];
  const parts = [...told, ...kept.map((text) => `kept ${text}`), ...errors];
  return parts.map((part) => `${ruleset}: ${part}`).join('\n');
}

export function cleanupCommand(io: Io, exit: (code: ExitCode) => void): Command {
  return new Command('cleanup')
    .description("Take all rules of a service proxy out of this node's kernel, in every mode")
    .addOption(new Option('-o, --output <format>', 'Format').choices(['text', 'json']).default('text'))
    .addHelpText('after', EXAMPLES)
    .action(async (options: CleanupOptions) => {
      const { realRulesets } = await import('../modes/rulesets.ts');
      exit(await runCleanup(options, io, realRulesets()));
    });
}
