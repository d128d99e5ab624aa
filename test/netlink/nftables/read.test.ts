/**
 * What the kernel tells: bytes of dumps recorded on Linux 6.18 (x86-64), and conversations played back.
 */
import t from 'tap';
import { encodeAttribute, encodeMessage, encodeTextAttribute } from '../../../src/netlink/codec.ts';
import { errnoName, NetlinkError } from '../../../src/netlink/error.ts';
import { decodeChain, decodeRule, decodeSet } from '../../../src/netlink/nftables/decode.ts';
import { encodeBatch } from '../../../src/netlink/nftables/encode.ts';
import { FakeNftables } from '../../../src/netlink/nftables/fake-nftables.ts';
import { createNftables } from '../../../src/netlink/nftables/kernel-nftables.ts';
import type { CommitResult } from '../../../src/netlink/nftables/nftables.ts';
import { ruleKey } from '../../../src/netlink/nftables/rule-key.ts';
import { sameSet, sameSetKind } from '../../../src/netlink/nftables/same-set.ts';
import type {
  Command,
  NftFamily,
  RuleObject,
  SetObject,
  Transaction,
} from '../../../src/netlink/nftables/transaction.ts';
import type { NetlinkSocket } from '../../../src/netlink/socket.ts';

const recordedRules: readonly { family: NftFamily; rule: RuleObject; told: string }[] = [
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [{ kind: 'ctStateNew' }, { kind: 'verdict', verdict: { kind: 'jump', chain: 'b' } }],
    },
    told: '02000002060001007400000006000200610000000c0003000000000000000006d400040020000100070001006374000014000200080001000000000108000200000000004c0001000c00010062697477697365003c00020008000100000000010800020000000001080003000000000408000600000000000c00040008000100080000000c00050008000100000000002c00010008000100636d700020000200080001000000000108000200000000010c0003000800010000000000380001000e000100696d6d656469617465000000240002000800010000000000180002001400020008000100fffffffd0600020062000000',
  },
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [{ kind: 'setMark', op: 'xor', mask: 16384 }, { kind: 'masquerade' }],
      comment: 'c1',
    },
    told: '02000002060001007400000006000200610000000c00030000000000000000070c0006000000000000000006b400040024000100090001006d6574610000000014000200080002000000000308000100000000014c0001000c00010062697477697365003c00020008000100000000010800020000000001080003000000000408000600000000000c00040008000100ffffffff0c000500080001000040000024000100090001006d6574610000000014000200080002000000000308000300000000011c000100090001006d617371000000000c0002000800010000000010090007000003633100000000',
  },
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'address', side: 'saddr', negated: true, cidrs: ['10.0.0.0/8', '192.168.1.0/24'], name: 'list' },
        { kind: 'reject' },
      ],
    },
    told: '02000002060001007400000006000200610000000c00030000000000000000090c00060000000000000000078c000400340001000c0001007061796c6f6164002400020008000100000000010800020000000001080003000000000c0800040000000004300001000b0001006c6f6f6b7570000020000200090001006c6973740000000008000200000000010800050000000001240001000b00010072656a65637400001400020008000100000000000500020003000000',
  },
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'l4proto', protocol: 'tcp' },
        {
          kind: 'dnatMap',
          fields: [{ random: 1 }],
          map: { kind: 'anonymous', name: 'm1', elements: [{ key: [0], data: ['1.2.3.4', 80] }] },
        },
      ],
      comment: 'c3',
    },
    told: '02000002060001007400000006000200610000000c000300000000000000000b0c00060000000000000000090401040024000100090001006d6574610000000014000200080002000000001008000100000000012c00010008000100636d700020000200080001000000000108000200000000000c0003000500010006000000340001000b0001006e756d67656e0000240002000800010000000001080002000000000108000300000000010800040000000000340001000b0001006c6f6f6b7570000024000200070001006d31000008000200000000010800030000000001080005000000000048000100080001006e6174003c0002000800010000000001080002000000000208000300000000010800040000000001080005000000000908000600000000090800070000000003090007000003633300000000',
  },
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'l4proto', protocol: 'tcp' },
        { kind: 'dnat', address: '10.42.0.1', port: 80 },
      ],
    },
    told: '02000002060001007400000006000200610000000c000300000000000000000c0c000600000000000000000bf400040024000100090001006d6574610000000014000200080002000000001008000100000000012c00010008000100636d700020000200080001000000000108000200000000000c00030005000100060000002c0001000e000100696d6d6564696174650000001800020008000100000000010c000200080001000a2a00012c0001000e000100696d6d6564696174650000001800020008000100000000020c000200060001000050000048000100080001006e6174003c0002000800010000000001080002000000000208000300000000010800040000000001080005000000000208000600000000020800070000000003',
  },
  {
    family: 'ip',
    rule: { chain: 'a', statements: [{ kind: 'dynamic', op: 'update', set: 'aff', fields: ['saddr'] }], comment: 'c5' },
    told: '02000002060001007400000006000200610000000c000300000000000000000d0c000600000000000000000c78000400340001000c0001007061796c6f6164002400020008000100000000010800020000000001080003000000000c0800040000000004400001000b00010064796e7365740000300002000800040000000001080003000000000108000100616666000c00060000000000000000000800090000000000090007000003633500000000',
  },
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [
        {
          kind: 'dynamic',
          op: 'update',
          set: 'cl',
          fields: ['saddr', 'dport'],
          data: ['originalDaddr', 'originalDport'],
          timeoutSeconds: 30,
        },
      ],
    },
    told: '02000002060001007400000006000200610000000c000300000000000000000e0c000600000000000000000d04010400340001000c0001007061796c6f6164002400020008000100000000010800020000000001080003000000000c0800040000000004340001000c0001007061796c6f6164002400020008000100000000090800020000000002080003000000000208000400000000022800010007000100637400001c000200080001000000000a080002000000001405000300000000002800010007000100637400001c000200080001000000000b080002000000000c0500030000000000480001000b00010064796e7365740000380002000800040000000001080005000000000a080003000000000107000100636c00000c00060000000000000075300800090000000000',
  },
  {
    family: 'ip',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'fibLocal', side: 'saddr' },
        { kind: 'iifname', name: 'veth', wildcard: true, negated: true },
        { kind: 'vmap', fields: ['daddr', 'l4proto', 'dport'], map: { kind: 'named', map: 'svc' } },
      ],
      comment: 'c7',
    },
    told: '02000002060001007400000006000200610000000c000300000000000000000f0c000600000000000000000e680104002800010008000100666962001c0002000800010000000001080002000000000308000300000000012c00010008000100636d700020000200080001000000000108000200000000000c000300080001000200000024000100090001006d6574610000000014000200080002000000000608000100000000012c00010008000100636d700020000200080001000000000108000200000000010c0003000800010076657468340001000c0001007061796c6f61640024000200080001000000000108000200000000010800030000000010080004000000000424000100090001006d657461000000001400020008000200000000100800010000000009340001000c0001007061796c6f61640024000200080001000000000a080002000000000208000300000000020800040000000002340001000b0001006c6f6f6b75700000240002000800010073766300080002000000000108000300000000000800050000000000090007000003633700000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [{ kind: 'ctStateNew' }, { kind: 'verdict', verdict: { kind: 'jump', chain: 'b' } }],
    },
    told: '0a000003060001007400000006000200610000000c0003000000000000000006d400040020000100070001006374000014000200080001000000000108000200000000004c0001000c00010062697477697365003c00020008000100000000010800020000000001080003000000000408000600000000000c00040008000100080000000c00050008000100000000002c00010008000100636d700020000200080001000000000108000200000000010c0003000800010000000000380001000e000100696d6d656469617465000000240002000800010000000000180002001400020008000100fffffffd0600020062000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [{ kind: 'setMark', op: 'xor', mask: 16384 }, { kind: 'masquerade' }],
      comment: 'c1',
    },
    told: '0a000003060001007400000006000200610000000c00030000000000000000070c0006000000000000000006b400040024000100090001006d6574610000000014000200080002000000000308000100000000014c0001000c00010062697477697365003c00020008000100000000010800020000000001080003000000000408000600000000000c00040008000100ffffffff0c000500080001000040000024000100090001006d6574610000000014000200080002000000000308000300000000011c000100090001006d617371000000000c0002000800010000000010090007000003633100000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'address', side: 'saddr', negated: true, cidrs: ['fd00::/8', '2001:db8::/33'], name: 'list' },
        { kind: 'reject' },
      ],
    },
    told: '0a000003060001007400000006000200610000000c00030000000000000000090c00060000000000000000078c000400340001000c0001007061796c6f616400240002000800010000000001080002000000000108000300000000080800040000000010300001000b0001006c6f6f6b7570000020000200090001006c6973740000000008000200000000010800050000000001240001000b00010072656a65637400001400020008000100000000000500020004000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'l4proto', protocol: 'tcp' },
        {
          kind: 'dnatMap',
          fields: [{ random: 1 }],
          map: { kind: 'anonymous', name: 'm1', elements: [{ key: [0], data: ['fd00::1', 80] }] },
        },
      ],
      comment: 'c3',
    },
    told: '0a000003060001007400000006000200610000000c000300000000000000000b0c00060000000000000000090401040024000100090001006d6574610000000014000200080002000000001008000100000000012c00010008000100636d700020000200080001000000000108000200000000000c0003000500010006000000340001000b0001006e756d67656e0000240002000800010000000001080002000000000108000300000000010800040000000000340001000b0001006c6f6f6b7570000024000200070001006d31000008000200000000010800030000000001080005000000000048000100080001006e6174003c0002000800010000000001080002000000000a08000300000000010800040000000001080005000000000208000600000000020800070000000003090007000003633300000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'l4proto', protocol: 'tcp' },
        { kind: 'dnat', address: 'fd00::1', port: 80 },
      ],
    },
    told: '0a000003060001007400000006000200610000000c000300000000000000000c0c000600000000000000000b0001040024000100090001006d6574610000000014000200080002000000001008000100000000012c00010008000100636d700020000200080001000000000108000200000000000c0003000500010006000000380001000e000100696d6d6564696174650000002400020008000100000000011800020014000100fd0000000000000000000000000000012c0001000e000100696d6d6564696174650000001800020008000100000000020c000200060001000050000048000100080001006e6174003c0002000800010000000001080002000000000a08000300000000010800040000000001080005000000000208000600000000020800070000000003',
  },
  {
    family: 'ip6',
    rule: { chain: 'a', statements: [{ kind: 'dynamic', op: 'update', set: 'aff', fields: ['saddr'] }], comment: 'c5' },
    told: '0a000003060001007400000006000200610000000c000300000000000000000d0c000600000000000000000c78000400340001000c0001007061796c6f616400240002000800010000000001080002000000000108000300000000080800040000000010400001000b00010064796e7365740000300002000800040000000001080003000000000108000100616666000c00060000000000000000000800090000000000090007000003633500000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [
        {
          kind: 'dynamic',
          op: 'update',
          set: 'cl',
          fields: ['saddr', 'dport'],
          data: ['originalDaddr', 'originalDport'],
          timeoutSeconds: 30,
        },
      ],
    },
    told: '0a000003060001007400000006000200610000000c000300000000000000000e0c000600000000000000000d04010400340001000c0001007061796c6f616400240002000800010000000001080002000000000108000300000000080800040000000010340001000c0001007061796c6f6164002400020008000100000000020800020000000002080003000000000208000400000000022800010007000100637400001c000200080001000000000d080002000000001605000300000000002800010007000100637400001c0002000800010000000011080002000000000c0500030000000000480001000b00010064796e7365740000380002000800040000000001080005000000000d080003000000000107000100636c00000c00060000000000000075300800090000000000',
  },
  {
    family: 'ip6',
    rule: {
      chain: 'a',
      statements: [
        { kind: 'fibLocal', side: 'saddr' },
        { kind: 'iifname', name: 'veth', wildcard: true, negated: true },
        { kind: 'vmap', fields: ['daddr', 'l4proto', 'dport'], map: { kind: 'named', map: 'svc' } },
      ],
      comment: 'c7',
    },
    told: '0a000003060001007400000006000200610000000c000300000000000000000f0c000600000000000000000e680104002800010008000100666962001c0002000800010000000001080002000000000308000300000000012c00010008000100636d700020000200080001000000000108000200000000000c000300080001000200000024000100090001006d6574610000000014000200080002000000000608000100000000012c00010008000100636d700020000200080001000000000108000200000000010c0003000800010076657468340001000c0001007061796c6f61640024000200080001000000000108000200000000010800030000000018080004000000001024000100090001006d657461000000001400020008000200000000100800010000000002340001000c0001007061796c6f61640024000200080001000000000d080002000000000208000300000000020800040000000002340001000b0001006c6f6f6b75700000240002000800010073766300080002000000000108000300000000000800050000000000090007000003633700000000',
  },
];

