/**
 * The recorded scenarios without a kernel: objects through decoder and model into plans, step by step, and the settings a
 * mode renders them with.
 *
 * @module
 */

import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { localTraffic } from '../../src/proxier/local-traffic.ts';
import { Model } from '../../src/proxier/model.ts';
import { nodePortAddresses, selectNodeIPs } from '../../src/proxier/node-port-addresses.ts';
import type {
  ApiObject,
  Family,
  IPAddress,
  Kind,
  LocalTraffic,
  NodePortAddresses,
  ObjectKey,
} from '../../src/proxier/types.ts';
import { Decoder } from '../../src/watch/decode.ts';
import { ip } from './make.ts';

interface Recorded {
  readonly kind: string;
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: { readonly clusterIP?: string };
}

interface ModeConfig {
  readonly masqueradeAll?: boolean;
  readonly masqueradeBit?: number;
  readonly localhostNodePorts?: boolean;
}

/** Modes there are recordings of. */
export type RecordedMode = 'iptables' | 'nftables' | 'ipvs';

/** Under which name a mode finds its masquerading in the configuration. */
const SECTION = { iptables: 'iptables', nftables: 'nftables', ipvs: 'iptables' } as const;

/** `scenario.json` */
export interface Scenario {
  readonly node: {
    readonly name: string;
    readonly links: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  };
  readonly proxy: {
    readonly clusterCIDR?: string;
    readonly detectLocalMode?: string;
    readonly detectLocal?: { readonly bridgeInterface?: string; readonly interfaceNamePrefix?: string };
    readonly nodePortAddresses?: readonly string[];
    readonly iptables?: ModeConfig;
    readonly nftables?: ModeConfig;
    readonly ipvs?: { readonly scheduler?: string };
  };
  readonly steps: readonly { readonly objects: readonly Recorded[] }[];
}

const reference = fileURLToPath(new URL('../reference', import.meta.url));

/** Names of the scenarios recorded in a mode. */
export function scenariosOf(mode: RecordedMode): readonly string[] {
  return globSync('*/scenario.json', { cwd: reference })
    .map(dirname)
    .filter((name) => existsSync(`${reference}/${name}/${mode}`))
    .sort();
}

export function readScenario(name: string): Scenario {
  return JSON.parse(readFileSync(`${reference}/${name}/scenario.json`, 'utf8')) as Scenario;
}

/** What was recorded after a step. @param what - `iptables`, `ip6tables`, `nft`, `ipvs`, `ipset`, `addr`. */
export function readRecording(name: string, mode: RecordedMode, step: number, what: string): string {
  return readFileSync(`${reference}/${name}/${mode}/${String(step).padStart(2, '0')}.${what}`, 'utf8');
}

/** What every mode renders with. */
export interface ScenarioSettings {
  readonly family: Family;
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  readonly nodeIP: IPAddress;
  /** Addresses node ports answer on, loopback among them if selected. */
  readonly nodeIPs: readonly IPAddress[];
  /** All addresses on the links of the node, both families. */
  readonly linkAddresses: readonly IPAddress[];
}

export interface ScenarioStep {
  readonly settings: ScenarioSettings;
  readonly changedServices: ReadonlySet<ObjectKey>;
}

/** What the API server lets through to a proxy. */
function isServed({ kind, metadata, spec }: Recorded): boolean {
  if (kind === 'Service') {
    return metadata.labels?.['service.kubernetes.io/service-proxy-name'] === undefined && spec?.clusterIP !== 'None';
  }
  return kind !== 'EndpointSlice' || metadata.labels?.['service.kubernetes.io/headless'] === undefined;
}

const LOOPBACK: Readonly<Record<Family, string>> = { IPv4: '127.0.0.1', IPv6: '::1' };

/** One family of one scenario, living through its steps. */
export class ScenarioWorld {
  readonly model: Model;
  readonly #scenario: Scenario;
  readonly #mode: RecordedMode;
  readonly #family: Family;
  readonly #decoder = new Decoder();
  readonly #held = new Map<string, ApiObject>();

  constructor(scenario: Scenario, mode: RecordedMode, family: Family) {
    this.model = new Model({ family, nodeName: scenario.node.name });
    this.#scenario = scenario;
    this.#mode = mode;
    this.#family = family;
  }

  /** Brings the model to the step: upserts what is there, deletes what is not. */
  advanceTo(step: number): ScenarioStep {
    const recorded = this.#scenario.steps[step]?.objects ?? [];
    const objects = recorded.filter(isServed).map((o) => this.#decoder.decode(o.kind as Kind, o));
    const now = new Set(objects.map((o) => `${o.kind} ${o.key}`));
    for (const [id, o] of this.#held) {
      if (now.has(id)) continue;
      this.#held.delete(id);
      if (o.kind === 'Service') this.model.deleteService(o.key);
      else if (o.kind === 'EndpointSlice') this.model.deleteSlice(o.key);
    }
    for (const o of objects) {
      this.#held.set(`${o.kind} ${o.key}`, o);
      if (o.kind === 'Service') this.model.upsertService(o);
      else if (o.kind === 'EndpointSlice') this.model.upsertSlice(o);
      else if (o.kind === 'Node' && o.name === this.#scenario.node.name) this.model.setZone(o.zone);
    }
    return { settings: this.#settings(objects), changedServices: this.model.takeChanges().changedServices };
  }

  #settings(objects: readonly ApiObject[]): ScenarioSettings {
    const { node, proxy } = this.#scenario;
    const family = this.#family;
    const me = objects.find((o) => o.kind === 'Node' && o.name === node.name);
    const addresses = node.links.flatMap((link) => link.addresses.map((a) => ip(a.split('/')[0] ?? '')));
    // The node's own addresses are those its Node object has, not those on its links.
    const primary = (me?.kind === 'Node' ? me.addresses : []).filter(({ type }) => type === 'InternalIP');
    const configured = proxy.nodePortAddresses ?? (this.#mode === 'nftables' ? ['primary'] : []);
    const listed = configured.flatMap((text) =>
      text === 'primary' ? primary.map(({ address }) => `${address}/${address.includes(':') ? 128 : 32}`) : [text],
    );
    const selection = nodePortAddresses(listed, family);
    return {
      family,
      masqueradeBit: proxy[SECTION[this.#mode]]?.masqueradeBit ?? 14,
      masqueradeAll: proxy[SECTION[this.#mode]]?.masqueradeAll ?? false,
      localTraffic: localTraffic(
        {
          detectLocalMode: proxy.detectLocalMode ?? 'ClusterCIDR',
          clusterCIDRs: proxy.clusterCIDR?.split(',').filter((text) => text !== '') ?? [],
          podCIDRs: me?.kind === 'Node' ? me.podCIDRs : [],
          bridgeInterface: proxy.detectLocal?.bridgeInterface ?? '',
          interfaceNamePrefix: proxy.detectLocal?.interfaceNamePrefix ?? '',
        },
        family,
      ),
      nodePortAddresses: selection,
      nodeIP: ip(
        primary.find(({ address }) => address.includes(':') === (family === 'IPv6'))?.address ?? LOOPBACK[family],
      ),
      nodeIPs: selectNodeIPs(selection, addresses),
      linkAddresses: addresses,
    };
  }
}
