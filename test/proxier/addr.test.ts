import { isIP } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import {
  cidrContains,
  cidrsOfFamily,
  familyOf,
  ipBytes,
  ipsOfFamily,
  isLoopback,
  isUnspecified,
  isZeroCidr,
  joinHostPort,
  parseCidr,
  parseIP,
} from '../../src/proxier/addr.ts';
import type { Family } from '../../src/proxier/types.ts';
import { cidr, ip } from '../lib/make.ts';

const addresses: readonly { name: string; in: string; want: string | undefined }[] = [
  { name: 'IPv4', in: '10.96.0.10', want: '10.96.0.10' },
  { name: 'leading zeros are decimal', in: '172.30.0.041', want: '172.30.0.41' },
  { name: 'leading zeros, all octets', in: '001.002.003.004', want: '1.2.3.4' },
  { name: 'zeros', in: '00.000.0.0000', want: '0.0.0.0' },
  { name: 'highest octets', in: '255.255.255.255', want: '255.255.255.255' },
  { name: 'octet too high', in: '1.2.3.256', want: undefined },
  { name: 'three octets', in: '1.2.3', want: undefined },
  { name: 'five octets', in: '1.2.3.4.5', want: undefined },
  { name: 'empty octet', in: '1..3.4', want: undefined },
  { name: 'dot at the end', in: '1.2.3.', want: undefined },
  { name: 'hexadecimal', in: '0x1.2.3.4', want: undefined },
  { name: 'one number', in: '3232235777', want: undefined },
  { name: 'sign', in: '+1.2.3.4', want: undefined },
  { name: 'blank in front', in: ' 1.2.3.4', want: undefined },
  { name: 'newline behind', in: '1.2.3.4\n', want: undefined },
  { name: 'CIDR', in: '1.2.3.4/32', want: undefined },
  { name: 'digits of another script', in: '١.٢.٣.٤', want: undefined },
  { name: 'empty', in: '', want: undefined },
  { name: 'a name', in: 'example.org', want: undefined },
  { name: 'IPv6', in: 'fd00::1', want: 'fd00::1' },
  { name: 'IPv6 in capitals', in: 'FD00:0:0:0:0:0:0:00AB', want: 'fd00::ab' },
  { name: 'no :: for one group', in: 'fd00:1:2:0:3:4:5:6', want: 'fd00:1:2:0:3:4:5:6' },
  { name: ':: for one group, as input', in: 'fd00:1:2::3:4:5:6', want: 'fd00:1:2:0:3:4:5:6' },
  { name: ':: at the end, for one group', in: '1:2:3:4:5:6:7::', want: '1:2:3:4:5:6:7:0' },
  { name: 'the longest run', in: '1:0:0:2:0:0:0:3', want: '1:0:0:2::3' },
  { name: 'the first of equal runs', in: '1:0:0:2:0:0:3:4', want: '1::2:0:0:3:4' },
  { name: 'unspecified', in: '0:0:0:0:0:0:0:0', want: '::' },
  { name: 'loopback', in: '0::1', want: '::1' },
  { name: 'trailing dotted IPv4', in: '64:ff9b::192.0.2.1', want: '64:ff9b::c000:201' },
  { name: 'trailing dotted IPv4, leading zeros', in: '1:2:3:4:5:6:001.2.3.004', want: '1:2:3:4:5:6:102:304' },
  { name: 'IPv4-compatible is IPv6', in: '::1.2.3.4', want: '::102:304' },
  { name: 'IPv4-mapped is IPv4', in: '::ffff:1.2.3.4', want: '1.2.3.4' },
  { name: 'IPv4-mapped, sloppy', in: '::FFFF:01.2.3.4', want: '1.2.3.4' },
  { name: 'IPv4-mapped in hexadecimal', in: '0:0:0:0:0:ffff:a00:1', want: '10.0.0.1' },
  { name: 'zone', in: 'fe80::1%eth0', want: undefined },
  { name: 'zone of a mapped one', in: '::ffff:1.2.3.4%eth0', want: undefined },
  { name: ':: for no group', in: '1:2:3:4::5:6:7:8', want: undefined },
  { name: 'two ::', in: '1::2::3', want: undefined },
  { name: 'three colons', in: '1:::2', want: undefined },
  { name: 'seven groups', in: '1:2:3:4:5:6:7', want: undefined },
  { name: 'nine groups', in: '1:2:3:4:5:6:7:8:9', want: undefined },
  { name: 'colon in front', in: ':1:2:3:4:5:6:7', want: undefined },
  { name: 'colon behind', in: '1:2:3:4:5:6:7:', want: undefined },
  { name: 'five digits', in: '12345::', want: undefined },
  { name: 'no hexadecimal digit', in: 'fd00::g', want: undefined },
  { name: 'dotted in the middle', in: '1::1.2.3.4:5', want: undefined },
  { name: 'dotted and too many groups', in: '1:2:3:4:5:6:7:1.2.3.4', want: undefined },
  { name: 'dotted octet too high', in: '::ffff:1.2.3.256', want: undefined },
  { name: 'brackets', in: '[fd00::1]', want: undefined },
];

