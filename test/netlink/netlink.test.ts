/**
 * Netlink without a kernel: bytes recorded on Linux 6.18 (x86-64) in a network namespace of their own, played back.
 */
import t from 'tap';
import { decodeAck } from '../../src/netlink/ack.ts';
import { askAll } from '../../src/netlink/batch.ts';
import { decodeAttributes, decodeMessages, encodeAttribute, encodeMessage } from '../../src/netlink/codec.ts';
import { errnoName, NetlinkError } from '../../src/netlink/error.ts';
import { FakeNfacct } from '../../src/netlink/fake-nfacct.ts';
import { createNfacct, type Nfacct } from '../../src/netlink/nfacct.ts';
import { ask } from '../../src/netlink/request.ts';
import { listAddresses } from '../../src/netlink/rtnetlink.ts';
import { type Exchange, replay } from '../lib/netlink-replay.ts';

const REQUEST = {
  get: '3400000001070500010000000000000000000000200001006c6f63616c686f73745f6e70735f61636365707465645f706b747300',
  create: '3400000000070504010000000000000000000000200001006c6f63616c686f73745f6e70735f61636365707465645f706b747300',
  probe: '2400000001070500010000000000000000000000' + '0e000100494d61794578697374000000',
  addresses: '180000001600010301000000000000000000000000000000',
};
const error = (errno: number) => {
  const code = Buffer.alloc(4);
  code.writeInt32LE(-errno);
  return `240000000200000101000000ed2e0000${code.toString('hex')}34000000010705000100000000000000`;
};
const ACK = error(0);
const COUNTER =
  '540000000007020001000000ed2e000000000000200001006c6f63616c686f73745f6e70735f61636365707465645f706b7473000c000200' +
  '00000000000000070c00030000000000000000000800040000000001';
const ADDRESSES = [
  '4c0000001400020001000000ed2e0000020880fe01000000080001007f000001080002007f000001070003006c6f00000800080080000000' +
    '14000600ffffffffffffffff3bd40b003bd40b00',
  // A point-to-point link: IFA_ADDRESS is the other end, 10.5.5.2.
  '4c0000001400020001000000ed2e00000220800002000000080001000a050502080002000a05050107000300763100000800080080000000' +
    '14000600ffffffffffffffff3cd40b003cd40b00',
  '500000001400020001000000ed2e00000a8080fe01000000140001000000000000000000000000000000000114000600ffffffffffffffff' +
    '3bd40b003bd40b00080008008000000005000b0001000000',
];
const DONE = '140000000300020001000000ed2e000000000000';

t.test('codec', async (t) => {
  const message = { type: 0x701, flags: 5, seq: 1, body: Buffer.from('abcde') };
  t.same(decodeMessages(encodeMessage(message)), [message], 'a message survives, its padding does not');
  t.equal(encodeMessage(message).length % 4, 0, 'padded to 4');
  t.same(
    [
      ...decodeAttributes(
        Buffer.concat([encodeAttribute(1, Buffer.from('a')), encodeAttribute(0x8002, Buffer.of(1, 2))]),
      ),
    ],
    [
      [1, Buffer.from('a')],
      [2, Buffer.of(1, 2)],
    ],
  );
  const malformed: readonly { name: string; bytes: string; decode: (b: Buffer) => unknown }[] = [
    { name: 'a message longer than its datagram', bytes: '20000000010705000100000000000000', decode: decodeMessages },
    { name: 'a message shorter than its header', bytes: '0f000000010705000100000000000000', decode: decodeMessages },
    { name: 'half a header', bytes: '1000000001070500', decode: decodeMessages },
    { name: 'an attribute longer than its message', bytes: '0900010001020304', decode: decodeAttributes },
    { name: 'an attribute shorter than its header', bytes: '0300010001020304', decode: decodeAttributes },
  ];
  for (const { name, bytes, decode } of malformed) {
    t.throws(() => decode(Buffer.from(bytes, 'hex')), { name: 'NetlinkError', failure: { code: 'MALFORMED' } }, name);
  }
});