t.test('a rule told by the kernel has the key of the rule that was written', async (t) => {
  const keys = new Set<string>();
  for (const { family, rule, told } of recordedRules) {
    const decoded = decodeRule(Buffer.from(told, 'hex'));
    t.equal(decoded.key, ruleKey(rule, family), `${family} ${JSON.stringify(rule.statements)}`);
    t.equal(decoded.chain, 'a');
    keys.add(`${family}${decoded.key}`);
  }
  t.equal(keys.size, recordedRules.length, 'and no other');
  const [one] = recordedRules;
  const again = (overrides: Partial<RuleObject>) => one && ruleKey({ ...one.rule, ...overrides }, one.family);
  t.not(again({ comment: 'another' }), again({}), 'the comment counts');
  t.not(again({ comment: '' }), again({}), 'an empty one, too');
});

t.test('a rule of others has a key that no rule of ours has', async (t) => {
  const told = Buffer.from(recordedRules[4]?.told ?? '', 'hex');
  const changed: readonly { name: string; at: (bytes: Buffer) => Buffer }[] = [
    {
      name: 'another expression',
      at: (b) => Buffer.from(b.toString('latin1').replace('immediate', 'imaginary'), 'latin1'),
    },
    { name: 'other data', at: (b) => Buffer.from(b.toString('hex').replace('0a2a0001', '0a2a0002'), 'hex') },
    { name: 'an attribute more', at: (b) => Buffer.concat([b.subarray(0, 4), rewritten(b)]) },
  ];
  const key = decodeRule(told).key;
  for (const { name, at } of changed) t.not(decodeRule(at(told)).key, key, name);
});

