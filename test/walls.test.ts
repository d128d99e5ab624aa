/** The import walls of docs/architecture.md hold: each forbidden import is a lint error, each allowed one is not. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** The rules the walls are made of. */
const RULES = ['noRestrictedImports', 'noRestrictedGlobals'];
const root = fileURLToPath(new URL('..', import.meta.url));

const rows: readonly { file: string; line: string; want: 'allowed' | 'refused' }[] = [
  { file: 'src/proxier/model.ts', line: "import 'node:fs';", want: 'refused' },
  { file: 'src/proxier/model.ts', line: "import '../sys/exec.ts';", want: 'refused' },
  { file: 'src/proxier/plan.ts', line: 'export const now = Date.now();', want: 'refused' },
  { file: 'src/proxier/plan.ts', line: "import './types.ts';", want: 'allowed' },
  { file: 'src/proxier/proxier.ts', line: "import '../modes/iptables/render.ts';", want: 'refused' },
  { file: 'src/proxier/proxier.ts', line: "import '../modes/mode.ts';", want: 'allowed' },
  { file: 'src/modes/iptables/render.ts', line: "import '../../sys/exec.ts';", want: 'refused' },
  { file: 'src/modes/iptables/render.ts', line: "import '../../proxier/types.ts';", want: 'allowed' },
  { file: 'src/modes/iptables/apply.ts', line: "import '../nftables/render.ts';", want: 'refused' },
  { file: 'src/modes/iptables/apply.ts', line: "import '../../sys/exec.ts';", want: 'allowed' },
  { file: 'src/modes/iptables/apply.ts', line: "import 'node:child_process';", want: 'refused' },
  { file: 'src/modes/nftables/delta.ts', line: "import '../../sys/exec.ts';", want: 'refused' },
  { file: 'src/modes/nftables/delta.ts', line: "import '../../netlink/nftables/kernel-nftables.ts';", want: 'refused' },
  { file: 'src/modes/nftables/delta.ts', line: "import '../../netlink/socket.ts';", want: 'refused' },
  { file: 'src/modes/nftables/delta.ts', line: "import '../../netlink/nftables/transaction.ts';", want: 'allowed' },
  { file: 'src/modes/nftables/delta.ts', line: 'export const now = Date.now();', want: 'refused' },
  { file: 'src/modes/nftables/maps-layout.ts', line: "import '../../sys/clock.ts';", want: 'refused' },
  { file: 'src/modes/nftables/apply.ts', line: "import '../iptables/names.ts';", want: 'refused' },
  { file: 'src/modes/nftables/apply.ts', line: "import '../../sys/clock.ts';", want: 'allowed' },
  { file: 'src/modes/nftables/apply.ts', line: "import '../base32.ts';", want: 'allowed' },
  { file: 'src/modes/iptables/apply.ts', line: "import '../../iptables/tools.ts';", want: 'allowed' },
  { file: 'src/modes/ipvs/render.ts', line: "import '../../sys/exec.ts';", want: 'refused' },
  { file: 'src/modes/ipvs/render.ts', line: "import '../../netlink/ipvs.ts';", want: 'refused' },
  { file: 'src/modes/ipvs/rules.ts', line: "import '../../iptables/rule.ts';", want: 'allowed' },
  { file: 'src/modes/ipvs/rules.ts', line: 'export const now = Date.now();', want: 'refused' },
  { file: 'src/modes/ipvs/apply.ts', line: "import '../iptables/names.ts';", want: 'refused' },
  { file: 'src/modes/ipvs/apply.ts', line: "import '../../netlink/ipvs.ts';", want: 'allowed' },
  { file: 'src/iptables/format.ts', line: "import '../sys/exec.ts';", want: 'refused' },
  { file: 'src/iptables/tools.ts', line: "import '../sys/exec.ts';", want: 'allowed' },
  { file: 'src/iptables/tools.ts', line: "import '../modes/mode.ts';", want: 'refused' },
  { file: 'src/sys/proc.ts', line: "import '../proxier/types.ts';", want: 'refused' },
  { file: 'src/netlink/nfacct.ts', line: "import 'koffi';", want: 'refused' },
  { file: 'src/netlink/socket.ts', line: "import 'koffi';", want: 'allowed' },
  { file: 'src/watch/reflector.ts', line: "import '../modes/mode.ts';", want: 'refused' },
  { file: 'src/watch/cluster.ts', line: "import '@kubernetes/client-node';", want: 'allowed' },
  { file: 'src/daemon.ts', line: "import '@kubernetes/client-node';", want: 'refused' },
  { file: 'src/cli/render.ts', line: "import '../modes/iptables/apply.ts';", want: 'refused' },
];

interface Report {
  readonly diagnostics: readonly {
    readonly location: { readonly path: string; readonly start: { readonly line: number } };
  }[];
}

t.test('import walls', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'walls-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const config = JSON.parse(readFileSync(`${root}/biome.json`, 'utf8'));
  writeFileSync(`${dir}/biome.json`, JSON.stringify({ ...config, $schema: undefined, vcs: { enabled: false } }));
  const linesOf = new Map<string, string[]>();
  for (const { file, line } of rows) linesOf.set(file, [...(linesOf.get(file) ?? []), line]);
  for (const [file, lines] of linesOf) {
    mkdirSync(dirname(join(dir, file)), { recursive: true });
    writeFileSync(join(dir, file), `${lines.join('\n')}\n`);
  }
  const { stdout, stderr } = spawnSync(
    `${root}/node_modules/.bin/biome`,
    ['lint', '--reporter=json', '--max-diagnostics=none', ...RULES.map((rule) => `--only=style/${rule}`), 'src'],
    { cwd: dir, encoding: 'utf8' },
  );
  t.match(stdout, /"diagnostics"/, stderr);
  const { diagnostics } = JSON.parse(stdout) as Report;
  const refused = new Set(diagnostics.map(({ location }) => `${location.path}:${location.start.line}`));
  for (const { file, line, want } of rows) {
    const at = `${file}:${(linesOf.get(file) ?? []).indexOf(line) + 1}`;
    t.equal(refused.has(at) ? 'refused' : 'allowed', want, `${file}: ${line}`);
  }
});
