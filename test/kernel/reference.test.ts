/**
 * Every recorded scenario, each step applied to a real kernel by the real command and read back, equals what kube-proxy
 * programmed, in normal form. The states are run in sequence, as changes. Both iptables flavours.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const reference = fileURLToPath(new URL('../reference', import.meta.url));
const script = fileURLToPath(new URL('../lib/reference-run.ts', import.meta.url));

const scenarios = readdirSync(reference)
  .filter((name) => existsSync(`${reference}/${name}/iptables`))
  .sort();

interface StepResult {
  readonly step: number;
  readonly kind: string;
  readonly diff: string;
}

async function live(name: string, flavour: string): Promise<readonly StepResult[]> {
  const child = spawn('unshare', ['-n', '-m', process.execPath, script, `${reference}/${name}`, flavour]);
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (s: string) => {
    out += s;
  });
  child.stderr.setEncoding('utf8').on('data', (s: string) => {
    err += s;
  });
  const status = await new Promise((resolve) => child.on('close', resolve));
  if (status !== 0) throw new Error(`${name}: the run ended with status ${status}: ${err}`);
  return out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as StepResult);
}

/** All of it takes a minute or two on two cores; this is for what hangs. */
t.setTimeout(900_000);

t.equal(scenarios.length, 54, 'all recorded scenarios are here');

/** The legacy flavour prints the same lines; scenarios whose rules cover every kind of rule are enough there. */
const legacy = [
  'everything-at-once',
  'lifecycle',
  'random-3-04',
  'session-affinity',
  'sctp',
  'source-ranges',
  'terminating',
];

for (const [flavour, names] of [
  ['nft', scenarios],
  ['legacy', legacy],
] as const) {
  t.test(flavour, { jobs: 2 }, async (t) => {
    for (const name of names) {
      t.test(name, { buffered: true }, async (t) => {
        const scenario = JSON.parse(readFileSync(`${reference}/${name}/scenario.json`, 'utf8'));
        const results = await live(name, flavour);
        t.equal(results.length, scenario.steps.length * 2, 'every step was compared, in both families');
        for (const { step, kind, diff } of results) t.equal(diff, '', `step ${step}, ${kind}`);
      });
    }
  });
}