t.test('parseIP()', async (t) => {
  for (const { name, in: text, want } of addresses) t.equal(parseIP(text)?.ip, want, `${name}: "${text}"`);
});

const cidrs: readonly { name: string; in: string; want: string | undefined }[] = [
  { name: 'masked', in: '1.2.3.4/28', want: '1.2.3.0/28' },
  { name: 'inside an octet', in: '255.255.255.255/9', want: '255.128.0.0/9' },
  { name: 'leading zeros everywhere', in: '203.0.113.000/025', want: '203.0.113.0/25' },
  { name: 'everything', in: '1.2.3.4/0', want: '0.0.0.0/0' },
  { name: 'one address', in: '1.2.3.4/32', want: '1.2.3.4/32' },
  { name: 'IPv6 masked', in: 'FD00:1:2:3:4::/50', want: 'fd00:1:2::/50' },
  { name: 'IPv6 everything', in: 'fd00::/0', want: '::/0' },
  { name: 'IPv6 one address', in: 'fd00::1/128', want: 'fd00::1/128' },
  { name: 'IPv4-mapped', in: '::ffff:1.2.3.4/120', want: '1.2.3.0/24' },
  { name: 'wider than IPv4-mapped', in: '::ffff:1.2.3.4/90', want: '::ffc0:0:0/90' },
  { name: 'bare address', in: '1.2.3.4', want: undefined },
  { name: 'prefix too long', in: '1.2.3.4/33', want: undefined },
  { name: 'IPv6 prefix too long', in: 'fd00::/129', want: undefined },
  { name: 'netmask', in: '1.2.3.4/255.255.255.0', want: undefined },
  { name: 'no prefix', in: '1.2.3.4/', want: undefined },
  { name: 'two prefixes', in: '1.2.3.4/8/8', want: undefined },
  { name: 'sign', in: '1.2.3.4/+8', want: undefined },
  { name: 'blank', in: '1.2.3.4/8 ', want: undefined },
  { name: 'no address', in: '/8', want: undefined },
  { name: 'short form', in: '10/8', want: undefined },
];

t.test('parseCidr()', async (t) => {
  for (const { name, in: text, want } of cidrs) t.equal(parseCidr(text)?.cidr, want, `${name}: "${text}"`);
  t.same(parseCidr('::ffff:1.2.3.4/120'), {
    cidr: '1.2.3.0/24',
    family: 'IPv4',
    address: '1.2.3.0',
    prefixLength: 24,
  });
});

t.test('cidrContains()', async (t) => {
  const rows: readonly { cidr: string; ip: string; want: boolean }[] = [
    { cidr: '10.0.0.0/8', ip: '10.255.255.255', want: true },
    { cidr: '10.0.0.0/8', ip: '11.0.0.0', want: false },
    { cidr: '64.0.0.0/2', ip: '127.0.0.0', want: true },
    { cidr: '1.2.3.4/32', ip: '1.2.3.4', want: true },
    { cidr: '1.2.3.4/32', ip: '1.2.3.5', want: false },
    { cidr: '0.0.0.0/0', ip: '1.2.3.4', want: true },
    { cidr: '0.0.0.0/0', ip: '::1', want: false },
    { cidr: '::/0', ip: '1.2.3.4', want: false },
    { cidr: '::/0', ip: 'fd00::1', want: true },
    { cidr: 'fd00::/64', ip: 'fd00::ffff', want: true },
    { cidr: 'fd00::/64', ip: 'fd00:0:0:1::', want: false },
  ];
  for (const r of rows) t.equal(cidrContains(cidr(r.cidr), ip(r.ip)), r.want, `${r.cidr} ${r.ip}`);
});

