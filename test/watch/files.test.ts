import { equal } from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import t, { type Test } from 'tap';
import { stringify } from 'yaml';
import { FakeClock } from '../../src/sys/fake-clock.ts';
import { Decoder } from '../../src/watch/decode.ts';
import { FileWatch } from '../../src/watch/file-watch.ts';
import { createFileSource, readManifests } from '../../src/watch/files.ts';
import { ManifestDecoder } from '../../src/watch/manifests.ts';
import {
  createSelection,
  ENDPOINT_SLICES,
  NODES,
  nodeNamed,
  SERVICE_CIDRS,
  SERVICES,
} from '../../src/watch/selectors.ts';
import { type Fields, rawService, rawSlice } from './objects.ts';
import { Recorder } from './scripted-api.ts';

const KINDS = [SERVICES, ENDPOINT_SLICES, SERVICE_CIDRS, NODES];

function service(name: string, spec: Fields = {}): Fields {
  return { apiVersion: 'v1', kind: 'Service', ...rawService(name, '', spec) };
}

function folder(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'manifests-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  return dir;
}

t.test('selectors', async (t) => {
  const object = {
    metadata: { name: 'a', labels: { app: 'web', empty: '' } },
    spec: { clusterIP: 'None', number: 1 },
  };
  const rows: readonly { label?: string; field?: string; selects: boolean }[] = [
    { selects: true },
    { label: 'app', selects: true },
    { label: 'empty', selects: true },
    { label: '!empty', selects: false },
    { label: 'other', selects: false },
    { label: '!other', selects: true },
    { label: '!toString', selects: true },
    { label: 'app=web', selects: true },
    { label: 'app==web, !other', selects: true },
    { label: 'app!=web', selects: false },
    { label: 'other!=web', selects: true },
    { label: 'app=web,other', selects: false },
    { field: 'spec.clusterIP=None', selects: true },
    { field: 'spec.clusterIP!=None', selects: false },
    { field: 'metadata.name=a', selects: true },
    { field: 'metadata.name=b', selects: false },
    { field: 'metadata.namespace=', selects: true },
    { field: 'spec.number=1', selects: true },
    { field: 'spec.clusterIP.deeper!=x', selects: true },
  ];
  for (const { label = '', field = '', selects } of rows) {
    const selected = createSelection({ labelSelector: label, fieldSelector: field })(object);
    t.equal(selected, selects, `labels "${label}" fields "${field}"`);
  }
  t.ok(createSelection({ labelSelector: '!x', fieldSelector: '' })({}), 'an object without metadata has no labels');
  for (const bad of ['=x', '!a=b', '!']) {
    t.throws(() => createSelection({ labelSelector: bad, fieldSelector: '' }), { name: 'SyntaxError' }, bad);
  }
});

