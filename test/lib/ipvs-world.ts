/**
 * A small world for tests of IPVS mode: options, and a node whose kernel is in memory.
 *
 * @module
 */

import { FakeRuleset } from '../../src/iptables/fake.ts';
import { createIpvsDataplane, type IpvsDataplaneOptions } from '../../src/modes/ipvs/apply.ts';
import { Desired } from '../../src/modes/ipvs/desired.ts';
import { FakeIpsets } from '../../src/modes/ipvs/fake-ipset.ts';
import { formatServers, formatSets } from '../../src/modes/ipvs/format.ts';
import { readAddresses, readServers } from '../../src/modes/ipvs/kernel.ts';
import { DEVICE } from '../../src/modes/ipvs/objects.ts';
import type { NodeFacts } from '../../src/modes/ipvs/options.ts';
import { renderService } from '../../src/modes/ipvs/render.ts';
import { createRuleWriter, formatRules } from '../../src/modes/ipvs/rule-writer.ts';
import { renderRules } from '../../src/modes/ipvs/rules.ts';
import type { Snapshot, SyncReport } from '../../src/modes/mode.ts';
import { FakeDevices } from '../../src/netlink/fake-device.ts';
import { FakeIpvs } from '../../src/netlink/fake-ipvs.ts';
import { familyOf } from '../../src/proxier/addr.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import type { Family, ObjectKey, ServicePlan } from '../../src/proxier/types.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { addressNormalForm, ipsetNormalForm, ipvsNormalForm } from './ipvs-normal-form.ts';
import { cidr, ip } from './make.ts';
import { normalForm } from './normal-form.ts';

/** Addresses of the node's one link, and the facts they are. */
const NODE = {
  IPv4: { address: '192.168.0.2', full: '192.168.0.2' },
  IPv6: { address: '2001:db8::1', full: '2001:db8:0:0:0:0:0:1' },
} as const;

export function makeIpvsFacts(family: Family = 'IPv4'): NodeFacts {
  const address = ip(NODE[family].address);
  return { nodeAddresses: [address], nodePortIPs: [address] };
}

/** Pods in 10.0.0.0/8 (or fd00:10::/64), scheduler rr, every address of the node answers on node ports. */
export function makeIpvsOptions(overrides: Partial<IpvsDataplaneOptions> = {}): IpvsDataplaneOptions {
  const { family = 'IPv4' } = overrides;
  return {
    family,
    scheduler: 'rr',
    masqueradeBit: 14,
    masqueradeAll: false,
    localTraffic: { kind: 'cidr', cidr: cidr(family === 'IPv4' ? '10.0.0.0/8' : 'fd00:10::/64') },
    nodePortAddresses: nodePortAddresses([], family),
    nodeIP: ip(NODE[family].address),
    bindsExternalIPs: true,
    excludeCIDRs: [],
    features: { randomFully: true },
    syncPeriodMs: 30_000,
    ...overrides,
  };
}

/** Everything that is in a kernel, or must be, in normal form. */
export interface KernelState {
  readonly servers: string;
  readonly sets: string;
  readonly addresses: string;
  readonly rules: string;
}

/** What must be there for `plans`, whatever was there before. */
export function wantedState(
  plans: Iterable<ServicePlan>,
  options: IpvsDataplaneOptions,
  facts: NodeFacts = makeIpvsFacts(options.family),
): KernelState {
  const desired = new Desired();
  for (const plan of plans) desired.replace(plan.service, undefined, renderService(plan, options, facts));
  const closedToNode = Array.from(desired.closedToNode.entries(), ([, { value }]) => value);
  const ruleset = new FakeRuleset(options.family, 'legacy');
  ruleset.restore(formatRules(renderRules(options, { hasElements: (set) => desired.has(set), closedToNode })));
  return {
    servers: ipvsNormalForm(formatServers(desired)),
    rules: normalForm(ruleset.save()),
    sets: ipsetNormalForm(formatSets(desired, options.family)),
    addresses: addressNormalForm([...desired.addresses.entries()].map(([address]) => address).join('\n')),
  };
}

/** A node in memory with a dataplane that can be restarted. */
export function makeIpvsNode(overrides: Partial<IpvsDataplaneOptions> = {}) {
  const options = makeIpvsOptions(overrides);
  const { family } = options;
  const ipvs = new FakeIpvs();
  const devices = new FakeDevices();
  const ipsets = new FakeIpsets();
  const ruleset = new FakeRuleset(family, 'legacy');
  const restores = { failed: 0 };
  const clock = new FakeClock();
  const warnings: string[] = [];
  devices.devices.set('eth0', { index: 1000, kind: 'veth' });
  const setNodeAddresses = (...texts: readonly string[]) => {
    const others = devices.held.filter(({ interfaceIndex }) => interfaceIndex !== 1000);
    devices.held.splice(0, devices.held.length, ...others);
    for (const address of texts) devices.held.push({ address, family, prefixLength: 24, interfaceIndex: 1000 });
  };
  setNodeAddresses(NODE[family].full);
  const log = { info: () => {}, warn: (_: object, message: string) => warnings.push(message) };
  const tools = {
    family,
    save: async (table: string) => ruleset.save(table),
    restore: async (input: string | Iterable<string>) => ruleset.restore([...input].join('')),
  };
  const onRestoreFailed = () => {
    restores.failed++;
  };
  const make = () => {
    const rules = createRuleWriter({ tools, onRestoreFailed }, options);
    return createIpvsDataplane({ ipvs, devices, ipsets, rules, clock, log }, options);
  };
  let dataplane = make();
  const held = new Map<ObjectKey, ServicePlan>();
  return {
    options,
    ipvs,
    devices,
    ipsets,
    tools,
    ruleset,
    restores,
    clock,
    warnings,
    held,
    setNodeAddresses,
    get dataplane() {
      return dataplane;
    },
    restart() {
      dataplane = make();
    },
    async sync(changes: readonly (ServicePlan | ObjectKey)[], full = false): Promise<SyncReport> {
      const dirty = new Set<ObjectKey>();
      for (const change of changes) {
        if (typeof change === 'string') held.delete(change);
        else held.set(change.service, change);
        dirty.add(typeof change === 'string' ? change : change.service);
      }
      const snapshot: Snapshot = { services: held, dirty, endpointCount: 0, serviceCIDRs: [] };
      return await dataplane.sync(snapshot, { full });
    },
    /** What the kernel holds. */
    state(): KernelState {
      const lines = [...readServers(ipvs, family).values()].flatMap(({ server, realServers }) => {
        const option = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' }[server.protocol];
        const at = (a: string, port: number) => (a.includes(':') ? `[${a}]:${port}` : `${a}:${port}`);
        const key = `${option} ${at(server.ip, server.port)}`;
        const persistent = server.flags & 1 ? ` -p ${server.timeoutSeconds}` : '';
        return [
          `-A ${key} -s ${server.scheduler}${persistent}${server.flags & 0x10 ? ' -b mh-port' : ''}`,
          ...realServers.map((real) => `-a ${key} -r ${at(real.ip, real.port)} -m -w ${real.weight}`),
        ];
      });
      const bound = readAddresses(devices, devices.find(DEVICE)?.index).filter(({ isOurs }) => isOurs);
      const addresses = bound.map((one) => one.ip).filter((address) => familyOf(address) === family);
      return {
        servers: ipvsNormalForm(lines.join('\n')),
        rules: normalForm(ruleset.save()),
        sets: ipsetNormalForm(ipsets.save()),
        addresses: addressNormalForm(addresses.join('\n')),
      };
    },
  };
}
