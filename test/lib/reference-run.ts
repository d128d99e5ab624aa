/**
 * Lives one recorded scenario through: this process stands in a network and mount namespace of its own, holds only lo and
 * the scenario's links, serves the recorded objects from an API server, and runs the real command against it.
 * After each step the kernel's rules, read back, are compared with the recording in normal form.
 *
 *     unshare -n -m node test/lib/reference-run.ts SCENARIO MODE      MODE: iptables-nft | iptables-legacy | nftables
 *
 * Prints one JSON line for each step and dump: {step, kind, diff}; diff is '' when both are the same.
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { createApiServer } from '../../src/lab/api/server.ts';
import { sleep } from './live-proxy.ts';
import { privateRun, sh } from './namespace.ts';
import { differenceOf, nftNormalForm, normalForm } from './normal-form.ts';
import { readRecording, readScenario } from './reference-scenarios.ts';

/** A step that is right is seen within a second or two; one that is wrong costs this long. */
const STEP_DEADLINE_MS = 20_000;
/** A right state must still be right this much later. */
const STILL_MS = 150;

/** One of the dumps that are compared after a step. */
interface Compared {
  /** Extension of its recordings. */
  readonly kind: string;
  /** In normal form, as the recording is brought into. */
  readonly read: () => string;
  readonly recorded: (text: string) => string;
}

interface RunMode {
  readonly mode: 'iptables' | 'nftables';
  readonly flags: readonly string[];
  readonly compared: readonly Compared[];
}

function iptables(flavour: 'nft' | 'legacy'): RunMode {
  const compared = ['iptables', 'ip6tables'].map((kind) => ({
    kind,
    read: () => normalForm(sh(`${kind}-${flavour}-save`)),
    recorded: normalForm,
  }));
  return { mode: 'iptables', flags: ['--iptables-flavour', flavour], compared };
}

const MODES: Readonly<Record<string, RunMode>> = {
  'iptables-nft': iptables('nft'),
  'iptables-legacy': iptables('legacy'),
  nftables: {
    mode: 'nftables',
    flags: [],
    compared: [
      {
        kind: 'nft',
        // What kube-proxy leaves for a later clean-up is not left at all.
        read: () => nftNormalForm(sh('nft', '-s', 'list', 'ruleset'), 'keep'),
        recorded: (text) => nftNormalForm(text, 'leave out'),
      },
    ],
  },
};

const root = fileURLToPath(new URL('../..', import.meta.url));
const [name = '', modeName = ''] = process.argv.slice(2);
const run = MODES[modeName];
if (run === undefined) throw new RangeError(`Cannot run mode "${modeName}": must be one of ${Object.keys(MODES)}`);
const { mode, flags, compared } = run;
const scenario = readScenario(name);

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The configuration of the recording: fixed fields, and the scenario's own merged into them one level deep. */
function configuration(kubeconfig: string): object {
  const config: Record<string, unknown> = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode,
    clientConnection: { kubeconfig },
    hostnameOverride: scenario.node.name,
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    healthzBindAddress: '127.0.0.1:10256',
    metricsBindAddress: '127.0.0.1:10249',
    [mode]: { minSyncPeriod: '0s' },
  };
  for (const [key, value] of Object.entries(scenario.proxy ?? {})) {
    const had = config[key];
    config[key] = isRecord(had) && isRecord(value) ? { ...had, ...value } : value;
  }
  return config;
}

function compare(step: number, { kind, read, recorded }: Compared): string {
  return differenceOf(recorded(readRecording(name, mode, step, kind)), read());
}

async function main(): Promise<void> {
  const dir = mkdtempSync(`${tmpdir()}/reference-`);
  privateRun();
  sh('mount', '-t', 'sysfs', 'sys', '/sys');
  sh('ip', 'link', 'set', 'lo', 'up');
  for (const [i, link] of scenario.node.links.entries()) {
    sh('ip', 'link', 'add', link.name, 'type', 'veth', 'peer', 'name', `peer${i}`);
    for (const a of link.addresses) sh('ip', 'addr', 'add', a, 'dev', link.name, ...(a.includes(':') ? ['nodad'] : []));
    sh('ip', 'link', 'set', link.name, 'up');
    sh('ip', 'link', 'set', `peer${i}`, 'up');
  }
  const api = await createApiServer({ host: '127.0.0.1', port: 0 });
  const [first, ...rest] = scenario.steps;
  await api.replaceAll(first?.objects ?? []);
  writeFileSync(`${dir}/kubeconfig`, api.kubeconfig());
  writeFileSync(`${dir}/config`, JSON.stringify(configuration(`${dir}/kubeconfig`)));
  const proxy = spawn(`${root}/bin/switchyard`, ['run', '--config', `${dir}/config`, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [proxy.stdout, proxy.stderr]) {
    stream.setEncoding('utf8').on('data', (s: string) => {
      log = (log + s).slice(-3000);
    });
  }
  try {
    for (const step of [undefined, ...rest].keys()) {
      if (step > 0) await api.replaceAll(rest[step - 1]?.objects ?? []);
      for (const dump of compared) {
        const deadline = performance.now() + STEP_DEADLINE_MS;
        let diff = compare(step, dump);
        while (diff !== '' && performance.now() < deadline && proxy.exitCode === null) {
          await sleep(30);
          diff = compare(step, dump);
        }
        if (diff === '') {
          await sleep(STILL_MS);
          diff = compare(step, dump);
        }
        if (diff !== '') diff += `\nlog: ${log}`;
        process.stdout.write(`${JSON.stringify({ step, kind: dump.kind, diff })}\n`);
      }
    }
  } finally {
    proxy.kill('SIGKILL');
    await api.close();
    rmSync(dir, { recursive: true });
  }
}

await main();
process.exit(0);
