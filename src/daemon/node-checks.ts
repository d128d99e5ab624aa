/**
 * What on this node would keep a proxy from its work, or undo it: each a line that says what to do. Nothing here is a reason
 * to end; what is one ends the start where it is met.
 *
 * @module
 */

import type { OpenMode } from '../modes/index.ts';
import type { OtherFlavourUsers } from '../modes/rulesets.ts';
import type { Sysctl } from '../sys/proc.ts';
import type { Processes } from '../sys/processes.ts';

/** capabilities(7): the number of each is its bit. */
const CAPABILITIES: readonly { readonly name: string; readonly bit: bigint }[] = [
  { name: 'NET_ADMIN', bit: 12n },
  { name: 'NET_RAW', bit: 13n },
];

/** How far apart two clocks may be before certificates and tokens fail for it. */
const MAX_SKEW_MS = 60_000;

export interface NodeLook {
  readonly sysctl: Sysctl;
  readonly processes: Processes;
  /** Effective capabilities of this process as bits; undefined if they cannot be read. */
  readonly capabilities: () => bigint | undefined;
  readonly otherFlavourUsers: OtherFlavourUsers;
}

/** What is missing before anything of the kernel is touched. */
export function checkPermissions(look: Pick<NodeLook, 'capabilities'>, isLegacy: boolean): readonly string[] {
  const has = look.capabilities();
  if (has === undefined) return [];
  const needed = CAPABILITIES.filter(({ name }) => name === 'NET_ADMIN' || isLegacy);
  const missing = needed.filter(({ bit }) => (has & (1n << bit)) === 0n).map(({ name }) => `CAP_${name}`);
  if (missing.length === 0) return [];
  return [
    `this process lacks ${missing.join(' and ')}: run it as root, or grant it (securityContext.capabilities.add of the container)`,
  ];
}

/** True for the command line of a service proxy. */
export function isProxy(argv: readonly string[]): boolean {
  const [program = ''] = argv;
  if (/(?:^|\/)kube-proxy$/.test(program)) return true;
  const at = argv.findIndex((word) =>
    /(?:^|\/)(?:switchyard|switchyard\/(?:src\/main\.ts|dist\/main\.js))$/.test(word),
  );
  return at >= 0 && argv[at + 1] === 'run';
}

/**
 * Looks at the node.
 *
 * @param families - Those that are served.
 */
export async function checkNode(
  look: NodeLook,
  { mode, families }: { readonly mode: Pick<OpenMode, 'flavour'>; readonly families: readonly string[] },
): Promise<readonly string[]> {
  const warnings = [...checkPermissions(look, mode.flavour === 'legacy')];
  const rivals = look.processes.here().filter(isProxy);
  for (const argv of rivals) {
    const command = argv.slice(0, 3).join(' ');
    warnings.push(`another proxy runs on this node ("${command}"): both undo each other's work, stop one of them`);
  }
  const { sysctl } = look;
  if (sysctl.get('net/netfilter/nf_conntrack_max') === undefined) {
    warnings.push(
      'the kernel has no connection tracking, without which no address is translated: modprobe nf_conntrack',
    );
  }
  const forwarding = { IPv4: 'net/ipv4/ip_forward', IPv6: 'net/ipv6/conf/all/forwarding' } as const;
  for (const [family, name] of Object.entries(forwarding)) {
    if (families.includes(family) && sysctl.get(name) === 0) {
      const what = `${family} packets are not forwarded, so that nobody but this node reaches pods through a Service`;
      warnings.push(`${what}: sysctl -w ${name.replaceAll('/', '.')}=1`);
    }
  }
  const own = mode.flavour;
  const users = own === undefined ? [] : await look.otherFlavourUsers(own).catch(() => []);
  if (own !== undefined && users.length > 0) {
    const other = own === 'nft' ? 'legacy' : 'nft';
    const what = `${users.join(', ')} on this node ${users.length === 1 ? 'has' : 'have'} rules in the ${other} flavour of iptables, this proxy writes ${own}`;
    warnings.push(`${what}; packets meet both: use one of them (--iptables-flavour ${other}, or update-alternatives)`);
  }
  return warnings;
}

/**
 * Compares the clocks.
 *
 * @param skewMs - Time of the API server less our own; undefined if unknown.
 */
export function checkClock(skewMs: number | undefined, nowMs: number): readonly string[] {
  if (skewMs === undefined || Math.abs(skewMs) < MAX_SKEW_MS) return [];
  const by = `${Math.round(Math.abs(skewMs) / 1000)} s ${skewMs > 0 ? 'behind' : 'ahead of'}`;
  return [
    `the clock of this node (${new Date(nowMs).toISOString()}) is ${by} the API server's: set it, certificates and tokens are valid by it`,
  ];
}

/** What to do about a failure of TLS that the clock may be the cause of; undefined for every other one. */
export function clockHint(why: string, nowMs: number): string | undefined {
  if (!/not yet valid|has expired|CERT_NOT_YET_VALID|CERT_HAS_EXPIRED/i.test(why)) return undefined;
  return `by the clock of this node it is ${new Date(nowMs).toISOString()}: is it right?`;
}
