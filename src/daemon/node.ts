/**
 * This node, as the API server knows it: waited for at the start, watched afterwards.
 *
 * @module
 */

import { isLoopback, isUnspecified, parseIP } from '../proxier/addr.ts';
import type { Log } from '../proxier/proxier.ts';
import { FAMILIES, type Family, type IPAddress, type NodeObject, type WatchEvent } from '../proxier/types.ts';
import type { Clock } from '../sys/clock.ts';

const POLL_MS = 1_000;
/** How long a node of an API server is waited for that has no address yet. */
export const IPS_TIMEOUT_MS = 30_000;
const POD_CIDRS_TIMEOUT_MS = 300_000;

/** The addresses the daemon takes for the node's own. */
export interface NodeIPs {
  readonly primary: Family;
  /** Loopback where nothing better is known. */
  readonly ips: Readonly<Record<Family, IPAddress>>;
}

/** The InternalIPs and then the ExternalIPs: the first, and the first of the other family. */
export function apiNodeIPs(node: Pick<NodeObject, 'addresses'> | undefined): readonly IPAddress[] {
  const found = ['InternalIP', 'ExternalIP'].flatMap((type) =>
    (node?.addresses ?? []).flatMap((a) => {
      const parsed = a.type === type ? parseIP(a.address) : undefined;
      return parsed === undefined ? [] : [parsed];
    }),
  );
  const [first] = found;
  if (first === undefined) return [];
  const other = found.find((p) => p.family !== first.family);
  return other === undefined ? [first.ip] : [first.ip, other.ip];
}

/**
 * Chooses node IPs and the primary family: those of the API over loopback, and `bindAddress` over both unless it is
 * unspecified.
 */
export function chooseNodeIPs(node: Pick<NodeObject, 'addresses'> | undefined, bindAddress: string): NodeIPs {
  const defaults: readonly IPAddress[] = ['127.0.0.1', '::1'].flatMap((text) => parseIP(text)?.ip ?? []);
  const bind = parseIP(bindAddress);
  const bound = bind === undefined || isUnspecified(bind.ip) ? [] : [bind.ip];
  const candidates = [...bound, ...apiNodeIPs(node), ...defaults].flatMap((ip) => parseIP(ip) ?? []);
  const pick = (family: Family): IPAddress => {
    const found = candidates.find((c) => c.family === family);
    if (found === undefined) throw new TypeError(`Cannot choose a node IP: no candidate of ${family}`);
    return found.ip;
  };
  return {
    primary: candidates[0]?.family ?? 'IPv4',
    ips: { IPv4: pick('IPv4'), IPv6: pick('IPv6') },
  };
}

/**
 * The CIDRs that node ports answer on. `primary` stands for the node's own addresses; a family that has none but
 * loopback gets no CIDR, which means every address.
 */
export function nodePortCidrs(configured: readonly string[], { ips }: NodeIPs): readonly string[] {
  if (configured.length !== 1 || configured[0] !== 'primary') return configured;
  return FAMILIES.filter((family) => !isLoopback(ips[family])).map(
    (family) => `${ips[family]}/${family === 'IPv4' ? 32 : 128}`,
  );
}

/** What a start finds out about the node. */
export interface NodeFacts {
  readonly name: string;
  readonly watch: NodeWatch;
  /** Get every event of the node's watch, one after the other; the watch itself is the first. */
  readonly listeners: ((event: WatchEvent) => void)[];
  /** At the start. */
  readonly podCIDRs: readonly string[];
  readonly ips: NodeIPs;
}

export interface NodeWatchOptions {
  readonly name: string;
  /** The pod CIDRs decide what is local traffic: wait for them, and end when they change. */
  readonly needsPodCIDRs: boolean;
  /** How long to wait for the node to have an address. */
  readonly addressTimeoutMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

const sameList = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((text, i) => text === b[i]);

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });

