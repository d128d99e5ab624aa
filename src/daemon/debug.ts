/**
 * `/debug/state` and `/debug/plan`: what the proxy knows, intends and has programmed, as JSON, to clients on this node only.
 * Read-only: nothing is asked of the kernel but the addresses of the node.
 *
 * @module
 */

import { isLoopback, parseIP } from '../proxier/addr.ts';
import type { ProxierState, ServiceInspection } from '../proxier/inspection.ts';
import { selectNodeIPs } from '../proxier/node-port-addresses.ts';
import { objectKey } from '../proxier/slices.ts';
import type { Family, IPAddress, NodePortAddresses, ObjectKey } from '../proxier/types.ts';
import type { Answer, Answerer } from './http.ts';

/** What is looked at. */
export interface DebugSubject {
  readonly mode: string;
  readonly node: string;
  readonly version: string;
  /** One a family. */
  readonly proxiers: readonly {
    readonly family: Family;
    state(): ProxierState;
    inspect(service: ObjectKey): ServiceInspection | undefined;
  }[];
  readonly nodePortAddresses: (family: Family) => NodePortAddresses;
  /** All addresses of all interfaces, both families. */
  readonly nodeAddresses: () => Promise<readonly IPAddress[]>;
}

/** Dirty services named in `/debug/state`; there are as many as services before the first sync. */
const MAX_NAMED = 100;

function json(status: number, body: object, headers: Readonly<Record<string, string>> = {}): Answer {
  return {
    status,
    headers: { 'Content-Type': 'application/json', 'X-Content-Type-Options': 'nosniff', ...headers },
    body: `${JSON.stringify(body, null, 2)}\n`,
  };
}

/** A socket for both families writes IPv4 as `::ffff:127.0.0.1`, which `parseIP` reads as IPv4. */
function isThisNode(address: string): boolean {
  const parsed = parseIP(address);
  return parsed !== undefined && isLoopback(parsed.ip);
}

/**
 * Answers a client at a loopback address only, which is one on this node; any other gets 403, another method 405.
 *
 * @param methods - Default GET and HEAD.
 */
export function onThisNode(answer: Answerer, methods: readonly string[] = ['GET', 'HEAD']): Answerer {
  return (request) => {
    const { method, remoteAddress } = request;
    if (!isThisNode(remoteAddress)) {
      const error = `Cannot show this to ${remoteAddress || 'an unknown client'}: must be asked from this node, at its loopback address`;
      return json(403, { error });
    }
    if (methods.includes(method)) return answer(request);
    return json(405, { error: `Cannot ${method} this: must be ${methods[0]}` }, { Allow: methods.join(', ') });
  };
}

/** Path → answer. */
export function debugRoutes(subject: DebugSubject): Readonly<Record<string, Answerer>> {
  return {
    '/debug/plan': onThisNode(({ query }) => planAnswer(subject, query.getAll('service'))),
    '/debug/state': onThisNode(() => stateAnswer(subject)),
  };
}

const time = (ms: number | undefined) => (ms === undefined ? null : new Date(ms).toISOString());

async function stateAnswer(subject: DebugSubject): Promise<Answer> {
  const { mode, node, version, proxiers } = subject;
  // An address list that cannot be read is no reason to hide the rest.
  const addresses = await subject.nodeAddresses().catch(() => undefined);
  const families = proxiers.map((proxier) => {
    const s = proxier.state();
    const nodePorts = subject.nodePortAddresses(s.family);
    return {
      family: s.family,
      synced: { services: s.servicesSynced, endpointSlices: s.slicesSynced },
      needsFull: s.needsFull,
      dirty: { count: s.dirty.length, services: s.dirty.slice(0, MAX_NAMED) },
      lastSync: time(s.lastSyncMs),
      lastFullSync: time(s.lastFullSyncMs),
      lastFailure: s.lastFailure === undefined ? null : { at: time(s.lastFailure.atMs), reason: s.lastFailure.reason },
      refused: s.refused,
      services: s.services,
      endpoints: s.endpoints,
      zone: s.zone,
      largeCluster: s.largeCluster,
      nodePortAddresses: {
        matchAll: nodePorts.matchAll,
        cidrs: nodePorts.cidrs,
        // Where every address matches, rules name none.
        addresses: nodePorts.matchAll ? [] : addresses === undefined ? null : selectNodeIPs(nodePorts, addresses),
      },
    };
  });
  return json(200, { mode, node, version, families });
}

function planAnswer({ mode, node, proxiers }: DebugSubject, asked: readonly string[]): Answer {
  const [text = '', ...more] = asked;
  const [namespace = '', name = '', ...rest] = text.split('/');
  if (more.length > 0 || namespace === '' || name === '' || rest.length > 0) {
    const got = asked.length === 0 ? 'no "service"' : asked.map((one) => JSON.stringify(one)).join(', ');
    const error = `Cannot explain ${got}: must be one namespace/name, as in /debug/plan?service=default/kubernetes`;
    return json(400, { error });
  }
  const service = objectKey(namespace, name);
  const families = proxiers.flatMap((proxier) => {
    const found = proxier.inspect(service);
    if (found === undefined) return [];
    const { family, status, refusal, plan, why, kernel } = found;
    return [
      {
        family,
        status,
        refusal: refusal === undefined ? null : { rule: refusal.rule, reason: refusal.reason },
        why,
        inKernel: kernel.applied,
        rules: kernel.rules,
        plan: plan ?? null,
      },
    ];
  });
  if (families.length > 0) return json(200, { service, node, mode, families });
  const error = `Cannot explain "${service}": no family has a plan for it, must be a Service with a cluster IP`;
  return json(404, { error });
}
