import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { COMMANDS } from '../../src/cli/commands.ts';
import { runProgram } from '../../src/cli/program.ts';
import type { RunDeps } from '../../src/cli/run.ts';
import { FLAG_NAMES } from '../../src/config/flags.ts';
import type { Config } from '../../src/config/types.ts';
import type { Clock } from '../../src/sys/clock.ts';
import { version } from '../../src/version.ts';
import { makeIo } from '../lib/io.ts';

/** A clock on which every wait is over after a turn of the event loop. */
const hasty: Clock = { now: () => 0, sleep: () => new Promise((resolve) => setImmediate(resolve)) };

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The configurations the daemon was run with. */
  readonly ran: readonly Config[];
}

/** Runs a command line in this process, with a daemon that ends at once unless `daemon` says otherwise. */
async function run(
  argv: readonly string[],
  {
    daemon = async () => {},
    stop = new AbortController(),
  }: { daemon?: RunDeps['runDaemon']; stop?: AbortController } = {},
): Promise<Result> {
  const { io, out } = makeIo('', stop.signal);
  const ran: Config[] = [];
  const code = await runProgram(argv, io, {
    run: {
      clock: hasty,
      builtModes: ['iptables'],
      runDaemon: async (config, log, signal) => {
        ran.push(config);
        await daemon(config, log, signal);
      },
    },
    commands: COMMANDS,
  });
  return { code, ran, ...out };
}

/** A configuration file that is removed with the test. */
function makeFile(t: Test, content: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'program-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'config.conf');
  writeFileSync(path, content);
  return path;
}

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