/** The rule with one more expression of a kind this code does not know. */
function rewritten(body: Buffer): Buffer {
  const attributes = body.subarray(4);
  const parts: Buffer[] = [];
  for (let at = 0; at + 4 <= attributes.length; ) {
    const length = attributes.readUInt16LE(at);
    const type = attributes.readUInt16LE(at + 2);
    const payload = attributes.subarray(at + 4, at + length);
    const counter = encodeAttribute(1, encodeTextAttribute(1, 'counter'));
    parts.push(type === 4 ? encodeAttribute(4, Buffer.concat([payload, counter])) : encodeAttribute(type, payload));
    at += (length + 3) & ~3;
  }
  return Buffer.concat(parts);
}

const SETS: readonly { family: NftFamily; told: string; want: SetObject | undefined | 'of a rule' }[] = [
  {
    family: 'ip',
    told: '02000002060001007400000008000200616666000c00100000000000000000030800030000000030080004000000000708000500000000040c000b000000000000a4cb800a000d0000040200000000000c000900080001000000ffff1700130030786666666666666666383235303866343000000800140000000000',
    want: { name: 'aff', key: ['addr'], flags: ['dynamic', 'timeout'], timeoutSeconds: 10800 },
  },
  {
    family: 'ip',
    told: '02000002060001007400000007000200636c00000c0010000000000000000004080003000000003808000400000001cd080005000000000808000600000001cd08000700000000080c000b00000000000000ea602a000d00000400000000010400000000030800040d0000000100040800040d000000010006040000000000000c00090008000100000000641700130030786666666666666666383235303866343000000800140000000000',
    want: {
      name: 'cl',
      key: ['addr', 'inet_service'],
      data: ['addr', 'inet_service'],
      flags: ['dynamic', 'timeout'],
      timeoutSeconds: 60,
      size: 100,
    },
  },
  {
    family: 'ip',
    told: '02000002060001007400000008000200737663000c00100000000000000000050800030000000008080004000000730d080005000000000c08000600ffffff00080007000000001020000d00000400000000010400000000030800040d0000000100060400000000040009001700130030786666666666666666383235303866343000000800140000000000',
    want: { name: 'svc', key: ['addr', 'inet_proto', 'inet_service'], data: 'verdict' },
  },
  {
    family: 'ip',
    told: '020000020600010074000000090002006c697374000000000c001000000000000000000808000300000000070800040000000007080005000000000426000d000004020000000204010000000314000407000000010c00040c00000001040b00000000000c00090008000100000000051700130030786666666666666666383235303930653000000800140000000002',
    want: 'of a rule',
  },
  {
    family: 'ip',
    told: '020000020600010074000000070002006d3100000c001000000000000000000a080003000000000b0800040000000004080005000000000408000600000001cd080007000000000816000d0000040100000001040000000006040000000000000c00090008000100000000011700130030786666666666666666383235303864633000000800140000000001',
    want: 'of a rule',
  },
  {
    family: 'ip6',
    told: '0a000003060001007400000008000200616666000c00100000000000000000030800030000000030080004000000000808000500000000100c000b000000000000a4cb800a000d0000040200000000000c000900080001000000ffff1700130030786666666666666666383235303866343000000800140000000000',
    want: { name: 'aff', key: ['addr'], flags: ['dynamic', 'timeout'], timeoutSeconds: 10800 },
  },
  {
    family: 'ip6',
    told: '0a000003060001007400000007000200636c00000c00100000000000000000040800030000000038080004000000020d0800050000000014080006000000020d08000700000000140c000b00000000000000ea602a000d00000400000000010400000000030800040d0000000100040800040d000000010006040000000000000c00090008000100000000641700130030786666666666666666383235303866343000000800140000000000',
    want: {
      name: 'cl',
      key: ['addr', 'inet_service'],
      data: ['addr', 'inet_service'],
      flags: ['dynamic', 'timeout'],
      timeoutSeconds: 60,
      size: 100,
    },
  },
  {
    family: 'ip6',
    told: '0a000003060001007400000008000200737663000c00100000000000000000050800030000000008080004000000830d080005000000001808000600ffffff00080007000000001020000d00000400000000010400000000030800040d0000000100060400000000040009001700130030786666666666666666383235303866343000000800140000000000',
    want: { name: 'svc', key: ['addr', 'inet_proto', 'inet_service'], data: 'verdict' },
  },
  {
    family: 'ip6',
    told: '0a0000030600010074000000090002006c697374000000000c001000000000000000000808000300000000070800040000000008080005000000001026000d000004020000000204010000000314000407000000010c00040d00000001040800000000000c00090008000100000000051700130030786666666666666666383235303930653000000800140000000002',
    want: 'of a rule',
  },
  {
    family: 'ip6',
    told: '0a0000030600010074000000070002006d3100000c001000000000000000000a080003000000000b08000400000000040800050000000004080006000000020d080007000000001416000d0000040100000001040000000006040000000000000c00090008000100000000011700130030786666666666666666383235303864633000000800140000000001',
    want: 'of a rule',
  },
];

