/** What IPVS mode finds on a node: programs, kernel settings, the sets' text; and what it leaves when it goes. */
import t from 'tap';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { fakePrograms } from '../../src/iptables/fake-programs.ts';
import { cleanUpIpvs } from '../../src/modes/ipvs/cleanup.ts';
import { FakeIpsets, fakeIpset } from '../../src/modes/ipvs/fake-ipset.ts';
import { createIpsets, parseIpsetVersion, parseSets } from '../../src/modes/ipvs/ipset.ts';
import { openIpvs } from '../../src/modes/ipvs/open.ts';
import { probeIpvs } from '../../src/modes/ipvs/probe.ts';
import { removeIpvsRules } from '../../src/modes/ipvs/rules-cleanup.ts';
import { formatEntry, SET_IDS, setName } from '../../src/modes/ipvs/sets.ts';
import { ensureKernelSettings } from '../../src/modes/ipvs/settings.ts';
import { NetlinkError } from '../../src/netlink/error.ts';
import { FakeDevices } from '../../src/netlink/fake-device.ts';
import { FakeIpvs } from '../../src/netlink/fake-ipvs.ts';
import { FAMILIES } from '../../src/proxier/types.ts';
import { type Command, type Exec, ExecError } from '../../src/sys/exec.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { FakeExec } from '../../src/sys/fake-exec.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';
import { makeIpvsNode, makeIpvsOptions } from '../lib/ipvs-world.ts';
import { cidr, ip, makePlan } from '../lib/make.ts';

/** Programs that answer by name; those not given are not installed. */
function programs(answers: Readonly<Record<string, string | { readonly stderr: string }>>) {
  const started: Command[] = [];
  const exec: Exec = {
    run: async (command) => {
      started.push(command);
      const answer = answers[command.argv[0]];
      const none = { stdout: '', stderr: '' };
      if (answer === undefined) throw new ExecError(command.argv, { code: 'NOT_STARTED' }, none);
      if (typeof answer === 'string') return answer;
      throw new ExecError(command.argv, { code: 'EXITED', status: 1 }, { ...none, stderr: answer.stderr });
    },
  };
  return { exec, started };
}

t.test('names and elements of sets', async (t) => {
  const v6 = SET_IDS.map((id) => setName(id, 'IPv6'));
  t.equal(new Set(v6).size, 17, 'cutting makes no two the same');
  t.same(
    v6.filter((name) => name.length > 30),
    ['KUBE-6-LOAD-BALANCER-SOURCE-CID', 'KUBE-6-NODE-PORT-LOCAL-SCTP-HAS'],
  );
  const at = { kind: 'ip,port,source', ip: ip('1.2.3.4'), protocol: 'SCTP', port: 80 } as const;
  const rows = [
    [formatEntry({ kind: 'ip', ip: ip('fd00:0::1') }), 'fd00::1'],
    [formatEntry({ kind: 'port', port: 3001 }), '3001'],
    [formatEntry({ ...at, kind: 'ip,port' }), '1.2.3.4,sctp:80'],
    [formatEntry({ ...at, source: cidr('10.0.0.0/8') }), '1.2.3.4,sctp:80,10.0.0.0/8'],
    [formatEntry({ ...at, source: cidr('10.0.0.1/32') }), '1.2.3.4,sctp:80,10.0.0.1'],
    [formatEntry({ ...at, source: cidr('fd00::1/128') }), '1.2.3.4,sctp:80,fd00::1'],
    [formatEntry({ ...at, source: cidr('fd00::/32') }), '1.2.3.4,sctp:80,fd00::/32'],
  ] as const;
  for (const [got, wanted] of rows) t.equal(got, wanted);
});

t.test('parseSets()', async (t) => {
  const text = `create A hash:ip,port family inet6 hashsize 1024 maxelem 65536
add A fd00::1,tcp:80
add A ::1.2.3.4,udp:53
create B bitmap:port range 0-65535 timeout 0
add B 80 timeout 30
create C hash:ip,port,net family inet6 hashsize 1024 maxelem 65536
add C fd00::1,tcp:80,::1.2.3.0/120
add D 1
`;
  t.same(
    [...parseSets(text)].map(([name, elements]) => [name, [...elements]]),
    [
      ['A', ['fd00::1,tcp:80', '::102:304,udp:53']],
      ['B', ['80']],
      ['C', ['fd00::1,tcp:80,::102:300/120']],
    ],
    'in our own form of addresses',
  );
  t.same(parseIpsetVersion('ipset v7.17, protocol version: 7\n'), [7, 17]);
  t.equal(parseIpsetVersion('v'), undefined);
});

