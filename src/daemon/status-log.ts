/**
 * How the watches are doing, as log lines: one when a watch is lost, with why; one a minute while it stays lost, with since when
 * and how often it was tried; one when it is back.
 *
 * @module
 */

import type { Log } from '../proxier/proxier.ts';
import type { Clock } from '../sys/clock.ts';
import type { RequestCount, SourceStatus } from '../watch/source.ts';
import { clockHint } from './node-checks.ts';

const REMIND_MS = 60_000;

export interface StatusLogDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** All requests so far: those without an answer are the tries. */
  readonly requests: () => readonly RequestCount[];
}

interface Loss {
  readonly sinceMs: number;
  readonly why: string;
}

export class StatusLog {
  readonly #deps: StatusLogDeps;
  readonly #lost = new Map<string, Loss>();
  /** Failed tries before the first of the watches was lost. */
  #triesBefore = 0;

  constructor(deps: StatusLogDeps) {
    this.#deps = deps;
  }

  /** Takes what a source tells. */
  readonly told = (status: SourceStatus): void => {
    const { log, clock } = this.#deps;
    switch (status.state) {
      case 'connected':
        this.#lost.delete(status.kind);
        log.info({ kind: status.kind, server: status.server }, 'watching');
        return;
      case 'disconnected': {
        if (this.#lost.size === 0) this.#triesBefore = this.#tries();
        this.#lost.set(status.kind, { sinceMs: status.sinceMs, why: status.why });
        const hint = clockHint(status.why, clock.now());
        const since = new Date(status.sinceMs).toISOString();
        log.warn(
          { kind: status.kind, since, why: status.why, ...(hint !== undefined && { hint }) },
          'cannot watch, trying again; rules stay as they are',
        );
        return;
      }
      case 'absent':
        this.#lost.delete(status.kind);
        log.info({ kind: status.kind, why: status.why }, 'not served by this cluster');
        return;
      case 'broken-file':
        log.warn({ file: status.file, document: status.document, why: status.why }, 'cannot read');
    }
  };

  /** Reminds of what is lost until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, clock } = this.#deps;
    while (!signal.aborted) {
      await clock.sleep(REMIND_MS, signal);
      const oldest = [...this.#lost.values()].sort((a, b) => a.sinceMs - b.sinceMs)[0];
      if (signal.aborted || oldest === undefined) continue;
      const fields = {
        kinds: [...this.#lost.keys()],
        since: new Date(oldest.sinceMs).toISOString(),
        seconds: Math.round((clock.now() - oldest.sinceMs) / 1000),
        tries: this.#tries() - this.#triesBefore,
        why: oldest.why,
      };
      log.warn(fields, 'still cannot watch, trying on; rules stay as they are');
    }
  }

  /** Requests that came to nothing. */
  #tries(): number {
    const failed = this.#deps.requests().filter(({ code }) => !code.startsWith('2'));
    return failed.reduce((sum, { count }) => sum + count, 0);
  }
}
