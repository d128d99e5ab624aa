/**
 * `render` for mode iptables: the plans of one family as rules, in three forms. Pure.
 *
 * @module
 */

import type { Config } from '../config/types.ts';
import { FakeRuleset } from '../modes/iptables/fake.ts';
import type { DynamicFacts, IptablesOptions } from '../modes/iptables/options.ts';
import { parseSave } from '../modes/iptables/parse.ts';
import { LARGE_CLUSTER_ENDPOINTS, renderAll, renderService } from '../modes/iptables/render.ts';
import { selectNodeIPs } from '../proxier/node-port-addresses.ts';
import {
  compareText,
  type Family,
  type IPAddress,
  type LocalTraffic,
  type NodePortAddresses,
  type ServicePlan,
} from '../proxier/types.ts';

/** What a mode renders from, for one family. */
export interface RenderInput {
  readonly family: Family;
  readonly config: Config;
  readonly services: readonly ServicePlan[];
  readonly endpointCount: number;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  /** Loopback if unknown. */
  readonly nodeIP: IPAddress;
  /** All addresses of the node that are known, both families. */
  readonly nodeAddresses: readonly IPAddress[];
  /** Write the rules that count packets in nfacct objects, which a kernel only takes when these exist. */
  readonly nfacct: boolean;
}

/** How rules are written: for the tool, as the tool prints them back, or as data. */
export type RenderFormat = 'restore' | 'saved' | 'json';

/** Rules of one family as data. */
export interface RenderedFamily {
  readonly family: Family;
  /** Table → chain → rules, as `iptables-save` prints them behind `-A CHAIN`. */
  readonly tables: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
  /** Which chains are a service's own. */
  readonly services: readonly { readonly service: string; readonly chains: readonly string[] }[];
}

const TOOL: Readonly<Record<Family, string>> = { IPv4: 'iptables', IPv6: 'ip6tables' };

/** One family as text: one input of `iptables-restore --noflush`, or what `iptables-save` prints after it. */
export function renderIptablesText(input: RenderInput, format: 'restore' | 'saved'): string {
  const restore = restoreInput(input);
  const tool = TOOL[input.family];
  if (format === 'restore') return `# ${input.family}: ${tool}-restore --noflush\n${restore}`;
  return `# ${input.family}: ${tool}-save\n${saved(input.family, restore)}`;
}

/** One family as data. */
export function renderIptablesData(input: RenderInput): RenderedFamily {
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
