/**
 * Bytes of commands: those `nft` 1.0.6 sent for the same text, captured on Linux 6.18 (x86-64).
 */
import t from 'tap';
import {
  decodeMessages,
  encodeAttribute,
  findAttribute,
  type NetlinkMessage,
  NLM_F_ACK,
} from '../../../src/netlink/codec.ts';
import { formatRange, mergeRanges, parseRange } from '../../../src/netlink/nftables/address.ts';
import { ElementReader } from '../../../src/netlink/nftables/decode-element.ts';
import { encodeBatch } from '../../../src/netlink/nftables/encode.ts';
import { formatCommand, formatTransaction } from '../../../src/netlink/nftables/text.ts';
import type {
  Command,
  MapReference,
  NftFamily,
  SetElement,
  SetObject,
  Statement,
  Transaction,
} from '../../../src/netlink/nftables/transaction.ts';

const HAIRPIN: SetObject = {
  name: 'hairpin-connections',
  key: ['addr', 'addr', 'inet_proto', 'inet_service'],
  comment: 'service hairpin connections',
};
const CLUSTER_IPS: SetObject = { name: 'cluster-ips', key: ['addr'], comment: 'Active ClusterIPs' };
const SERVICE_IPS: SetObject = {
  name: 'service-ips',
  key: ['addr', 'inet_proto', 'inet_service'],
  data: 'verdict',
  comment: 'ClusterIP, ExternalIP and LoadBalancer IP traffic',
};
const AFFINITY: SetObject = {
  name: 'affinity-X',
  key: ['addr'],
  flags: ['dynamic', 'timeout'],
  timeoutSeconds: 10800,
};

const BOXES: SetObject = { name: 'c', key: ['addr', 'addr', 'inet_proto', 'inet_service'], flags: ['interval'] };
const RANGES: SetObject = { name: 'a', key: ['addr'], flags: ['interval'] };
const SENT: SetObject = { name: 's', key: ['addr', 'inet_proto', 'inet_service'] };
const CLIENTS: SetObject = {
  name: 'd',
  key: ['addr', 'addr', 'inet_proto', 'inet_service'],
  data: ['addr', 'inet_service'],
  flags: ['dynamic', 'timeout'],
  timeoutSeconds: 10800,
  size: 1000,
};

const rule = (chain: string, statements: readonly Statement[], comment?: string): Command => ({
  verb: 'add',
  object: 'rule',
  rule: { chain, statements, ...(comment === undefined ? {} : { comment }) },
});
const pick = (...endpoints: readonly [string, number][]): MapReference => ({
  kind: 'anonymous',
  name: '__map%d',
  elements: endpoints.map((data, i) => ({ key: [i], data })),
});

