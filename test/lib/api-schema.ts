/**
 * Is an object as the published schema of the Kubernetes API (its OpenAPI document) says? Two packages are made from it: validators
 * of what must be there and of which type (kubernetes-models), and lists of fields (the client library). Only the lists tell
 * a misspelt field, which a schema lets pass and an API server drops.
 *
 * @module
 */

import * as k8s from '@kubernetes/client-node';

interface Field {
  readonly baseName: string;
  readonly type: string;
}

interface SchemaError {
  readonly instancePath: string;
  readonly keyword: string;
  readonly params: object;
}

interface Validator {
  (data: unknown): boolean;
  readonly errors: readonly SchemaError[] | null;
}

const types: Readonly<Record<string, unknown>> = { ...k8s };

function fieldsOf(type: string): readonly Field[] | undefined {
  const found = types[type];
  return typeof found === 'function' &&
    'getAttributeTypeMap' in found &&
    typeof found.getAttributeTypeMap === 'function'
    ? found.getAttributeTypeMap()
    : undefined;
}

/** Paths of fields that a type of the API does not have. */
function unknownFields(value: unknown, type: string, at: string): readonly string[] {
  const [, element] = /^Array<(.+)>$/.exec(type) ?? [];
  if (element !== undefined && Array.isArray(value)) {
    return value.flatMap((item, i) => unknownFields(item, element, `${at}/${i}`));
  }
  const [, of] = /^\{ \[key: string\]: (.+); \}$/.exec(type) ?? [];
  if (of !== undefined) return Object.entries(value ?? {}).flatMap(([k, v]) => unknownFields(v, of, `${at}/${k}`));
  const fields = fieldsOf(type);
  // What is no object where there should be one is the validator's to find.
  if (fields === undefined || typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([name, v]) => {
    const field = fields.find((f) => f.baseName === name);
    return field === undefined ? [`${at}/${name}: no field of ${type}`] : unknownFields(v, field.type, `${at}/${name}`);
  });
}

const capital = (word: string) => word.charAt(0).toUpperCase() + word.slice(1);

async function validatorOf(apiVersion: string, kind: string): Promise<Validator> {
  const [group = '', version = ''] = apiVersion.includes('/') ? apiVersion.split('/') : ['core', apiVersion];
  const name = `IoK8sApi${capital(group.split('.')[0] ?? '')}${capital(version)}${kind}`;
  const { validate }: { validate: Validator } = await import(`kubernetes-models/_schemas/${name}`);
  return validate;
}

/**
 * Compares an object with the schema of its kind.
 *
 * @returns What is wrong, as `/path: why`, sorted; empty if nothing is.
 * @throws {Error} If the API has no such kind.
 */
export async function schemaErrors(object: k8s.KubernetesObject): Promise<readonly string[]> {
  const { apiVersion = '', kind = '' } = object;
  const validate = await validatorOf(apiVersion, kind);
  const found = validate(object) ? [] : (validate.errors ?? []);
  const invalid = found.map(
    ({ instancePath, keyword, params }) => `${instancePath}: ${keyword} ${JSON.stringify(params)}`,
  );
  const type = `${capital(apiVersion.split('/').at(-1) ?? '')}${kind}`;
  return [...new Set([...invalid, ...unknownFields(object, type, '')])].sort();
}