t.test('createIpsets()', async (t) => {
  const { exec, started } = programs({ ipset: 'create A hash:ip\n' });
  const ipsets = createIpsets(exec);
  t.same([...(await ipsets.list()).keys()], ['A']);
  await ipsets.run(['add A 1.1.1.1', 'del A 2.2.2.2']);
  await ipsets.run([]);
  t.same(
    started.map(({ argv, stdin }) => [argv.join(' '), stdin]),
    [
      ['ipset save', undefined],
      ['ipset -exist restore', 'add A 1.1.1.1\ndel A 2.2.2.2\n'],
    ],
    'one process for all of it, none for nothing',
  );
  const says = (stderr: string) => createIpsets(programs({ ipset: { stderr } }).exec).run(['x', 'y']);
  await t.rejects(says('ipset v7.17: Error in line 2: Hash is full\n'), { name: 'IpsetRefusedError', position: 1 });
  await t.rejects(says('ipset v7.17: Cannot open session to kernel.\nCommand line\n'), {
    name: 'IpsetRefusedError',
    position: undefined,
    message: 'Cannot change sets: ipset v7.17: Cannot open session to kernel.; Command line',
  });
  await t.rejects(createIpsets(programs({}).exec).run(['x']), { name: 'ExecError' });
});

const IPSET = { ipset: 'ipset v7.17, protocol version: 7', modprobe: '' };

t.test('probeIpvs()', async (t) => {
  const refusing = (name: string): FakeIpvs => {
    const ipvs = new FakeIpvs();
    ipvs.listServices = () => {
      throw new NetlinkError('list', { code: 'KERNEL', errno: 1, name });
    };
    return ipvs;
  };
  const rows: readonly {
    name: string;
    ipvs?: FakeIpvs;
    programs?: Parameters<typeof programs>[0];
    scheduler?: string;
    says?: RegExp;
  }[] = [
    { name: 'all is there' },
    { name: 'no modprobe, and no need for it', programs: { ipset: IPSET.ipset } },
    { name: 'no module', ipvs: refusing('ENOENT'), says: /load the kernel module ip_vs / },
    { name: 'no right', ipvs: refusing('EPERM'), says: /run as root/ },
    { name: 'no ipset', programs: { modprobe: '' }, says: /install the package ipset/ },
    { name: 'an old ipset', programs: { ...IPSET, ipset: 'ipset v4.5' }, says: /it must be version 6\.0 or newer/ },
    { name: 'an unknown scheduler', scheduler: 'nosuch', says: /ip_vs_nosuch, or choose another/ },
  ];
  for (const { name, ipvs = new FakeIpvs(), programs: have = IPSET, scheduler = 'rr', says } of rows) {
    const probing = probeIpvs(scheduler, { ipvs, exec: programs(have).exec });
    if (says === undefined) t.same(await probing, { ipsetVersion: '7.17' }, name);
    else await t.rejects(probing, { message: says }, name);
    if (says === undefined) t.same(ipvs.listServices(), [], `${name}: nothing stays`);
  }
  const ipvs = new FakeIpvs();
  const used = {
    address: Uint8Array.of(1, 2, 3, 4),
    port: 1,
    protocol: 6,
    scheduler: 'rr',
    flags: 0,
    timeoutSeconds: 0,
  };
  ipvs.change([{ kind: 'newService', service: used }]);
  await probeIpvs('rr', { ipvs, exec: programs(IPSET).exec });
  t.equal(ipvs.changes.length, 1, 'a scheduler in use is not tried');
});

const SETTINGS = {
  'net/ipv4/vs/conntrack': 0,
  'net/ipv4/vs/conn_reuse_mode': 1,
  'net/ipv4/vs/expire_nodest_conn': 0,
  'net/ipv4/vs/expire_quiescent_template': 0,
  'net/ipv4/ip_forward': 1,
  'net/ipv4/conf/all/arp_ignore': 0,
  'net/ipv4/conf/all/arp_announce': 0,
};

t.test('ensureKernelSettings()', async (t) => {
  const always = ['vs/conntrack=1', 'vs/expire_nodest_conn=1', 'vs/expire_quiescent_template=1'];
  const rows = [
    { kernelRelease: '6.1.0-1', strictARP: false, writes: always },
    { kernelRelease: '5.9.1', strictARP: false, writes: always },
    { kernelRelease: '5.8.18', strictARP: false, writes: [always[0], 'vs/conn_reuse_mode=0', ...always.slice(1)] },
    { kernelRelease: '4.1.0', strictARP: false, writes: [always[0], 'vs/conn_reuse_mode=0', ...always.slice(1)] },
    { kernelRelease: '4.0.9', strictARP: false, writes: always, warning: /before Linux 4\.1/ },
    {
      kernelRelease: '6.1.0',
      strictARP: true,
      writes: [...always, 'conf/all/arp_ignore=1', 'conf/all/arp_announce=2'],
    },
  ];
  for (const { writes, warning, ...settings } of rows) {
    const sysctl = new FakeSysctl(SETTINGS);
    const said = ensureKernelSettings(sysctl, settings);
    t.same(
      sysctl.writes,
      writes.map((write) => `net/ipv4/${write}`),
      JSON.stringify(settings),
    );
    if (warning === undefined) t.equal(said, undefined);
    else t.match(said, warning);
  }
});

