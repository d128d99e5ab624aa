/**
 * Splits a stream into lines: a watch is one JSON text a line.
 *
 * @module
 */

const NEWLINE = 0x0a;
/** An object of etcd is at most 1.5 MB; more than this is no line of a watch. */
const MAX_LINE_BYTES = 16 * 2 ** 20;

export class LineSplitter {
  readonly #onLine: (text: string) => void;
  #pieces: Buffer[] = [];
  #bytes = 0;

  /** @param onLine - Gets each line that is not blank, without its end, while `push` runs. */
  constructor(onLine: (text: string) => void) {
    this.#onLine = onLine;
  }

  /** True between a line's first byte and its end. */
  get isInLine(): boolean {
    return this.#bytes > 0;
  }

  /**
   * Takes the next bytes. They may be cut anywhere, also inside a character.
   *
   * @throws {SyntaxError} If a line is longer than any object that Kubernetes keeps.
   */
  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      const line = this.#take(chunk, start, end);
      start = end + 1;
      if (line.trim() !== '') this.#onLine(line);
    }
    if (start === chunk.length) return;
    this.#bytes += chunk.length - start;
    if (this.#bytes > MAX_LINE_BYTES) {
      throw new SyntaxError(`Cannot read a watch: a line of more than ${MAX_LINE_BYTES} bytes, must be less`);
    }
    // A copy: the rest of a line may stay for minutes, and must not keep the whole chunk.
    this.#pieces.push(Buffer.from(chunk.subarray(start)));
  }

  #take(chunk: Buffer, start: number, end: number): string {
    if (this.#pieces.length === 0) return chunk.toString('utf8', start, end);
    const text = Buffer.concat([...this.#pieces, chunk.subarray(start, end)]).toString();
    this.#pieces = [];
    this.#bytes = 0;
    return text;
  }
}
