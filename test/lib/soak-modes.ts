/**
 * What a soak must know of a mode: how to configure it, and what it has in the kernel.
 *
 * @module
 */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { ModeName } from '../../src/modes/mode.ts';
import type { Fields } from './live-objects.ts';
import { type LiveProxy, ourRules } from './live-proxy.ts';

export interface SoakedMode {
  readonly name: string;
  readonly mode: ModeName;
  /** Fields of the configuration. */
  readonly config: Fields;
  /** All that is ours in the kernel in one order, whatever order it came in; '' if there is nothing. */
  dump(proxy: LiveProxy): Promise<string>;
  /** Whether the kernel has an IPv4 address anywhere in what is ours; cheaper than a dump. */
  has(proxy: LiveProxy, address: string): Promise<boolean>;
}

/** What is left in the kernel goes at least this often. */
export const SYNC_PERIOD_MS = 4000;

const periods = { minSyncPeriod: '0s', syncPeriod: `${SYNC_PERIOD_MS}ms` };

async function iptablesDump(proxy: LiveProxy): Promise<string> {
  const dumps = await Promise.all((['iptables', 'ip6tables'] as const).map((tool) => proxy.dump(tool)));
  return dumps
    .map(ourRules)
    .filter((rules) => rules !== '')
    .join('\n');
}

/** What packets and time change. */
const PASSING = new Set(['packets', 'bytes', 'expires', 'handle', 'index']);
const lasting = (value: unknown) => JSON.stringify(value, (key, field) => (PASSING.has(key) ? undefined : field));

/** What `nft` says; the API server in this process goes on meanwhile. */
async function nft(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)('nft', args, { maxBuffer: 1 << 28 });
  return stdout;
}

/** One line for each table, chain, set, map, rule and element. Rules keep their order within a chain. */
async function nftablesDump(): Promise<string> {
  const { nftables = [] }: { nftables?: Fields[] } = JSON.parse(await nft('-j', 'list', 'ruleset'));
  const rules = new Map<string, number>();
  const told = nftables.flatMap((entry) =>
    Object.entries(entry).flatMap(([kind, value]) => {
      if (kind === 'metainfo') return [];
      const { elem, ...fields } = value as Fields;
      const { family, table, name, chain } = fields;
      const of = `${family} ${table ?? ''} ${chain ?? name} ${kind}`;
      const at = rules.get(of) ?? 0;
      rules.set(of, at + 1);
      const elements = Array.isArray(elem) ? elem.map((one) => `${of} element ${lasting(one)}`) : [];
      return [`${of} ${String(at).padStart(4, '0')} ${lasting(fields)}`, ...elements];
    }),
  );
  return told.sort().join('\n');
}

export const SOAKED_MODES: readonly SoakedMode[] = [
  {
    name: 'iptables',
    mode: 'iptables',
    config: { iptables: periods },
    dump: iptablesDump,
    has: async (proxy, address) => (await proxy.dump('iptables')).includes(address),
  },
  ...(['chains', 'maps'] as const).map(
    (layout): SoakedMode => ({
      name: `nftables, ${layout}`,
      mode: 'nftables',
      config: { mode: 'nftables', nftables: { ...periods, layout } },
      dump: nftablesDump,
      has: async (_proxy, address) => (await nft('list', 'table', 'ip', 'kube-proxy')).includes(address),
    }),
  ),
];
