/**
 * One copy of each text that repeats from object to object (namespaces, nodes, zones, names of ports): among 20,000
 * endpoints there are a few hundred of them.
 *
 * @module
 */

/** Past this many texts the table starts anew: what was shared stays shared, and the table never grows with the cluster. */
const MAX_TEXTS = 8192;

export class Interner {
  readonly #texts = new Map<string, string>();
  readonly #lists = new Map<string, readonly string[]>();

  /** The first copy met of this text. */
  text(text: string): string {
    if (text === '') return '';
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    if (this.#texts.size >= MAX_TEXTS) this.#texts.clear();
    this.#texts.set(text, text);
    return text;
  }

  /** The first copy met of this list, for lists of which few different ones exist (families, zones). */
  list(list: readonly string[]): readonly string[] {
    if (list.length === 0) return list;
    const id = list.length === 1 ? `1${list[0]}` : JSON.stringify(list);
    const known = this.#lists.get(id);
    if (known !== undefined) return known;
    if (this.#lists.size >= MAX_TEXTS) this.#lists.clear();
    const shared = list.map((text) => this.text(text));
    this.#lists.set(id, shared);
    return shared;
  }
}