t.test('sets told by the kernel', async (t) => {
  for (const { family, told, want } of SETS) {
    const decoded = decodeSet(Buffer.from(told, 'hex'), family);
    if (want === 'of a rule') t.equal(decoded, undefined);
    else t.strictSame(decoded?.set, want);
  }
  const told = SETS[2]?.told ?? '';
  const strange = [
    { name: 'a type that has no word', told: told.replace('0000730d', '0000730e') },
    { name: 'a flag that has no word', told: told.replace('0800030000000008', '0800030000000108') },
    { name: 'another length of key', told: told.replace('080005000000000c', '0800050000000010') },
  ];
  for (const { name, told: bytes } of strange) {
    t.same(decodeSet(Buffer.from(bytes, 'hex'), 'ip'), { name: 'svc', set: undefined }, name);
  }
});

t.test('when two sets are the same', async (t) => {
  const set: SetObject = { name: 's', key: ['addr'], flags: ['dynamic', 'timeout'], timeoutSeconds: 60, comment: 'c' };
  const rows: readonly { other: Partial<SetObject>; kind: boolean; same: boolean }[] = [
    { other: {}, kind: true, same: true },
    { other: { flags: ['timeout', 'dynamic'] }, kind: true, same: true },
    { other: { size: 65_535 }, kind: true, same: true },
    { other: { timeoutSeconds: 61 }, kind: true, same: false },
    { other: { comment: 'd' }, kind: true, same: false },
    { other: { size: 10 }, kind: false, same: false },
    { other: { key: ['addr', 'addr'] }, kind: false, same: false },
    { other: { data: 'verdict' }, kind: false, same: false },
    { other: { flags: ['dynamic'] }, kind: false, same: false },
  ];
  for (const { other, kind, same } of rows) {
    t.equal(sameSetKind({ ...set, ...other }, set), kind, JSON.stringify(other));
    t.equal(sameSet({ ...set, ...other }, set), same, JSON.stringify(other));
  }
});

