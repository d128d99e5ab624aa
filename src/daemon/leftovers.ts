/**
 * Make before break: what another mode, or another kube-proxy in another mode, has left in the kernel goes when this mode has
 * programmed every family it serves, and not before. Until then packets meet both rulesets, which is no harm: of two nat
 * rulesets at one hook the first that translates a connection does it, and the other does not see it any more.
 *
 * @module
 */

import type { OpenMode } from '../modes/index.ts';
import type { Removal, Ruleset } from '../modes/rulesets.ts';
import type { Log } from '../proxier/proxier.ts';
import { FAMILIES } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';

const RETRY_MS = 10_000;
const MAX_RETRY_MS = 3_600_000;
/** A proxy that still runs beside us has noticed its loss by then, and has written its rules again. */
const LOOK_AGAIN_MS = 60_000;

export interface LeftoversDeps {
  /** All there can be. */
  readonly rulesets: readonly Ruleset[];
  /** Whose rules stay. */
  readonly own: Pick<OpenMode, 'mode' | 'flavour'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** The rulesets that are not ours. Of a mode with flavours whose own one is unknown all may be ours. */
export function othersOf({ rulesets, own }: Pick<LeftoversDeps, 'rulesets' | 'own'>): readonly Ruleset[] {
  const isOurs = ({ mode, sharedWith, flavour }: Ruleset) =>
    (mode === own.mode || sharedWith.includes(own.mode)) && (own.flavour ?? flavour) === flavour;
  return rulesets.filter((ruleset) => !isOurs(ruleset));
}

/**
 * Removes what others left, tries again what fails, and looks again after a minute until nothing has come back. What cannot be
 * removed is a warning, and no reason to end.
 *
 * @param isMade - Resolves when every family has been programmed.
 */
export async function removeLeftovers(deps: LeftoversDeps, isMade: Promise<void>, signal: AbortSignal): Promise<void> {
  const { clock, log } = deps;
  await Promise.race([isMade, aborted(signal)]);
  const others = othersOf(deps);
  const told = new Map<Ruleset, string>();
  let todo = others;
  for (let waitMs = RETRY_MS; !signal.aborted; waitMs = Math.min(2 * waitMs, MAX_RETRY_MS)) {
    const failed = new Map<Ruleset, string>();
    for (const ruleset of todo) {
      const { removed, kept, why } = await remove(ruleset, signal);
      if (signal.aborted) return;
      if (removed.length > 0) log.info({ ruleset: ruleset.name, removed, kept }, 'rules of another mode removed');
      if (why === undefined) continue;
      failed.set(ruleset, why);
      if (told.get(ruleset) === why) continue;
      told.set(ruleset, why);
      log.warn({ ruleset: ruleset.name, why }, 'rules of another mode stay for now, will be tried again');
    }
    if (failed.size === 0) break;
    todo = [...failed.keys()];
    await clock.sleep(waitMs, signal);
  }
  const gone = new Set(others);
  for (let waitMs = LOOK_AGAIN_MS; !signal.aborted; waitMs = Math.min(2 * waitMs, MAX_RETRY_MS)) {
    await clock.sleep(waitMs, signal);
    const back = signal.aborted ? [] : [...gone].filter((ruleset) => isBack(ruleset));
    if (back.length === 0) return;
    for (const ruleset of back) {
      const { removed, why } = await remove(ruleset, signal);
      if (signal.aborted) return;
      // Only what somebody else holds is there, and will be.
      if (removed.length === 0 && why === undefined) gone.delete(ruleset);
      else {
        const told = 'rules of another mode came back: another proxy writes them, stop it';
        log.warn({ ruleset: ruleset.name, removed, ...(why !== undefined && { why }) }, told);
      }
    }
  }
}

interface Outcome extends Pick<Removal, 'removed' | 'kept'> {
  /** Why something is still there, or may be. */
  readonly why: string | undefined;
}

async function remove(ruleset: Ruleset, signal: AbortSignal): Promise<Outcome> {
  try {
    const { removed, kept, errors } = await ruleset.remove(signal);
    return { removed, kept, why: errors.length === 0 ? undefined : errors.map((e) => e.message).join('; ') };
  } catch (error) {
    return { removed: [], kept: [], why: error instanceof Error ? error.message : String(error) };
  }
}

/** What only its programs can tell is not looked for again. */
function isBack(ruleset: Ruleset): boolean {
  try {
    return FAMILIES.some((family) => ruleset.look(family) === 'some');
  } catch {
    // A kernel that does not let us look now has let us remove before.
    return false;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
