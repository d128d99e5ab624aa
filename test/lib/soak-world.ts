/**
 * A cluster that never rests: services are scaled, rolled, flap, change their type, are deleted and come back. What it
 * is like does not change with time, so that whoever watches it has no reason to grow.
 *
 * @module
 */

import { type Fields, liveService, NODE } from './live-objects.ts';
import type { Seeded } from './seeded.ts';

/** One write to the API server; each makes one event. */
export type Write = { readonly kind: 'apply' | 'delete'; readonly object: Fields };

interface Endpoint {
  /** Third number of its address, 1..250, used again when the pod is long gone. */
  readonly pod: number;
  readonly state: 'ready' | 'notReady' | 'terminating';
}

interface ServiceState {
  readonly number: number;
  exists: boolean;
  shape: number;
  /** Counts re-creations: each gets another cluster IP. */
  generation: number;
  nextPod: number;
  endpoints: readonly Endpoint[];
}

const MAX_ENDPOINTS = 6;

/** Of the services, how many are busy at a time, and the share of all events that is theirs. */
const BUSY_SERVICES = 0.12;
const BUSY_EVENTS = 0.95;

const CONDITIONS = {
  ready: { ready: true, serving: true, terminating: false },
  notReady: { ready: false, serving: false, terminating: false },
  terminating: { ready: false, serving: true, terminating: true },
} as const;

const octets = (n: number) => `${n >> 8}.${n & 255}`;

/** @param endpoints - Address and state. Every second one is on the node. */
export function soakSlice(
  number: number,
  endpoints: readonly { readonly address: string; readonly state: Endpoint['state'] }[],
): Fields {
  const name = `svc-${number}`;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { namespace: 'live', name: `${name}-a`, labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [
      { name: 'http', port: 8080, protocol: 'TCP' },
      { name: 'dns', port: 5353, protocol: 'UDP' },
    ],
    endpoints: endpoints.map(({ address, state }, i) => ({
      addresses: [address],
      conditions: CONDITIONS[state],
      nodeName: i % 2 === 0 ? NODE : 'node-b',
    })),
  };
}

/** As `liveService`, with node ports and addresses that no other service has. @param number - 1..2000. */
export function soakService(number: number, shape: number, { generation = 0, port = 80 } = {}): Fields {
  const ip = `10.43.${octets(number + 2048 * (generation & 7))}`;
  const nodePort = 30000 + number;
  const service = liveService(number, shape, {
    clusterIP: ip,
    clusterIPs: [ip],
    ports: [
      { name: 'http', protocol: 'TCP', port, ...((shape === 1 || shape === 2) && { nodePort }) },
      ...(number % 5 === 0 ? [{ name: 'dns', protocol: 'UDP', port: 53 }] : []),
    ],
  });
  const ingress = [{ ip: `198.18.${octets(number)}` }];
  return shape === 2 ? { ...service, status: { loadBalancer: { ingress } } } : service;
}

/** The services of the cluster, and what happens to them next. */
export class SoakWorld {
  readonly #chance: Seeded;
  readonly #services: ServiceState[];
  #busy: readonly ServiceState[] = [];

