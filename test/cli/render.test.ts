import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type RenderOptions, renderCommand, runRender } from '../../src/cli/render.ts';
import { golden, noOrphans } from '../lib/golden.ts';
import { makeIo } from '../lib/io.ts';
import { normalForm } from '../lib/normal-form.ts';

const fixtures = fileURLToPath(new URL('../fixtures/render', import.meta.url));
const reference = fileURLToPath(new URL('../reference', import.meta.url));
const CLUSTER = `${fixtures}/cluster.yaml`;
const CONFIG = `${fixtures}/config.yaml`;

const OPTIONS: RenderOptions = { filename: [CLUSTER], family: 'both' };

async function render(options: Partial<RenderOptions>, stdin = '') {
  const { io, out } = makeIo(stdin);
  const code = await runRender({ ...OPTIONS, ...options }, io, 'this-host');
  return { code, ...out };
}

const goldens: readonly { name: string; options: Partial<RenderOptions> }[] = [
  { name: 'cluster.restore', options: { config: CONFIG } },
  { name: 'cluster.saved', options: { config: CONFIG, format: 'saved', family: 'ipv4', nfacct: true } },
  { name: 'cluster.json', options: { config: CONFIG, format: 'json', family: 'ipv6' } },
  { name: 'cluster.nft', options: { config: CONFIG, mode: 'nftables' } },
  { name: 'cluster-nft.json', options: { config: CONFIG, mode: 'nftables', format: 'json', family: 'ipv4' } },
];

t.test('render prints', async (t) => {
  for (const { name, options } of goldens) {
    const { code, stdout, stderr } = await render(options);
    t.equal(code, 0, name);
    t.equal(stderr, '', `${name}: nothing to complain of`);
    golden(t, `cli/${name}`, stdout);
  }
  noOrphans(
    t,
    'cli',
    goldens.map(({ name }) => name),
  );
});

t.test('render is the same for the objects in any order', async (t) => {
  const documents = readFileSync(CLUSTER, 'utf8').split('\n---\n');
  const backwards = await render({ filename: ['-'] }, documents.toReversed().join('\n---\n'));
  t.equal(backwards.stdout, (await render({})).stdout);
});

const service = (name: string, rest: object) => ({ apiVersion: 'v1', kind: 'Service', metadata: { name }, ...rest });
const node = (name: string, address?: string) => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name },
  spec: { podCIDRs: ['10.9.0.0/24'] },
  status: { addresses: address === undefined ? [] : [{ type: 'InternalIP', address }] },
});
const port = { port: 80, protocol: 'TCP' };