/** `made`: a set the batch has made before; nft then names its number, too. */
const rows: readonly {
  name: string;
  family: NftFamily;
  table?: string;
  setId?: number;
  made?: SetObject;
  command: Command;
  want: readonly string[];
}[] = [
  {
    name: 'add table ip kube-proxy { comment "rules for kube-proxy" ; }',
    family: 'ip',
    command: { verb: 'add', object: 'table', comment: 'rules for kube-proxy' },
    want: [
      '48000000000a01000100000000000000020000000f0001006b7562652d70726f7879000008000200000000001b000600001572756c657320666f72206b7562652d70726f78790000',
    ],
  },
  {
    name: 'add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100 ; }',
    family: 'ip',
    command: {
      verb: 'add',
      object: 'chain',
      chain: { name: 'nat-postrouting', base: { type: 'nat', hook: 'postrouting', priority: 100 } },
    },
    want: [
      '54000000030a01040200000000000000020000000f0001006b7562652d70726f78790000140003006e61742d706f7374726f7574696e6700080007006e6174001400048008000100000000040800020000000064',
    ],
  },
  {
    name: 'add chain ip kube-proxy reject-chain { comment "helper for @no-endpoint-services / @no-endpoint-nodeports" ; }',
    family: 'ip',
    command: {
      verb: 'add',
      object: 'chain',
      chain: { name: 'reject-chain', comment: 'helper for @no-endpoint-services / @no-endpoint-nodeports' },
    },
    want: [
      '78000000030a01040500000000000000020000000f0001006b7562652d70726f787900001100030072656a6563742d636861696e0000000040000c00003a68656c70657220666f7220406e6f2d656e64706f696e742d7365727669636573202f20406e6f2d656e64706f696e742d6e6f6465706f72747300',
    ],
  },
  {
    name: 'add set ip kube-proxy hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service ; comment "service hairpin connections" ; } (set id 1)',
    family: 'ip',
    setId: 1,
    command: { verb: 'add', object: 'set', set: HAIRPIN },
    want: [
      '90000000090a01040900000000000000020000000f0001006b7562652d70726f78790000180002006861697270696e2d636f6e6e656374696f6e7300080003000000000008000400001c730d080005000000001008000a000000000132000d00000400000000030800040d0000000100071c73657276696365206861697270696e20636f6e6e656374696f6e73000000',
    ],
  },
  {
    name: 'add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic" ; } (set id 3)',
    family: 'ip',
    setId: 3,
    command: { verb: 'add', object: 'set', set: SERVICE_IPS },
    want: [
      'b8000000090a01040b00000000000000020000000f0001006b7562652d70726f7879000010000200736572766963652d697073000800030000000008080004000000730d080005000000000c08000600ffffff00080007000000000008000a000000000354000d00000400000000010400000000030800040d00000001000604000000000732436c757374657249502c2045787465726e616c495020616e64204c6f616442616c616e636572204950207472616666696300',
    ],
  },
  {
    name: 'add set ip kube-proxy affinity-X { type ipv4_addr ; flags dynamic,timeout ; timeout 10800s ; } (set id 4)',
    family: 'ip',
    setId: 4,
    command: { verb: 'add', object: 'set', set: AFFINITY },
    want: [
      '6c000000090a01040c00000000000000020000000f0001006b7562652d70726f787900000f000200616666696e6974792d58000008000300000000300800040000000007080005000000000408000a00000000040c000b000000000000a4cb800a000d000004020000000000',
    ],
  },
  {
    name: 'add rule ip kube-proxy masquerading mark and 0x00004000 != 0 mark set mark xor 0x00004000 masquerade fully-random',
    family: 'ip',
    command: rule('masquerading', [
      { kind: 'markHas', mask: 0x4000 },
      { kind: 'setMark', op: 'xor', mask: 0x4000 },
      { kind: 'masquerade' },
    ]),
    want: [
      '88010000060a010c0d00000000000000020000000f0001006b7562652d70726f78790000110002006d6173717565726164696e67000000005001048024000180090001006d6574610000000014000280080002000000000308000100000000014c0001800c00010062697477697365003c00028008000100000000010800020000000001080006000000000008000300000000040c00048008000100004000000c00058008000100000000002c00018008000100636d700020000280080001000000000108000200000000010c000380080001000000000024000180090001006d6574610000000014000280080002000000000308000100000000014c0001800c00010062697477697365003c00028008000100000000010800020000000001080006000000000008000300000000040c00048008000100ffffffff0c000580080001000040000024000180090001006d6574610000000014000280080002000000000308000300000000011c000180090001006d617371000000000c0002800800010000000010',
    ],
  },
  {
    name: 'add rule ip kube-proxy masquerading ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random',
    family: 'ip',
    setId: 1,
    made: HAIRPIN,
    command: rule('masquerading', [
      { kind: 'ctStatusDnat' },
      { kind: 'inSet', fields: ['saddr', 'daddr', 'l4proto', 'dport'], set: 'hairpin-connections' },
      { kind: 'masquerade' },
    ]),
    want: [
      'e4010000060a010c0e00000000000000020000000f0001006b7562652d70726f78790000110002006d6173717565726164696e6700000000ac0104802000018007000100637400001400028008000200000000020800010000000001440001800c0001006269747769736500340002800800010000000001080002000000000108000300000000040c00048008000100200000000c00058008000100000000002c00018008000100636d700020000280080001000000000108000200000000010c0003800800010000000000340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c0800040000000004340001800c0001007061796c6f61640024000280080001000000000908000200000000010800030000000010080004000000000424000180090001006d65746100000000140002800800020000000010080001000000000a340001800c0001007061796c6f61640024000280080001000000000b0800020000000002080003000000000208000400000000023c0001800b0001006c6f6f6b757000002c0002800800020000000001180001006861697270696e2d636f6e6e656374696f6e730008000400000000011c000180090001006d617371000000000c0002800800010000000010',
    ],
  },
  {
    name: 'add rule ip kube-proxy services ip daddr @cluster-ips ip saddr != 10.42.0.0/16 mark set mark or 0x00004000 comment "masquerade clusterIP traffic from outside cluster"',
    family: 'ip',
    setId: 2,
    made: CLUSTER_IPS,
    command: rule(
      'services',
      [
        { kind: 'inSet', fields: ['daddr'], set: 'cluster-ips' },
        { kind: 'address', side: 'saddr', negated: true, cidrs: ['10.42.0.0/16'] },
        { kind: 'setMark', op: 'or', mask: 0x4000 },
      ],
      'masquerade clusterIP traffic from outside cluster',
    ),
    want: [
      'cc010000060a010c0f00000000000000020000000f0001006b7562652d70726f787900000d00020073657276696365730000000060010480340001800c0001007061796c6f616400240002800800010000000001080002000000000108000300000000100800040000000004340001800b0001006c6f6f6b7570000024000280080002000000000110000100636c75737465722d697073000800040000000002340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c08000400000000022c00018008000100636d700020000280080001000000000108000200000000010c000380060001000a2a000024000180090001006d6574610000000014000280080002000000000308000100000000014c0001800c00010062697477697365003c00028008000100000000010800020000000001080006000000000008000300000000040c00048008000100ffbfffff0c000580080001000040000024000180090001006d6574610000000014000280080002000000000308000300000000013800070000326d61737175657261646520636c7573746572495020747261666669632066726f6d206f75747369646520636c757374657200',
    ],
  },
  {
    name: 'add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips',
    family: 'ip',
    setId: 3,
    made: SERVICE_IPS,
    command: rule('services', [
      { kind: 'vmap', fields: ['daddr', 'l4proto', 'dport'], map: { kind: 'named', map: 'service-ips' } },
    ]),
    want: [
      '00010000060a010c1000000000000000020000000f0001006b7562652d70726f787900000d000200736572766963657300000000cc000480340001800c0001007061796c6f61640024000280080001000000000108000200000000010800030000000010080004000000000424000180090001006d657461000000001400028008000200000000100800010000000009340001800c0001007061796c6f61640024000280080001000000000a0800020000000002080003000000000208000400000000023c0001800b0001006c6f6f6b757000002c0002800800020000000001080003000000000010000100736572766963652d697073000800040000000003',
    ],
  },
  {
    name: 'add rule ip kube-proxy service-X meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.42.0.1 . 80 , 1 : 10.42.0.2 . 80 } (three messages, set id 5)',
    family: 'ip',
    setId: 5,
    command: rule('service-X', [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'dnatMap', fields: [{ random: 2 }], map: pick(['10.42.0.1', 80], ['10.42.0.2', 80]) },
    ]),
    want: [
      '84000000090a01041100000000000000020000000f0001006b7562652d70726f787900000c0002005f5f6d6170256400080003000000000b0800040000000004080005000000000408000600000001cd080007000000000808000a00000000050c000980080001000000000216000d000004010000000104000000000604000000000000',
      '7c0000000c0a01041200000000000000020000000f0001006b7562652d70726f787900000c0002005f5f6d6170256400080004000000000544000380200001800c0001800800010000000000100002800c0001000a2a000100500000200002800c0001800800010001000000100002800c0001000a2a000200500000',
      '24010000060a010c1300000000000000020000000f0001006b7562652d70726f787900000e000200736572766963652d58000000f000048024000180090001006d6574610000000014000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200000000000c0003800500010006000000340001800b0001006e756d67656e0000240002800800010000000001080002000000000208000300000000010800040000000000380001800b0001006c6f6f6b7570000028000280080002000000000108000300000000010c0001005f5f6d6170256400080004000000000530000180080001006e617400240002800800010000000001080002000000000208000300000000010800050000000009',
    ],
  },
  {
    name: 'add rule ip kube-proxy endpoint-X update @affinity-X { ip saddr }',
    family: 'ip',
    setId: 4,
    made: AFFINITY,
    command: rule('endpoint-X', [{ kind: 'dynamic', op: 'update', set: 'affinity-X', fields: ['saddr'] }]),
    want: [
      'a8000000060a010c1400000000000000020000000f0001006b7562652d70726f787900000f000200656e64706f696e742d58000074000480340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c08000400000000043c0001800b00010064796e73657400002c000280080004000000000108000300000000010f000100616666696e6974792d5800000800020000000004',
    ],
  },
  {
    name: 'add rule ip kube-proxy endpoint-X meta l4proto tcp dnat to 10.42.0.1:80',
    family: 'ip',
    command: rule('endpoint-X', [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'dnat', address: '10.42.0.1', port: 80 },
    ]),
    want: [
      '18010000060a010c1500000000000000020000000f0001006b7562652d70726f787900000f000200656e64706f696e742d580000e400048024000180090001006d6574610000000014000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200000000000c00038005000100060000002c0001800e000100696d6d6564696174650000001800028008000100000000010c000280080001000a2a00012c0001800e000100696d6d6564696174650000001800028008000100000000020c000280060001000050000038000180080001006e6174002c00028008000100000000010800020000000002080003000000000108000500000000020800070000000002',
    ],
  },
  {
    name: 'add rule ip kube-proxy firewall-X ip saddr != { 10.0.0.0/8 , 192.168.1.0/24 } drop (three messages, set id 6)',
    family: 'ip',
    setId: 6,
    command: rule('firewall-X', [
      { kind: 'address', side: 'saddr', negated: true, cidrs: ['10.0.0.0/8', '192.168.1.0/24'], name: '__set%d' },
      { kind: 'verdict', verdict: { kind: 'drop' } },
    ]),
    want: [
      '84000000090a01041600000000000000020000000f0001006b7562652d70726f787900000c0002005f5f73657425640008000300000000070800040000000007080005000000000408000a00000000060c000980080001000000000526000d000004020000000204010000000314000407000000010c00040c00000001040b0000000000',
      'a40000000c0a01041700000000000000020000000f0001006b7562652d70726f787900000c0002005f5f73657425640008000400000000066c0003801800018008000300000000010c0001800800010000000000100002800c000180080001000a0000001800038008000300000000010c000180080001000b000000100004800c00018008000100c0a801001800058008000300000000010c00018008000100c0a80200',
      'd4000000060a010c1800000000000000020000000f0001006b7562652d70726f787900000f0002006669726577616c6c2d580000a0000480340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c0800040000000004380001800b0001006c6f6f6b757000002800028008000200000000010c0001005f5f73657425640008000400000000060800050000000001300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000000',
    ],
  },
  {
    name: 'add element ip kube-proxy service-ips { 10.43.0.1 . tcp . 80 comment "ns/x" : goto reject-chain }',
    family: 'ip',
    setId: 3,
    made: SERVICE_IPS,
    command: {
      verb: 'add',
      object: 'element',
      set: SERVICE_IPS,
      elements: [{ key: ['10.43.0.1', 'tcp', 80], comment: 'ns/x', data: { kind: 'goto', chain: 'reject-chain' } }],
    },
    want: [
      '880000000c0a01041900000000000000020000000f0001006b7562652d70726f7879000010000200736572766963652d6970730008000400000000034c0003804800018014000180100001000a2b00010600000000500000240002802000028008000100fffffffc1100020072656a6563742d636861696e000000000b00060000056e732f780000',
    ],
  },
  {
    name: 'delete element ip kube-proxy service-ips { 10.43.0.1 . tcp . 80 }',
    family: 'ip',
    command: { verb: 'delete', object: 'element', set: SERVICE_IPS, elements: [{ key: ['10.43.0.1', 'tcp', 80] }] },
    want: [
      '500000000e0a01001a00000000000000020000000f0001006b7562652d70726f7879000010000200736572766963652d697073001c0003801800018014000180100001000a2b00010600000000500000',
    ],
  },
  {
    name: 'flush chain ip kube-proxy service-X',
    family: 'ip',
    command: { verb: 'flush', object: 'chain', name: 'service-X' },
    want: ['34000000080a01001b00000000000000020000000f0001006b7562652d70726f787900000e000200736572766963652d58000000'],
  },
  {
    name: 'add rule ip6 kube-proxy masquerading ct status dnat ip6 saddr . ip6 daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random (set id 1)',
    family: 'ip6',
    setId: 1,
    made: HAIRPIN,
    command: rule('masquerading', [
      { kind: 'ctStatusDnat' },
      { kind: 'inSet', fields: ['saddr', 'daddr', 'l4proto', 'dport'], set: 'hairpin-connections' },
      { kind: 'masquerade' },
    ]),
    want: [
      'e4010000060a010c05000000000000000a0000000f0001006b7562652d70726f78790000110002006d6173717565726164696e6700000000ac0104802000018007000100637400001400028008000200000000020800010000000001440001800c0001006269747769736500340002800800010000000001080002000000000108000300000000040c00048008000100200000000c00058008000100000000002c00018008000100636d700020000280080001000000000108000200000000010c0003800800010000000000340001800c0001007061796c6f616400240002800800010000000001080002000000000108000300000000080800040000000010340001800c0001007061796c6f61640024000280080001000000000208000200000000010800030000000018080004000000001024000180090001006d657461000000001400028008000200000000100800010000000003340001800c0001007061796c6f6164002400028008000100000000110800020000000002080003000000000208000400000000023c0001800b0001006c6f6f6b757000002c0002800800020000000001180001006861697270696e2d636f6e6e656374696f6e730008000400000000011c000180090001006d617371000000000c0002800800010000000010',
    ],
  },
  {
    name: 'add rule ip6 kube-proxy service-X meta l4proto tcp dnat ip6 addr . port to numgen random mod 1 map { 0 : fd00::1 . 80 } (three messages, set id 2)',
    family: 'ip6',
    setId: 2,
    command: rule('service-X', [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'dnatMap', fields: [{ random: 1 }], map: pick(['fd00::1', 80]) },
    ]),
    want: [
      '84000000090a010406000000000000000a0000000f0001006b7562652d70726f787900000c0002005f5f6d6170256400080003000000000b08000400000000040800050000000004080006000000020d080007000000001408000a00000000020c000980080001000000000116000d000004010000000104000000000604000000000000',
      '680000000c0a010407000000000000000a0000000f0001006b7562652d70726f787900000c0002005f5f6d61702564000800040000000002300003802c0001800c00018008000100000000001c00028018000100fd00000000000000000000000000000100500000',
      '24010000060a010c08000000000000000a0000000f0001006b7562652d70726f787900000e000200736572766963652d58000000f000048024000180090001006d6574610000000014000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200000000000c0003800500010006000000340001800b0001006e756d67656e0000240002800800010000000001080002000000000108000300000000010800040000000000380001800b0001006c6f6f6b7570000028000280080002000000000108000300000000010c0001005f5f6d6170256400080004000000000230000180080001006e617400240002800800010000000001080002000000000a08000300000000010800050000000002',
    ],
  },
  {
    name: 'add set ip t c { type ipv4_addr . ipv4_addr . inet_proto . inet_service ; flags interval ; }',
    family: 'ip',
    table: 't',
    setId: 2,
    command: { verb: 'add', object: 'set', set: BOXES },
    want: [
      '90000000090a010405000000000000000200000006000100740000000600020063000000080003000000008408000400001c730d080005000000001008000a000000000238000980340002800c00018008000100000000040c00018008000100000000040c00018008000100000000010c000180080001000000000214000d00000400000000030800040d0000000100',
    ],
  },
  {
    name: 'add element ip t c { 10.0.0.0/8 . 1.2.3.4 . tcp . 80, 10.1.0.0-10.1.0.5 . 1.2.3.5 . udp . 80-90 }',
    family: 'ip',
    table: 't',
    setId: 2,
    made: BOXES,
    command: {
      verb: 'add',
      object: 'element',
      set: BOXES,
      elements: [
        { key: ['10.0.0.0/8', '1.2.3.4', 'tcp', 80] },
        { key: ['10.1.0.0-10.1.0.5', '1.2.3.5', 'udp', '80-90'] },
      ],
    },
    want: [
      '980000000c0a01040600000000000000020000000600010074000000060002006300000008000400000000026c0003803400018018000180140001000a00000001020304060000000050000018000a80140001000affffff0102030406000000005000003400028018000180140001000a01000001020305110000000050000018000a80140001000a0100050102030511000000005a0000',
    ],
  },
  {
    name: 'add element ip t a { 10.0.0.0/8, 192.168.0.0/16 }',
    family: 'ip',
    table: 't',
    made: RANGES,
    command: {
      verb: 'add',
      object: 'element',
      set: RANGES,
      elements: [{ key: ['10.0.0.0/8'] }, { key: ['192.168.0.0/16'] }],
    },
    want: [
      '800000000c0a010404000000000000000200000006000100740000000600020061000000080004000000000154000380100001800c000180080001000a0000001800028008000300000000010c000180080001000b000000100003800c00018008000100c0a800001800048008000300000000010c00018008000100c0a90000',
    ],
  },
  {
    name: 'add map ip t e { typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport ; }',
    family: 'ip',
    table: 't',
    setId: 3,
    command: {
      verb: 'add',
      object: 'set',
      set: { name: 'e', key: ['addr', 'inet_proto', 'inet_service', 'integer'], data: ['addr', 'inet_service'] },
    },
    want: [
      '04010000090a010407000000000000000200000006000100740000000600020065000000080003000000000808000400001cc344080005000000001008000600000001cd080007000000000808000a0000000003ae000d00000400000000010400000000036000040d00000001580014000407000000010c00040c00000001040c000000010e00040900000001060004100000000214000407000000010c00040b000000010402000000031a0004170000000112000401000000010400000100020400000000043400040d000000012c0014000407000000010c00040c00000001040c0000000114000407000000010c00040b0000000104020000000604000000000000',
    ],
  },
  {
    name: 'add map ip t d { type ipv4_addr . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; size 1000 ; flags dynamic,timeout ; timeout 10800s ; }',
    family: 'ip',
    table: 't',
    setId: 5,
    command: { verb: 'add', object: 'set', set: CLIENTS },
    want: [
      '98000000090a010409000000000000000200000006000100740000000600020064000000080003000000003808000400001c730d080005000000001008000600000001cd080007000000000808000a00000000050c00098008000100000003e80c000b000000000000a4cb802a000d00000400000000010400000000030800040d0000000100040800040d00000001000604000000000000',
    ],
  },
  {
    name: 'add set ip t m { type mark ; }',
    family: 'ip',
    table: 't',
    setId: 6,
    command: { verb: 'add', object: 'set', set: { name: 'm', key: ['mark'] } },
    want: [
      '50000000090a01040a00000000000000020000000600010074000000060002006d00000008000300000000000800040000000013080005000000000408000a00000000060a000d000004010000000000',
    ],
  },
  {
    name: 'add set ip t p { type inet_proto ; }',
    family: 'ip',
    table: 't',
    setId: 7,
    command: { verb: 'add', object: 'set', set: { name: 'p', key: ['inet_proto'] } },
    want: [
      '50000000090a01040b0000000000000002000000060001007400000006000200700000000800030000000000080004000000000c080005000000000108000a00000000070a000d000004000000000000',
    ],
  },
  {
    name: 'add set ip t s { type inet_service ; }',
    family: 'ip',
    table: 't',
    setId: 8,
    command: { verb: 'add', object: 'set', set: { name: 's', key: ['inet_service'] } },
    want: [
      '50000000090a01040c0000000000000002000000060001007400000006000200730000000800030000000000080004000000000d080005000000000208000a00000000080a000d000004020000000000',
    ],
  },
  {
    name: 'add map ip t mm { type mark : ipv4_addr ; }',
    family: 'ip',
    table: 't',
    setId: 9,
    command: { verb: 'add', object: 'set', set: { name: 'mm', key: ['mark'], data: ['addr'] } },
    want: [
      '6c000000090a01040d00000000000000020000000600010074000000070002006d6d00000800030000000008080004000000001308000500000000040800060000000007080007000000000408000a000000000916000d000004010000000104020000000604000000000000',
    ],
  },
  {
    name: 'add map ip t vv { type ipv4_addr . ipv4_addr . inet_proto . inet_service : verdict ; flags interval ; }',
    family: 'ip',
    table: 't',
    setId: 10,
    command: {
      verb: 'add',
      object: 'set',
      set: { name: 'vv', key: ['addr', 'addr', 'inet_proto', 'inet_service'], data: 'verdict', flags: ['interval'] },
    },
    want: [
      'ac000000090a01040e000000000000000200000006000100740000000700020076760000080003000000008c08000400001c730d080005000000001008000600ffffff00080007000000000008000a000000000a38000980340002800c00018008000100000000040c00018008000100000000040c00018008000100000000010c000180080001000000000220000d00000400000000010400000000030800040d0000000100060400000000',
    ],
  },
  {
    name: 'add rule ip t x update @d { ip saddr . ip daddr . meta l4proto . th dport timeout 10s : ip daddr . th dport }',
    family: 'ip',
    table: 't',
    setId: 5,
    made: CLIENTS,
    command: rule('x', [
      {
        kind: 'dynamic',
        op: 'update',
        set: 'd',
        fields: ['saddr', 'daddr', 'l4proto', 'dport'],
        data: ['daddr', 'dport'],
        timeoutSeconds: 10,
      },
    ]),
    want: [
      '98010000060a010c1000000000000000020000000600010074000000060002007800000074010480340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c0800040000000004340001800c0001007061796c6f61640024000280080001000000000908000200000000010800030000000010080004000000000424000180090001006d65746100000000140002800800020000000010080001000000000a340001800c0001007061796c6f61640024000280080001000000000b080002000000000208000300000000020800040000000002340001800c0001007061796c6f616400240002800800010000000002080002000000000108000300000000100800040000000004340001800c0001007061796c6f61640024000280080001000000000d080002000000000208000300000000020800040000000002480001800b00010064796e7365740000380002800800040000000001080005000000000208000300000000010c000600000000000000271006000100640000000800020000000005',
    ],
  },
  {
    name: 'add element ip t d { 1.1.1.1 . 2.2.2.2 . tcp . 80 timeout 600000ms expires 330000ms comment "hi" : 3.3.3.3 . 80 }',
    family: 'ip',
    table: 't',
    setId: 5,
    made: CLIENTS,
    command: {
      verb: 'add',
      object: 'element',
      set: CLIENTS,
      elements: [
        {
          key: ['1.1.1.1', '2.2.2.2', 'tcp', 80],
          timeoutMs: 600_000,
          expiresMs: 330_000,
          comment: 'hi',
          data: ['3.3.3.3', 80],
        },
      ],
    },
    want: [
      '800000000c0a010411000000000000000200000006000100740000000600020064000000080004000000000554000380500001800c00040000000000000927c00c0005000000000000050910180001801400010001010101020202020600000000500000100002800c0001000303030300500000090006000003686900000000',
    ],
  },
  {
    name: 'add rule ip t x meta l4proto tcp ip saddr . ct original ip daddr . meta l4proto . ct original proto-dst @s drop',
    family: 'ip',
    table: 't',
    made: SENT,
    command: rule('x', [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'inSet', fields: ['saddr', 'originalDaddr', 'l4proto', 'originalDport'], set: 's' },
      { kind: 'verdict', verdict: { kind: 'drop' } },
    ]),
    want: [
      '7c010000060a010c040000000000000002000000060001007400000006000200780000005801048024000180090001006d6574610000000014000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200000000000c0003800500010006000000340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c08000400000000042800018007000100637400001c00028008000200000000140800010000000009050003000000000024000180090001006d65746100000000140002800800020000000010080001000000000a2800018007000100637400001c000280080002000000000c080001000000000b05000300000000002c0001800b0001006c6f6f6b757000001c000280080002000000000106000100730000000800040000000001300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000000',
    ],
  },
  {
    name: 'add rule ip6 t x meta l4proto tcp ct original ip6 daddr . meta l4proto . ct original proto-dst @s drop',
    family: 'ip6',
    table: 't',
    setId: 2,
    made: SENT,
    command: rule('x', [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'inSet', fields: ['originalDaddr', 'l4proto', 'originalDport'], set: 's' },
      { kind: 'verdict', verdict: { kind: 'drop' } },
    ]),
    want: [
      '48010000060a010c08000000000000000a000000060001007400000006000200780000002401048024000180090001006d6574610000000014000280080002000000001008000100000000012c00018008000100636d700020000280080001000000000108000200000000000c00038005000100060000002800018007000100637400001c00028008000200000000160800010000000001050003000000000024000180090001006d6574610000000014000280080002000000001008000100000000022800018007000100637400001c000280080002000000000c080001000000000d05000300000000002c0001800b0001006c6f6f6b757000001c000280080002000000000106000100730000000800040000000002300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000000',
    ],
  },
  {
    name: 'add rule ip t x ip saddr != 0.0.0.0/0 drop',
    family: 'ip',
    table: 't',
    command: rule('x', [
      { kind: 'address', side: 'saddr', negated: true, cidrs: ['0.0.0.0/0'] },
      { kind: 'verdict', verdict: { kind: 'drop' } },
    ]),
    want: [
      'fc000000060a010c03000000000000000200000006000100740000000600020078000000d8000480340001800c0001007061796c6f6164002400028008000100000000010800020000000001080003000000000c0800040000000004440001800c0001006269747769736500340002800800010000000001080002000000000108000300000000040c00048008000100000000000c00058008000100000000002c00018008000100636d700020000280080001000000000108000200000000010c0003800800010000000000300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000000',
    ],
  },
  {
    name: 'add rule ip t x ip daddr 10.42.0.0/15 drop',
    family: 'ip',
    table: 't',
    command: rule('x', [
      { kind: 'address', side: 'daddr', negated: false, cidrs: ['10.42.0.0/15'] },
      { kind: 'verdict', verdict: { kind: 'drop' } },
    ]),
    want: [
      'fc000000060a010c04000000000000000200000006000100740000000600020078000000d8000480340001800c0001007061796c6f616400240002800800010000000001080002000000000108000300000000100800040000000004440001800c0001006269747769736500340002800800010000000001080002000000000108000300000000040c00048008000100fffe00000c00058008000100000000002c00018008000100636d700020000280080001000000000108000200000000000c000380080001000a2a0000300001800e000100696d6d6564696174650000001c0002800800010000000000100002800c0002800800010000000000',
    ],
  },
  {
    name: 'add element ip6 t r { ff00::/8 comment "hu" }',
    family: 'ip6',
    table: 't',
    setId: 1,
    made: { name: 'r', key: ['addr'], flags: ['interval'] },
    command: {
      verb: 'add',
      object: 'element',
      set: { name: 'r', key: ['addr'], flags: ['interval'] },
      elements: [{ key: ['ff00::/8'], comment: 'hu' }],
    },
    want: [
      '5c0000000c0a010408000000000000000a000000060001007400000006000200720000000800040000000001300003802c0001801800018014000100ff0000000000000000000000000000000f000600000368750001040100000000',
    ],
  },
];

