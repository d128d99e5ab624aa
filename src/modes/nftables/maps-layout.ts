/**
 * Layout `maps`: no chain, set or map of a service's own, only elements of shared ones. The kernel looks up a frontend, is sent to a
 * chain by the number of its endpoints, draws a number there and looks up frontend and number. `docs/modes/nftables.md` has the
 * design and why it does what layout `chains` does. Pure.
 *
 * @module
 */

import { createHash } from 'node:crypto';
import type { Scalar, SetElement, SetObject, Verdict } from '../../netlink/nftables/transaction.ts';
import { cidrContains } from '../../proxier/addr.ts';
import type { Cidr, Endpoint, IPAddress, ServicePlan, ServicePort, ServicePortPlan } from '../../proxier/types.ts';
import type { ChainContent, Layout, Objects, SetContent } from './layout.ts';
import { pickChain, pickName, rememberChain, rememberName, stickChain, stickName } from './maps-layout-chains.ts';
import { LEARNED } from './maps-layout-learned.ts';
import { withoutContained } from './maps-layout-ranges.ts';
import {
  BY_ADDRESS,
  BY_NODE_PORT,
  type EndpointList,
  FIREWALLED,
  type FrontendSets,
  LISTS,
  SOURCE_RANGES,
} from './maps-layout-sets.ts';
import { EXTERNAL, renderMapsStatic } from './maps-layout-static.ts';
import type { NftablesOptions } from './options.ts';
import { shortened } from './service-port.ts';
import { CLUSTER_IPS, HAIRPIN_CONNECTIONS, NO_ENDPOINT_NODEPORTS, NO_ENDPOINT_SERVICES } from './shared-sets.ts';
import { gotoChain, protocolWord } from './statements.ts';
import { REJECT_CHAIN } from './static.ts';

export const MAPS_LAYOUT: Layout = { name: 'maps', learned: LEARNED, renderStatic: renderMapsStatic, renderService };

function renderService(plan: ServicePlan, options: NftablesOptions): Objects {
  const renderer = new ServiceRenderer(options);
  for (const port of plan.ports) renderer.add(port);
  return renderer.objects();
}

/** Those that packets to a frontend may be sent to; one may be empty. */
type Lists = Readonly<Partial<Record<EndpointList, readonly Endpoint[]>>>;

/** What one frontend has. Everything in it is of one service port. */
interface Frontend {
  readonly sets: FrontendSets;
  readonly key: readonly Scalar[];
  readonly port: ServicePort;
  readonly lists: Lists;
  /** Those of all frontends of the service port: what is learned at one of them holds at the others. */
  readonly remembered: Lists;
  /** The list packets are sent to at once; undefined if they come from outside. */
  readonly internal: EndpointList | undefined;
}

/** One service on its way into objects. */
class ServiceRenderer {
  readonly #options: NftablesOptions;
  /** By set and key: of two service ports that claim one frontend, the later one has it. */
  readonly #frontends = new Map<string, Frontend>();
  readonly #ranges = new Map<string, { readonly key: readonly Scalar[]; readonly ranges: readonly string[] }>();
  readonly #chains = new Map<string, ChainContent>();
  readonly #elements = new Map<SetObject, Map<string, SetElement>>();

  constructor(options: NftablesOptions) {
    this.#options = options;
  }

