/**
 * Objects broken by chance: what a server of another version, a broken proxy or malice may hand out.
 *
 * @module
 */

import type { Seeded } from './seeded.ts';

type Json = string | number | boolean | null | Json[] | { [field: string]: Json };

function nested(depth: number): Json {
  let value: Json = {};
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { deeper: value };
  return value;
}

/** Values that are wrong nearly everywhere, and a few that are only unusual. */
const EVIL: readonly [() => Json, ...(() => Json)[]] = [
  () => null,
  () => '',
  () => 0,
  () => -1,
  () => 65_536,
  () => 2 ** 53,
  () => 1.5,
  () => 1e308,
  () => true,
  () => [],
  () => ({}),
  () => [null],
  () => [[]],
  () => '\n-A KUBE-SERVICES -j ACCEPT\nCOMMIT\n*nat',
  () => '" -j ACCEPT "',
  () => "'; DROP TABLE rules; --",
  () => '\u0000\u0001\u001b[31m\u007f',
  () => '\u202etxt\ufeff\ud83d\ude00',
  () => '\ud800',
  () => 'a'.repeat(300),
  () => 'UPPER_case.And-dots',
  () => '-starts-with-a-dash',
  () => '$(reboot) `reboot` %s%n ../../etc/passwd',
  () => '10.0.0.1/33',
  () => '010.0.0.01',
  () => '999.1.1.1',
  () => '10.0.0.1,10.0.0.2',
  () => '!10.0.0.1',
  () => '::ffff:10.0.0.1',
  () => 'fe80::1%eth0',
  () => '0.0.0.0/0',
  () => '::',
  () => '255.255.255.255',
  () => '80',
  () => 'None',
  () => 'ClientIP',
  () => 'SCTP',
  () => 'tcp',
  () => nested(100),
  () => '__proto__',
];

/** Also a string of 100 kB and 1,000 levels: rare, since thousands of them are only a test of patience. */
const HUGE: readonly [() => Json, ...(() => Json)[]] = [() => 'x'.repeat(100_000), () => nested(1000)];

function isContainer(value: Json | undefined): value is Json[] | { [field: string]: Json } {
  return typeof value === 'object' && value !== null;
}

/** Every place below a value: the container and the field or index. */
function places(value: Json, into: [{ [field: string]: Json }, string][] = []): [{ [field: string]: Json }, string][] {
  if (!isContainer(value)) return into;
  const fields = value as { [field: string]: Json };
  for (const field of Object.keys(fields)) {
    into.push([fields, field]);
    const child = fields[field];
    if (child !== undefined) places(child, into);
  }
  return into;
}

/**
 * A copy of an object with one to three places broken: another value, no value, or the same twice.
 *
 * @param isSpared - Places to leave alone, told by field.
 */
export function mutated(object: unknown, chance: Seeded, isSpared: (field: string) => boolean = () => false): unknown {
  const copy: Json = JSON.parse(JSON.stringify(object));
  for (let left = chance.integer(1, 3); left > 0; left--) {
    const all = places(copy).filter(([, field]) => !isSpared(field));
    const [container, field] = all[chance.integer(0, Math.max(0, all.length - 1))] ?? [];
    if (container === undefined || field === undefined) break;
    const value = container[field];
    switch (chance.integer(0, 7)) {
      case 0:
        if (Array.isArray(container)) container.splice(Number(field), 1);
        else delete container[field];
        break;
      case 1:
        if (Array.isArray(container) && value !== undefined) container.push(value);
        else container[field] = [value ?? null];
        break;
      case 2:
        container[field] = chance.integer(0, 60) === 0 ? chance.pick(HUGE)() : chance.pick(EVIL)();
        break;
      default:
        container[field] = chance.pick(EVIL)();
    }
  }
  return copy;
}
