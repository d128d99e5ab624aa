/**
 * The resources the server has: a row each. Another kind is another row.
 *
 * @module
 */

import type { Allocations } from './allocations.ts';
import { admitNamespace, admitNode, admitServiceCIDR } from './cluster-kinds.ts';
import {
  type Column,
  endpointSliceColumns,
  eventColumns,
  namespaceColumns,
  nodeColumns,
  serviceCIDRColumns,
  serviceColumns,
} from './columns.ts';
import { admitEndpointSlice } from './endpoint-slice.ts';
import { toCoreEvent, toGroupedEvent } from './events.ts';
import {
  coreEventSchema,
  endpointSliceSchema,
  eventSchema,
  namespaceSchema,
  nodeSchema,
  serviceCIDRSchema,
  serviceSchema,
} from './kinds.ts';
import type { NameRule } from './names.ts';
import { type KubeObject, textAt } from './object.ts';
import type { ObjectSchema } from './schema.ts';
import { admitService } from './service.ts';
import type { FieldError } from './status.ts';

export interface AdmitContext {
  /** The version this one replaces; undefined on create. */
  readonly old: KubeObject | undefined;
  readonly allocations: Allocations;
}

export interface Resource {
  /** '' is the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly singular: string;
  readonly kind: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly nameRule: NameRule;
  readonly schema: ObjectSchema;
  /** `/status` is a resource of its own: the main one leaves `status` as it is. */
  readonly hasStatus: boolean;
  /** A new object loses the status it came with; only `/status` sets one. */
  readonly dropsStatusOnCreate: boolean;
  /** metadata.generation counts the changes of anything but metadata and status. */
  readonly countsGenerations: boolean;
  /** Rows with one storage show the same objects. */
  readonly storage: string;
  /** Fields to select by, besides name and namespace; they read the stored form. */
  readonly fields: Readonly<Record<string, (object: KubeObject) => string>>;
  readonly columns: readonly Column[];
  /** Sets defaults in place and says what is wrong. */
  admit(draft: KubeObject, context: AdmitContext): FieldError[];
  /** Conversion to and from the stored form; undefined where they are the same. */
  readonly convert:
    | { toStored(object: KubeObject): KubeObject; fromStored(object: KubeObject): KubeObject }
    | undefined;
}

type Row = Pick<Resource, 'plural' | 'singular' | 'kind' | 'schema' | 'columns' | 'admit'> & Partial<Resource>;

function resource(row: Row): Resource {
  const group = row.group ?? '';
  return {
    group,
    version: 'v1',
    namespaced: true,
    shortNames: [],
    categories: [],
    nameRule: 'subdomain',
    hasStatus: false,
    dropsStatusOnCreate: false,
    countsGenerations: false,
    storage: group === '' ? row.plural : `${row.plural}.${group}`,
    fields: {},
    convert: undefined,
    ...row,
  };
}

function texts(...paths: readonly string[]): Resource['fields'] {
  return Object.fromEntries(paths.map((path) => [path, (object: KubeObject) => textAt(object, path)]));
}

const OBJECT_REFERENCE = ['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath'];
const eventFields = {
  ...texts('reason', 'type', 'reportingComponent', ...OBJECT_REFERENCE.map((f) => `involvedObject.${f}`)),
  source: (object: KubeObject) => textAt(object, 'source.component') || textAt(object, 'reportingComponent'),
};

export const RESOURCES: readonly Resource[] = [
  resource({
    plural: 'namespaces',
    singular: 'namespace',
    kind: 'Namespace',
    namespaced: false,
    shortNames: ['ns'],
    nameRule: 'label',
    hasStatus: true,
    fields: texts('status.phase'),
    schema: namespaceSchema,
    columns: namespaceColumns,
    admit: admitNamespace,
  }),
  resource({
    plural: 'nodes',
    singular: 'node',
    kind: 'Node',
    namespaced: false,
    shortNames: ['no'],
    hasStatus: true,
    fields: texts('spec.unschedulable'),
    schema: nodeSchema,
    columns: nodeColumns,
    admit: admitNode,
  }),
  resource({
    plural: 'services',
    singular: 'service',
    kind: 'Service',
    shortNames: ['svc'],
    categories: ['all'],
    nameRule: 'dns1035',
    hasStatus: true,
    dropsStatusOnCreate: true,
    fields: texts('spec.clusterIP', 'spec.type'),
    schema: serviceSchema,
    columns: serviceColumns,
    admit: (draft, { old, allocations }) => admitService(draft, old, allocations),
  }),
  resource({
    plural: 'events',
    singular: 'event',
    kind: 'Event',
    shortNames: ['ev'],
    fields: eventFields,
    schema: coreEventSchema,
    columns: eventColumns,
    admit: () => [],
  }),
  resource({
    group: 'events.k8s.io',
    plural: 'events',
    singular: 'event',
    kind: 'Event',
    shortNames: ['ev'],
    storage: 'events',
    fields: eventFields,
    schema: eventSchema,
    columns: eventColumns,
    admit: () => [],
    convert: { toStored: toCoreEvent, fromStored: toGroupedEvent },
  }),
  resource({
    group: 'discovery.k8s.io',
    plural: 'endpointslices',
    singular: 'endpointslice',
    kind: 'EndpointSlice',
    countsGenerations: true,
    schema: endpointSliceSchema,
    columns: endpointSliceColumns,
    admit: (draft, { old }) => admitEndpointSlice(draft, old),
  }),
  resource({
    group: 'networking.k8s.io',
    plural: 'servicecidrs',
    singular: 'servicecidr',
    kind: 'ServiceCIDR',
    namespaced: false,
    hasStatus: true,
    schema: serviceCIDRSchema,
    columns: serviceCIDRColumns,
    admit: (draft, { old }) => admitServiceCIDR(draft, old),
  }),
];

/** `v1`, or `group/version`. */
export function apiVersionOf(resource: Pick<Resource, 'group' | 'version'>): string {
  return resource.group === '' ? resource.version : `${resource.group}/${resource.version}`;
}

/** @returns Undefined if the server does not have the resource. */
export function findResource(group: string, version: string, plural: string): Resource | undefined {
  return RESOURCES.find((r) => r.group === group && r.version === version && r.plural === plural);
}

/** The resource of a kind; a kind in two groups is told apart by `apiVersion`. */
export function resourceOfKind(kind: string, apiVersion?: string): Resource | undefined {
  return RESOURCES.find((r) => r.kind === kind && (apiVersion === undefined || apiVersionOf(r) === apiVersion));
}
