/** IPVS and devices on recorded bytes: requests as the kernel took them, answers as it gave them. */
import t from 'tap';
import { createDevices } from '../../src/netlink/device.ts';
import { createIpvs, type IpvsChange } from '../../src/netlink/ipvs.ts';
import type { IpvsService } from '../../src/netlink/ipvs-codec.ts';
import { parseIpvsTable } from '../../src/netlink/ipvs-table.ts';
import { ipBytes } from '../../src/proxier/addr.ts';
import { ip } from '../lib/make.ts';
import { type Exchange, replay } from '../lib/netlink-replay.ts';

const hex = (text: string) => text.replaceAll(/\s/g, '');
const bytes = (text: string) => ipBytes(ip(text));

/** Number 28, with the acknowledgement behind it. */
const FAMILY: Exchange = [
  hex('20000000 10000500 01000000 00000000 03010000 09000200 49505653 00000000'),
  hex('28000000 10000000 01000000 99000000 01020000 09000200 49505653 00000000 06000100 1c000000'),
  hex('24000000 02000001 01000000 99000000 00000000 20000000 10000500 01000000 00000000'),
];
const ack = (seq: string) => hex(`24000000 02000001 ${seq} 99000000 00000000 68000000 1c000500 ${seq} 00000000`);
const SEQ_1 = '01000000';

const HTTPS: IpvsService = {
  address: bytes('10.43.0.1'),
  port: 443,
  protocol: 6,
  scheduler: 'rr',
  flags: 0,
  timeoutSeconds: 0,
};
const DNS: IpvsService = {
  address: bytes('fd00:43::a'),
  port: 53,
  protocol: 17,
  scheduler: 'rr',
  flags: 1,
  timeoutSeconds: 10800,
};
const SERVER = { address: bytes('10.42.0.15'), port: 6443, weight: 1, forwarding: 0 };

const KEY =
  '30000180 06000100 02000000 06000200 06000000 14000300 0a2b0001 00000000 00000000 00000000 06000400 01bb0000';
const HTTPS_FULL = `54000180 ${KEY.slice(9)} 07000600 72720000 0c000700 00000000 ffffffff 08000800 00000000 08000900 ffffffff`;
const DNS_FULL =
  '54000180 06000100 0a000000 06000200 11000000 14000300 fd000043 00000000 00000000 0000000a 06000400 00350000 07000600 72720000 0c000700 01000000 ffffffff 08000800 302a0000 08000900 80000000';
const DEST =
  '40000280 14000100 0a2a000f 00000000 00000000 00000000 06000200 192b0000 08000300 00000000 08000400 01000000 08000500 00000000 08000600 00000000';
const DEST_KEY = '20000280 14000100 0a2a000f 00000000 00000000 00000000 06000200 192b0000';

/** Each change as it is sent, without the header of the message. */
const changes: readonly { change: IpvsChange; body: string }[] = [
  { change: { kind: 'newService', service: HTTPS }, body: `01010000 ${HTTPS_FULL}` },
  { change: { kind: 'newService', service: DNS }, body: `01010000 ${DNS_FULL}` },
  { change: { kind: 'setService', service: HTTPS }, body: `02010000 ${HTTPS_FULL}` },
  { change: { kind: 'deleteService', service: HTTPS }, body: `03010000 ${KEY}` },
  { change: { kind: 'newDestination', service: HTTPS, destination: SERVER }, body: `05010000 ${KEY} ${DEST}` },
  {
    change: { kind: 'setDestination', service: HTTPS, destination: { ...SERVER, weight: 0 } },
    body: `06010000 ${KEY} ${DEST.replace('08000400 01', '08000400 00')}`,
  },
  { change: { kind: 'deleteDestination', service: HTTPS, destination: SERVER }, body: `07010000 ${KEY} ${DEST_KEY}` },
];

function message(flags: string, seq: number, body: string): string {
  const payload = hex(body);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + payload.length / 2, 0);
  header.writeUInt16LE(28, 4);
  header.set(Buffer.from(flags, 'hex'), 6);
  header.writeUInt32LE(seq, 8);
  return header.toString('hex') + payload;
}

t.test('change()', async (t) => {
  for (const { change, body } of changes) {
    t.test(`${change.kind} of ${change.service.address.length === 4 ? 'IPv4' : 'IPv6'}`, async (t) => {
      const { open, state } = replay(FAMILY, [message('0500', 1, body), ack(SEQ_1)]);
      t.equal(createIpvs(open).change([change]).size, 0);
      t.same([state.open, state.unused()], [0, 0], 'closed, and all was said');
    });
  }

  t.test('a batch asks for one acknowledgement and finds what was refused', async (t) => {
    const sent = changes
      .map(({ body }, i) => message(i === changes.length - 1 ? '0500' : '0100', i + 1, body))
      .join('');
    const refusal = (seq: number, errno: number) => {
      const answer = Buffer.alloc(36);
      answer.writeUInt32LE(36, 0);
      answer.writeUInt16LE(2, 4);
      answer.writeUInt32LE(seq, 8);
      answer.writeInt32LE(-errno, 16);
      return answer.toString('hex');
    };
    const { open } = replay(FAMILY, [sent, refusal(2, 17), refusal(7, 2)]);
    const refused = createIpvs(open).change(changes.map(({ change }) => change));
    t.same(
      [...refused].map(([i, { message, failure }]) => [i, message, failure.code === 'KERNEL' && failure.name]),
      [
        [1, 'Cannot add a virtual server: the kernel answers EEXIST', 'EEXIST'],
        [6, 'Cannot delete a real server: the kernel answers ENOENT', 'ENOENT'],
      ],
      'also if it is the last',
    );
  });

  t.test('nothing is sent for nothing', async (t) => {
    t.equal(createIpvs(replay().open).change([]).size, 0);
  });

  t.test('a kernel that falls silent is not taken for one that agrees', async (t) => {
    const { open, state } = replay(FAMILY, [message('0500', 1, changes[0]?.body ?? '')]);
    t.throws(() => createIpvs(open).change([{ kind: 'newService', service: HTTPS }]), {
      name: 'NetlinkError',
      message: /does not answer/,
    });
    t.equal(state.open, 0);
  });

  t.throws(
    () =>
      createIpvs(replay(FAMILY).open).change([
        { kind: 'deleteService', service: { ...HTTPS, address: bytes('::1').subarray(1) } },
      ]),
    { name: 'RangeError', message: /15 bytes: must be 4 or 16/ },
  );
});

