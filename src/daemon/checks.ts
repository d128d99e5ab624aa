/**
 * Does the configuration fit the families of this node? Most of what does not is only worth a warning.
 *
 * @module
 */

import { splitHostPort } from '../config/addresses.ts';
import type { Config } from '../config/types.ts';
import { isUnspecified, parseCidr, parseIP } from '../proxier/addr.ts';
import type { Family } from '../proxier/types.ts';

export interface CheckInput {
  readonly config: Pick<
    Config,
    'detectLocalMode' | 'detectLocal' | 'ipvs' | 'healthzBindAddress' | 'metricsBindAddress'
  >;
  /** `primary` replaced. */
  readonly nodePortAddresses: readonly string[];
  /** As configured: empty is worth a warning, `primary` that came to nothing is not. */
  readonly configuredNodePortAddresses: readonly string[];
  readonly podCIDRs: readonly string[];
  readonly primary: Family;
  /** Both families can be programmed on this node. */
  readonly dualStack: boolean;
}

export interface CheckResult {
  readonly warnings: readonly string[];
  /** With these the node would not do its work. */
  readonly errors: readonly string[];
}

const familiesOf = (cidrs: readonly string[]) => cidrs.flatMap((text) => parseCidr(text.trim())?.family ?? []);

/** Compares every list of addresses with the families. */
export function checkFamilies(input: CheckInput): CheckResult {
  const { config, nodePortAddresses, configuredNodePortAddresses, podCIDRs, primary, dualStack } = input;
  const { clusterCIDRs } = config.detectLocal;
  const warnings: string[] = [];
  const errors: string[] = [];

  const looksDual = [clusterCIDRs, nodePortAddresses, config.ipvs.excludeCIDRs, podCIDRs].some(
    (list) => new Set(familiesOf(list)).size === 2,
  );
  const nodePortFamilies = familiesOf(nodePortAddresses);
  if (configuredNodePortAddresses.length === 0) {
    warnings.push('nodePortAddresses is not set: node ports answer on every address of this node; consider "primary"');
  } else if (looksDual && nodePortFamilies.length > 0 && nodePortFamilies.every((f) => f === primary)) {
    warnings.push(`nodePortAddresses has ${primary} only: in the other family node ports answer on every address`);
  } else if (!nodePortFamilies.includes(primary)) {
    warnings.push(`nodePortAddresses has no ${primary}: in that family node ports answer on every address`);
  }

  const isWrong = (list: readonly string[]) => {
    const families = familiesOf(list);
    return families.length > 0 && families.every((f) => f !== primary);
  };
  const stack = dualStack ? `${primary} is the primary family` : `only ${primary} can be programmed`;
  const report = (what: string, fatal: boolean) =>
    (fatal ? errors : warnings).push(`${what} has no ${primary} address, but ${stack}`);
  if (isWrong(clusterCIDRs)) report('clusterCIDR', config.detectLocalMode === 'ClusterCIDR' && !dualStack);
  if (isWrong(podCIDRs)) report('podCIDRs of the node', config.detectLocalMode === 'NodeCIDR');
  if (!dualStack) {
    if (isWrong(config.ipvs.excludeCIDRs)) report('ipvs.excludeCIDRs', false);
    for (const field of ['healthzBindAddress', 'metricsBindAddress'] as const) {
      const ip = parseIP(splitHostPort(config[field])?.host ?? '');
      if (ip !== undefined && !isUnspecified(ip.ip) && ip.family !== primary) report(field, false);
    }
  }
  return { warnings, errors };
}
