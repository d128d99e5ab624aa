/**
 * A configuration as a KubeProxyConfiguration v1alpha1 again: for `--write-config-to` and `/configz`.
 *
 * @module
 */

import { stringify } from 'yaml';
import { API_VERSION, DEFAULT_FILE, KIND } from './decode.ts';
import { formatDurationMs } from './durations.ts';
import type { Config } from './types.ts';

/**
 * The object, with every field, in the order of the API's type.
 *
 * Values that every mode has (periods, masqueradeAll) are written into the section of the mode alone, where a reader
 * takes them from; the other sections have zeros, which read as "not set".
 */
export function toKubeProxyConfiguration(config: Config) {
  const { mode, logging, conntrack, ipvs, detectLocal } = config;
  const isIpvs = mode === 'ipvs';
  const isNftables = mode === 'nftables';
  const periods = (mine: boolean) => ({
    syncPeriod: formatDurationMs(mine ? config.syncPeriodMs : 0),
    minSyncPeriod: formatDurationMs(mine ? config.minSyncPeriodMs : 0),
  });
  return {
    kind: KIND,
    apiVersion: API_VERSION,
    featureGates: config.featureGates,
    clientConnection: config.clientConnection,
    logging: {
      format: logging.format,
      flushFrequency: formatDurationMs(logging.flushFrequencyMs),
      verbosity: logging.verbosity,
      vmodule: logging.vmodule,
      options: { text: logging.text, json: logging.json },
    },
    hostnameOverride: config.hostnameOverride,
    bindAddress: config.bindAddress,
    healthzBindAddress: config.healthzBindAddress,
    metricsBindAddress: config.metricsBindAddress,
    bindAddressHardFail: config.bindAddressHardFail,
    enableProfiling: config.enableProfiling,
    showHiddenMetricsForVersion: config.showHiddenMetricsForVersion,
    mode,
    iptables: {
      masqueradeBit: config.iptables.masqueradeBit,
      masqueradeAll: isNftables ? DEFAULT_FILE.iptables.masqueradeAll : config.masqueradeAll,
      localhostNodePorts: config.iptables.localhostNodePorts,
      ...periods(!isIpvs && !isNftables),
    },
    ipvs: {
      ...periods(isIpvs),
      scheduler: ipvs.scheduler,
      excludeCIDRs: ipvs.excludeCIDRs,
      strictARP: ipvs.strictARP,
      tcpTimeout: formatDurationMs(ipvs.tcpTimeoutMs),
      tcpFinTimeout: formatDurationMs(ipvs.tcpFinTimeoutMs),
      udpTimeout: formatDurationMs(ipvs.udpTimeoutMs),
    },
    nftables: {
      masqueradeBit: config.nftables.masqueradeBit,
      layout: config.nftables.layout,
      masqueradeAll: isNftables ? config.masqueradeAll : DEFAULT_FILE.nftables.masqueradeAll,
      ...periods(isNftables),
    },
    winkernel: config.winkernel,
    windowsRunAsService: config.windowsRunAsService,
    portRange: config.portRange,
    detectLocalMode: config.detectLocalMode,
    detectLocal: {
      bridgeInterface: detectLocal.bridgeInterface,
      interfaceNamePrefix: detectLocal.interfaceNamePrefix,
    },
    clusterCIDR: detectLocal.clusterCIDRs.join(','),
    nodePortAddresses: config.nodePortAddresses,
    oomScoreAdj: config.oomScoreAdj,
    conntrack: {
      maxPerCore: conntrack.maxPerCore,
      min: conntrack.min,
      tcpEstablishedTimeout: formatDurationMs(conntrack.tcpEstablishedTimeoutMs),
      tcpCloseWaitTimeout: formatDurationMs(conntrack.tcpCloseWaitTimeoutMs),
      tcpBeLiberal: conntrack.tcpBeLiberal,
      udpTimeout: formatDurationMs(conntrack.udpTimeoutMs),
      udpStreamTimeout: formatDurationMs(conntrack.udpStreamTimeoutMs),
    },
    configSyncPeriod: formatDurationMs(config.configSyncPeriodMs),
  };
}

/**
 * The same as YAML, keys sorted as kube-proxy writes them. `decodeFile` reads it back to the same configuration,
 * except that a health server that is switched off has no spelling in a file.
 */
export function formatConfigYaml(config: Config): string {
  return stringify(toKubeProxyConfiguration(config), {
    version: '1.1',
    sortMapEntries: true,
    lineWidth: 0,
    aliasDuplicateObjects: false,
  });
}