/** Messages of a batch without begin and end, as hex; sequence numbers and the flag that asks for an answer left out. */
function messagesOf(transaction: Transaction, firstSetId = 1): string[] {
  return decodeMessages(encodeBatch([transaction], { firstSetId }).bytes)
    .slice(1, -1)
    .map(hexOf);
}

function hexOf({ type, flags, body }: NetlinkMessage): string {
  return `${type.toString(16)} ${(flags & ~NLM_F_ACK).toString(16)} ${body.toString('hex')}`;
}

t.test('commands are the text nft reads, and the bytes it sends for it', async (t) => {
  for (const { name, family, table = 'kube-proxy', setId = 1, made, command, want } of rows) {
    t.test(name, async (t) => {
      const before: readonly Command[] = made === undefined ? [] : [{ verb: 'add', object: 'set', set: made }];
      const messages = messagesOf({ family, table, commands: [...before, command] }, setId).slice(before.length);
      t.strictSame(messages, decodeMessages(Buffer.from(want.join(''), 'hex')).map(hexOf));
      t.equal(formatCommand(command, { family, table }), name.replace(/ \((?:three|set).*\)$/, ''));
    });
  }
});

const T = { family: 'ip', table: 't' } as const;
const element = (set: SetObject, ...elements: readonly SetElement[]): Command => ({
  verb: 'add',
  object: 'element',
  set,
  elements,
});

