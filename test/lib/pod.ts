/**
 * A pod as the kubelet and containerd start it, told to an OCI runtime: what its manifest grants, and nothing it does not. Pure.
 *
 * Only what a DaemonSet on the network of its node can say: namespaces of the node for network and host name, volumes of the kinds
 * that ours has, capabilities given one by one or all of them. The score for the OOM killer stays as it is: lowering it takes a
 * capability that root has not got on every machine.
 *
 * @module
 */

import type { V1Container, V1PodSpec, V1SecurityContext, V1Volume } from '@kubernetes/client-node';
import { goArchitecture, type ImageConfig } from './image.ts';

/** Where the parts of a pod lie on the machine that runs it. */
export interface PodPlaces {
  /** The image's root file system. */
  readonly rootfs: string;
  readonly image: ImageConfig;
  readonly nodeName: string;
  /** Directory with the files of a ConfigMap, by its name. */
  readonly configMap: (name: string) => string;
  /** Directory with token, ca.crt and namespace. */
  readonly account: string;
  /** What a privileged container gets: the capabilities of root here. */
  readonly allCapabilities: readonly string[];
  /** The profile that RuntimeDefault stands for, as containers-common has it. */
  readonly seccomp: SeccompProfile;
}

/** A profile in the form that Docker gave it: rules with conditions, for every architecture. */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly defaultErrnoRet: number;
  readonly archMap: readonly { readonly architecture: string; readonly subArchitectures: readonly string[] }[];
  readonly syscalls: readonly SeccompRule[];
}

interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly args?: readonly object[] | null;
  readonly errnoRet?: number;
  readonly includes: SeccompCondition;
  readonly excludes: SeccompCondition;
}

interface SeccompCondition {
  readonly caps?: readonly string[];
  readonly arches?: readonly string[];
}

const ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';
const ARCHITECTURES: Readonly<Record<string, string>> = { amd64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' };

/** capabilities(7), in the order of their numbers. */
const CAPABILITIES: readonly string[] =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'.split(
    ' ',
  );

/** What containerd hides, and what it makes read-only, from all but privileged containers. */
const MASKED = ['acpi', 'asound', 'kcore', 'keys', 'latency_stats', 'timer_list', 'timer_stats', 'sched_debug', 'scsi'];
const READ_ONLY = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'];

/** Names of the capabilities whose bits are set, as in /proc/PID/status. */
export function capabilityNames(hex: string): readonly string[] {
  const bits = BigInt(`0x${hex}`);
  return CAPABILITIES.filter((_, bit) => bits & (1n << BigInt(bit)));
}

/** Capabilities that a container is granted one by one. @throws {RangeError} If the default ones stay: which those are is the runtime's choice. */
export function grantedCapabilities(context: V1SecurityContext): readonly string[] {
  const { add = [], drop = [] } = context.capabilities ?? {};
  if (!drop.includes('ALL')) throw new RangeError('Cannot tell the capabilities: the default ones are not dropped');
  return add;
}

/** The rules of a profile that hold for a process with these capabilities. */
function seccompFor(profile: SeccompProfile, capabilities: readonly string[]): object {
  const caps = new Set(capabilities.map((name) => `CAP_${name}`));
  const arch = goArchitecture();
  const includes = ({ caps: c = [], arches = [] }: SeccompCondition) =>
    c.every((name) => caps.has(name)) && (arches.length === 0 || arches.includes(arch));
  const excludes = ({ caps: c = [], arches = [] }: SeccompCondition) =>
    c.some((name) => caps.has(name)) || arches.includes(arch);
  const own = profile.archMap.find(({ architecture }) => architecture === ARCHITECTURES[arch]);
  if (own === undefined) throw new RangeError(`Cannot choose from the profile: it has nothing for ${arch}`);
  return {
    defaultAction: profile.defaultAction,
    defaultErrnoRet: profile.defaultErrnoRet,
    architectures: [own.architecture, ...own.subArchitectures],
    syscalls: profile.syscalls
      .filter((rule) => includes(rule.includes) && !excludes(rule.excludes))
      .map(({ names, action, args, errnoRet }) => ({
        names,
        action,
        args: args ?? [],
        ...(errnoRet !== undefined && { errnoRet }),
      })),
  };
}

/** Arguments that make what the kubelet and containerd make of a pod's paths of the host where they are missing. */
export function makeHostPaths(pod: V1PodSpec): readonly (readonly [string, ...string[]])[] {
  return (pod.volumes ?? []).flatMap(({ hostPath }) => {
    if (hostPath === undefined) return [];
    return [hostPath.type === 'FileOrCreate' ? ['touch', hostPath.path] : ['mkdir', '-p', hostPath.path]] as const;
  });
}

interface Mount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

