/**
 * Every recorded scenario of nftables mode, step by step, without a kernel: objects through decoder, model and layout
 * `chains`, printed as `nft` would list them, beside what kube-proxy had programmed.
 */

import t from 'tap';
import { CHAINS_LAYOUT } from '../../src/modes/nftables/chains-layout.ts';
import type { NftablesFacts, NftablesOptions } from '../../src/modes/nftables/options.ts';
import { FAMILIES } from '../../src/proxier/types.ts';
import { nftListing } from '../lib/nft-listing.ts';
import { differenceOf, nftNormalForm } from '../lib/normal-form.ts';
import { readRecording, readScenario, ScenarioWorld, scenariosOf } from '../lib/reference-scenarios.ts';

const scenarios = scenariosOf('nftables');

t.equal(scenarios.length, 53, 'all recorded scenarios are here');

for (const name of scenarios) {
  t.test(name, async (t) => {
    const scenario = readScenario(name);
    const worlds = FAMILIES.map((family) => new ScenarioWorld(scenario, 'nftables', family));
    for (const step of scenario.steps.keys()) {
      const listing = worlds.map((world) => {
        const { nodeIPs, ...options } = world.advanceTo(step).settings;
        const facts: NftablesFacts = { nodeIPs, serviceCIDRs: [] };
        const all: NftablesOptions = options;
        const services = [...world.model.services.values()];
        return nftListing(all.family === 'IPv4' ? 'ip' : 'ip6', [
          CHAINS_LAYOUT.renderStatic(all, facts),
          ...services.map((plan) => CHAINS_LAYOUT.renderService(plan, all, facts)),
        ]);
      });
      const recorded = nftNormalForm(readRecording(name, 'nftables', step, 'nft'), 'leave out');
      t.equal(differenceOf(recorded, nftNormalForm(listing.join(''), 'keep')), '', `step ${step}`);
    }
  });
}
