/**
 * What must be there for nftables mode: nf_tables in the kernel, a kernel that does it right, and the permission to use it. No program:
 * the kernel is spoken to directly. spec: nftables.md §1.
 *
 * @module
 */

import { NetlinkError } from '../../netlink/error.ts';
import type { Nftables } from '../../netlink/nftables/nftables.ts';

/** A chain of type nat can be at priority -100 in the output hook, and reject in prerouting, from then on. */
const LEAST_KERNEL = [5, 13] as const;

/** Set to anything, it has older kernels tried (the name is kube-proxy's). */
export const SKIP_VERSION_CHECK = 'KUBE_PROXY_NFTABLES_SKIP_KERNEL_VERSION_CHECK';

export interface NodeKernel {
  /** As `uname -r` prints it. */
  readonly release: string;
  readonly skipVersionCheck: boolean;
}

/**
 * Asks the kernel one question; starts no program.
 *
 * @returns What is missing and what to do about it, or undefined if nothing is.
 */
export function probeNftables(nftables: Pick<Nftables, 'generation'>, kernel: NodeKernel): Error | undefined {
  if (!kernel.skipVersionCheck && !isNewEnough(kernel.release)) {
    const advice = `run a kernel of ${LEAST_KERNEL.join('.')} or newer, or choose mode iptables (${SKIP_VERSION_CHECK}=1 in the environment has it tried)`;
    return new Error(`Cannot use nftables: the kernel is ${kernel.release}; ${advice}`);
  }
  try {
    nftables.generation();
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    const { failure } = error;
    const isDenied = 'name' in failure && (failure.name === 'EPERM' || failure.name === 'EACCES');
    const advice = isDenied
      ? 'run as root with CAP_NET_ADMIN'
      : 'load the module nf_tables (modprobe nf_tables), or choose mode iptables';
    return new Error(`Cannot use nftables: ${error.message}; ${advice}`, { cause: error });
  }
  return undefined;
}

/** True as well for a release without a number to compare. */
function isNewEnough(release: string): boolean {
  const found = /^(\d+)\.(\d+)/.exec(release);
  if (found === null) return true;
  const [major, minor] = [Number(found[1]), Number(found[2])];
  return major > LEAST_KERNEL[0] || (major === LEAST_KERNEL[0] && minor >= LEAST_KERNEL[1]);
}
