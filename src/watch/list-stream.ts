/**
 * Splits the JSON of a list into its items while it arrives, so that a response of any size costs the memory of one
 * item. The scanner knows strings, escapes and nesting and nothing else; whether an item is JSON, `JSON.parse` says.
 *
 *     {"kind":"ServiceList","metadata":{…},"items":[ {…} , {…} ]}
 *     └────────────── head ─────────────────────┘   item   item └ head, continued
 *
 * @module
 */

import { isJsonObject } from './decode-error.ts';

/** An object of etcd is at most 1.5 MB; more than this is no item. */
const MAX_ITEM_BYTES = 16 * 2 ** 20;
/** What stands around the items: kind, apiVersion, metadata. */
const MAX_HEAD_BYTES = 2 ** 20;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const SPACE = 0x20;

/** Pieces of one text that may lie in several chunks. Copies what it keeps: a chunk is never retained. */
class Pieces {
  readonly #what: string;
  readonly #maxBytes: number;
  #pieces: Buffer[] = [];
  #bytes = 0;

  constructor(what: string, maxBytes: number) {
    this.#what = what;
    this.#maxBytes = maxBytes;
  }

  keep(chunk: Buffer, start: number, end: number): void {
    this.#bytes += end - start;
    if (this.#bytes > this.#maxBytes) {
      throw new SyntaxError(`Cannot read ${this.#what}: more than ${this.#maxBytes} bytes, must be less`);
    }
    if (end > start) this.#pieces.push(Buffer.from(chunk.subarray(start, end)));
  }

  /** The text of all that was kept and of this last piece. Starts anew. */
  take(chunk: Buffer, start: number, end: number): string {
    if (this.#pieces.length === 0) return chunk.toString('utf8', start, end);
    this.keep(chunk, start, end);
    const text = Buffer.concat(this.#pieces).toString();
    this.#pieces = [];
    this.#bytes = 0;
    return text;
  }
}

export class ListSplitter {
  readonly #onItem: (text: string) => void;
  readonly #item = new Pieces('an item of a list', MAX_ITEM_BYTES);
  readonly #head = new Pieces('the head of a list', MAX_HEAD_BYTES);

  /** Nesting, counted from 0 outside the list. The items themselves are at depth 2. */
  #depth = 0;
  #inString = false;
  #isEscaped = false;
  #inItems = false;
  #inItem = false;
  /** At depth 1: the next string is the name of a field. */
  #nameNext = false;
  #inName = false;
  /** Name of the last field at depth 1, in quotes. */
  #field = '';

  /** @param onItem - Gets the text of each item of the field `items`, in order, while `push` runs. */
  constructor(onItem: (text: string) => void) {
    this.#onItem = onItem;
  }

  /**
   * Takes the next bytes. They may be cut anywhere, also inside a character.
   *
   * @throws {SyntaxError} If an item or the head is larger than any that Kubernetes makes.
   */
  push(chunk: Buffer): void {
    const end = chunk.length;
    // Start of what is kept of this chunk: of the item if in one, else of the head.
    let from = 0;
    for (let i = 0; i < end; i++) {
      if (this.#inString) {
        i = this.#skipString(chunk, i);
        if (i < end && this.#inItem && this.#depth === 2) from = this.#endItem(chunk, from, i + 1);
        continue;
      }
      const byte = chunk[i] ?? 0;
      if (byte <= SPACE) {
        if (this.#inItem && this.#depth === 2) from = this.#endItem(chunk, from, i);
        continue;
      }
      if (this.#inItems && !this.#inItem) {
        if (byte === COMMA) continue;
        if (byte !== CLOSE_BRACKET) {
          this.#inItem = true;
          from = i;
        }
      }
      switch (byte) {
        case QUOTE:
          this.#inString = true;
          if (this.#depth === 1 && this.#nameNext) {
            this.#inName = true;
            this.#nameNext = false;
            this.#field = '';
          }
          break;
        case OPEN_BRACKET:
        case OPEN_BRACE:
          this.#depth++;
          if (this.#depth === 1) this.#nameNext = true;
          if (this.#depth === 2 && byte === OPEN_BRACKET && this.#field === 'items') {
            this.#head.keep(chunk, from, i + 1);
            this.#inItems = true;
          }
          break;
        case CLOSE_BRACKET:
        case CLOSE_BRACE:
          // The item before is a number or a word: only the bracket ends it.
          if (this.#inItem && this.#depth === 2) this.#endItem(chunk, from, i);
          this.#depth--;
          if (this.#inItems && this.#depth === 1) {
            this.#inItems = false;
            from = i;
          } else if (this.#inItem && this.#depth === 2) from = this.#endItem(chunk, from, i + 1);
          break;
        case COMMA:
          if (this.#inItem && this.#depth === 2) from = this.#endItem(chunk, from, i);
          else if (this.#depth === 1) this.#nameNext = true;
          break;
        default:
      }
    }
    if (this.#inItem) this.#item.keep(chunk, from, end);
    else if (!this.#inItems) this.#head.keep(chunk, from, end);
  }

  /**
   * Ends the list.
   *
   * @returns The list without its items, parsed.
   * @throws {SyntaxError} If the list is cut off, or what stands around its items is no JSON.
   */
  end(): unknown {
    if (this.#depth !== 0 || this.#inString) {
      throw new SyntaxError('Cannot read a list: it ends in its middle, must end with its last brace');
    }
    const head: unknown = JSON.parse(this.#head.take(Buffer.alloc(0), 0, 0));
    // The scanner reads the name as bytes. Nobody writes "items" with escapes; if one does, nothing may be lost unseen.
    if (isJsonObject(head) && Array.isArray(head['items']) && head['items'].length > 0) {
      throw new SyntaxError('Cannot read a list: the name of its field "items" is escaped, must be plain');
    }
    return head;
  }

  /** Index of the quote that ends the string, or the length of the chunk if it goes on in the next. */
  #skipString(chunk: Buffer, start: number): number {
    const end = chunk.length;
    let i = start;
    let isEscaped = this.#isEscaped;
    for (; i < end; i++) {
      const byte = chunk[i];
      if (isEscaped) isEscaped = false;
      else if (byte === BACKSLASH) isEscaped = true;
      else if (byte === QUOTE) {
        this.#inString = false;
        break;
      }
    }
    this.#isEscaped = isEscaped;
    if (this.#inName) {
      this.#field += chunk.toString('latin1', start, i);
      this.#inName = this.#inString;
    }
    return i;
  }

  #endItem(chunk: Buffer, start: number, end: number): number {
    this.#inItem = false;
    this.#onItem(this.#item.take(chunk, start, end));
    return end;
  }
}
