/**
 * Plans to rules: what one service needs, and the whole of it as one input for `iptables-restore`. Pure.
 * spec: iptables.md §6, §7, §12.
 *
 * @module
 */

import { type ChainName, TABLES, type Table } from '../../iptables/chain.ts';
import { formatRestore } from '../../iptables/format.ts';
import { ifLocal, ifNotLocal } from '../../iptables/local-traffic.ts';
import {
  ACCEPT,
  comment,
  DROP,
  destination,
  dport,
  jump,
  type Match,
  protocol,
  REJECT,
  type Rule,
  rule,
  source,
  type Target,
} from '../../iptables/rule.ts';
import { cidrContains } from '../../proxier/addr.ts';
import {
  compareText,
  type Endpoint,
  type IPAddress,
  type ServicePlan,
  type ServicePortPlan,
} from '../../proxier/types.ts';
import {
  EXTERNAL_SERVICES,
  endpointChain,
  KUBE_FIREWALL,
  LOCALHOST_NODEPORTS_COUNTER,
  MARK_MASQ,
  NODEPORTS,
  PROXY_FIREWALL,
  SERVICES,
  servicePortChains,
} from './names.ts';
import type { DynamicFacts, IptablesOptions } from './options.ts';
import { JUMPS, renderStatic, type StaticChain } from './static.ts';

/** What one service port has in one top-level chain. The order of `rules` counts; where they stand among those of others does not. */
export interface SharedRules {
  readonly table: Table;
  readonly chain: ChainName;
  /** `ns/name:port/tcp`: which port of the service. */
  readonly port: string;
  readonly rules: readonly Rule[];
}

/** Every rule that comes from one service. */
export interface ServiceRules {
  /** nat chains that belong to the service alone, with all their rules, in the order they are declared. */
  readonly owned: ReadonlyMap<ChainName, readonly Rule[]>;
  /** At most one entry per port and chain; filter and nat mixed, in the order they came up. */
  readonly shared: readonly SharedRules[];
}

export interface RenderSwitches {
  /** False in large-cluster mode: rules of endpoints carry no comment. The caller counts the endpoints. */
  readonly comments: boolean;
}

/** More endpoints than this, ready or not, over all services: large-cluster mode. spec: iptables.md §12. */
export const LARGE_CLUSTER_ENDPOINTS = 1000;

const TO_MARK_MASQ = jump(MARK_MASQ);
const FROM_NODE: Match = { kind: 'addrtype', side: 'src' };
const TO_NODE: Match = { kind: 'addrtype', side: 'dst' };

/**
 * Renders one service. Depends on nothing but its arguments, and never on other services.
 *
 * @throws {RangeError} If a name in the plan cannot stand in a rule (see `comment` in `rule.ts`). The API server accepts no such name.
 */
export function renderService(
  plan: ServicePlan,
  options: IptablesOptions,
  facts: DynamicFacts,
  switches: RenderSwitches,
): ServiceRules {
  const owned = new Map<ChainName, Rule[]>();
  const shared: SharedRules[] = [];
  for (const port of plan.ports) new PortRenderer(port, options, facts, switches, owned, shared).render();
  return { owned, shared };
}

/** One service port on its way into rules. */
class PortRenderer {
  readonly #plan: ServicePortPlan;
  readonly #options: IptablesOptions;
  readonly #facts: DynamicFacts;
  readonly #switches: RenderSwitches;
  readonly #owned: Map<ChainName, Rule[]>;
  readonly #shared: SharedRules[];
  readonly #sharedByChain = new Map<string, Rule[]>();

  constructor(
    plan: ServicePortPlan,
    options: IptablesOptions,
    facts: DynamicFacts,
    switches: RenderSwitches,
    owned: Map<ChainName, Rule[]>,
    shared: SharedRules[],
  ) {
    this.#plan = plan;
    this.#options = options;
    this.#facts = facts;
    this.#switches = switches;
    this.#owned = owned;
    this.#shared = shared;
  }

