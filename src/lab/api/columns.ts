/**
 * The columns that `kubectl get` shows of each kind.
 *
 * @module
 */

import { asEndpointSlice } from './endpoint-slice.ts';
import { isJsonObject, type Json, type KubeObject, textAt } from './object.ts';
import { asService } from './service.ts';

export interface Column {
  readonly name: string;
  readonly type: 'string' | 'integer';
  /** 0: always shown; 1: with `-o wide`. */
  readonly priority: 0 | 1;
  /** @param nowMs - Milliseconds since the epoch; ages are counted to it. */
  cell(object: KubeObject, nowMs: number): string | number;
}

function column(name: string, cell: Column['cell'], priority: 0 | 1 = 0): Column {
  return { name, type: 'string', priority, cell };
}

const NONE = '<none>';
const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Writes a duration as kubectl does: two units while it is short, one when it is long. */
export function formatAge(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (big: number, small: number, unit: string, subunit: string) => {
    const rest = Math.floor((s % big) / small);
    return `${Math.floor(s / big)}${unit}${rest > 0 ? `${rest}${subunit}` : ''}`;
  };
  if (s < 2 * MINUTE) return `${s}s`;
  if (s < 10 * MINUTE) return two(MINUTE, 1, 'm', 's');
  if (s < 3 * HOUR) return `${Math.floor(s / MINUTE)}m`;
  if (s < 8 * HOUR) return two(HOUR, MINUTE, 'h', 'm');
  if (s < 2 * DAY) return `${Math.floor(s / HOUR)}h`;
  if (s < 8 * DAY) return two(DAY, HOUR, 'd', 'h');
  if (s < 2 * 365 * DAY) return `${Math.floor(s / DAY)}d`;
  return two(365 * DAY, DAY, 'y', 'd');
}

function since(timestamp: string, nowMs: number): string {
  const at = Date.parse(timestamp);
  return Number.isNaN(at) ? '<unknown>' : formatAge(nowMs - at);
}

const name = column('Name', (o) => o.metadata.name);
const age = column('Age', (o, nowMs) => since(o.metadata.creationTimestamp ?? '', nowMs));

function some(texts: readonly string[], most: number): string {
  const shown = texts.slice(0, most).join(',');
  return texts.length > most ? `${shown} + ${texts.length - most} more...` : shown;
}

function externalIPs(object: KubeObject): string {
  const { spec, status } = asService(object);
  const external = spec.externalIPs ?? [];
  if (spec.type === 'ExternalName') return spec.externalName ?? NONE;
  if (spec.type !== 'LoadBalancer') return external.join(',') || NONE;
  const ingress = (status?.loadBalancer?.ingress ?? []).map((i) => i.ip ?? i.hostname ?? '');
  return [...ingress, ...external].join(',') || '<pending>';
}

export const serviceColumns: readonly Column[] = [
  name,
  column('Type', (o) => asService(o).spec.type ?? 'ClusterIP'),
  column('Cluster-IP', (o) => asService(o).spec.clusterIP || NONE),
  column('External-IP', externalIPs),
  column('Port(s)', (o) => {
    const ports = asService(o).spec.ports ?? [];
    return ports.map((p) => `${p.port}${p.nodePort ? `:${p.nodePort}` : ''}/${p.protocol}`).join(',') || NONE;
  }),
  age,
  column(
    'Selector',
    (o) => {
      const selector = Object.entries(asService(o).spec.selector ?? {});
      return selector.map(([key, value]) => `${key}=${value}`).join(',') || NONE;
    },
    1,
  ),
];

export const endpointSliceColumns: readonly Column[] = [
  name,
  column('AddressType', (o) => textAt(o, 'addressType')),
  column(
    'Ports',
    (o) =>
      some(
        (asEndpointSlice(o).ports ?? []).map((p) => String(p.port ?? '*')),
        3,
      ) || '<unset>',
  ),
  column('Endpoints', (o) => {
    const endpoints = asEndpointSlice(o).endpoints ?? [];
    return (
      some(
        endpoints.flatMap((e) => e.addresses ?? []),
        3,
      ) || '<unset>'
    );
  }),
  age,
];

/** Entries of a list like `status.conditions` that are objects. */
function entries(list: Json | undefined): { readonly [field: string]: Json }[] {
  return Array.isArray(list) ? list.filter(isJsonObject) : [];
}

function nodeAddress(type: string): Column['cell'] {
  return (o) => String(entries(o.status?.['addresses']).find((a) => a['type'] === type)?.['address'] ?? NONE);
}

function nodeStatus(object: KubeObject): string {
  const ready = entries(object.status?.['conditions']).find((c) => c['type'] === 'Ready');
  const status = ready === undefined ? 'Unknown' : ready['status'] === 'True' ? 'Ready' : 'NotReady';
  return object.spec?.['unschedulable'] === true ? `${status},SchedulingDisabled` : status;
}

const ROLE = 'node-role.kubernetes.io/';

export const nodeColumns: readonly Column[] = [
  name,
  column('Status', nodeStatus),
  column('Roles', (o) => {
    const labels = Object.keys(o.metadata.labels ?? {}).filter((key) => key.startsWith(ROLE));
    return (
      labels
        .map((key) => key.slice(ROLE.length))
        .sort()
        .join(',') || NONE
    );
  }),
  age,
  column('Version', (o) => textAt(o, 'status.nodeInfo.kubeletVersion')),
  column('Internal-IP', nodeAddress('InternalIP'), 1),
  column('External-IP', nodeAddress('ExternalIP'), 1),
  column('OS-Image', (o) => textAt(o, 'status.nodeInfo.osImage') || '<unknown>', 1),
  column('Kernel-Version', (o) => textAt(o, 'status.nodeInfo.kernelVersion') || '<unknown>', 1),
  column('Container-Runtime', (o) => textAt(o, 'status.nodeInfo.containerRuntimeVersion') || '<unknown>', 1),
];

export const namespaceColumns: readonly Column[] = [name, column('Status', (o) => textAt(o, 'status.phase')), age];

export const serviceCIDRColumns: readonly Column[] = [
  name,
  column('CIDRs', (o) => {
    const cidrs = o.spec?.['cidrs'];
    return Array.isArray(cidrs) ? cidrs.join(',') : '';
  }),
  age,
];

export const eventColumns: readonly Column[] = [
  column('Last Seen', (o, nowMs) => {
    const times = ['series.lastObservedTime', 'lastTimestamp', 'eventTime', 'metadata.creationTimestamp'];
    return since(times.map((path) => textAt(o, path)).find((text) => text !== '') ?? '', nowMs);
  }),
  column('Type', (o) => textAt(o, 'type')),
  column('Reason', (o) => textAt(o, 'reason')),
  column('Object', (o) => `${textAt(o, 'involvedObject.kind').toLowerCase()}/${textAt(o, 'involvedObject.name')}`),
  column('Message', (o) => textAt(o, 'message').trim()),
  column('Name', (o) => o.metadata.name, 1),
];
