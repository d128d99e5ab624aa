/**
 * Every recorded scenario of iptables mode, step by step, without a kernel: objects through decoder and model into rules,
 * the rules into the ruleset in memory, and what that prints beside what kube-proxy had programmed.
 */

import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { buildRestore, deltaFromDump, type OwnedEdits, serviceDelta } from '../../src/modes/iptables/delta.ts';
import { FakeRuleset } from '../../src/modes/iptables/fake.ts';
import type { DynamicFacts, IptablesOptions } from '../../src/modes/iptables/options.ts';
import { parseSave } from '../../src/modes/iptables/parse.ts';
import { renderAll, renderService } from '../../src/modes/iptables/render.ts';
import { renderStatic } from '../../src/modes/iptables/static.ts';
import { localTraffic } from '../../src/proxier/local-traffic.ts';
import { Model } from '../../src/proxier/model.ts';
import { nodePortAddresses, selectNodeIPs } from '../../src/proxier/node-port-addresses.ts';
import {
  type ApiObject,
  FAMILIES,
  type Family,
  type Kind,
  type ObjectKey,
  type ServicePlan,
} from '../../src/proxier/types.ts';
import { Decoder } from '../../src/watch/decode.ts';
import { ip } from '../lib/make.ts';
import { normalForm } from '../lib/normal-form.ts';

interface Recorded {
  readonly kind: string;
  readonly metadata: { readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: { readonly clusterIP?: string };
}

interface Scenario {
  readonly node: { readonly name: string; readonly links: readonly { readonly addresses: readonly string[] }[] };
  readonly proxy: {
    readonly clusterCIDR?: string;
    readonly detectLocalMode?: string;
    readonly detectLocal?: { readonly bridgeInterface?: string; readonly interfaceNamePrefix?: string };
    readonly nodePortAddresses?: readonly string[];
    readonly iptables?: {
      readonly masqueradeAll?: boolean;
      readonly masqueradeBit?: number;
      readonly localhostNodePorts?: boolean;
    };
  };
  readonly steps: readonly { readonly objects: readonly Recorded[] }[];
}

const reference = fileURLToPath(new URL('../reference', import.meta.url));
const scenarios = globSync('*/scenario.json', { cwd: reference })
  .filter((file) => existsSync(`${reference}/${dirname(file)}/iptables`))
  .sort();

const LOOPBACK: Readonly<Record<Family, string>> = { IPv4: '127.0.0.1', IPv6: '::1' };
const SWITCHES = { comments: true } as const;

/** What the API server lets through to a proxy. */
function isServed({ kind, metadata, spec }: Recorded): boolean {
  if (kind === 'Service') {
    return metadata.labels?.['service.kubernetes.io/service-proxy-name'] === undefined && spec?.clusterIP !== 'None';
  }
  return kind !== 'EndpointSlice' || metadata.labels?.['service.kubernetes.io/headless'] === undefined;
}

function settings({ node, proxy }: Scenario, family: Family, objects: readonly ApiObject[]) {
  const me = objects.find((o) => o.kind === 'Node' && o.name === node.name);
  const addresses = node.links.flatMap((link) => link.addresses.map((a) => ip(a.split('/')[0] ?? '')));
  // The node's own addresses are those its Node object has, not those on its links.
  const primary = (me?.kind === 'Node' ? me.addresses : []).filter(({ type }) => type === 'InternalIP');
  const listed = (proxy.nodePortAddresses ?? []).flatMap((text) =>
    text === 'primary' ? primary.map(({ address }) => `${address}/${address.includes(':') ? 128 : 32}`) : [text],
  );
  const selection = nodePortAddresses(listed, family);
  const options: IptablesOptions = {
    family,
    masqueradeBit: proxy.iptables?.masqueradeBit ?? 14,
    masqueradeAll: proxy.iptables?.masqueradeAll ?? false,
    localhostNodePorts:
      family === 'IPv4' && selection.containsIPv4Loopback && (proxy.iptables?.localhostNodePorts ?? true),
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
    features: { randomFully: true },
    tcpBeLiberal: false,
  };
  const facts: DynamicFacts = {
    nodeIPs: selectNodeIPs(selection, addresses),
    counters: { ctStateInvalid: true, localhostNodePorts: true },
  };
  return { options, facts };
}

/** Brings the model to a step: upserts what is there, deletes what is not. */
function feed(model: Model, node: string, objects: readonly ApiObject[], held: Map<string, ApiObject>): void {
  const now = new Set(objects.map((o) => `${o.kind} ${o.key}`));
  for (const [id, o] of held) {
    if (now.has(id)) continue;
    held.delete(id);
    if (o.kind === 'Service') model.deleteService(o.key);
    else if (o.kind === 'EndpointSlice') model.deleteSlice(o.key);
  }
  for (const o of objects) {
    held.set(`${o.kind} ${o.key}`, o);
    if (o.kind === 'Service') model.upsertService(o);
    else if (o.kind === 'EndpointSlice') model.upsertSlice(o);
    else if (o.kind === 'Node' && o.name === node) model.setZone(o.zone);
  }
}

const CANARIES = ['mangle', 'filter', 'nat'].map((table) => `*${table}\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n`).join('');

function write(ruleset: FakeRuleset, ...parts: readonly OwnedEdits[]): void {
  const { text } = buildRestore(parts);
  if (text !== '') ruleset.restore(text);
}

/** What differs, a line each; '' if nothing does. */
function difference(recorded: string, got: string): string {
  if (recorded === got) return '';
  const [a, b] = [new Set(recorded.split('\n')), new Set(got.split('\n'))];
  return [
    ...[...a].filter((line) => !b.has(line)).map((line) => `- ${line}`),
    ...[...b].filter((line) => !a.has(line)).map((line) => `+ ${line}`),
    'or the order differs',
  ].join('\n');
}

t.ok(scenarios.length >= 50, 'there are scenarios to compare with');

for (const file of scenarios) {
  const name = basename(dirname(file));
  t.test(name, async (t) => {
    const scenario = JSON.parse(readFileSync(`${reference}/${file}`, 'utf8')) as Scenario;
    const decoder = new Decoder();
    for (const family of FAMILIES) {
      const model = new Model({ family, nodeName: scenario.node.name });
      const held = new Map<string, ApiObject>();
      const applied = new Map<ObjectKey, ServicePlan>();
      const live = new FakeRuleset(family);
      live.restore(CANARIES);
      for (const [i, step] of scenario.steps.entries()) {
        const at = `${family} step ${i}`;
        const objects = step.objects.filter(isServed).map((o) => decoder.decode(o.kind as Kind, o));
        const { options, facts } = settings(scenario, family, objects);
        feed(model, scenario.node.name, objects, held);
        const { changedServices } = model.takeChanges();
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
        const recorded = readFileSync(`${reference}/${name}/iptables/${String(i).padStart(2, '0')}.${tool}`, 'utf8');
        t.equal(
          difference(normalForm(recorded), normalForm(live.save())),
          '',
          `${at}: edits lead to the recorded rules`,
        );

        const whole = new FakeRuleset(family);
        whole.restore(CANARIES);
        whole.restore(renderAll(model.services.values(), options, facts, { comments: true, jumps: true }));
        t.equal(difference(normalForm(recorded), normalForm(whole.save())), '', `${at}: so does the whole`);

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