t.test('chains told by the kernel', async (t) => {
  const uint32 = (type: number, value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value);
    return encodeAttribute(type, bytes);
  };
  const chain = (...attributes: readonly Buffer[]) =>
    Buffer.concat([
      Buffer.of(2, 0, 0, 5),
      encodeTextAttribute(1, 't'),
      encodeTextAttribute(3, 'nat-output'),
      ...attributes,
    ]);
  const base = (policy: number, hook: number, type = 'nat') =>
    chain(
      encodeAttribute(4, Buffer.concat([uint32(1, hook), uint32(2, -100)])),
      uint32(5, policy),
      encodeTextAttribute(7, type),
    );
  const rows: readonly { name: string; told: Buffer; want: unknown }[] = [
    {
      name: 'a base chain',
      told: base(1, 3),
      want: {
        name: 'nat-output',
        chain: { name: 'nat-output', base: { type: 'nat', hook: 'output', priority: -100 } },
      },
    },
    { name: 'one that drops', told: base(0, 3), want: { name: 'nat-output', chain: undefined } },
    { name: 'a hook that has no word', told: base(1, 5), want: { name: 'nat-output', chain: undefined } },
    { name: 'a type that has no word', told: base(1, 3, 'route'), want: { name: 'nat-output', chain: undefined } },
    { name: 'a chain of a rule', told: chain(uint32(10, 4)), want: undefined },
    {
      name: 'a comment',
      told: chain(encodeAttribute(12, Buffer.from('\0\x03hi\0', 'latin1'))),
      want: { name: 'nat-output', chain: { name: 'nat-output', comment: 'hi' } },
    },
    {
      name: 'a plain chain',
      told: Buffer.from('02000002060001007400000006000300610000000c00020000000000000000010800060000000008', 'hex'),
      want: { name: 'a', chain: { name: 'a' } },
    },
  ];
  for (const { name, told, want } of rows) t.strictSame(decodeChain(told), want, name);
});

