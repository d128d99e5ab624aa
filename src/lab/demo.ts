/**
 * What the demonstration tells while it runs, as data; `report.ts` writes it down.
 *
 * @module
 */

import type { KubeObject } from './api/object.ts';
import type { Path } from './path.ts';
import type { PodAnswer, RequestOutcome } from './protocol.ts';
import type { Topology } from './topology.ts';

/** One request of the demonstration and what came of it. */
export interface ToldRequest {
  /** Name of the namespace it was made in. */
  readonly from: string;
  /** `address:port`, IPv6 in brackets. */
  readonly to: string;
  readonly outcome: RequestOutcome;
  /** Undefined if no pod answered. */
  readonly answer: PodAnswer | undefined;
  readonly path: Path | undefined;
}

export type DemoEvent =
  | { readonly kind: 'lab'; readonly topology: Topology; readonly ms: number }
  | { readonly kind: 'chapter'; readonly title: string; readonly about: string }
  | { readonly kind: 'services'; readonly services: readonly KubeObject[] }
  /** `rules`: print every rule the request met, not only the chains. */
  | { readonly kind: 'request'; readonly request: ToldRequest; readonly rules: boolean }
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'check'; readonly name: string; readonly ok: boolean; readonly got: string }
  | { readonly kind: 'end'; readonly passed: number; readonly failed: number; readonly ms: number };

export type Reporter = (event: DemoEvent) => void;
