import { deepStrictEqual, equal } from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { LineSplitter } from '../../src/watch/lines.ts';
import { ListSplitter } from '../../src/watch/list-stream.ts';

/** Cuts bytes at the given places, in any order, also at the same place twice. */
function cut(bytes: Buffer, places: readonly number[]): readonly Buffer[] {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return ends.map((end, i) => bytes.subarray(i === 0 ? 0 : ends[i - 1], end));
}

function split(chunks: readonly Buffer[]): { items: unknown[]; head: unknown } {
  const items: unknown[] = [];
  const splitter = new ListSplitter((text) => items.push(JSON.parse(text)));
  for (const chunk of chunks) splitter.push(chunk);
  return { items, head: splitter.end() };
}

/** Fields around the items, before and after them, whose values may look like anything. */
const arbAround = fc.dictionary(
  fc.string({ unit: 'binary', maxLength: 8 }).filter((name) => name !== 'items' && name !== '__proto__'),
  fc.jsonValue({ maxDepth: 2 }),
  { maxKeys: 3 },
);
const arbPlaces = fc.array(fc.nat(), { maxLength: 12 });

t.test('ListSplitter gives the items of any list, wherever its bytes are cut', async () => {
  const arbItems = fc.array(fc.jsonValue({ maxDepth: 3, stringUnit: 'binary' }), { maxLength: 6 });
  fc.assert(
    fc.property(arbAround, arbItems, arbAround, fc.constantFrom(undefined, 1, '\t'), arbPlaces, (...given) => {
      const [before, items, after, indent, places] = given;
      const text = JSON.stringify({ ...before, items, ...after }, null, indent);
      const got = split(cut(Buffer.from(text), places));
      const want = JSON.parse(text);
      deepStrictEqual(got, { items: want.items, head: { ...want, items: [] } });
    }),
    { numRuns: 300 },
  );
});

t.test('ListSplitter', async (t) => {
  const good: readonly { name: string; text: string; items: unknown[]; head: unknown }[] = [
    { name: 'no items', text: '{"a":1}', items: [], head: { a: 1 } },
    { name: 'null items', text: '{"items":null}', items: [], head: { items: null } },
    { name: 'items deeper down', text: '{"a":{"items":[1]},"b":[{"items":[2]}]}', items: [], head: undefined },
    { name: 'a string that says items', text: '{"a":"items","b":["x"]}', items: [], head: undefined },
    { name: 'a name that only ends so', text: '{"an items":["x"]}', items: [], head: undefined },
    {
      name: 'brackets and quotes in strings',
      text: '{"items":["]}","\\"]",{"a":"}\\\\"}]}',
      items: [']}', '"]', { a: '}\\' }],
      head: { items: [] },
    },
    {
      name: 'items of every type',
      text: '{"items":[1,"a",null,true,[],{}, -2e3 ]}',
      items: [1, 'a', null, true, [], {}, -2000],
      head: { items: [] },
    },
    {
      name: 'blanks everywhere',
      text: ' {\n"items" : [ {} , [ 1 ] ] , "a" : 1 } \n',
      items: [{}, [1]],
      head: { items: [], a: 1 },
    },
  ];
  for (const { name, text, items, head } of good) {
    t.test(`reads ${name}`, async (t) => {
      const bytes = Buffer.from(text);
      for (const chunks of [[bytes], [...bytes].map((byte) => Buffer.from([byte]))]) {
        t.strictSame(split(chunks), { items, head: head ?? JSON.parse(text) });
      }
    });
  }
  const bad = [
    '',
    '{',
    '{"items":[',
    '{"items":[{}',
    '{"items":[{}]',
    '{"items":[1,"a',
    '{"items":[1}]}',
    '{"items":[]}}',
    '{"items":[]} x',
    '{"a":1,}',
    '{"items":[}',
    '{"it\\u0065ms":[1]}',
    '{"items":[1"x"]}',
  ];
  for (const text of bad) {
    t.test(`refuses ${text || 'nothing'}`, async (t) => {
      t.throws(() => split([Buffer.from(text)]), { name: 'SyntaxError' });
    });
  }
  t.test('refuses an item without end before it has eaten the memory', async (t) => {
    const splitter = new ListSplitter(() => {});
    splitter.push(Buffer.from('{"items":[{"a":"'));
    const chunk = Buffer.alloc(2 ** 20, 0x61);
    t.throws(
      () => {
        for (let i = 0; i < 20; i++) splitter.push(chunk);
      },
      { name: 'SyntaxError', message: /more than 16777216 bytes/ },
    );
  });
  t.test('keeps nothing of a chunk: its bytes may change under it', async (t) => {
    const items: string[] = [];
    const splitter = new ListSplitter((text) => items.push(text));
    for (const part of ['{"items":[{"a":"x', 'y"}],"b":"', 'z"}']) {
      const chunk = Buffer.from(part);
      splitter.push(chunk);
      chunk.fill(0x21);
    }
    t.same(items, ['{"a":"xy"}']);
    t.same(splitter.end(), { items: [], b: 'z' });
  });
});

t.test('LineSplitter gives every line that is not blank, wherever its bytes are cut', async () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue({ stringUnit: 'binary' })), arbPlaces, (values, places) => {
      const bytes = Buffer.from(values.map((value) => `${JSON.stringify(value)}\n`).join('\n\r\n'));
      const lines: string[] = [];
      const splitter = new LineSplitter((line) => lines.push(line));
      for (const chunk of cut(bytes, places)) splitter.push(chunk);
      deepStrictEqual(
        lines.map((line) => JSON.parse(line)),
        JSON.parse(JSON.stringify(values)),
      );
      equal(splitter.isInLine, false);
    }),
    { numRuns: 200 },
  );
});

t.test('LineSplitter', async (t) => {
  const splitter = new LineSplitter(() => {});
  splitter.push(Buffer.from('{"a"'));
  t.ok(splitter.isInLine, 'knows that a line has begun');
  const chunk = Buffer.alloc(2 ** 20, 0x61);
  t.throws(
    () => {
      for (let i = 0; i < 20; i++) splitter.push(chunk);
    },
    { name: 'SyntaxError', message: /more than 16777216 bytes/ },
  );
});
