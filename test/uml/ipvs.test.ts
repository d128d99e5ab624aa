/**
 * IPVS mode against a real kernel: both families, read back with the tools. What sets in memory say about a command is what the
 * program says.
 */
import fc from 'fast-check';
import t from 'tap';
import { probeFamily } from '../../src/iptables/probe.ts';
import { createIpvsDataplane } from '../../src/modes/ipvs/apply.ts';
import { cleanUpIpvs } from '../../src/modes/ipvs/cleanup.ts';
import { FakeIpsets } from '../../src/modes/ipvs/fake-ipset.ts';
import { createIpsets, IpsetRefusedError, type Ipsets } from '../../src/modes/ipvs/ipset.ts';
import { probeIpvs } from '../../src/modes/ipvs/probe.ts';
import { createRuleWriter } from '../../src/modes/ipvs/rule-writer.ts';
import { removeIpvsRules } from '../../src/modes/ipvs/rules-cleanup.ts';
import { SET_IDS, setDefinition, setName } from '../../src/modes/ipvs/sets.ts';
import { ensureKernelSettings } from '../../src/modes/ipvs/settings.ts';
import { createDevices } from '../../src/netlink/device.ts';
import { createIpvs } from '../../src/netlink/ipvs.ts';
import { FAMILIES, type Family, type ObjectKey, type ServicePlan } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { realExec } from '../../src/sys/exec.ts';
import { realSysctl } from '../../src/sys/proc.ts';
import { arbPlansOf } from '../lib/iptables-plans.ts';
import { addressNormalForm, ipsetNormalForm, ipvsNormalForm } from '../lib/ipvs-normal-form.ts';
import { type KernelState, makeIpvsOptions, wantedState } from '../lib/ipvs-world.ts';
import { sh } from '../lib/namespace.ts';
import { normalForm } from '../lib/normal-form.ts';
import { isInsideUml, runInUml } from '../lib/uml.ts';

const LINK: Readonly<Record<Family, string>> = { IPv4: '192.168.0.2/24', IPv6: '2001:db8::1/64' };

async function makeNode(family: Family) {
  const options = makeIpvsOptions({ family });
  const deps = { ipvs: createIpvs(), devices: createDevices(), ipsets: createIpsets(realExec) };
  const found = await probeFamily(family, 'legacy', { exec: realExec, clock: realClock });
  if (found.kind === 'absent') throw found.error;
  const { tools } = found;
  const make = () => {
    const rules = createRuleWriter({ tools, onRestoreFailed: () => {} }, options);
    return createIpvsDataplane({ ...deps, rules, clock: realClock, log: { info: () => {}, warn: () => {} } }, options);
  };
  let dataplane = make();
  const held = new Map<ObjectKey, ServicePlan>();
  return {
    ...deps,
    tools,
    options,
    held,
    restart() {
      dataplane = make();
    },
    async sync(plans: readonly ServicePlan[], full = false) {
      const dirty = new Set([...held.keys(), ...plans.map(({ service }) => service)]);
      held.clear();
      for (const plan of plans) held.set(plan.service, plan);
      return await dataplane.sync({ services: held, dirty, endpointCount: 0, serviceCIDRs: [] }, { full });
    },
  };
}

/** What the tools say is there of one family. */
function listed(family: Family): KernelState {
  const isV6 = family === 'IPv6';
  const ofFamily = (line: string) => line.includes('[') === isV6;
  const ours = new Set(SET_IDS.map((id) => setName(id, family)));
  const addresses = sh('ip', '-o', isV6 ? '-6' : '-4', 'addr', 'show', 'kube-ipvs0');
  const save = isV6 ? 'ip6tables-legacy-save' : 'iptables-legacy-save';
  return {
    rules: normalForm(['nat', 'filter'].map((table) => sh(save, '-t', table)).join('')),
    servers: ipvsNormalForm(sh('ipvsadm', '-Sn').split('\n').filter(ofFamily).join('\n')),
    sets: ipsetNormalForm(
      sh('ipset', 'save')
        .split('\n')
        .filter((line) => ours.has(line.split(' ')[1] ?? ''))
        .join('\n'),
    ),
    addresses: addressNormalForm(
      addresses
        .split('\n')
        .map((line) => / inet6? (\S+)\/(?:32|128) /.exec(line)?.[1] ?? '')
        .join('\n'),
    ),
  };
}

/** A source range of everything stands in no plan of the model, and ipset takes none. */
const withoutZeroRanges = (plans: readonly ServicePlan[]): readonly ServicePlan[] =>
  plans.map((plan) => ({
    ...plan,
    ports: plan.ports.map((one) => ({
      ...one,
      port: { ...one.port, sourceRanges: one.port.sourceRanges.filter((range) => !range.endsWith('/0')) },
    })),
  }));