t.test('ManifestDecoder', async (t) => {
  const decode = (text: string, kinds = KINDS) => new ManifestDecoder(kinds, new Decoder()).decode(text, 'f.yaml');
  const keys = (text: string, kinds = KINDS) => decode(text, kinds).objects.map((o) => `${o.kind} ${o.key}`);
  const slice: Fields = { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', ...rawSlice('web-abc', '') };
  const cidr = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'k' },
    spec: { cidrs: [] },
  };
  const typed = (names: readonly string[]) => names.map((name) => rawService(name, ''));

  const rows: readonly { name: string; text: string; want: readonly string[] }[] = [
    { name: 'nothing', text: '', want: [] },
    { name: 'comments and empty documents', text: '# a\n---\n---\nnull\n---\n', want: [] },
    { name: 'one object as YAML', text: stringify(service('a')), want: ['Service default/a'] },
    { name: 'one object as JSON', text: JSON.stringify(slice, null, 2), want: ['EndpointSlice default/web-abc'] },
    {
      name: 'documents of several kinds',
      text: [service('a'), slice, cidr].map((o) => stringify(o)).join('---\n'),
      want: ['Service default/a', 'EndpointSlice default/web-abc', 'ServiceCIDR k'],
    },
    {
      name: 'JSON documents in a row, as YAML allows',
      text: `${JSON.stringify(service('a'))}\n---\n${JSON.stringify(service('b'))}`,
      want: ['Service default/a', 'Service default/b'],
    },
    {
      name: 'a List, and a List in a List',
      text: stringify({ apiVersion: 'v1', kind: 'List', items: [service('a'), { kind: 'List', items: [slice] }] }),
      want: ['Service default/a', 'EndpointSlice default/web-abc'],
    },
    {
      name: 'a ServiceList, whose items name no kind',
      text: JSON.stringify({ apiVersion: 'v1', kind: 'ServiceList', metadata: {}, items: typed(['a', 'b']) }),
      want: ['Service default/a', 'Service default/b'],
    },
    {
      name: 'an object without a namespace, which is in default',
      text: stringify({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' } }),
      want: ['Service default/a'],
    },
    {
      name: 'what a proxy does not ask for',
      text: stringify({
        kind: 'List',
        items: [
          service('none', { clusterIP: 'None' }),
          {
            ...slice,
            metadata: { ...(slice['metadata'] as Fields), labels: { 'service.kubernetes.io/headless': '' } },
          },
        ],
      }),
      want: [],
    },
  ];
  for (const { name, text, want } of rows) {
    t.test(`reads ${name}`, async (t) => {
      const got = decode(text);
      t.same(
        got.objects.map((o) => `${o.kind} ${o.key}`),
        want,
      );
      t.same(got.problems, []);
      t.same(got.invalid, []);
    });
  }

  t.test('fills in clusterIPs as the API server does', async (t) => {
    const text = 'apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.43.0.9}';
    t.match(decode(text).objects, [{ clusterIP: '10.43.0.9', clusterIPs: ['10.43.0.9'] }]);
  });

  t.test('takes only the one Node that is asked for', async (t) => {
    const text = stringify({
      kind: 'List',
      items: ['a', 'b'].map((name) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } })),
    });
    t.same(keys(text, [nodeNamed('b')]), ['Node b']);
  });

  t.test('counts what it does not read, also the Service of another API', async (t) => {
    const other = { apiVersion: 'serving.knative.dev/v1', kind: 'Service', metadata: { name: 'a' } };
    const text = stringify({
      kind: 'List',
      items: [other, { apiVersion: 'v1', kind: 'Pod' }, { apiVersion: 'v1', kind: 'Pod' }],
    });
    t.strictSame(
      decode(text).ignored,
      new Map([
        ['serving.knative.dev/v1 Service', 1],
        ['v1 Pod', 2],
      ]),
    );
  });

  t.test('reports an object that does not decode, and goes on', async (t) => {
    const text = [
      service('bad', { ports: [{ port: 0 }] }),
      { apiVersion: 'v1', kind: 'Service', metadata: { name: 'B' } },
      service('a'),
    ]
      .map((o) => stringify(o))
      .join('---\n');
    const got = decode(text);
    t.same(
      got.objects.map((o) => o.key),
      ['default/a'],
    );
    t.match(got.invalid, [
      { kind: 'Service', key: 'default/bad', field: 'spec.ports[0].port' },
      { kind: 'Service', key: '?', field: 'metadata.name' },
    ]);
  });

  const broken: readonly { name: string; document: string; why: RegExp }[] = [
    { name: 'a list without end', document: 'a: [1', why: /./ },
    { name: 'a tab as indent', document: 'a:\n\tb: 1', why: /./ },
    { name: 'a text', document: 'hello', why: /is "hello", must be an object/ },
    { name: 'a list', document: '- 1', why: /is a list, must be an object/ },
    { name: 'an object without a kind', document: 'a: 1', why: /names no kind/ },
    { name: 'an alias to nothing', document: 'a: *b', why: /./ },
    {
      name: 'aliases that multiply',
      document: [
        'a: &a [x,x,x,x,x,x,x,x,x]',
        ...['b', 'c', 'd', 'e', 'f', 'g'].map((n, i) => `${n}: &${n} [${Array(9).fill(`*${'abcdefg'[i]}`)}]`),
      ].join('\n'),
      why: /alias/,
    },
  ];
  for (const { name, document, why } of broken) {
    t.test(`names the document that is ${name}, and reads the others`, async (t) => {
      const got = decode(`${stringify(service('a'))}---\n${document}\n---\n${stringify(service('b'))}`);
      t.same(
        got.objects.map((o) => o.key),
        ['default/a', 'default/b'],
      );
      t.equal(got.problems.length, 1);
      t.match(got.problems[0], { file: 'f.yaml', document: 2, why });
    });
  }
});