/** A socket that answers each datagram with what `answer` says; an error is thrown once, where an answer would be. */
function scripted(answer: (sent: Buffer, count: number) => readonly (Buffer | NetlinkError)[]) {
  const state = { open: 0, sent: 0 };
  const open = (): NetlinkSocket => {
    state.open++;
    let queue: (Buffer | NetlinkError)[] = [];
    return {
      portId: 77,
      send(datagram) {
        queue = [...queue, ...answer(Buffer.from(datagram), state.sent++)];
      },
      receive() {
        const next = queue.shift();
        if (next instanceof NetlinkError) throw next;
        return next;
      },
      close() {
        state.open--;
      },
    };
  };
  return { open, state };
}

const GETGEN = 0x0a10;
const socketFailure = (name: string) => new NetlinkError('talk netlink', { code: 'SOCKET', call: 'x', errno: 0, name });

/** An acknowledgement or error to a sequence number, with the offset of the attribute at fault. */
function ack(seq: number, errno = 0, offset?: number): Buffer {
  const error = Buffer.alloc(20);
  error.writeInt32LE(-errno, 0);
  const offs = Buffer.alloc(4);
  offs.writeUInt32LE(offset ?? 0, 0);
  const text = encodeTextAttribute(1, 'no');
  const body = offset === undefined ? error : Buffer.concat([error, encodeAttribute(2, offs), text]);
  return encodeMessage({ type: 2, flags: offset === undefined ? 0x100 : 0x300, seq, body });
}

function generationIs(generation: number, seq: number): Buffer {
  const id = Buffer.alloc(4);
  id.writeUInt32BE(generation);
  const body = Buffer.concat([Buffer.of(0, 0, 0, 0), encodeAttribute(1, id)]);
  return Buffer.concat([encodeMessage({ type: 0x0a0f, flags: 0, seq, body }), ack(seq)]);
}

/** Answers questions for the generation, and batches with `to(firstSeq, lastSeq)`: begin and the last ordinary message. */
function kernel(to: (begin: number, last: number) => readonly (Buffer | NetlinkError)[]) {
  return scripted((sent) => {
    if (sent.readUInt16LE(4) === GETGEN) return [generationIs(5, sent.readUInt32LE(8))];
    const seqs: number[] = [];
    for (let at = 0; at < sent.length; at += (sent.readUInt32LE(at) + 3) & ~3) seqs.push(sent.readUInt32LE(at + 8));
    return to(seqs[0] ?? 0, seqs.at(-2) ?? 0);
  });
}

const MAP: SetObject = { name: 'm', key: ['mark'], data: 'verdict' };
const COMMANDS: readonly Command[] = [
  { verb: 'add', object: 'table' },
  {
    verb: 'add',
    object: 'element',
    set: MAP,
    elements: [1, 2, 3].map((mark) => ({ key: [mark], data: { kind: 'goto', chain: `c${mark}` } })),
  },
  { verb: 'add', object: 'chain', chain: { name: 'c' } },
];
const TRANSACTION: Transaction = { family: 'ip', table: 't', commands: COMMANDS };

/** Offset of the second element in its message. */
const SECOND = (() => {
  const { bytes } = encodeBatch([TRANSACTION]);
  const begin = bytes.indexOf('c2') - 36;
  let message = 0;
  for (let at = 0; at < begin; at += (bytes.readUInt32LE(at) + 3) & ~3) message = at;
  return begin - message;
})();

