/**
 * OpenAPI v3, as much as kubectl reads: which parameters a PATCH takes, and the fields of the kinds.
 *
 * @module
 */

import { createHash } from 'node:crypto';
import type { Json, JsonObject } from './object.ts';
import { apiVersionOf, RESOURCES, type Resource } from './resources.ts';
import type { Schema } from './schema.ts';

const FIELD_TYPES: Readonly<Record<string, JsonObject>> = {
  string: { type: 'string' },
  time: { type: 'string', format: 'date-time' },
  integer: { type: 'integer', format: 'int32' },
  boolean: { type: 'boolean' },
  intOrString: { 'x-kubernetes-int-or-string': true },
  any: { 'x-kubernetes-preserve-unknown-fields': true },
};

function toOpenApi(schema: Schema): JsonObject {
  switch (schema.type) {
    case 'object':
      return {
        type: 'object',
        properties: Object.fromEntries(Object.entries(schema.fields).map(([f, s]) => [f, toOpenApi(s)])),
      };
    case 'map':
      return { type: 'object', additionalProperties: toOpenApi(schema.of) };
    case 'list': {
      const items = toOpenApi(schema.of);
      if (schema.mergeKey === undefined) return { type: 'array', items, 'x-kubernetes-list-type': 'atomic' };
      const strategy = { 'x-kubernetes-patch-strategy': 'merge' };
      return schema.mergeKey === ''
        ? { type: 'array', items, ...strategy }
        : { type: 'array', items, ...strategy, 'x-kubernetes-patch-merge-key': schema.mergeKey };
    }
    default:
      return FIELD_TYPES[schema.type] ?? {};
  }
}

function pathOf(resource: Resource, withName: boolean): string {
  const base = resource.group === '' ? '/api/v1' : `/apis/${resource.group}/${resource.version}`;
  const scope = resource.namespaced ? '/namespaces/{namespace}' : '';
  return `${base}${scope}/${resource.plural}${withName ? '/{name}' : ''}`;
}

function query(...names: readonly string[]): Json[] {
  return names.map((name) => ({ name, in: 'query', schema: { type: 'string', uniqueItems: true } }));
}

const WRITE_PARAMETERS = query('dryRun', 'fieldManager', 'fieldValidation');

function operation(resource: Resource, action: string, parameters: Json[], bodies: readonly string[]): JsonObject {
  const gvk = { group: resource.group, version: resource.version, kind: resource.kind };
  const ref = { $ref: `#/components/schemas/${schemaName(resource)}` };
  return {
    operationId: `${action}${resource.group.replaceAll('.', '')}V1${resource.kind}`,
    parameters,
    ...(bodies.length > 0 && {
      requestBody: { content: Object.fromEntries(bodies.map((type) => [type, { schema: {} }])) },
    }),
    responses: { 200: { description: 'OK', content: { 'application/json': { schema: ref } } } },
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': gvk,
  };
}

function schemaName(resource: Resource): string {
  return `io.k8s.api.${resource.group.split('.')[0] || 'core'}.${resource.version}.${resource.kind}`;
}

function document(resources: readonly Resource[]): JsonObject {
  const paths: JsonObject = {};
  const schemas: JsonObject = {};
  for (const resource of resources) {
    const gvk = { group: resource.group, version: resource.version, kind: resource.kind };
    schemas[schemaName(resource)] = { ...toOpenApi(resource.schema), 'x-kubernetes-group-version-kind': [gvk] };
    paths[pathOf(resource, false)] = {
      get: operation(resource, 'list', query('fieldSelector', 'labelSelector', 'watch'), []),
      post: operation(resource, 'post', WRITE_PARAMETERS, ['application/json']),
    };
    paths[pathOf(resource, true)] = {
      get: operation(resource, 'get', [], []),
      put: operation(resource, 'put', WRITE_PARAMETERS, ['application/json']),
      patch: operation(resource, 'patch', WRITE_PARAMETERS, [
        'application/json-patch+json',
        'application/merge-patch+json',
        'application/strategic-merge-patch+json',
      ]),
      delete: operation(resource, 'delete', query('dryRun'), []),
    };
  }
  return { openapi: '3.0.0', info: { title: 'Kubernetes', version: 'v1.36.2' }, paths, components: { schemas } };
}

const groupVersions = new Map<string, string>();
for (const apiVersion of new Set(RESOURCES.map(apiVersionOf))) {
  groupVersions.set(
    apiVersion === 'v1' ? 'api/v1' : `apis/${apiVersion}`,
    JSON.stringify(document(RESOURCES.filter((r) => apiVersionOf(r) === apiVersion))),
  );
}

/** The index at `/openapi/v3`, or the JSON of one group version below it; undefined if there is none. */
export function openApiV3(path: string): string | undefined {
  if (path === '/openapi/v3') {
    const paths = [...groupVersions].map(([name, text]) => {
      const hash = createHash('sha256').update(text).digest('hex').slice(0, 16).toUpperCase();
      return [name, { serverRelativeURL: `/openapi/v3/${name}?hash=${hash}` }] as const;
    });
    return JSON.stringify({ paths: Object.fromEntries(paths) });
  }
  return groupVersions.get(path.replace('/openapi/v3/', ''));
}
