/**
 * What a configuration must hold. Every problem is found, not the first one, and each names what the user wrote: the
 * field when there is a file, the flag when there is none.
 *
 * @module
 */

import { parseCidr, parseIP } from '../proxier/addr.ts';
import { KUBERNETES_MINOR } from '../version.ts';
import { checkServer } from '../watch/cluster.ts';
import { isIPPort } from './addresses.ts';
import { formatDurationMs } from './durations.ts';
import { checkFeatureGates } from './feature-gates.ts';
import { flagOfField } from './flags.ts';
import {
  type Config,
  ConfigError,
  DETECT_LOCAL_MODES,
  type DraftConfig,
  IPTABLES_FLAVOURS,
  LOG_FORMATS,
  MODES,
  NFTABLES_LAYOUTS,
} from './types.ts';

/** One thing that is wrong. */
interface Problem {
  /** Field of KubeProxyConfiguration, or a flag with its dashes where there is no such field. */
  readonly where: string;
  readonly is: string;
  /** "must be …" or another clause that stands after the colon. */
  readonly mustBe: string;
}

/** Adds a problem unless `ok`. */
type Check = (ok: boolean, where: string, is: string | number, mustBe: string) => void;

/**
 * Checks a configuration whole.
 *
 * @throws {ConfigError} Holding every problem.
 */
export function validate(draft: DraftConfig): Config {
  const problems: Problem[] = [];
  const check: Check = (ok, where, is, mustBe) => {
    if (!ok) problems.push({ where, is: String(is), mustBe });
  };

  for (const problem of checkFeatureGates(draft.featureGates)) check(false, 'featureGates', '', problem);
  const mode = oneOf(MODES, draft.mode);
  check(mode !== undefined, 'mode', draft.mode, `must be one of ${MODES.join(', ')}`);
  checkPeriods(draft, check);
  checkPlatform(draft, check);
  checkAddresses(draft, check);
  const detectLocalMode = oneOf(DETECT_LOCAL_MODES, draft.detectLocalMode);
  check(
    detectLocalMode !== undefined,
    'detectLocalMode',
    draft.detectLocalMode,
    `must be one of ${DETECT_LOCAL_MODES.join(', ')}`,
  );
  checkLocalTraffic(draft, check);
  if (mode === 'ipvs') checkIpvs(draft, check);
  checkLogging(draft, check);
  const layout = oneOf(NFTABLES_LAYOUTS, draft.nftables.layout);
  check(
    layout !== undefined,
    'nftables.layout',
    draft.nftables.layout,
    `must be one of ${NFTABLES_LAYOUTS.join(', ')}`,
  );
  const iptablesFlavour = oneOf(IPTABLES_FLAVOURS, draft.iptablesFlavour);
  check(
    iptablesFlavour !== undefined,
    '--iptables-flavour',
    draft.iptablesFlavour,
    `must be one of ${IPTABLES_FLAVOURS.join(', ')}`,
  );
  const logFormat = oneOf(LOG_FORMATS, draft.logFormat);
  check(logFormat !== undefined, '--log-format', draft.logFormat, `must be one of ${LOG_FORMATS.join(', ')}`);

  if (
    problems.length > 0 ||
    mode === undefined ||
    layout === undefined ||
    detectLocalMode === undefined ||
    iptablesFlavour === undefined ||
    logFormat === undefined
  ) {
    throw new ConfigError(problems.map((p) => sentence(p, draft.configFile !== '')));
  }
  return { ...draft, mode, nftables: { ...draft.nftables, layout }, detectLocalMode, iptablesFlavour, logFormat };
}

function sentence({ where, is, mustBe }: Problem, hasFile: boolean): string {
  const name = hasFile ? where : (flagOfField(where) ?? where);
  return `Cannot use ${name}${is === '' ? '' : ` "${is}"`}: ${mustBe}`;
}

function oneOf<T extends string>(words: readonly T[], word: string): T | undefined {
  return words.find((known) => known === word);
}

