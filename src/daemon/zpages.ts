/**
 * `/flagz` and `/statusz`: what this process was told and what it is, for people. Like kube-proxy's, both pages say
 * that no program should read them.
 *
 * @module
 */

import { isFeatureEnabled } from '../config/feature-gates.ts';
import { FLAG_NAMES, FLAGS } from '../config/flags.ts';
import type { Config } from '../config/types.ts';
import { toKubeProxyConfiguration } from '../config/write.ts';
import type { Clock } from '../sys/clock.ts';
import { KUBERNETES_MINOR, version } from '../version.ts';
import { type Answerer, textAnswer } from './http.ts';

const WARNING =
  'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.';

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = (n: number) => String(n).padStart(2, '0');

/** As `date -u` prints it: `Sun Nov 22 21:50:05 UTC 2026`. */
function unixDate(ms: number): string {
  const d = new Date(ms);
  const day = String(d.getUTCDate()).padStart(2);
  const time = [d.getUTCHours(), d.getUTCMinutes(), d.getUTCSeconds()].map(two).join(':');
  return `${DAYS[d.getUTCDay()]} ${MONTHS[d.getUTCMonth()]} ${day} ${time} UTC ${d.getUTCFullYear()}`;
}

function flagText(value: unknown): string {
  if (Array.isArray(value)) return value.join(',');
  if (typeof value !== 'object' || value === null) return String(value ?? '');
  const entries = Object.entries(value).map(([name, one]) => `${name}=${one}`);
  return entries.sort().join(',');
}

/**
 * The flags that stand for a field of the configuration, with the value in effect: the file's where a file replaced the
 * command line. What has no field, such as `--cleanup`, is left out.
 *
 * @returns Lines `name=value`, sorted.
 */
export function flagLines(config: Config): readonly string[] {
  const file = toKubeProxyConfiguration(config);
  const valueAt = (field: string) =>
    field.split('.').reduce<unknown>((at, key) => new Map(Object.entries(at ?? {})).get(key), file);
  const lines = FLAG_NAMES.flatMap((name) => {
    const { field } = FLAGS[name];
    return field === undefined ? [] : [`${name}=${flagText(valueAt(field))}`];
  });
  return [...lines, `config=${config.configFile}`].sort();
}

/** Only those who take text get text. */
const asText =
  (body: () => string): Answerer =>
  ({ accept }) =>
    accept === '' || /(^|[,\s])(\*\/\*|text\/\*|text\/plain)/.test(accept)
      ? textAnswer(200, body())
      : textAnswer(406, 'media type not acceptable, must be: text/plain\n');

/** Path → answer, each unless its feature gate is off. */
export function zPages(
  { config, startedMs }: { readonly config: Config; readonly startedMs: number },
  { clock }: { readonly clock: Pick<Clock, 'now'> },
): Readonly<Record<string, Answerer>> {
  const status = () => {
    const up = Math.floor((clock.now() - startedMs) / 1000);
    return [
      '',
      'switchyard statusz',
      WARNING,
      '',
      `Started: ${unixDate(startedMs)}`,
      `Up: ${Math.floor(up / 3600)} hr ${two(Math.floor(up / 60) % 60)} min ${two(up % 60)} sec`,
      `Node version: ${process.versions.node}`,
      `Binary version: ${version()}`,
      `Emulation version: 1.${KUBERNETES_MINOR}`,
      '',
    ].join('\n');
  };
  const flags = () => ['', 'switchyard flags', WARNING, '', ...flagLines(config), ''].join('\n');
  const isOn = (gate: string) => isFeatureEnabled(config.featureGates, gate);
  return {
    ...(isOn('ComponentFlagz') && { '/flagz': asText(flags) }),
    ...(isOn('ComponentStatusz') && { '/statusz': asText(status) }),
  };
}
