import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { stringify } from 'yaml';
import { clusterFromFlags, inCluster } from '../../src/watch/cluster.ts';
import type { ApiCluster } from '../../src/watch/credentials.ts';
import { parseKubeconfig } from '../../src/watch/kubeconfig.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');
type Entry = Readonly<Record<string, unknown>>;

/** A kubeconfig of one context, between others that must not count. */
function kubeconfig(cluster: Entry, user: Entry): Entry {
  return {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'mine',
    contexts: [
      { name: 'other', context: { cluster: 'other', user: 'other' } },
      { name: 'mine', context: { cluster: 'c', user: 'u', namespace: 'default' } },
    ],
    clusters: [
      { name: 'other', cluster: { server: 'https://wrong' } },
      { name: 'c', cluster: { server: 'https://10.0.0.1:6443', ...cluster } },
    ],
    users: [
      { name: 'other', user: { token: 'wrong' } },
      { name: 'u', user },
    ],
  };
}

const rows: readonly { name: string; cluster?: Entry; user?: Entry; want: Partial<ApiCluster> }[] = [
  {
    name: 'nothing but a server',
    want: {
      servers: ['https://10.0.0.1:6443'],
      tls: { insecureSkipVerify: false },
      auth: { kind: 'none' },
      headers: {},
    },
  },
  { name: 'a server with a path', cluster: { server: 'https://h/k8s/' }, want: { servers: ['https://h/k8s'] } },
  {
    name: 'certificates in the file',
    cluster: { 'certificate-authority-data': base64('CA'), 'tls-server-name': 'kubernetes' },
    user: { 'client-certificate-data': base64('CERT'), 'client-key-data': base64('KEY') },
    want: {
      tls: {
        ca: { kind: 'given', text: 'CA' },
        cert: { kind: 'given', text: 'CERT' },
        key: { kind: 'given', text: 'KEY' },
        serverName: 'kubernetes',
        insecureSkipVerify: false,
      },
    },
  },
  {
    name: 'certificates beside it, by relative and absolute path',
    cluster: { 'certificate-authority': 'pki/ca.crt' },
    user: { 'client-certificate': '/etc/cert', 'client-key': '../key' },
    want: {
      tls: {
        ca: { kind: 'file', path: '/etc/kube/pki/ca.crt' },
        cert: { kind: 'file', path: '/etc/cert' },
        key: { kind: 'file', path: '/etc/key' },
        insecureSkipVerify: false,
      },
    },
  },
  {
    name: 'data before a path',
    cluster: { 'certificate-authority': 'x', 'certificate-authority-data': base64('CA') },
    want: { tls: { ca: { kind: 'given', text: 'CA' }, insecureSkipVerify: false } },
  },
  { name: 'no check', cluster: { 'insecure-skip-tls-verify': true }, want: { tls: { insecureSkipVerify: true } } },
  { name: 'a token', user: { token: 'abc' }, want: { auth: { kind: 'token', token: { kind: 'given', text: 'abc' } } } },
  {
    name: 'a file of a token before a token',
    user: { token: 'abc', tokenFile: 'token' },
    want: { auth: { kind: 'token', token: { kind: 'file', path: '/etc/kube/token' } } },
  },
  {
    name: 'a password',
    user: { username: 'u', password: 'p' },
    want: { auth: { kind: 'basic', username: 'u', password: 'p' } },
  },
  {
    name: 'impersonation',
    user: { as: 'jane', 'as-groups': ['devs'] },
    want: { headers: { 'Impersonate-User': 'jane', 'Impersonate-Group': 'devs' } },
  },
];

t.test('parseKubeconfig() reads', async (t) => {
  for (const { name, cluster = {}, user = {}, want } of rows) {
    t.test(name, async (t) => {
      const config = kubeconfig(cluster, user);
      for (const text of [stringify(config), JSON.stringify(config)]) {
        const { servers, tls, auth, headers } = await parseKubeconfig(text, '/etc/kube/config');
        const got: ApiCluster = { servers, tls, auth, ...(headers && { headers }) };
        for (const field of Object.keys(want) as (keyof ApiCluster)[]) t.strictSame(got[field], want[field]);
      }
    });
  }
});

