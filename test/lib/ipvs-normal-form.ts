/**
 * Dumps of IPVS mode in one order, so that two of them compare as text.
 *
 * @module
 */

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

const linesOf = (dump: string) =>
  dump
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');

const joined = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join('');

/** `ipvsadm -Sn`: virtual servers in order, the real servers of each in order. */
export function ipvsNormalForm(dump: string): string {
  const servers = new Map<string, string[]>();
  for (const line of linesOf(dump)) {
    const [, option, address] = line.split(' ');
    const lines = servers.get(`${option} ${address}`) ?? [];
    servers.set(`${option} ${address}`, lines);
    lines.push(line);
  }
  return joined([...servers].sort(([a], [b]) => compare(a, b)).flatMap(([, lines]) => lines.sort(compare)));
}

/** `ipset save`: sets by name, elements in order, without the numbers that depend on the kernel. */
export function ipsetNormalForm(dump: string): string {
  const key = (line: string) => line.split(' ')[1] ?? '';
  const rank = (line: string) => (line.startsWith('create ') ? 0 : 1);
  return joined(
    linesOf(dump)
      .map((line) => line.replaceAll(/ (?:initval \S+|hashsize \d+|bucketsize \d+|maxelem \d+)/g, ''))
      .sort((a, b) => compare(key(a), key(b)) || rank(a) - rank(b) || compare(a, b)),
  );
}

/** `ip -o addr`: family and address of each. Link-local ones are the kernel's own. */
export function addressNormalForm(dump: string): string {
  return joined(
    linesOf(dump)
      .filter((line) => !line.includes(' scope link'))
      .map((line) =>
        line
          .replace(/^\d+: /, '')
          .replace(/\\.*$/, '')
          .trim(),
      )
      .sort(compare),
  );
}
