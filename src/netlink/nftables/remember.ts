/**
 * Rules that remember where a client was sent, as instructions. What one look-up finds is part of the key of the next: `client` lies
 * before `service` lies before `endpoint` in the registers, so that each pair of neighbours, and nothing else, is a key.
 *
 *     word  IPv4   IPv6
 *     0     client (4 bytes, 16 bytes)
 *     1     4      service (12 bytes, 24 bytes); before that the frontend it is found by
 *     4     10     endpoint: address, port
 *     6     15     free
 *
 *     client . service      key of `clients`
 *     service . endpoint    key of `endpoints`
 *
 * @module
 */

import { type Expression, registerAt } from './expression.ts';
import type { Field, FieldType, NftFamily, Remembering, Statement } from './transaction.ts';
import { ADDRESS_BYTES } from './uapi.ts';
import { fieldsBytes } from './user-data.ts';

/** Loads fields into registers from a word on. */
export type Load = (fields: readonly Field[], word: number) => readonly Expression[];

/** Instructions of a statement that remembers. @throws {RangeError} If the registers are too few. */
export function rememberExpressions(
  statement: Extract<Statement, { kind: 'dnatRemembered' | 'dnatRemembering' }>,
  family: NftFamily,
  load: Load,
): readonly Expression[] {
  const words = wordsOf(statement.service, family);
  const [key, service, endpoint] = [0, words.client, words.client + words.service].map(registerAt);
  const port = registerAt(words.client + words.service + words.client);
  if (key === undefined || service === undefined || endpoint === undefined) throw new RangeError('No registers');
  const { clients, timeoutSeconds } = statement;
  const remember = (op: 'delete' | 'update'): Expression => ({
    kind: 'dynset',
    op,
    set: clients,
    key,
    data: endpoint,
    timeoutMs: timeoutSeconds * 1000,
  });
  const clientAndService: readonly Expression[] = [
    ...load(['saddr'], 0),
    ...load(statement.frontend, words.client),
    { kind: 'lookup', set: statement.services, sreg: service, dreg: service },
  ];
  const dnat: Expression = { kind: 'dnat', address: endpoint, port };
  if (statement.kind === 'dnatRemembered') {
    return [
      ...clientAndService,
      { kind: 'lookup', set: clients, sreg: key, dreg: endpoint },
      { kind: 'lookup', set: statement.endpoints, sreg: service },
      remember('update'),
      dnat,
    ];
  }
  return [
    // Chosen first: the key of the choice needs room that client and service take later.
    ...load(statement.fields, 0),
    { kind: 'lookup', set: statement.choices, sreg: 1, dreg: endpoint },
    ...clientAndService,
    // An update of what is there would keep its old data.
    remember('delete'),
    remember('update'),
    dnat,
  ];
}

function wordsOf(
  service: readonly FieldType[],
  family: NftFamily,
): { readonly client: number; readonly service: number } {
  return { client: ADDRESS_BYTES[family] / 4, service: fieldsBytes(service, family) / 4 };
}

/** The statement in words close to those nft(8) lists, which it cannot read. */
export function formatRemembering(
  { frontend, services }: Remembering,
  format: (fields: readonly Field[]) => string,
): string {
  return `${format(frontend)} map @${services}`;
}