t.test('what the kernel says to a batch', async (t) => {
  const rows: readonly {
    name: string;
    answers: (begin: number, last: number) => readonly (Buffer | NetlinkError)[];
    want?: CommitResult;
    throws?: object;
    open?: number;
  }[] = [
    { name: 'the last is done', answers: (_, last) => [ack(last)], want: { kind: 'committed', generation: 5 } },
    {
      name: 'several are refused, though the last is done',
      answers: (begin, last) => [ack(begin + 2, 2, SECOND), Buffer.concat([ack(begin + 1, 1), ack(last)])],
      want: {
        kind: 'refused',
        refused: [
          { transaction: 0, command: 1, errno: 'ENOENT', element: 1, message: 'no' },
          { transaction: 0, command: 0, errno: 'EPERM' },
        ],
      },
    },
    {
      name: 'so many are refused that not all can be told',
      answers: (begin) => [ack(begin + 1, 17), socketFailure('ENOBUFS')],
      want: { kind: 'refused', refused: [{ transaction: 0, command: 0, errno: 'EEXIST' }] },
    },
    { name: 'another generation', answers: (begin) => [ack(begin, 85)], want: { kind: 'outdated' } },
    {
      name: 'not allowed',
      answers: (begin) => [ack(begin, 1)],
      throws: { failure: { code: 'KERNEL', name: 'EPERM' } },
      open: 1,
    },
    { name: 'nothing', answers: () => [], throws: { failure: { code: 'NO_ANSWER' } }, open: 0 },
    {
      name: 'an answer to something else',
      answers: (begin) => [ack(begin - 1), ack(begin + 1000, 2)],
      throws: { failure: { code: 'NO_ANSWER' } },
      open: 0,
    },
  ];
  for (const { name, answers, want, throws, open = 1 } of rows) {
    t.test(name, async (t) => {
      const { open: openSocket, state } = kernel(answers);
      const nftables = createNftables(openSocket);
      t.equal(state.open, 0, 'no socket before it is used');
      const act = () => nftables.commit([TRANSACTION]);
      if (throws !== undefined) t.throws(act, { name: 'NetlinkError', ...throws });
      else t.strictSame(act(), want);
      t.equal(state.open, open, 'the socket is kept, unless nobody knows what still comes');
      nftables.close();
      t.equal(state.open, 0);
    });
  }
});

t.test('a batch that is too large, or cannot be written, or is empty', async (t) => {
  const small = scripted((sent) => {
    if (sent.length > 100) throw socketFailure('EMSGSIZE');
    return [generationIs(5, sent.readUInt32LE(8))];
  });
  const nftables = createNftables(small.open);
  t.throws(() => nftables.commit([TRANSACTION]), { name: 'NetlinkError', failure: { code: 'TOO_LARGE' } });
  const sent = small.state.sent;
  t.match(nftables.commit([{ ...TRANSACTION, table: '' }]), { kind: 'refused', refused: [{ errno: 'EINVAL' }] });
  t.equal(small.state.sent, sent, 'nothing is sent');
  t.same(nftables.commit([]), { kind: 'committed', generation: 5 });
});

const multi = (type: number, seq: number, flags: number, ...attributes: readonly Buffer[]) =>
  encodeMessage({ type, flags: 2 | flags, seq, body: Buffer.concat([Buffer.of(2, 0, 0, 5), ...attributes]) });
const done = (seq: number) => encodeMessage({ type: 3, flags: 2, seq, body: Buffer.alloc(4) });

/** A table with one chain. `moved`: the generation that each question is answered with; `interrupts`: whether a dump says so. */
function tableKernel(moved: (asked: number) => number, interrupts: (dump: number) => boolean = () => false) {
  let asked = 0;
  let dumps = 0;
  const kernelSocket = scripted((sent) => {
    const type = sent.readUInt16LE(4);
    const seq = sent.readUInt32LE(8);
    const table = encodeTextAttribute(1, 't');
    if (type === GETGEN) return [generationIs(moved(asked++), seq)];
    if (type === 0x0a01)
      return [encodeMessage({ type: 0x0a00, flags: 0, seq, body: Buffer.concat([Buffer.alloc(4), table]) }), ack(seq)];
    if (type !== 0x0a04) return [done(seq)];
    const flags = interrupts(dumps++) ? 0x10 : 0;
    return [
      multi(0x0a03, seq, flags, table, encodeTextAttribute(3, 'c')),
      multi(0x0a03, seq, 0, encodeTextAttribute(1, 'u'), encodeTextAttribute(3, 'd')),
      done(seq),
    ];
  });
  return { ...kernelSocket, asked: () => asked };
}

t.test('a table is read again when it changes meanwhile', async (t) => {
  const rows: readonly { name: string; kernel: ReturnType<typeof tableKernel>; asked: number; generation?: number }[] =
    [
      { name: 'at rest', kernel: tableKernel(() => 7), asked: 2, generation: 7 },
      { name: 'changed once', kernel: tableKernel((n) => (n === 0 ? 7 : 8)), asked: 4, generation: 8 },
      {
        name: 'a dump says so',
        kernel: tableKernel(
          () => 7,
          (dump) => dump === 0,
        ),
        asked: 3,
        generation: 7,
      },
      { name: 'always changing', kernel: tableKernel((n) => n), asked: 20 },
    ];
  for (const {
    name,
    kernel: { open, asked: count },
    asked,
    generation,
  } of rows) {
    const nftables = createNftables(open);
    if (generation === undefined) {
      t.throws(
        () => nftables.readTable('ip', 't'),
        { name: 'NetlinkError', failure: { code: 'INTERRUPTED', tries: 10 } },
        name,
      );
    } else {
      const table = nftables.readTable('ip', 't');
      t.same([table?.generation, [...(table?.chains.keys() ?? [])]], [generation, ['c']], name);
    }
    t.equal(count(), asked, name);
  }
});