async function inside() {
  sh('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'other');
  for (const family of FAMILIES) {
    sh('ip', 'addr', 'add', LINK[family], 'dev', 'eth0', ...(family === 'IPv6' ? ['nodad'] : []));
  }

  t.test('a kernel fit for it', async (t) => {
    t.match(await probeIpvs('rr', { ipvs: createIpvs(), exec: realExec }), { ipsetVersion: /^\d+\.\d+$/ });
    t.equal(sh('ipvsadm', '-Sn'), '', 'the probe leaves nothing');
    await t.rejects(probeIpvs('nosuch', { ipvs: createIpvs(), exec: realExec }), { message: /ip_vs_nosuch/ });
    t.equal(ensureKernelSettings(realSysctl, { strictARP: true, kernelRelease: '6.1' }), undefined);
    const values = [
      'vs/conntrack',
      'vs/expire_nodest_conn',
      'vs/expire_quiescent_template',
      'ip_forward',
      'conf/all/arp_announce',
    ];
    t.same(
      values.map((name) => realSysctl.get(`net/ipv4/${name}`)),
      [1, 1, 1, 1, 2],
    );
  });

  t.test('sets: program and memory', async (t) => {
    const real = createIpsets(realExec);
    const fake = new FakeIpsets();
    const create = FAMILIES.flatMap((family) =>
      SET_IDS.map((id) => `create ${setName(id, family)} ${setDefinition(id, family)}`),
    );
    const told = async (ipsets: Ipsets, commands: readonly string[]) => {
      try {
        await ipsets.run(commands);
        return 'done';
      } catch (error) {
        if (!(error instanceof IpsetRefusedError)) throw error;
        return error.position;
      }
    };
    const rows: readonly { name: string; commands: readonly string[] }[] = [
      { name: 'all sets', commands: create },
      { name: 'again', commands: create },
      {
        name: 'elements of every type',
        commands: [
          'add KUBE-LOOP-BACK 10.0.0.1,tcp:80,10.0.0.1',
          'add KUBE-6-LOOP-BACK fd00::1,udp:80,fd00::1',
          'add KUBE-CLUSTER-IP 10.0.0.1,sctp:80',
          'add KUBE-LOAD-BALANCER-SOURCE-CIDR 1.2.3.4,tcp:80,203.0.113.0/25',
          'add KUBE-LOAD-BALANCER-SOURCE-CIDR 1.2.3.4,tcp:80,203.0.113.9',
          'add KUBE-6-LOAD-BALANCER-SOURCE-CID fd00::1,tcp:80,2001:db8::/32',
          'add KUBE-6-LOAD-BALANCER-SOURCE-CID fd00::1,tcp:80,2001:db8::9',
          'add KUBE-NODE-PORT-TCP 30001',
          'add KUBE-IPVS-IPS 10.0.0.1',
          'add KUBE-6-IPVS-IPS ::102:304',
        ],
      },
      {
        name: 'what is there, and what is not',
        commands: ['add KUBE-NODE-PORT-TCP 30001', 'del KUBE-NODE-PORT-TCP 1'],
      },
      { name: 'a bad line', commands: ['add KUBE-NODE-PORT-TCP 2', 'add NOSUCH 1', 'add KUBE-NODE-PORT-TCP 3'] },
      { name: 'a set of another kind', commands: ['create KUBE-IPVS-IPS bitmap:port range 0-65535'] },
      { name: 'removal', commands: ['del KUBE-IPVS-IPS 10.0.0.1', 'del KUBE-6-LOOP-BACK fd00::1,udp:80,fd00::1'] },
      { name: 'destruction', commands: ['destroy KUBE-IPVS-IPS'] },
    ];
    for (const { name, commands } of rows) {
      t.equal(await told(real, commands), await told(fake, commands), `${name}: the same is said`);
      const texts = async (ipsets: Ipsets) =>
        Object.fromEntries(Array.from(await ipsets.list(), ([set, all]) => [set, [...all].sort()]));
      t.same(await texts(real), await texts(fake), `${name}: the same is there`);
    }
    sh('ipset', 'destroy');
  });

  for (const family of FAMILIES) {
    t.test(`${family}: any sequence of states`, async (t) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(arbPlansOf(family), fc.constantFrom('partial', 'full', 'restart')), {
            minLength: 2,
            maxLength: 3,
          }),
          async (states) => {
            const node = await makeNode(family);
            for (const [plans, how] of states) {
              if (how === 'restart') node.restart();
              const { refused } = await node.sync(withoutZeroRanges(plans), how === 'full');
              t.same(refused, [], 'nothing is refused');
              t.same(listed(family), wantedState(node.held.values(), node.options), `${how}: what is wanted is there`);
            }
          },
        ),
        { numRuns: 3 },
      );
      const node = await makeNode(family);
      await node.sync([]);
      t.same(listed(family), wantedState([], node.options), 'a fresh process takes away what it does not know');
    });
  }

  t.test('cleanup', async (t) => {
    const [four, six] = [await makeNode('IPv4'), await makeNode('IPv6')];
    for (const { tools } of [four, six]) t.match(await removeIpvsRules(tools), { chains: 11, held: [], errors: [] });
    t.same(await cleanUpIpvs(four), []);
    t.equal(sh('ipvsadm', '-Sn') + sh('ipset', 'save'), '');
    t.throws(() => sh('ip', 'link', 'show', 'kube-ipvs0'), /does not exist/);
    t.match(await removeIpvsRules(six.tools), { chains: 0, rules: 0, errors: [] });
    t.same(await cleanUpIpvs(four), [], 'a second one finds nothing to do');
  });
}

if (isInsideUml()) await inside();
else await runInUml(t, import.meta.url);