t.test('packet counters over recorded bytes', async (t) => {
  const name = 'localhost_nps_accepted_pkts';
  const rows: readonly {
    name: string;
    exchanges: readonly Exchange[];
    act: (n: Nfacct) => unknown;
    want?: unknown;
    throws?: string;
  }[] = [
    { name: 'read', exchanges: [[REQUEST.get, COUNTER, ACK]], act: (n) => n.get(name), want: { name, packets: 7n } },
    {
      name: 'read one that is not there',
      exchanges: [[REQUEST.get, error(2)]],
      act: (n) => n.get(name),
      want: undefined,
    },
    { name: 'not allowed', exchanges: [[REQUEST.get, error(1)]], act: (n) => n.get(name), throws: 'EPERM' },
    {
      name: 'made when missing',
      exchanges: [
        [REQUEST.get, error(2)],
        [REQUEST.create, ACK],
      ],
      act: (n) => n.ensure(name),
    },
    { name: 'left when there', exchanges: [[REQUEST.get, COUNTER, ACK]], act: (n) => n.ensure(name) },
    {
      name: 'made by someone else in between',
      exchanges: [
        [REQUEST.get, error(2)],
        [REQUEST.create, error(16)],
      ],
      act: (n) => n.ensure(name),
    },
    {
      name: 'not to be made',
      exchanges: [
        [REQUEST.get, error(2)],
        [REQUEST.create, error(12)],
      ],
      act: (n) => n.ensure(name),
      throws: 'ENOMEM',
    },
    { name: 'known to the kernel', exchanges: [[REQUEST.probe, error(2)]], act: (n) => n.available(), want: true },
    { name: 'unknown to the kernel', exchanges: [[REQUEST.probe, error(22)]], act: (n) => n.available(), want: false },
  ];
  for (const row of rows) {
    t.test(row.name, async (t) => {
      const { open, state } = replay(...row.exchanges);
      const act = () => row.act(createNfacct(open));
      if (row.throws !== undefined)
        t.throws(act, { name: 'NetlinkError', failure: { code: 'KERNEL', name: row.throws } });
      else t.same(act(), row.want);
      t.same([state.open, state.unused()], [0, 0], 'every socket is closed, every request was made');
    });
  }
  for (const bad of ['', 'x'.repeat(32), 'a b', 'a\0b']) {
    t.throws(
      () => createNfacct(replay().open).get(bad),
      { name: 'RangeError' },
      `refuses the name ${JSON.stringify(bad)}`,
    );
  }
});

t.test('addresses over recorded bytes', async (t) => {
  const whole = replay([REQUEST.addresses, ADDRESSES.join(''), DONE]);
  t.same(listAddresses(whole.open), [
    { address: '127.0.0.1', family: 'IPv4', prefixLength: 8, interfaceIndex: 1 },
    { address: '10.5.5.1', family: 'IPv4', prefixLength: 32, interfaceIndex: 2 },
    { address: '0:0:0:0:0:0:0:1', family: 'IPv6', prefixLength: 128, interfaceIndex: 1 },
  ]);
  t.equal(whole.state.open, 0);
  // NLM_F_DUMP_INTR (0x10) beside NLM_F_MULTI (0x02): the list changed while it was dumped. seq 2 is the second try.
  const interrupted = (ADDRESSES[0] ?? '').replace('14000200', '14001200');
  const second = (hex: string) => `${hex.slice(0, 16)}02${hex.slice(18)}`;
  const retried = replay(
    [REQUEST.addresses, interrupted, DONE],
    [second(REQUEST.addresses), second(ADDRESSES[1] ?? ''), second(DONE)],
  );
  t.same(
    listAddresses(retried.open).map((a) => a.address),
    ['10.5.5.1'],
    'a dump that was interrupted is read again, and what it said is forgotten',
  );
  t.equal(retried.state.unused(), 0);
  t.throws(() => listAddresses(replay([REQUEST.addresses, ADDRESSES.join('')]).open), {
    name: 'NetlinkError',
    failure: { code: 'NO_ANSWER' },
  });
});

t.test('an answer to an older request is not taken for this one', async (t) => {
  const old = `${ACK.slice(0, 16)}09${ACK.slice(18)}`;
  const { open } = replay([REQUEST.get, old, COUNTER, ACK]);
  const body = Buffer.from(REQUEST.get.slice(32), 'hex');
  t.equal(ask(open(), { doing: 'read', type: 0x701, flags: 0, body }).length, 1);
});

