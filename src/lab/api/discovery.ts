/**
 * What the server says it has: versions, groups, resources.
 *
 * Only the plain documents; to a client that would rather have the aggregated ones these are an answer it falls back on.
 *
 * @module
 */

import type { JsonObject } from './object.ts';
import { RESOURCES, type Resource } from './resources.ts';

const VERSION = 'v1.36.2';

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

function groups(): readonly string[] {
  return [...new Set(RESOURCES.map((r) => r.group))].filter((g) => g !== '');
}

function groupDocument(name: string): JsonObject {
  const version = { groupVersion: `${name}/v1`, version: 'v1' };
  return { name, versions: [version], preferredVersion: version };
}

function resourceDocuments(resource: Resource): JsonObject[] {
  const { plural, singular, namespaced, kind, shortNames, categories } = resource;
  const main: JsonObject = {
    name: plural,
    singularName: singular,
    namespaced,
    kind,
    verbs: VERBS,
    ...(shortNames.length > 0 && { shortNames: [...shortNames] }),
    ...(categories.length > 0 && { categories: [...categories] }),
  };
  if (!resource.hasStatus) return [main];
  return [main, { name: `${plural}/status`, singularName: '', namespaced, kind, verbs: ['get', 'patch', 'update'] }];
}

function resourceList(group: string): JsonObject {
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: group === '' ? 'v1' : `${group}/v1`,
    resources: RESOURCES.filter((r) => r.group === group).flatMap(resourceDocuments),
  };
}

/** @returns The document at a path; undefined if there is none. */
export function discover(path: string): JsonObject | undefined {
  switch (path) {
    case '/version':
      return { major: '1', minor: '36', gitVersion: VERSION, gitCommit: '', platform: 'linux/amd64' };
    case '/api':
      return { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] };
    case '/apis':
      return { kind: 'APIGroupList', apiVersion: 'v1', groups: groups().map(groupDocument) };
    case '/api/v1':
      return resourceList('');
  }
  const [, group = '', version] = /^\/apis\/([^/]+)(?:\/([^/]+))?$/.exec(path) ?? [];
  if (!groups().includes(group)) return undefined;
  if (version === undefined) return { kind: 'APIGroup', apiVersion: 'v1', ...groupDocument(group) };
  return version === 'v1' ? resourceList(group) : undefined;
}
