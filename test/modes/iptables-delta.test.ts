/** Edits: what a change costs, where whatever was there before leads to, and that nothing is done twice. */

import fc from 'fast-check';
import t from 'tap';
import { FakeRestoreError, FakeRuleset } from '../../src/iptables/fake.ts';
import { formatSaved } from '../../src/iptables/format.ts';
import { parseSave } from '../../src/iptables/parse.ts';
import { comment, DROP, type Rule, rule } from '../../src/iptables/rule.ts';
import {
  buildRestore,
  deltaFromDump,
  type OwnedEdits,
  serviceDelta,
  staticDelta,
  type Wanted,
} from '../../src/modes/iptables/delta.ts';
import { isServiceChain, SERVICES } from '../../src/modes/iptables/names.ts';
import type { DynamicFacts, IptablesOptions } from '../../src/modes/iptables/options.ts';
import { renderAll, renderService, type ServiceRules } from '../../src/modes/iptables/render.ts';
import { JUMPS, renderStatic } from '../../src/modes/iptables/static.ts';
import { Model } from '../../src/proxier/model.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import { objectKey } from '../../src/proxier/slices.ts';
import type { ObjectKey, ServicePlan, WatchEvent } from '../../src/proxier/types.ts';
import { arbHistory } from '../lib/arb.ts';
import { IPV6_SERVICES, makeFacts, makeOptions, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makePortPlan, makeServicePort, NODE_NAME } from '../lib/make.ts';
import { normalForm } from '../lib/normal-form.ts';

type Plans = ReadonlyMap<ObjectKey, ServicePlan>;

const plansOf = (...plans: readonly ServicePlan[]): Plans => new Map(plans.map((plan) => [plan.service, plan]));

function render(plan: ServicePlan | undefined, options: IptablesOptions, facts = makeFacts(), comments = true) {
  return plan && renderService(plan, options, facts, { comments });
}

function wanted(plans: Plans, options: IptablesOptions, facts: DynamicFacts = makeFacts()): Wanted {
  return {
    family: options.family,
    statics: renderStatic(options, facts),
    services: [...plans].map(([key, plan]) => [key, renderService(plan, options, facts, { comments: true })] as const),
  };
}

function write(ruleset: FakeRuleset, parts: Iterable<OwnedEdits>): string {
  const { text } = buildRestore(parts);
  if (text !== '') ruleset.restore(text);
  return text;
}

function fresh(plans: Plans, options: IptablesOptions, facts: DynamicFacts = makeFacts()): FakeRuleset {
  const ruleset = new FakeRuleset(options.family);
  ruleset.restore(renderAll(plans.values(), options, facts, { comments: true, jumps: true }));
  return ruleset;
}

const allOf = ({ before, services, after }: ReturnType<typeof deltaFromDump>) => [before, ...services, after];

/** True if packets for the node itself are looked at after every service. */
function nodePortsComeLast(ruleset: FakeRuleset): boolean {
  const isLast = ruleset.rules('nat', 'KUBE-SERVICES').map((rule) => rule.includes('this must be the last rule'));
  return isLast.lastIndexOf(false) < isLast.indexOf(true);
}

/** Feeds events, and gives the plans after each run of `every` of them. */
function* lives(history: readonly WatchEvent[], every: number): Generator<readonly [Plans, ReadonlySet<ObjectKey>]> {
  const model = new Model({ family: 'IPv4', nodeName: NODE_NAME });
  for (const [i, event] of history.entries()) {
    if (event.type === 'upsert' && event.object.kind === 'Service') model.upsertService(event.object);
    else if (event.type === 'upsert' && event.object.kind === 'EndpointSlice') model.upsertSlice(event.object);
    else if (event.type === 'upsert' && event.object.kind === 'Node') model.setZone(event.object.zone);
    else if (event.type === 'delete' && event.kind === 'Service') model.deleteService(event.key);
    else if (event.type === 'delete' && event.kind === 'EndpointSlice') model.deleteSlice(event.key);
    if (i % every !== every - 1 && i !== history.length - 1) continue;
    const { changedServices } = model.takeChanges();
    yield [new Map(model.services), changedServices];
  }
}