  add(plan: ServicePortPlan): void {
    const { port, hasAnyEndpoints, hasInternalEndpoints, hasExternalEndpoints } = plan;
    const protocol = protocolWord(port.protocol);
    const at = (ip: IPAddress) => [ip, protocol, port.port];
    const unanswered: Pick<SetElement, 'data' | 'comment'> = {
      data: hasAnyEndpoints ? { kind: 'drop' } : gotoChain(REJECT_CHAIN),
      comment: shortened(port.name),
    };
    for (const { isLocal, ip, port } of plan.reachableEndpoints) {
      if (isLocal) this.#element(HAIRPIN_CONNECTIONS, { key: [ip, ip, protocol, port] });
    }
    this.#element(CLUSTER_IPS, { key: [port.clusterIP] });
    if (hasInternalEndpoints) this.#frontend(BY_ADDRESS, at(port.clusterIP), plan, internalList(plan));
    else this.#element(NO_ENDPOINT_SERVICES, { key: at(port.clusterIP), ...unanswered });
    if (port.affinitySeconds !== undefined)
      this.#remembered(BY_ADDRESS, at(port.clusterIP), port, rememberedLists(plan));
    for (const ip of [...port.externalIPs, ...port.loadBalancerVIPs]) {
      if (hasAnyEndpoints) this.#frontend(BY_ADDRESS, at(ip), plan, undefined);
      if (!hasExternalEndpoints) this.#element(NO_ENDPOINT_SERVICES, { key: at(ip), ...unanswered });
    }
    if (port.nodePort !== 0) {
      const key = [protocol, port.nodePort];
      if (hasAnyEndpoints) this.#frontend(BY_NODE_PORT, key, plan, undefined);
      if (!hasExternalEndpoints) this.#element(NO_ENDPOINT_NODEPORTS, { key, ...unanswered });
    }
    const ranges = sourceRanges(port, this.#options.nodeIP);
    if (ranges.length === 0) return;
    for (const ip of port.loadBalancerVIPs) this.#ranges.set(at(ip).join(' . '), { key: at(ip), ranges });
  }

  objects(): Objects {
    for (const frontend of this.#frontends.values()) this.#renderFrontend(frontend);
    for (const { key, ranges } of this.#ranges.values()) {
      this.#element(FIREWALLED, { key });
      for (const range of ranges) this.#element(SOURCE_RANGES, { key: [...key, range] });
    }
    const elements = [...this.#elements].map(([set, elements]): SetContent => {
      const claimFields = CLAIM_FIELDS.get(set);
      return { set, elements: [...elements.values()], ...(claimFields === undefined ? {} : { claimFields }) };
    });
    return { chains: [...this.#chains.values()], sets: [], elements };
  }

  #frontend(
    sets: FrontendSets,
    key: readonly Scalar[],
    plan: ServicePortPlan,
    internal: EndpointList | undefined,
  ): void {
    const { port, clusterEndpoints, localEndpoints } = plan;
    const wantsCluster = internal === undefined || internal === 'cluster';
    const wantsLocal = internal === undefined ? port.externalPolicyLocal : internal === 'local';
    const lists: Lists = {
      ...(wantsCluster ? { cluster: clusterEndpoints } : {}),
      ...(wantsLocal ? { local: localEndpoints } : {}),
    };
    this.#frontends.set(`${sets.frontends.name} ${key.join(' . ')}`, {
      sets,
      key,
      port,
      lists,
      remembered: rememberedLists(plan),
      internal,
    });
  }

  #renderFrontend({ sets, key, port, lists, remembered, internal }: Frontend): void {
    const { cluster, local } = lists;
    const comment = shortened(port.name);
    const lead = (set: SetObject, data: Verdict) => this.#element(set, { key, data, comment });
    for (const [list, endpoints] of [
      ['cluster', cluster],
      ['local', local],
    ] as const) {
      if (endpoints === undefined) continue;
      if (endpoints.length > 0) {
        const pick = gotoChain(this.#picker(list, endpoints.length, port.affinitySeconds !== undefined));
        lead(internal === undefined ? sets.picks[list] : sets.frontends, pick);
      } else if (internal === undefined) {
        // Where this service has nobody, another one that claims the frontend must not answer.
        lead(sets.picks[list], { kind: 'return' });
      }
      for (const [i, { ip, port }] of endpoints.entries()) {
        this.#element(sets.endpoints[list], { key: [...key, i], data: [ip, port] });
      }
    }
    if (internal === undefined) {
      lead(sets.frontends, gotoChain(port.externalPolicyLocal ? EXTERNAL.local : EXTERNAL.cluster));
    }
    if (port.affinitySeconds === undefined) return;
    const protocol = protocolWord(port.protocol);
    const remember = rememberName(protocol, port.affinitySeconds);
    this.#chains.set(remember, rememberChain(protocol, port.affinitySeconds));
    lead(sets.sticky, gotoChain(remember));
    this.#element(sets.numbers, { key, data: [affinityNumber(port)] });
    this.#remembered(sets, key, port, remembered);
  }

