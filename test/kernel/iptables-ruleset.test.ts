/**
 * The ruleset in memory is worth what this says: the kernel, given the same inputs by the real tools, prints the same,
 * in both families and both flavours.
 */

import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { FakeRestoreError, FakeRuleset } from '../../src/iptables/fake.ts';
import { formatRestore, formatSaved } from '../../src/iptables/format.ts';
import { parseSave } from '../../src/iptables/parse.ts';
import { parseRestoreError } from '../../src/iptables/refusal.ts';
import {
  ACCEPT,
  comment,
  DROP,
  destination,
  inInterface,
  protocol,
  REJECT,
  type Rule,
  rule,
  source,
} from '../../src/iptables/rule.ts';
import { buildRestore, deltaFromDump, serviceDelta } from '../../src/modes/iptables/delta.ts';
import { renderService } from '../../src/modes/iptables/render.ts';
import { renderStatic } from '../../src/modes/iptables/static.ts';
import { FAMILIES, type Family } from '../../src/proxier/types.ts';
import { IPV6_SERVICES, makeFacts, makeOptions, POLICIES, SIX_SERVICES } from '../lib/iptables-world.ts';
import { normalForm } from '../lib/normal-form.ts';

const golden = fileURLToPath(new URL('../golden/iptables', import.meta.url));
const netns = `swy-ruleset-${process.pid}`;

function run(argv: readonly string[], input = '') {
  const [file = '', ...args] = argv;
  const { status, stdout, stderr, error } = spawnSync(file, args, { input, encoding: 'utf8' });
  if (error) throw error;
  return { status, stdout, stderr };
}

function must(argv: readonly string[], input = ''): string {
  const { status, stdout, stderr } = run(argv, input);
  if (status !== 0) throw new Error(`Cannot run "${argv.join(' ')}": ${stderr.trim()}`);
  return stdout;
}

const inside = (...argv: readonly string[]) => ['ip', 'netns', 'exec', netns, ...argv];

/** A kernel without rules, and the programs for it. */
function freshKernel(family: Family, flavour: 'nft' | 'legacy') {
  run(['ip', 'netns', 'del', netns]);
  must(['ip', 'netns', 'add', netns]);
  for (const counter of ['ct_state_invalid_dropped_pkts', 'localhost_nps_accepted_pkts'])
    must(inside('nfacct', 'add', counter));
  const tool = `${family === 'IPv4' ? 'iptables' : 'ip6tables'}-${flavour}`;
  return {
    restore: (text: string) => run(inside(`${tool}-restore`, '-w', '5', '--noflush', '--counters'), text),
    save: () => must(inside(`${tool}-save`)),
  };
}