const arbOptions: fc.Arbitrary<IptablesOptions> = fc
  .record({
    masqueradeAll: fc.boolean(),
    localhostNodePorts: fc.boolean(),
    localTraffic: fc.constantFrom<IptablesOptions['localTraffic']>(
      { kind: 'none' },
      { kind: 'cidr', cidr: cidr('10.0.0.0/8') },
      { kind: 'bridge', name: 'cni0' },
    ),
    nodePortAddresses: fc.constantFrom(nodePortAddresses([], 'IPv4'), nodePortAddresses(['192.168.0.0/16'], 'IPv4')),
  })
  .map((overrides) => makeOptions(overrides));

const NODE_IPS = makeFacts({ nodeIPs: ['192.168.0.2', '192.168.1.2'].map(ip) });

t.test('changes of any history lead where a fresh start leads', async (t) => {
  const property = fc.property(arbHistory, arbOptions, fc.integer({ min: 1, max: 5 }), (history, options, every) => {
    const live = fresh(new Map(), options, NODE_IPS);
    let before: Plans = new Map();
    for (const [plans, changed] of lives(history, every)) {
      const parts = [...changed].map((owner) => ({
        owner,
        edits: serviceDelta(render(before.get(owner), options, NODE_IPS), render(plans.get(owner), options, NODE_IPS)),
      }));
      write(live, parts);
      before = plans;
      if (normalForm(live.save()) !== normalForm(fresh(plans, options, NODE_IPS).save()) || !nodePortsComeLast(live))
        return false;
    }
    return true;
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 60 }));
});

/** What someone else may have done to a rule of ours, or beside it. */
const arbVandalism = fc.array(
  fc.record({
    at: fc.nat(),
    act: fc.constantFrom('drop', 'twice', 'last', 'first', 'foreign', 'foreignJump'),
  }),
  { maxLength: 12 },
);

const FOREIGN = '-s 198.51.100.1/32 -m comment --comment "not ours" -j ACCEPT';

/** Rules as other programs leave them: a ruleset built from a dump after `acts` on it. */
function vandalised(dump: string, acts: readonly { readonly at: number; readonly act: string }[]): FakeRuleset {
  const tables = new Map(
    [...parseSave(dump)].map(([table, chains]) => [
      table,
      new Map([...chains].map(([name, { rules }]) => [name, [...rules]])),
    ]),
  );
  for (const { at, act } of acts) {
    const chains = [...tables.values()].flatMap((table) => [...table.values()]).filter((rules) => rules.length > 0);
    const rules = chains[at % chains.length];
    if (rules === undefined) continue;
    const position = Math.floor(at / chains.length) % rules.length;
    const [rule = ''] = rules.splice(position, 1);
    if (act === 'twice') rules.splice(position, 0, rule, rule);
    else if (act === 'last') rules.push(rule);
    else if (act === 'first') rules.unshift(rule);
    else if (act === 'foreign') rules.splice(position, 0, rule, FOREIGN);
    else if (act === 'foreignJump') rules.splice(position, 0, '-j MINE', rule);
  }
  const ruleset = new FakeRuleset('IPv4');
  for (const [table, chains] of tables) {
    const lines = [...chains.keys(), 'MINE'].map((name) => `:${name} - [0:0]`);
    for (const [name, rules] of chains) for (const rule of rules) lines.push(`-A ${name} ${rule}`);
    const jump = chains.has('KUBE-SERVICES') ? ['-A MINE -j KUBE-SERVICES'] : [];
    ruleset.restore([`*${table}`, ...lines, `-A MINE ${FOREIGN}`, ...jump, 'COMMIT', ''].join('\n'));
  }
  return ruleset;
}

/** Chains of ours alone, in normal form. */
function ours(save: string): string {
  return normalForm(save)
    .split('\n')
    .filter((line) => !/^(?::|-A )(?!KUBE-)/.test(line))
    .join('\n');
}

/** Chains of others, without the jumps of ours. */
function others(ruleset: FakeRuleset): string[] {
  const jumps = new Set(JUMPS.map(({ table, from, rule }) => `${table} ${from} ${formatSaved(rule, 'IPv4')}`));
  return [...parseSave(ruleset.save())].flatMap(([table, chains]) =>
    [...chains]
      .filter(([name]) => !name.startsWith('KUBE-'))
      .flatMap(([name, { rules }]) => rules.map((rule) => `${table} ${name} ${rule}`))
      .filter((line) => !jumps.has(line)),
  );
}

