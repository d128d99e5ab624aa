/**
 * The real command as a process of its own, against an API server in this process and the kernel of this namespace. What
 * the kernel must hold is told by another fresh process: `switchyard render` of the objects there are now.
 *
 * @module
 */

import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { Flavour } from '../../src/iptables/tools.ts';
import { type ApiServer, createApiServer } from '../../src/lab/api/server.ts';
import { parseMetrics } from '../../src/lab/proxy.ts';
import { NODE } from './live-objects.ts';
import { privateRun, sh } from './namespace.ts';
import { differenceOf, normalForm } from './normal-form.ts';

/** What is right is seen long before; a state that is wrong costs this long. */
const DEADLINE_MS = 45_000;
/** A right state must still be right this much later. */
const STILL_MS = 200;
const TOOLS = ['iptables', 'ip6tables'] as const;

const program = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Runs a program beside this process, which goes on serving. @returns Standard output and status. */
function run(file: string, args: readonly string[]): Promise<{ stdout: string; stderr: string; status: number }> {
  return new Promise((resolve, reject) => {
    const child = execFile(file, args, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      if (error && typeof error.code !== 'number') reject(error);
      else resolve({ stdout, stderr, status: child.exitCode ?? 0 });
    });
  });
}

const isOurs = (line: string) =>
  /^(?::|-A )KUBE-/.test(line) ? !line.startsWith(':KUBE-PROXY-CANARY ') : / -[jg] KUBE-/.test(line);

/** The lines of a dump that are the proxy's, in normal form; tables without any are left out. */
export function ourRules(dump: string): string {
  const tables = normalForm(dump).split(/^(?=\*)/m);
  return tables
    .map((table) => table.split('\n'))
    .flatMap(([name = '', ...lines]) => {
      const ours = lines.filter(isOurs);
      return ours.length === 0 ? [] : [name, ...ours];
    })
    .join('\n');
}

/** The lines of a dump that somebody else put there. Built-in chains belong to nobody. */
export function foreignRules(dump: string): string {
  return normalForm(dump)
    .split('\n')
    .filter((line) => /^(?::\S+ -|-A )/.test(line) && !isOurs(line) && !line.startsWith(':KUBE-'))
    .join('\n');
}

/**
 * Stands before iptables-restore on PATH: can hold an input back before the kernel sees it, and refuse one with a rule
 * that holds a text, in the words of the nft flavour.
 */
const SHIM = `
const fs = require('node:fs');
const { spawnSync } = require('node:child_process');
const dir = __dirname;
const read = (name) => { try { return fs.readFileSync(dir + '/' + name, 'utf8'); } catch { return ''; } };
const input = fs.readFileSync(0, 'utf8');
const refused = read('refuse');
const at = refused === '' ? -1 : input.split('\\n').findIndex((line) => line.startsWith('-A ') && line.includes(refused));
if (at >= 0) {
  process.stderr.write('iptables-nft-restore v1.8.9 (nf_tables): \\nline ' + (at + 1) + ': RULE_APPEND failed (Invalid argument): rule in chain X\\n');
  process.exit(4);
}
const delayMs = Number(read('delay') || 0);
if (delayMs > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, delayMs);
const path = process.env.PATH.split(':').filter((p) => p !== dir).join(':');
const r = spawnSync('iptables-nft-restore', process.argv.slice(2), { input, env: { ...process.env, PATH: path } });
process.stderr.write(r.stderr);
process.exit(r.status ?? 1);
`;

export interface LiveOptions {
  readonly flavour: Flavour;
  /** Fields of the configuration, instead of or beside those every run has. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly api?: ApiServer;
}

/** A proxy to be started, killed and watched. */
export class LiveProxy {
  readonly flavour: Flavour;
  api: ApiServer;
  readonly #dir: string;
  #child: ChildProcess | undefined;
  #log = '';
  #ended: Promise<void> = Promise.resolve();
  #diedBy: string | undefined;

  constructor(api: ApiServer, { flavour, config }: LiveOptions) {
    this.api = api;
    this.flavour = flavour;
    this.#dir = mkdtempSync(`${tmpdir()}/live-`);
    writeFileSync(`${this.#dir}/kubeconfig`, api.kubeconfig());
    const configuration = {
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode: 'iptables',
      clientConnection: { kubeconfig: `${this.#dir}/kubeconfig` },
      hostnameOverride: NODE,
      conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
      healthzBindAddress: '127.0.0.1:10256',
      metricsBindAddress: '127.0.0.1:10249',
      iptables: { minSyncPeriod: '0s' },
      ...config,
    };
    writeFileSync(`${this.#dir}/config`, JSON.stringify(configuration));
  }

  /** Rules that count packets are written where the kernel has nfacct. */
  get #countersFlag(): readonly string[] {
    const { status } = spawnSync('nfacct', ['list']);
    return status === 0 ? ['--nfacct'] : [];
  }