t.test('long lists of elements are cut into messages that say whose they are', async (t) => {
  const set: SetObject = { name: 's', key: ['addr'] };
  const elements = Array.from({ length: 5_000 }, (_, i) => ({
    key: [`10.0.${i >> 8}.${i & 255}`],
    comment: 'x'.repeat(100),
  }));
  const { bytes, owners } = encodeBatch([{ ...T, commands: [element(set, ...elements), element(set)] }]);
  const messages = decodeMessages(bytes).slice(1, -1);
  t.equal(messages.length, owners.length, 'none for a command without elements');
  t.ok(messages.length > 1 && messages.every(({ body }) => body.length < 65_535 + 100));
  let next = 0;
  for (const [i, { body }] of messages.entries()) {
    t.same(owners[i], { transaction: 0, command: 0, elements: { first: next, entries: 1 } });
    const reader = new ElementReader(set, 'ip');
    reader.read(body);
    next += reader.finish().length;
  }
  t.equal(next, elements.length);
  t.same(
    messages.map(({ flags }) => (flags & NLM_F_ACK) !== 0),
    messages.map((_, i) => i === messages.length - 1),
    'only the last asks for an answer',
  );
});

/** The kernel takes it, and so does nft, which then cannot list it. */
const SIX_FIELDS: Command = {
  verb: 'add',
  object: 'set',
  set: { name: 's', key: ['addr', 'addr', 'inet_proto', 'inet_service', 'addr', 'inet_service'] },
};

