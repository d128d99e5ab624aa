/** The IPVS dataplane against a kernel in memory: what it writes, what it leaves alone, and what becomes of failures. */
import fc from 'fast-check';
import t from 'tap';
import { FAMILIES, type ObjectKey, type ServicePlan } from '../../src/proxier/types.ts';
import { arbPlansOf } from '../lib/iptables-plans.ts';
import { SIX_SERVICES } from '../lib/iptables-world.ts';
import { makeIpvsNode, wantedState } from '../lib/ipvs-world.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';

const key = (name: string) => `ns1/${name}` as ObjectKey;

function plan(
  name: string,
  number: number,
  hosts: readonly (number | string)[],
  overrides: Parameters<typeof makeServicePort>[0] = {},
): ServicePlan {
  const port = makeServicePort({ serviceName: name, clusterIP: ip(`172.30.9.${number}`), ...overrides });
  return makePlan(
    port,
    hosts.map((host) => makeEndpoint(typeof host === 'string' ? host : `10.180.9.${host}`)),
  );
}

const SERVER = { address: Buffer.from([172, 30, 9, 1]), port: 80, protocol: 6 };
const real = (host: number) => ({ address: Buffer.from([10, 180, 9, host]), port: 80, weight: 1, forwarding: 0 });

t.test('any sequence of states, partial and full, comes to what the last state wants', async (t) => {
  for (const family of FAMILIES) {
    await t.resolves(
      fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(arbPlansOf(family), fc.constantFrom('partial', 'full', 'restart')), {
            minLength: 2,
            maxLength: 6,
          }),
          async (states) => {
            const node = makeIpvsNode({ family });
            for (const [plans, how] of states) {
              const now = new Set(plans.map(({ service }) => service));
              if (how === 'restart') node.restart();
              await node.sync([...plans, ...[...node.held.keys()].filter((held) => !now.has(held))], how === 'full');
              const wanted = wantedState(node.held.values(), node.options);
              const got = node.state();
              if (JSON.stringify(got) !== JSON.stringify(wanted)) {
                throw new Error(`${how}: ${JSON.stringify({ wanted, got }, undefined, 1)}`);
              }
            }
            const written = () =>
              node.ipvs.changes.length +
              node.ruleset.inputs.length +
              node.ipsets.commands.filter((command) => !command.startsWith('create ')).length;
            const before = written();
            await node.sync([], true);
            node.restart();
            await node.sync([]);
            if (written() !== before) throw new Error('a full sync and a restart change something');
          },
        ),
        { numRuns: 30 },
      ),
      family,
    );
  }
});

t.test('whatever has connections meanwhile: when they end, what is wanted is there and nothing else', async (t) => {
  const arbState = fc.tuple(
    arbPlansOf('IPv4'),
    fc.constantFrom('partial', 'full', 'restart'),
    fc.array(fc.constantFrom(0, 1), { minLength: 7, maxLength: 7 }),
  );
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.array(arbState, { minLength: 2, maxLength: 6 }), async (states) => {
        const node = makeIpvsNode();
        let stop = new AbortController();
        const lost: string[] = [];
        const watch = () => void node.dataplane.monitor((reason) => lost.push(reason), stop.signal);
        watch();
        const connect = (counts: readonly number[]) => {
          let i = 0;
          for (const { key: of, destinations } of node.ipvs.readTable()) {
            for (const one of destinations) node.ipvs.setConnections(of, one, counts[i++ % counts.length] ?? 0);
          }
        };
        for (const [plans, how, counts] of states) {
          const now = new Set(plans.map(({ service }) => service));
          if (how === 'restart') {
            stop.abort();
            stop = new AbortController();
            node.restart();
            watch();
          }
          await node.sync([...plans, ...[...node.held.keys()].filter((held) => !now.has(held))], how === 'full');
          await node.clock.advance(30_000);
          connect(counts);
        }
        connect([0]);
        await node.clock.advance(30_000);
        stop.abort();
        if (lost.length > 0) throw new Error(`taken for the work of others: ${lost[0]}`);
        const { servers } = wantedState(node.held.values(), node.options);
        if (node.state().servers !== servers) throw new Error(`wanted\n${servers}got\n${node.state().servers}`);
      }),
      { numRuns: 30 },
    ),
  );
});