  /** @param count - How many services there are, those that are deleted just now included. */
  constructor(count: number, chance: Seeded) {
    this.#chance = chance;
    this.#services = Array.from({ length: count }, (_, i) => ({
      number: i + 1,
      exists: true,
      shape: i % 4,
      generation: 0,
      nextPod: 1,
      endpoints: [],
    }));
    for (const service of this.#services) this.#scaleTo(service, chance.integer(0, MAX_ENDPOINTS));
    this.turn();
  }

  /** From here on other services are the busy ones. */
  turn(): void {
    this.#busy = this.#chance.shuffled(this.#services).slice(0, Math.ceil(this.#services.length * BUSY_SERVICES));
  }

  /** Every object there is. */
  objects(): readonly Fields[] {
    return this.#services.filter(({ exists }) => exists).flatMap((s) => [this.#service(s), this.#slice(s)]);
  }

  /** What happens next to one service by chance, in order: 1 to about 20 writes. */
  next(): readonly Write[] {
    const chance = this.#chance;
    const among = chance.next() < BUSY_EVENTS ? this.#busy : this.#services;
    const service = among[chance.integer(0, among.length - 1)];
    if (service === undefined) return [];
    if (!service.exists) return this.#recreate(service);
    const what = chance.integer(0, 99);
    if (what < 35) return this.#scale(service);
    if (what < 60) return this.#roll(service);
    if (what < 85) return this.#flap(service);
    if (what < 95) return this.#retype(service);
    return this.#delete(service);
  }

  #service({ number, shape, generation }: ServiceState): Fields {
    return soakService(number, shape, { generation });
  }

  #slice({ number, endpoints }: ServiceState): Fields {
    const addresses = endpoints.map(({ pod, state }) => ({
      address: `10.${100 + (number >> 8)}.${number & 255}.${pod}`,
      state,
    }));
    return soakSlice(number, addresses);
  }

  #writeSlice(service: ServiceState): Write {
    return { kind: 'apply', object: this.#slice(service) };
  }

  #pod(service: ServiceState): number {
    const pod = service.nextPod;
    service.nextPod = (pod % 250) + 1;
    return pod;
  }

  #scaleTo(service: ServiceState, count: number): void {
    const kept = service.endpoints.slice(0, count);
    const added = Array.from({ length: count - kept.length }, () => ({
      pod: this.#pod(service),
      state: 'ready' as const,
    }));
    service.endpoints = [...kept, ...added];
  }

  #scale(service: ServiceState): readonly Write[] {
    const { length } = service.endpoints;
    // Another number than before: a write that changes nothing makes no event.
    this.#scaleTo(service, (length + this.#chance.integer(1, MAX_ENDPOINTS)) % (MAX_ENDPOINTS + 1));
    return [this.#writeSlice(service)];
  }

  /** One pod after the other: the new one comes, is ready, the old one terminates, is gone. */
  #roll(service: ServiceState): readonly Write[] {
    const writes: Write[] = [];
    const become = (endpoints: readonly Endpoint[]) => {
      service.endpoints = endpoints;
      writes.push(this.#writeSlice(service));
    };
    for (const old of service.endpoints.slice(0, 3)) {
      const pod = this.#pod(service);
      const others = () => service.endpoints.filter((e) => e.pod !== pod && e.pod !== old.pod);
      become([...service.endpoints, { pod, state: 'notReady' }]);
      become([...others(), old, { pod, state: 'ready' }]);
      become([...others(), { pod: old.pod, state: 'terminating' }, { pod, state: 'ready' }]);
      become([...others(), { pod, state: 'ready' }]);
    }
    return writes.length > 0 ? writes : this.#scale(service);
  }

  #flap(service: ServiceState): readonly Write[] {
    const writes: Write[] = [];
    const [first, ...others] = service.endpoints;
    if (first === undefined) return this.#scale(service);
    for (let i = this.#chance.integer(1, 4); i > 0; i--) {
      for (const state of ['notReady', 'ready'] as const) {
        service.endpoints = [{ pod: first.pod, state }, ...others];
        writes.push(this.#writeSlice(service));
      }
    }
    return writes;
  }

  #retype(service: ServiceState): readonly Write[] {
    service.shape = (service.shape + this.#chance.integer(1, 3)) % 4;
    return [{ kind: 'apply', object: this.#service(service) }];
  }

  #delete(service: ServiceState): readonly Write[] {
    service.exists = false;
    const all = [this.#service(service), this.#slice(service)];
    return this.#chance.shuffled(all).map((object) => ({ kind: 'delete', object }));
  }

  #recreate(service: ServiceState): readonly Write[] {
    service.exists = true;
    service.generation++;
    service.shape = this.#chance.integer(0, 3);
    this.#scaleTo(service, this.#chance.integer(0, MAX_ENDPOINTS));
    const all = [this.#service(service), this.#slice(service)];
    return this.#chance.shuffled(all).map((object) => ({ kind: 'apply', object }));
  }
}