/** Rows: manifests on standard input, and what becomes of them. `stdout` is matched. */
const rows: readonly {
  name: string;
  stdin: string | readonly object[];
  options?: Partial<RenderOptions>;
  code: number;
  stdout?: RegExp;
  stderr: string | RegExp;
}[] = [
  { name: 'nothing', stdin: '', code: 0, stdout: /^# IPv4: iptables-restore --noflush\n\*filter\n/, stderr: '' },
  {
    name: 'an object that is not valid beside one that is',
    stdin: [
      service('bad', { spec: { clusterIP: '10.0.0.1', ports: [{ ...port, port: 0 }] } }),
      service('good', { spec: { clusterIP: '10.0.0.2', ports: [port] } }),
    ],
    code: 1,
    stdout: /default\/good has no endpoints.* -d 10\.0\.0\.2 /,
    stderr: /^Service default\/bad: spec\.ports\[0\]\.port: .*\n$/,
  },
  {
    name: 'a text that is not an address',
    stdin: [service('bad', { spec: { clusterIP: '10.0.0.1', ports: [port], externalIPs: ['nonsense'] } })],
    options: { family: 'ipv4' },
    code: 1,
    stdout: /default\/bad has no endpoints/,
    stderr: /^Service default\/bad: spec\.externalIPs.*: "nonsense" is not an address, left out\n$/,
  },
  {
    name: 'a Service the API server has not seen',
    stdin: [service('new', { spec: { ports: [port] } })],
    code: 0,
    stderr: 'Service default/new: spec.clusterIP: not set, no rules for it until the API server sets it\n',
  },
  {
    name: 'an ExternalName',
    stdin: [service('x', { spec: { type: 'ExternalName', externalName: 'a.b' } })],
    code: 0,
    stderr: '',
  },
  { name: 'a broken document', stdin: 'a: [', code: 2, stderr: /^Cannot read document 1 of "-": .*\n$/ },
  {
    name: 'a file that is not there',
    stdin: '',
    options: { filename: ['/no/such'] },
    code: 2,
    stderr: /^Cannot read "\/no\/such": ENOENT.*\n$/,
  },
  {
    name: 'a configuration that is not there',
    stdin: '',
    options: { config: '/no/such' },
    code: 2,
    stderr: /^Cannot read the configuration file "\/no\/such": ENOENT.*\n$/,
  },
  {
    name: 'a node address that is none',
    stdin: '',
    options: { nodeAddress: ['x'] },
    code: 2,
    stderr: 'Cannot use --node-address "x": must be an IP address\n',
  },
  {
    name: 'a mode that is not built',
    stdin: '',
    options: { mode: 'ipvs' },
    code: 2,
    stderr: 'Cannot render mode "ipvs": not built yet, must be one of iptables, nftables\n',
  },
  {
    name: 'a format of another mode',
    stdin: '',
    options: { mode: 'nftables', format: 'saved' },
    code: 2,
    stderr: 'Cannot render mode nftables as "saved": must be one of nft, json\n',
  },
  {
    name: 'the layout of the command line',
    stdin: [service('x', { spec: { clusterIP: '10.0.0.2', ports: [port] } })],
    options: { mode: 'nftables', layout: 'maps', family: 'ipv4' },
    code: 0,
    stdout: /^(?![\s\S]*add map ip kube-proxy service-nodeports)[\s\S]*10\.0\.0\.2/,
    stderr: '',
  },
  {
    name: 'a layout that is none',
    stdin: '',
    options: { mode: 'nftables', layout: 'x' },
    code: 2,
    stderr: 'Cannot use nftables.layout "x": must be one of chains, maps\n',
  },
  {
    name: 'a ServiceCIDR of two families',
    stdin: [
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'ServiceCIDR',
        metadata: { name: 'kubernetes' },
        spec: { cidrs: ['10.43.0.0/16', 'fd00:43::/112'] },
      },
    ],
    options: { mode: 'nftables' },
    code: 0,
    stdout: / ip daddr 10\.43\.0\.0\/16 drop [\s\S]* ip6 daddr fd00:43::\/112 drop /,
    stderr: '',
  },
  {
    name: 'the mode of the command line: its defaults count',
    stdin: [node('n', '192.0.2.7')],
    options: { mode: 'nftables', family: 'ipv4' },
    code: 0,
    stdout: /\nadd element ip kube-proxy nodeport-ips \{ 192\.0\.2\.7 \}\n/,
    stderr: '',
  },
];

t.test('render of', async (t) => {
  for (const { name, stdin, options, code, stdout, stderr } of rows) {
    const text = typeof stdin === 'string' ? stdin : JSON.stringify({ apiVersion: 'v1', kind: 'List', items: stdin });
    const got = await render({ filename: ['-'], ...options }, text);
    t.equal(got.code, code, `${name}: exit code`);
    if (typeof stderr === 'string') t.equal(got.stderr, stderr, `${name}: stderr`);
    else t.match(got.stderr, stderr, `${name}: stderr`);
    if (stdout !== undefined) t.match(got.stdout, stdout, `${name}: stdout`);
    if (code === 2) t.equal(got.stdout, '', `${name}: nothing on stdout`);
  }
});

