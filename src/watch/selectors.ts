/**
 * Which objects a service proxy asks for, and the same selection for objects that come from files, where no server
 * selects. spec: daemon.md §10, model.md §3.
 *
 * @module
 */

import type { Kind } from '../proxier/types.ts';
import { isJsonObject, type JsonObject } from './decode-error.ts';

/** A kind, where its objects are, and which of them count. */
export interface WatchedKind {
  readonly kind: Kind;
  /** Path of the collection, over all namespaces. */
  readonly path: string;
  /** Terms `name`, `!name`, `name=value`, `name!=value` joined by commas; '' selects all. */
  readonly labelSelector: string;
  /** Terms `path=value` and `path!=value` joined by commas; '' selects all. */
  readonly fieldSelector: string;
  /** True if a server may lack the API: then there are no objects of it. */
  readonly optional: boolean;
}

export const SERVICES: WatchedKind = {
  kind: 'Service',
  path: '/api/v1/services',
  labelSelector: '!service.kubernetes.io/service-proxy-name',
  fieldSelector: 'spec.clusterIP!=None',
  optional: false,
};

export const ENDPOINT_SLICES: WatchedKind = {
  kind: 'EndpointSlice',
  path: '/apis/discovery.k8s.io/v1/endpointslices',
  labelSelector: '!service.kubernetes.io/headless',
  fieldSelector: '',
  optional: false,
};

/** Since Kubernetes 1.33. */
export const SERVICE_CIDRS: WatchedKind = {
  kind: 'ServiceCIDR',
  path: '/apis/networking.k8s.io/v1/servicecidrs',
  labelSelector: '',
  fieldSelector: '',
  optional: true,
};

/** Every Node: what a tool that reads files wants. A daemon asks for its own with `nodeNamed`. */
export const NODES: WatchedKind = {
  kind: 'Node',
  path: '/api/v1/nodes',
  labelSelector: '',
  fieldSelector: '',
  optional: false,
};

/** The one Node of this name. */
export function nodeNamed(name: string): WatchedKind {
  return { ...NODES, fieldSelector: `metadata.name=${name}` };
}

/** What kube-proxy watches on the node of this name. */
export function proxyKinds(nodeName: string): readonly WatchedKind[] {
  return [SERVICES, ENDPOINT_SLICES, SERVICE_CIDRS, nodeNamed(nodeName)];
}

interface Term {
  readonly name: string;
  /** Undefined: any value, only that it is there counts. */
  readonly value: string | undefined;
  readonly negative: boolean;
}

function parseTerms(selector: string): readonly Term[] {
  return selector
    .split(',')
    .map((text) => text.trim())
    .filter((text) => text !== '')
    .map((text) => {
      const [, bang = '', name = '', operator, value] = /^(!?)([^=!]+)(?:(!=|==?)(.*))?$/.exec(text) ?? [];
      if (name === '' || (bang !== '' && operator !== undefined)) {
        throw new SyntaxError(`Cannot parse selector term "${text}": must be name, !name, name=value or name!=value`);
      }
      return { name: name.trim(), value: value?.trim(), negative: bang !== '' || operator === '!=' };
    });
}

function fieldText(object: JsonObject, path: string): string {
  let value: unknown = object;
  for (const field of path.split('.')) value = isJsonObject(value) ? value[field] : undefined;
  return value === undefined || value === null ? '' : String(value);
}

/**
 * Makes the test that a server would make.
 *
 * @throws {SyntaxError} If a selector has a term of another form.
 */
export function createSelection(selectors: Pick<WatchedKind, 'labelSelector' | 'fieldSelector'>) {
  const labelTerms = parseTerms(selectors.labelSelector);
  const fieldTerms = parseTerms(selectors.fieldSelector);
  return (object: JsonObject): boolean => {
    const metadata = object['metadata'];
    const labels = isJsonObject(metadata) && isJsonObject(metadata['labels']) ? metadata['labels'] : {};
    return (
      labelTerms.every(({ name, value, negative }) => {
        const has = Object.hasOwn(labels, name) && (value === undefined || labels[name] === value);
        return has !== negative;
      }) && fieldTerms.every(({ name, value, negative }) => (fieldText(object, name) === value) !== negative)
    );
  };
}