/** Follows the watch of the one Node. */
export class NodeWatch {
  readonly #options: NodeWatchOptions;
  readonly #synced = Promise.withResolvers<void>();
  readonly #podCIDRsChanged = Promise.withResolvers<never>();
  #node: NodeObject | undefined;
  /** Set when `wait` has returned: what the daemon was started with. */
  #initial: { readonly podCIDRs: readonly string[]; readonly ips: readonly IPAddress[] } | undefined;

  constructor(options: NodeWatchOptions) {
    this.#options = options;
    // It rejects whether or not someone waits for it by then.
    this.#podCIDRsChanged.promise.catch(() => {});
  }

  /** The node as last seen; undefined while it does not exist. */
  get node(): NodeObject | undefined {
    return this.#node;
  }

  /**
   * Resolves when `signal` aborts.
   *
   * @throws {Error} When the node's pod CIDRs change and local traffic depends on them.
   */
  async guardPodCIDRs(signal: AbortSignal): Promise<void> {
    await Promise.race([this.#podCIDRsChanged.promise, aborted(signal)]);
  }

  /** Takes the events of the node's watch; others are ignored. */
  handle(event: WatchEvent): void {
    const { name, log } = this.#options;
    if (event.type === 'synced' && event.kind === 'Node') this.#synced.resolve();
    else if (event.type === 'upsert' && event.object.kind === 'Node' && event.object.name === name) {
      this.#node = event.object;
      this.#compare(event.object);
    } else if (event.type === 'delete' && event.kind === 'Node' && event.key === name) {
      this.#node = undefined;
      log.warn({ node: name }, 'node deleted');
    }
  }

  /**
   * Waits for the API server's answer without limit, then for a while for the node to have an address, and, if they are
   * needed, up to 5 min for its pod CIDRs.
   *
   * @returns The node, or undefined if it does not exist, which the daemon can live with.
   * @throws {Error} If pod CIDRs are needed and there are none.
   */
  async wait(signal: AbortSignal): Promise<NodeObject | undefined> {
    const { name, needsPodCIDRs, addressTimeoutMs, log } = this.#options;
    await Promise.race([this.#synced.promise, aborted(signal)]);
    if (!(await this.#poll(() => apiNodeIPs(this.#node).length > 0, addressTimeoutMs, signal))) {
      log.warn({ node: name, exists: this.#node !== undefined }, 'node has no address in the API');
    }
    const hasPodCIDRs = () => (this.#node?.podCIDRs.length ?? 0) > 0;
    if (needsPodCIDRs && !(await this.#poll(hasPodCIDRs, POD_CIDRS_TIMEOUT_MS, signal)) && !signal.aborted) {
      const is = this.#node === undefined ? 'it does not exist' : 'it has no podCIDRs';
      throw new Error(
        `Cannot detect local traffic by the pod CIDRs of node "${name}": ${is}, it must have one in 5 min`,
      );
    }
    this.#initial = { podCIDRs: this.#node?.podCIDRs ?? [], ips: apiNodeIPs(this.#node) };
    return this.#node;
  }

  async #poll(done: () => boolean, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    const endMs = clock.now() + timeoutMs;
    while (!done() && !signal.aborted && clock.now() < endMs) await clock.sleep(POLL_MS, signal);
    return done();
  }

  #compare(node: NodeObject): void {
    const { name, needsPodCIDRs, log } = this.#options;
    if (this.#initial === undefined) return;
    const { podCIDRs, ips } = this.#initial;
    if (needsPodCIDRs && !sameList(podCIDRs, node.podCIDRs)) {
      const [was, is] = [podCIDRs.join(', '), node.podCIDRs.join(', ')];
      this.#podCIDRsChanged.reject(
        new Error(
          `Cannot go on with the pod CIDRs ${was}: node "${name}" now has ${is || 'none'}, a new start takes them`,
        ),
      );
    }
    const now = apiNodeIPs(node);
    if (!sameList(ips, now)) {
      log.warn({ node: name, was: ips, is: now }, 'node addresses changed; the first ones stay in use until a restart');
      this.#initial = { podCIDRs, ips: now };
    }
  }
}