t.test('a partial sync', async (t) => {
  const node = makeIpvsNode();
  await node.sync(SIX_SERVICES);
  const listings = node.ipvs.listings + node.ipsets.listings;
  const commands = node.ipsets.commands.length;
  node.ipvs.changes.length = 0;
  const report = await node.sync([plan('a', 1, [1, 2])]);
  t.equal(report.full, false);
  t.same(
    node.ipvs.changes.map(({ kind }) => kind),
    ['newService', 'newDestination', 'newDestination'],
    'writes what the service is',
  );
  t.same(node.ipsets.commands.slice(commands), [
    'add KUBE-CLUSTER-IP 172.30.9.1,tcp:80',
    'add KUBE-IPVS-IPS 172.30.9.1',
  ]);
  node.ipvs.changes.length = 0;
  const given = node.ipsets.commands.length;
  const restores = node.ruleset.inputs.length;
  await node.sync([plan('a', 1, [2, 3])]);
  t.same(
    node.ipvs.changes.map(({ kind }) => kind),
    ['newDestination', 'setDestination', 'deleteDestination'],
    'and of a changed endpoint the two, the old one without new connections first',
  );
  t.same([node.ipsets.commands.length, node.ruleset.inputs.length], [given, restores], 'without a program');
  t.equal(node.ipvs.listings + node.ipsets.listings, listings, 'nothing is listed');
  t.same(node.state(), wantedState(node.held.values(), node.options));

  await node.sync([plan('a', 1, [2, 3], { affinitySeconds: 60 })]);
  t.match(node.state().servers, /-A -t 172\.30\.9\.1:80 -s rr -p 60\n-a .*\n-a /, 'affinity is changed in place');
  t.equal(node.ipvs.changes.at(-1)?.kind, 'setService');
});

t.test('what is referred to comes first and goes last', async (t) => {
  const node = makeIpvsNode();
  await node.sync([]);
  const touched: string[] = [];
  const { ipvs, devices, ipsets, tools } = node;
  const change = ipvs.change.bind(ipvs);
  ipvs.change = (changes) => {
    touched.push(...new Set(changes.map(({ kind }) => kind)));
    return change(changes);
  };
  const changeAddresses = devices.changeAddresses.bind(devices);
  devices.changeAddresses = (index, changes) => {
    touched.push(...new Set(changes.map(({ kind }) => `${kind} address`)));
    return changeAddresses(index, changes);
  };
  const run = ipsets.run.bind(ipsets);
  ipsets.run = async (commands) => {
    touched.push(...new Set(commands.map((command) => `${command.split(' ')[0]} element`)));
    await run(commands);
  };
  const { restore } = tools;
  tools.restore = async (input) => {
    touched.push('rules');
    await restore(input);
  };
  await node.sync([plan('a', 1, [1])]);
  t.same(touched.splice(0), ['newService', 'newDestination', 'add element', 'add address', 'rules']);
  await node.sync([key('a')]);
  t.same(touched, ['rules', 'remove address', 'deleteService', 'del element']);
});