const DONE = hex('14000000 03000200 01000000 99000000 00000000');

t.test('dumps', async (t) => {
  const answer = (body: string) => message('0200', 1, body);
  const live = DNS_FULL.replace('0c000700 01', '0c000700 03');
  const byMark = '01010000 14000100 06000100 02000000 08000500 07000000';
  const { open } = replay(FAMILY, [
    message('0103', 1, '04010000'),
    answer(`01010000 ${HTTPS_FULL.replace('0180', '0100')}`) + answer(`01010000 ${live}`) + answer(byMark),
    DONE,
  ]);
  t.same(createIpvs(open).listServices(), [HTTPS, DNS], 'services, without the flag of the kernel and firewall marks');

  const counted = DEST.replace('40000280', '50000280').replace('08000400 01', '08000400 00');
  const { open: openDestinations } = replay(FAMILY, [
    message('0103', 1, `08010000 ${KEY}`),
    answer(`05010000 ${counted} 08000700 02000000 08000800 03000000`),
    DONE,
  ]);
  t.same(createIpvs(openDestinations).listDestinations(HTTPS), [
    { ...SERVER, weight: 0, activeConnections: 2, inactiveConnections: 3 },
  ]);
  const { open: openShort } = replay(FAMILY, [message('0103', 1, `08010000 ${KEY}`), answer(`05010000 ${DEST}`), DONE]);
  t.throws(
    () => createIpvs(openShort).listDestinations(HTTPS),
    { name: 'NetlinkError', message: /attribute 7 is missing/ },
    'no counts',
  );
});

t.test('parseIpvsTable()', async (t) => {
  const text = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A2B0001:01BB rr  
  -> 0A2A000F:192B      Masq    1      2          1         
  -> 0A2A0010:192B      Route   0      0          0         
FWM  00000007 rr
  -> 0A2A0011:0050      Masq    1      0          0         
UDP  [fd00:0043:0000:0000:0000:0000:0000:000a]:0035 rr persistent 1080000 80000000
  -> [fd00:0010:0042:0000:0000:0000:0000:0007]:14E9      Masq    1      0          0         
SCTP 0A2B0001:0009 mh
`;
  const none = { activeConnections: 0, inactiveConnections: 0 };
  t.same(parseIpvsTable(text), [
    {
      key: { address: bytes('10.43.0.1'), port: 443, protocol: 6 },
      destinations: [
        { ...SERVER, activeConnections: 2, inactiveConnections: 1 },
        { ...SERVER, ...none, address: bytes('10.42.0.16'), weight: 0, forwarding: 3 },
      ],
    },
    {
      key: { address: bytes('fd00:43::a'), port: 53, protocol: 17 },
      destinations: [{ ...SERVER, ...none, address: bytes('fd00:10:42::7'), port: 5353 }],
    },
    { key: { address: bytes('10.43.0.1'), port: 9, protocol: 132 }, destinations: [] },
  ]);
});

t.test('devices', async (t) => {
  const ok = (seq: string) => hex(`24000000 02000001 ${seq} 99000000 00000000 48000000 10000506 ${seq} 00000000`);
  const { open, state } = replay(
    [
      hex(
        '48000000 10000506 01000000 00000000 00000000 00000000 00000000 00000000 0f000300 6b756265 2d697076 73300000 08000d00 00000000 10001280 09000100 64756d6d 79000000',
      ),
      ok(SEQ_1),
    ],
    [
      hex(
        '28000000 14000106 01000000 00000000 02200000 02000000 08000200 0a2b0001 08000100 0a2b0001' +
          '40000000 14000106 02000000 00000000 0a800000 02000000 14000200 fd000043 00000000 00000000 0000000a 14000100 fd000043 00000000 00000000 0000000a' +
          '28000000 15000500 03000000 00000000 02200000 02000000 08000200 0a2b0001 08000100 0a2b0001',
      ),
      hex('24000000 02000000 02000000 99000000 9dffffff 28000000 15000500 02000000 00000000'),
      ok('03000000'),
    ],
  );
  const devices = createDevices(open);
  devices.createDummy('kube-ipvs0');
  const refused = devices.changeAddresses(2, [
    { kind: 'add', address: bytes('10.43.0.1') },
    { kind: 'add', address: bytes('fd00:43::a') },
    { kind: 'remove', address: bytes('10.43.0.1') },
  ]);
  t.same(
    [...refused].map(([i, { message }]) => [i, message]),
    [[1, 'Cannot add an address: the kernel answers EADDRNOTAVAIL']],
  );
  t.same([state.open, state.unused()], [0, 0]);
});