t.test('what cannot be is named, all of it, and nothing is to be sent', async (t) => {
  const wrong: readonly { command: Command; says: RegExp }[] = [
    { command: { verb: 'add', object: 'chain', chain: { name: '' } }, says: /chain ""/ },
    { command: { verb: 'add', object: 'chain', chain: { name: 'é'.repeat(128) } }, says: /must be 1\.\.255 bytes/ },
    { command: { verb: 'add', object: 'chain', chain: { name: 'a\0b' } }, says: /must be 1\.\.255 bytes/ },
    {
      command: { verb: 'add', object: 'chain', chain: { name: 'a', comment: 'x'.repeat(254) } },
      says: /at most 253 bytes/,
    },
    { command: element(CLUSTER_IPS, { key: ['10.0.0.256'] }), says: /must be an IPv4 address/ },
    { command: element(CLUSTER_IPS, { key: ['fd00::1'] }), says: /must be an IPv4 address/ },
    { command: element(CLUSTER_IPS, { key: ['10.0.0.1', 'tcp'] }), says: /must have 1 fields/ },
    { command: element(SENT, { key: ['10.0.0.1', 'icmp', 80] }), says: /must be tcp, udp or sctp/ },
    { command: element(SENT, { key: ['10.0.0.1', 'tcp', 65_536] }), says: /0\.\.65535/ },
    { command: element(RANGES, { key: ['10.0.0.9-10.0.0.1'] }), says: /ends before it begins/ },
    { command: element(RANGES, { key: ['10.0.0.0/33'] }), says: /0\.\.32/ },
    { command: element(BOXES, { key: ['10.0.0.0/8', '1.1.1.1', 'tcp', '90-80'] }), says: /ends before it begins/ },
    {
      command: rule('c', [{ kind: 'address', side: 'saddr', negated: false, cidrs: [] }]),
      says: /list of CIDRs is empty/,
    },
    {
      command: rule('c', [{ kind: 'address', side: 'saddr', negated: false, cidrs: ['1.0.0.0/8', '3.0.0.0/8'] }]),
      says: /has no name/,
    },
    { command: rule('c', [{ kind: 'dnat', address: 'fd00::1', port: 80 }]), says: /must be an IPv4 address/ },
    {
      command: rule('c', [{ kind: 'iifname', name: 'x'.repeat(16), wildcard: false, negated: false }]),
      says: /1\.\.15 bytes/,
    },
    {
      command: rule('c', [{ kind: 'inSet', fields: Array<'saddr'>(17).fill('saddr'), set: 's' }]),
      says: /the registers have 16/,
    },
    { command: SIX_FIELDS, says: /nft lists at most 5 fields/ },
  ];
  const fine: Command = { verb: 'add', object: 'table' };
  const { unencodable } = encodeBatch([
    { ...T, commands: [fine] },
    { ...T, commands: [fine, ...wrong.map((w) => w.command)] },
  ]);
  t.same(
    unencodable.map(({ transaction, command, errno }) => [transaction, command, errno]),
    wrong.map((_, i) => [1, i + 1, 'EINVAL']),
  );
  for (const [i, { says }] of wrong.entries()) t.match(unencodable[i]?.message ?? '', says);
});

