import t from 'tap';
import { type LocalTrafficOptions, localTraffic } from '../../src/proxier/local-traffic.ts';
import type { LocalTraffic } from '../../src/proxier/types.ts';
import { cidr } from '../lib/make.ts';

const NONE: LocalTraffic = { kind: 'none' };
const V4: LocalTraffic = { kind: 'cidr', cidr: cidr('10.0.0.0/14') };
const V6: LocalTraffic = { kind: 'cidr', cidr: cidr('2002:0:0:1234::/64') };
const dual = ['10.0.0.0/14', '2002:0:0:1234::/64'];

const rows: readonly { name: string; options: Partial<LocalTrafficOptions>; IPv4: LocalTraffic; IPv6: LocalTraffic }[] =
  [
    { name: 'ClusterCIDR, IPv4', options: { clusterCIDRs: ['10.0.0.0/14'] }, IPv4: V4, IPv6: NONE },
    { name: 'ClusterCIDR, IPv6', options: { clusterCIDRs: ['2002:0:0:1234::/64'] }, IPv4: NONE, IPv6: V6 },
    { name: 'ClusterCIDR, dual', options: { clusterCIDRs: dual }, IPv4: V4, IPv6: V6 },
    { name: 'ClusterCIDR, dual, IPv6 first', options: { clusterCIDRs: dual.toReversed() }, IPv4: V4, IPv6: V6 },
    {
      name: 'ClusterCIDR, the first of each family',
      options: { clusterCIDRs: [...dual, '10.99.0.0/16', 'fd00::/64'] },
      IPv4: V4,
      IPv6: V6,
    },
    { name: 'ClusterCIDR, host bits and blanks', options: { clusterCIDRs: [' 10.1.2.3/14'] }, IPv4: V4, IPv6: NONE },
    { name: 'ClusterCIDR, none', options: {}, IPv4: NONE, IPv6: NONE },
    { name: 'ClusterCIDR, an empty text', options: { clusterCIDRs: [''] }, IPv4: NONE, IPv6: NONE },
    { name: 'ClusterCIDR does not look at the node', options: { podCIDRs: dual }, IPv4: NONE, IPv6: NONE },
    {
      name: 'ClusterCIDR, everything',
      options: { clusterCIDRs: ['0.0.0.0/0'] },
      IPv4: { kind: 'cidr', cidr: cidr('0.0.0.0/0') },
      IPv6: NONE,
    },
    {
      name: 'NodeCIDR, IPv4',
      options: { detectLocalMode: 'NodeCIDR', podCIDRs: ['10.0.0.0/14'] },
      IPv4: V4,
      IPv6: NONE,
    },
    {
      name: 'NodeCIDR, IPv6',
      options: { detectLocalMode: 'NodeCIDR', podCIDRs: ['2002:0:0:1234::/64'] },
      IPv4: NONE,
      IPv6: V6,
    },
    {
      name: 'NodeCIDR, dual',
      options: { detectLocalMode: 'NodeCIDR', podCIDRs: dual, clusterCIDRs: ['10.99.0.0/16'] },
      IPv4: V4,
      IPv6: V6,
    },
    { name: 'NodeCIDR, none', options: { detectLocalMode: 'NodeCIDR', clusterCIDRs: dual }, IPv4: NONE, IPv6: NONE },
    {
      name: 'BridgeInterface',
      options: { detectLocalMode: 'BridgeInterface', bridgeInterface: 'cni0', clusterCIDRs: dual },
      IPv4: { kind: 'bridge', name: 'cni0' },
      IPv6: { kind: 'bridge', name: 'cni0' },
    },
    {
      name: 'BridgeInterface, a strange name',
      options: { detectLocalMode: 'BridgeInterface', bridgeInterface: '1234567890123456789' },
      IPv4: { kind: 'bridge', name: '1234567890123456789' },
      IPv6: { kind: 'bridge', name: '1234567890123456789' },
    },
    {
      name: 'BridgeInterface without a name',
      options: { detectLocalMode: 'BridgeInterface', interfaceNamePrefix: 'x' },
      IPv4: NONE,
      IPv6: NONE,
    },
    {
      name: 'InterfaceNamePrefix',
      options: { detectLocalMode: 'InterfaceNamePrefix', interfaceNamePrefix: 'veth' },
      IPv4: { kind: 'prefix', prefix: 'veth' },
      IPv6: { kind: 'prefix', prefix: 'veth' },
    },
    {
      name: 'InterfaceNamePrefix without a prefix',
      options: { detectLocalMode: 'InterfaceNamePrefix', bridgeInterface: 'x' },
      IPv4: NONE,
      IPv6: NONE,
    },
    { name: 'a mode nobody knows', options: { detectLocalMode: 'abcd', clusterCIDRs: dual }, IPv4: NONE, IPv6: NONE },
  ];

t.test('localTraffic()', async (t) => {
  for (const { name, options, ...want } of rows) {
    const all = {
      detectLocalMode: 'ClusterCIDR',
      clusterCIDRs: [],
      podCIDRs: [],
      bridgeInterface: '',
      interfaceNamePrefix: '',
      ...options,
    };
    t.strictSame({ IPv4: localTraffic(all, 'IPv4'), IPv6: localTraffic(all, 'IPv6') }, want, name);
  }
});
