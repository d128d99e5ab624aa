/**
 * Transactions as bytes: one batch, which the kernel does whole or not at all. The same bytes nft sends for the same commands, except
 * where nft has more than one way.
 *
 * @module
 */

import { NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST } from '../codec.ts';
import { MessageWriter } from '../writer.ts';
import { type ElementShape, elementWriter, writeAddressList } from './element.ts';
import { writeExpression } from './encode-expression.ts';
import { describeAnonymousSet, describeSet, writeSet } from './encode-set.ts';
import { type AnonymousSet, lowerRule } from './lower.ts';
import type { RefusedCommand } from './nftables.ts';
import type { ChainObject, Command, NftFamily, RuleObject, SetElement, SetObject, Transaction } from './transaction.ts';
import {
  DELCHAIN,
  DELRULE,
  DELSET,
  DELSETELEM,
  DELTABLE,
  HOOKS,
  NEWCHAIN,
  NEWRULE,
  NEWSET,
  NEWSETELEM,
  NEWTABLE,
  NFNL_BATCH_GENID,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO,
  NFTA_CHAIN_HOOK,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_TYPE,
  NFTA_CHAIN_USERDATA,
  NFTA_HOOK_HOOKNUM,
  NFTA_HOOK_PRIORITY,
  NFTA_LIST_ELEM,
  NFTA_OBJECT_TABLE,
  NFTA_RULE_CHAIN,
  NFTA_RULE_EXPRESSIONS,
  NFTA_RULE_USERDATA,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_LIST_SET,
  NFTA_SET_ELEM_LIST_SET_ID,
  NFTA_SET_NAME,
  NFTA_TABLE_FLAGS,
  NFTA_TABLE_USERDATA,
} from './uapi.ts';
import { encodeComment } from './user-data.ts';

const NLM_F_APPEND = 0x800;
/** NFT_NAME_MAXLEN is 256 with the NUL. */
const NAME_BYTES_MAX = 255;
/** Room an element may take in its list; the list is cut before an element that might not fit any more. */
const ELEMENT_BYTES_MAX = 2_048;
const LIST_BYTES_MAX = 65_535 - ELEMENT_BYTES_MAX;

/** Which command a message of a batch stands for. */
export interface MessageOwner {
  readonly transaction: number;
  readonly command: number;
  /** Of a message with elements of a command: the index of the first of them, and how many entries each of them takes. */
  readonly elements?: { readonly first: number; readonly entries: 1 | 2 };
}

export interface Batch {
  /** From BATCH_BEGIN to BATCH_END; the last message between them asks for an acknowledgement. */
  readonly bytes: Buffer;
  /** Sequence number of BATCH_BEGIN; those of the others follow. */
  readonly firstSeq: number;
  /** One for each message between begin and end, in order. */
  readonly owners: readonly MessageOwner[];
  /** Commands that cannot be written, with what is wrong; if there are some, the batch is not to be sent. */
  readonly unencodable: readonly RefusedCommand[];
}

export interface BatchOptions {
  readonly firstSeq?: number;
  /** Number of the first set made in the batch. */
  readonly firstSetId?: number;
  readonly onlyIfGeneration?: number;
}

/** Writes transactions as one batch. */
export function encodeBatch(transactions: readonly Transaction[], options: BatchOptions = {}): Batch {
  const { firstSeq = 0, firstSetId = 1, onlyIfGeneration } = options;
  const encoder = new Encoder(firstSeq, firstSetId);
  encoder.mark(NFNL_MSG_BATCH_BEGIN, onlyIfGeneration);
  for (const [index, transaction] of transactions.entries()) encoder.transaction(transaction, index);
  encoder.end();
  const { writer, owners, unencodable } = encoder;
  return { bytes: writer.written(), firstSeq, owners, unencodable };
}

/** The expressions of a rule alone, as the kernel gives them back inside NFTA_RULE_EXPRESSIONS. */
export function encodeExpressions(
  writer: MessageWriter,
  rule: Pick<RuleObject, 'statements'>,
  family: NftFamily,
): void {
  for (const expression of lowerRule(rule, family).expressions) {
    const start = writer.openNested(NFTA_LIST_ELEM);
    writeExpression(writer, expression, family, undefined);
    writer.closeNested(start);
  }
}