t.test('readManifests()', async (t) => {
  const dir = folder(t);
  const write = (name: string, text: string) => writeFileSync(join(dir, name), text);
  write('b.yaml', stringify(service('b')));
  write('a.json', JSON.stringify(service('a')));
  write('c.yml', stringify({ apiVersion: 'v1', kind: 'Pod' }));
  write('.hidden.yaml', stringify(service('hidden')));
  write('README.md', 'no manifest');
  mkdirSync(join(dir, 'below.yaml'));
  write('below.yaml/d.yaml', stringify(service('d')));
  const stdin = Readable.from([stringify(service('from-stdin'))]);
  const got = await readManifests({
    paths: [dir, '-', join(dir, 'below.yaml/d.yaml'), join(dir, 'none')],
    kinds: KINDS,
    stdin,
  });
  t.same(
    got.objects.map((o) => o.key),
    ['default/a', 'default/b', 'default/from-stdin', 'default/d'],
  );
  t.strictSame(got.ignored, new Map([['v1 Pod', 1]]));
  t.same(
    got.problems.map((p) => [p.file, p.document, /EISDIR|ENOENT/.exec(p.why)?.[0]]),
    [
      [join(dir, 'below.yaml'), 0, 'EISDIR'],
      [join(dir, 'none'), 0, 'ENOENT'],
    ],
  );
});

t.test('FileWatch notices', async (t) => {
  const ways: readonly { name: string; path: string; change: (dir: string) => void }[] = [
    { name: 'a file written in place', path: 'd/f', change: (dir) => writeFileSync(join(dir, 'd/f'), 'new') },
    {
      name: 'a file replaced by a rename',
      path: 'd/f',
      change: (dir) => {
        writeFileSync(join(dir, 'd/g'), 'new');
        renameSync(join(dir, 'd/g'), join(dir, 'd/f'));
      },
    },
    { name: 'a new file in a folder', path: 'd', change: (dir) => writeFileSync(join(dir, 'd/g'), 'new') },
    { name: 'a file that goes', path: 'd', change: (dir) => rmSync(join(dir, 'd/f')) },
    {
      name: 'a link to a folder that leads elsewhere',
      path: 'link',
      change: (dir) => {
        symlinkSync('e', join(dir, 'next'));
        renameSync(join(dir, 'next'), join(dir, 'link'));
      },
    },
    {
      name: 'a file written where a link leads',
      path: 'link/f',
      change: (dir) => writeFileSync(join(dir, 'd/f'), 'new'),
    },
    { name: 'a file to which a link leads', path: 'f', change: (dir) => writeFileSync(join(dir, 'd/f'), 'new') },
    { name: 'a folder that comes', path: 'later', change: (dir) => mkdirSync(join(dir, 'later')) },
  ];
  for (const { name, path, change } of ways) {
    t.test(name, async (t) => {
      const dir = folder(t);
      mkdirSync(join(dir, 'd'));
      mkdirSync(join(dir, 'e'));
      writeFileSync(join(dir, 'd/f'), 'old');
      symlinkSync('d', join(dir, 'link'));
      symlinkSync('d/f', join(dir, 'f'));
      using watch = new FileWatch([join(dir, path)]);
      await watch.renew();
      t.notOk(watch.changed.aborted);
      // The watch alone does not keep a process alive; and what is not noticed must end the test.
      const patience = setTimeout(() => t.fail('nothing noticed in 10 s'), 10_000);
      change(dir);
      await once(watch.changed, 'abort');
      clearTimeout(patience);
    });
  }
});

/** A source of files that a test changes. */
function follow(t: Test, paths: readonly string[]) {
  const clock = new FakeClock();
  const seen = new Recorder();
  const end = new AbortController();
  const running = createFileSource({ paths, kinds: [SERVICES], clock, stdin: Readable.from([]) }).run(seen, end.signal);
  // The system tells of changes when it likes: time passes until it has.
  let isOver = false;
  const passing = (async () => {
    while (!isOver) await clock.advance(100);
  })();
  t.teardown(async () => {
    end.abort();
    await running;
    isOver = true;
    await passing;
    equal(clock.sleeping, 0, 'leaves no timer');
  });
  return seen;
}

