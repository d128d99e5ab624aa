/**
 * Flows without a kernel: bytes recorded on Linux 6.18 (x86-64) in a network namespace of their own, played back. The
 * flows were made by `conntrack -I`; the IPv6 one lies in zone 5.
 */
import t from 'tap';
import {
  type Conntrack,
  createConntrack,
  type FlowQuestion,
  LIST_TRIES,
  type UdpFlow,
} from '../../src/netlink/conntrack.ts';
import { type Exchange, replay } from '../lib/netlink-replay.ts';

const TUPLES = {
  IPv4:
    '3400018014000180080001000a000009080002000a60000a1c000280050001001100000006000200115c00000600030000350000' +
    '3400028014000180080001000af40002080002000a0000091c00028005000100110000000600020014e9000006000300115c0000',
  IPv6:
    '4c0001802c00018014000300fd00000000000000000000000000000914000400fd000096000000000000000000000010' +
    '1c000280050001001100000006000200115c00000600030000350000' +
    '4c0002802c00018014000300fd00024400000000000000000000000214000400fd000000000000000000000000000009' +
    '1c00028005000100110000000600020014e9000006000300115c0000',
};
const ZONE = '0600120000050000';
const ID = { IPv4: '08000c008a988e24', IPv6: '08000c0061aa6aa6' };
/** Status, use, time-out, CTA_SYNPROXY. */
const STATUS = '08000300' + '00000008' + '0800080000000000';
const REST = '08000b000000000108000700000000631c001880080001000000000008000200000000000800030000000000';

const FAMILY_BYTES = { IPv4: '02000000', IPv6: '0a000000' };
/** A message: length, type, flags, seq, port id, body. */
const message = (type: string, flags: string, seq: number, pid: string, body: string) => {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(16 + body.length / 2, 0);
  header.write(type + flags, 4, 'hex');
  header.writeUInt32LE(seq, 8);
  return header.toString('hex') + pid + body;
};
const FROM_KERNEL = '4f110000';
const TO_KERNEL = '00000000';
const list = (family: FlowQuestion['family'], seq = 1) =>
  message(
    '0101',
    '0103',
    seq,
    TO_KERNEL,
    `${FAMILY_BYTES[family]}100001800c00028005000100110000001400198008000100080000000800020000000000`,
  );
/** NLM_F_MULTI with NLM_F_DUMP_FILTERED, and NLM_F_DUMP_INTR where it was interrupted. */
const flow = (family: FlowQuestion['family'], { seq = 1, flags = '2200', tuples = TUPLES[family] } = {}) =>
  message(
    '0001',
    flags,
    seq,
    FROM_KERNEL,
    `${FAMILY_BYTES[family]}${tuples}${family === 'IPv6' ? ZONE : ''}${STATUS}${ID[family]}${REST}`,
  );
const done = (seq = 1) => message('0300', '0200', seq, FROM_KERNEL, '00000000');
const answer = (errno: number) => {
  const code = Buffer.alloc(4);
  code.writeInt32LE(-errno);
  return message('0200', '0001', 1, FROM_KERNEL, `${code.toString('hex')}84000000010105000100000000000000`);
};
const identity = (family: FlowQuestion['family']) =>
  `${FAMILY_BYTES[family]}${TUPLES[family]}${family === 'IPv6' ? ZONE : ''}${ID[family]}`;
const get = (family: FlowQuestion['family']) => message('0101', '0500', 1, TO_KERNEL, identity(family));
const remove = (family: FlowQuestion['family']) => message('0201', '0500', 1, TO_KERNEL, identity(family));

const ENDS = {
  IPv4: { toAddress: '10.96.0.10', toPort: 53, fromAddress: '10.244.0.2', fromPort: 5353 },
  IPv6: { toAddress: 'fd00:96:0:0:0:0:0:10', toPort: 53, fromAddress: 'fd00:244:0:0:0:0:0:2', fromPort: 5353 },
};
const wanted = (family: FlowQuestion['family']): UdpFlow => ({
  ...ENDS[family],
  identity: Buffer.from(identity(family), 'hex'),
});
const all = (family: FlowQuestion['family']): FlowQuestion => ({
  family,
  toPorts: new Set([53]),
  isWanted: () => true,
});

/** The tuples of a TCP flow, which kernels before 5.8 tell, too. */
const TCP = TUPLES.IPv4.replaceAll('0500010011', '0500010006');
/** The same flow, answered by 10.244.0.3: made anew since it was listed. */
const ANEW = TUPLES.IPv4.replace('0af40002', '0af40003');