t.test('cleanUpIpvs()', async (t) => {
  const node = makeIpvsNode();
  await node.sync([makePlan()]);
  await node.ipsets.run(['create THEIRS hash:ip family inet']);
  node.ruleset.restore('*filter\n:THEIRS - [0:0]\n-A INPUT -j THEIRS\nCOMMIT\n');
  const removed = await removeIpvsRules(node.tools);
  t.match(removed, { chains: 11, held: [], errors: [] });
  t.same(await cleanUpIpvs(node), []);
  const { rules, ...rest } = node.state();
  t.same(rest, { servers: '', sets: 'create THEIRS hash:ip family inet\n', addresses: '' });
  t.match(rules, '-A INPUT -j THEIRS');
  t.notMatch(rules, /KUBE-/);
  t.match(await removeIpvsRules(node.tools), { chains: 0, rules: 0, errors: [] });
  t.equal(node.devices.find('kube-ipvs0'), undefined);
  t.same(await cleanUpIpvs(node), [], 'a second one finds nothing to do');

  await node.sync([], true);
  node.ipsets.used.add('KUBE-CLUSTER-IP');
  const devices = new FakeDevices();
  devices.devices.set('kube-ipvs0', { index: 7, kind: 'veth' });
  const errors = await cleanUpIpvs({ ...node, devices });
  t.match(
    errors.map(({ message }) => message),
    [/Cannot clean up device kube-ipvs0: .*kind "veth"/, /Cannot clean up sets: .*in use/],
  );
  t.same(await cleanUpIpvs({ ipvs: new FakeIpvs(), devices: new FakeDevices(), ipsets: new FakeIpsets() }), []);
});

t.test('openIpvs()', async (t) => {
  const ipvs = new FakeIpvs();
  const devices = new FakeDevices();
  const sets = new FakeIpsets();
  const rulesets = FAMILIES.map((family) => new FakeRuleset(family, 'legacy'));
  const programs = Object.assign({}, ...rulesets.map((ruleset) => fakePrograms(ruleset)));
  const sysctl = new FakeSysctl(SETTINGS);
  const warnings: string[] = [];
  const deps = {
    exec: new FakeExec({ ...programs, ipset: fakeIpset(sets), modprobe: () => ({}) }),
    clock: new FakeClock(),
    sysctl,
    legacyTables: { names: () => [] },
    log: { info: () => {}, warn: (_: object, message: string) => warnings.push(message) },
    metrics: () => ({ restoreFailed: () => {} }),
  };
  const ofMode = {
    scheduler: '',
    excludeCIDRs: ['10.9.0.0/16', 'fd00:9::/64'],
    strictARP: true,
    bindsExternalIPs: true,
  };
  const timeouts = { tcpTimeoutMs: 0, tcpFinTimeoutMs: 30_500, udpTimeoutMs: 0 };
  const settings = { iptablesFlavour: 'auto', masqueradeBit: 14, masqueradeAll: false, syncPeriodMs: 30_000 } as const;
  const open = (kernelRelease: string, more: object = timeouts) =>
    openIpvs({ ...settings, ipvs: { ...ofMode, ...timeouts, ...more } }, deps, { ipvs, devices, kernelRelease });
  const mode = await open('6.1.0');
  t.equal(mode.description, 'IPVS with scheduler rr, ipset 7.17, iptables (legacy)');
  t.same(mode.support, { IPv4: undefined, IPv6: undefined });
  const { localTraffic, nodePortAddresses, nodeIP } = makeIpvsOptions();
  const family = { family: 'IPv4', localTraffic, nodePortAddresses, nodeIP, localhostNodePorts: false } as const;
  const dataplane = mode.createDataplane(family);
  t.equal(sysctl.get('net/ipv4/conf/all/arp_announce'), 2);
  t.same(ipvs.timeouts(), { tcp: 900, tcpFin: 30, udp: 300 }, 'whole seconds; 0 keeps what is');
  const plan = makePlan();
  const snapshot = {
    services: new Map([[plan.service, plan]]),
    dirty: new Set<never>(),
    endpointCount: 0,
    serviceCIDRs: [],
  };
  await dataplane.sync(snapshot, { full: true });
  t.equal(ipvs.listServices().length, 1);
  t.match(rulesets[0]?.save(), /:KUBE-IPVS-FILTER/);
  t.same(
    [await mode.packets.ctStateInvalidDropped(), await mode.packets.localhostNodePortsAccepted()],
    [undefined, undefined],
  );

  (await open('4.0.1')).createDataplane(family);
  t.same(warnings, ['net/ipv4/vs/conn_reuse_mode cannot be switched off before Linux 4.1']);
  ipvs.setTimeouts = () => {
    throw new NetlinkError('set', { code: 'KERNEL', errno: 22, name: 'EINVAL' });
  };
  (await open('6.1.0')).createDataplane(family);
  t.equal(warnings.at(-1), 'timeouts of IPVS not set', 'is no reason not to serve');
});
