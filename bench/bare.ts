/**
 * What the tool alone takes for the same rules: `iptables-restore` fed with text made here, in a namespace of its own.
 *
 * The text is made by a few lines that know nothing of our renderer, so that a mistake there does not hide itself.
 *
 * @module
 */

import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { runWith } from './run.ts';
import { clusterIP, endpointIP, median } from './world.ts';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

function base32(bytes: Uint8Array, length: number): string {
  let out = '';
  let value = 0;
  let bits = 0;
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 5 && out.length < length) {
      bits -= 5;
      out += ALPHABET[(value >> bits) & 31];
    }
  }
  return out;
}

const hash = (text: string) => base32(createHash('sha256').update(text).digest(), 16);

interface Lines {
  readonly chains: string[];
  readonly shared: string[];
  readonly rules: string[];
}

function linesOf(i: number, ks: readonly number[]): Lines {
  const name = `ns-${i % 50}/svc-${i}:http`;
  const svc = `KUBE-SVC-${hash(`${name}tcp`)}`;
  const at = `-m comment --comment "${name} cluster IP" -m tcp -p tcp -d ${clusterIP(i)} --dport 80`;
  const chains = [svc];
  const rules = [`-A ${svc} ${at} ! -s 10.128.0.0/9 -j KUBE-MARK-MASQ`];
  for (const [n, k] of ks.entries()) {
    const ep = `${endpointIP(i, k)}:80`;
    const sep = `KUBE-SEP-${hash(`${name}tcp${ep}`)}`;
    const left = ks.length - n;
    const random = left > 1 ? `-m statistic --mode random --probability ${(1 / left).toFixed(10)} ` : '';
    chains.push(sep);
    rules.push(
      `-A ${svc} -m comment --comment "${name} -> ${ep}" ${random}-j ${sep}`,
      `-A ${sep} -m comment --comment ${name} -s ${endpointIP(i, k)} -j KUBE-MARK-MASQ`,
      `-A ${sep} -m comment --comment ${name} -m tcp -p tcp -j DNAT --to-destination ${ep}`,
    );
  }
  return { chains, shared: [`${at} -j ${svc}`], rules };
}

const nat = (lines: readonly string[]) => `*nat\n${lines.join('\n')}\nCOMMIT\n`;
const declare = (chains: readonly string[]) => chains.map((c) => `:${c} - [0:0]`);

/** Times in ms. All in one namespace that goes away with the call. */
export function bareTool(
  services: number,
  endpoints: number,
): { readonly bareColdMs: number; readonly bareChangeMs: number; readonly bareRewriteMs: number } {
  const dir = mkdtempSync(`${tmpdir()}/bare-`);
  const ks = Array.from({ length: endpoints }, (_, k) => k);
  // The jumps count: at each commit the kernel walks everything that can be reached from a base chain.
  const inputs: string[] = [
    nat([
      ...declare(['KUBE-SERVICES', 'KUBE-MARK-MASQ']),
      '-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
      '-A PREROUTING -j KUBE-SERVICES',
      '-A OUTPUT -j KUBE-SERVICES',
    ]),
  ];
  const shared: string[] = [];
  for (let from = 0; from < services; from += 250) {
    const all = Array.from({ length: Math.min(250, services - from) }, (_, n) => linesOf(from + n, ks));
    const jumps = all.flatMap((l) => l.shared);
    shared.push(...jumps);
    inputs.push(
      nat([
        ...all.flatMap((l) => declare(l.chains)),
        ...all.flatMap((l) => l.rules),
        ...jumps.map((rule) => `-I KUBE-SERVICES ${rule}`),
      ]),
    );
  }
  const cold = inputs.length;
  for (let flip = 0; flip < 5; flip++) {
    const i = Math.floor((services * (flip + 1)) / 7);
    const [before, after] = [linesOf(i, ks), linesOf(i, [9])];
    const gone = before.chains.slice(1);
    inputs.push(nat([...declare([...after.chains, ...gone]), ...after.rules, ...gone.map((c) => `-X ${c}`)]));
  }
  for (let again = 0; again < 3; again++) {
    inputs.push(nat([':KUBE-SERVICES - [0:0]', ...shared.map((rule) => `-A KUBE-SERVICES ${rule}`)]));
  }
  for (const [n, text] of inputs.entries()) writeFileSync(`${dir}/${n}`, text);
  const script = new URL('./bare-times.ts', import.meta.url).pathname;
  const out = runWith('', 'unshare', '-n', '-m', process.execPath, script, dir, String(inputs.length));
  rmSync(dir, { recursive: true });
  const times = JSON.parse(out) as number[];
  return {
    bareColdMs: Math.round(times.slice(0, cold).reduce((a, b) => a + b, 0)),
    bareChangeMs: Math.round(median(times.slice(cold, cold + 5))),
    bareRewriteMs: Math.round(median(times.slice(cold + 5))),
  };
}