t.test('whatever is there, one repair leads to what is wanted, and a second has nothing to do', async (t) => {
  const property = fc.property(
    arbHistory,
    arbOptions,
    arbOptions,
    arbVandalism,
    fc.boolean(),
    (history, oldOptions, options, acts, isWiped) => {
      const states = [...lives(history, 3)];
      const old = states[Math.floor(states.length / 2)]?.[0] ?? new Map();
      const now = states.at(-1)?.[0] ?? new Map();
      const live = isWiped
        ? vandalised(`${fresh(old, oldOptions, NODE_IPS).save('filter')}*nat\nCOMMIT\n`, acts)
        : vandalised(fresh(old, oldOptions, NODE_IPS).save(), acts);
      const theirs = others(live);
      write(live, allOf(deltaFromDump(parseSave(live.save()), wanted(now, options, NODE_IPS))));

      // KUBE-FIREWALL is kubelet's too: without a rule of ours for it, it stays as it is.
      const compared = (ruleset: FakeRuleset) =>
        options.localhostNodePorts
          ? ours(ruleset.save())
          : ours(ruleset.save()).replaceAll(/^-A KUBE-FIREWALL .*\n/gm, '');
      const isWanted = compared(live) === compared(fresh(now, options, NODE_IPS));
      const jumpsAreThere = JUMPS.every(({ table, from, rule }) =>
        live.rules(table, from).includes(formatSaved(rule, 'IPv4')),
      );
      const again = buildRestore(allOf(deltaFromDump(parseSave(live.save()), wanted(now, options, NODE_IPS)))).text;
      const isLeftAlone = JSON.stringify(others(live)) === JSON.stringify(theirs);
      return isWanted && jumpsAreThere && again === '' && isLeftAlone && nodePortsComeLast(live);
    },
  );
  t.doesNotThrow(() => fc.assert(property, { numRuns: 100 }));
});

t.test('over a dump of its own there is nothing to do', async (t) => {
  for (const [name, plans, options] of [
    ['six services', SIX_SERVICES, makeOptions()],
    [
      'policies',
      POLICIES,
      makeOptions({ localhostNodePorts: false, localTraffic: { kind: 'prefix', prefix: 'veth' } }),
    ],
    ['IPv6', IPV6_SERVICES, makeOptions({ family: 'IPv6' })],
  ] as const) {
    const all = plansOf(...plans);
    const dump = parseSave(fresh(all, options).save());
    t.equal(buildRestore(allOf(deltaFromDump(dump, wanted(all, options)))).text, '', name);
  }
});

