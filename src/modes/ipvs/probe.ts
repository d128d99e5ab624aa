/**
 * Whether this node can run IPVS mode. spec: ipvs.md §1.
 *
 * @module
 */

import { kernelAnswered, NetlinkError } from '../../netlink/error.ts';
import type { Ipvs } from '../../netlink/ipvs.ts';
import type { IpvsService } from '../../netlink/ipvs-codec.ts';
import { type Exec, ExecError } from '../../sys/exec.ts';
import { probeIpset } from './ipset.ts';

/** 198.51.100.0, of a network for documentation. */
const PROBE_ADDRESS = Uint8Array.of(198, 51, 100, 0);
const PROBE_PORT = 20_000;
const MODPROBE_TIMEOUT_MS = 30_000;

export interface IpvsProbeDeps {
  readonly ipvs: Ipvs;
  readonly exec: Exec;
}

/** What the probe found. */
export interface IpvsProbe {
  /** As in `7.17`. */
  readonly ipsetVersion: string;
}

/** Newer kernels load the module by themselves when they are asked for the family. */
async function loadModule(exec: Exec): Promise<void> {
  try {
    await exec.run({ argv: ['modprobe', 'ip_vs'], timeoutMs: MODPROBE_TIMEOUT_MS });
  } catch (error) {
    // Built in, loaded already, or not there: the first request tells.
    if (!(error instanceof ExecError)) throw error;
  }
}

function cannot(what: string, cause: unknown): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new Error(`Cannot use IPVS: ${what} (${why})`, { cause });
}

/**
 * Looks at kernel and programs. The scheduler is tried on a virtual server that is taken away again, unless one uses it already.
 *
 * @throws {Error} If something is missing; the message says what to do.
 */
export async function probeIpvs(scheduler: string, { ipvs, exec }: IpvsProbeDeps): Promise<IpvsProbe> {
  await loadModule(exec);
  let services: readonly IpvsService[];
  try {
    services = ipvs.listServices();
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    if (kernelAnswered(error, 'EPERM')) throw cannot('run as root with CAP_NET_ADMIN', error);
    throw cannot('load the kernel module ip_vs', error);
  }
  let ipsetVersion: string;
  try {
    ipsetVersion = await probeIpset(exec);
  } catch (error) {
    throw cannot('install the package ipset, 6.0 or newer', error);
  }
  if (services.some((service) => service.scheduler === scheduler)) return { ipsetVersion };

  const service = { address: PROBE_ADDRESS, port: PROBE_PORT, protocol: 6, scheduler, flags: 0, timeoutSeconds: 0 };
  const [refused] = ipvs.change([{ kind: 'newService', service }]).values();
  // One of an earlier start that was killed in between.
  if (refused !== undefined && !kernelAnswered(refused, 'EEXIST')) {
    throw cannot(`load the kernel module ip_vs_${scheduler}, or choose another scheduler`, refused);
  }
  ipvs.change([{ kind: 'deleteService', service }]);
  return { ipsetVersion };
}