t.test('what nft cannot read is not written as if it could', async (t) => {
  const place = { family: 'ip', table: 't' } as const;
  const refused: readonly Command[] = [
    { verb: 'add', object: 'chain', chain: { name: 'a b' } },
    { verb: 'add', object: 'chain', chain: { name: 'a; flush ruleset' } },
    { verb: 'add', object: 'chain', chain: { name: 'a', comment: 'x'.repeat(129) } },
    { verb: 'add', object: 'chain', chain: { name: 'a', comment: 'say "x"' } },
    { verb: 'add', object: 'chain', chain: { name: 'a', comment: 'two\nlines' } },
    element(CLUSTER_IPS, { key: ['1.1.1.1 } ; flush ruleset'] }),
    SIX_FIELDS,
    rule('c', [{ kind: 'dnat', address: '1.1.1.1 drop', port: 1 }]),
  ];
  for (const command of refused)
    t.throws(() => formatCommand(command, place), { name: 'RangeError' }, JSON.stringify(command));
  const update: Command = rule('c', [{ kind: 'dynamic', op: 'update', set: 'd', fields: ['saddr'], data: ['daddr'] }]);
  t.match(
    formatCommand(update, { family: 'ip6', table: 't' }),
    /^# nft cannot load this rule: add rule ip6 t c update @d/,
  );
  t.match(
    formatTransaction({ ...T, commands: [update, element(CLUSTER_IPS)] }),
    /^add rule ip t c .*\n$/,
    'a command without elements is no line',
  );
});

