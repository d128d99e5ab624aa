/**
 * Commands in the language of `nft -f`: for people, and for `nft` to load. A line a command.
 *
 *     add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
 *
 * @module
 */

import { familyOfText } from './address.ts';
import type {
  ChainObject,
  Command,
  Field,
  FieldType,
  MapReference,
  NftFamily,
  RuleObject,
  Scalar,
  SetElement,
  SetObject,
  Statement,
  Transaction,
  Verdict,
} from './transaction.ts';
import { checkFieldCount, needsTypeof, TYPEOF_MODULUS } from './user-data.ts';

/** Where a command is at work. */
export interface CommandPlace {
  readonly family: NftFamily;
  readonly table: string;
}

/** nft refuses longer ones; the kernel takes up to 253. */
export const TEXT_COMMENT_BYTES_MAX = 128;

/** Before a rule that nft cannot read, which makes it a comment: the rest can be loaded without it. */
const UNREADABLE = '# nft cannot load this rule: ';

/** What nft reads as a name. */
const NAME = /^[A-Za-z][\w./-]{0,254}$/;
/** Addresses, ranges of them, and protocols. */
const WORD = /^[\w.:/-]+$/;

const TYPE_WORDS: Readonly<Record<Exclude<FieldType, 'addr'>, string>> = {
  inet_proto: 'inet_proto',
  inet_service: 'inet_service',
  mark: 'mark',
  classid: 'classid',
  integer: 'integer',
};

function name(text: string): string {
  if (NAME.test(text)) return text;
  throw new RangeError(
    `Cannot write "${text}" as a name for nft: must be a letter and up to 254 letters, digits, ". / - _"`,
  );
}

function word(value: Scalar): string {
  const text = String(value);
  if (WORD.test(text)) return text;
  throw new RangeError(
    `Cannot write "${text}" as a value for nft: must be an address, a range, a protocol or a number`,
  );
}

