/**
 * What one service port has in layout `chains`: its chains, affinity sets and elements of shared sets. Pure.
 * spec: nftables.md §7.
 *
 * @module
 */

import { TEXT_COMMENT_BYTES_MAX } from '../../netlink/nftables/text.ts';
import type {
  MapReference,
  RuleObject,
  SetElement,
  SetObject,
  Statement,
  Verdict,
} from '../../netlink/nftables/transaction.ts';
import { cidrContains } from '../../proxier/addr.ts';
import type { Endpoint, IPAddress, ServicePortPlan } from '../../proxier/types.ts';
import type { ChainContent } from './layout.ts';
import { anonymousName, type EndpointNames, endpointNames, type ServicePortNames, servicePortNames } from './names.ts';
import type { NftablesOptions } from './options.ts';
import {
  CLUSTER_IPS,
  FIREWALL_IPS,
  HAIRPIN_CONNECTIONS,
  NO_ENDPOINT_NODEPORTS,
  NO_ENDPOINT_SERVICES,
  SERVICE_IPS,
  SERVICE_NODEPORTS,
} from './shared-sets.ts';
import { askForMasquerade, DROP, FROM_NODE, gotoChain, podTraffic, protocolWord, verdict } from './statements.ts';
import { REJECT_CHAIN } from './static.ts';

/** Where a service port puts what it has. */
export interface ServiceSink {
  addChain(content: ChainContent): void;
  addSet(set: SetObject): void;
  /** Of two with one key in one set the later one counts. */
  addElement(set: SetObject, element: SetElement): void;
}

/**
 * Renders one service port.
 *
 * @throws {RangeError} If chains cannot be named after it.
 */
export function renderServicePort(plan: ServicePortPlan, options: NftablesOptions, sink: ServiceSink): void {
  new PortRenderer(plan, options, sink).render();
}

/** One service port on its way into objects. */
class PortRenderer {
  readonly #plan: ServicePortPlan;
  readonly #options: NftablesOptions;
  readonly #sink: ServiceSink;
  readonly #names: ServicePortNames;
  readonly #protocol: 'tcp' | 'udp' | 'sctp';
  /** Of endpoints that have chains of their own, by text. */
  readonly #endpointNames = new Map<string, EndpointNames>();

  constructor(plan: ServicePortPlan, options: NftablesOptions, sink: ServiceSink) {
    this.#plan = plan;
    this.#options = options;
    this.#sink = sink;
    this.#names = servicePortNames(plan.port);
    this.#protocol = protocolWord(plan.port.protocol);
  }

  render(): void {
    const { port, usesClusterPolicyChain, usesLocalPolicyChain, usesExternalTrafficChain } = this.#plan;
    const usesFirewall = port.loadBalancerVIPs.length > 0 && port.sourceRanges.length > 0;
    this.#hairpins();
    this.#frontends(usesFirewall);
    if (port.affinitySeconds !== undefined) this.#endpointChains(port.affinitySeconds);
    if (usesClusterPolicyChain) this.#policyChain(this.#names.clusterPolicy, this.#plan.clusterEndpoints);
    if (usesLocalPolicyChain) this.#policyChain(this.#names.localPolicy, this.#plan.localEndpoints);
    if (usesExternalTrafficChain) this.#externalChain();
    if (usesFirewall) this.#firewallChain();
  }