t.test('many requests in few datagrams', async (t) => {
  const requests = Array.from({ length: 251 }, (_, i) => {
    return { doing: `make ${i}`, type: 0x700, flags: 0, body: Buffer.from('abcd') };
  });
  const sent = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => {
      const seq = from + i + 1;
      return encodeMessage({ type: 0x700, flags: seq === to ? 5 : 1, seq, body: Buffer.from('abcd') }).toString('hex');
    }).join('');
  const answer = (seq: number, errno = 0) => {
    const body = Buffer.alloc(20);
    body.writeInt32LE(-errno);
    return encodeMessage({ type: 2, flags: 0x100, seq, body }).toString('hex');
  };
  // In one datagram or several, with answers to others between.
  const { open, state } = replay(
    [sent(0, 250), answer(2, 17) + answer(999, 1), answer(250)],
    [sent(250, 251), answer(251, 2)],
  );
  const refused = askAll(open(), requests);
  t.same(
    [...refused].map(([i, error]) => [i, error.message]),
    [
      [1, 'Cannot make 1: the kernel answers EEXIST'],
      [250, 'Cannot make 250: the kernel answers ENOENT'],
    ],
  );
  t.equal(state.unused(), 0);
  const lost = replay([sent(0, 2), answer(1, 2)]);
  t.throws(() => askAll(lost.open(), requests.slice(0, 2)), { name: 'NetlinkError', failure: { code: 'NO_ANSWER' } });
  t.equal(askAll(replay().open(), []).size, 0, 'nothing is sent for nothing');
});

t.test('acknowledgements', async (t) => {
  // nft's request for a rule in a chain that is not there, answered with NETLINK_EXT_ACK, with and without NETLINK_CAP_ACK.
  const attributes = `08000200${'18000000'}0d000100${Buffer.from('not here\0').toString('hex')}000000`;
  const request = '18000000060a010c0d00000000000000' + '0200000001020304';
  const rows: readonly { name: string; flags: number; body: string; want: object }[] = [
    {
      name: 'done',
      flags: 0,
      body: `00000000${request.slice(0, 32)}`,
      want: { errno: 0, text: undefined, offset: undefined },
    },
    {
      name: 'an error alone',
      flags: 0,
      body: `feffffff${request}`,
      want: { errno: 2, text: undefined, offset: undefined },
    },
    {
      name: 'with what is at fault, behind the header',
      flags: 0x300,
      body: `feffffff${request.slice(0, 32)}${attributes}`,
      want: { errno: 2, text: 'not here', offset: 24 },
    },
    {
      name: 'with what is at fault, behind the whole request',
      flags: 0x200,
      body: `feffffff${request}${attributes}`,
      want: { errno: 2, text: 'not here', offset: 24 },
    },
    { name: 'the end of an empty dump', flags: 2, body: '', want: { errno: 0, text: undefined, offset: undefined } },
  ];
  for (const { name, flags, body, want } of rows) {
    t.strictSame(decodeAck({ type: 2, flags, seq: 1, body: Buffer.from(body, 'hex') }), want, name);
  }
});

t.test('errors have names', async (t) => {
  t.same([2, 11, 16, 95, 9999].map(errnoName), ['ENOENT', 'EAGAIN', 'EBUSY', 'EOPNOTSUPP', 'E9999']);
  t.equal(
    new NetlinkError('x', { code: 'KERNEL', errno: 1, name: 'EPERM' }).message,
    'Cannot x: the kernel answers EPERM',
  );
  t.equal(
    new NetlinkError('x', { code: 'KERNEL', errno: 1, name: 'EPERM', text: 'no way' }).message,
    'Cannot x: the kernel answers EPERM (no way)',
  );
  t.match(new NetlinkError('x', { code: 'TOO_LARGE', bytes: 9 }).message, /9 bytes are more than/);
});

t.test('the fake keeps counters, and can be without them', async (t) => {
  const fake = new FakeNfacct();
  t.equal(fake.get('a'), undefined);
  fake.ensure('a');
  fake.counters.set('a', 3n);
  fake.ensure('a');
  t.same(fake.get('a'), { name: 'a', packets: 3n });
  fake.present = false;
  t.equal(fake.available(), false);
  t.throws(() => fake.get('a'), { name: 'NetlinkError' });
});
