/**
 * The program `ipset`: sets are listed and changed as text, all of them by one process.
 *
 * @module
 */

import { parseCidr, parseIP } from '../../proxier/addr.ts';
import { type Exec, ExecError } from '../../sys/exec.ts';

/** Name of a set → its elements, as `formatEntry` writes them. */
export type ListedSets = ReadonlyMap<string, ReadonlySet<string>>;

export interface Ipsets {
  /** All sets there are, foreign ones too. */
  list(signal?: AbortSignal): Promise<ListedSets>;
  /**
   * Runs commands (`create`, `add`, `del`, `destroy`) in their order. To make what is there and to take away what is not is no error.
   *
   * @throws {IpsetRefusedError} If one is refused. Those behind it are not done, those in front of it perhaps.
   */
  run(commands: readonly string[], signal?: AbortSignal): Promise<void>;
}

/** A command was refused: giving it again gives the same. */
export class IpsetRefusedError extends Error {
  override readonly name = 'IpsetRefusedError';
  /** Position in the commands, from 0; undefined if the program named none. */
  readonly position: number | undefined;
  /** What the program said, on one line. */
  readonly reason: string;

  constructor(position: number | undefined, reason: string, options?: ErrorOptions) {
    super(`Cannot change sets: ${reason || 'ipset says nothing'}`, options);
    this.position = position;
    this.reason = reason;
  }
}

const PROGRAM = 'ipset';
const TIMEOUT_MS = 60_000;

/** An element in the form of `formatEntry`: the C library prints some IPv6 addresses otherwise. Unknown forms stay as they are. */
function canonical(element: string): string {
  if (!element.includes(':')) return element;
  const parts = element.split(',').map((part) => {
    if (part.includes('/')) return parseCidr(part)?.cidr ?? part;
    return parseIP(part)?.ip ?? part;
  });
  return parts.join(',');
}

/** Reads what `ipset save` prints. What follows an element, such as a timeout, is left out. */
export function parseSets(text: string): ListedSets {
  const sets = new Map<string, Set<string>>();
  for (const line of text.split('\n')) {
    const [verb, name = '', element = ''] = line.split(' ', 3);
    if (verb === 'create') sets.set(name, new Set());
    else if (verb === 'add') sets.get(name)?.add(canonical(element));
  }
  return sets;
}

/** Takes the version out of what `ipset --version` prints: `[6, 38]`; undefined if there is none. */
export function parseIpsetVersion(text: string): readonly [number, number] | undefined {
  const [, major, minor] = /v([0-9]+)\.([0-9]+)/.exec(text) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor)];
}

/**
 * @returns The version, as `7.17`.
 * @throws {ExecError} If the program cannot run.
 * @throws {Error} If it is older than 6.0.
 */
export async function probeIpset(exec: Exec, signal?: AbortSignal): Promise<string> {
  const said = await exec.run({ argv: [PROGRAM, '--version'], timeoutMs: TIMEOUT_MS }, signal);
  const version = parseIpsetVersion(said);
  if (version === undefined || version[0] < 6) {
    throw new Error(`Cannot use ipset: it says ${JSON.stringify(said.trim())}, it must be version 6.0 or newer`);
  }
  return version.join('.');
}

export function createIpsets(exec: Exec): Ipsets {
  return {
    list: async (signal) => parseSets(await exec.run({ argv: [PROGRAM, 'save'], timeoutMs: TIMEOUT_MS }, signal)),
    async run(commands, signal) {
      if (commands.length === 0) return;
      const stdin = `${commands.join('\n')}\n`;
      try {
        await exec.run({ argv: [PROGRAM, '-exist', 'restore'], stdin, timeoutMs: TIMEOUT_MS }, signal);
      } catch (error) {
        if (!(error instanceof ExecError) || error.failure.code !== 'EXITED') throw error;
        const reason = error.stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
        const line = /Error in line (\d+):/.exec(reason)?.[1];
        throw new IpsetRefusedError(line === undefined ? undefined : Number(line) - 1, reason, { cause: error });
      }
    },
  };
}