t.test('createFileSource()', async (t) => {
  const put = (dir: string, name: string, ...objects: readonly unknown[]) => {
    writeFileSync(
      join(dir, `.${name}.new`),
      objects.map((o) => (typeof o === 'string' ? o : stringify(o))).join('---\n'),
    );
    renameSync(join(dir, `.${name}.new`), join(dir, name));
  };

  t.test('delivers what is there, then what changes', async (t) => {
    const dir = folder(t);
    put(dir, 'a.yaml', service('a'), service('b'));
    const seen = follow(t, [dir]);
    t.same(await seen.until('synced Service'), ['upsert default/a', 'upsert default/b', 'synced Service']);
    put(dir, 'a.yaml', service('a'), service('b', { clusterIP: '10.43.0.99' }), service('c'));
    t.same(await seen.until('upsert default/c'), ['upsert default/b', 'upsert default/c']);
    put(dir, 'z.yaml', service('d'));
    await seen.until('upsert default/d');
    writeFileSync(join(dir, 'z.yaml'), stringify(service('e')));
    t.same(await seen.until('delete default/d'), ['upsert default/e', 'delete default/d']);
    rmSync(join(dir, 'a.yaml'));
    t.same(await seen.until('delete default/c'), ['delete default/a', 'delete default/b', 'delete default/c']);
    rmSync(join(dir, 'z.yaml'));
    await seen.until('delete default/e');
  });

  t.test('follows a single file, replaced or swapped by a link', async (t) => {
    const dir = folder(t);
    // As kubelet does: ..data is a link to a folder, and the files are links into ..data.
    const version = (n: number, ...objects: readonly unknown[]) => {
      mkdirSync(join(dir, `..${n}`));
      put(join(dir, `..${n}`), 'm.yaml', ...objects);
      symlinkSync(`..${n}`, join(dir, '..next'));
      renameSync(join(dir, '..next'), join(dir, '..data'));
    };
    version(1, service('a'));
    symlinkSync('..data/m.yaml', join(dir, 'm.yaml'));
    const [one, all] = [follow(t, [join(dir, 'm.yaml')]), follow(t, [dir])];
    for (const seen of [one, all]) await seen.until('synced Service');
    version(2, service('b'));
    for (const seen of [one, all])
      t.same(await seen.until('delete default/a'), ['upsert default/b', 'delete default/a']);
  });

  t.test('of one object in two files the later file counts, and the other when that is gone', async (t) => {
    const dir = folder(t);
    put(dir, 'a.yaml', service('a', { clusterIP: '10.43.0.1' }));
    put(dir, 'b.yaml', service('a', { clusterIP: '10.43.0.2' }));
    const seen = follow(t, [dir]);
    await seen.until('synced Service');
    t.match(seen.events, [{ object: { clusterIP: '10.43.0.2' } }, { type: 'synced' }]);
    rmSync(join(dir, 'b.yaml'));
    await seen.until('upsert default/a');
    t.match(seen.events.at(-1), { object: { clusterIP: '10.43.0.1' } });
  });

  t.test('keeps what was last good of a file that is broken', async (t) => {
    const dir = folder(t);
    put(dir, 'a.yaml', service('a'), service('b'));
    put(dir, 'b.yaml', service('c'));
    const seen = follow(t, [dir]);
    await seen.until('synced Service');
    put(dir, 'a.yaml', service('a', { clusterIP: '10.43.0.99' }), 'x: [\n', service('d'));
    t.same(await seen.until('upsert default/d'), ['upsert default/a', 'upsert default/d']);
    t.match(await seen.status('broken-file'), { file: join(dir, 'a.yaml'), document: 2 });
    put(dir, 'a.yaml', service('a', { ports: [{ port: 0 }] }), service('d'));
    t.same(
      await seen.until('delete default/b'),
      ['invalid default/a spec.ports[0].port', 'delete default/b'],
      'b is gone, a is bad',
    );
    put(dir, 'a.yaml', service('d'));
    t.same(await seen.until('delete default/a'), ['delete default/a']);
  });

  t.test('a folder that goes away takes nothing with it; one that comes is read', async (t) => {
    const parent = folder(t);
    const dir = join(parent, 'manifests');
    const seen = follow(t, [dir]);
    t.match(await seen.status('broken-file'), { file: dir, document: 0, why: /ENOENT/ });
    t.same(seen.log, [], 'a folder that is not there yet is not an empty one');
    mkdirSync(dir);
    put(dir, 'a.yaml', service('a'));
    await seen.until('upsert default/a');
    renameSync(dir, join(parent, 'aside'));
    await seen.status('broken-file');
    mkdirSync(dir);
    put(dir, 'a.yaml', service('a'), service('b'));
    t.same(
      (await seen.until('upsert default/b')).filter((line) => line !== 'synced Service'),
      ['upsert default/b'],
    );
  });

  t.test('says which objects it does not read', async (t) => {
    const dir = folder(t);
    put(dir, 'a.yaml', { apiVersion: 'v1', kind: 'Pod' });
    const seen = follow(t, [dir]);
    await seen.until('synced Service');
    t.strictSame((await seen.status('ignored')).counts, new Map([['v1 Pod', 1]]));
  });
});
