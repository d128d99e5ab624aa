/**
 * The feature gates of kube-proxy 1.36 that name something this program does or deliberately leaves out.
 *
 * @module
 */

export interface FeatureGate {
  readonly name: string;
  readonly default: boolean;
  readonly stage: 'ALPHA' | 'BETA' | 'GA';
  /** A gate that cannot be changed any more. */
  readonly locked: boolean;
  readonly about: string;
}

const gate = (
  name: string,
  stage: FeatureGate['stage'],
  on: boolean,
  about: string,
  locked: boolean = false,
): FeatureGate => ({ name, default: on, stage, locked, about });

export const FEATURE_GATES: readonly FeatureGate[] = [
  gate('AllAlpha', 'ALPHA', false, 'Every ALPHA gate not named itself'),
  gate('AllBeta', 'BETA', false, 'Every BETA gate not named itself'),
  gate('AllowServiceExternalIPs', 'GA', true, 'Rules for spec.externalIPs of Services'),
  gate('ComponentFlagz', 'BETA', true, '/flagz on the metrics server'),
  gate('ComponentStatusz', 'BETA', true, '/statusz on the metrics server'),
  gate('ContextualLogging', 'BETA', true, 'No effect'),
  gate('LoggingAlphaOptions', 'ALPHA', false, 'No effect'),
  gate('LoggingBetaOptions', 'BETA', true, 'No effect'),
  gate('MultiCIDRServiceAllocator', 'GA', true, 'ServiceCIDR objects are watched', true),
  gate('NFTablesProxyMode', 'GA', true, 'Mode nftables', true),
  gate('NativeHistograms', 'ALPHA', false, 'No effect'),
  gate('PreferSameTrafficDistribution', 'GA', true, 'Node and zone hints of endpoints', true),
  gate('WatchListClient', 'BETA', true, 'No effect'),
];

const BY_NAME: ReadonlyMap<string, FeatureGate> = new Map(FEATURE_GATES.map((g) => [g.name, g]));

/**
 * Checks gates as given by flag or file.
 *
 * @returns A sentence for each that is not known or is locked at the other value.
 */
export function checkFeatureGates(given: Readonly<Record<string, boolean>>): readonly string[] {
  return Object.entries(given).flatMap(([name, on]) => {
    const known = BY_NAME.get(name);
    if (known === undefined) {
      return [`unknown gate "${name}", must be one of ${FEATURE_GATES.map((g) => g.name).join(', ')}`];
    }
    if (known.locked && on !== known.default) return [`"${name}" must be ${known.default}: it is locked`];
    return [];
  });
}

/**
 * Whether a gate is on: as given, else as AllAlpha or AllBeta says, else its default.
 *
 * @throws {TypeError} If there is no such gate.
 */
export function isFeatureEnabled(given: Readonly<Record<string, boolean>>, name: string): boolean {
  const known = BY_NAME.get(name);
  if (known === undefined) throw new TypeError(`Cannot look up feature gate "${name}": no such gate`);
  const all = known.stage === 'ALPHA' ? given['AllAlpha'] : known.stage === 'BETA' ? given['AllBeta'] : undefined;
  return given[name] ?? all ?? known.default;
}

/** Every gate as it stands, in the words of the metric `kubernetes_feature_enabled`, where a GA gate has no stage. */
export function featureStates(
  given: Readonly<Record<string, boolean>>,
): readonly { readonly name: string; readonly stage: string; readonly enabled: boolean }[] {
  return FEATURE_GATES.map(({ name, stage }) => ({
    name,
    stage: stage === 'GA' ? '' : stage,
    enabled: isFeatureEnabled(given, name),
  }));
}
