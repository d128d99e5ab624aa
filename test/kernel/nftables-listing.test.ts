/**
 * A table full of everything, of each layout, can be listed by nft(8): whole, terse, as JSON, in both families at once; and what is
 * listed can be loaded. On a bad day that is all there is.
 */

import { spawnSync } from 'node:child_process';
import t, { type Test } from 'tap';
import { createLab } from '../../src/lab/lab.ts';
import { TABLE } from '../../src/modes/nftables/base-chains.ts';
import { createAll, nftFamily } from '../../src/modes/nftables/create.ts';
import type { Layout, LayoutName } from '../../src/modes/nftables/layout.ts';
import { LAYOUTS } from '../../src/modes/nftables/layouts.ts';
import { createNftables } from '../../src/netlink/nftables/kernel-nftables.ts';
import type {
  Command,
  FieldType,
  NftFamily,
  Scalar,
  SetElement,
  SetObject,
  Transaction,
} from '../../src/netlink/nftables/transaction.ts';
import type { Family, Protocol, ServicePort } from '../../src/proxier/types.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { caseInside, runInside } from '../lib/namespace.ts';
import { makeNftFacts, makeNftOptions } from '../lib/nftables-world.ts';
import { POD_PORT, routeOutside, switchObjects, switchTargets } from '../lib/switch-cluster.ts';

t.setTimeout(300_000);

const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];
const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
/** Elements that packets would have written, in each set that they write. */
const LEARNED = 20;

/** What nft says of the update of a map, a statement that it lists in JSON as text. */
const NO_JSON = /^(?:warning: stmt ops map have no json callback\n)*$/;

// ---------------------------------------------------------------------------------------------------------
// A table of everything

/** Address `n` of network `net`, of both below 100. */
const addressOf = (family: Family, net: number, n: number) =>
  ip(family === 'IPv4' ? `10.${net}.0.${n}` : `fd00:${net}::${n}`);

/** Of every kind of service two, in each protocol and with each affinity, with three endpoints, and one with none. */
function plansOf(family: Family, affinities: readonly (number | undefined)[]) {
  const ranges = (family === 'IPv4' ? ['192.168.1.0/24', '172.16.0.0/12'] : ['fd00:1::/64', 'fd00:2::/63']).map(cidr);
  const external = { externalPolicyLocal: true };
  const kinds: readonly ((n: number) => Partial<Omit<ServicePort, 'service' | 'name'>>)[] = [
    () => ({}),
    () => ({ internalPolicyLocal: true }),
    (n) => ({ nodePort: 30_000 + n }),
    (n) => ({ nodePort: 30_000 + n, ...external }),
    (n) => ({ externalIPs: [addressOf(family, 61, n)] }),
    (n) => ({ loadBalancerVIPs: [addressOf(family, 62, n)], nodePort: 30_000 + n, ...external }),
    (n) => ({ loadBalancerVIPs: [addressOf(family, 62, n)], sourceRanges: ranges }),
  ];
  return kinds.flatMap((kind, k) =>
    affinities.flatMap((affinitySeconds, a) =>
      PROTOCOLS.flatMap((protocol, p) =>
        [3, 3, 0].map((endpoints, e) => {
          const n = 1 + e + 3 * (p + 3 * (a + 3 * k));
          const clusterIP = ip(family === 'IPv4' ? `10.43.${n >> 6}.${n}` : `fd00:43::${n}`);
          const port = { ...kind(n % 250), serviceName: `s${n}`, clusterIP, protocol, affinitySeconds };
          const pods = Array.from({ length: endpoints }, (_, i) =>
            makeEndpoint(addressOf(family, 50 + i, n % 250), { isLocal: i === 1 }),
          );
          return makePlan(makeServicePort(port), pods);
        }),
      ),
    ),
  );
}

/** Field type → a value of it, another one for each number. */
const VALUES: ReadonlyMap<string, (family: Family, n: number) => Scalar> = new Map([
  ['addr', (family: Family, n: number): Scalar => addressOf(family, 70, n)],
  ['inet_proto', (_, n) => ['tcp', 'udp', 'sctp'][n % 3] ?? 'tcp'],
  ['inet_service', (_, n) => 1000 + n],
  ['mark', (_, n) => n],
  ['classid', (_, n) => `${n.toString(16)}:1`],
  ['integer', (_, n) => n],
]);

function fieldValue(type: FieldType, family: Family, n: number): Scalar {
  const value = VALUES.get(type);
  if (value === undefined) throw new Error(`Cannot fill a set of ${type}: there are no values of it`);
  return value(family, n);
}

