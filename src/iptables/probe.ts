/**
 * Which iptables programs this node uses, and what they and the kernel can.
 *
 * A node must use one flavour: rules of the other are seen by packets too, and by nobody who looks. kubelet leaves an empty chain
 * in the flavour it found (KUBE-IPTABLES-HINT), so that programs in containers with tools of their own can follow it.
 *
 * @module
 */

import { FAMILIES, type Family } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';
import { type Exec, ExecError } from '../sys/exec.ts';
import type { LegacyTables } from '../sys/legacy-tables.ts';
import { saysLocked } from './refusal.ts';
import { type Binaries, createTools, type Flavour, runUntilUnlocked, type Tools, type ToolsInfo } from './tools.ts';

const PROGRAMS: Readonly<Record<Family, string>> = { IPv4: 'iptables', IPv6: 'ip6tables' };
const HINT = /^:(?:KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) /m;
const TIMEOUT_MS = 60_000;
/** The first version whose restore waits for the lock and knows --random-fully. */
const WAIT_VERSION = [1, 6, 2] as const;

/**
 * How a kernel says that it lacks the family, the nat table or a module: an error of socket(2) or nfnetlink in the words of
 * strerror(3), or the words of libiptc for "no such table". Anything else, such as a missing permission, says nothing about the kernel.
 */
const NO_SUPPORT =
  /do you need to insmod|(?:Protocol|Address family|Operation) not supported|Protocol not available|generation id: Invalid argument|_ADD failed \(No such file or directory\)/;

/** Beside what a `ProbeDeps` has, for those who choose a flavour. */
export interface FlavourDeps extends ProbeDeps {
  readonly legacyTables: LegacyTables;
}

/** `CANNOT_LIST`: programs and kernel may have the family, with rules in it, and this process cannot see them. */
export type ProbeFailure = 'NOT_INSTALLED' | 'NO_KERNEL_SUPPORT' | 'CANNOT_LIST';

/** A family cannot be served; the message says what is missing and what to do. */
export class IptablesProbeError extends Error {
  override readonly name = 'IptablesProbeError';
  readonly code: ProbeFailure;