  render(): void {
    const { port, hasAnyEndpoints, hasInternalEndpoints, hasExternalEndpoints } = this.#plan;
    const name = port.name;
    const chains = servicePortChains(port);
    const usesFirewall = hasAnyEndpoints && port.loadBalancerVIPs.length > 0 && port.sourceRanges.length > 0;
    const internal = port.internalPolicyLocal ? chains.localPolicy : chains.clusterPolicy;
    const external = port.externalPolicyLocal ? chains.localPolicy : chains.clusterPolicy;

    const isProtocol = protocol(port.protocol);
    const isPort = dport(port.port);
    const at = (ip: IPAddress): readonly Match[] => [isProtocol, destination(ip), isPort];
    const [unanswered, unansweredComment]: [Target, Match] = hasAnyEndpoints
      ? [DROP, comment(`${name} has no local endpoints`)]
      : [REJECT, comment(`${name} has no endpoints`)];

    const isClusterIP = [comment(`${name} cluster IP`), ...at(port.clusterIP)];
    if (hasInternalEndpoints) this.#share('nat', SERVICES, rule(isClusterIP, jump(internal)));
    else this.#share('filter', SERVICES, rule([unansweredComment, ...at(port.clusterIP)], unanswered));

    const externally: readonly (readonly [string, readonly IPAddress[], ChainName])[] = [
      ['external IP', port.externalIPs, chains.external],
      ['loadbalancer IP', port.loadBalancerVIPs, usesFirewall ? chains.firewall : chains.external],
    ];
    for (const [what, ips, chain] of externally) {
      for (const ip of ips) {
        if (hasAnyEndpoints) this.#share('nat', SERVICES, rule([comment(`${name} ${what}`), ...at(ip)], jump(chain)));
        if (!hasExternalEndpoints) {
          this.#share('filter', EXTERNAL_SERVICES, rule([unansweredComment, ...at(ip)], unanswered));
        }
      }
    }
    if (usesFirewall) {
      const refused = comment(`${name} traffic not accepted by ${chains.firewall}`);
      for (const ip of port.loadBalancerVIPs) this.#share('filter', PROXY_FIREWALL, rule([refused, ...at(ip)], DROP));
    }

    if (port.nodePort !== 0) {
      const isNodePort = dport(port.nodePort);
      if (hasAnyEndpoints) {
        const of = comment(name);
        if (
          this.#options.family === 'IPv4' &&
          this.#options.localhostNodePorts &&
          this.#facts.counters.localhostNodePorts
        ) {
          const counted: Match = { kind: 'nfacct', counter: LOCALHOST_NODEPORTS_COUNTER };
          const matches = [of, isProtocol, destination('127.0.0.0/8'), isNodePort, counted];
          this.#share('nat', NODEPORTS, rule(matches, jump(chains.external)));
        }
        this.#share('nat', NODEPORTS, rule([of, isProtocol, isNodePort], jump(chains.external)));
      }
      if (!hasExternalEndpoints) {
        const matches = [unansweredComment, TO_NODE, isProtocol, isNodePort];
        this.#share('filter', EXTERNAL_SERVICES, rule(matches, unanswered));
      }
    }
    if (port.healthCheckNodePort !== 0) {
      const matches = [comment(`${name} health check node port`), protocol('TCP'), dport(port.healthCheckNodePort)];
      this.#share('filter', NODEPORTS, rule(matches, ACCEPT));
    }

    if (this.#plan.usesExternalTrafficChain) this.#externalChain(chains.external, chains.clusterPolicy, external);
    if (usesFirewall) this.#firewallChain(chains.firewall, chains.external);
    const policies: readonly (readonly [boolean, ChainName, readonly Endpoint[]])[] = [
      [this.#plan.usesClusterPolicyChain, chains.clusterPolicy, this.#plan.clusterEndpoints],
      [this.#plan.usesLocalPolicyChain, chains.localPolicy, this.#plan.localEndpoints],
    ];
    const endpointChains = new Map<string, ChainName>();
    const chainOf = (endpoint: Endpoint): ChainName => {
      const known = endpointChains.get(endpoint.text);
      if (known !== undefined) return known;
      const chain = endpointChain(port, endpoint);
      endpointChains.set(endpoint.text, chain);
      return chain;
    };
    for (const [used, chain, endpoints] of policies) {
      if (!used) continue;
      // An internal chain is declared whenever there are internal endpoints, so this rule always finds its chain.
      const masquerade = hasInternalEndpoints && chain === internal ? this.#masqueradeOthers(isClusterIP) : [];
      this.#owned.set(chain, [...masquerade, ...this.#balance(endpoints, chainOf)]);
    }
    for (const endpoint of this.#plan.reachableEndpoints) this.#endpointChain(chainOf(endpoint), endpoint);
  }

  #share(table: Table, chain: ChainName, added: Rule): void {
    const key = table + chain;
    const rules = this.#sharedByChain.get(key);
    if (rules !== undefined) {
      rules.push(added);
      return;
    }
    const first = [added];
    this.#sharedByChain.set(key, first);
    const { name, protocol } = this.#plan.port;
    this.#shared.push({ table, chain, port: `${name}/${protocol.toLowerCase()}`, rules: first });
  }

  /** Packets to the cluster IP that must come back through this node. */
  #masqueradeOthers(isClusterIP: readonly Match[]): readonly Rule[] {
    if (this.#options.masqueradeAll) return [rule(isClusterIP, TO_MARK_MASQ)];
    const notLocal = ifNotLocal(this.#options.localTraffic);
    return notLocal === undefined ? [] : [rule([...isClusterIP, notLocal], TO_MARK_MASQ)];
  }

  #externalChain(chain: ChainName, clusterPolicy: ChainName, policy: ChainName): void {
    const { port, hasExternalEndpoints } = this.#plan;
    const rules: Rule[] = [];
    if (port.externalPolicyLocal) {
      // The cluster's own pods, and the node itself, reach every endpoint whatever the policy says of others.
      const local = ifLocal(this.#options.localTraffic);
      if (local !== undefined) {
        rules.push(rule([comment(`pod traffic for ${port.name} external destinations`), local], jump(clusterPolicy)));
      }
      const masquerade = comment(`masquerade LOCAL traffic for ${port.name} external destinations`);
      const route = comment(`route LOCAL traffic for ${port.name} external destinations`);
      rules.push(rule([masquerade, FROM_NODE], TO_MARK_MASQ), rule([route, FROM_NODE], jump(clusterPolicy)));
    } else {
      rules.push(rule([comment(`masquerade traffic for ${port.name} external destinations`)], TO_MARK_MASQ));
    }
    if (hasExternalEndpoints) rules.push(rule([], jump(policy)));
    this.#owned.set(chain, rules);
  }

  #firewallChain(chain: ChainName, external: ChainName): void {
    const { port } = this.#plan;
    const of = comment(`${port.name} loadbalancer IP`);
    const rules = port.sourceRanges.map((range) => rule([of, source(range)], jump(external)));
    // A node that may come in also comes from the VIP itself: its own packets to the VIP bear that source.
    if (port.sourceRanges.some((range) => cidrContains(range, this.#options.nodeIP))) {
      for (const vip of port.loadBalancerVIPs) rules.push(rule([of, source(vip)], jump(external)));
    }
    rules.push(rule([comment(`other traffic to ${port.name} will be dropped by KUBE-PROXY-FIREWALL`)], undefined));
    this.#owned.set(chain, rules);
  }

  /** Rules that pick one endpoint: the one this client had, else each with the same odds. */
  #balance(endpoints: readonly Endpoint[], chainOf: (endpoint: Endpoint) => ChainName): readonly Rule[] {
    const { name, affinitySeconds } = this.#plan.port;
    const notes = endpoints.map((e) => (this.#switches.comments ? [comment(`${name} -> ${e.text}`)] : []));
    const rules: Rule[] = [];
    if (affinitySeconds !== undefined) {
      endpoints.forEach((endpoint, i) => {
        const list = chainOf(endpoint);
        const check: Match = { kind: 'recentCheck', list, seconds: affinitySeconds };
        rules.push(rule([...(notes[i] ?? []), check], jump(list)));
      });
    }
    endpoints.forEach((endpoint, i) => {
      const of = endpoints.length - i;
      const random: readonly Match[] = of > 1 ? [{ kind: 'random', of }] : [];
      rules.push(rule([...(notes[i] ?? []), ...random], jump(chainOf(endpoint))));
    });
    return rules;
  }

  #endpointChain(chain: ChainName, endpoint: Endpoint): void {
    const { name, affinitySeconds, protocol: of } = this.#plan.port;
    const note = this.#switches.comments ? [comment(name)] : [];
    const remember: readonly Match[] = affinitySeconds === undefined ? [] : [{ kind: 'recentSet', list: chain }];
    this.#owned.set(chain, [
      rule([...note, source(endpoint.ip)], TO_MARK_MASQ),
      rule([...note, ...remember, protocol(of)], { kind: 'dnat', to: endpoint.text }),
    ]);
  }
}

/** How many rules there are per table, as the rule metrics count them. */
export function countRules(part: ServiceRules | readonly StaticChain[]): Readonly<Record<Table, number>> {
  const count = { filter: 0, nat: 0 };
  if ('owned' in part) {
    for (const rules of part.owned.values()) count.nat += rules.length;
    for (const { table, rules } of part.shared) count[table] += rules.length;
  } else {
    for (const { table, rules } of part) count[table] += rules.length;
  }
  return count;
}

export interface RenderAllSwitches extends RenderSwitches {
  /** Write the jumps from the built-in chains too, as a node without any needs them. */
  readonly jumps: boolean;
}

/**
 * Renders everything as one input for `iptables-restore --noflush`, as a first sync writes it: an input that can be
 * given to the tool as it is.
 *
 * Services come out in the order of their key, whatever order they are in.
 */
export function renderAll(
  services: Iterable<ServicePlan>,
  options: IptablesOptions,
  facts: DynamicFacts,
  switches: RenderAllSwitches,
): string {
  const rendered = [...services]
    .sort((a, b) => compareText(a.service, b.service))
    .map((plan) => renderService(plan, options, facts, switches));
  const statics = renderStatic(options, facts);
  const out: string[] = [];
  for (const table of TABLES) {
    const mine = statics.filter((chain) => chain.table === table);
    out.push(`*${table}`);
    const declared: string[] = mine.map(({ name }) => name);
    if (switches.jumps && table === 'filter' && !declared.includes(KUBE_FIREWALL)) declared.push(KUBE_FIREWALL);
    if (table === 'nat') for (const { owned } of rendered) declared.push(...owned.keys());
    for (const name of declared) out.push(`:${name} - [0:0]`);
    const append = (chain: ChainName, rules: readonly Rule[]) => {
      for (const one of rules) out.push(`-A ${chain} ${formatRestore(one)}`);
    };
    for (const chain of mine) if (chain.kind === 'whole') append(chain.name, chain.rules);
    for (const { owned, shared } of rendered) {
      for (const part of shared) if (part.table === table) append(part.chain, part.rules);
      if (table === 'nat') for (const [chain, rules] of owned) append(chain, rules);
    }
    for (const chain of mine) if (chain.kind === 'shared') append(chain.name, chain.rules);
    if (switches.jumps) {
      for (const one of JUMPS) if (one.table === table) out.push(`-I ${one.from} ${formatRestore(one.rule)}`);
    }
    out.push('COMMIT');
  }
  return `${out.join('\n')}\n`;
}
