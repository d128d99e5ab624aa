/**
 * The OpenMetrics form of the metrics, for scrapers that prefer it. Made from the Prometheus text: prom-client's own
 * form renames the counters it prints, and they stay renamed.
 *
 * @module
 */

export const OPEN_METRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

const TEXT_TYPES: readonly string[] = ['text/plain', 'text/*', '*/*'];

/** One media range of an Accept header. */
interface Range {
  readonly type: string;
  readonly version: string;
  /** 0..1 */
  readonly weight: number;
}

function parseRange(text: string): Range {
  const [type = '', ...parameters] = text.split(';').map((part) => part.trim().toLowerCase());
  const parameter = (name: string) => parameters.find((p) => p.startsWith(`${name}=`))?.slice(name.length + 1);
  const weight = Number(parameter('q') ?? 1);
  return { type, version: parameter('version') ?? '', weight: Number.isNaN(weight) ? 0 : weight };
}

/**
 * True if an Accept header likes OpenMetrics better than the Prometheus text, which is what everyone else gets.
 *
 * @param accept - '' if there is none.
 */
export function prefersOpenMetrics(accept: string): boolean {
  const ranges = accept.split(',').map(parseRange);
  const best = (isIt: (range: Range) => boolean) => Math.max(0, ...ranges.filter(isIt).map(({ weight }) => weight));
  const open = best(
    ({ type, version }) => type === 'application/openmetrics-text' && ['', '0.0.1', '1.0.0'].includes(version),
  );
  return open > 0 && open >= best(({ type, version }) => TEXT_TYPES.includes(type) && ['', '0.0.4'].includes(version));
}

/**
 * Rewrites a Prometheus text: counters are declared without their `_total`, bounds of buckets are floats, quotes in help
 * texts are escaped, and the end is marked. Samples keep their names.
 */
export function toOpenMetrics(text: string): string {
  // The type of a metric stands behind its help.
  const counters = new Set(Array.from(text.matchAll(/^# TYPE (\S+)_total counter$/gm), (found) => found[1] ?? ''));
  const out: string[] = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const declared = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    if (declared === null) {
      out.push(line.replace(/([{,]le="-?\d+)"/, '$1.0"'));
      continue;
    }
    const [, what = '', name = '', rest = ''] = declared;
    const family = name.replace(/_total$/, '');
    const told = what === 'HELP' ? rest.replace(/"/g, '\\"') : rest;
    out.push(`# ${what} ${counters.has(family) ? family : name} ${told}`);
  }
  out.push('# EOF', '');
  return out.join('\n');
}