function systemMounts(privileged: boolean): readonly Mount[] {
  const mount = (destination: string, type: string, ...options: string[]) => ({
    destination,
    type,
    source: type,
    options,
  });
  const none = ['nosuid', 'noexec', 'nodev'];
  return [
    mount('/proc', 'proc', ...none),
    mount('/dev', 'tmpfs', 'nosuid', 'strictatime', 'mode=755', 'size=65536k'),
    mount('/dev/pts', 'devpts', 'nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'),
    mount('/dev/shm', 'tmpfs', ...none, 'mode=1777', 'size=65536k'),
    mount('/dev/mqueue', 'mqueue', ...none),
    mount('/sys', 'sysfs', ...none, privileged ? 'rw' : 'ro'),
  ];
}

function sourceOf(volume: V1Volume | undefined, name: string, places: PodPlaces): string {
  const configMap = volume?.configMap?.name;
  if (configMap !== undefined) return places.configMap(configMap);
  if (volume?.hostPath !== undefined) return volume.hostPath.path;
  throw new RangeError(`Cannot mount the volume "${name}": it must be a ConfigMap or a path of the host`);
}

function volumeMounts(pod: V1PodSpec, container: V1Container, places: PodPlaces): readonly Mount[] {
  const bind = (source: string, destination: string, readOnly: boolean): Mount => ({
    destination,
    type: 'bind',
    source,
    options: ['rbind', 'rprivate', readOnly ? 'ro' : 'rw'],
  });
  const declared = (container.volumeMounts ?? []).map(({ name, mountPath, readOnly }) => {
    const volume = pod.volumes?.find((v) => v.name === name);
    return bind(sourceOf(volume, name, places), mountPath, readOnly === true);
  });
  return [...declared, bind(places.account, ACCOUNT_DIR, true)];
}

/** `$(NAME)` replaced, as the kubelet does it in arguments. */
function expand(text: string, env: ReadonlyMap<string, string>): string {
  return text.replace(/\$\(([A-Za-z_]\w*)\)/g, (whole, name) => env.get(name) ?? whole);
}

function environment(container: V1Container, places: PodPlaces): ReadonlyMap<string, string> {
  const env = new Map<string, string>();
  for (const { name, value, valueFrom } of container.env ?? []) {
    const isNodeName = valueFrom?.fieldRef?.fieldPath === 'spec.nodeName';
    if (valueFrom && !isNodeName) throw new RangeError(`Cannot set ${name}: its source must be spec.nodeName`);
    env.set(name, isNodeName ? places.nodeName : (value ?? ''));
  }
  return env;
}

/**
 * The runtime's config.json of a container.
 *
 * @throws {RangeError} If the manifest says something that this does not know.
 */
export function containerSpec(pod: V1PodSpec, container: V1Container, places: PodPlaces): object {
  if (pod.hostNetwork !== true) throw new RangeError('Cannot start the pod: it must be on the network of its node');
  const context = container.securityContext ?? {};
  const privileged = context.privileged === true;
  const capabilities = privileged ? places.allCapabilities : grantedCapabilities(context);
  const sets = capabilities.map((name) => `CAP_${name}`);
  const env = environment(container, places);
  const { image } = places;
  const command = container.command ?? image.Entrypoint;
  const args = container.args ?? (container.command ? [] : image.Cmd);
  const uid = context.runAsUser ?? 0;
  const profile = context.seccompProfile?.type ?? 'Unconfined';
  if (!['RuntimeDefault', 'Unconfined'].includes(profile)) throw new RangeError(`Cannot use the profile ${profile}`);
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid, gid: context.runAsGroup ?? 0, additionalGids: pod.securityContext?.supplementalGroups ?? [] },
      args: [...command, ...args].map((text) => expand(text, env)),
      env: [...image.Env, ...[...env].map(([name, value]) => `${name}=${value}`)],
      cwd: image.WorkingDir,
      // No ambient set: the runtime leaves a user who is not root without any when its program starts.
      capabilities: { bounding: sets, permitted: sets, effective: sets },
      noNewPrivileges: context.allowPrivilegeEscalation === false,
    },
    root: { path: places.rootfs, readonly: context.readOnlyRootFilesystem === true },
    mounts: [...systemMounts(privileged), ...volumeMounts(pod, container, places)],
    linux: {
      namespaces: ['pid', 'mount', 'ipc'].map((type) => ({ type })),
      ...(!privileged && {
        maskedPaths: [...MASKED.map((name) => `/proc/${name}`), '/sys/firmware'],
        readonlyPaths: READ_ONLY.map((name) => `/proc/${name}`),
      }),
      ...(profile === 'RuntimeDefault' && { seccomp: seccompFor(places.seccomp, capabilities) }),
    },
  };
}
