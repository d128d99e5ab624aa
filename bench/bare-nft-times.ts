/**
 * Gives transactions to the kernel one after the other and prints what each took, in ms, as JSON: `{cold, changes}`.
 *
 *     node bench/bare-nft-times.ts SERVICES ENDPOINTS LAYOUT     (in a network namespace of its own: bench/bare-nft.ts does that)
 *
 * The objects are made by a few lines that know nothing of our renderer, so that a mistake there does not hide itself. What is
 * measured is one call: bytes written, sent, done by the kernel, and its answer read.
 *
 * @module
 */

import { createNftables } from '../src/netlink/nftables/kernel-nftables.ts';
import type { Command, SetElement, SetObject } from '../src/netlink/nftables/transaction.ts';
import { clusterIP, endpointIP } from './world.ts';

const [services = 0, endpoints = 0] = process.argv.slice(2, 4).map(Number);
const layout = process.argv[4] ?? 'chains';
const nftables = createNftables();

/** ms */
function commit(commands: readonly Command[]): number {
  const t0 = performance.now();
  const result = nftables.commit([{ family: 'ip', table: 'bare', commands }]);
  if (result.kind !== 'committed') throw new Error(`Cannot commit: ${JSON.stringify(result)}`);
  return performance.now() - t0;
}

const frontends: SetObject = { name: 'frontends', key: ['addr', 'inet_proto', 'inet_service'], data: 'verdict' };
const backends: SetObject = {
  name: 'backends',
  key: ['addr', 'inet_proto', 'inet_service', 'mark'],
  data: ['addr', 'inet_service'],
};
const frontend = (i: number, chain: string): Command => ({
  verb: 'add',
  object: 'element',
  set: frontends,
  elements: [{ key: [clusterIP(i), 'tcp', 80], data: { kind: 'goto', chain } }],
});

/** A chain of its own for service `i`, with a map in its rule. */
function rule(i: number, ks: readonly number[], round: number): Command {
  const elements = ks.map((k, n): SetElement => ({ key: [n], data: [endpointIP(i, k), 80] }));
  const map = { kind: 'anonymous', name: `map-${i}-${round}`, elements } as const;
  const random = { random: ks.length };
  const statements = [
    { kind: 'l4proto', protocol: 'tcp' },
    { kind: 'dnatMap', fields: [random], map },
  ] as const;
  return { verb: 'add', object: 'rule', rule: { chain: `service-${i}`, statements } };
}

function backend(i: number, n: number, k: number): SetElement {
  return { key: [clusterIP(i), 'tcp', 80, n], data: [endpointIP(i, k), 80] };
}

const ks = Array.from({ length: endpoints }, (_, k) => k);

function create(i: number): readonly Command[] {
  if (layout === 'maps') {
    const elements = ks.map((k, n) => backend(i, n, k));
    return [{ verb: 'add', object: 'element', set: backends, elements }, frontend(i, 'pick')];
  }
  const chain = { name: `service-${i}` };
  return [{ verb: 'add', object: 'chain', chain }, rule(i, ks, 0), frontend(i, chain.name)];
}

/** Service `i` gets other endpoints. */
function change(i: number): readonly Command[] {
  if (layout !== 'maps') return [{ verb: 'flush', object: 'chain', name: `service-${i}` }, rule(i, [9], 1)];
  return [
    { verb: 'delete', object: 'element', set: backends, elements: [backend(i, 0, 0)] },
    { verb: 'add', object: 'element', set: backends, elements: [backend(i, 0, 9)] },
  ];
}

const base = { type: 'nat', hook: 'output', priority: -100 } as const;
const first: readonly Command[] = [
  { verb: 'add', object: 'table' },
  { verb: 'add', object: 'set', set: frontends },
  { verb: 'add', object: 'set', set: backends },
  { verb: 'add', object: 'chain', chain: { name: 'output', base } },
  { verb: 'add', object: 'chain', chain: { name: 'pick' } },
  {
    verb: 'add',
    object: 'rule',
    rule: {
      chain: 'output',
      statements: [{ kind: 'vmap', fields: ['daddr', 'l4proto', 'dport'], map: { kind: 'named', map: 'frontends' } }],
    },
  },
  {
    verb: 'add',
    object: 'rule',
    rule: {
      chain: 'pick',
      statements: [
        { kind: 'l4proto', protocol: 'tcp' },
        {
          kind: 'dnatMap',
          fields: ['daddr', 'l4proto', 'dport', { random: Math.max(1, endpoints) }],
          map: { kind: 'named', map: 'backends' },
        },
      ],
    },
  },
];
const cold = [commit(first)];
for (let from = 0; from < services; from += 250) {
  const some = Array.from({ length: Math.min(250, services - from) }, (_, n) => create(from + n));
  cold.push(commit(some.flat()));
}
const changes = Array.from({ length: 9 }, (_, n) => commit(change(Math.floor((services * n) / 9))));
console.log(JSON.stringify({ cold, changes }));
nftables.close();