t.test('a change costs what changed', async (t) => {
  const options = makeOptions();
  const port = makeServicePort();
  const at = '-m tcp -p tcp -d 172.30.1.1 --dport 80';
  const N = 'ns1/svc1';
  const hash = 'XXX';
  /** Chain names with hashes are cut to their kind; endpoints get their last number. */
  const cut = (text: string) =>
    text
      .replaceAll(/(KUBE-(?:SVC|SVL|FW|EXT))-[A-Z2-7]{16}/g, `$1-${hash}`)
      .replaceAll(/KUBE-SEP-[A-Z2-7]{16}/g, (name) => {
        const of = [1, 2, 3].find((i) =>
          fresh(plansOf(makePlan(port, [makeEndpoint(`10.0.0.${i}`)])), options).hasChain('nat', name),
        );
        return `KUBE-SEP-${of}`;
      });
  const endpoints = (...hosts: readonly number[]) =>
    makePlan(
      port,
      hosts.map((host) => makeEndpoint(`10.0.0.${host}`)),
    );
  const masquerade = `-A KUBE-SVC-${hash} -m comment --comment "${N} cluster IP" ${at} ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ`;
  const sep = (i: number) => [
    `-A KUBE-SEP-${i} -m comment --comment ${N} -s 10.0.0.${i} -j KUBE-MARK-MASQ`,
    `-A KUBE-SEP-${i} -m comment --comment ${N} -m tcp -p tcp -j DNAT --to-destination 10.0.0.${i}:80`,
  ];
  const to = (i: number, odds = '') =>
    `-A KUBE-SVC-${hash} -m comment --comment "${N} -> 10.0.0.${i}:80"${odds} -j KUBE-SEP-${i}`;
  const half = ' -m statistic --mode random --probability 0.5000000000';
  const clusterIP = `KUBE-SERVICES -m comment --comment "${N} cluster IP" ${at} -j KUBE-SVC-${hash}`;
  const reject = `KUBE-SERVICES -m comment --comment "${N} has no endpoints" ${at} -j REJECT`;
  const declare = (...names: readonly string[]) => names.map((name) => `:KUBE-${name} - [0:0]`);
  const cases: readonly (readonly [string, ServicePlan | undefined, ServicePlan | undefined, readonly string[]])[] = [
    ['nothing', endpoints(1, 2), endpoints(2, 1), []],
    [
      'a service with an endpoint comes',
      undefined,
      endpoints(1),
      ['*nat', ...declare(`SVC-${hash}`, 'SEP-1'), masquerade, to(1), ...sep(1), `-I ${clusterIP}`, 'COMMIT'],
    ],
    [
      'it goes',
      endpoints(1),
      undefined,
      ['*nat', ...declare(`SVC-${hash}`, 'SEP-1'), `-D ${clusterIP}`, `-X KUBE-SVC-${hash}`, '-X KUBE-SEP-1', 'COMMIT'],
    ],
    ['a service without endpoints comes', undefined, endpoints(), ['*filter', `-I ${reject}`, 'COMMIT']],
    [
      'its first endpoint comes',
      endpoints(),
      endpoints(1),
      [
        ...['*filter', `-D ${reject}`, 'COMMIT'],
        ...['*nat', ...declare(`SVC-${hash}`, 'SEP-1'), masquerade, to(1), ...sep(1), `-I ${clusterIP}`, 'COMMIT'],
      ],
    ],
    [
      'a second endpoint comes',
      endpoints(1),
      endpoints(1, 2),
      ['*nat', ...declare(`SVC-${hash}`, 'SEP-2'), masquerade, to(1, half), to(2), ...sep(2), 'COMMIT'],
    ],
    [
      'an endpoint takes the place of another',
      endpoints(1),
      endpoints(3),
      ['*nat', ...declare(`SVC-${hash}`, 'SEP-3', 'SEP-1'), masquerade, to(3), ...sep(3), '-X KUBE-SEP-1', 'COMMIT'],
    ],
  ];
  for (const [name, before, after, lines] of cases) {
    const edits = serviceDelta(render(before, options), render(after, options));
    t.same(
      cut(buildRestore([{ owner: port.service, edits }]).text)
        .split('\n')
        .filter((line) => line !== ''),
      lines,
      name,
    );
  }
});

t.test('a port whose rules change in a shared chain has them all anew, in their order', async (t) => {
  const options = makeOptions();
  const first = makeServicePort({ externalIPs: [ip('1.1.1.1'), ip('2.2.2.2')], portName: 'a' });
  const second = makeServicePort({ externalIPs: [ip('2.2.2.2')], portName: 'b', port: 81 });
  const endpoints = [makeEndpoint('10.0.0.1')];
  const plan = (a: typeof first) => ({
    service: a.service,
    ports: [makePortPlan(a, endpoints), makePortPlan(second, endpoints)],
  });
  const more = makeServicePort({ externalIPs: [ip('3.3.3.3'), ip('1.1.1.1'), ip('2.2.2.2')], portName: 'a' });
  const live = fresh(plansOf(plan(first)), options);
  const text = write(live, [
    { owner: first.service, edits: serviceDelta(render(plan(first), options), render(plan(more), options)) },
  ]);
  t.equal(text.match(/^-D/gm)?.length, 3, 'the old ones go');
  t.equal(text.match(/^-I/gm)?.length, 4, 'the new ones come');
  t.notMatch(text, /ns1\/svc1:b|:KUBE/, 'nothing else does');
  t.equal(normalForm(live.save()), normalForm(fresh(plansOf(plan(more)), options).save()));
});