t.test('parseKubeconfig() refuses', async (t) => {
  const good = kubeconfig({}, {});
  const bad: readonly { name: string; text: string; why: RegExp }[] = [
    { name: 'what is no YAML', text: 'a: [', why: /Cannot use kubeconfig \/etc\/kube\/config: / },
    { name: 'a list', text: '[]', why: /is a list, must be a kubeconfig/ },
    { name: 'nothing', text: '', why: /is missing, must be a kubeconfig/ },
    { name: 'no context', text: '{}', why: /current-context: is missing/ },
    { name: 'a context that is not there', text: stringify({ ...good, contexts: [] }), why: /no entry "mine"/ },
    { name: 'a cluster that is not there', text: stringify({ ...good, clusters: null }), why: /no entry "c"/ },
    { name: 'a user that is not there', text: stringify({ ...good, users: [{}] }), why: /no entry "u"/ },
    { name: 'no server', text: stringify(kubeconfig({ server: '' }, {})), why: /clusters\[1\]\.cluster\.server/ },
    { name: 'a server that is no URL', text: stringify(kubeconfig({ server: 'ftp://x' }, {})), why: /"ftp:\/\/x"/ },
    { name: 'a proxy', text: stringify(kubeconfig({ 'proxy-url': 'http://p' }, {})), why: /proxies are not/ },
    {
      name: 'a token that is none',
      text: stringify(kubeconfig({}, { token: 1 })),
      why: /users\[1\]\.user\.token: is 1/,
    },
    { name: 'impersonation it cannot do', text: stringify(kubeconfig({}, { 'as-uid': '7' })), why: /impersonates/ },
  ];
  for (const { name, text, why } of bad) {
    t.test(name, async (t) => {
      await t.rejects(parseKubeconfig(text, '/etc/kube/config'), { name: 'SyntaxError', message: why });
    });
  }
});

t.test('a user with an exec plugin gets what the plugin says', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugin-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const credential = {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { token: 'told' },
  };
  writeFileSync(join(dir, 'plugin'), `#!/bin/sh\necho '${JSON.stringify(credential)}'\n`);
  chmodSync(join(dir, 'plugin'), 0o755);
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    command: join(dir, 'plugin'),
    interactiveMode: 'Never',
  };
  const path = join(dir, 'config');
  writeFileSync(path, stringify(kubeconfig({}, { exec })));
  const cluster = await clusterFromFlags({ kubeconfig: path, servers: [], env: {} });
  t.equal(cluster.auth.kind, 'plugin');
  if (cluster.auth.kind === 'plugin') t.same(await cluster.auth.read(), { headers: { Authorization: 'Bearer told' } });
});

t.test('inCluster() finds the server of its Pod', async (t) => {
  const env = { KUBERNETES_SERVICE_HOST: '10.43.0.1', KUBERNETES_SERVICE_PORT: '443' };
  t.strictSame(inCluster(env), {
    servers: ['https://10.43.0.1:443'],
    tls: { ca: { kind: 'file', path: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt' } },
    auth: {
      kind: 'token',
      token: { kind: 'file', path: '/var/run/secrets/kubernetes.io/serviceaccount/token' },
    },
  });
  t.same(inCluster({ ...env, KUBERNETES_SERVICE_HOST: 'fd00::1' }).servers, ['https://[fd00::1]:443']);
  t.throws(() => inCluster({}), { message: /Cannot find the API server.*must be/ });
});

t.test('clusterFromFlags()', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'kubeconfig-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'config');
  writeFileSync(path, stringify(kubeconfig({}, { token: 'abc' })));
  const env = { KUBERNETES_SERVICE_HOST: '10.43.0.1', KUBERNETES_SERVICE_PORT: '443' };
  const cases: readonly {
    name: string;
    kubeconfig: string;
    servers: readonly string[];
    want: readonly string[];
    auth: string;
  }[] = [
    { name: 'neither: the Pod', kubeconfig: '', servers: [], want: ['https://10.43.0.1:443'], auth: 'token' },
    { name: 'a kubeconfig', kubeconfig: path, servers: [], want: ['https://10.0.0.1:6443'], auth: 'token' },
    {
      name: 'servers',
      kubeconfig: '',
      servers: ['http://a:8080/', 'b:1'],
      want: ['http://a:8080', 'http://b:1'],
      auth: 'none',
    },
    {
      name: 'both',
      kubeconfig: path,
      servers: ['https://a', 'https://b'],
      want: ['https://a', 'https://b'],
      auth: 'token',
    },
  ];
  for (const c of cases) {
    const { servers, auth } = await clusterFromFlags({ kubeconfig: c.kubeconfig, servers: c.servers, env });
    t.same({ servers, auth: auth.kind }, { servers: c.want, auth: c.auth }, c.name);
  }
  await t.rejects(clusterFromFlags({ kubeconfig: join(dir, 'none'), servers: [], env }), {
    message: /Cannot read kubeconfig/,
  });
  for (const server of ['', 'ftp://a', 'https://', 'https://a?b', 'http://a b']) {
    await t.rejects(clusterFromFlags({ kubeconfig: '', servers: [server], env }), { name: 'SyntaxError' }, server);
  }
});
