import t from 'tap';
import { normaliseRunArgv } from '../../src/config/argv.ts';
import { DEFAULT_FILE } from '../../src/config/decode.ts';
import type { Flag } from '../../src/config/flag-kinds.ts';
import { FLAG_NAMES, FLAGS, type FlagName, flagOfField } from '../../src/config/flags.ts';

const argv: readonly { name: string; in: readonly string[]; out: readonly string[] }[] = [
  { name: 'a value after a blank', in: ['--config', 'f'], out: ['--config=f'] },
  { name: 'a value after =', in: ['--config=f'], out: ['--config=f'] },
  { name: '_ for - in a name', in: ['--cluster_cidr', '10.0.0.0/8'], out: ['--cluster-cidr=10.0.0.0/8'] },
  { name: '_ in a value', in: ['--hostname-override=my_node'], out: ['--hostname-override=my_node'] },
  { name: '_ in a value after a blank', in: ['--config', '--a_b'], out: ['--config=--a_b'] },
  {
    name: 'an on/off flag alone',
    in: ['--masquerade-all', '--profiling'],
    out: ['--masquerade-all=true', '--profiling=true'],
  },
  { name: 'an on/off flag with =', in: ['--masquerade_all=false'], out: ['--masquerade-all=false'] },
  { name: 'a word after an on/off flag is no value', in: ['--cleanup', 'true'], out: ['--cleanup=true', 'true'] },
  { name: 'a negative number', in: ['--oom-score-adj', '-999'], out: ['--oom-score-adj=-999'] },
  { name: '-v with a blank', in: ['-v', '2'], out: ['--v=2'] },
  { name: '-v with =', in: ['-v=2'], out: ['--v=2'] },
  { name: '-v with nothing between', in: ['-v2'], out: ['--v=2'] },
  { name: '--version alone', in: ['--version'], out: ['--version=true'] },
  { name: '--version=raw', in: ['--version=raw'], out: ['--version=raw'] },
  { name: 'an empty value', in: ['--healthz-bind-address='], out: ['--healthz-bind-address='] },
  { name: 'an empty value after a blank', in: ['--config', ''], out: ['--config='] },
  { name: 'empty positional arguments', in: ['', '--cleanup', ''], out: ['--cleanup=true'] },
  { name: 'an unknown flag', in: ['--no_such=1', 'x'], out: ['--no-such=1', 'x'] },
  { name: 'a flag without its value', in: ['--config'], out: ['--config'] },
  { name: 'everything after --', in: ['--', '--a_b', ''], out: ['--', '--a_b'] },
  { name: 'help', in: ['-h'], out: ['-h'] },
];

t.test('normaliseRunArgv() reads', async (t) => {
  for (const c of argv) t.same(normaliseRunArgv(c.in), c.out, c.name);
});

const REFUSED = Symbol('refused');
const kinds: readonly (readonly [flag: FlagName, text: string, value: unknown])[] = [
  ['masquerade-all', 'T', true],
  ['masquerade-all', '0', false],
  ['masquerade-all', 'yes', REFUSED],
  ['masquerade-all', '', REFUSED],
  ['iptables-masquerade-bit', '14', 14],
  ['iptables-masquerade-bit', '0x1F', 31],
  ['iptables-masquerade-bit', '017', 15],
  ['iptables-masquerade-bit', '-1', -1],
  ['iptables-masquerade-bit', '018', REFUSED],
  ['iptables-masquerade-bit', '1.5', REFUSED],
  ['iptables-masquerade-bit', '', REFUSED],
  ['iptables-masquerade-bit', '2147483648', REFUSED],
  ['kube-api-qps', '2.5', 2.5],
  ['kube-api-qps', '', REFUSED],
  ['kube-api-qps', 'many', REFUSED],
  ['iptables-sync-period', '1m', 60_000],
  ['iptables-sync-period', '60', REFUSED],
  ['bind-address', '10.0.0.1', '10.0.0.1'],
  ['bind-address', '::', '::'],
  ['bind-address', '', ''],
  ['bind-address', '10.0.0.1:80', REFUSED],
  ['bind-address', 'node', REFUSED],
  ['healthz-bind-address', '', ''],
  ['healthz-bind-address', '1.2.3.4', '1.2.3.4'],
  ['healthz-bind-address', 'fd00::1', 'fd00::1'],
  ['healthz-bind-address', '[fd00::1]:80', '[fd00::1]:80'],
  ['healthz-bind-address', '1.2.3.4:0', '1.2.3.4:0'],
  ['healthz-bind-address', '1.2.3.4:65536', REFUSED],
  ['healthz-bind-address', 'localhost:80', REFUSED],
  ['healthz-bind-address', ':80', REFUSED],
  ['nodeport-addresses', '10.0.0.0/8,primary', ['10.0.0.0/8', 'primary']],
  ['nodeport-addresses', '', []],
  ['feature-gates', 'A=true, B=f', { A: true, B: false }],
  ['feature-gates', '', {}],
  ['feature-gates', 'A', REFUSED],
  ['feature-gates', 'A=on', REFUSED],
  [
    'vmodule',
    'a=1,b*=2',
    [
      { filePattern: 'a', verbosity: 1 },
      { filePattern: 'b*', verbosity: 2 },
    ],
  ],
  ['vmodule', 'a', REFUSED],
];

