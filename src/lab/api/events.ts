/**
 * Events exist in two API groups over one storage: v1, which is stored, and events.k8s.io/v1, which renames fields.
 *
 * @module
 */

import { asJson, type KubeObject, toKubeObject } from './object.ts';

const RENAMED: readonly (readonly [core: string, grouped: string])[] = [
  ['involvedObject', 'regarding'],
  ['message', 'note'],
  ['source', 'deprecatedSource'],
  ['firstTimestamp', 'deprecatedFirstTimestamp'],
  ['lastTimestamp', 'deprecatedLastTimestamp'],
  ['count', 'deprecatedCount'],
  ['reportingComponent', 'reportingController'],
];

function renamed(event: KubeObject, apiVersion: string, names: ReadonlyMap<string, string>): KubeObject {
  const entries = Object.entries(asJson(event)).map(([field, value]) => [names.get(field) ?? field, value] as const);
  return toKubeObject({ ...Object.fromEntries(entries), apiVersion });
}

const toCore = new Map(RENAMED.map(([core, grouped]) => [grouped, core]));
const toGrouped = new Map(RENAMED);

/** An events.k8s.io/v1 Event as the v1 Event that is stored. */
export function toCoreEvent(event: KubeObject): KubeObject {
  return renamed(event, 'v1', toCore);
}

/** A stored v1 Event as events.k8s.io/v1 shows it. */
export function toGroupedEvent(event: KubeObject): KubeObject {
  return renamed(event, 'events.k8s.io/v1', toGrouped);
}