t.test('the static part', async (t) => {
  const options = makeOptions({ nodePortAddresses: nodePortAddresses(['192.168.0.0/16'], 'IPv4') });
  const plans = plansOf(...SIX_SERVICES);
  const was = makeFacts({ nodeIPs: [ip('192.168.0.2'), ip('192.168.1.2')] });
  const uncounted = { ctStateInvalid: false, localhostNodePorts: true };
  const cases: readonly (readonly [string, DynamicFacts, RegExp, RegExp])[] = [
    [
      'a node IP goes',
      makeFacts({ nodeIPs: [ip('192.168.0.2')] }),
      /-D KUBE-SERVICES .*192\.168\.1\.2/,
      /filter|ns\d\/|^:/m,
    ],
    ['all node IPs go', makeFacts(), /-D KUBE-SERVICES .*192\.168\.0\.2/, /filter|^-[AI]|^:/m],
    ['the counter is lost', { ...was, counters: uncounted }, /^:KUBE-FORWARD - /m, /nat|nfacct/],
  ];
  for (const [name, now, has, not] of cases) {
    const live = fresh(plans, options, was);
    const edits = staticDelta(renderStatic(options, was), renderStatic(options, now));
    const text = write(live, [{ owner: 'static', edits }]);
    t.match(text, has, name);
    t.notMatch(text, not, `${name}: and nothing else`);
    t.equal(
      normalForm(live.save()),
      normalForm(fresh(plans, options, now).save()),
      `${name}: leads where a fresh start leads`,
    );
  }
  t.same(staticDelta(renderStatic(options, was), renderStatic(options, was)), [], 'no change, no edit');
  const ruleset = new FakeRuleset('IPv4');
  write(ruleset, [{ owner: 'static', edits: staticDelta(undefined, renderStatic(options, was)) }]);
  const whole = new FakeRuleset('IPv4');
  whole.restore(renderAll([], options, was, { comments: true, jumps: false }));
  t.equal(normalForm(ruleset.save()), normalForm(whole.save()), 'from nothing');
});

t.test('a shared chain is put in order by the fewest edits', async (t) => {
  const options = makeOptions();
  const port = makeServicePort({ externalIPs: [ip('1.1.1.1'), ip('2.2.2.2')] });
  const all = plansOf(makePlan(port, [makeEndpoint('10.0.0.1')]));
  const want = fresh(all, options);
  const [cluster = '', one = '', two = '', nodePorts = ''] = want.rules('nat', 'KUBE-SERVICES');
  const foreign = '-s 198.51.100.1/32 -j ACCEPT';
  const cases: readonly (readonly [string, readonly string[], number])[] = [
    ['as it is wanted', [cluster, one, two, nodePorts], 0],
    ['empty', [], 4],
    ['the node ports missing', [cluster, one, two], 1],
    ['the node ports first', [nodePorts, cluster, one, two], 2],
    ['the node ports in between', [cluster, nodePorts, one, two], 2],
    ['the node ports twice', [nodePorts, cluster, one, two, nodePorts], 3],
    ['a foreign rule first', [foreign, cluster, one, two, nodePorts], 1],
    ['a foreign rule behind the node ports', [cluster, one, two, nodePorts, foreign, foreign], 2],
    ['one rule of three missing', [cluster, two, nodePorts], 5],
    ['two rules exchanged', [cluster, two, one, nodePorts], 6],
    ['a rule twice', [cluster, one, two, one, nodePorts], 7],
  ];
  for (const [name, rules, edits] of cases) {
    const live = fresh(all, options);
    live.restore(
      ['*nat', ':KUBE-SERVICES - [0:0]', ...rules.map((rule) => `-A KUBE-SERVICES ${rule}`), 'COMMIT', ''].join('\n'),
    );
    const text = write(live, allOf(deltaFromDump(parseSave(live.save()), wanted(all, options))));
    t.same(live.rules('nat', 'KUBE-SERVICES'), want.rules('nat', 'KUBE-SERVICES'), name);
    t.equal(text.match(/^-[ADI]/gm)?.length ?? 0, edits, `${name}: by ${edits} edits`);
    t.notMatch(text, /^:/m, `${name}: never emptied`);
  }
});

