/**
 * KubeProxyConfiguration v1alpha1: its fields, their types and their defaults, in the one table that file reading,
 * flag defaults and documentation share.
 *
 * @module
 */

import { parseDocument, type Tags } from 'yaml';
import { withPort } from './addresses.ts';
import {
  bool,
  durationMs,
  durationMsOr,
  durationOrNanosecondsMs,
  type FieldReport,
  type FieldShape,
  type FieldValue,
  int32,
  list,
  mapOf,
  numberOr,
  object,
  quantity,
  text,
  textOr,
} from './fields.ts';
import { ConfigError } from './types.ts';

export const API_VERSION = 'kubeproxy.config.k8s.io/v1alpha1';
export const KIND = 'KubeProxyConfiguration';

export const HEALTHZ_PORT = 10256;
export const METRICS_PORT = 10249;

const SECOND = 1000;
const HOUR = 3600 * SECOND;

const logStream = object({ splitStream: bool(false), infoBufferSize: quantity('0') });

/** Name → type and default. `…Or` fields take their default when they are zero or empty too. */
export const FILE_FIELDS = {
  apiVersion: text(),
  kind: text(),
  featureGates: mapOf(bool(false)),
  clientConnection: object({
    kubeconfig: text(),
    acceptContentTypes: text(),
    contentType: textOr('application/vnd.kubernetes.protobuf'),
    qps: numberOr(5),
    burst: numberOr(10),
  }),
  logging: object({
    format: textOr('text'),
    flushFrequency: durationOrNanosecondsMs(5 * SECOND),
    verbosity: int32(0),
    vmodule: list(object({ filePattern: text(), verbosity: int32(0) })),
    options: object({ text: logStream, json: logStream }),
  }),
  hostnameOverride: text(),
  bindAddress: textOr('0.0.0.0'),
  healthzBindAddress: text(),
  metricsBindAddress: text(),
  bindAddressHardFail: bool(false),
  enableProfiling: bool(false),
  showHiddenMetricsForVersion: text(),
  mode: text(),
  iptables: object({
    masqueradeBit: int32(14),
    masqueradeAll: bool(false),
    localhostNodePorts: bool(true),
    syncPeriod: durationMsOr(30 * SECOND),
    minSyncPeriod: durationMsOr(SECOND),
  }),
  ipvs: object({
    syncPeriod: durationMsOr(30 * SECOND),
    minSyncPeriod: durationMs(0),
    scheduler: text(),
    excludeCIDRs: list(text()),
    strictARP: bool(false),
    tcpTimeout: durationMs(0),
    tcpFinTimeout: durationMs(0),
    udpTimeout: durationMs(0),
  }),
  nftables: object({
    masqueradeBit: int32(14),
    // Of ours: kube-proxy knows no such field.
    layout: textOr('chains'),
    masqueradeAll: bool(false),
    syncPeriod: durationMsOr(30 * SECOND),
    minSyncPeriod: durationMsOr(SECOND),
  }),
  winkernel: object({
    networkName: text(),
    sourceVip: text(),
    enableDSR: bool(false),
    rootHnsEndpointName: text(),
    forwardHealthCheckVip: bool(false),
  }),
  windowsRunAsService: bool(false),
  portRange: text(),
  detectLocalMode: text(),
  detectLocal: object({ bridgeInterface: text(), interfaceNamePrefix: text() }),
  clusterCIDR: text(),
  nodePortAddresses: list(text()),
  oomScoreAdj: int32(-999),
  conntrack: object({
    maxPerCore: int32(32768),
    min: int32(131072),
    tcpEstablishedTimeout: durationMs(24 * HOUR),
    tcpCloseWaitTimeout: durationMs(HOUR),
    tcpBeLiberal: bool(false),
    udpTimeout: durationMs(0),
    udpStreamTimeout: durationMs(0),
  }),
  configSyncPeriod: durationMsOr(15 * 60 * SECOND),
};

const fileObject = object(FILE_FIELDS);

/** What a KubeProxyConfiguration consists of, for documentation. */
export const FILE_SHAPE: FieldShape = fileObject.shape;

/** A whole KubeProxyConfiguration: every field has its value. Durations are in milliseconds. */
export type FileConfig = FieldValue<typeof fileObject>;

export interface DecodedFile {
  readonly file: FileConfig;
  /** Unknown and repeated fields, one sentence each. The rest of the file is used. */
  readonly warnings: readonly string[];
}

/** A file that says nothing: all defaults. */
export const DEFAULT_FILE: FileConfig = decodeFields({}, { errors: [], warnings: [] });

/**
 * Reads a KubeProxyConfiguration from YAML or JSON.
 *
 * @param source - Name of the file, for messages.
 * @throws {ConfigError} If it is not YAML, not of this kind and version, or a field has the wrong type.
 */
export function decodeFile(content: string, source: string): DecodedFile {
  const document = parseDocument(content, { version: '1.1', customTags: withoutSurprises });
  const warnings = document.warnings.map((w) => firstLine(w.message));
  const errors: string[] = [];
  for (const error of document.errors) {
    if (error.code === 'DUPLICATE_KEY')
      warnings.push(`Using the last value of a field given twice: ${firstLine(error.message)}`);
    else errors.push(`Cannot parse as YAML or JSON: ${firstLine(error.message)}`);
  }
  const report: FieldReport = { errors, warnings };
  if (errors.length === 0) {
    const value: unknown = document.toJS();
    const file = decodeFields(value, report);
    if (errors.length === 0) checkKind(file, report);
    if (errors.length === 0) return { file, warnings: warnings.map((w) => `${source}: ${w}`) };
  }
  throw new ConfigError(errors.map((e) => `${source}: ${e}`));
}

function decodeFields(value: unknown, report: FieldReport): FileConfig {
  const decoded = fileObject(value, '', report);
  const v6 = decoded.bindAddress.includes(':');
  return {
    ...decoded,
    healthzBindAddress: withPort(decoded.healthzBindAddress || (v6 ? '::' : '0.0.0.0'), HEALTHZ_PORT),
    metricsBindAddress: withPort(decoded.metricsBindAddress || (v6 ? '::1' : '127.0.0.1'), METRICS_PORT),
  };
}

function checkKind(file: FileConfig, report: FieldReport): void {
  if (file.apiVersion !== API_VERSION) {
    report.errors.push(`Cannot use apiVersion "${file.apiVersion}": must be "${API_VERSION}"`);
  }
  if (file.kind !== KIND) report.errors.push(`Cannot use kind "${file.kind}": must be "${KIND}"`);
}

const firstLine = (message: string) => message.split('\n', 1)[0]?.replace(/:$/, '') ?? message;

/** Types of YAML 1.1 that Kubernetes' own reader does not know: their texts stay texts. */
const FOREIGN_TAGS: ReadonlySet<string> = new Set(
  ['timestamp', 'binary', 'omap', 'pairs', 'set'].map((name) => `tag:yaml.org,2002:${name}`),
);

/** The tags of YAML 1.1 (`yes` is true) without dates, binary data and numbers like 1:30. */
function withoutSurprises(tags: Tags): Tags {
  return tags.filter(
    (tag) => typeof tag === 'string' || !(FOREIGN_TAGS.has(tag.tag) || ('format' in tag && tag.format === 'TIME')),
  );
}