/** Rules and chains in their own order, which the fake knows too; tables in one order. */
function exact(save: string): string {
  return save
    .replaceAll(/^#.*\n/gm, '')
    .replaceAll(/ \[\d+:\d+\]$/gm, '')
    .split(/(?<=COMMIT\n)/)
    .sort()
    .join('');
}

t.teardown(() => run(['ip', 'netns', 'del', netns]));

for (const flavour of ['nft', 'legacy'] as const) {
  t.test(flavour, async (t) => {
    for (const file of globSync('*.rules', { cwd: golden }).sort()) {
      const family = file.startsWith('ipv6') ? 'IPv6' : 'IPv4';
      const input = readFileSync(`${golden}/${file}`, 'utf8');
      const kernel = freshKernel(family, flavour);
      const fake = new FakeRuleset(family, flavour);
      t.equal(kernel.restore(input).stderr, '', `takes ${file}`);
      fake.restore(input);
      t.equal(exact(kernel.save()), exact(fake.save()), 'and prints what the ruleset in memory prints');
    }

    for (const family of FAMILIES) {
      const options = makeOptions({ family });
      const kernel = freshKernel(family, flavour);
      const fake = new FakeRuleset(family, flavour);
      const services = family === 'IPv6' ? IPV6_SERVICES : [...SIX_SERVICES, ...POLICIES];
      const rules = services.map(
        (plan) => [plan.service, renderService(plan, options, makeFacts(), { comments: true })] as const,
      );
      const want = { family, statics: renderStatic(options, makeFacts()), services: rules };
      const { before, services: parts, after } = deltaFromDump(parseSave(kernel.save()), want);
      const edits = [
        [before],
        parts,
        [after],
        ...rules.map(([owner, one]) => [{ owner, edits: serviceDelta(one, undefined) }]),
        ...rules.map(([owner, one]) => [{ owner, edits: serviceDelta(undefined, one) }]),
      ];
      for (const [i, part] of edits.entries()) {
        const { text } = buildRestore(part);
        if (text === '') continue;
        t.equal(kernel.restore(text).stderr, '', `${family}: takes edits ${i}`);
        fake.restore(text);
        t.equal(exact(kernel.save()), exact(fake.save()), `${family}: the same after edits ${i}`);
      }
      const again = deltaFromDump(parseSave(kernel.save()), want);
      t.equal(
        buildRestore([again.before, ...again.services, again.after]).text,
        '',
        `${family}: over its own rules nothing to do`,
      );
    }

    t.test('numbers and addresses that no golden has are printed as format.ts says', async (t) => {
      const odds = [2, 3, 5, 6, 7, 9, 11, 13, 49, 127, 999, 1000, 2047, 2048, 4095, 4096, 100_001];
      const forms: Readonly<Record<Family, readonly Rule[]>> = {
        IPv4: [
          ...odds.map((of) => rule([{ kind: 'random', of }], ACCEPT)),
          rule([source('0.0.0.0/0')], ACCEPT),
          rule([inInterface('abcdefghijklmn+', true)], DROP),
          rule([comment('bare-word_1'), protocol('UDP')], DROP),
          rule([comment('*** : - A')], undefined),
        ],
        IPv6: [
          rule([source('::102:304'), destination('::1:2', true)], DROP),
          rule([source('::1'), destination('::1:0:0')], DROP),
          rule([source('fd00:0:0:1::/64', true), destination('1:0:0:2::')], DROP),
          rule([source('::/0')], REJECT),
        ],
      };
      for (const family of FAMILIES) {
        const kernel = freshKernel(family, flavour);
        const lines = forms[family].map((one) => `-A A ${formatRestore(one)}`);
        t.equal(kernel.restore(['*filter', ':A - [0:0]', ...lines, 'COMMIT', ''].join('\n')).stderr, '');
        t.same(
          parseSave(kernel.save()).get('filter')?.get('A')?.rules,
          forms[family].map((one) => formatSaved(one, family)),
          family,
        );
      }
    });

    t.test('refusals', async (t) => {
      const head = '*nat\n:A - [0:0]\n:B - [0:0]\n-A A -j B\nCOMMIT\n';
      const kernel = freshKernel('IPv4', flavour);
      const fake = new FakeRuleset('IPv4', flavour);
      kernel.restore(head);
      fake.restore(head);
      for (const line of [
        '-A NOPE -j ACCEPT',
        '-I NOPE -j ACCEPT',
        '-D A -j ACCEPT',
        '-D NOPE -j ACCEPT',
        '-X A',
        '-X B',
        '-X NOPE',
        '-A A -j NOPE',
        '-A A --foo',
        ...(flavour === 'nft' ? ['-A A -m nfacct --nfacct-name nope', '-A A ! -s 0.0.0.0/0 -j ACCEPT'] : []),
      ]) {
        const input = `*nat\n:C - [0:0]\n${line}\nCOMMIT\n`;
        const real = kernel.restore(input);
        let said = { status: 0, stderr: '' };
        try {
          fake.restore(input);
        } catch (error) {
          if (!(error instanceof FakeRestoreError)) throw error;
          said = error;
        }
        const linesOf = (stderr: string) => parseRestoreError(stderr).lines.map((at) => at.line);
        t.same(
          { status: said.status, lines: linesOf(said.stderr) },
          { status: real.status, lines: linesOf(real.stderr) },
          line,
        );
      }
      t.equal(normalForm(kernel.save()), normalForm(fake.save()), 'change nothing');
    });
  });
}