t.test('small questions', async (t) => {
  t.equal(joinHostPort(ip('10.0.0.1'), 80), '10.0.0.1:80');
  t.equal(joinHostPort(ip('fd00::1'), 80), '[fd00::1]:80');
  t.same([...ipBytes(ip('10.96.0.255'))], [10, 96, 0, 255]);
  t.same([...ipBytes(ip('fd00::1:2'))], [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2]);
  t.equal(familyOf(cidr('::/0')), 'IPv6');
  t.equal(familyOf(cidr('0.0.0.0/0')), 'IPv4');
  t.same(
    ['127.0.0.1', '127.9.9.9', '::1', '128.0.0.1', '12.7.0.1', '::2'].map((s) => isLoopback(ip(s))),
    [true, true, true, false, false, false],
  );
  t.same(
    ['0.0.0.0', '::', '0.0.0.1'].map((s) => isUnspecified(ip(s))),
    [true, true, false],
  );
  t.same(
    ['0.0.0.0/0', '::/0', '10.0.0.0/10'].map((s) => isZeroCidr(cidr(s))),
    [true, true, false],
  );
});

t.test('ipsOfFamily() and cidrsOfFamily()', async (t) => {
  const texts = ['10.0.0.2', 'fd00::1', 'nonsense', ' ', '', '10.0.0.01', '::ffff:10.0.0.2', ' 10.0.0.3'];
  const bad: string[] = [];
  const note = (text: string) => bad.push(text);
  t.same(ipsOfFamily(texts, 'IPv4', note), ['10.0.0.2', '10.0.0.1', '10.0.0.2'], 'order and duplicates stay');
  t.same(bad.splice(0), ['nonsense', ' 10.0.0.3'], 'reports all but blanks; blanks around are not taken off');
  t.same(ipsOfFamily(texts, 'IPv6'), ['fd00::1']);
  t.same(cidrsOfFamily([' 1.2.3.4/24 ', '1.2.3.4', 'fd00::1/64', '  '], 'IPv4', note), ['1.2.3.0/24'], 'trimmed');
  t.same(bad, ['1.2.3.4']);
  t.same(cidrsOfFamily(['1.2.3.4/24', 'fd00::1/64'], 'IPv6'), ['fd00::/64']);
});

t.test('parseIP() prints IPv6 as the URL standard does, whose rule is the same', async () => {
  const group = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })).map((n) => n.toString(16));
  const address = fc.array(group, { minLength: 8, maxLength: 8 }).map((g) => g.join(':'));
  fc.assert(
    fc.property(address, (text) => {
      const parsed = parseIP(text);
      return parsed?.family === 'IPv4' || `[${parsed?.ip}]` === new URL(`http://[${text}]`).hostname;
    }),
  );
});

t.test('parseIP() takes the texts of letters, colons and dots that node:net takes', async (t) => {
  const noise = fc.array(fc.constantFrom(':', '::', '.', '0', '1', '25', 'ffff', 'a1', '1.2.3.4'), { maxLength: 12 });
  const taken = { IPv4: 0, IPv6: 0 } satisfies Record<Family, number>;
  fc.assert(
    fc.property(noise, (parts) => {
      const text = parts.join('');
      const parsed = parseIP(text);
      if (parsed !== undefined) taken[parsed.family]++;
      // Leading zeros in dotted parts are the one thing taken here and not there.
      return /(^|[.:])0\d/.test(text) || (parsed !== undefined) === (isIP(text) !== 0);
    }),
    { numRuns: 2000, seed: 1 },
  );
  t.ok(taken.IPv4 > 0 && taken.IPv6 > 0, `addresses among the noise: ${JSON.stringify(taken)}`);
});
