/**
 * Rendered text given to `nft`: every recorded state by way of `switchyard render`, and what no recording has. In layout
 * `chains`, what nft then lists is what kube-proxy had programmed, and can be loaded again.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { runRender } from '../../src/cli/render.ts';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { CHAINS_LAYOUT } from '../../src/modes/nftables/chains-layout.ts';
import { createAll, nftFamily } from '../../src/modes/nftables/create.ts';
import type { LayoutName } from '../../src/modes/nftables/layout.ts';
import { servicePortNames } from '../../src/modes/nftables/names.ts';
import type { NftablesFacts, NftablesOptions } from '../../src/modes/nftables/options.ts';
import { formatTransaction } from '../../src/netlink/nftables/text.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import type { ServicePlan } from '../../src/proxier/types.ts';
import { makeIo } from '../lib/io.ts';
import { IPV6_SERVICES, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { caseInside, runInside } from '../lib/namespace.ts';
import { nftListing } from '../lib/nft-listing.ts';
import { makeNftFacts, makeNftOptions } from '../lib/nftables-world.ts';
import { differenceOf, nftNormalForm } from '../lib/normal-form.ts';
import { readRecording, readScenario, scenariosOf } from '../lib/reference-scenarios.ts';

function nft(input: string, ...args: readonly string[]) {
  const { status, stdout, stderr, error } = spawnSync('nft', args, { input, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (error) throw error;
  return { status, stdout, stderr };
}

/** What nft lists after it was given a text, on a kernel without rules. */
function listed(text: string): string {
  const { status, stderr } = nft(`flush ruleset\n${text}`, '-f', '-');
  if (status !== 0) throw new Error(`Cannot load the text: ${stderr}`);
  return nft('', '-s', 'list', 'ruleset').stdout;
}

