/**
 * How the lab looks at the rules of a mode and at what a request met of them.
 *
 * @module
 */

import type { ModeName } from '../modes/mode.ts';
import type { Family } from '../proxier/types.ts';
import { realClock } from '../sys/clock.ts';
import { ExecError } from '../sys/exec.ts';
import type { Namespace } from './namespace.ts';
import { isTraceComplete, pathOfTrace } from './nft-path.ts';
import { type Counters, countedBetween, type Path, parseCounters, pathOf } from './path.ts';

export interface Observer {
  /**
   * Makes one request, and says which way it took. One at a time.
   *
   * @returns The path is undefined if it cannot be told.
   */
  follow<T>(
    request: () => Promise<T>,
    to: { readonly address: string; readonly port: number },
    origin: 'node' | 'elsewhere',
  ): Promise<{ readonly outcome: T; readonly path: Path | undefined }>;
  /** All rules of a family as the tool of the mode lists them, without counters. */
  rules(family: Family): Promise<string>;
}

const TIMEOUT_MS = 10_000;

/** For the rules of a mode in the node's namespace. */
export function createObserver(node: Namespace, mode: ModeName): Observer {
  return mode === 'nftables' ? nftables(node) : iptables(node);
}

const SAVE: Readonly<Record<Family, string>> = { IPv4: 'iptables-save', IPv6: 'ip6tables-save' };

/** By packet counters, before and after. */
function iptables(node: Namespace): Observer {
  const readCounters = async (family: Family): Promise<Counters> =>
    parseCounters(await node.exec.run({ argv: [SAVE[family], '-c'], timeoutMs: TIMEOUT_MS }));
  return {
    follow: async (request, { address }, origin) => {
      const family = address.includes(':') ? 'IPv6' : 'IPv4';
      const before = await readCounters(family);
      const outcome = await request();
      const counted = countedBetween(before, await readCounters(family));
      return { outcome, path: counted && pathOf(counted, origin) };
    },
    rules: async (family) => {
      const text = await node.exec.run({ argv: [SAVE[family]], timeoutMs: TIMEOUT_MS });
      return text.replace(/^#.*\n/gm, '').replace(/ \[\d+:\d+\]$/gm, '');
    },
  };
}

const TRACE_TABLE = 'lab-trace';
/** How long what the kernel tells of a packet may take to get here. */
const TRACE_MS = 2_000;

/** A table of its own, which the proxy does not mind, has the kernel tell of first packets to one place. */
function traceTable(address: string, port: number): string {
  const word = address.includes(':') ? 'ip6' : 'ip';
  const rules = [`tcp dport ${port} tcp flags & (syn | ack) == syn`, `udp dport ${port}`]
    .map((match) => `${word} daddr ${address} ${match} meta nftrace set 1 ;`)
    .join(' ');
  return [
    `table inet ${TRACE_TABLE} {`,
    `  chain in { type filter hook prerouting priority -500 ; ${rules} }`,
    `  chain out { type filter hook output priority -500 ; ${rules} }`,
    '}',
    '',
  ].join('\n');
}

/** By the kernel's trace. */
function nftables(node: Namespace): Observer {
  const nft = (argv: readonly string[], stdin = '') =>
    node.exec.run({ argv: ['nft', ...argv], stdin, timeoutMs: TIMEOUT_MS });
  let heard = '';
  let pid = 0;
  node.onEvent((said) => {
    if (said.event === 'output' && said.pid === pid) heard += said.text;
  });
  const until = async (isDone: () => boolean | Promise<boolean>) => {
    const endMs = performance.now() + TRACE_MS;
    while (performance.now() < endMs && !(await isDone())) await realClock.sleep(10);
  };
  return {
    follow: async (request, { address, port }) => {
      await nft(['-f', '-'], traceTable(address, port));
      heard = '';
      ({ pid } = await node.ask('start', { argv: ['stdbuf', '-oL', 'nft', 'monitor', 'trace'] }));
      try {
        await until(async () => isListening(await readNetlink(node)));
        const outcome = await request();
        await until(() => isTraceComplete(heard));
        return { outcome, path: pathOfTrace(heard) };
      } finally {
        await node.ask('signal', { pid, signal: 'SIGKILL' });
        await nft(['delete', 'table', 'inet', TRACE_TABLE]);
      }
    },
    rules: async (family) => {
      try {
        return await nft(['-s', 'list', 'table', family === 'IPv4' ? 'ip' : 'ip6', 'kube-proxy']);
      } catch (error) {
        if (error instanceof ExecError && error.stderr.includes('No such file or directory')) return '';
        throw error;
      }
    },
  };
}

const readNetlink = (node: Namespace) => node.exec.run({ argv: ['cat', '/proc/net/netlink'], timeoutMs: TIMEOUT_MS });

/** Somebody is in group NFNLGRP_NFTRACE (9) of NETLINK_NETFILTER (12): columns sk, Eth, Pid, Groups. */
function isListening(table: string): boolean {
  return table.split('\n').some((line) => /^\S+\s+12\s+\d+\s+0*100\s/.test(line));
}
