/**
 * Recorded scenarios of IPVS mode, step by step, by the dataplane on a real kernel, read back with the tools: what is there is
 * what kube-proxy had programmed. One scenario begins on what the one before left, so that each first sync has much to repair.
 *
 * All of them take ten minutes (`SWITCHYARD_UML=all`); by default those whose objects are of every kind. Without a kernel
 * `test/modes/ipvs-reference.test.ts` compares all.
 */
import t, { type Test } from 'tap';
import { probeFamily } from '../../src/iptables/probe.ts';
import { createIpvsDataplane, type IpvsDataplaneOptions } from '../../src/modes/ipvs/apply.ts';
import { createIpsets } from '../../src/modes/ipvs/ipset.ts';
import { createRuleWriter } from '../../src/modes/ipvs/rule-writer.ts';
import { createDevices } from '../../src/netlink/device.ts';
import { createIpvs } from '../../src/netlink/ipvs.ts';
import { FAMILIES, type Family } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { realExec } from '../../src/sys/exec.ts';
import { addressNormalForm, ipsetNormalForm, ipvsNormalForm } from '../lib/ipvs-normal-form.ts';
import { feed, sh } from '../lib/namespace.ts';
import { differenceOf, normalForm } from '../lib/normal-form.ts';
import { readRecording, readScenario, type Scenario, ScenarioWorld, scenariosOf } from '../lib/reference-scenarios.ts';
import { isInsideUml, partInside, runInUml } from '../lib/uml.ts';

/** One takes minutes for all of them: there, a program takes a tenth of a second to start. */
const KERNELS = 2;

const BY_DEFAULT = new Set([
  'dual-stack',
  'everything-at-once',
  'external-policy-local',
  'ipvs-scheduler',
  'lifecycle',
  'no-endpoints',
  'nodeport-addresses',
  'random-3-04',
  'sctp',
  'session-affinity',
  'source-ranges',
  'terminating',
]);

const isChosen = (name: string) => process.env['SWITCHYARD_UML'] === 'all' || BY_DEFAULT.has(name);

const ipvs = createIpvs();
const devices = createDevices();
const ipsets = createIpsets(realExec);
const log = { info: () => {}, warn: () => {} };

async function toolsOf(family: Family) {
  const found = await probeFamily(family, 'legacy', { exec: realExec, clock: realClock });
  if (found.kind === 'absent') throw found.error;
  return found.tools;
}

/** The node's links for as long as the scenario lasts. */
function makeLinks(t: Test, { node }: Scenario): void {
  const lines = node.links.flatMap(({ name, addresses }, i) => [
    `link add ${name} type veth peer name peer${i}`,
    ...addresses.map((a) => `addr add ${a} dev ${name}${a.includes(':') ? ' nodad' : ''}`),
  ]);
  feed(`${lines.join('\n')}\n`, 'ip', '-batch', '-');
  t.teardown(() => feed(node.links.map(({ name }) => `link del ${name}\n`).join(''), 'ip', '-batch', '-'));
}

/** By what it was recorded as: what the tools print, and the normal form of it. */
const LOOKS: Readonly<Record<string, { readonly look: () => string; readonly form: (dump: string) => string }>> = {
  ipvs: { look: () => sh('ipvsadm', '-Sn'), form: ipvsNormalForm },
  ipset: { look: () => sh('ipset', 'save'), form: ipsetNormalForm },
  addr: { look: () => sh('ip', '-o', 'addr', 'show', 'kube-ipvs0'), form: addressNormalForm },
  iptables: { look: () => sh('iptables-legacy-save'), form: normalForm },
  ip6tables: { look: () => sh('ip6tables-legacy-save'), form: normalForm },
};

async function inside() {
  const tools = { IPv4: await toolsOf('IPv4'), IPv6: await toolsOf('IPv6') };
  // Neighbours in turn: those of a kind, which take their time, are shared out.
  const names = scenariosOf('ipvs')
    .filter(isChosen)
    .filter((_, i) => i % KERNELS === partInside());
  for (const name of names) {
    await t.test(name, async (t) => {
      const scenario = readScenario(name);
      makeLinks(t, scenario);
      const families = FAMILIES.map((family) => {
        const world = new ScenarioWorld(scenario, 'ipvs', family);
        const first = world.advanceTo(0);
        const options: IpvsDataplaneOptions = {
          ...first.settings,
          scheduler: scenario.proxy.ipvs?.scheduler ?? 'rr',
          bindsExternalIPs: true,
          excludeCIDRs: [],
          features: { randomFully: true },
          syncPeriodMs: 30_000,
        };
        const rules = createRuleWriter({ tools: tools[family], onRestoreFailed: () => {} }, options);
        const deps = { ipvs, devices, ipsets, rules, clock: realClock, log };
        return { world, first, dataplane: createIpvsDataplane(deps, options) };
      });
      for (const step of scenario.steps.keys()) {
        for (const { world, first, dataplane } of families) {
          const { changedServices: dirty } = step === 0 ? first : world.advanceTo(step);
          const snapshot = { services: world.model.services, dirty, endpointCount: 0, serviceCIDRs: [] };
          const { full, refused } = await dataplane.sync(snapshot, { full: false });
          t.same([full, refused], [step === 0, []], `step ${step}: only the first sync reads, and nothing is refused`);
        }
        for (const [what, { look, form }] of Object.entries(LOOKS)) {
          const recorded = form(readRecording(name, 'ipvs', step, what));
          t.equal(differenceOf(recorded, form(look())), '', `step ${step}: ${what}`);
        }
      }
    });
  }
}

if (isInsideUml()) await inside();
else {
  t.equal(scenariosOf('ipvs').length, 54, 'all recorded scenarios are here');
  const chosen = scenariosOf('ipvs').filter(isChosen).length;
  t.comment(`${chosen} of 54 scenarios; SWITCHYARD_UML=all runs all of them`);
  await runInUml(t, import.meta.url, KERNELS);
}