t.test('equal rules of two services, one of which is out of order, all come back', async (t) => {
  const options = makeOptions();
  const [x, y] = ['x', 'y'].map((text) => rule([comment(text)], DROP));
  if (x === undefined || y === undefined) throw new RangeError('Cannot make two rules');
  const share = (...rules: readonly Rule[]): ServiceRules => ({
    owned: new Map(),
    shared: [{ table: 'filter', chain: SERVICES, port: 'ns1/svc1/tcp', rules }],
  });
  const services = [
    [objectKey('ns1', 'a'), share(x, y)],
    [objectKey('ns1', 'b'), share(x)],
  ] as const;
  const live = fresh(new Map(), options);
  const [savedX, savedY] = [x, y].map((one) => formatSaved(one, 'IPv4'));
  live.restore(
    ['*filter', ...[savedY, savedX, savedX].map((body) => `-A KUBE-SERVICES ${body}`), 'COMMIT', ''].join('\n'),
  );
  write(live, allOf(deltaFromDump(parseSave(live.save()), { ...wanted(new Map(), options), services })));
  const left = live.rules('filter', 'KUBE-SERVICES');
  t.same(left.toSorted(), [savedX, savedX, savedY]);
  t.ok(left.indexOf(savedX ?? '') < left.indexOf(savedY ?? ''), 'in order');
});

t.test('what others have', async (t) => {
  const options = makeOptions();
  const all = plansOf(...SIX_SERVICES);
  const repair = (ruleset: FakeRuleset, plans: Plans = all, of: IptablesOptions = options) =>
    write(ruleset, allOf(deltaFromDump(parseSave(ruleset.save()), wanted(plans, of))));

  const held = fresh(all, options);
  held.restore('*nat\n:MINE - [0:0]\n-A MINE -p tcp -j KUBE-SVC-XPGD46QRK7WJZT7O\nCOMMIT\n');
  const rest = plansOf(...SIX_SERVICES.slice(1));
  repair(held, rest);
  t.ok(held.hasChain('nat', 'KUBE-SVC-XPGD46QRK7WJZT7O'), 'a gone chain that a foreign rule jumps to stays');
  t.same(held.rules('nat', 'KUBE-SVC-XPGD46QRK7WJZT7O'), [], 'and is empty');
  t.notOk(held.hasChain('nat', 'KUBE-SEP-SXIVWICOYRO3J4NJ'), 'what it led to goes');
  t.equal(repair(held, rest), '', 'and then there is nothing to do');

  const kubelet = fresh(all, options);
  const own = makeOptions({ localhostNodePorts: false });
  kubelet.restore('*filter\n-A KUBE-FIREWALL -s 198.51.100.0/24 -j DROP\nCOMMIT\n');
  repair(kubelet, all, own);
  t.equal(
    kubelet.rules('filter', 'KUBE-FIREWALL').length,
    2,
    'without a rule of ours, KUBE-FIREWALL is left to kubelet',
  );
  repair(kubelet);
  t.equal(kubelet.rules('filter', 'KUBE-FIREWALL').length, 1, 'with one, it is ours');

  const twice = fresh(all, options);
  twice.restore(
    '*nat\n-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n-I PREROUTING -j ACCEPT\nCOMMIT\n',
  );
  const before = twice.rules('nat', 'PREROUTING');
  t.equal(repair(twice), '', 'jumps that are there, even twice or behind others, are left alone');
  t.same(twice.rules('nat', 'PREROUTING'), before);
});

t.test('one health check node port of two ports', async (t) => {
  const options = makeOptions();
  const [tcp, udp] = (['TCP', 'UDP'] as const).map((protocol) =>
    makePortPlan(makeServicePort({ portName: 'dns', protocol, healthCheckNodePort: 30054 }), [
      makeEndpoint('10.0.0.1'),
    ]),
  );
  if (tcp === undefined || udp === undefined) throw new RangeError('Cannot make two ports');
  const service = objectKey('ns1', 'svc1');
  const both = { service, ports: [tcp, udp] };
  const live = fresh(plansOf(both), options);
  t.equal(live.rules('filter', 'KUBE-NODEPORTS').length, 2, 'is two equal rules');
  const one = { service, ports: [tcp] };
  write(live, [{ owner: service, edits: serviceDelta(render(both, options), render(one, options)) }]);
  t.equal(normalForm(live.save()), normalForm(fresh(plansOf(one), options).save()), 'of which one goes with its port');
  write(live, allOf(deltaFromDump(parseSave(live.save()), wanted(plansOf(both), options))));
  t.equal(normalForm(live.save()), normalForm(fresh(plansOf(both), options).save()), 'and both come back');
});

