/**
 * What `render` asks of each mode.
 *
 * @module
 */

import type { Config } from '../config/types.ts';
import type { Family, IPAddress, LocalTraffic, NodePortAddresses, ServicePlan } from '../proxier/types.ts';

/** What a mode renders from, for one family. */
export interface RenderInput {
  readonly family: Family;
  readonly config: Config;
  readonly services: readonly ServicePlan[];
  readonly endpointCount: number;
  readonly localTraffic: LocalTraffic;
  readonly nodePortAddresses: NodePortAddresses;
  /** Loopback if unknown. */
  readonly nodeIP: IPAddress;
  /** All addresses of the node that are known, both families. */
  readonly nodeAddresses: readonly IPAddress[];
  /** CIDRs of this family that Services get addresses from; empty if the manifests do not say. */
  readonly serviceCIDRs: readonly string[];
  /** Write the rules that count packets in nfacct objects, which a kernel only takes when these exist. */
  readonly nfacct: boolean;
}

/** How rules are written: input of a tool (`restore`, `nft`), as a tool prints them back (`saved`), or as data. */
export type RenderFormat = 'restore' | 'saved' | 'nft' | 'json';

export const RENDER_FORMATS: readonly RenderFormat[] = ['restore', 'saved', 'nft', 'json'];

/** `render` for one mode. Pure. */
export interface ModeRenderer {
  /** Formats beside `json`; the first is the default. */
  readonly formats: readonly [RenderFormat, ...RenderFormat[]];
  /** One family as text. @throws {RangeError} If a plan cannot be expressed. */
  text(input: RenderInput, format: RenderFormat): string;
  /** One family as data. @throws {RangeError} If a plan cannot be expressed. */
  data(input: RenderInput): object;
}