t.test('render is for the node', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'render-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const config = join(dir, 'config');
  const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';
  writeFileSync(config, `${head}hostnameOverride: From-Config\ndetectLocalMode: NodeCIDR\n`);
  const cases: readonly { name: string; nodes: readonly object[]; options: Partial<RenderOptions>; want: string }[] = [
    { name: 'of --node', nodes: [node('only')], options: { node: 'From-Flag', config }, want: 'from-flag' },
    { name: 'of the configuration', nodes: [node('only')], options: { config }, want: 'from-config' },
    { name: 'that is the only one', nodes: [node('only'), service('x', {})], options: {}, want: 'only' },
    { name: 'of this host, if there are several', nodes: [node('a'), node('b')], options: {}, want: 'this-host' },
    { name: 'of this host, if there is none', nodes: [], options: {}, want: 'this-host' },
  ];
  for (const { name, nodes, options, want } of cases) {
    const items = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: nodes });
    const { stdout } = await render({ filename: ['-'], format: 'json', ...options }, items);
    t.equal(JSON.parse(stdout).node, want, name);
  }
  const withCidr = await render({ filename: ['-'], config, family: 'ipv4' }, JSON.stringify(node('from-config')));
  t.equal(withCidr.stderr, '', 'pod CIDRs come from the Node');
  const without = await render({ filename: ['-'], config, family: 'ipv4' }, JSON.stringify(node('another')));
  t.equal(
    without.stderr,
    'Node from-config: spec.podCIDRs: not in the manifests, so traffic of pods is not told from other\n',
  );
});

t.test('the command line of render', async (t) => {
  const parse = async (...argv: string[]) => {
    const { io, out } = makeIo('');
    let code = -1;
    const quiet = { writeOut: () => {}, writeErr: () => {} };
    const command = renderCommand(io, (c) => {
      code = c;
    })
      .exitOverride()
      .configureOutput(quiet);
    await command.parseAsync(argv, { from: 'user' });
    return { code, ...out };
  };
  const both = await parse('-f', CLUSTER, '-f', '/no/such', '--node=x');
  t.match(both, { code: 2, stderr: /"\/no\/such"/ }, 'takes several files');
  t.match(await parse('-f', CLUSTER, '--family', 'ipv6', '--format=saved'), {
    code: 0,
    stdout: /^# IPv6: ip6tables-save\n/,
  });
  await t.rejects(parse(), { code: 'commander.missingMandatoryOptionValue' }, 'needs -f');
  await t.rejects(parse('-f', CLUSTER, '--family', 'ipv5'), { code: 'commander.invalidArgument' });
  await t.rejects(parse('-f', CLUSTER, '--mode', 'x'), { code: 'commander.invalidArgument' });
});

t.test('render of what was recorded', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'render-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const scenarios = globSync('*/scenario.json', { cwd: reference })
    .map((file) => dirname(file))
    .filter((name) => existsSync(`${reference}/${name}/iptables`) && !/^random/.test(name))
    .sort();
  t.ok(scenarios.length > 40, 'there are scenarios');
  for (const name of scenarios) {
    const { node, proxy, steps } = JSON.parse(readFileSync(`${reference}/${name}/scenario.json`, 'utf8'));
    const config = join(dir, `${name}.config`);
    const head = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration', mode: 'iptables' };
    writeFileSync(config, JSON.stringify({ ...head, ...proxy, hostnameOverride: node.name }));
    const links: readonly { readonly addresses: readonly string[] }[] = node.links;
    const nodeAddress = links.flatMap(({ addresses }) => addresses.map((cidr) => cidr.replace(/\/.*/, '')));
    const objects = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: steps.at(-1).objects });
    for (const [family, tool] of [
      ['ipv4', 'iptables'],
      ['ipv6', 'ip6tables'],
    ] as const) {
      const { stdout, stderr } = await render(
        { filename: ['-'], config, family, format: 'saved', nfacct: true, nodeAddress },
        objects,
      );
      const file = `${reference}/${name}/iptables/${String(steps.length - 1).padStart(2, '0')}.${tool}`;
      t.equal(normalForm(stdout), withoutCanaries(readFileSync(file, 'utf8')), `${name} ${family} ${stderr}`);
    }
  }
});

/** A recording without what only a daemon leaves: the chains that tell it of a flush. */
function withoutCanaries(dump: string): string {
  const tables = dump.split(/(?<=^COMMIT$)\n/m).filter((table) => !/^\*mangle$/m.test(table));
  return normalForm(tables.join('\n').replace(/^:KUBE-PROXY-CANARY .*\n/gm, ''));
}
