/**
 * Lives one recorded scenario through: this process stands in a network and mount namespace of its own, holds only lo and
 * the scenario's links, serves the recorded objects from an API server, and runs the real command against it.
 * After each step the kernel's rules, read back, are compared with the recording in normal form.
 *
 *     unshare -n -m node test/lib/reference-run.ts SCENARIO_FOLDER FLAVOUR      FLAVOUR: nft | legacy
 *
 * Prints one JSON line a step: {step, kind, diff}; diff is '' when both are the same.
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { createApiServer } from '../../src/lab/api/server.ts';
import { sleep } from './live-proxy.ts';
import { privateRun, sh } from './namespace.ts';
import { differenceOf, normalForm } from './normal-form.ts';

/** A step that is right is seen within a second or two; one that is wrong costs this long. */
const STEP_DEADLINE_MS = 20_000;
/** A right state must still be right this much later. */
const STILL_MS = 150;

interface Scenario {
  readonly node: { readonly name: string; readonly links?: readonly { name: string; addresses: readonly string[] }[] };
  readonly proxy?: Readonly<Record<string, unknown>>;
  readonly steps: readonly { readonly objects: readonly object[] }[];
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const [folder = '', flavour = 'nft'] = process.argv.slice(2);
const scenario = JSON.parse(readFileSync(`${folder}/scenario.json`, 'utf8')) as Scenario;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The configuration of the recording: fixed fields, and the scenario's own merged into them one level deep. */
function configuration(kubeconfig: string): object {
  const config: Record<string, unknown> = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: 'iptables',
    clientConnection: { kubeconfig },
    hostnameOverride: scenario.node.name,
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    healthzBindAddress: '127.0.0.1:10256',
    metricsBindAddress: '127.0.0.1:10249',
    iptables: { minSyncPeriod: '0s' },
  };
  for (const [key, value] of Object.entries(scenario.proxy ?? {})) {
    const had = config[key];
    config[key] = isRecord(had) && isRecord(value) ? { ...had, ...value } : value;
  }
  return config;
}

function compare(step: number, tool: 'iptables' | 'ip6tables'): string {
  const recorded = readFileSync(`${folder}/iptables/${String(step).padStart(2, '0')}.${tool}`, 'utf8');
  return differenceOf(normalForm(recorded), normalForm(sh(`${tool}-${flavour}-save`)));
}

async function main(): Promise<void> {
  const dir = mkdtempSync(`${tmpdir()}/reference-`);
  privateRun();
  sh('mount', '-t', 'sysfs', 'sys', '/sys');
  sh('ip', 'link', 'set', 'lo', 'up');
  for (const [i, link] of (scenario.node.links ?? []).entries()) {
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
  const proxy = spawn(`${root}/bin/switchyard`, ['run', '--config', `${dir}/config`, '--iptables-flavour', flavour], {
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
      for (const tool of ['iptables', 'ip6tables'] as const) {
        const deadline = performance.now() + STEP_DEADLINE_MS;
        let diff = compare(step, tool);
        while (diff !== '' && performance.now() < deadline && proxy.exitCode === null) {
          await sleep(30);
          diff = compare(step, tool);
        }
        if (diff === '') {
          await sleep(STILL_MS);
          diff = compare(step, tool);
        }
        if (diff !== '') diff += `\nlog: ${log}`;
        process.stdout.write(`${JSON.stringify({ step, kind: tool, diff })}\n`);
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
