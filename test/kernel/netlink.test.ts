/** Our netlink and the tools of the system see the same kernel. */
import { createSocket } from 'node:dgram';
import t from 'tap';
import { readNodeAddresses } from '../../src/modes/node-addresses.ts';
import { createNfacct } from '../../src/netlink/nfacct.ts';
import { listAddresses } from '../../src/netlink/rtnetlink.ts';
import { openNetlink } from '../../src/netlink/socket.ts';
import { ensureSysctl, realSysctl } from '../../src/sys/proc.ts';
import { caseInside, feed, runInside, sh } from '../lib/namespace.ts';

interface IpAddr {
  readonly ifindex: number;
  readonly addr_info: readonly { readonly family: string; readonly local: string; readonly prefixlen: number }[];
}

async function inside() {
  t.test('addresses of interfaces, up or down', async (t) => {
    t.same(listAddresses(), [], 'none in a fresh namespace');
    sh('ip', 'link', 'set', 'lo', 'up');
    sh('ip', 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1');
    sh('ip', 'addr', 'add', '10.9.8.7/24', 'dev', 'v0');
    sh('ip', 'addr', 'add', '10.5.5.1', 'peer', '10.5.5.2/32', 'dev', 'v1');
    sh('ip', 'addr', 'add', '2001:db8::5/64', 'dev', 'v0');
    // More than one datagram holds.
    const hosts = Array.from({ length: 750 }, (_, i) => `10.77.${Math.floor(i / 250)}.${(i % 250) + 1}/16`);
    feed(
      hosts
        .map(
          (host) => `addr add ${host} dev v1
`,
        )
        .join(''),
      'ip',
      '-batch',
      '-',
    );
    const wanted = (JSON.parse(sh('ip', '-j', 'addr')) as readonly IpAddr[])
      .flatMap(({ ifindex, addr_info }) => addr_info.map(({ local, prefixlen }) => `${ifindex} ${local}/${prefixlen}`))
      .sort();
    const canonical = await readNodeAddresses();
    const got = listAddresses().map(
      ({ interfaceIndex, prefixLength }, i) => `${interfaceIndex} ${canonical[i]}/${prefixLength}`,
    );
    t.equal(got.length, 755);
    t.same(got.sort(), wanted);
  });

  t.test('packet counters', async (t) => {
    const nfacct = createNfacct();
    t.equal(nfacct.available(), true);
    t.equal(nfacct.get('ours'), undefined);
    nfacct.ensure('ours');
    nfacct.ensure('ours');
    t.same(nfacct.get('ours'), { name: 'ours', packets: 0n });
    t.match(sh('nfacct', 'list'), /= ours;/, 'the tool sees ours');
    sh('nfacct', 'add', 'theirs');
    t.same(nfacct.get('theirs'), { name: 'theirs', packets: 0n }, 'and we see the tool’s');
    sh('iptables-nft', '-A', 'OUTPUT', '-m', 'nfacct', '--nfacct-name', 'ours');
    const socket = createSocket('udp4');
    for (let i = 0; i < 3; i++) await new Promise((sent) => socket.send('x', 9, '127.0.0.1', sent));
    socket.close();
    const packets = nfacct.get('ours')?.packets ?? 0n;
    t.ok(packets >= 3n, `counted ${packets} packets`);
    t.throws(() => sh('nfacct', 'get', 'none'));
    t.throws(() => openNetlink(99), { name: 'NetlinkError', failure: { code: 'SOCKET', name: 'EPROTONOSUPPORT' } });
  });

  t.test('kernel settings', async (t) => {
    const name = 'net/ipv4/conf/all/route_localnet';
    t.equal(realSysctl.get(name), 0);
    t.equal(ensureSysctl(realSysctl, name, 1), true);
    t.equal(ensureSysctl(realSysctl, name, 1), false);
    t.equal(sh('cat', `/proc/sys/${name}`), '1\n');
    t.equal(realSysctl.get('net/no/such'), undefined);
    t.throws(() => realSysctl.set('net/no/such', 1), { message: /ENOENT/ });
    t.throws(() => realSysctl.set('../../etc/x', 1), { name: 'RangeError' });
    t.throws(() => realSysctl.get('a/../b'), { name: 'RangeError' });
    t.throws(() => realSysctl.set(name, 1.5), { name: 'RangeError' });
  });
}

if (caseInside() === undefined) await runInside(t, import.meta.url, 'netlink');
else await inside();
