/** The documents: generated pages are fresh, and whatever a page names exists. */
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { shortBuckets } from '../scripts/docs/metrics.ts';
import { PAGES } from '../scripts/docs/pages.ts';
import { FLAG_NAMES } from '../src/config/flags.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

/** What is wrong with a page, one sentence each. `path` is where it stands, from the root. */
function problemsOf(path: string, text: string, scripts: ReadonlySet<string>): readonly string[] {
  const problems: string[] = [];
  // What stands in a block of code is an example, but for its commands.
  const prose = text.replaceAll(/^```[\s\S]*?^```$/gm, '');
  for (const [, target = ''] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [file = '', anchor = ''] = target.split('#', 2);
    const at = file === '' ? '' : normalize(join(dirname(path), file));
    if (!existsSync(join(root, at))) problems.push(`links to "${target}", which does not exist`);
    else if (anchor !== '' && !anchorsOf(at === '' ? text : read(at)).has(anchor))
      problems.push(`links to "${target}", a heading that does not exist`);
  }
  for (const [, script = ''] of text.matchAll(/\bnpm run ([\w:-]+)/g)) {
    if (!scripts.has(script)) problems.push(`names "npm run ${script}", which does not exist`);
  }
  const named = prose.matchAll(
    /`((?:src|test|docs|scripts|bench|bin|deploy)\/[\w./*-]+)`|(?<![\w[(`/])(docs\/[\w./-]*\w)/g,
  );
  for (const [, quoted, page] of named) {
    const file = quoted ?? page ?? '';
    const there = file.includes('*') ? globSync(file, { cwd: root }).length > 0 : existsSync(join(root, file));
    if (!there && !isStartOfAFile(file)) problems.push(`names "${file}", which does not exist`);
  }
  return problems;
}

/** `docs/decisions/0003` for `docs/decisions/0003-edit-shared-chains.md`. */
const isStartOfAFile = (file: string) => /\/\d{4}$/.test(file) && globSync(`${file}-*`, { cwd: root }).length > 0;

/** Headings as GitHub makes anchors of them. */
function anchorsOf(text: string): ReadonlySet<string> {
  const headings = Array.from(text.matchAll(/^#+ (.*)$/gm), ([, title = '']) => title);
  return new Set(
    headings.map((h) =>
      h
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    ),
  );
}

const scripts = new Set(Object.keys(JSON.parse(read('package.json')).scripts));

for (const [path, render] of Object.entries(PAGES)) {
  t.test(`${path} is what "npm run docs" writes`, async (t) => {
    const there = existsSync(join(root, path)) ? read(path) : '';
    t.equal(there, await render(), 'run "npm run docs" and commit what it writes');
  });
}

t.test('the page of the command line has every flag and command', async (t) => {
  const page = read('docs/cli.md');
  for (const name of FLAG_NAMES) t.match(page, new RegExp(`^\\| \`(-\\w, )?--${name}[\`[ ]`, 'm'), name);
  for (const command of ['run', 'render', 'lab demo', 'lab up', 'version']) {
    t.match(page, new RegExp(`^## switchyard ${command}$`, 'm'));
  }
});

t.test('shortBuckets()', async (t) => {
  for (const { buckets, want } of [
    { buckets: [], want: '' },
    { buckets: [1], want: '1' },
    { buckets: [1, 2, 3], want: '1, 2, 3' },
    { buckets: [1, 2, 3, 4], want: '1 to 4 by 1' },
    { buckets: [1, 2, 4, 8, 16], want: '1 to 16 × 2' },
    { buckets: [0, 0.25, 0.5, 1, 2, 3, 4, 5], want: '0, 0.25 to 2 × 2, 3, 4, 5' },
    { buckets: [0, 5, 10, 15, 100], want: '0 to 15 by 5, 100' },
  ]) {
    t.equal(shortBuckets(buckets), want, buckets.join(' '));
  }
});

t.test('what pages name exists', async (t) => {
  const pages = ['*.md', 'docs/**/*.md'].flatMap((pattern) => globSync(pattern, { cwd: root })).sort();
  t.ok(pages.includes('README.md') && pages.includes('docs/architecture.md'));
  for (const path of pages) t.same(problemsOf(path, read(path), scripts), [], path);
});

t.test('and what does not is found', async (t) => {
  for (const { text, want } of [
    { text: '[a](https://example.com/x)', want: [] },
    { text: '[a](decisions/none.md)', want: ['links to "decisions/none.md", which does not exist'] },
    { text: '[a](../README.md#modes)', want: [] },
    { text: '[a](../README.md#none)', want: ['links to "../README.md#none", a heading that does not exist'] },
    { text: '# A b\n[a](#a-b)', want: [] },
    { text: '`npm run ok`, `npm run none`', want: ['names "npm run none", which does not exist'] },
    { text: '`src/none.ts` and `src/daemon.ts`', want: ['names "src/none.ts", which does not exist'] },
    { text: '`test/**/*.test.ts`, docs/decisions/0003', want: [] },
    { text: 'see docs/none.md.', want: ['names "docs/none.md", which does not exist'] },
    { text: '```\n[a](none)\nnpm run none\n```', want: ['names "npm run none", which does not exist'] },
  ]) {
    t.same(problemsOf('docs/x.md', text, scripts), want, text);
  }
});
