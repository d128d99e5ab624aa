/**
 * What every mode must do with packets, as data: a Service, the endpoints it has stage after stage, and in each stage
 * who sends where and what must come of it. The tables are in `flows.ts`; `run-flows.ts` sends the packets in a lab.
 *
 * Every Service is dual-stack and every flow is sent in both families, unless it names one.
 *
 * @module
 */

import type { JsonObject } from '../../src/lab/api/object.ts';
import type { ModeName } from '../../src/modes/mode.ts';
import type { Family } from '../../src/proxier/types.ts';

/** Pods a and b run on the lab's node; c and d are said to run on another one (in another zone). */
export type Pod = 'a' | 'b' | 'c' | 'd';

export const PODS: readonly Pod[] = ['a', 'b', 'c', 'd'];
/** For the rest of the cluster these two are on another node. */
export const REMOTE_PODS: readonly Pod[] = ['c', 'd'];

/** Where a flow starts. `stranger` is the client by its second address; `node` sends from what the kernel chooses. */
export type Source =
  | 'pod a'
  | 'pod b'
  | 'pod c'
  | 'node'
  | 'node, first address'
  | 'node, second address'
  | 'client'
  | 'stranger';

/** An address a Service can be reached at; the port goes with it. */
export type Frontend =
  | 'cluster IP'
  /** A port the Service does not have. */
  | 'cluster IP, unknown port'
  /** An address for Services that none has. */
  | 'unallocated cluster IP'
  | 'external IP'
  | 'load balancer IP'
  /** The node's port, on each kind of address a node has. */
  | 'node port'
  | 'node port, second address'
  | 'node port, pod gateway'
  | 'node port, loopback'
  | 'health check port';

/** As the conditions of a slice have it. */
export type EndpointState =
  | 'ready'
  | 'not ready'
  /** Still serves. */
  | 'terminating'
  /** Terminating, and fails its probe. */
  | 'terminating, not serving'
  /** Of a Service that publishes what is not ready. */
  | 'published, terminating'
  | { readonly zones?: readonly string[]; readonly nodes?: readonly string[] };

export type Endpoints = Readonly<Partial<Record<Pod, EndpointState>>>;

/** The sender's own address, or one of the node's. */
export type Seen = 'itself' | 'node';

export type Want =
  /** By each of these pods, in as many connections as make that certain, and by nobody else. */
  | {
      readonly kind: 'answered';
      readonly by: readonly Pod[];
      readonly seen?: Seen;
      /** The pods answer equally often. */
      readonly even?: true;
      /** Port of the pod; 8080 when absent. */
      readonly port?: number;
    }
  /** Told at once that nobody is there. */
  | { readonly kind: 'refused' }
  /** Nothing comes back. */
  | { readonly kind: 'silent' }
  /** The address stays the node's own: a program of the node answers. */
  | { readonly kind: 'not captured' }
  /**
   * From each of many clients always the same pod, and all of these pods in all. `asBefore`: the pods they had in an
   * earlier stage (true), or chosen anew (false). `asAt`: the pods they had at that frontend in an earlier stage.
   */
  | { readonly kind: 'sticky'; readonly by: readonly Pod[]; readonly asBefore?: boolean; readonly asAt?: Frontend }
  /** A connection to this pod is opened, or if it was opened in an earlier stage, still works. */
  | { readonly kind: 'held'; readonly by: Pod }
  /** The node's health check server. */
  | { readonly kind: 'health'; readonly status: 200 | 503; readonly localEndpoints: number };

export interface Flow {
  readonly from: Source;
  readonly to: Frontend;
  readonly want: Want;
  /** What must come of it in modes that mean to do otherwise. */
  readonly otherwise?: Readonly<Partial<Record<ModeName, Want>>>;
  /** 'tcp' when absent. */
  readonly over?: 'tcp' | 'udp' | 'sctp';
  /** Port of the Service; its first one over that protocol when absent. */
  readonly port?: number;
  /** Both when absent. */
  readonly family?: Family;
}

export interface Stage {
  /** Time that passes before the stage, in milliseconds; the suite waits for the longest one. */
  readonly afterMs?: number;
  /** Default: as before. */
  readonly endpoints?: Endpoints;
  /** Fields laid over the Service's spec, from this stage on. */
  readonly spec?: JsonObject;
  readonly flows: readonly Flow[];
}

export interface FlowPort {
  readonly name: string;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly port: number;
  readonly targetPort: number;
  /** Added to 30000 and ten times the Service's number. 0 when absent. */
  readonly nodePortOffset?: number;
}

/** One Service through its stages. */
export interface FlowCase {
  readonly name: string;
  /** 1 to 99, unique in its suite: makes its addresses and node ports. */
  readonly id: number;
  readonly type?: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  /** Fields over those that `manifests.ts` writes. */
  readonly spec?: JsonObject;
  /** TCP 80 to 8080 of the pod when absent. */
  readonly ports?: readonly FlowPort[];
  /** Address of the load balancer: one of its own when absent. */
  readonly vip?: 'own' | 'node' | 'node second address';
  readonly ipMode?: 'VIP' | 'Proxy';
  readonly externalIP?: true;
  readonly stages: readonly [Stage, ...Stage[]];
}

/** Cases that share a configuration of the proxy, and so a lab. */
export interface FlowSuite {
  readonly name: string;
  /** Over the lab's configuration. */
  readonly config: JsonObject;
  readonly cases: readonly FlowCase[];
}

/** Answered by each of these pods. */
export function answered(by: readonly Pod[], more: Omit<Want & { kind: 'answered' }, 'kind' | 'by'> = {}): Want {
  return { kind: 'answered', by, ...more };
}

export const REFUSED: Want = { kind: 'refused' };
export const SILENT: Want = { kind: 'silent' };
export const NOT_CAPTURED: Want = { kind: 'not captured' };
