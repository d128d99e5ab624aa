/** `switchyard run -f`: manifests in place of an API server, from a folder that changes and from standard input. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { caseInside, privateRun, runInside, sh } from '../lib/namespace.ts';

const program = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));
/** What is right is seen within seconds; what is wrong costs this long. */
const DEADLINE_MS = 30_000;

const node =
  'apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.7}]}\n';
const service = (name: string, ip: string) =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: ns1}\nspec: {clusterIP: ${ip}, clusterIPs: [${ip}], ipFamilies: [IPv4], ports: [{name: http, protocol: TCP, port: 80}]}\n`;
const slice = (name: string, ip: string) =>
  `apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: ${name}-1, namespace: ns1, labels: {kubernetes.io/service-name: ${name}}}\naddressType: IPv4\nports: [{name: http, protocol: TCP, port: 80}]\nendpoints: [{addresses: [${ip}]}]\n`;

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** True as soon as the nat table holds every wanted text and none of the others. */
async function becomes(wanted: readonly string[], others: readonly string[] = []): Promise<boolean> {
  for (const end = performance.now() + DEADLINE_MS; performance.now() < end; await sleep(50)) {
    const rules = sh('iptables-save', '-t', 'nat');
    if (wanted.every((text) => rules.includes(text)) && !others.some((text) => rules.includes(text))) return true;
  }
  return false;
}

const flags = ['run', '--hostname-override', 'n1', '--healthz-bind-address', '127.0.0.1:10256'];
const limits = ['--conntrack-max-per-core', '0', '--conntrack-tcp-timeout-established', '0s'];
const closeWait = ['--conntrack-tcp-timeout-close-wait', '0s'];

if (caseInside() === undefined) {
  t.test('manifests in place of an API server', async (t) => runInside(t, import.meta.url, 'files'));
} else {
  privateRun();
  sh('ip', 'link', 'set', 'lo', 'up');
  t.test('a folder whose files change', async (t) => {
    const dir = mkdtempSync(`${tmpdir()}/manifests-`);
    t.teardown(() => rmSync(dir, { recursive: true }));
    writeFileSync(`${dir}/all.yaml`, [node, service('a', '10.43.0.1'), slice('a', '10.42.0.1')].join('---\n'));
    const proxy = spawn(program, [...flags, ...limits, ...closeWait, '-f', dir], { stdio: 'ignore' });
    t.teardown(() => proxy.kill('SIGKILL'));
    t.ok(await becomes(['--to-destination 10.42.0.1:80']), 'what is there at the start');
    writeFileSync(`${dir}/b.yaml`, [service('b', '10.43.0.2'), slice('b', '10.42.0.2')].join('---\n'));
    t.ok(await becomes(['--to-destination 10.42.0.1:80', '--to-destination 10.42.0.2:80']), 'a file more');
    rmSync(`${dir}/all.yaml`);
    t.ok(await becomes(['--to-destination 10.42.0.2:80'], ['10.42.0.1']), 'a file less');
  });
  t.test('standard input', async (t) => {
    const proxy = spawn(program, [...flags, ...limits, ...closeWait, '-f', '-'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    t.teardown(() => proxy.kill('SIGKILL'));
    proxy.stdin?.end([node, service('c', '10.43.0.3'), slice('c', '10.42.0.3')].join('---\n'));
    t.ok(
      await becomes(['--to-destination 10.42.0.3:80'], ['10.42.0.2']),
      'what came in, and nothing of the run before',
    );
  });
}
