/**
 * Objects as rows of a `meta.k8s.io/v1 Table`, which is what `kubectl get` asks for.
 *
 * @module
 */

import type { Column } from './columns.ts';
import { asJson, type Json, type JsonObject, type KubeObject } from './object.ts';

/** What of the object a row carries along, as the query's includeObject says. */
export type IncludeObject = 'Metadata' | 'Object' | 'None';

function cell(column: Column, object: KubeObject, nowMs: number): string | number {
  try {
    return column.cell(object, nowMs);
  } catch (error) {
    // An object that was stored as it came may have any shape; one bad cell must not hide the other rows.
    if (error instanceof TypeError) return '<invalid>';
    throw error;
  }
}

function row(columns: readonly Column[], object: KubeObject, include: IncludeObject, nowMs: number): JsonObject {
  const cells = columns.map((column) => cell(column, object, nowMs));
  if (include === 'None') return { cells };
  const metadata = asJson(object)['metadata'] ?? {};
  return {
    cells,
    object:
      include === 'Object' ? asJson(object) : { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata },
  };
}

/**
 * Makes a table.
 *
 * @param metadata - Of the list, or of the watch event.
 * @param withColumns - False in every event of a watch but the first.
 */
export function toTable(
  columns: readonly Column[],
  objects: readonly KubeObject[],
  options: {
    readonly metadata: JsonObject;
    readonly include: IncludeObject;
    readonly nowMs: number;
    readonly withColumns: boolean;
  },
): JsonObject {
  const definitions: Json[] = columns.map((c) => ({
    name: c.name,
    type: c.type,
    format: c.name === 'Name' ? 'name' : '',
    description: '',
    priority: c.priority,
  }));
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: options.metadata,
    columnDefinitions: options.withColumns ? definitions : [],
    rows: objects.map((object) => row(columns, object, options.include, options.nowMs)),
  };
}