/** Command lines that print something and end. `stdout` and `stderr` are matched, '' is exactly nothing. */
const lines: readonly { argv: string; code: number; stdout: RegExp | ''; stderr: RegExp | '' }[] = [
  { argv: '', code: 2, stdout: '', stderr: /^Usage: switchyard \[options\] \[command\]\n/ },
  { argv: '--help', code: 0, stdout: /Commands:\n {2}run .*(\n.*)*Examples:\n/, stderr: '' },
  { argv: 'help run', code: 0, stdout: /^Usage: switchyard run \[flags\]/, stderr: '' },
  { argv: 'run --help', code: 0, stdout: /Runs until SIGTERM or SIGINT; the rules stay/, stderr: '' },
  { argv: '--version', code: 0, stdout: /^switchyard \d+\.\d+\.\d+ \(kube-proxy 1\.36\)\n$/, stderr: '' },
  { argv: 'version', code: 0, stdout: /^switchyard \d+\.\d+\.\d+ \(kube-proxy 1\.36\)\n$/, stderr: '' },
  { argv: 'version --output json', code: 0, stdout: /^\{\n {2}"version": "\d+\.\d+\.\d+",\n/, stderr: '' },
  { argv: 'run --version', code: 0, stdout: /^switchyard \d/, stderr: '' },
  { argv: 'run --version=raw', code: 0, stdout: /^\{"version":.*\}\n$/, stderr: '' },
  {
    argv: 'nonsense',
    code: 2,
    stdout: '',
    stderr: /^Usage: switchyard \[options\].*\nError: unknown command 'nonsense'\n$/,
  },
  {
    argv: 'version --output xml',
    code: 2,
    stdout: '',
    stderr: /^Usage: switchyard version .*\nError: .*Allowed choices are text, json/,
  },
  { argv: 'run --foo', code: 1, stdout: '', stderr: /^Usage: switchyard run .*\nError: unknown option '--foo'\n$/ },
  {
    argv: 'run --proxy_mod x',
    code: 1,
    stdout: '',
    stderr: /Error: unknown option '--proxy-mod'\n\(Did you mean --proxy-mode\?\)\n$/,
  },
  { argv: 'run now', code: 1, stdout: '', stderr: /Error: too many arguments/ },
  { argv: 'run --cleanup true', code: 1, stdout: '', stderr: /Error: too many arguments/ },
  { argv: 'run --config', code: 1, stdout: '', stderr: /Error: .*--config.* argument missing\n$/ },
  { argv: 'run --v=x', code: 1, stdout: '', stderr: /Error: .*'x' is invalid\. must be a whole number/ },
  { argv: 'run --bind-address node', code: 1, stdout: '', stderr: /'node' is invalid\. must be an IP address\n$/ },
  {
    argv: 'run --config /no/such/file',
    code: 1,
    stdout: '',
    stderr: /^Error: Cannot read the configuration file "\/no\/such\/file": ENOENT.*\n$/,
  },
  {
    argv: 'run --oom-score-adj 2000 --proxy-mode x',
    code: 1,
    stdout: '',
    stderr: /^Error: Cannot use --proxy-mode "x".*\nError: Cannot use --oom-score-adj "2000".*\n$/,
  },
  {
    argv: 'run --proxy-mode nftables',
    code: 1,
    stdout: '',
    stderr: /"reason":"Cannot run mode \\"nftables\\": not built yet, must be one of iptables"/,
  },
];

t.test('switchyard', async (t) => {
  for (const { argv, code, stdout, stderr } of lines) {
    const got = await run(argv.split(' ').filter((word) => word !== ''));
    t.equal(got.code, code, `${argv}: exit code`);
    t.same(got.ran, [], `${argv}: no daemon`);
    for (const name of ['stdout', 'stderr'] as const) {
      const want = name === 'stdout' ? stdout : stderr;
      if (want === '') t.equal(got[name], '', `${argv}: nothing on ${name}`);
      else t.match(got[name], want, `${argv}: ${name}`);
    }
  }
});

t.test('run --help shows every flag once', async (t) => {
  const { stdout } = await run(['run', '--help']);
  for (const name of FLAG_NAMES) {
    t.equal(
      stdout.split('\n').filter((line) => new RegExp(`^ {2}(-\\w, )?--${name}[ [\n]|^ {2}--${name}$`).test(line))
        .length,
      1,
      `--${name}`,
    );
  }
  for (const line of stdout.split('\n')) t.ok(line.length <= 110, `not too wide: ${line}`);
  t.equal(JSON.parse((await run(['run', '--version=raw'])).stdout).version, version());
});

t.test('run gives the daemon its configuration', async (t) => {
  const file = makeFile(t, `${HEAD}clusterCIDR: 10.42.0.0/16\n`);
  const rows: readonly { argv: readonly string[]; want: object }[] = [
    {
      argv: ['--cluster_cidr', '10.42.0.0/16', '--masquerade-all', '-v', '2'],
      want: {
        configFile: '',
        masqueradeAll: true,
        detectLocal: { clusterCIDRs: ['10.42.0.0/16'] },
        logging: { verbosity: 2 },
      },
    },
    {
      argv: ['--nodeport-addresses', '10.0.0.0/8', '--nodeport-addresses=11.0.0.0/8'],
      want: { nodePortAddresses: ['10.0.0.0/8', '11.0.0.0/8'] },
    },
    {
      argv: ['--oom-score-adj', '-5', '--healthz-bind-address='],
      want: { oomScoreAdj: -5, healthzBindAddress: '0.0.0.0:10256' },
    },
    {
      argv: ['--feature-gates=AllowServiceExternalIPs=false'],
      want: { featureGates: { AllowServiceExternalIPs: false } },
    },
    {
      argv: ['--config', file, '--hostname-override', 'Node-1', ''],
      want: { configFile: file, hostnameOverride: 'node-1', detectLocal: { clusterCIDRs: ['10.42.0.0/16'] } },
    },
    {
      argv: ['--cleanup', '--proxy-mode=nftables', '--profiling=false'],
      want: { cleanup: true, mode: 'nftables', enableProfiling: false },
    },
  ];
  for (const { argv, want } of rows) {
    const got = await run(['run', ...argv]);
    t.equal(got.code, 0, argv.join(' '));
    t.equal(got.ran.length, 1, got.stderr);
    t.match(got.ran[0], want);
  }
});

t.test('run', async (t) => {
  t.test('warns of what it ignores, and goes on', async (t) => {
    const file = makeFile(t, `${HEAD}foo: bar\n`);
    const got = await run(['run', '--config', file, '--cluster-cidr=10.0.0.0/8']);
    t.equal(got.code, 0);
    const logged = got.stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    t.match(logged, [
      { level: 'warn', msg: `${file}: Ignoring unknown field "foo"` },
      { level: 'warn', msg: 'Ignoring --cluster-cidr: --config replaces them' },
    ]);
  });

  t.test('logs every flag with -v', async (t) => {
    const got = await run(['run', '-v1', '--hostname-override', 'a']);
    t.match(got.stderr, /"level":"debug".*"msg":"FLAG: --hostname-override=\\"a\\""/);
    t.notMatch((await run(['run', '--hostname-override', 'a'])).stderr, /FLAG/, 'and not without');
  });

  t.test('writes readable lines with --log-format pretty', async (t) => {
    const got = await run(['run', '-v1', '--log-format=pretty']);
    t.match(got.stderr, /^\[\d\d:\d\d:\d\d\.\d\d\d\] DEBUG: FLAG: --v=1$/m);
  });

  t.test('writes the configuration', async (t) => {
    const to = makeFile(t, '');
    const got = await run(['run', '--cluster-cidr', '10.0.0.0/8', '--write-config-to', to]);
    t.equal(got.code, 0);
    t.same(got.ran, [], 'and runs no daemon');
    t.match(readFileSync(to, 'utf8'), /^clusterCIDR: 10.0.0.0\/8$/m);
    t.equal((await run(['run', '--write-config-to', '/no/such/folder/x'])).code, 1, 'or says that it cannot');
  });

  t.test('ends with 1 and the reason when the daemon cannot go on', async (t) => {
    const daemon = () => Promise.reject(new Error('Cannot reach the kernel'));
    const got = await run(['run'], { daemon });
    t.equal(got.code, 1);
    t.match(JSON.parse(got.stderr), { level: 'fatal', reason: 'Cannot reach the kernel', msg: 'command failed' });
  });

  const untilAborted: RunDeps['runDaemon'] = (_config, _log, signal) =>
    new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true });
    });

  t.test('ends with 0 when told to', async (t) => {
    const stop = new AbortController();
    const file = makeFile(t, HEAD);
    const running = run(['run', '--config', file], {
      stop,
      daemon: (...args) => {
        setImmediate(() => stop.abort());
        return untilAborted(...args);
      },
    });
    t.equal((await running).code, 0);
  });

  t.test('ends with 1 when the content of its file changes', async (t) => {
    const file = makeFile(t, HEAD);
    const got = await run(['run', '--config', file], {
      daemon: (...args) => {
        writeFileSync(file, `${HEAD}mode: ipvs\n`);
        return untilAborted(...args);
      },
    });
    t.equal(got.code, 1);
    t.match(got.stderr, /"msg":"the content of the configuration file was updated/);
  });
});
