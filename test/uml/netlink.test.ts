/** Our netlink, the IPVS table and the devices in memory, and the tools of the system: all see the same. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { createDevices, type Devices } from '../../src/netlink/device.ts';
import { FakeDevices } from '../../src/netlink/fake-device.ts';
import { FakeIpvs } from '../../src/netlink/fake-ipvs.ts';
import { createIpvs, type Ipvs, type IpvsChange } from '../../src/netlink/ipvs.ts';
import type { IpvsService, IpvsServiceKey } from '../../src/netlink/ipvs-codec.ts';
import { ipBytes } from '../../src/proxier/addr.ts';
import { ip } from '../lib/make.ts';
import { sh } from '../lib/namespace.ts';
import { isInsideUml, runInUml } from '../lib/uml.ts';

const script = fileURLToPath(new URL('../../scripts/uml.ts', import.meta.url));
const bytes = (text: string) => ipBytes(ip(text));

function service(address: string, overrides: Partial<IpvsService> = {}): IpvsService {
  return {
    address: bytes(address),
    port: 80,
    protocol: 6,
    scheduler: 'rr',
    flags: 0,
    timeoutSeconds: 0,
    ...overrides,
  };
}

const real = (address: string, weight = 1) => ({ address: bytes(address), port: 8080, weight, forwarding: 0 });

/** All of a table in one order, as comparable data. */
function stateOf(ipvs: Ipvs) {
  const key = ({ address, port, protocol }: IpvsServiceKey) =>
    `${Buffer.from(address).toString('hex')}:${port}/${protocol}`;
  const table = new Map(ipvs.readTable().map((entry) => [key(entry.key), entry.destinations]));
  return ipvs
    .listServices()
    .map((s) => {
      const fromTable = (table.get(key(s)) ?? []).map((d) => ({
        ...d,
        address: Buffer.from(d.address).toString('hex'),
      }));
      const fromDump = ipvs.listDestinations(s).map((d) => ({ ...d, address: Buffer.from(d.address).toString('hex') }));
      const order = (all: typeof fromTable) => all.toSorted((a, b) => (a.address < b.address ? -1 : 1));
      return {
        key: key(s),
        ...{ scheduler: s.scheduler, flags: s.flags, timeoutSeconds: s.timeoutSeconds },
        destinations: order(fromDump),
        table: order(fromTable),
      };
    })
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

const A = service('10.43.0.1');
const B = service('fd00:43::a', { port: 53, protocol: 17, flags: 1, timeoutSeconds: 10800 });
const C = service('10.43.0.1', { protocol: 132, scheduler: 'mh', flags: 0x10 });

/** Each row is one batch; errors are compared too. */
const batches: readonly { name: string; changes: readonly IpvsChange[] }[] = [
  {
    name: 'services of every protocol and family',
    changes: [A, B, C].map((s) => ({ kind: 'newService', service: s })),
  },
  {
    name: 'destinations, of both families',
    changes: [
      { kind: 'newDestination', service: A, destination: real('10.42.0.15') },
      { kind: 'newDestination', service: A, destination: real('10.42.0.16') },
      { kind: 'newDestination', service: B, destination: real('fd00:10::7') },
      { kind: 'newDestination', service: C, destination: real('127.0.0.1') },
    ],
  },
  {
    name: 'what exists, and what does not',
    changes: [
      { kind: 'newService', service: A },
      { kind: 'newDestination', service: A, destination: real('10.42.0.15') },
      { kind: 'setDestination', service: A, destination: real('10.42.0.99') },
      { kind: 'deleteDestination', service: A, destination: real('10.42.0.99') },
      { kind: 'newDestination', service: service('10.43.0.9'), destination: real('10.42.0.99') },
      { kind: 'setService', service: service('10.43.0.9') },
      { kind: 'deleteService', service: service('10.43.0.9') },
      { kind: 'newService', service: service('10.43.0.9', { scheduler: 'nosuch' }) },
      { kind: 'setDestination', service: A, destination: real('10.42.0.16', 0) },
    ],
  },
  {
    name: 'addresses the kernel sends nothing to',
    changes: [
      ...['0.0.0.0', '224.0.0.1', '255.255.255.255'].map(
        (a): IpvsChange => ({ kind: 'newDestination', service: A, destination: real(a) }),
      ),
      ...['ff02::1', 'fe80::1', '::'].map(
        (a): IpvsChange => ({ kind: 'newDestination', service: B, destination: real(a) }),
      ),
      { kind: 'newDestination', service: A, destination: real('169.254.1.1') },
      { kind: 'newDestination', service: B, destination: real('::1') },
    ],
  },
  {
    name: 'changes in place',
    changes: [
      { kind: 'setService', service: { ...A, scheduler: 'sh', flags: 1, timeoutSeconds: 60 } },
      { kind: 'setService', service: { ...B, flags: 0, timeoutSeconds: 0 } },
    ],
  },
  {
    name: 'more than a datagram takes, one of them refused',
    changes: Array.from(
      { length: 700 },
      (_, i): IpvsChange => ({
        kind: i === 650 ? 'deleteService' : 'newService',
        service: service(`10.44.${i >> 8}.${i & 255}`),
      }),
    ),
  },
  {
    name: 'removal',
    changes: [
      { kind: 'deleteDestination', service: A, destination: real('10.42.0.15') },
      { kind: 'deleteService', service: C },
      { kind: 'newService', service: C },
    ],
  },
];

async function inside() {
  t.test('IPVS: kernel and table in memory', async (t) => {
    const kernel = createIpvs();
    const fake = new FakeIpvs();
    for (const { name, changes } of batches) {
      const said = ([i, error]: readonly [number, Error]) =>
        `${i} ${JSON.stringify((error as { failure?: unknown }).failure)}`;
      t.same([...kernel.change(changes)].map(said), [...fake.change(changes)].map(said), `${name}: the same refused`);
      t.same(stateOf(kernel), stateOf(fake), `${name}: the same there`);
    }
    t.match(
      sh('ipvsadm', '-Sn'),
      /-A -t 10\.43\.0\.1:80 -s sh -p 60\n(-a .*\n)*-a -t 10\.43\.0\.1:80 -r 10\.42\.0\.16:8080 -m -w 0/,
    );
    sh('ipvsadm', '-A', '-f', '7', '-s', 'rr');
    t.equal(kernel.listServices().length, fake.listServices().length, 'a service of a firewall mark is none of ours');
    t.same(stateOf(kernel), stateOf(fake));
    for (const timeouts of [
      { tcp: 0, tcpFin: 0, udp: 0 },
      { tcp: 1000, tcpFin: 0, udp: 77 },
    ]) {
      kernel.setTimeouts(timeouts);
      fake.setTimeouts(timeouts);
      t.same(kernel.timeouts(), fake.timeouts());
    }
    kernel.flush();
    t.equal(sh('ipvsadm', '-Sn'), '');
  });

  t.test('devices: kernel and memory', async (t) => {
    const kernel = createDevices();
    const fake = new FakeDevices();
    const each = (act: (devices: Devices) => unknown) =>
      [kernel, fake].map((devices) => {
        try {
          return act(devices);
        } catch (error) {
          return (error as { failure?: unknown }).failure;
        }
      });
    const same = (name: string, act: (devices: Devices) => unknown) => {
      const [a, b] = each(act);
      t.same(a, b, name);
    };
    const index = (devices: Devices) => devices.find('kube-ipvs0')?.index ?? 0;
    const held = (devices: Devices) =>
      devices
        .addresses()
        .filter(({ interfaceIndex }) => interfaceIndex === index(devices))
        .map(({ address, prefixLength }) => `${address}/${prefixLength}`)
        .sort();
    same('none of that name', (d) => d.find('kube-ipvs0'));
    same('is made', (d) => d.createDummy('kube-ipvs0'));
    same('once', (d) => d.createDummy('kube-ipvs0'));
    same('a name that is too long', (d) => d.createDummy('kube-ipvs0-kube-ipvs0'));
    same('is of its kind', (d) => d.find('kube-ipvs0')?.kind);
    t.match(sh('ip', '-d', 'link', 'show', 'kube-ipvs0'), /<BROADCAST,NOARP> .* state DOWN(?![\s\S]*qlen)/);
    const texts = [
      '10.43.0.1',
      'fd00:43::a',
      '10.43.0.1',
      'ff02::9',
      ...Array.from({ length: 300 }, (_, i) => `10.9.${i >> 8}.${i & 255}`),
    ];
    const change = (kind: 'add' | 'remove', all: readonly string[]) => (d: Devices) =>
      [
        ...d.changeAddresses(
          index(d),
          all.map((text) => ({ kind, address: bytes(text) })),
        ),
      ].map(([i, e]) => `${i} ${JSON.stringify(e.failure)}`);
    same('addresses are added', change('add', texts));
    same('are there', held);
    t.match(
      sh('ip', '-o', 'addr', 'show', 'kube-ipvs0'),
      /inet 10\.43\.0\.1\/32 scope global kube-ipvs0[\s\S]*inet6 fd00:43::a\/128 scope global/,
    );
    same('are removed', change('remove', ['10.43.0.1', '10.43.0.1', 'fd00:43::b', 'fd00:43::a']));
    same('are gone', held);
    same('no such device', (d) =>
      [...d.changeAddresses(99, [{ kind: 'add', address: bytes('10.0.0.1') }])].map(([, e]) => e.failure),
    );
    same('goes with its addresses', (d) => d.remove(index(d)));
    same('is gone', (d) => d.find('kube-ipvs0'));
    same('goes once', (d) => d.remove(77));
  });
}

if (isInsideUml()) await inside();
else {
  t.test('scripts/uml.ts', async (t) => {
    const run = (args: readonly string[], env: NodeJS.ProcessEnv = process.env) =>
      spawnSync(process.execPath, [script, ...args], { encoding: 'utf8', env, cwd: '/usr' });
    const { status, stdout } = run(['sh', '-c', 'pwd; echo "$0 $GIVEN"; exit 5', 'a  "b"'], {
      ...process.env,
      GIVEN: 'c\nd',
    });
    t.equal(stdout, '/usr\na  "b" c\nd\n', 'directory, arguments and environment are ours');
    t.equal(status, 5, 'the status is its own');
    t.equal(run([]).status, 2);
    const none = run(['true'], { PATH: '/nowhere' });
    t.match(none.stderr, /^Cannot run true inside user-mode-linux: .*ENOENT; install the package user-mode-linux/);
    t.equal(none.status, 3);
  });
  await runInUml(t, import.meta.url);
}
