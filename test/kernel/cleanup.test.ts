/**
 * `switchyard cleanup` and `run --cleanup` in the kernel: after the proxy has run in a mode, with rules of everybody else around,
 * the tables are what they were before.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { createApiServer } from '../../src/lab/api/server.ts';
import { settledMark } from '../../src/lab/proxy.ts';
import { BUILT_MODES, type ModeName } from '../../src/modes/mode.ts';
import { liveCluster } from '../lib/live-objects.ts';
import { becomesTrue, LiveProxy } from '../lib/live-proxy.ts';
import { caseInside, feed, privateRun, runInside, sh } from '../lib/namespace.ts';
import { differenceOf } from '../lib/normal-form.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const TOOLS = ['iptables', 'ip6tables'] as const;
const FLAVOURS = ['nft', 'legacy'] as const;
type Flavour = (typeof FLAVOURS)[number];

/** As kubelet, flannel, portmap, the network policies of K3s and a user write them. */
const FOREIGN = `*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*filter
:FLANNEL-FWD - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
:KUBE-NWPLCY-6KP2KZYXG3C5HTHW - [0:0]
:KUBE-POD-FW-4MFZAFXIVRSDSFHP - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
:KUBE-ROUTER-OUTPUT - [0:0]
-A INPUT -m comment --comment "kube-router netpol - 4IA2OSFRMVNDXBVV" -j KUBE-ROUTER-INPUT
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -m comment --comment "kubernetes service portals" -j ACCEPT
-A OUTPUT -m comment --comment "kube-router netpol - VEAAIY32XVBHCSCY" -j KUBE-ROUTER-OUTPUT
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
-A KUBE-NWPLCY-6KP2KZYXG3C5HTHW -p tcp -j RETURN
-A KUBE-POD-FW-4MFZAFXIVRSDSFHP -j KUBE-NWPLCY-6KP2KZYXG3C5HTHW
-A KUBE-ROUTER-FORWARD -j KUBE-POD-FW-4MFZAFXIVRSDSFHP
COMMIT
*nat
:CNI-DN-9d8a7b6c5d4e3f2a1b0c9 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
:FLANNEL-POSTRTG - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-SVCS-OF-A-USER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A CNI-DN-9d8a7b6c5d4e3f2a1b0c9 -p tcp -m tcp --dport 8088 -j REDIRECT --to-ports 80
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8088 -j CNI-DN-9d8a7b6c5d4e3f2a1b0c9
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
`;

/** What kubelet writes of IPv4, and the proxy too: whoever is first. */
const LOCALNET = `*filter
:KUBE-FIREWALL - [0:0]
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
`;

const FOREIGN_TABLES = `table inet filter {
  chain input { type filter hook input priority 0; tcp dport 22 accept; }
}
table ip kube-proxy-of-a-user {
  chain services { counter; }
}
`;

interface Variant {
  readonly mode: ModeName;
  readonly flavour: Flavour;
  readonly config?: Readonly<Record<string, unknown>>;
}

const variants = (
  [
    { mode: 'iptables', flavour: 'nft' },
    { mode: 'iptables', flavour: 'legacy' },
    { mode: 'nftables', flavour: 'nft', config: { nftables: { layout: 'chains' } } },
    { mode: 'nftables', flavour: 'nft', config: { nftables: { layout: 'maps' } } },
  ] satisfies readonly Variant[]
).filter(({ mode }) => BUILT_MODES.includes(mode));