t.test('a real server with connections', async (t) => {
  const node = makeIpvsNode();
  const stop = new AbortController();
  const lost: string[] = [];
  const watching = node.dataplane.monitor((reason) => lost.push(reason), stop.signal);
  await node.sync([plan('a', 1, [1, 2]), plan('udp', 2, [1], { protocol: 'UDP' })]);
  node.ipvs.setConnections(SERVER, real(1), 1);
  node.ipvs.setConnections({ ...SERVER, address: Buffer.from([172, 30, 9, 2]), protocol: 17 }, real(1), 0, 5);

  await node.sync([plan('a', 1, [2]), plan('udp', 2, [], { protocol: 'UDP' })]);
  t.match(node.state().servers, /10\.180\.9\.1:80 -m -w 0\n.*10\.180\.9\.2:80 -m -w 1/, 'stays, without new ones');
  t.notMatch(node.state().servers, /-a -u/, 'that of UDP is gone at once');
  await node.clock.advance(30_000);
  await node.sync([], true);
  t.match(node.state().servers, /10\.180\.9\.1:80 -m -w 0/, 'while they live');
  t.same(lost, [], 'it is not taken for the work of somebody else');

  await node.sync([plan('a', 1, [1, 2])]);
  t.match(node.state().servers, /10\.180\.9\.1:80 -m -w 1/, 'wanted again, it serves again');
  t.equal(node.ipvs.changes.at(-1)?.kind, 'setDestination', 'and keeps its connections');

  await node.sync([plan('a', 1, [2])]);
  node.ipvs.setConnections(SERVER, real(1), 0, 0);
  await node.clock.advance(30_000);
  t.notMatch(node.state().servers, /10\.180\.9\.1:80/, 'goes with the last of them');

  await node.sync([plan('a', 1, [1, 2])]);
  node.ipvs.setConnections(SERVER, real(1), 1);
  await node.sync([plan('a', 1, [2])]);
  await node.sync([plan('a', 1, [1, 2])], true);
  node.ipvs.setConnections(SERVER, real(1), 0);
  await node.clock.advance(60_000);
  t.match(node.state().servers, /10\.180\.9\.1:80 -m -w 1/, 'one that a full sync found wanted again stays for good');
  node.ipvs.setConnections(SERVER, real(1), 0, 1);
  await node.sync([plan('a', 1, [2])]);
  node.restart();
  await node.sync([]);
  t.match(node.state().servers, /10\.180\.9\.1:80 -m -w 0/, 'a fresh process keeps it');
  await node.sync([key('a')]);
  t.notMatch(node.state().servers, /172\.30\.9\.1/, 'with the virtual server it goes, whatever it has');
  await node.sync([plan('a', 1, [1])]);
  t.match(node.state().servers, /10\.180\.9\.1:80 -m -w 1/, 'and comes anew');
  stop.abort();
  await watching;
});

t.test('what others left and did', async (t) => {
  const node = makeIpvsNode({ excludeCIDRs: [cidr('172.31.0.0/16')] });
  const foreign = (address: readonly number[]) => ({
    ...{ address: Buffer.from(address), port: 80, protocol: 6 },
    ...{ scheduler: 'wrr', flags: 0, timeoutSeconds: 0 },
  });
  const v6 = foreign([0xfd, ...Array.from({ length: 15 }, () => 1)]);
  node.ipvs.change([
    { kind: 'newService', service: foreign([172, 30, 9, 1]) },
    { kind: 'newDestination', service: SERVER, destination: { ...real(1), weight: 5, forwarding: 3 } },
    { kind: 'newService', service: foreign([172, 31, 0, 1]) },
    { kind: 'newService', service: foreign([9, 9, 9, 9]) },
    { kind: 'newService', service: v6 },
  ]);
  node.devices.createDummy('kube-ipvs0');
  const index = node.devices.find('kube-ipvs0')?.index ?? 0;
  node.devices.changeAddresses(index, [{ kind: 'add', address: Buffer.from([1, 2, 3, 4]) }]);
  await node.ipsets.run([
    'create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536',
    'add KUBE-CLUSTER-IP 1.2.3.4,tcp:1',
    'create THEIRS hash:ip family inet',
    'add THEIRS 1.2.3.4',
  ]);
  await node.sync([plan('a', 1, [1])]);
  const { servers, sets, addresses } = node.state();
  t.equal(
    servers,
    '-A -t 172.30.9.1:80 -s rr\n-a -t 172.30.9.1:80 -r 10.180.9.1:80 -m -w 1\n-A -t 172.31.0.1:80 -s wrr\n',
    'ours become as ours are, an excluded one stays, others go',
  );
  t.equal(node.ipvs.listServices().length, 3, 'also that of the other family');
  t.match(sets, /add THEIRS 1\.2\.3\.4\n/);
  t.notMatch(sets, /add KUBE-CLUSTER-IP 1\.2\.3\.4/);
  t.equal(addresses, '172.30.9.1\n');

  const stop = new AbortController();
  const lost: string[] = [];
  const watching = node.dataplane.monitor((reason) => lost.push(reason), stop.signal);
  const damages: readonly { name: string; act: () => unknown; said: RegExp }[] = [
    { name: 'a flushed table', act: () => node.ipvs.flush(), said: /virtual servers differ.* -A -t 172\.30\.9\.1:80/ },
    {
      name: 'a changed weight',
      act: () =>
        node.ipvs.change([{ kind: 'setDestination', service: SERVER, destination: { ...real(1), weight: 9 } }]),
      said: /virtual servers differ/,
    },
    { name: 'an element', act: () => node.ipsets.run(['del KUBE-IPVS-IPS 172.30.9.1']), said: /KUBE-IPVS-IPS/ },
    {
      name: 'an element too many',
      act: () => node.ipsets.run(['add KUBE-LOOP-BACK 1.1.1.1,tcp:1,1.1.1.1']),
      said: /KUBE-LOOP-BACK/,
    },
    {
      name: 'the device',
      act: () => node.devices.remove(node.devices.find('kube-ipvs0')?.index ?? 0),
      said: /addresses on kube-ipvs0 differ, for example 172\.30\.9\.1/,
    },
    {
      name: 'rules',
      act: () => {
        node.ruleset.restore('*nat\n:KUBE-POSTROUTING - [0:0]\nCOMMIT\n');
      },
      said: /rules differ/,
    },
    {
      name: 'another address of the node',
      act: () => node.setNodeAddresses('192.168.0.3'),
      said: /addresses of this node/,
    },
  ];
  for (const { name, act, said } of damages) {
    act();
    await node.clock.advance(30_000);
    t.equal(lost.length, 1, `${name}: is noticed once`);
    t.match(lost.shift(), said);
    await node.sync([], true);
    await node.clock.advance(30_000);
    t.equal(lost.length, 0, `${name}: and repaired`);
  }
  stop.abort();
  await watching;

  node.ipvs.flush();
  const report = await node.sync([plan('a', 1, [1, 2])]);
  t.equal(report.full, true, 'a partial sync that meets a flushed table becomes a full one');
  t.equal(node.state().servers, wantedState(node.held.values(), node.options).servers);
});

