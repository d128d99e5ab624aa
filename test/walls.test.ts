/** The import walls of docs/architecture.md hold: each forbidden import is a lint error, each allowed one is not. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

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
  { file: 'src/sys/proc.ts', line: "import '../proxier/types.ts';", want: 'refused' },
  { file: 'src/netlink/nfacct.ts', line: "import 'koffi';", want: 'refused' },
  { file: 'src/netlink/socket.ts', line: "import 'koffi';", want: 'allowed' },
  { file: 'src/watch/reflector.ts', line: "import '../modes/mode.ts';", want: 'refused' },
  { file: 'src/watch/cluster.ts', line: "import '@kubernetes/client-node';", want: 'allowed' },
  { file: 'src/daemon.ts', line: "import '@kubernetes/client-node';", want: 'refused' },
  { file: 'src/cli/render.ts', line: "import '../modes/iptables/apply.ts';", want: 'refused' },
];

t.test('import walls', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'walls-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const config = JSON.parse(readFileSync(`${root}/biome.json`, 'utf8'));
  writeFileSync(`${dir}/biome.json`, JSON.stringify({ ...config, $schema: undefined, vcs: { enabled: false } }));
  // A folder a row, so that the file keeps its place below src/ in each.
  for (const [i, { file, line }] of rows.entries()) {
    const path = join(dir, `row${i}`, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${line}\n`);
  }
  for (const [i, { file, line, want }] of rows.entries()) {
    writeFileSync(join(dir, `row${i}`, 'biome.json'), readFileSync(`${dir}/biome.json`));
    const r = spawnSync(
      `${root}/node_modules/.bin/biome`,
      ['lint', '--only=style/noRestrictedImports', '--only=style/noRestrictedGlobals', 'src'],
      { cwd: join(dir, `row${i}`), encoding: 'utf8' },
    );
    const said = r.stdout + r.stderr;
    const got = r.status === 0 ? 'allowed' : /noRestricted(Imports|Globals)/.test(said) ? 'refused' : said;
    t.equal(got, want, `${file}: ${line}`);
  }
});