  constructor(code: ProbeFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Tools of a family, or why there are none. */
export type ProbeResult =
  | { readonly kind: 'present'; readonly tools: Tools }
  | { readonly kind: 'absent'; readonly error: IptablesProbeError };

export interface ProbeDeps {
  readonly exec: Exec;
  readonly clock: Clock;
}

type Run = (argv: readonly [string, ...string[]]) => Promise<string | undefined>;

function binariesOf(base: string): Binaries {
  return { iptables: base, save: `${base}-save`, restore: `${base}-restore` };
}

function flavourOf(versionText: string): Flavour {
  // Before 1.8.0 there was one flavour, and no word for it.
  return versionText.includes('(nf_tables)') ? 'nft' : 'legacy';
}

function versionOf(versionText: string): string | undefined {
  return /v([0-9]+(?:\.[0-9]+)+)/.exec(versionText)?.[1];
}

/** True if a version in dots is at least another. Missing parts are 0. */
export function versionAtLeast(version: string, least: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [i, want] of least.entries()) {
    const have = parts[i] ?? 0;
    if (have !== want) return have > want;
  }
  return true;
}

/**
 * Chooses the flavour: the one kubelet uses on this node, else the one the program named `iptables` has.
 *
 * @param asked - A fixed flavour is taken as it is.
 * @throws {IptablesProbeError} NOT_INSTALLED, if there are no iptables programs at all. CANNOT_LIST, if kubelet may use the legacy
 *   flavour and its program is not let look: rules in the other flavour would be seen by packets too, and by nobody who looks.
 * @throws {ExecError} If a program that is there hangs or dies, or the tables stay locked.
 */
export async function probeFlavour(asked: Flavour | 'auto', deps: FlavourDeps): Promise<Flavour> {
  if (asked !== 'auto') return asked;
  const run = quietly(deps);
  for (const family of FAMILIES) {
    const saved = await run([`${PROGRAMS[family]}-nft-save`, '-t', 'mangle']);
    if (saved !== undefined && HINT.test(saved)) return 'nft';
  }
  if (await hasLegacyHint(deps)) return 'legacy';
  for (const family of FAMILIES) {
    const version = await run([PROGRAMS[family], '--version']);
    if (version !== undefined) return flavourOf(version);
  }
  for (const flavour of ['nft', 'legacy'] as const) {
    for (const family of FAMILIES) {
      if ((await run([`${PROGRAMS[family]}-${flavour}`, '--version'])) !== undefined) return flavour;
    }
  }
  throw new IptablesProbeError(
    'NOT_INSTALLED',
    'Cannot find iptables: no iptables, iptables-nft or iptables-legacy on PATH; install the package iptables (1.8 or newer)',
  );
}

/**
 * Looks for kubelet's hint in the legacy flavour, without making tables: that loads their modules, and from then on every nft
 * listing warns of them.
 *
 * @throws {IptablesProbeError} CANNOT_LIST, if there is none to be seen, and one may be there.
 */
async function hasLegacyHint({ legacyTables, ...deps }: FlavourDeps): Promise<boolean> {
  let hidden: IptablesProbeError | undefined;
  for (const family of FAMILIES) {
    const names = legacyTables.names(family);
    if (names !== undefined && !names.includes('mangle')) continue;
    const program = `${PROGRAMS[family]}-legacy-save`;
    try {
      if (HINT.test(await runUntilUnlocked({ argv: [program, '-t', 'mangle'], timeoutMs: TIMEOUT_MS }, deps)))
        return true;
    } catch (cause) {
      if (saysLocked(cause) || !(cause instanceof ExecError)) throw cause;
      // Without the program there is no choice.
      if (cause.failure.code === 'NOT_STARTED') continue;
      if (cause.failure.code !== 'EXITED') throw cause;
      if (NO_SUPPORT.test(cause.stderr)) continue;
      const tables = names === undefined ? 'may have' : 'has';
      const what = `Cannot choose the flavour of iptables: the kernel ${tables} a legacy table mangle for ${family}, in which kubelet says that it uses it, and ${program} cannot list it (${firstLine(cause)})`;
      const todo =
        'run as root with CAP_NET_ADMIN and CAP_NET_RAW, or name the flavour that kubelet uses: --iptables-flavour';
      hidden ??= new IptablesProbeError('CANNOT_LIST', `${what}; ${todo}`, { cause });
    }
  }
  if (hidden !== undefined) throw hidden;
  return false;
}

function firstLine(error: ExecError): string {
  return error.stderr.trim().split('\n', 1)[0] ?? '';
}

/** A run whose failure is an answer: undefined. Anything but a program that is missing or says no is thrown. */
function quietly(deps: ProbeDeps): Run {
  return async (argv) => {
    try {
      return await runUntilUnlocked({ argv, timeoutMs: TIMEOUT_MS }, deps);
    } catch (error) {
      // A held lock is no answer: it says nothing about what is there.
      if (saysLocked(error)) throw error;
      if (error instanceof ExecError && (error.failure.code === 'NOT_STARTED' || error.failure.code === 'EXITED')) {
        return undefined;
      }
      throw error;
    }
  };
}

/** The programs of a flavour: those that carry it in their name, else the plain ones if they are of that flavour. */
async function findTools(family: Family, flavour: Flavour, run: Run): Promise<ToolsInfo | undefined> {
  const plain = PROGRAMS[family];
  for (const base of [`${plain}-${flavour}`, plain]) {
    const text = await run([base, '--version']);
    if (text === undefined || flavourOf(text) !== flavour) continue;
    const version = versionOf(text);
    const waits = version !== undefined && versionAtLeast(version, WAIT_VERSION);
    return { family, flavour, version, binaries: binariesOf(base), features: { randomFully: waits, wait: waits } };
  }
  return undefined;
}

/**
 * The tools of one family, if programs and kernel have what it takes: a nat table that can be listed.
 *
 * @throws {ExecError} If a program that is there hangs or dies, or the tables stay locked.
 */
export async function probeFamily(family: Family, flavour: Flavour, deps: ProbeDeps): Promise<ProbeResult> {
  const info = await findTools(family, flavour, quietly(deps));
  const program = PROGRAMS[family];
  if (info === undefined) {
    const what = `Cannot use iptables for ${family}: there is no ${program}-${flavour}, and no ${program} of that flavour, on PATH`;
    const error = new IptablesProbeError(
      'NOT_INSTALLED',
      `${what}; install the package iptables, or choose another flavour`,
    );
    return { kind: 'absent', error };
  }
  const wait = info.features.wait ? ['-w', '5'] : [];
  try {
    const argv = [info.binaries.iptables, ...wait, '-S', 'POSTROUTING', '-t', 'nat'] as const;
    await runUntilUnlocked({ argv, timeoutMs: TIMEOUT_MS }, deps);
  } catch (cause) {
    if (!(cause instanceof ExecError) || cause.failure.code !== 'EXITED' || saysLocked(cause)) throw cause;
    const modules =
      flavour === 'nft'
        ? 'nf_tables and nft_compat'
        : `${program.replace('tables', '_tables')} and ${program.replace('tables', 'table')}_nat`;
    // The legacy flavour asks the kernel through a raw socket.
    const capabilities = flavour === 'nft' ? 'CAP_NET_ADMIN' : 'CAP_NET_ADMIN and CAP_NET_RAW';
    const todo = `run as root with ${capabilities}, and load ${modules}`;
    const message = `Cannot use iptables for ${family}: ${info.binaries.iptables} cannot list the nat table (${firstLine(cause)}); ${todo}`;
    const code = NO_SUPPORT.test(cause.stderr) ? 'NO_KERNEL_SUPPORT' : 'CANNOT_LIST';
    return { kind: 'absent', error: new IptablesProbeError(code, message, { cause }) };
  }
  return { kind: 'present', tools: createTools(info, deps) };
}

/**
 * Looks at the node once: the flavour, then both families. Where it cannot be chosen, there is no flavour, and no family.
 *
 * @throws {ExecError} If a program that is there hangs or dies, or the tables stay locked.
 */
export async function probeIptables(
  asked: Flavour | 'auto',
  deps: FlavourDeps,
): Promise<{ readonly flavour: Flavour | undefined; readonly families: Readonly<Record<Family, ProbeResult>> }> {
  let flavour: Flavour;
  try {
    flavour = await probeFlavour(asked, deps);
  } catch (error) {
    if (!(error instanceof IptablesProbeError)) throw error;
    const absent: ProbeResult = { kind: 'absent', error };
    return { flavour: undefined, families: { IPv4: absent, IPv6: absent } };
  }
  const IPv4 = await probeFamily('IPv4', flavour, deps);
  const IPv6 = await probeFamily('IPv6', flavour, deps);
  return { flavour, families: { IPv4, IPv6 } };
}