t.test('addresses of the node', async (t) => {
  const vips = {
    loadBalancerVIPs: ['192.168.0.2', '1.2.3.4'].map(ip),
    externalIPs: [ip('192.168.0.2')],
    nodePort: 30001,
  };
  const node = makeIpvsNode();
  await node.sync([plan('lb', 1, [1], vips), plan('a', 2, [])]);
  t.equal(node.state().addresses, '1.2.3.4\n172.30.9.1\n172.30.9.2\n', 'are served and not bound');
  for (const port of [80, 30001]) t.match(node.state().servers, `-A -t 192.168.0.2:${port} `);
  node.setNodeAddresses('192.168.0.9');
  t.equal(
    (await node.sync([plan('a', 2, [1])])).full,
    false,
    'a service that does not ask for them does not look at them',
  );
  t.equal((await node.sync([plan('lb', 1, [2], vips)])).full, true, 'one that does sees that they are others');
  t.equal(node.state().addresses, '1.2.3.4\n172.30.9.1\n172.30.9.2\n192.168.0.2\n');
  t.same(
    node.state(),
    wantedState(node.held.values(), node.options, {
      nodeAddresses: [ip('192.168.0.9')],
      nodePortIPs: [ip('192.168.0.9')],
    }),
  );
});

t.test('addresses of other nodes', async (t) => {
  const node = makeIpvsNode({ bindsExternalIPs: false });
  const others = { loadBalancerVIPs: ['192.168.0.2', '192.168.0.3'].map(ip), externalIPs: [ip('192.168.0.4')] };
  await node.sync([plan('lb', 1, [1], others)]);
  const { servers, sets, addresses } = node.state();
  t.equal(addresses, '172.30.9.1\n', 'are never bound when we are told so');
  t.match(servers, '-A -t 192.168.0.2:80 ', 'our own are served');
  t.match(sets, /add KUBE-IPVS-IPS 172\.30\.9\.1\n(?!add KUBE-IPVS-IPS)/);
});

