/**
 * `render` for mode iptables: the plans of one family as rules, in three forms. Pure.
 *
 * @module
 */

import { FakeRuleset } from '../iptables/fake.ts';
import { parseSave } from '../iptables/parse.ts';
import type { DynamicFacts, IptablesOptions } from '../modes/iptables/options.ts';
import { LARGE_CLUSTER_ENDPOINTS, renderAll, renderService } from '../modes/iptables/render.ts';
import { selectNodeIPs } from '../proxier/node-port-addresses.ts';
import { compareText, type Family } from '../proxier/types.ts';
import type { ModeRenderer, RenderFormat, RenderInput } from './render-mode.ts';

/** Inputs of iptables-restore, outputs of iptables-save, or `RenderedFamily`. */
export const IPTABLES_RENDERER: ModeRenderer = { formats: ['restore', 'saved'], text: renderText, data: renderData };

/** Rules of one family as data. */
interface RenderedFamily {
  readonly family: Family;
  /** Table → chain → rules, as `iptables-save` prints them behind `-A CHAIN`. */
  readonly tables: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
  /** Which chains are a service's own. */
  readonly services: readonly { readonly service: string; readonly chains: readonly string[] }[];
}

const TOOL: Readonly<Record<Family, string>> = { IPv4: 'iptables', IPv6: 'ip6tables' };

/** One family as text: one input of `iptables-restore --noflush`, or what `iptables-save` prints after it. */
function renderText(input: RenderInput, format: RenderFormat): string {
  const restore = restoreInput(input);
  const tool = TOOL[input.family];
  if (format === 'restore') return `# ${input.family}: ${tool}-restore --noflush\n${restore}`;
  return `# ${input.family}: ${tool}-save\n${saved(input.family, restore)}`;
}

/** One family as data. */
function renderData(input: RenderInput): RenderedFamily {
  const { family, services } = input;
  const tables = [...parseSave(saved(family, restoreInput(input)))].map(([table, chains]) => [
    table,
    Object.fromEntries([...chains].map(([chain, { rules }]) => [chain, rules])),
  ]);
  const { options, facts, comments } = settings(input);
  return {
    family,
    tables: Object.fromEntries(tables),
    services: [...services]
      .sort((a, b) => compareText(a.service, b.service))
      .map((plan) => ({
        service: plan.service,
        chains: [...renderService(plan, options, facts, { comments }).owned.keys()],
      })),
  };
}

function restoreInput(input: RenderInput): string {
  const { options, facts, comments } = settings(input);
  return renderAll(input.services, options, facts, { comments, jumps: true });
}

/** What an empty node prints back, without the lines that tell tool and time. */
function saved(family: Family, restore: string): string {
  const node = new FakeRuleset(family);
  node.restore(restore);
  return node
    .save()
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n');
}

function settings(input: RenderInput): { options: IptablesOptions; facts: DynamicFacts; comments: boolean } {
  const { family, config, localTraffic, nodePortAddresses, nodeIP } = input;
  return {
    options: {
      family,
      masqueradeBit: config.iptables.masqueradeBit,
      masqueradeAll: config.masqueradeAll,
      localhostNodePorts:
        config.iptables.localhostNodePorts && family === 'IPv4' && nodePortAddresses.containsIPv4Loopback,
      localTraffic,
      nodePortAddresses,
      nodeIP,
      features: { randomFully: true },
      tcpBeLiberal: config.conntrack.tcpBeLiberal,
    },
    facts: {
      nodeIPs: selectNodeIPs(nodePortAddresses, input.nodeAddresses),
      counters: { ctStateInvalid: input.nfacct, localhostNodePorts: input.nfacct },
    },
    comments: input.endpointCount <= LARGE_CLUSTER_ENDPOINTS,
  };
}
