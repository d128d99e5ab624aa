/**
 * The few forms of Markdown that generated pages use.
 *
 * @module
 */

/** Said at the top of each page. */
export const generatedFrom = (...files: readonly string[]): string =>
  `Written by \`npm run docs\` from ${files.map((f) => `[${f}](../${f})`).join(', ')}; do not edit.`;

/** Text in a cell: a bar would end it. */
const cell = (text: string) => text.replaceAll('|', '\\|');

/** Code that may hold anything but a backtick; '' is the empty cell. */
export const code = (text: string): string => (text === '' ? '' : `\`${text}\``);

/** A table, its lines without a final newline. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `|${cells.map((c) => (c === '' ? ' ' : ` ${cell(c)} `)).join('|')}|`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}