/** Everything there is, without counters. Of nf_tables what is not iptables'. */
function dump(): string {
  const saves = FLAVOURS.flatMap((flavour) =>
    TOOLS.map((tool) => `# ${tool} ${flavour}\n${sh(`${tool}-${flavour}-save`)}`),
  );
  const tables = sh('nft', 'list', 'ruleset').split(/^(?=table )/m);
  const foreign = tables.filter((table) => !/^table ip6? (?:nat|filter|mangle) /.test(table));
  return [...saves, ...foreign]
    .join('')
    .replace(/^#.*\n/gm, '')
    .replace(/ \[\d+:\d+\]$/gm, '')
    .replace(/counter packets \d+ bytes \d+/g, 'counter');
}

interface Told {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function switchyard(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Told {
  return spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', env });
}

/** Lets the proxy program a cluster and ends it; its rules stay. */
async function leaveRules({ mode, flavour, config }: Variant): Promise<void> {
  const proxy = new LiveProxy(await createApiServer(), { flavour, config: { mode, ...config } });
  try {
    proxy.api.replaceAll(liveCluster(12));
    proxy.start();
    const isSettled = async () => {
      const metrics = await proxy.metrics();
      if (proxy.diedBy !== undefined) throw new Error(`Cannot leave rules, it ended (${proxy.diedBy}): ${proxy.log}`);
      return metrics !== undefined && settledMark(metrics) !== undefined;
    };
    if (!(await becomesTrue(isSettled, 20_000))) throw new Error(`Cannot leave rules: ${proxy.log}`);
    await proxy.stop();
  } finally {
    await proxy.close();
  }
}

const nameOf = ({ mode, flavour, config }: Variant) =>
  `${mode} (${mode === 'iptables' ? flavour : JSON.stringify(config?.['nftables'])})`;

async function restoresAll(t: Test): Promise<void> {
  for (const flavour of FLAVOURS) {
    for (const tool of TOOLS) feed(FOREIGN, `${tool}-${flavour}-restore`, '--noflush');
    feed(LOCALNET, `iptables-${flavour}-restore`, '--noflush');
  }
  feed(FOREIGN_TABLES, 'nft', '-f', '-');
  const before = dump();
  t.match(before, /KUBE-POD-FW-.*kube-proxy-of-a-user/s, 'foreign rules are seen');
  for (const [i, variant] of variants.entries()) {
    // Behind both is the same.
    for (const command of i === 0 ? [['cleanup'], ['run', '--cleanup']] : [['cleanup']]) {
      await t.test(`${nameOf(variant)}, ${command.join(' ')}`, async (t) => {
        await leaveRules(variant);
        t.not(dump(), before, 'there are rules to remove');
        const told = switchyard(command);
        t.equal(told.status, 0, told.stderr);
        t.equal(differenceOf(before, dump()), '', 'everything is as before');
        if (command[0] === 'cleanup') {
          const line =
            variant.mode === 'nftables'
              ? /^nftables: removed IPv4: table ip kube-proxy; IPv6: table ip6/m
              : /: removed IPv4: \d+ chains, \d+ rules; IPv6: \d+ chains, \d+ rules$/m;
          t.match(told.stdout, line);
          t.equal(told.stdout.match(/: nothing there$/gm)?.length, 2, 'and nothing of the others');
        }
      });
    }
  }
  await t.test('all at once', async (t) => {
    await leaveRules({ mode: 'iptables', flavour: 'nft' });
    feed(sh('iptables-nft-save'), 'iptables-legacy-restore');
    sh('nft', 'add', 'table', 'ip', 'kube-proxy');
    const told = switchyard(['cleanup', '--output', 'json']);
    t.equal(told.status, 0, told.stderr);
    t.match(JSON.parse(told.stdout), [
      { ruleset: 'iptables (nft)', removed: [/chains/, /chains/], kept: [], errors: [] },
      { ruleset: 'iptables (legacy)', removed: [/chains/], kept: [], errors: [] },
      { ruleset: 'nftables', removed: [/table ip kube-proxy/] },
    ]);
    t.equal(differenceOf(before, dump()), '', 'everything is as before');
    t.match(
      switchyard(['cleanup']),
      { status: 0, stdout: /^(.*: nothing there\n){3}$/ },
      'and a second time finds nothing',
    );
  });
}

/** A user's rule that jumps to a chain of ours is the user's: it stays, and so does the chain, empty. */
async function heldByOthers(t: Test): Promise<void> {
  await leaveRules({ mode: 'iptables', flavour: 'nft' });
  sh('iptables-nft', '-t', 'nat', '-A', 'PREROUTING', '-s', '198.18.0.1/32', '-j', 'KUBE-MARK-MASQ');
  const told = switchyard(['cleanup']);
  t.equal(told.status, 1);
  t.match(told.stdout, /^iptables \(nft\): kept IPv4: KUBE-MARK-MASQ, empty: a rule of somebody else jumps to it$/m);
  const left = sh('iptables-nft-save', '-t', 'nat').match(/^.*KUBE-.*$/gm);
  t.same(left, [':KUBE-MARK-MASQ - [0:0]', '-A PREROUTING -s 198.18.0.1/32 -j KUBE-MARK-MASQ']);
  t.match(switchyard(['run', '--cleanup']), { status: 0 }, 'what is left is no ruleset any more');
}

async function emptyNode(t: Test): Promise<void> {
  for (const command of [['cleanup'], ['run', '--cleanup']]) t.equal(switchyard(command).status, 0);
  t.equal(sh('nft', 'list', 'ruleset'), '', 'no table was made');
  t.equal(sh('cat', '/proc/self/net/ip_tables_names'), '', 'of the legacy flavour neither');
  t.match(switchyard(['cleanup', '--outptu']), { status: 2, stderr: /unknown option '--outptu'/ });

  const withoutTools = { ...process.env, PATH: '/nonexistent' };
  sh('nft', 'add', 'table', 'ip', 'kube-proxy');
  t.match(switchyard(['cleanup'], withoutTools), {
    status: 0,
    stdout: /^nftables: removed IPv4: table ip kube-proxy$/m,
  });
  sh('iptables-legacy', '-t', 'nat', '-N', 'KUBE-SERVICES');
  const says =
    /^iptables \(legacy\): Cannot take .* away for IPv4, if there are any: .*no iptables-legacy.*install the package iptables/m;
  t.match(switchyard(['cleanup'], withoutTools), { status: 1, stdout: says });
  t.match(switchyard(['cleanup']), { status: 0, stdout: /^iptables \(legacy\): removed IPv4: 1 chains, 0 rules$/m });
  sh('ip6tables-nft', '-N', 'KUBE-FORWARD');
  t.match(switchyard(['run', '--cleanup'], withoutTools), { status: 1, stderr: /Cannot remove all rules: .*IPv6/ });
  t.match(switchyard(['cleanup']), { status: 0, stdout: /^iptables \(nft\): removed IPv6: 1 chains, 0 rules$/m });
}

const cases = { 'among foreign rules': restoresAll, 'held by others': heldByOthers, 'nothing there': emptyNode };

const inside = caseInside();
if (inside === undefined) {
  t.setTimeout(300_000);
  t.jobs = 2;
  for (const name of Object.keys(cases)) {
    t.test(name, { buffered: true }, async (t) => await runInside(t, import.meta.url, name));
  }
} else {
  t.setTimeout(300_000);
  privateRun();
  sh('mount', '-t', 'sysfs', 'sys', '/sys');
  sh('ip', 'link', 'set', 'lo', 'up');
  const test = Object.entries(cases).find(([name]) => name === inside)?.[1];
  if (test === undefined) throw new Error(`Cannot run case "${inside}": there is none of this name`);
  t.test(inside, test);
}