t.test('one object is asked for by name', async (t) => {
  const rows: readonly { errno: number; has: boolean | RegExp }[] = [
    { errno: 0, has: true },
    { errno: 2, has: false },
    { errno: 22, has: false },
    { errno: 95, has: false },
    { errno: 97, has: false },
    { errno: 1, has: /^Cannot read the table "t": the kernel answers EPERM$/ },
  ];
  for (const { errno, has } of rows) {
    const sent: string[] = [];
    const { open } = scripted((request) => {
      sent.push(request.toString('hex', 4, 8) + request.toString('hex', 16));
      return [ack(request.readUInt32LE(8), errno)];
    });
    const nftables = createNftables(open);
    for (const ask of [() => nftables.hasTable('ip', 't'), () => nftables.hasChain('ip6', 't', 'c')]) {
      if (typeof has === 'boolean') t.equal(ask(), has, errnoName(errno));
      else t.throws(ask, { message: has });
    }
    // Type, NLM_F_REQUEST | NLM_F_ACK; family; attributes: table, chain.
    t.same(sent, [
      '010a0500' + '02000000' + '0600010074000000',
      '040a0500' + '0a000000' + '0600010074000000' + '0600030063000000',
    ]);
  }
});

t.test('notices', async (t) => {
  const notice = (type: number, family: number, portId: number, table: string) => {
    const bytes = encodeMessage({
      type,
      flags: 0,
      seq: 0,
      body: Buffer.concat([Buffer.of(family, 0, 0, 0), encodeTextAttribute(1, table)]),
    });
    bytes.writeUInt32LE(portId, 12);
    return bytes;
  };
  const { open } = scripted((sent) => {
    if (sent.readUInt16LE(4) === GETGEN) return [generationIs(9, sent.readUInt32LE(8))];
    return [
      Buffer.concat([
        notice(0x0a06, 2, 77, 't'),
        notice(0x0a06, 2, 77, 't'),
        notice(0x0a03, 10, 5, 't'),
        notice(0x0a00, 1, 5, 'inet'),
      ]),
      socketFailure('ENOBUFS'),
      generationIs(9, 0),
    ];
  });
  const nftables = createNftables(open);
  nftables.generation();
  let socket: NetlinkSocket | undefined;
  const watching = createNftables(() => {
    socket = open();
    return socket;
  });
  watching.generation();
  const watcher = watching.watch();
  t.same(watcher.drain(), { changes: [], generation: undefined, overrun: false });
  socket?.send(Buffer.alloc(20));
  t.same(watcher.drain(), {
    changes: [
      { family: 'ip', table: 't', own: true },
      { family: 'ip6', table: 't', own: false },
    ],
    generation: 9,
    overrun: true,
  });
  t.same(watcher.drain(), { changes: [], generation: undefined, overrun: false }, 'each is told once');
});

t.test('the fake refuses, fails and tells as it is told', async (t) => {
  const fake = new FakeNftables();
  const watcher = fake.watch();
  const chain: Transaction = {
    family: 'ip',
    table: 't',
    commands: [{ verb: 'add', object: 'chain', chain: { name: 'c' } }],
  };
  t.match(fake.commit([chain]), { kind: 'refused', refused: [{ command: 0, errno: 'ENOENT' }] });
  t.same(watcher.drain().changes, []);
  t.match(fake.commit([{ ...chain, commands: [{ verb: 'add', object: 'table' }] }, chain]), {
    kind: 'committed',
    generation: 2,
  });
  t.same(watcher.drain(), { changes: [{ family: 'ip', table: 't', own: true }], generation: 2, overrun: false });
  fake.refuses = ({ object }) => (object === 'chain' ? 'EPERM' : undefined);
  t.match(fake.commit([chain]), { kind: 'refused', refused: [{ errno: 'EPERM' }] });
  fake.refuses = () => undefined;
  t.same(fake.commit([chain], { onlyIfGeneration: 1 }), { kind: 'outdated' });
  fake.commitByOthers([{ ...chain, commands: [{ verb: 'delete', object: 'table' }] }]);
  t.same(watcher.drain().changes, [{ family: 'ip', table: 't', own: false }]);
  t.equal(fake.readTable('ip', 't'), undefined);
  t.equal(fake.hasTable('ip', 't'), false);
  fake.overrun();
  t.equal(watcher.drain().overrun, true);
  fake.failure = new NetlinkError('x', { code: 'NO_ANSWER' });
  t.throws(() => fake.commit([chain]), { name: 'NetlinkError', failure: { code: 'NO_ANSWER' } });
  t.same([fake.commits.length, fake.reads], [5, 1]);
});
