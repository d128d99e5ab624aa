/**
 * `render` for mode nftables: the plans of one family as input of nft(8), or as data. Pure.
 *
 * @module
 */

import { TABLE } from '../modes/nftables/base-chains.ts';
import { createAll, nftFamily } from '../modes/nftables/create.ts';
import { layoutOf } from '../modes/nftables/layouts.ts';
import type { NftablesFacts, NftablesOptions } from '../modes/nftables/options.ts';
import { formatElement, formatRule, formatTransaction } from '../netlink/nftables/text.ts';
import type { Command } from '../netlink/nftables/transaction.ts';
import { isLoopback } from '../proxier/addr.ts';
import { selectNodeIPs } from '../proxier/node-port-addresses.ts';
import type { Family } from '../proxier/types.ts';
import type { ModeRenderer, RenderInput } from './render-mode.ts';

/** Inputs of `nft -f`, or `RenderedFamily`. */
export const NFTABLES_RENDERER: ModeRenderer = { formats: ['nft'], text: renderText, data: renderData };

/** Objects of one family as data. */
interface RenderedFamily {
  readonly family: Family;
  readonly table: string;
  /** Chain → rules, as they are written behind `add rule ip kube-proxy CHAIN`. */
  readonly chains: Readonly<Record<string, readonly string[]>>;
  /** Set or map → elements, as they are written between the braces of `add element ip kube-proxy SET { }`. */
  readonly sets: Readonly<Record<string, readonly string[]>>;
  /** Which chains are a service's own. */
  readonly services: readonly { readonly service: string; readonly chains: readonly string[] }[];
}

/** One family as text: what makes the table on a node that has none. */
function renderText(input: RenderInput): string {
  const family = nftFamily(input.family);
  const { statics, services } = creation(input);
  const lines = (commands: readonly Command[]) => formatTransaction({ family, table: TABLE, commands });
  return [
    `# ${input.family}: nft -f -\n${lines(statics)}`,
    ...services.map(({ service, commands }) => `# ${service}\n${lines(commands)}`),
  ].join('');
}

function renderData(input: RenderInput): RenderedFamily {
  const family = nftFamily(input.family);
  const { statics, services } = creation(input);
  const chains: Record<string, string[]> = {};
  const sets: Record<string, string[]> = {};
  for (const command of [...statics, ...services.flatMap(({ commands }) => commands)]) {
    if (command.verb !== 'add') continue;
    switch (command.object) {
      case 'chain':
        chains[command.chain.name] = [];
        break;
      case 'set':
        sets[command.set.name] = [];
        break;
      case 'rule':
        chains[command.rule.chain]?.push(formatRule(command.rule, family));
        break;
      case 'element':
        sets[command.set.name]?.push(...command.elements.map((element) => formatElement(element, { keysOnly: false })));
    }
  }
  return {
    family: input.family,
    table: TABLE,
    chains,
    sets,
    services: services.map(({ service, commands }) => ({
      service,
      chains: commands.flatMap((c) => (c.verb === 'add' && c.object === 'chain' ? [c.chain.name] : [])),
    })),
  };
}

function creation(input: RenderInput) {
  const { family, config, localTraffic, nodePortAddresses, nodeIP, serviceCIDRs } = input;
  const options: NftablesOptions = {
    family,
    masqueradeBit: config.nftables.masqueradeBit,
    masqueradeAll: config.masqueradeAll,
    localTraffic,
    nodePortAddresses,
    nodeIP,
  };
  const nodeIPs = selectNodeIPs(nodePortAddresses, input.nodeAddresses).filter((ip) => !isLoopback(ip));
  const facts: NftablesFacts = { nodeIPs, serviceCIDRs };
  return createAll(layoutOf(config.nftables.layout), input.services, options, facts);
}