t.test('flags parse', async (t) => {
  for (const [name, text, value] of kinds) {
    const flag: Flag<unknown> = FLAGS[name];
    if (value === REFUSED)
      t.throws(
        () => flag.parse(text, undefined),
        { name: 'SyntaxError', message: /^must be/ },
        `--${name}=${text} is refused`,
      );
    else t.same(flag.parse(text, undefined), value, `--${name}=${text}`);
  }
  t.same(FLAGS['nodeport-addresses'].parse('b', ['a']), ['a', 'b'], 'a second list flag adds');
  t.same(FLAGS['feature-gates'].parse('A=0,B=1', { A: true }), { A: false, B: true }, 'a second gates flag adds');
  t.equal(FLAGS['cluster-cidr'].parse('b', 'a'), 'b', 'a second text flag replaces');
});

/** Flags of kube-proxy 1.36 but `help`, which commander has. */
const KUBE_PROXY_FLAGS = `config write-config-to cleanup init-only feature-gates kubeconfig master kube-api-content-type
kube-api-qps kube-api-burst hostname-override bind-address healthz-bind-address metrics-bind-address bind-address-hard-fail
profiling show-hidden-metrics-for-version proxy-mode iptables-masquerade-bit masquerade-all iptables-localhost-nodeports
iptables-sync-period iptables-min-sync-period ipvs-sync-period ipvs-min-sync-period ipvs-scheduler ipvs-exclude-cidrs
ipvs-strict-arp ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout detect-local-mode pod-bridge-interface
pod-interface-name-prefix cluster-cidr nodeport-addresses oom-score-adj conntrack-max-per-core conntrack-min
conntrack-tcp-timeout-established conntrack-tcp-timeout-close-wait conntrack-tcp-be-liberal conntrack-udp-timeout
conntrack-udp-timeout-stream config-sync-period healthz-port metrics-port logging-format log-flush-frequency v vmodule
log-text-split-stream log-text-info-buffer-size log-json-split-stream log-json-info-buffer-size machine-id-file
boot-id-file version`.split(/\s+/);

t.test('the table', async (t) => {
  const ours = ['filename', 'iptables-flavour', 'log-format'];
  t.same([...FLAG_NAMES].sort(), [...KUBE_PROXY_FLAGS, ...ours].sort(), 'every flag of kube-proxy, and few of ours');
  for (const name of FLAG_NAMES) {
    t.match(name, /^[a-z][a-z-]*$/, `--${name} is spelled with dashes`);
    const { field }: Flag<unknown> = FLAGS[name];
    if (field === '') continue;
    let at: unknown = DEFAULT_FILE;
    for (const key of field.split('.')) at = typeof at === 'object' && at !== null ? Reflect.get(at, key) : undefined;
    t.not(at, undefined, `--${name} names a field that exists: ${field}`);
  }
  t.equal(flagOfField('clusterCIDR'), '--cluster-cidr');
  t.equal(flagOfField('nftables.masqueradeBit'), undefined, 'there is no such flag');
});