t.test('addresses and ranges survive', async (t) => {
  const rows: readonly (readonly [text: string, canonical?: string])[] = [
    ['0.0.0.0'],
    ['255.255.255.255'],
    ['10.0.0.1/32', '10.0.0.1'],
    ['10.1.2.3/8', '10.0.0.0/8'],
    ['10.0.0.0-10.255.255.255', '10.0.0.0/8'],
    ['10.0.0.1-10.0.0.2'],
    ['0.0.0.0/0'],
    ['::'],
    ['::1'],
    ['1::'],
    ['::/0'],
    ['2001:db8::1'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['1:0:2:3:4:5:6:7'],
    ['::ffff:102:304'],
    ['fd00::1-fd00::3'],
    ['fd00::/7', 'fc00::/7'],
  ];
  for (const [text, canonical = text] of rows) {
    const family = text.includes(':') ? 'ip6' : 'ip';
    t.equal(formatRange(parseRange(text, family), family), canonical, text);
  }
  for (const text of ['', '1.2.3', '1.2.3.4.5', '01.2.3.1234', '1..2.3', 'a.b.c.d', '1.2.3.4/', '1.2.3.4/x']) {
    t.throws(() => parseRange(text, 'ip'), { name: 'RangeError' }, text);
  }
  for (const text of [
    ':',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    '::12345',
    '1:2:3:4::5:6:7:8',
    '::g',
    '::1.2.3.4',
    ':::',
  ]) {
    t.throws(() => parseRange(text, 'ip6'), { name: 'RangeError' }, text);
  }
  const merged = mergeRanges(
    ['10.0.0.0/8', '11.0.0.0/8', '10.1.0.0/16', '255.0.0.0/8', '9.0.0.0/32'].map((c) => parseRange(c, 'ip')),
  );
  t.same(
    merged.map((r) => formatRange(r, 'ip')),
    ['9.0.0.0', '10.0.0.0/7', '255.0.0.0/8'],
    'what overlaps or touches is one',
  );
});

t.test('ranges are folded whatever order the kernel tells them in', async (t) => {
  const set: SetObject = { name: 'r', key: ['addr'], flags: ['interval'] };
  const elements = ['10.0.0.0/8', '11.0.0.0/8', '13.0.0.1', '255.0.0.0/8'].map((cidr) => ({
    key: [cidr],
    comment: cidr,
  }));
  const messages = elements.flatMap((e) =>
    decodeMessages(encodeBatch([{ ...T, commands: [element(set, e)] }]).bytes).slice(1, -1),
  );
  // The two entries of each range apart, too: as lists of one.
  const entries = messages.flatMap(({ body }) => {
    const list = findAttribute(body.subarray(4), 3) ?? Buffer.alloc(0);
    const parts: Buffer[] = [];
    for (let at = 0; at + 4 <= list.length; at += (list.readUInt16LE(at) + 3) & ~3) {
      parts.push(list.subarray(at, at + ((list.readUInt16LE(at) + 3) & ~3)));
    }
    return parts.map((part) => Buffer.concat([Buffer.alloc(4), encodeAttribute(3, part)]));
  });
  for (const order of [entries, entries.toReversed(), [...entries.slice(3), ...entries.slice(0, 3)]]) {
    const reader = new ElementReader(set, 'ip');
    for (const body of order) reader.read(body);
    t.same(reader.finish(), elements);
  }
});
