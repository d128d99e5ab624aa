/**
 * One run at one size, inside a network namespace of its own: starts an API server with the world, the proxy, and one
 * process that is every pod; then measures over real connections. Prints one JSON line.
 *
 *     node bench/scale.ts SERVICES ENDPOINTS FLIPS MODE [LAYOUT]     (as root, in `unshare -n -m`: bench/index.ts does that)
 *
 * @module
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createApiServer } from '../src/lab/api/server.ts';
import { bareTool } from './bare.ts';
import { bareKernel } from './bare-nft.ts';
import { cpuSeconds, memoryMb } from './process.ts';
import { run } from './run.ts';
import { clusterIP, endpointIP, median, randomFrom, slice, world } from './world.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const [services = 1000, endpoints = 2, flips = 10] = process.argv.slice(2, 5).map(Number);
const [mode = 'iptables', layout = 'chains'] = process.argv.slice(5);
const READY_DEADLINE_MS = 540_000;

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The address that answered a connection to `host`, or undefined if nobody did within `timeoutMs`. */
function ask(host: string, timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port: 80 });
    let said = '';
    const done = (answer: string | undefined) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => done(undefined), timeoutMs);
    socket.on('data', (data) => {
      said += data.toString();
    });
    socket.on('end', () => done(said === '' ? undefined : said));
    socket.on('error', () => done(undefined));
  });
}

/** The one process behind every pod address, across a veth pair, and the route to it. */
async function startPods(): Promise<{ readonly stop: () => void }> {
  const pod = spawn('unshare', ['-n', process.execPath, `${root}/bench/pod.ts`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await sleep(500);
  const pid = String(pod.pid);
  const inPod = (...argv: string[]) => run('nsenter', '-t', pid, '-n', ...argv);
  run('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'p0');
  run('ip', 'addr', 'add', '192.168.1.100/24', 'dev', 'eth0');
  run('ip', 'link', 'set', 'eth0', 'up');
  run('ip', 'link', 'set', 'p0', 'netns', pid);
  run('ip', 'route', 'add', 'default', 'via', '192.168.1.1');
  run('ip', 'route', 'add', '10.128.0.0/9', 'via', '192.168.1.1');
  inPod('ip', 'link', 'set', 'lo', 'up');
  inPod('ip', 'addr', 'add', '192.168.1.1/24', 'dev', 'p0');
  inPod('ip', 'link', 'set', 'p0', 'up');
  inPod('ip', 'route', 'add', 'local', '10.128.0.0/9', 'dev', 'lo');
  inPod('ip', 'route', 'add', 'default', 'via', '192.168.1.100');
  pod.stdin.write('go\n');
  await new Promise((resolve) => pod.stdout.once('data', resolve));
  return { stop: () => pod.kill('SIGKILL') };
}

async function main(): Promise<void> {
  const dir = mkdtempSync(`${tmpdir()}/bench-`);
  run('mount', '-t', 'tmpfs', 'run', '/run');
  run('mount', '-t', 'sysfs', 'sys', '/sys');
  run('ip', 'link', 'set', 'lo', 'up');
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  const pods = await startPods();
  const bare = mode === 'nftables' ? bareKernel(services, endpoints, layout) : bareTool(services, endpoints);
  const api = await createApiServer({ host: '127.0.0.1', port: 0 });
  await api.replaceAll(world(services, endpoints));
  writeFileSync(`${dir}/kubeconfig`, api.kubeconfig());
  writeFileSync(
    `${dir}/config`,
    JSON.stringify({
      apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
      kind: 'KubeProxyConfiguration',
      mode,
      nftables: { layout },
      clientConnection: { kubeconfig: `${dir}/kubeconfig` },
      hostnameOverride: 'node-0',
      clusterCIDR: '10.128.0.0/9',
      conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
      healthzBindAddress: '127.0.0.1:10256',
      metricsBindAddress: '127.0.0.1:10249',
    }),
  );
  const random = randomFrom(1);
  const pick = () => Math.floor(random() * services);
  const startedMs = performance.now();
  const proxy = spawn(`${root}/bin/switchyard`, ['run', '--config', `${dir}/config`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  proxy.stderr.setEncoding('utf8').on('data', (s: string) => {
    log = (log + s).slice(-4000);
  });
  const pid = proxy.pid ?? 0;
  try {
    const todo = [0, services - 1, ...Array.from({ length: 30 }, pick)];
    while (todo.length > 0) {
      if (await ask(clusterIP(todo.at(-1) ?? 0), 500)) todo.pop();
      else await sleep(20);
      if (proxy.exitCode !== null) throw new Error(`The proxy ended with ${proxy.exitCode}: ${log}`);
      if (performance.now() - startedMs > READY_DEADLINE_MS) throw new Error(`Services never answered: ${log}`);
    }
    const readyMs = performance.now() - startedMs;
    const readyCpuMs = cpuSeconds(pid) * 1000;
    await sleep(8000);
    const memory = memoryMb(pid);
    const cpuBefore = cpuSeconds(pid);
    const changes: number[] = [];
    for (let i = 0; i < flips; i++) {
      await sleep(2500 * (0.6 + 0.8 * random()));
      const svc = pick();
      const k = 8 + Math.floor(random() * 8);
      const t0 = performance.now();
      await api.apply([slice(svc, [k])]);
      while ((await ask(clusterIP(svc), 500)) !== endpointIP(svc, k)) {
        if (performance.now() - t0 > 60_000) throw new Error(`A change never carried traffic: ${log}`);
        await setImmediate();
      }
      changes.push(performance.now() - t0);
    }
    const cpuPerChangeMs = ((cpuSeconds(pid) - cpuBefore) * 1000) / flips;
    const connectUs: number[] = [];
    for (let i = 0; i < 500; i++) {
      const t0 = performance.now();
      await ask(clusterIP(pick()), 2000);
      connectUs.push((performance.now() - t0) * 1000);
    }
    changes.sort((a, b) => a - b);
    const result = {
      mode,
      services,
      endpoints: services * endpoints,
      readyMs: Math.round(readyMs),
      readyCpuMs: Math.round(readyCpuMs),
      rssMb: memory.rss,
      peakMb: memory.peak,
      changeP50Ms: Math.round(median(changes) * 10) / 10,
      changeMaxMs: Math.round(changes.at(-1) ?? Number.NaN),
      cpuPerChangeMs: Math.round(cpuPerChangeMs * 10) / 10,
      connectP50Us: Math.round(median(connectUs)),
      ...bare,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } finally {
    proxy.kill('SIGTERM');
    pods.stop();
    await api.close();
    rmSync(dir, { recursive: true });
  }
}

await main();
process.exit(0);