/** @throws {RangeError} If nft cannot read a text with this comment: it knows no escapes. */
function quoted(text: string, most: number): string {
  if (!/["\n\0]/.test(text) && Buffer.byteLength(text) <= most) return `"${text}"`;
  throw new RangeError(
    `Cannot write "${text}" as a text for nft: must be at most ${most} bytes on one line without quotes`,
  );
}

function comment(text: string | undefined): string {
  return text === undefined ? '' : ` comment ${quoted(text, TEXT_COMMENT_BYTES_MAX)}`;
}

/** As in a mark: `0x00004000`. */
function hex(mask: number): string {
  return `0x${(mask >>> 0).toString(16).padStart(8, '0')}`;
}

/**
 * One command as one line, without its end.
 *
 * @throws {RangeError} If nft has no words for it, though the kernel may take it: a comment of more than 128 bytes, a name it cannot read.
 */
export function formatCommand(command: Command, place: CommandPlace): string {
  const table = `${place.family} ${name(place.table)}`;
  switch (command.object) {
    case 'table':
      return command.verb === 'delete' || command.comment === undefined
        ? `${command.verb} table ${table}`
        : `add table ${table} {${comment(command.comment)} ; }`;
    case 'chain':
      return command.verb === 'add'
        ? `add chain ${table} ${formatChain(command.chain)}`
        : `${command.verb} chain ${table} ${name(command.name)}`;
    case 'set':
      if (command.verb === 'add') {
        const { data } = command.set;
        return `add ${data === undefined ? 'set' : 'map'} ${table} ${formatSet(command.set, place.family)}`;
      }
      return `${command.verb} ${command.isMap ? 'map' : 'set'} ${table} ${name(command.name)}`;
    case 'rule':
      return `${isReadable(command.rule, place.family) ? '' : UNREADABLE}add rule ${table} ${name(command.rule.chain)} ${formatRule(command.rule, place.family)}`;
    case 'element': {
      const keysOnly = command.verb === 'delete';
      const elements = command.elements.map((element) => formatElement(element, { keysOnly }));
      return `${command.verb} element ${table} ${name(command.set.name)} { ${elements.join(', ')} }`;
    }
  }
}

/** All commands of a transaction, each line ended. @throws {RangeError} As `formatCommand`. */
export function formatTransaction(transaction: Transaction): string {
  return transaction.commands
    .filter((command) => command.object !== 'element' || command.elements.length > 0)
    .map((command) => `${formatCommand(command, transaction)}\n`)
    .join('');
}

function formatChain({ name: chain, base, comment: text }: ChainObject): string {
  const parts: string[] = [];
  if (base !== undefined) parts.push(` type ${base.type} hook ${base.hook} priority ${base.priority} ;`);
  if (text !== undefined) parts.push(`${comment(text)} ;`);
  return parts.length === 0 ? name(chain) : `${name(chain)} {${parts.join('')} }`;
}

/** @throws {RangeError} If nft could not list a set with so many fields. */
function formatTypes(types: readonly FieldType[], family: NftFamily, asTypeof: boolean): string {
  checkFieldCount(types);
  const address = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  if (!asTypeof) return types.map((type) => (type === 'addr' ? address : TYPE_WORDS[type])).join(' . ');
  const words: Readonly<Record<FieldType, string>> = {
    addr: formatField('daddr', family),
    inet_proto: formatField('l4proto', family),
    inet_service: formatField('dport', family),
    mark: formatField('mark', family),
    classid: formatField('priority', family),
    integer: formatField({ random: TYPEOF_MODULUS }, family),
  };
  return types.map((type) => words[type]).join(' . ');
}

function formatSet(
  { name: set, key, data, flags, timeoutSeconds, size, comment: text }: SetObject,
  family: NftFamily,
): string {
  // A plain number is no type of nft's own: it must be told what expression gives such numbers.
  const asTypeof = needsTypeof(key) || (data !== undefined && data !== 'verdict' && needsTypeof(data));
  const types = formatTypes(key, family, asTypeof);
  const values = data === undefined || data === 'verdict' ? data : formatTypes(data, family, asTypeof);
  const parts = [`${asTypeof ? 'typeof' : 'type'} ${values === undefined ? types : `${types} : ${values}`} ;`];
  if (size !== undefined) parts.push(`size ${size} ;`);
  if (flags !== undefined && flags.length > 0) parts.push(`flags ${flags.join(',')} ;`);
  if (timeoutSeconds !== undefined) parts.push(`timeout ${timeoutSeconds}s ;`);
  if (text !== undefined) parts.push(`comment ${quoted(text, TEXT_COMMENT_BYTES_MAX)} ;`);
  return `${name(set)} { ${parts.join(' ')} }`;
}

/** One element as it stands between the braces. */
export function formatElement(element: SetElement, { keysOnly }: { readonly keysOnly: boolean }): string {
  const key = element.key.map(word).join(' . ');
  if (keysOnly) return key;
  const { data, timeoutMs, expiresMs } = element;
  const times = `${timeoutMs === undefined ? '' : ` timeout ${timeoutMs}ms`}${expiresMs === undefined ? '' : ` expires ${expiresMs}ms`}`;
  const value = data === undefined ? '' : ` : ${'kind' in data ? formatVerdict(data) : data.map(word).join(' . ')}`;
  return `${key}${times}${comment(element.comment)}${value}`;
}

function formatVerdict(verdict: Verdict): string {
  return verdict.kind === 'jump' || verdict.kind === 'goto' ? `${verdict.kind} ${name(verdict.chain)}` : verdict.kind;
}

/** A rule as it stands behind the name of its chain: statements and comment. */
export function formatRule(rule: Pick<RuleObject, 'statements' | 'comment'>, family: NftFamily): string {
  return `${rule.statements.map((statement) => formatStatement(statement, family)).join(' ')}${comment(rule.comment)}`;
}

/** False for what nft lists and the kernel takes, but nft itself cannot load: it runs out of registers (1.0.6 aborts). */
function isReadable({ statements }: RuleObject, family: NftFamily): boolean {
  return family === 'ip' || statements.every((s) => s.kind !== 'dynamic' || s.data === undefined);
}

function formatField(field: Field, family: NftFamily): string {
  if (typeof field === 'object') return `numgen random mod ${field.random}`;
  switch (field) {
    case 'saddr':
    case 'daddr':
      return `${family} ${field}`;
    case 'sport':
    case 'dport':
      return `th ${field}`;
    case 'originalDaddr':
      return `ct original ${family} daddr`;
    case 'originalDport':
      return 'ct original proto-dst';
    case 'l4proto':
    case 'mark':
    case 'priority':
      return `meta ${field}`;
  }
}

function formatFields(fields: readonly Field[], family: NftFamily): string {
  return fields.map((field) => formatField(field, family)).join(' . ');
}

function formatMap(map: MapReference): string {
  if (map.kind === 'named') return `@${name(map.map)}`;
  return `{ ${map.elements.map((element) => formatElement(element, { keysOnly: false })).join(' , ')} }`;
}

function not(negated: boolean | undefined): string {
  return negated === true ? '!= ' : '';
}

function formatAddress({ side, negated, cidrs, name: set }: Extract<Statement, { kind: 'address' }>): string {
  const [first = ''] = cidrs;
  const list = set === undefined && cidrs.length === 1 ? word(first) : `{ ${cidrs.map(word).join(' , ')} }`;
  return `${familyOfText(first)} ${side} ${not(negated)}${list}`;
}

function formatStatement(statement: Statement, family: NftFamily): string {
  switch (statement.kind) {
    case 'ctStateNew':
      return 'ct state new';
    case 'ctStatusDnat':
      return 'ct status dnat';
    case 'markHas':
      return `mark and ${hex(statement.mask)} != 0`;
    case 'setMark':
      return `mark set mark ${statement.op} ${hex(statement.mask)}`;
    case 'setPriority':
      return `meta priority set ${formatFields(statement.fields, family)} map ${formatMap(statement.map)}`;
    case 'clearPriority':
      return 'meta priority set none';
    case 'address':
      return formatAddress(statement);
    case 'l4proto':
      return `meta l4proto ${statement.protocol}`;
    case 'iifname': {
      // Quoted, a name may be of anything; only at the end a star means more than itself.
      const literal = statement.name.replace(/\*$/, '\\*');
      return `iifname ${not(statement.negated)}${quoted(statement.wildcard ? `${statement.name}*` : literal, 17)}`;
    }
    case 'fibLocal':
      return `fib ${statement.side} type local`;
    case 'inSet':
      return `${formatFields(statement.fields, family)} ${not(statement.negated)}@${name(statement.set)}`;
    case 'vmap':
      return `${formatFields(statement.fields, family)} vmap ${formatMap(statement.map)}`;
    case 'verdict':
      return formatVerdict(statement.verdict);
    case 'reject':
      return 'reject';
    case 'masquerade':
      return 'masquerade fully-random';
    case 'dnat': {
      const address = word(statement.address);
      return `dnat to ${family === 'ip' ? address : `[${address}]`}:${statement.port}`;
    }
    case 'dnatMap': {
      const fields = formatFields(statement.fields, family);
      return `dnat ${family} addr . port to ${fields} map ${formatMap(statement.map)}`;
    }
    case 'dynamic':
      return formatDynamic(statement, family);
  }
}

function formatDynamic(statement: Extract<Statement, { kind: 'dynamic' }>, family: NftFamily): string {
  const { op, set, fields, data, timeoutSeconds } = statement;
  const timeout = timeoutSeconds === undefined ? '' : ` timeout ${timeoutSeconds}s`;
  const value = data === undefined ? '' : ` : ${formatFields(data, family)}`;
  return `${op} @${name(set)} { ${formatFields(fields, family)}${timeout}${value} }`;
}
