/**
 * The iptables rules of this mode in the kernel.
 *
 * @module
 */

import type { SyncOptions } from '../mode.ts';
import type { VirtualServerKey } from './objects.ts';
import type { SetId } from './sets.ts';

/** What the rules depend on, beside what is fixed for the life of the proxy. */
export interface RuleInput {
  /** A set without elements has no rules that match it. */
  readonly hasElements: (set: SetId) => boolean;
  /** In any order. */
  readonly closedToNode: readonly VirtualServerKey[];
}

export interface RuleWriter {
  /** Makes the rules be there. @param options - `full`: the kernel is read first; otherwise it has what was written last. */
  write(input: RuleInput, options: SyncOptions, signal?: AbortSignal): Promise<void>;
  /** True if the kernel does not have what was written last. */
  differs(signal?: AbortSignal): Promise<boolean>;
}