/** What packets might have written into a set. */
function learnedIn({ key, data }: SetObject, family: Family): readonly SetElement[] {
  return Array.from({ length: LEARNED }, (_, n) => {
    const values = (types: readonly FieldType[]) => types.map((type, i) => fieldValue(type, family, 1 + n + i));
    const rest = data === undefined || data === 'verdict' ? {} : { data: values(data) };
    return { key: values(key), ...rest, timeoutMs: 600_000 };
  });
}

interface Content {
  readonly transaction: Transaction;
  readonly sets: readonly SetObject[];
  /** By set. */
  readonly elements: ReadonlyMap<string, readonly SetElement[]>;
}

const AFFINITIES = [undefined, 100, 10_800];

function contentOf(layout: Layout, family: Family, affinities = AFFINITIES): Content {
  const isV4 = family === 'IPv4';
  const options = makeNftOptions({ family });
  const facts = makeNftFacts({
    nodeIPs: [options.nodeIP],
    serviceCIDRs: isV4 ? ['10.43.0.0/16', '10.45.0.0/16'] : ['fd00:43::/64', 'fd00:45::/64'],
  });
  const { statics, services } = createAll(layout, plansOf(family, affinities), options, facts);
  const created = [...statics, ...services.flatMap((service) => service.commands)];
  const sets = created.flatMap((command) => (command.object === 'set' && command.verb === 'add' ? [command.set] : []));
  const learned = sets
    .filter(({ flags }) => flags?.includes('dynamic'))
    .map((set): Command => ({ verb: 'add', object: 'element', set, elements: learnedIn(set, family) }));
  const commands = [...created, ...learned];
  const elements = new Map<string, readonly SetElement[]>();
  for (const command of commands) {
    if (command.object !== 'element') continue;
    elements.set(command.set.name, [...(elements.get(command.set.name) ?? []), ...command.elements]);
  }
  return { transaction: { family: nftFamily(family), table: TABLE, commands }, sets, elements };
}

// ---------------------------------------------------------------------------------------------------------
// What nft says of it

function nft(input: string, ...args: readonly string[]) {
  const { status, signal, stdout, stderr } = spawnSync('nft', args, { input, encoding: 'utf8', maxBuffer: 1 << 28 });
  return { ended: signal ?? status, stdout, stderr };
}

/** Sets and maps of a listing, by family and name: the text of each. */
function blocksOf(listing: string): ReadonlyMap<string, string> {
  const blocks = new Map<string, string>();
  for (const [, family = '', table = ''] of listing.matchAll(/^table (\S+) \S+ \{\n(.*?)^\}/gms)) {
    for (const [block, name = ''] of table.matchAll(/^\t(?:set|map) (\S+) \{\n.*?^\t\}/gms)) {
      blocks.set(`${family} ${name}`, block);
    }
  }
  return blocks;
}

/** The part of nft's JSON that this test reads. */
interface JsonListing {
  readonly nftables: readonly Readonly<
    Partial<Record<'set' | 'map', { family: string; name: string; elem?: readonly unknown[] }>>
  >[];
}

const decodeJson = (text: string) => JSON.parse(text) as JsonListing;

function assertListed(contents: readonly Content[]): void {
  const whole = nft('', 'list', 'ruleset');
  t.match(whole, { ended: 0, stderr: '' }, 'nft list ruleset');
  for (const args of [
    ['list', 'tables'],
    ['--terse', 'list', 'ruleset'],
    ['-s', 'list', 'ruleset'],
    ['list', 'sets'],
  ]) {
    t.match(nft('', ...args), { ended: 0, stderr: '' }, `nft ${args.join(' ')}`);
  }
  const json = nft('', '-j', 'list', 'ruleset');
  t.match(json, { ended: 0, stderr: NO_JSON }, 'nft -j list ruleset');
  const counts = new Map<string, number>();
  for (const object of json.ended === 0 ? decodeJson(json.stdout).nftables : []) {
    const set = object.set ?? object.map;
    if (set !== undefined) counts.set(`${set.family} ${set.name}`, set.elem?.length ?? 0);
  }
  const blocks = blocksOf(whole.stdout);
  const types = new Set<string>();
  for (const { transaction, sets, elements } of contents) {
    const { family } = transaction;
    for (const { name, key, data, flags } of sets) {
      const written = elements.get(name) ?? [];
      const block = blocks.get(`${family} ${name}`) ?? '';
      const missing = written.filter(({ key }) => !block.includes(key.join(' . ')));
      t.same(missing, [], `${family} ${name}: ${written.length} elements are listed`);
      t.equal(counts.get(`${family} ${name}`), written.length, `${family} ${name}: so many in JSON`);
      // Layout chains has a set for each endpoint, all of one type.
      const type = JSON.stringify([family, key, data, flags]);
      if (types.has(type)) continue;
      types.add(type);
      const word = data === undefined ? 'set' : 'map';
      t.match(nft('', 'list', word, family, TABLE, name), { ended: 0, stderr: '' }, `nft list ${word} ${name}`);
    }
  }
}

