/**
 * Every recorded scenario of IPVS mode, step by step, without a kernel: objects through decoder and model into virtual servers, sets,
 * addresses and rules, beside what kube-proxy had programmed.
 */

import t from 'tap';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { Desired } from '../../src/modes/ipvs/desired.ts';
import { nodeFacts } from '../../src/modes/ipvs/facts.ts';
import { formatServers, formatSets } from '../../src/modes/ipvs/format.ts';
import type { IpvsOptions } from '../../src/modes/ipvs/options.ts';
import { renderService, type ServiceObjects } from '../../src/modes/ipvs/render.ts';
import { formatRules } from '../../src/modes/ipvs/rule-writer.ts';
import { renderRules } from '../../src/modes/ipvs/rules.ts';
import { FAMILIES, type ObjectKey } from '../../src/proxier/types.ts';
import { addressNormalForm, ipsetNormalForm, ipvsNormalForm } from '../lib/ipvs-normal-form.ts';
import { differenceOf, normalForm } from '../lib/normal-form.ts';
import { readRecording, readScenario, ScenarioWorld, scenariosOf } from '../lib/reference-scenarios.ts';

const scenarios = scenariosOf('ipvs');
t.equal(scenarios.length, 54, 'all recorded scenarios are here');

for (const name of scenarios) {
  t.test(name, async (t) => {
    const scenario = readScenario(name);
    const worlds = FAMILIES.map((family) => ({
      world: new ScenarioWorld(scenario, 'ipvs', family),
      desired: new Desired(),
      rendered: new Map<ObjectKey, ServiceObjects>(),
    }));
    for (const step of scenario.steps.keys()) {
      const texts = worlds.map(({ world, desired, rendered }) => {
        const { settings, changedServices } = world.advanceTo(step);
        const { linkAddresses } = settings;
        const options: IpvsOptions = {
          ...settings,
          scheduler: scenario.proxy.ipvs?.scheduler ?? 'rr',
          bindsExternalIPs: true,
          excludeCIDRs: [],
          features: { randomFully: true },
        };
        const facts = nodeFacts(
          options,
          linkAddresses.map((ip) => ({ ip, isOurs: false })),
        );
        for (const key of changedServices) {
          const plan = world.model.services.get(key);
          const after = plan && renderService(plan, options, facts);
          desired.replace(key, rendered.get(key), after);
          if (after === undefined) rendered.delete(key);
          else rendered.set(key, after);
        }
        const closedToNode = Array.from(desired.closedToNode.entries(), ([, { value }]) => value);
        const ruleset = new FakeRuleset(options.family, 'legacy');
        ruleset.restore(formatRules(renderRules(options, { hasElements: (set) => desired.has(set), closedToNode })));
        return {
          rules: ruleset.save(),
          servers: formatServers(desired),
          sets: formatSets(desired, options.family),
          addresses: [...desired.addresses.entries()].map(([ip]) =>
            options.family === 'IPv4'
              ? `kube-ipvs0    inet ${ip}/32 scope global kube-ipvs0`
              : `kube-ipvs0    inet6 ${ip}/128 scope global`,
          ),
        };
      });
      const recorded = (what: string) => readRecording(name, 'ipvs', step, what);
      const both = (part: 'servers' | 'sets') => texts.map((text) => text[part]).join('');
      const same = (what: string, got: string, form: (dump: string) => string) =>
        t.equal(differenceOf(form(recorded(what)), form(got)), '', `step ${step}: ${what}`);
      same('ipvs', both('servers'), ipvsNormalForm);
      same('ipset', both('sets'), ipsetNormalForm);
      for (const [i, what] of ['iptables', 'ip6tables'].entries()) same(what, texts[i]?.rules ?? '', normalForm);
      same('addr', texts.flatMap(({ addresses }) => addresses).join('\n'), addressNormalForm);
    }
  });
}