  /** A pod of this node that its own Service sends back to it would not know the answer without masquerading. */
  #hairpins(): void {
    for (const { isLocal, ip, port } of this.#plan.reachableEndpoints) {
      if (isLocal) this.#sink.addElement(HAIRPIN_CONNECTIONS, { key: [ip, ip, this.#protocol, port] });
    }
  }

  /** Addresses and ports that lead to this service port. */
  #frontends(usesFirewall: boolean): void {
    const { port, hasAnyEndpoints, hasInternalEndpoints, hasExternalEndpoints } = this.#plan;
    const sink = this.#sink;
    const at = (ip: IPAddress) => [ip, this.#protocol, port.port];
    const unanswered: Pick<SetElement, 'data' | 'comment'> = {
      data: hasAnyEndpoints ? { kind: 'drop' } : gotoChain(REJECT_CHAIN),
      comment: shortened(port.name),
    };
    const external: Verdict = gotoChain(this.#names.external);

    sink.addElement(CLUSTER_IPS, { key: [port.clusterIP] });
    if (hasInternalEndpoints) {
      const internal = port.internalPolicyLocal ? this.#names.localPolicy : this.#names.clusterPolicy;
      sink.addElement(SERVICE_IPS, { key: at(port.clusterIP), data: gotoChain(internal) });
    } else {
      sink.addElement(NO_ENDPOINT_SERVICES, { key: at(port.clusterIP), ...unanswered });
    }
    for (const ip of [...port.externalIPs, ...port.loadBalancerVIPs]) {
      if (hasAnyEndpoints) sink.addElement(SERVICE_IPS, { key: at(ip), data: external });
      if (!hasExternalEndpoints) sink.addElement(NO_ENDPOINT_SERVICES, { key: at(ip), ...unanswered });
    }
    if (usesFirewall) {
      const firewall = gotoChain(this.#names.firewall);
      for (const ip of port.loadBalancerVIPs) sink.addElement(FIREWALL_IPS, { key: at(ip), data: firewall });
    }
    if (port.nodePort !== 0) {
      const key = [this.#protocol, port.nodePort];
      if (hasAnyEndpoints) sink.addElement(SERVICE_NODEPORTS, { key, data: external });
      if (!hasExternalEndpoints) sink.addElement(NO_ENDPOINT_NODEPORTS, { key, ...unanswered });
    }
  }

  /** What comes in from outside the cluster, and from inside to an address of the outside. */
  #externalChain(): void {
    const { port, hasExternalEndpoints } = this.#plan;
    const { clusterPolicy, localPolicy, external: chain } = this.#names;
    const toCluster = verdict(gotoChain(clusterPolicy));
    const mark = askForMasquerade(this.#options);
    const rules: RuleObject[] = [];
    if (port.externalPolicyLocal) {
      // The cluster's own pods, and the node itself, reach every endpoint whatever the policy says of others.
      const isFromPods = podTraffic(this.#options.localTraffic, true);
      if (isFromPods !== undefined) {
        rules.push({ chain, statements: [isFromPods, toCluster], comment: 'short-circuit pod traffic' });
      }
      rules.push(
        { chain, statements: [FROM_NODE, mark], comment: 'masquerade local traffic' },
        { chain, statements: [FROM_NODE, toCluster], comment: 'short-circuit local traffic' },
      );
    } else {
      rules.push({ chain, statements: [mark], comment: 'masquerade' });
    }
    if (hasExternalEndpoints) {
      const policy = port.externalPolicyLocal ? localPolicy : clusterPolicy;
      rules.push({ chain, statements: [verdict(gotoChain(policy))] });
    }
    this.#sink.addChain({ chain: { name: chain }, rules });
  }

  #firewallChain(): void {
    const { port } = this.#plan;
    const { firewall: chain, hash } = this.#names;
    // A node that may come in also comes from the VIP itself: its own packets to the VIP bear that source.
    const mayNode = port.sourceRanges.some((range) => cidrContains(range, this.#options.nodeIP));
    const cidrs: readonly string[] = mayNode ? [...port.sourceRanges, ...port.loadBalancerVIPs] : port.sourceRanges;
    const others: Statement = {
      kind: 'address',
      side: 'saddr',
      negated: true,
      cidrs,
      ...(cidrs.length > 1 ? { name: anonymousName(hash, chain, cidrs.join(',')) } : {}),
    };
    this.#sink.addChain({ chain: { name: chain }, rules: [{ chain, statements: [others, DROP] }] });
  }

  /** The rules that pick one endpoint: the one this client had, else each with the same odds. */
  #policyChain(chain: string, endpoints: readonly Endpoint[]): void {
    const random = { random: endpoints.length };
    if (this.#plan.port.affinitySeconds === undefined) {
      const map = this.#anonymousMap(
        chain,
        endpoints.map(({ ip, port }) => [ip, port]),
        endpoints.map(({ text }) => text),
      );
      const isProtocol: Statement = { kind: 'l4proto', protocol: this.#protocol };
      const statements: readonly Statement[] = [isProtocol, { kind: 'dnatMap', fields: [random], map }];
      this.#sink.addChain({ chain: { name: chain }, rules: [{ chain, statements }] });
      return;
    }
    const names = endpoints.map((endpoint) => this.#namesOf(endpoint));
    const map = this.#anonymousMap(
      chain,
      names.map((name) => gotoChain(name.chain)),
      names.map((name) => name.chain),
    );
    const rules = names.map((name): RuleObject => {
      const isKnown: Statement = { kind: 'inSet', fields: ['saddr'], set: name.affinitySet };
      return { chain, statements: [isKnown, verdict(gotoChain(name.chain))] };
    });
    this.#sink.addChain({
      chain: { name: chain },
      rules: [...rules, { chain, statements: [{ kind: 'vmap', fields: [random], map }] }],
    });
  }

  /** @param content - What the data are, as text: two of one chain that differ in it have different names. */
  #anonymousMap(chain: string, data: readonly SetElement['data'][], content: readonly string[]): MapReference {
    return {
      kind: 'anonymous',
      name: anonymousName(this.#names.hash, chain, content.join(',')),
      elements: data.map((value, i) => ({ key: [i], ...(value === undefined ? {} : { data: value }) })),
    };
  }

  /** A chain for each endpoint that remembers the client and sends it there. */
  #endpointChains(timeoutSeconds: number): void {
    for (const endpoint of this.#plan.reachableEndpoints) {
      const { chain, affinitySet } = this.#namesOf(endpoint);
      this.#sink.addSet({ name: affinitySet, key: ['addr'], flags: ['dynamic', 'timeout'], timeoutSeconds });
      const remember: Statement = { kind: 'dynamic', op: 'update', set: affinitySet, fields: ['saddr'] };
      const isProtocol: Statement = { kind: 'l4proto', protocol: this.#protocol };
      const send: Statement = { kind: 'dnat', address: endpoint.ip, port: endpoint.port };
      this.#sink.addChain({
        chain: { name: chain },
        rules: [
          { chain, statements: [remember] },
          { chain, statements: [isProtocol, send] },
        ],
      });
    }
  }

  #namesOf(endpoint: Endpoint): EndpointNames {
    const known = this.#endpointNames.get(endpoint.text);
    if (known !== undefined) return known;
    const names = endpointNames(this.#plan.port, endpoint);
    this.#endpointNames.set(endpoint.text, names);
    return names;
  }
}

/** The kernel takes longer comments than nft(8), but what nft lists must be loadable again. The text is ASCII. */
export function shortened(comment: string): string {
  const most = TEXT_COMMENT_BYTES_MAX;
  return comment.length > most ? `${comment.slice(0, most - 3)}...` : comment;
}