function checkPeriods(draft: DraftConfig, check: Check): void {
  const { syncPeriodMs, minSyncPeriodMs, configSyncPeriodMs, mode } = draft;
  // By flags there are two pairs of periods, in a file three.
  const section = mode === 'ipvs' || (mode === 'nftables' && draft.configFile !== '') ? mode : 'iptables';
  const shown = formatDurationMs;
  check(configSyncPeriodMs > 0, 'configSyncPeriod', shown(configSyncPeriodMs), 'must be more than 0');
  check(syncPeriodMs > 0, `${section}.syncPeriod`, shown(syncPeriodMs), 'must be more than 0');
  check(minSyncPeriodMs >= 0, `${section}.minSyncPeriod`, shown(minSyncPeriodMs), 'must be 0 or more');
  check(
    minSyncPeriodMs <= syncPeriodMs,
    `${section}.minSyncPeriod`,
    shown(minSyncPeriodMs),
    `must not be longer than the sync period, which is ${shown(syncPeriodMs)}`,
  );
}

function checkPlatform(draft: DraftConfig, check: Check): void {
  const { iptables, nftables, conntrack, oomScoreAdj } = draft;
  const isBit = (n: number) => n >= 0 && n <= 31;
  check(isBit(iptables.masqueradeBit), 'iptables.masqueradeBit', iptables.masqueradeBit, 'must be in 0..31');
  check(
    isBit(nftables.masqueradeBit) || draft.mode !== 'nftables',
    'nftables.masqueradeBit',
    nftables.masqueradeBit,
    'must be in 0..31',
  );
  check(conntrack.maxPerCore >= 0, 'conntrack.maxPerCore', conntrack.maxPerCore, 'must be 0 or more');
  check(conntrack.min >= 0, 'conntrack.min', conntrack.min, 'must be 0 or more');
  const timeouts: readonly (readonly [string, number])[] = [
    ['conntrack.tcpEstablishedTimeout', conntrack.tcpEstablishedTimeoutMs],
    ['conntrack.tcpCloseWaitTimeout', conntrack.tcpCloseWaitTimeoutMs],
    ['conntrack.udpTimeout', conntrack.udpTimeoutMs],
    ['conntrack.udpStreamTimeout', conntrack.udpStreamTimeoutMs],
  ];
  for (const [where, ms] of timeouts) check(ms >= 0, where, formatDurationMs(ms), 'must be 0 or more');
  check(oomScoreAdj >= -1000 && oomScoreAdj <= 1000, 'oomScoreAdj', oomScoreAdj, 'must be in -1000..1000');
  const { burst } = draft.clientConnection;
  check(burst >= 0, 'clientConnection.burst', burst, 'must be 0 or more');
  const previous = `1.${KUBERNETES_MINOR - 1}`;
  check(
    draft.showHiddenMetricsForVersion === '' || draft.showHiddenMetricsForVersion === previous,
    'showHiddenMetricsForVersion',
    draft.showHiddenMetricsForVersion,
    `must be "${previous}" or empty`,
  );
}

function checkAddresses(draft: DraftConfig, check: Check): void {
  const { hostnameOverride, bindAddress, healthzBindAddress, metricsBindAddress, nodePortAddresses } = draft;
  check(
    hostnameOverride === '' || hostnameOverride.trim() !== '',
    'hostnameOverride',
    hostnameOverride,
    'must not be blank',
  );
  check(parseIP(bindAddress) !== undefined, 'bindAddress', bindAddress, 'must be an IP address');
  const mustBe = 'must be ip:port with a port in 1..65535, as in 127.0.0.1:10249 or [::1]:10249';
  check(healthzBindAddress === '' || isIPPort(healthzBindAddress), 'healthzBindAddress', healthzBindAddress, mustBe);
  check(isIPPort(metricsBindAddress), 'metricsBindAddress', metricsBindAddress, mustBe);
  const primaryOnly = nodePortAddresses.length === 1 && nodePortAddresses[0] === 'primary';
  for (const [i, address] of nodePortAddresses.entries()) {
    check(
      primaryOnly || parseCidr(address) !== undefined,
      draft.configFile === '' ? 'nodePortAddresses' : `nodePortAddresses[${i}]`,
      address,
      address === 'primary' ? 'must stand alone' : 'must be a CIDR such as 192.168.1.0/24, or primary alone',
    );
  }
  for (const url of draft.apiServers) {
    try {
      checkServer(url);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      check(false, '--master', url, 'must be a URL such as https://10.0.0.1:6443, without user, query and fragment');
    }
  }
}