  get #shims(): string {
    return `${this.#dir}/shims`;
  }

  /** From the next start on, iptables-restore of IPv4 (nft flavour) is the shim. */
  useShim(): void {
    sh('mkdir', '-p', this.#shims);
    writeFileSync(`${this.#shims}/iptables-nft-restore`, `#!${process.execPath}\n${SHIM}`);
    chmodSync(`${this.#shims}/iptables-nft-restore`, 0o755);
  }

  /** What the shim does from now on. */
  setShim({ delayMs = 0, refuse = '' }: { readonly delayMs?: number; readonly refuse?: string }): void {
    writeFileSync(`${this.#shims}/delay`, String(delayMs));
    writeFileSync(`${this.#shims}/refuse`, refuse);
  }

  start(): void {
    const child = spawn(program, ['run', '--config', `${this.#dir}/config`, '--iptables-flavour', this.flavour], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PATH: `${this.#shims}${delimiter}${process.env['PATH']}` },
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#log += text;
      });
    }
    this.#child = child;
    this.#diedBy = undefined;
    this.#ended = new Promise((resolve) => {
      child.on('exit', (status, signal) => {
        if (this.#child === child) this.#diedBy = signal ?? `status ${status}`;
        resolve();
      });
    });
  }

  /** SIGKILL. What it started lives on. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#ended;
  }

  /** SIGTERM: an orderly end, whose rules stay. */
  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    await this.#ended;
  }

  /** Everything it said, of all its runs. */
  get log(): string {
    return this.#log;
  }

  /** How it ended, if it did. */
  get diedBy(): string | undefined {
    return this.#diedBy;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** True if it has a restore running now. */
  get isRestoring(): boolean {
    try {
      const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').split(' ').filter(Boolean);
      return children.some((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('-restore'));
    } catch {
      // A process that ended while it was looked at.
      return false;
    }
  }

  /** Resident memory in MiB. */
  get residentMiB(): number {
    const [, kiB = '0'] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8')) ?? [];
    return Number(kiB) / 1024;
  }

  /** Undefined while nobody answers. */
  async metrics(): Promise<ReadonlyMap<string, number> | undefined> {
    try {
      return parseMetrics(await (await fetch('http://127.0.0.1:10249/metrics')).text());
    } catch {
      return undefined;
    }
  }

  async dump(tool: (typeof TOOLS)[number]): Promise<string> {
    const { stdout, stderr, status } = await run(`${tool}-${this.flavour}-save`, []);
    if (status !== 0) throw new Error(`Cannot list rules: ${stderr}`);
    return stdout;
  }

  /** What both families must hold, rendered anew from the objects the API server has now. */
  async wanted(): Promise<Readonly<Record<(typeof TOOLS)[number], string>>> {
    const items = ['Node', 'Service', 'EndpointSlice'].flatMap((kind) => this.api.list(kind));
    const path = `${this.#dir}/objects.json`;
    writeFileSync(path, JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
    const [iptables, ip6tables] = await Promise.all(
      (['ipv4', 'ipv6'] as const).map(async (family) => {
        const args = ['-f', path, '--config', `${this.#dir}/config`, '--format', 'saved', '--family', family];
        const { stdout, stderr, status } = await run(program, ['render', ...args, ...this.#countersFlag]);
        if (status === 2) throw new Error(`Cannot render: ${stderr}`);
        return ourRules(stdout);
      }),
    );
    return { iptables: iptables ?? '', ip6tables: ip6tables ?? '' };
  }

  /** Asserts that the kernel comes to hold what it must, and stays so. */
  async converges(t: Test, what: string, deadlineMs = DEADLINE_MS): Promise<void> {
    const wanted = await this.wanted();
    const deadline = performance.now() + deadlineMs;
    const look = async () => {
      const differences = await Promise.all(
        TOOLS.map(async (tool) => differenceOf(wanted[tool], ourRules(await this.dump(tool)))),
      );
      return differences.filter((text) => text !== '').join('\n');
    };
    let difference = await look();
    while (difference !== '' && performance.now() < deadline && this.#diedBy === undefined) {
      await sleep(50);
      difference = await look();
    }
    if (difference === '') {
      await sleep(STILL_MS);
      difference = await look();
    }
    const isRight = t.equal(difference, '', what);
    if (!isRight) t.comment(`ended: ${this.#diedBy ?? 'no'}; log: ${this.#log.slice(-4000)}`);
  }

  async close(): Promise<void> {
    await this.kill();
    await this.api.close();
    rmSync(this.#dir, { recursive: true });
  }
}

/** Makes this namespace a node, with nothing on it but loopback, and a proxy for it that is not started yet. */
export async function createLiveProxy(options: LiveOptions): Promise<LiveProxy> {
  privateRun();
  sh('mount', '-t', 'sysfs', 'sys', '/sys');
  sh('ip', 'link', 'set', 'lo', 'up');
  return new LiveProxy(options.api ?? (await createApiServer()), options);
}

/** Waits for a condition. @returns Whether it came true within `deadlineMs`. */
export async function becomesTrue(isSo: () => boolean | Promise<boolean>, deadlineMs = DEADLINE_MS): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  while (!(await isSo())) {
    if (performance.now() >= deadline) return false;
    await sleep(20);
  }
  return true;
}