const rows: readonly {
  name: string;
  exchanges: readonly Exchange[];
  act: (c: Conntrack) => Promise<unknown>;
  want?: unknown;
  throws?: object;
}[] = [
  ...(['IPv4', 'IPv6'] as const).map((family) => ({
    name: `list ${family}`,
    exchanges: [[list(family), flow(family), done()] as const],
    act: (c: Conntrack) => c.listUdp(all(family)),
    want: { flows: [wanted(family)], complete: true },
  })),
  {
    name: 'list several datagrams, and what is not UDP from a kernel without the filter',
    exchanges: [
      [
        list('IPv4'),
        flow('IPv4') + flow('IPv4', { tuples: TCP }),
        flow('IPv6'),
        flow('IPv4', { tuples: ANEW }),
        done(),
      ],
    ],
    act: async (c) => (await c.listUdp(all('IPv4'))).flows.map((f) => f.fromAddress),
    want: ['10.244.0.2', '10.244.0.3'],
  },
  {
    name: 'list of other ports',
    exchanges: [[list('IPv4'), flow('IPv4'), done()]],
    act: (c) => c.listUdp({ ...all('IPv4'), toPorts: new Set([5353, 4444]) }),
    want: { flows: [], complete: true },
  },
  {
    name: 'list of what is wanted',
    exchanges: [[list('IPv4'), flow('IPv4') + flow('IPv4', { tuples: ANEW }), done()]],
    act: async (c) =>
      (await c.listUdp({ ...all('IPv4'), isWanted: (f) => f.fromAddress === '10.244.0.3' })).flows.length,
    want: 1,
  },
  {
    name: 'list again after the table changed meanwhile, by flag and by errno',
    exchanges: [
      [list('IPv4', 1), flow('IPv4', { flags: '3200' }), done()],
      [list('IPv4', 2), message('0200', '0001', 2, FROM_KERNEL, 'fcffffff')],
      [list('IPv4', 3), flow('IPv4', { seq: 3, tuples: ANEW }), done(3)],
    ],
    act: async (c) => (await c.listUdp(all('IPv4'))).flows.map((f) => f.fromAddress),
    want: ['10.244.0.3'],
  },
  {
    name: 'list that is never whole is taken as it is',
    exchanges: Array.from(
      { length: LIST_TRIES },
      (_, i): Exchange => [list('IPv4', i + 1), flow('IPv4', { seq: i + 1, flags: '3200' }), done(i + 1)],
    ),
    act: (c) => c.listUdp(all('IPv4')),
    want: { flows: [wanted('IPv4')], complete: false },
  },
  {
    name: 'list without connection tracking',
    exchanges: [[list('IPv4'), answer(22)]],
    act: (c) => c.listUdp(all('IPv4')),
    throws: { failure: { code: 'KERNEL', name: 'EINVAL' } },
  },
  {
    name: 'list cut short',
    exchanges: [[list('IPv4'), flow('IPv4')]],
    act: (c) => c.listUdp(all('IPv4')),
    throws: { failure: { code: 'NO_ANSWER' } },
  },
  {
    name: 'list with a flow without answers',
    exchanges: [[list('IPv4'), flow('IPv4', { tuples: TUPLES.IPv4.slice(0, 104) }), done()]],
    act: (c) => c.listUdp(all('IPv4')),
    throws: { failure: { code: 'MALFORMED' } },
  },
  ...(['IPv4', 'IPv6'] as const).map((family) => ({
    name: `delete ${family}`,
    exchanges: [
      [get(family), flow(family, { flags: '0000' }), answer(0)],
      [remove(family), answer(0)],
    ] satisfies Exchange[],
    act: (c: Conntrack) => c.delete([wanted(family)]),
    want: { deleted: 1, errors: [] },
  })),
  {
    name: 'delete one that is gone',
    exchanges: [[get('IPv4'), answer(2)]],
    act: (c) => c.delete([wanted('IPv4')]),
    want: { deleted: 0, errors: [] },
  },
  {
    name: 'delete one that goes in between',
    exchanges: [
      [get('IPv4'), flow('IPv4', { flags: '0000' }), answer(0)],
      [remove('IPv4'), answer(2)],
    ],
    act: (c) => c.delete([wanted('IPv4')]),
    want: { deleted: 0, errors: [] },
  },
  {
    name: 'delete one whose place another has taken',
    exchanges: [[get('IPv4'), flow('IPv4', { flags: '0000', tuples: ANEW }), answer(0)]],
    act: (c) => c.delete([wanted('IPv4')]),
    want: { deleted: 0, errors: [] },
  },
  {
    name: 'delete one that the kernel refuses, and the next',
    exchanges: [
      [get('IPv4'), flow('IPv4', { flags: '0000' }), answer(0)],
      [remove('IPv4'), answer(16)],
      [get('IPv4'), flow('IPv4', { flags: '0000' }), answer(0)],
      [remove('IPv4'), answer(0)],
    ],
    act: async (c) => {
      const { deleted, errors } = await c.delete([wanted('IPv4'), wanted('IPv4')]);
      return [deleted, errors.map((e) => e.message)];
    },
    want: [1, ['Cannot delete a UDP flow: the kernel answers EBUSY']],
  },
  { name: 'delete nothing', exchanges: [], act: (c) => c.delete([]), want: { deleted: 0, errors: [] } },
];

t.test('flows over recorded bytes', async (t) => {
  for (const row of rows) {
    t.test(row.name, async (t) => {
      const { open, state } = replay(...row.exchanges);
      const act = row.act(createConntrack(open));
      if (row.throws !== undefined) await t.rejects(act, { name: 'NetlinkError', ...row.throws });
      else t.strictSame(await act, row.want);
      t.same([state.open, state.unused()], [0, 0], 'every socket is closed, every request was made');
    });
  }
});

t.test('a long list stops when it is told to', async (t) => {
  const datagram = flow('IPv4').repeat(150);
  const { open, state } = replay([list('IPv4'), ...Array.from({ length: 100 }, () => datagram), done()]);
  const stop = new AbortController();
  const listing = createConntrack(open).listUdp(all('IPv4'), stop.signal);
  stop.abort(new Error('enough'));
  await t.rejects(listing, { message: 'enough' });
  t.equal(state.open, 0);
});