class Encoder {
  readonly writer = new MessageWriter(16_384);
  readonly owners: MessageOwner[] = [];
  readonly unencodable: RefusedCommand[] = [];
  #seq: number;
  #setId: number;
  /** Start of the message that is being written, or was written last. */
  #message = 0;
  #family: NftFamily = 'ip';
  #table = '';
  #owner: MessageOwner = { transaction: 0, command: 0 };
  /** Numbers of the sets made in this batch, by table and name. */
  readonly #setIds = new Map<string, number>();

  constructor(firstSeq: number, firstSetId: number) {
    this.#seq = firstSeq;
    this.#setId = firstSetId;
  }

  /** Begin or end of the batch. */
  mark(type: number, generation?: number): void {
    const { writer } = this;
    const start = writer.beginMessage(type, NLM_F_REQUEST, this.#seq++);
    writer.raw4(0, 0, 0, NFNL_SUBSYS_NFTABLES);
    if (generation !== undefined) writer.uint32(NFNL_BATCH_GENID, generation);
    writer.endMessage(start);
  }

  end(): void {
    if (this.owners.length > 0) this.writer.addFlags(this.#message, NLM_F_ACK);
    this.mark(NFNL_MSG_BATCH_END);
  }

  transaction({ family, table, commands }: Transaction, index: number): void {
    this.#family = family;
    this.#table = table;
    for (const [i, command] of commands.entries()) {
      this.#owner = { transaction: index, command: i };
      try {
        this.#command(command);
      } catch (error) {
        // What stands half written does no harm: with one such command nothing is sent.
        if (!(error instanceof RangeError)) throw error;
        this.unencodable.push({ transaction: index, command: i, errno: 'EINVAL', message: error.message });
      }
    }
  }

  #begin(type: number, flags: number, owner: MessageOwner = this.#owner): void {
    const { writer } = this;
    this.owners.push(owner);
    this.#message = writer.beginMessage(type, NLM_F_REQUEST | flags, this.#seq++);
    writer.raw4(NFPROTO[this.#family], 0, 0, 0);
    writer.text(NFTA_OBJECT_TABLE, named(this.#table, 'table'));
  }

  #end(): void {
    this.writer.endMessage(this.#message);
  }

  #command(command: Command): void {
    switch (command.object) {
      case 'table':
        this.#tableCommand(command);
        return;
      case 'chain':
        if (command.verb === 'add') this.#addChain(command.chain);
        else if (command.verb === 'flush') this.#named(DELRULE, NFTA_RULE_CHAIN, command.name);
        else this.#named(DELCHAIN, NFTA_CHAIN_NAME, command.name);
        return;
      case 'set':
        if (command.verb === 'add') this.#addSet(command.set);
        else if (command.verb === 'flush') this.#named(DELSETELEM, NFTA_SET_ELEM_LIST_SET, command.name);
        else this.#named(DELSET, NFTA_SET_NAME, command.name);
        return;
      case 'rule':
        this.#addRule(command.rule);
        return;
      case 'element':
        this.#elements(command);
        return;
    }
  }

  #tableCommand(command: Extract<Command, { object: 'table' }>): void {
    this.#begin(command.verb === 'add' ? NEWTABLE : DELTABLE, 0);
    if (command.verb === 'add') {
      this.writer.uint32(NFTA_TABLE_FLAGS, 0);
      this.#comment(NFTA_TABLE_USERDATA, command.comment);
    }
    this.#end();
  }

  /** A message that holds a name and nothing else. */
  #named(type: number, attribute: number, name: string): void {
    this.#begin(type, 0);
    this.writer.text(attribute, named(name, 'object'));
    this.#end();
  }

  #comment(type: number, comment: string | undefined): void {
    if (comment !== undefined) this.writer.bytes(type, encodeComment(comment));
  }

  #addChain({ name, base, comment }: ChainObject): void {
    const { writer } = this;
    this.#begin(NEWCHAIN, NLM_F_CREATE);
    writer.text(NFTA_CHAIN_NAME, named(name, 'chain'));
    if (base !== undefined) {
      writer.text(NFTA_CHAIN_TYPE, base.type);
      const hook = writer.openNested(NFTA_CHAIN_HOOK);
      writer.uint32(NFTA_HOOK_HOOKNUM, HOOKS.indexOf(base.hook));
      writer.uint32(NFTA_HOOK_PRIORITY, base.priority);
      writer.closeNested(hook);
    }
    this.#comment(NFTA_CHAIN_USERDATA, comment);
    this.#end();
  }

