/**
 * Other ways to tell the same history. What holds the objects must not care: a stream may repeat, skip what a later
 * event overtakes, and be cut into syncs anywhere.
 *
 * @module
 */

import type { WatchEvent } from '../../src/proxier/types.ts';

/** Kind and key of the object an event is about; 'synced' events are about their kind. */
export function subjectOf(event: WatchEvent): string {
  switch (event.type) {
    case 'upsert':
      return `${event.object.kind} ${event.object.key}`;
    case 'delete':
      return `${event.kind} ${event.key}`;
    case 'synced':
      return `${event.kind} synced`;
  }
}

/** The last event of each object, in the order in which the last ones came. */
export function squash(history: readonly WatchEvent[]): readonly WatchEvent[] {
  const last = new Map<string, WatchEvent>();
  for (const event of history) {
    last.delete(subjectOf(event));
    last.set(subjectOf(event), event);
  }
  return [...last.values()];
}

/** The objects that are there in the end, in the order of their subjects, as upserts. */
export function finalState(history: readonly WatchEvent[]): readonly WatchEvent[] {
  return squash(history)
    .filter((event) => event.type === 'upsert')
    .sort((a, b) => (subjectOf(a) < subjectOf(b) ? -1 : 1));
}

/** Ways to tell a history that all end in the same objects. */
export const tellings: readonly {
  readonly name: string;
  readonly tell: (history: readonly WatchEvent[]) => readonly WatchEvent[];
}[] = [
  { name: 'as it was', tell: (h) => h },
  { name: 'every event twice', tell: (h) => h.flatMap((event) => [event, event]) },
  { name: 'squashed', tell: squash },
  { name: 'squashed, backwards', tell: (h) => squash(h).toReversed() },
  { name: 'final objects only', tell: finalState },
  { name: 'final objects only, backwards', tell: (h) => finalState(h).toReversed() },
  { name: 'told twice', tell: (h) => [...h, ...h] },
  {
    name: 'told, all deleted, told again',
    tell: (h) => [...h, ...squash(h).flatMap((event) => (event.type === 'upsert' ? [gone(event)] : [])), ...h],
  },
  {
    // Each object alone, its own events in order: nothing that is said of others comes in between.
    name: 'object by object',
    tell: (h) => [...Map.groupBy(h, subjectOf).values()].toReversed().flat(),
  },
];

/** Ways to cut a telling into syncs. */
export const flushes: readonly {
  readonly name: string;
  readonly cut: (history: readonly WatchEvent[]) => readonly (readonly WatchEvent[])[];
}[] = [
  { name: 'a sync at the end', cut: (h) => [h] },
  { name: 'a sync after each event', cut: (h) => h.map((event) => [event]) },
  { name: 'two syncs after each event', cut: (h) => h.flatMap((event) => [[event], []]) },
  { name: 'a sync after every third event', cut: (h) => every(h, 3) },
  { name: 'a sync in the middle and one at the end', cut: (h) => every(h, Math.ceil(h.length / 2)) },
];

function every<T>(items: readonly T[], size: number): T[][] {
  const parts: T[][] = [];
  for (let i = 0; i < items.length; i += size) parts.push(items.slice(i, i + size));
  return parts;
}

function gone(event: Extract<WatchEvent, { type: 'upsert' }>): WatchEvent {
  return { type: 'delete', kind: event.object.kind, key: event.object.key };
}
