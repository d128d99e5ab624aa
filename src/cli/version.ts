/**
 * `version`: what this build is.
 *
 * @module
 */

import { Command, Option } from 'commander';
import { versionInfo, versionLine } from '../version.ts';
import type { ExitCode, Io } from './command.ts';

export function versionCommand(io: Io, exit: (code: ExitCode) => void): Command {
  return new Command('version')
    .description('Print the version')
    .addOption(new Option('-o, --output <format>', 'Format').choices(['text', 'json']).default('text'))
    .action(async ({ output }: { readonly output: 'text' | 'json' }) => {
      io.stdout.write(output === 'json' ? `${JSON.stringify(versionInfo(), null, 2)}\n` : `${versionLine()}\n`);
      exit(0);
    });
}
