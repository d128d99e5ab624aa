import t from 'tap';
import type { ConntrackConfig } from '../../src/config/types.ts';
import { conntrackMax, setConntrackSysctls } from '../../src/daemon/conntrack-sysctls.ts';
import { FakeSysctl } from '../../src/sys/fake-proc.ts';

t.test('conntrackMax()', async (t) => {
  for (const { name, perCore, min, cpus, want } of [
    { name: 'both 0', perCore: 0, min: 0, cpus: 4, want: 0 },
    { name: 'scaled', perCore: 67890, min: 1, cpus: 4, want: 271560 },
    { name: 'below the minimum', perCore: 1, min: 123456, cpus: 4, want: 123456 },
    { name: '0 per core, whatever the minimum', perCore: 0, min: 123456, cpus: 4, want: 0 },
    { name: 'many CPUs', perCore: 32768, min: 131072, cpus: 512, want: 1048576 },
    { name: 'many CPUs and a larger minimum', perCore: 32768, min: 2000000, cpus: 33, want: 1048576 },
    { name: 'just at the bound, and a larger minimum', perCore: 32768, min: 2000000, cpus: 32, want: 2000000 },
  ]) {
    t.equal(conntrackMax({ maxPerCore: perCore, min }, cpus), want, name);
  }
});

const off: ConntrackConfig = {
  maxPerCore: 0,
  min: 0,
  tcpEstablishedTimeoutMs: 0,
  tcpCloseWaitTimeoutMs: 0,
  tcpBeLiberal: false,
  udpTimeoutMs: 0,
  udpStreamTimeoutMs: 0,
};

t.test('setConntrackSysctls()', async (t) => {
  const defaults = () =>
    new FakeSysctl({
      'net/netfilter/nf_conntrack_max': 65536,
      'net/netfilter/nf_conntrack_tcp_timeout_established': 432000,
      'net/netfilter/nf_conntrack_tcp_timeout_close_wait': 60,
      'net/netfilter/nf_conntrack_tcp_be_liberal': 0,
      'net/netfilter/nf_conntrack_udp_timeout': 30,
      'net/netfilter/nf_conntrack_udp_timeout_stream': 120,
    });
  for (const { name, config, buckets = 16384, writes = [], setsBuckets } of [
    { name: 'everything off', config: off },
    {
      name: 'the largest table, and buckets for it',
      config: { ...off, maxPerCore: 50000 },
      writes: ['nf_conntrack_max=100000'],
      setsBuckets: 25000,
    },
    {
      name: 'enough buckets already',
      config: { ...off, maxPerCore: 50000 },
      buckets: 25000,
      writes: ['nf_conntrack_max=100000'],
    },
    {
      name: 'the table has its size, its buckets not',
      config: { ...off, maxPerCore: 32768 },
      buckets: 9,
      setsBuckets: 16384,
    },
    {
      name: 'established',
      config: { ...off, tcpEstablishedTimeoutMs: 86_400_000 },
      writes: ['nf_conntrack_tcp_timeout_established=86400'],
    },
    {
      name: 'close wait, cut to seconds',
      config: { ...off, tcpCloseWaitTimeoutMs: 3_600_999 },
      writes: ['nf_conntrack_tcp_timeout_close_wait=3600'],
    },
    { name: 'less than a second is off', config: { ...off, tcpCloseWaitTimeoutMs: 999 } },
    { name: 'liberal', config: { ...off, tcpBeLiberal: true }, writes: ['nf_conntrack_tcp_be_liberal=1'] },
    { name: 'UDP', config: { ...off, udpTimeoutMs: 10_000 }, writes: ['nf_conntrack_udp_timeout=10'] },
    {
      name: 'UDP streams',
      config: { ...off, udpStreamTimeoutMs: 10_000 },
      writes: ['nf_conntrack_udp_timeout_stream=10'],
    },
    { name: 'what is right already is not written', config: { ...off, udpTimeoutMs: 30_000, maxPerCore: 32768 } },
  ]) {
    t.test(name, async (t) => {
      const sysctl = defaults();
      const set: number[] = [];
      setConntrackSysctls(config, 2, { sysctl, hashSize: { get: () => buckets, set: (n) => set.push(n) } });
      t.same(
        sysctl.writes,
        writes.map((w) => `net/netfilter/${w}`),
      );
      t.same(set, setsBuckets === undefined ? [] : [setsBuckets]);
    });
  }

  t.test('fails with the first that cannot be set', async (t) => {
    const sysctl = defaults();
    const hashSize = {
      get: () => 1,
      set: () => {
        throw new Error('EACCES');
      },
    };
    const config = { ...off, maxPerCore: 50000, tcpBeLiberal: true };
    t.throws(() => setConntrackSysctls(config, 2, { sysctl, hashSize }), {
      message: /hash size of conntrack to 25000: EACCES/,
    });
    sysctl.readOnly.add('net/netfilter/nf_conntrack_max');
    sysctl.values.set('net/netfilter/nf_conntrack_max', 1);
    t.throws(() => setConntrackSysctls(config, 2, { sysctl, hashSize }), { message: /nf_conntrack_max/ });
    t.equal(sysctl.get('net/netfilter/nf_conntrack_tcp_be_liberal'), 0);
  });
});