t.test('buildRestore() knows whose a line is', async (t) => {
  const options = makeOptions();
  const [a, b] = [
    makePlan(makeServicePort({ serviceName: 'a' })),
    makePlan(makeServicePort({ serviceName: 'b' }), [makeEndpoint('10.0.0.1')]),
  ];
  const input = buildRestore([
    { owner: 'static', edits: staticDelta(undefined, renderStatic(options, makeFacts())) },
    ...[a, b].map((plan) => ({ owner: plan.service, edits: serviceDelta(undefined, render(plan, options)) })),
  ]);
  t.equal(input.text, `${input.lines.join('\n')}\n`);
  for (const [i, line] of input.lines.entries()) {
    const owner = /^(?:\*|COMMIT)/.test(line)
      ? undefined
      : /ns1\/a/.test(line)
        ? 'ns1/a'
        : /ns1\/b|KUBE-(?:SVC|SEP)-/.test(line)
          ? 'ns1/b'
          : 'static';
    t.equal(input.ownerOf(i + 1), owner, line);
  }
  t.equal(input.ownerOf(0), undefined);
  t.equal(input.ownerOf(input.lines.length + 1), undefined);
  t.equal(buildRestore([{ owner: 'static', edits: [] }]).text, '', 'nothing to do is no input');
  t.notMatch(buildRestore([{ owner: a.service, edits: serviceDelta(undefined, render(a, options)) }]).text, /\*nat/);
});

t.test('the ruleset in memory refuses what the tools refuse', async (t) => {
  const head = '*nat\n:A - [0:0]\n:B - [0:0]\n-A A -j B\nCOMMIT\n';
  const cases: readonly (readonly [string, string, number, RegExp])[] = [
    ['-A NOPE -j ACCEPT', 'a rule of an unknown chain', 1, /line 2 failed: No chain/],
    ['-D A -j ACCEPT', 'the deletion of an absent rule', 1, /line 2 failed: Bad rule/],
    ['-X A', 'the removal of a chain with rules', 4, /line 2: CHAIN_DEL failed \(Device or resource busy\)/],
    ['-X B', 'the removal of a chain that is jumped to', 4, /line 2: CHAIN_DEL failed/],
    ['-X NOPE', 'the removal of an unknown chain', 1, /line 2 failed: No chain/],
    ['-A A -j NOPE', 'a jump to nowhere', 2, /Error occurred at line: 3/],
    ['-A A --foo', 'an unknown option', 2, /Error occurred at line: 2/],
    ['-A A -m nfacct --nfacct-name nope', 'a counter that does not exist', 4, /RULE_APPEND failed/],
    ['-A A ! -s 0.0.0.0/0 -j ACCEPT', 'the opposite of everything', 4, /RULE_APPEND failed/],
  ];
  for (const [line, name, status, says] of cases) {
    const ruleset = new FakeRuleset('IPv4');
    ruleset.restore(head);
    const before = ruleset.save();
    try {
      ruleset.restore(`*nat\n${line}\nCOMMIT\n`);
      t.fail(`refuses ${name}`);
    } catch (error) {
      if (!(error instanceof FakeRestoreError)) throw error;
      t.match({ status: error.status, stderr: error.stderr }, { status, stderr: says }, `refuses ${name}`);
    }
    t.equal(ruleset.save(), before, 'and changes nothing');
    ruleset.restore('*nat\n-D A -j B\n-X B\n-X A\nCOMMIT\n');
  }
});

t.test('every chain of ours is told from those of others', async (t) => {
  const { chains } = {
    chains: parseSave(fresh(plansOf(...SIX_SERVICES), makeOptions()).save()).get('nat') ?? new Map(),
  };
  const statics = new Set(renderStatic(makeOptions(), makeFacts()).map(({ name }) => String(name)));
  for (const name of chains.keys()) {
    if (name.startsWith('KUBE-')) t.equal(isServiceChain(name), !statics.has(name), name);
  }
});