/** `switchyard render` in this process. */
async function rendered(
  layout: LayoutName,
  config: string,
  objects: readonly object[],
  nodeAddress: readonly string[],
): Promise<string> {
  const { io, out } = makeIo(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  const code = await runRender({ filename: ['-'], config, mode: 'nftables', layout, family: 'both', nodeAddress }, io);
  if (code !== 0) throw new Error(`Cannot render: ${out.stderr}`);
  return out.stdout;
}

interface World {
  readonly name: string;
  readonly services: readonly ServicePlan[];
  readonly options?: Partial<NftablesOptions>;
  readonly facts?: Partial<NftablesFacts>;
  /** Lines that must be listed. */
  readonly lines?: readonly string[];
}

const long = (n: number) => 'x'.repeat(n);

/** Of the first service of POLICIES. */
const BOTH_LOCAL = servicePortNames(makeServicePort({ serviceName: 'both-local' }));

const worlds: readonly World[] = [
  { name: 'no service', services: [] },
  { name: 'six services', services: SIX_SERVICES },
  { name: 'policies', services: POLICIES },
  {
    name: 'IPv6',
    services: IPV6_SERVICES,
    options: { family: 'IPv6' },
    facts: { nodeIPs: [ip('2001:db8::1')], serviceCIDRs: ['fd00:43::/112', 'fd00:44::/112'] },
    lines: ['ip6 daddr { fd00:43::/112, fd00:44::/112 } drop comment "Drop traffic to unallocated ClusterIPs"'],
  },
  {
    name: 'every address answers on node ports',
    services: POLICIES,
    options: { nodePortAddresses: nodePortAddresses(['0.0.0.0/0'], 'IPv4') },
    lines: [
      'fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports',
      'ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports',
    ],
  },
  {
    name: 'masquerade all, another mark',
    services: POLICIES,
    options: { masqueradeAll: true, masqueradeBit: 30 },
    lines: [
      'ip daddr @cluster-ips meta mark set meta mark | 0x40000000 comment "masquerade all clusterIP traffic"',
      'meta mark & 0x40000000 != 0x00000000 meta mark set meta mark ^ 0x40000000 masquerade fully-random',
    ],
  },
  { name: 'nobody is outside', services: POLICIES, options: { localTraffic: { kind: 'none' } } },
  ...['cni0', '0abc', 'a@b', 'br-lan.10', 'ip', '123', 'a:1', 'drop', '15-bytes-long--'].map((name) => ({
    name: `pods behind bridge ${name}`,
    services: POLICIES,
    options: { localTraffic: { kind: 'bridge' as const, name } },
    lines: [
      `ip daddr @cluster-ips iifname != "${name}" meta mark set meta mark | 0x00004000 comment "masquerade clusterIP traffic from outside cluster"`,
      `iifname "${name}" goto ${BOTH_LOCAL.clusterPolicy} comment "short-circuit pod traffic"`,
    ],
  })),
  ...['veth', '0', 'a@b'].map((prefix) => ({
    name: `pods behind interfaces ${prefix}*`,
    services: POLICIES,
    options: { localTraffic: { kind: 'prefix' as const, prefix } },
    lines: [
      `ip daddr @cluster-ips iifname != "${prefix}*" meta mark set meta mark | 0x00004000 comment "masquerade clusterIP traffic from outside cluster"`,
    ],
  })),
  {
    name: 'one service CIDR',
    services: SIX_SERVICES,
    facts: { serviceCIDRs: ['172.30.0.0/16'] },
    lines: ['ip daddr 172.30.0.0/16 drop comment "Drop traffic to unallocated ClusterIPs"'],
  },
  {
    name: 'service CIDRs that touch and overlap',
    services: SIX_SERVICES,
    facts: { serviceCIDRs: ['172.30.128.0/17', '172.30.0.0/17', '172.30.1.0/24', '10.9.0.0/30', '10.9.0.4/31'] },
    lines: ['ip daddr { 10.9.0.0-10.9.0.5, 172.30.0.0/16 } drop comment "Drop traffic to unallocated ClusterIPs"'],
  },
  {
    name: 'source ranges that are everything',
    services: [
      makePlan(
        makeServicePort({ loadBalancerVIPs: [ip('5.6.7.8')], sourceRanges: [cidr('0.0.0.0/1'), cidr('128.0.0.0/1')] }),
        [makeEndpoint('10.180.0.1')],
      ),
    ],
    lines: ['ip saddr != { 0.0.0.0/0 } drop'],
  },
  {
    name: 'the longest names',
    services: [
      makePlan(
        makeServicePort({
          namespace: long(63),
          serviceName: long(63),
          portName: long(63),
          clusterIP: ip('172.30.1.1'),
          affinitySeconds: 86_400,
        }),
        [makeEndpoint('10.180.0.1', { isLocal: true })],
      ),
      makePlan(
        makeServicePort({
          namespace: long(63),
          serviceName: `a${long(62)}`,
          portName: long(63),
          clusterIP: ip('172.30.1.2'),
        }),
      ),
    ],
    lines: [`elements = { 172.30.1.2 . tcp . 80 comment "${long(63)}/a${long(60)}..." : goto reject-chain }`],
  },
  {
    name: 'a comment of 128 bytes',
    services: [makePlan(makeServicePort({ namespace: 'ns', serviceName: long(63), portName: long(61) }))],
    lines: [`elements = { 172.30.1.1 . tcp . 80 comment "ns/${long(63)}:${long(61)}" : goto reject-chain }`],
  },
];

if (caseInside() === undefined) {
  t.test('text for nft', async (t) => runInside(t, import.meta.url, 'text'));
} else {
  const dir = mkdtempSync(`${tmpdir()}/nftables-text-`);
  t.teardown(() => rmSync(dir, { recursive: true }));

  t.test('every recorded state, rendered', async (t) => {
    const scenarios = scenariosOf('nftables');
    t.equal(scenarios.length, 53, 'all recorded scenarios are here');
    for (const name of scenarios) {
      const { node, proxy, steps } = readScenario(name);
      const config = `${dir}/config`;
      const head = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration', mode: 'nftables' };
      writeFileSync(config, JSON.stringify({ ...head, ...proxy, hostnameOverride: node.name }));
      const addresses = node.links.flatMap((link) => link.addresses.map((a) => a.replace(/\/.*/, '')));
      for (const [step, { objects }] of steps.entries()) {
        const text = await rendered('chains', config, objects, addresses);
        const recorded = nftNormalForm(readRecording(name, 'nftables', step, 'nft'), 'leave out');
        t.equal(differenceOf(recorded, nftNormalForm(listed(text), 'keep')), '', `${name}, step ${step}`);
        const maps = await rendered('maps', config, objects, addresses);
        t.match(
          nft(`flush ruleset\n${maps}`, '-c', '-f', '-'),
          { status: 0, stderr: '' },
          `${name}, step ${step}, maps`,
        );
      }
    }
  });

  for (const { name, services, options, facts, lines = [] } of worlds) {
    t.test(name, async (t) => {
      const all = makeNftOptions(options);
      const known = makeNftFacts(facts);
      const family = nftFamily(all.family);
      const creation = createAll(CHAINS_LAYOUT, services, all, known);
      const commands = [...creation.statics, ...creation.services.flatMap((s) => s.commands)];
      const listing = nftNormalForm(listed(formatTransaction({ family, table: TABLE, commands })), 'keep');
      const printed = nftListing(family, [
        CHAINS_LAYOUT.renderStatic(all, known),
        ...services.map((plan) => CHAINS_LAYOUT.renderService(plan, all, known)),
      ]);
      t.equal(differenceOf(nftNormalForm(printed, 'keep'), listing), '', 'listed as the tests print it');
      const there = listing.split('\n').map((line) => line.trim());
      for (const line of lines) t.ok(there.includes(line), `lists ${line}`);
      t.match(nft(nft('', 'list', 'ruleset').stdout, '-c', '-f', '-'), { status: 0, stderr: '' }, 'loads again');
    });
  }
}