  #newSetId(name: string): number {
    const id = this.#setId++;
    this.#setIds.set(this.#setKey(name), id);
    return id;
  }

  #setKey(name: string): string {
    return `${this.#family} ${this.#table}\0${name}`;
  }

  /** Number of a set made in this batch. */
  readonly #setIdOf = (name: string): number | undefined => {
    // Looked up for every rule and list of elements: most batches make no set at all.
    return this.#setIds.size === 0 ? undefined : this.#setIds.get(this.#setKey(name));
  };

  #addSet(set: SetObject): void {
    this.#begin(NEWSET, NLM_F_CREATE);
    const id = this.#newSetId(named(set.name, 'set'));
    writeSet(this.writer, describeSet(set, this.#family), { family: this.#family, id });
    this.#end();
  }

  #addRule(rule: RuleObject): void {
    const { writer } = this;
    const family = this.#family;
    const { sets, expressions } = lowerRule(rule, family);
    for (const set of sets) this.#anonymousSet(set);
    this.#begin(NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
    writer.text(NFTA_RULE_CHAIN, named(rule.chain, 'chain'));
    const list = writer.openNested(NFTA_RULE_EXPRESSIONS);
    for (const expression of expressions) {
      const start = writer.openNested(NFTA_LIST_ELEM);
      writeExpression(writer, expression, family, this.#setIdOf);
      writer.closeNested(start);
    }
    writer.closeNested(list);
    this.#comment(NFTA_RULE_USERDATA, rule.comment);
    this.#end();
  }

  #anonymousSet(set: AnonymousSet): void {
    const { writer } = this;
    const { name } = set;
    this.#begin(NEWSET, NLM_F_CREATE);
    const id = this.#newSetId(named(name, 'set'));
    writeSet(writer, describeAnonymousSet(set, this.#family), { family: this.#family, id });
    this.#end();
    if (set.kind === 'map') {
      this.#elementMessages(set, set.elements, { type: NEWSETELEM, own: false });
      return;
    }
    this.#beginElements(NEWSETELEM, name, this.#owner);
    const list = writer.openNested(NFTA_SET_ELEM_LIST_ELEMENTS);
    writeAddressList(writer, set.ranges);
    writer.closeNested(list);
    this.#end();
  }

  #elements({ verb, set, elements }: Extract<Command, { object: 'element' }>): void {
    this.#elementMessages(set, elements, { type: verb === 'add' ? NEWSETELEM : DELSETELEM, own: true });
  }

  #beginElements(type: number, name: string, owner: MessageOwner): void {
    const { writer } = this;
    this.#begin(type, type === NEWSETELEM ? NLM_F_CREATE : 0, owner);
    writer.text(NFTA_SET_ELEM_LIST_SET, named(name, 'set'));
    const id = this.#setIdOf(name);
    if (id !== undefined) writer.uint32(NFTA_SET_ELEM_LIST_SET_ID, id);
  }

  /** As many messages as the elements need: none if there are none. */
  #elementMessages(
    set: ElementShape & { readonly name: string },
    elements: readonly SetElement[],
    { type, own }: { readonly type: number; readonly own: boolean },
  ): void {
    const { writer } = this;
    const { entries, write } = elementWriter(set, this.#family, type === DELSETELEM);
    for (let next = 0; next < elements.length; ) {
      this.#beginElements(type, set.name, own ? { ...this.#owner, elements: { first: next, entries } } : this.#owner);
      const list = writer.openNested(NFTA_SET_ELEM_LIST_ELEMENTS);
      const first = next;
      for (; next < elements.length && writer.length - list < LIST_BYTES_MAX; next++) {
        const element = elements[next];
        if (element !== undefined) write(writer, element, (next - first) * entries);
      }
      writer.closeNested(list);
      this.#end();
    }
  }
}

/** @throws {RangeError} If the kernel would not take the name, or cut it. */
function named(name: string, what: string): string {
  if (
    name === '' ||
    name.includes('\0') ||
    (name.length * 3 > NAME_BYTES_MAX && Buffer.byteLength(name) > NAME_BYTES_MAX)
  ) {
    throw new RangeError(`Cannot name a ${what} "${name}": must be 1..${NAME_BYTES_MAX} bytes`);
  }
  return name;
}
