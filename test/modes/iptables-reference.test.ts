/**
 * Every recorded scenario of iptables mode, step by step, without a kernel: objects through decoder and model into rules,
 * the rules into the ruleset in memory, and what that prints beside what kube-proxy had programmed.
 */

import t from 'tap';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { parseSave } from '../../src/iptables/parse.ts';
import { buildRestore, deltaFromDump, type OwnedEdits, serviceDelta } from '../../src/modes/iptables/delta.ts';
import type { DynamicFacts, IptablesOptions } from '../../src/modes/iptables/options.ts';
import { renderAll, renderService } from '../../src/modes/iptables/render.ts';
import { renderStatic } from '../../src/modes/iptables/static.ts';
import { FAMILIES, type ObjectKey, type ServicePlan } from '../../src/proxier/types.ts';
import { differenceOf, normalForm } from '../lib/normal-form.ts';
import {
  readRecording,
  readScenario,
  type Scenario,
  type ScenarioSettings,
  ScenarioWorld,
  scenariosOf,
} from '../lib/reference-scenarios.ts';

const scenarios = scenariosOf('iptables');
const SWITCHES = { comments: true } as const;

function inputsOf({ proxy }: Scenario, { nodeIPs, ...settings }: ScenarioSettings) {
  const options: IptablesOptions = {
    ...settings,
    localhostNodePorts:
      settings.family === 'IPv4' &&
      settings.nodePortAddresses.containsIPv4Loopback &&
      (proxy.iptables?.localhostNodePorts ?? true),
    features: { randomFully: true },
    tcpBeLiberal: false,
  };
  const facts: DynamicFacts = { nodeIPs, counters: { ctStateInvalid: true, localhostNodePorts: true } };
  return { options, facts };
}

const CANARIES = ['mangle', 'filter', 'nat'].map((table) => `*${table}\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n`).join('');

function write(ruleset: FakeRuleset, ...parts: readonly OwnedEdits[]): void {
  const { text } = buildRestore(parts);
  if (text !== '') ruleset.restore(text);
}

t.ok(scenarios.length >= 50, 'there are scenarios to compare with');

for (const name of scenarios) {
  t.test(name, async (t) => {
    const scenario = readScenario(name);
    for (const family of FAMILIES) {
      const world = new ScenarioWorld(scenario, 'iptables', family);
      const { model } = world;
      const applied = new Map<ObjectKey, ServicePlan>();
      const live = new FakeRuleset(family);
      live.restore(CANARIES);
      for (const i of scenario.steps.keys()) {
        const at = `${family} step ${i}`;
        const { settings, changedServices } = world.advanceTo(i);
        const { options, facts } = inputsOf(scenario, settings);
        const render = (plan: ServicePlan | undefined) => plan && renderService(plan, options, facts, SWITCHES);
        const want = {
          family,
          statics: renderStatic(options, facts),
          services: [...model.services].map(
            ([key, plan]) => [key, renderService(plan, options, facts, SWITCHES)] as const,
          ),
        };

        if (i === 0) {
          const { before, services, after } = deltaFromDump(parseSave(live.save()), want);
          write(live, before);
          for (const part of services) write(live, part);
          write(live, after);
        } else {
          for (const owner of changedServices) {
            write(live, { owner, edits: serviceDelta(render(applied.get(owner)), render(model.services.get(owner))) });
          }
        }
        applied.clear();
        for (const [key, plan] of model.services) applied.set(key, plan);

        const tool = family === 'IPv4' ? 'iptables' : 'ip6tables';
        const recorded = readRecording(name, 'iptables', i, tool);
        t.equal(
          differenceOf(normalForm(recorded), normalForm(live.save())),
          '',
          `${at}: edits lead to the recorded rules`,
        );

        const whole = new FakeRuleset(family);
        whole.restore(CANARIES);
        whole.restore(renderAll(model.services.values(), options, facts, { comments: true, jumps: true }));
        t.equal(differenceOf(normalForm(recorded), normalForm(whole.save())), '', `${at}: so does the whole`);

        const { before, services, after } = deltaFromDump(parseSave(recorded), want);
        t.equal(
          buildRestore([before, ...services, after]).text,
          '',
          `${at}: over the recorded rules there is nothing to do`,
        );
      }
    }
  });
}
