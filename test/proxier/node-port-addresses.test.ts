import t from 'tap';
import { nodePortAddresses, selectNodeIPs } from '../../src/proxier/node-port-addresses.ts';
import type { Family } from '../../src/proxier/types.ts';
import { ip } from '../lib/make.ts';

/** All addresses of a node, loopback first, one of them on two interfaces. */
const NODE = ['127.0.0.1', '::1', '10.20.30.51', '100.200.201.1', '10.20.30.51', '2001:db8::1', 'fd00:4321::2'].map(ip);
const ALL4 = ['10.20.30.51', '100.200.201.1', '127.0.0.1'];
const ALL6 = ['2001:db8::1', '::1', 'fd00:4321::2'];

interface Want {
  readonly matchAll: boolean;
  readonly loopback: boolean;
  readonly ips: readonly string[];
}

const rows: readonly { name: string; texts: readonly string[]; IPv4: Want; IPv6: Want }[] = [
  {
    name: 'empty list',
    texts: [],
    IPv4: { matchAll: true, loopback: true, ips: ALL4 },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'one',
    texts: ['10.20.30.0/24'],
    IPv4: { matchAll: false, loopback: false, ips: ['10.20.30.51'] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'everything of IPv4',
    texts: ['0.0.0.0/0'],
    IPv4: { matchAll: true, loopback: true, ips: ALL4 },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'everything of IPv6 only',
    texts: ['::/0'],
    IPv4: { matchAll: true, loopback: true, ips: ALL4 },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'several',
    texts: ['10.20.30.0/24', '100.200.201.0/24'],
    IPv4: { matchAll: false, loopback: false, ips: ['10.20.30.51', '100.200.201.1'] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'no match',
    texts: ['1.2.3.0/24', 'fd99::/64'],
    IPv4: { matchAll: false, loopback: false, ips: [] },
    IPv6: { matchAll: false, loopback: false, ips: [] },
  },
  {
    name: 'one address, the host bits of another',
    texts: ['10.20.30.51/32', '2001:db8::ffff/64'],
    IPv4: { matchAll: false, loopback: false, ips: ['10.20.30.51'] },
    IPv6: { matchAll: false, loopback: false, ips: ['2001:db8::1'] },
  },
  {
    name: 'loopback exactly',
    texts: ['127.0.0.1/32', '::1/128'],
    IPv4: { matchAll: false, loopback: true, ips: ['127.0.0.1'] },
    IPv6: { matchAll: false, loopback: false, ips: ['::1'] },
  },
  {
    name: 'loopback network',
    texts: ['127.0.0.0/8'],
    IPv4: { matchAll: false, loopback: true, ips: ['127.0.0.1'] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'a part of the loopback network',
    texts: ['127.0.2.0/28'],
    IPv4: { matchAll: false, loopback: true, ips: [] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'around the loopback network',
    texts: ['64.0.0.0/2'],
    IPv4: { matchAll: false, loopback: true, ips: ['100.200.201.1', '127.0.0.1'] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'next to the loopback network',
    texts: ['128.0.2.0/28', '126.0.0.0/8', '12.7.0.0/16'],
    IPv4: { matchAll: false, loopback: false, ips: [] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'everything ends the list',
    texts: ['10.20.30.0/24', '0.0.0.0/0', '1.2.3.0/24'],
    IPv4: { matchAll: true, loopback: true, ips: ALL4 },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'one within another',
    texts: ['10.20.0.0/16', '10.20.30.0/24'],
    IPv4: { matchAll: false, loopback: false, ips: ['10.20.30.51'] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
  {
    name: 'both families',
    texts: ['10.20.30.0/24', '2001:db8::/32'],
    IPv4: { matchAll: false, loopback: false, ips: ['10.20.30.51'] },
    IPv6: { matchAll: false, loopback: false, ips: ['2001:db8::1'] },
  },
  {
    name: 'both families, everything of one',
    texts: ['10.20.30.0/24', '::/0'],
    IPv4: { matchAll: false, loopback: false, ips: ['10.20.30.51'] },
    IPv6: { matchAll: true, loopback: false, ips: ALL6 },
  },
];

t.test('nodePortAddresses()', async (t) => {
  for (const { name, texts, ...wants } of rows) {
    for (const family of ['IPv4', 'IPv6'] satisfies Family[]) {
      const got = nodePortAddresses(texts, family);
      t.strictSame(
        { matchAll: got.matchAll, loopback: got.containsIPv4Loopback, ips: selectNodeIPs(got, NODE) },
        wants[family],
        `${name}, ${family}`,
      );
    }
  }
});

t.test('nodePortAddresses() prints and reports', async (t) => {
  const bad: string[] = [];
  const got = nodePortAddresses(['192.168.0.1/24', 'primary', 'fd00::/8'], 'IPv4', (text) => bad.push(text));
  t.strictSame(got.cidrs, ['192.168.0.0/24']);
  t.strictSame(bad, ['primary']);
  t.strictSame(nodePortAddresses([], 'IPv6').cidrs, ['::/0']);
  t.strictSame(nodePortAddresses(['10.0.0.0/8', '0.0.0.0/0'], 'IPv4').cidrs, ['0.0.0.0/0']);
});

t.test('selectNodeIPs() does not depend on the order of addresses', async (t) => {
  const all = nodePortAddresses([], 'IPv4');
  t.strictSame(selectNodeIPs(all, NODE.toReversed()), selectNodeIPs(all, NODE));
});
