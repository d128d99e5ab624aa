/**
 * Names, labels and annotations as Kubernetes allows them.
 *
 * @module
 */

import type { Metadata } from './object.ts';
import { type FieldError, forbidden, invalid, required } from './status.ts';

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const DNS_1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

/** Which rule the names of a kind follow. */
export type NameRule = 'dns1035' | 'label' | 'subdomain';

const RULES: Readonly<Record<NameRule, { readonly pattern: RegExp; readonly max: number; readonly says: string }>> = {
  dns1035: {
    pattern: DNS_1035,
    max: 63,
    says: "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
  },
  label: {
    pattern: LABEL,
    max: 63,
    says: "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
  },
  subdomain: {
    pattern: SUBDOMAIN,
    max: 253,
    says: "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
  },
};

export function isLabel(text: string): boolean {
  return text.length <= 63 && LABEL.test(text);
}

export function checkName(rule: NameRule, field: string, name: string): FieldError[] {
  const { pattern, max, says } = RULES[rule];
  if (name === '') return [required(field, 'name or generateName is required')];
  if (name.length > max) return [invalid(field, name, `must be no more than ${max} characters`)];
  return pattern.test(name) ? [] : [invalid(field, name, says)];
}

/** True for the keys of labels and annotations: an optional subdomain and `/`, then a name of at most 63 characters. */
export function isQualifiedName(text: string): boolean {
  const parts = text.split('/');
  const name = parts.at(-1) ?? '';
  const prefix = parts.length === 2 ? parts[0] : undefined;
  if (parts.length > 2 || (prefix !== undefined && (prefix.length > 253 || !SUBDOMAIN.test(prefix)))) return false;
  return name.length <= 63 && QUALIFIED.test(name);
}

/** Checks what every kind has in its metadata. */
export function checkMetadata(metadata: Metadata, rule: NameRule, namespaced: boolean): FieldError[] {
  const errors = checkName(rule, 'metadata.name', metadata.name);
  if (namespaced) errors.push(...checkName('label', 'metadata.namespace', metadata.namespace ?? ''));
  else if (metadata.namespace) errors.push(forbidden('metadata.namespace', 'not allowed on this type'));
  for (const [key, value] of Object.entries(metadata.labels ?? {})) {
    if (!isQualifiedName(key)) errors.push(invalid('metadata.labels', key, 'name part must be a qualified name'));
    if (value !== '' && !(value.length <= 63 && QUALIFIED.test(value))) {
      errors.push(invalid('metadata.labels', value, 'a valid label must be an empty string or a qualified name'));
    }
  }
  for (const key of Object.keys(metadata.annotations ?? {})) {
    if (!isQualifiedName(key.toLowerCase())) {
      errors.push(invalid('metadata.annotations', key, 'name part must be a qualified name'));
    }
  }
  return errors;
}
