/**
 * What the API server does to Nodes, Namespaces and ServiceCIDRs before they are stored.
 *
 * @module
 */

import { isJsonObject, type Json, type KubeObject } from './object.ts';
import { isCidr } from './service-checks.ts';
import { type FieldError, invalid, notSupported, required } from './status.ts';

function texts(value: Json | undefined): string[] {
  return Array.isArray(value) ? value.filter((v) => typeof v === 'string') : [];
}

/** Says what is no CIDR in a list of texts. */
function checkCidrs(field: string, value: Json | undefined): FieldError[] {
  const says = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)';
  return texts(value).flatMap((cidr, i) => (isCidr(cidr) ? [] : [invalid(`${field}[${i}]`, cidr, says)]));
}

export function admitNode(draft: KubeObject): FieldError[] {
  draft.spec ??= {};
  draft.status ??= {};
  const { spec } = draft;
  const [first] = texts(spec['podCIDRs']);
  if (spec['podCIDR'] === undefined && first !== undefined) spec['podCIDR'] = first;
  if (spec['podCIDRs'] === undefined && typeof spec['podCIDR'] === 'string') spec['podCIDRs'] = [spec['podCIDR']];
  const errors = checkCidrs('spec.podCIDRs', spec['podCIDRs']);
  const [now] = texts(spec['podCIDRs']);
  if (now !== undefined && now !== spec['podCIDR']) {
    errors.push(invalid('spec.podCIDRs[0]', now, 'must match `podCIDR`'));
  }
  const effects = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'];
  const taints = Array.isArray(spec['taints']) ? spec['taints'] : [];
  for (const [i, taint] of taints.entries()) {
    if (!isJsonObject(taint)) continue;
    if (!taint['key']) errors.push(required(`spec.taints[${i}].key`));
    const effect = taint['effect'];
    if (!effects.includes(String(effect))) errors.push(notSupported(`spec.taints[${i}].effect`, effect, effects));
  }
  return errors;
}

export function admitNamespace(draft: KubeObject): FieldError[] {
  draft.spec ??= { finalizers: ['kubernetes'] };
  draft.status ??= { phase: 'Active' };
  draft.metadata.labels = { ...draft.metadata.labels, 'kubernetes.io/metadata.name': draft.metadata.name };
  return [];
}

export function admitServiceCIDR(draft: KubeObject, old: KubeObject | undefined): FieldError[] {
  draft.spec ??= {};
  const cidrs = texts(draft.spec['cidrs']);
  if (cidrs.length === 0) return [required('spec.cidrs')];
  if (cidrs.length > 2) return [invalid('spec.cidrs', cidrs, 'may only hold up to 2 values')];
  const errors = checkCidrs('spec.cidrs', cidrs);
  if (cidrs.length === 2 && cidrs.filter((c) => c.includes(':')).length !== 1) {
    errors.push(invalid('spec.cidrs', cidrs, 'may specify no more than one IP for each IP family'));
  }
  const before = texts(old?.spec?.['cidrs']);
  if (before.some((cidr, i) => cidr !== cidrs[i]))
    errors.push(invalid('spec.cidrs[0]', cidrs[0], 'field is immutable'));
  return errors;
}

/** The CIDRs of a ServiceCIDR that can be used, valid or not as a whole. */
export function cidrsOf(object: KubeObject): string[] {
  return texts(object.spec?.['cidrs']).filter(isCidr);
}
