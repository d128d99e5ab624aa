/**
 * The logger: one JSON object a line, or readable lines on a terminal. Events carry fields (`svc`, `family`,
 * `mode`, `durationMs`, `err`); the message is a short constant text.
 *
 * @module
 */

import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';
import type { Config } from './config/types.ts';

export type { Logger } from 'pino';

/** `-v` of Kubernetes components: 0 is info, 1 to 4 debug, 5 and more trace. */
export function levelOfVerbosity(verbosity: number): 'info' | 'debug' | 'trace' {
  if (verbosity <= 0) return 'info';
  return verbosity < 5 ? 'debug' : 'trace';
}

export interface LogOptions {
  readonly logFormat: Config['logFormat'];
  readonly logging: Pick<Config['logging'], 'format' | 'verbosity'>;
}

/** True for readable lines: asked for, or `auto` on a terminal unless the configuration says `json`. */
export function isPretty({ logFormat, logging }: LogOptions, terminal: boolean): boolean {
  if (logFormat !== 'auto') return logFormat === 'pretty';
  return terminal && logging.format !== 'json';
}

/**
 * Creates the logger. Lines are written at once, so none is lost when the process ends.
 *
 * @param out - Where lines go and whether that is a terminal; standard error by default.
 */
export async function createLogger(
  options: LogOptions,
  out: { readonly stream?: DestinationStream; readonly terminal: boolean },
): Promise<Logger> {
  const settings = {
    level: levelOfVerbosity(options.logging.verbosity),
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  const stream = out.stream ?? destination({ fd: 2, sync: true });
  if (!isPretty(options, out.terminal)) return pino(settings, stream);
  const { prettyFactory } = await import('pino-pretty');
  const format = prettyFactory({ colorize: out.terminal, translateTime: 'SYS:HH:MM:ss.l' });
  return pino(settings, { write: (line: string) => stream.write(format(line)) });
}