  /**
   * Endpoints clients may be remembered with, at one frontend. Those at the cluster IP stand for the service port and bear its name:
   * they go when the endpoint goes, not when a frontend does.
   */
  #remembered(sets: FrontendSets, key: readonly Scalar[], port: ServicePort, lists: Lists): void {
    const isOwn = sets === BY_ADDRESS && key[0] === port.clusterIP;
    const rest = { data: [affinityNumber(port)], ...(isOwn ? { comment: shortened(port.name) } : {}) };
    for (const list of LISTS) {
      for (const { ip, port } of lists[list] ?? []) {
        this.#element(sets.stickyEndpoints[list], { key: [...key, ip, port], ...rest });
      }
    }
  }

  /** Asks for the chain that picks one of so many endpoints. @returns Its name. */
  #picker(list: EndpointList, count: number, isSticky: boolean): string {
    const pick = pickName(list, count);
    if (!this.#chains.has(pick)) this.#chains.set(pick, pickChain(list, count));
    if (!isSticky) return pick;
    const stick = stickName(list, count);
    if (!this.#chains.has(stick)) this.#chains.set(stick, stickChain(list, count));
    return stick;
  }

  #element(set: SetObject, element: SetElement): void {
    let elements = this.#elements.get(set);
    if (elements === undefined) {
      elements = new Map();
      this.#elements.set(set, elements);
    }
    elements.set(element.key.join(' . '), element);
  }
}

/**
 * Sets in which all elements of a frontend are of one service, of whoever has the frontend: if two services claim it, the first has
 * it in `frontends`, and so in each of these, since who wants a frontend's endpoints also wants the frontend.
 */
const CLAIM_FIELDS: ReadonlyMap<SetObject, number> = new Map([
  [SOURCE_RANGES, BY_ADDRESS.fields] as const,
  ...[BY_ADDRESS, BY_NODE_PORT].flatMap(({ fields, endpoints, stickyEndpoints }) =>
    [endpoints.cluster, endpoints.local, stickyEndpoints.cluster, stickyEndpoints.local].map(
      (set) => [set, fields] as const,
    ),
  ),
]);

function internalList({ port }: ServicePortPlan): EndpointList {
  return port.internalPolicyLocal ? 'local' : 'cluster';
}

/**
 * The number clients of a service port are remembered by, as `major:minor`: 32 bits of a hash of its name and protocol. Two of one number are
 * possible; no client is ever sent from one to an endpoint only the other one has, but it may be forgotten.
 */
export function affinityNumber({ name, protocol }: Pick<ServicePort, 'name' | 'protocol'>): string {
  const hash = createHash('sha256').update(`${name}/${protocol}`).digest();
  // 0 and the highest are words of nft(8), "none" and "root": no major number is 0 or the highest here.
  const major = 1 + (hash.readUInt16BE(0) % 0xfffe);
  return `${major.toString(16)}:${hash.readUInt16BE(2).toString(16)}`;
}

function rememberedLists({ port, clusterEndpoints, localEndpoints }: ServicePortPlan): Lists {
  const hasLocal = port.internalPolicyLocal || port.externalPolicyLocal;
  return { cluster: clusterEndpoints, ...(hasLocal ? { local: localEndpoints } : {}) };
}

/** Who may use the load balancer's addresses; none: everyone. */
function sourceRanges({ loadBalancerVIPs, sourceRanges }: ServicePort, nodeIP: IPAddress): readonly string[] {
  if (loadBalancerVIPs.length === 0 || sourceRanges.length === 0) return [];
  // A node that may come in also comes from the VIP itself: its own packets to the VIP bear that source.
  const mayNode = sourceRanges.some((range: Cidr) => cidrContains(range, nodeIP));
  return withoutContained(sourceRanges, mayNode ? loadBalancerVIPs : []);
}