function write(transactions: readonly Transaction[]): void {
  const nftables = createNftables();
  const result = nftables.commit(transactions);
  nftables.close();
  if (result.kind !== 'committed') throw new Error(`Cannot write the table: ${JSON.stringify(result).slice(0, 500)}`);
}

function listedOf(layout: Layout): void {
  const contents = FAMILIES.map((family) => contentOf(layout, family));
  write(contents.map(({ transaction }) => transaction));
  const all = contents.flatMap(({ sets, elements }) => sets.map(({ name }) => elements.get(name)?.length ?? 0));
  t.ok(all.filter((count) => count > 1).length > all.length - 5, `${all.length} sets, all but a few of many elements`);
  assertListed(contents);
}

/** Without affinity: nft 1.0.6 cannot load all rules of layout maps that remember clients. */
function loadsAgain(layout: Layout): void {
  const contents = FAMILIES.map((family) => contentOf(layout, family, [undefined]));
  write(contents.map(({ transaction }) => transaction));
  const listing = nft('', 'list', 'ruleset').stdout;
  const withoutTimes = nft('', '-s', 'list', 'ruleset').stdout;
  t.match(nft(`flush ruleset\n${listing}`, '-f', '-'), { ended: 0, stderr: '' });
  // Not a protocol more: nft adds what it thinks a port needs, and then lists `tcp dport`.
  t.equal(nft('', '-s', 'list', 'ruleset').stdout, withoutTimes, 'and is the same');
}

const cases: Readonly<Record<string, () => void>> = Object.fromEntries(
  Object.values(LAYOUTS).flatMap((layout) => [
    [`layout ${layout.name} is listed`, () => listedOf(layout)],
    [`layout ${layout.name} is loaded again`, () => loadsAgain(layout)],
  ]),
);

// ---------------------------------------------------------------------------------------------------------
// What real packets have written

async function learnedByPackets(t: Test, layout: LayoutName): Promise<void> {
  const ports = [{ kind: 'tcp' as const, port: POD_PORT }];
  await using lab = await createLab({ pods: 3, ports, mode: 'nftables', config: { nftables: { layout } } });
  await routeOutside(lab);
  lab.apply(switchObjects(lab.topology));
  await lab.settled();
  const [pod = lab.node] = lab.pods;
  const clients = [
    { from: lab.client, name: 'client' },
    { from: pod, name: 'pod' },
    { from: lab.node, name: 'node' },
  ] as const;
  for (const { from, name } of clients) {
    const targets = switchTargets(lab, name).filter((target) => target.name.includes('sticky'));
    for (const { address, port } of targets) {
      const outcome = await lab.request(from, { address, port, kind: 'tcp', timeoutMs: 10_000 });
      t.equal(outcome.kind, 'answered', `${name}: ${address} ${port}`);
    }
  }
  const run = (...args: readonly string[]) => lab.node.exec.run({ argv: ['nft', ...args], timeoutMs: 20_000 });
  const families: readonly NftFamily[] = ['ip', 'ip6'];
  t.match(await run('list', 'tables'), families.map((family) => `table ${family} ${TABLE}\n`).join(''));
  const listing = await run('list', 'ruleset');
  for (const family of families) {
    const learned = [...blocksOf(listing)].filter(
      ([name, text]) => name.startsWith(`${family} `) && /flags dynamic/.test(text),
    );
    const count = learned.reduce((sum, [, text]) => sum + [...text.matchAll(/ expires /g)].length, 0);
    t.ok(count >= clients.length * 2, `${family}: ${count} entries that packets wrote`);
  }
  for (const args of [
    ['-s', 'list', 'ruleset'],
    ['-j', 'list', 'ruleset'],
  ])
    t.not(await run(...args), '', args.join(' '));
}

const inside = caseInside();
if (inside !== undefined) cases[inside]?.();
else {
  for (const name of Object.keys(cases)) t.test(name, async (t) => runInside(t, import.meta.url, name));
  for (const { name } of Object.values(LAYOUTS)) {
    t.test(`layout ${name}, what packets wrote`, async (t) => learnedByPackets(t, name));
  }
}