/**
 * A name that can be an interface's and can stand in a rule as it is: printable ASCII without blanks, quotes and
 * what a rule's option would begin with. At most 15 bytes (IFNAMSIZ of linux/if.h less its
 * zero); a prefix one less, since iptables is told `prefix+` in as much room.
 */
const MAX_INTERFACE_NAME = 15;
const INTERFACE_NAME = /^(?![-!])[!-~]+$/;
const NOT_IN_NAMES = /[/:"'\\]/;

function checkLocalTraffic(draft: DraftConfig, check: Check): void {
  const { bridgeInterface, interfaceNamePrefix, clusterCIDRs } = draft.detectLocal;
  const checkName = (field: string, name: string, max: number) =>
    check(
      name.length <= max && INTERFACE_NAME.test(name) && !NOT_IN_NAMES.test(name),
      field,
      name,
      `must be 1 to ${max} printable characters without blanks, quotes, "/", ":" and "\\", and must not begin with "-" or "!"`,
    );
  switch (draft.detectLocalMode) {
    case 'BridgeInterface':
      checkName('detectLocal.bridgeInterface', bridgeInterface, MAX_INTERFACE_NAME);
      return;
    case 'InterfaceNamePrefix':
      checkName('detectLocal.interfaceNamePrefix', interfaceNamePrefix, MAX_INTERFACE_NAME - 1);
      return;
    case 'ClusterCIDR': {
      const families = clusterCIDRs.map((cidr) => parseCidr(cidr)?.family);
      const isPair = families.length <= 2 && new Set(families).size === families.length;
      check(
        isPair && !families.includes(undefined),
        'clusterCIDR',
        clusterCIDRs.join(','),
        'must be one CIDR, or one IPv4 and one IPv6 CIDR with a comma between them',
      );
      return;
    }
    default:
      // NodeCIDR takes its CIDRs from the Node; an unknown mode is named elsewhere.
      return;
  }
}

function checkIpvs(draft: DraftConfig, check: Check): void {
  const { tcpTimeoutMs, tcpFinTimeoutMs, udpTimeoutMs, excludeCIDRs } = draft.ipvs;
  check(tcpTimeoutMs >= 0, 'ipvs.tcpTimeout', formatDurationMs(tcpTimeoutMs), 'must be 0 or more');
  check(tcpFinTimeoutMs >= 0, 'ipvs.tcpFinTimeout', formatDurationMs(tcpFinTimeoutMs), 'must be 0 or more');
  check(udpTimeoutMs >= 0, 'ipvs.udpTimeout', formatDurationMs(udpTimeoutMs), 'must be 0 or more');
  for (const [i, cidr] of excludeCIDRs.entries()) {
    const where = draft.configFile === '' ? 'ipvs.excludeCIDRs' : `ipvs.excludeCIDRs[${i}]`;
    check(parseCidr(cidr) !== undefined, where, cidr, 'must be a CIDR such as 10.0.0.0/8');
  }
}

function checkLogging(draft: DraftConfig, check: Check): void {
  const { format, flushFrequencyMs, verbosity, vmodule } = draft.logging;
  check(format === 'text' || format === 'json', 'logging.format', format, 'must be text or json');
  check(flushFrequencyMs >= 0, 'logging.flushFrequency', formatDurationMs(flushFrequencyMs), 'must be 0 or more');
  check(verbosity >= 0, 'logging.verbosity', verbosity, 'must be 0 or more');
  for (const [i, item] of vmodule.entries()) {
    check(
      item.filePattern !== '' && !/[=,]/.test(item.filePattern) && item.verbosity >= 0,
      `logging.vmodule[${i}]`,
      `${item.filePattern}=${item.verbosity}`,
      'must have a file pattern without "=" and ",", and a verbosity of 0 or more',
    );
  }
  check(
    vmodule.length === 0 || format === 'text',
    'logging.vmodule',
    '',
    'must be empty unless the logging format is text',
  );
}