t.test('refusals', async (t) => {
  t.test('an endpoint the kernel sends nothing to is left out, the service goes on', async (t) => {
    const node = makeIpvsNode();
    const first = await node.sync([plan('a', 1, ['224.0.0.1', 2]), plan('b', 2, [1])]);
    t.match(first.refused, [
      { service: 'ns1/a', rule: 'ipvsadm -a -t 172.30.9.1:80 -r 224.0.0.1:80 -m -w 1', reason: /EINVAL/ },
    ]);
    t.same([...first.refusedServices], ['ns1/a']);
    t.match(node.state().servers, /10\.180\.9\.2:80/);
    const again = await node.sync([], true);
    t.same([again.refused.length, again.refusedServices.size], [0, 1], 'told once');
    const other = await node.sync([plan('a', 1, ['224.0.0.1', 3])]);
    t.same([other.refused.length, other.refusedServices.size], [1, 1], 'and again when the service changes');
    const good = await node.sync([plan('a', 1, [3])]);
    t.same([good.full, good.refused.length, good.refusedServices.size], [false, 0, 0], 'until it is gone');
    t.same(node.state(), wantedState(node.held.values(), node.options));
  });

  t.test('an element', async (t) => {
    const node = makeIpvsNode();
    node.ipsets.capacity = 1;
    const { refused } = await node.sync([plan('a', 1, [1]), plan('b', 2, [1])]);
    t.match(refused, [{ service: 'ns1/b', rule: /^ipset add KUBE-CLUSTER-IP 172\.30\.9\.2/, reason: /full/ }]);
    t.match(
      node.state().sets,
      /add KUBE-CLUSTER-IP 172\.30\.9\.1,tcp:80\n[\s\S]*add KUBE-IPVS-IPS 172\.30\.9\.1\n/,
      'the others are there',
    );
    node.ipsets.capacity = 9;
    t.equal((await node.sync([plan('b', 2, [2])])).refusedServices.size, 0, 'is tried again when the service changes');
    t.same(node.state(), wantedState(node.held.values(), node.options));
  });

  t.test('an address', async (t) => {
    const node = makeIpvsNode({ family: 'IPv6' });
    const of = (vip: string) => plan('a', 1, [], { clusterIP: ip('fd00:43::1'), loadBalancerVIPs: [ip(vip)] });
    const { refused } = await node.sync([of('ff02::1')]);
    t.match(refused, [{ service: 'ns1/a', rule: 'ip addr add ff02::1 dev kube-ipvs0', reason: /EADDRNOTAVAIL/ }]);
    t.equal((await node.sync([of('fd00::1')])).refusedServices.size, 0);
    t.same(node.state(), wantedState(node.held.values(), node.options));
  });
});

t.test('a failure is an error, and the next sync reads the kernel', async (t) => {
  const node = makeIpvsNode();
  await node.sync([plan('a', 1, [1])]);
  node.ipsets.failures = 1;
  await t.rejects(node.sync([plan('b', 2, [1])]), { message: /not permitted/ });
  t.equal((await node.sync([])).full, true);
  t.same(node.state(), wantedState(node.held.values(), node.options));
  node.ruleset.refuses = () => true;
  await t.rejects(node.sync([key('a'), plan('np', 3, [1], { nodePort: 30001 })]), { message: /Cannot restore/ });
  t.equal(node.restores.failed, 1);
  for (const address of ['172.30.9.1:80', '192.168.0.2:30001']) t.match(node.state().servers, address);
  t.match(node.state().sets, /add KUBE-NODE-PORT-TCP 30001/, 'what rules may refer to is there, old and new');
  node.ruleset.refuses = () => false;
  t.equal((await node.sync([])).full, true);
  t.same(node.state(), wantedState(node.held.values(), node.options));
  const unknown = makeIpvsNode({ scheduler: 'nosuch' });
  await t.rejects(unknown.sync([plan('a', 1, [1])]), {
    message: 'Cannot add a virtual server: the kernel answers ENOENT',
  });
});

t.test('inspect()', async (t) => {
  const node = makeIpvsNode();
  const a = plan('a', 1, [1]);
  t.same(node.dataplane.inspect(key('a'), undefined), { rules: [], applied: 'nothing' });
  await node.sync([a]);
  t.same(node.dataplane.inspect(key('a'), a), {
    rules: [
      'ipvsadm -A -t 172.30.9.1:80 -s rr',
      'ipvsadm -a -t 172.30.9.1:80 -r 10.180.9.1:80 -m -w 1',
      'ipset add KUBE-CLUSTER-IP 172.30.9.1,tcp:80',
    ],
    applied: 'this plan',
  });
  t.equal(node.dataplane.inspect(key('a'), plan('a', 1, [2])).applied, 'an earlier plan');
});
