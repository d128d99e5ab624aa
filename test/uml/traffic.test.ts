/**
 * Real connections through IPVS mode: from the node itself, from a host outside and from a pod, to three endpoints that say where they
 * were reached.
 *
 *     outside 192.168.7.9, fd00:7::9 ── eth0 192.168.7.1, fd00:7::1  node  cni0 10.42.0.1, fd00:42::1 ── pods 10.42.0.11-13, fd00:42::11-13
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { closeConnection, openConnection, sayOver } from '../../src/lab/connection.ts';
import { decodeFromAgent, type Operation, type Operations, type RequestOutcome } from '../../src/lab/protocol.ts';
import { sendRequest } from '../../src/lab/request.ts';
import { openIpvs } from '../../src/modes/ipvs/open.ts';
import type { Dataplane } from '../../src/modes/mode.ts';
import { nodePortAddresses } from '../../src/proxier/node-port-addresses.ts';
import { FAMILIES, type Family, type ObjectKey, type ServicePlan, type ServicePort } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { realExec } from '../../src/sys/exec.ts';
import { realLegacyTables } from '../../src/sys/legacy-tables.ts';
import { realSysctl } from '../../src/sys/proc.ts';
import { cidr, ip, makeEndpoint, makePlan, makeServicePort } from '../lib/make.ts';
import { sh } from '../lib/namespace.ts';
import { isInsideUml, runInUml } from '../lib/uml.ts';

const AGENT = fileURLToPath(new URL('../../src/lab/agent.ts', import.meta.url));
const HTTP = 8080;
const UDP = 5353;
const SERVED = [
  { kind: 'tcp', port: HTTP },
  { kind: 'udp', port: UDP },
] as const;

type Ask = <K extends Operation>(op: K, args: Operations[K]['args']) => Promise<unknown>;

/** A process in a network namespace that does what it is asked. */
async function startAgent(namespace: string): Promise<{ readonly ask: Ask; readonly child: ChildProcess }> {
  const child = spawn('ip', ['netns', 'exec', namespace, process.execPath, AGENT], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const pending = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  let last = 0;
  await new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('message', (message) => {
      const said = decodeFromAgent(message);
      if ('hello' in said) resolve();
      else if ('id' in said) {
        const waiting = pending.get(said.id);
        if ('error' in said) waiting?.reject(new Error(said.error));
        else waiting?.resolve(said.result);
      }
    });
  });
  const ask: Ask = (op, args) =>
    new Promise((resolve, reject) => {
      pending.set(++last, { resolve, reject });
      child.send({ id: last, op, args });
    });
  return { ask, child };
}

/** The node's links, and a namespace at the other end of each. */
function buildNetwork(): void {
  const link = (namespace: string, name: string, [own4, own6]: readonly [string, string]) => {
    sh('ip', 'netns', 'add', namespace);
    sh('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace);
    sh('ip', 'addr', 'add', own4, 'dev', name);
    sh('ip', 'addr', 'add', own6, 'dev', name, 'nodad');
    sh('ip', 'link', 'set', name, 'up');
    sh('ip', '-n', namespace, 'link', 'set', 'eth0', 'up');
    sh('ip', '-n', namespace, 'link', 'set', 'lo', 'up');
  };
  link('pods', 'cni0', ['10.42.0.1/24', 'fd00:42::1/64']);
  link('outside', 'eth0', ['192.168.7.1/24', 'fd00:7::1/64']);
  const give = (namespace: string, ...addresses: readonly string[]) => {
    for (const a of addresses)
      sh('ip', '-n', namespace, 'addr', 'add', a, 'dev', 'eth0', ...(a.includes(':') ? ['nodad'] : []));
  };
  for (const n of [11, 12, 13]) give('pods', `10.42.0.${n}/24`, `fd00:42::${n}/64`);
  give('outside', '192.168.7.9/24', 'fd00:7::9/64');
  for (const [namespace, v4, v6] of [
    ['pods', '10.42.0.1', 'fd00:42::1'],
    ['outside', '192.168.7.1', 'fd00:7::1'],
  ] as const) {
    sh('ip', '-n', namespace, 'route', 'add', 'default', 'via', v4);
    sh('ip', '-n', namespace, '-6', 'route', 'add', 'default', 'via', v6);
  }
  realSysctl.set('net/ipv6/conf/all/forwarding', 1);
}

const LOCAL_TRAFFIC: Readonly<Record<Family, string>> = { IPv4: '10.42.0.0/16', IPv6: 'fd00:42::/64' };
const NODE_IP: Readonly<Record<Family, string>> = { IPv4: '192.168.7.1', IPv6: 'fd00:7::1' };

async function openDataplane(family: Family, scheduler: string): Promise<Dataplane> {
  const none = () => {};
  const mode = await openIpvs(
    {
      iptablesFlavour: 'legacy',
      masqueradeBit: 14,
      masqueradeAll: false,
      syncPeriodMs: 1_000,
      ipvs: {
        scheduler,
        excludeCIDRs: [],
        strictARP: false,
        bindsExternalIPs: true,
        tcpTimeoutMs: 0,
        tcpFinTimeoutMs: 0,
        udpTimeoutMs: 250_000,
      },
    },
    {
      exec: realExec,
      clock: realClock,
      sysctl: realSysctl,
      legacyTables: realLegacyTables,
      log: { info: none, warn: none },
      metrics: () => ({ restoreFailed: none }),
    },
  );
  return mode.createDataplane({
    family,
    localTraffic: { kind: 'cidr', cidr: cidr(LOCAL_TRAFFIC[family]) },
    nodePortAddresses: nodePortAddresses([], family),
    nodeIP: ip(NODE_IP[family]),
    localhostNodePorts: false,
  });
}

const VIP = { IPv4: '10.43.0.1', IPv6: 'fd00:43::1' } as const;

/** The service `ns1/svc1` on port 80, answered by pods of these numbers. */
function service(
  family: Family,
  pods: readonly number[],
  overrides: Partial<Omit<ServicePort, 'service' | 'name'>> = {},
): ServicePlan {
  const port = overrides.protocol === 'UDP' ? UDP : HTTP;
  const address = (n: number) => (family === 'IPv4' ? `10.42.0.${n}` : `fd00:42::${n}`);
  return makePlan(
    makeServicePort({ clusterIP: ip(VIP[family]), ...overrides }),
    pods.map((n) => makeEndpoint(address(n), { port, isLocal: true })),
  );
}

const KEY = 'ns1/svc1' as ObjectKey;

function request(address: string, port: number, kind: 'tcp' | 'udp' = 'tcp') {
  return { kind, address, port, path: '/', timeoutMs: 5_000, from: undefined, fromPort: 0 } as const;
}

/** Which pod answered, by the last part of its address, and whom it saw; or how it ended. */
function told(outcome: RequestOutcome): string {
  if (outcome.kind !== 'answered') return outcome.kind;
  const { address, client } = JSON.parse(outcome.text) as { address: string; client: string };
  return `${/\w+$/.exec(address)?.[0]} from ${client}`;
}

/** How many of `count` requests each pod answered. */
async function counts(count: number, ask: () => Promise<RequestOutcome>): Promise<Readonly<Record<string, number>>> {
  const seen: Record<string, number> = {};
  for (let i = 0; i < count; i++) {
    const [who = ''] = told(await ask()).split(' ');
    seen[who] = (seen[who] ?? 0) + 1;
  }
  return seen;
}

async function inside() {
  buildNetwork();
  const pods = await startAgent('pods');
  const outside = await startAgent('outside');
  await pods.ask('serve', { pod: 'pods', ports: [...SERVED] });
  const fromNode = (...to: Parameters<typeof request>) => sendRequest(request(...to));
  const fromOutside = async (...to: Parameters<typeof request>) =>
    (await outside.ask('request', request(...to))) as RequestOutcome;
  const fromPod = async (from: string, ...to: Parameters<typeof request>) =>
    (await pods.ask('request', { ...request(...to), from })) as RequestOutcome;

  for (const family of FAMILIES) {
    const vip = VIP[family];
    await t.test(`${family}, round robin`, async (t) => {
      const dataplane = await openDataplane(family, 'rr');
      const set = async (plan: ServicePlan | undefined) => {
        const services = new Map(plan === undefined ? [] : [[KEY, plan]]);
        const snapshot = { services, dirty: new Set([KEY]), endpointCount: 0, serviceCIDRs: [] };
        await dataplane.sync(snapshot, { full: false });
      };
      const even = { 11: 3, 12: 3, 13: 3 };
      const lb = ip(family === 'IPv4' ? '203.0.113.7' : '2001:db8:7::7');
      const everywhere = { nodePort: 30_080, loadBalancerVIPs: [lb] };

      await set(service(family, [11, 12, 13], everywhere));
      t.same(await counts(9, () => fromNode(vip, 80)), even, 'from the node to the cluster IP');
      const node = NODE_IP[family];
      t.same(await counts(9, () => fromOutside(node, 30_080)), even, 'from outside to the node port');
      t.match(told(await fromOutside(node, 30_080)), / from (?:10\.42\.0\.1|fd00:42::1)$/, 'masqueraded');
      for (const address of [lb, vip]) sh('ip', '-n', 'outside', 'route', 'add', address, 'via', node);
      t.same(await counts(9, () => fromOutside(lb, 80)), even, 'from outside to the load balancer IP');
      t.equal((await fromOutside(lb, 81)).kind, 'refused', 'and nowhere else on it');
      t.equal((await fromNode(vip, 81)).kind, 'refused');

      await set(service(family, [11, 12, 13], { ...everywhere, externalPolicyLocal: true }));
      t.match(told(await fromOutside(lb, 80)), / from (?:192\.168\.7\.9|fd00:7::9)$/, 'local policy keeps the client');

      const range = cidr(family === 'IPv4' ? '198.51.100.0/24' : '2001:db8:100::/48');
      await set(service(family, [11], { ...everywhere, sourceRanges: [range] }));
      t.equal((await fromOutside(lb, 80)).kind, 'timeout', 'a client in no source range gets no answer');
      t.match(told(await fromOutside(node, 30_080)), /^11 /, 'but by the node port');

      t.match(
        told(await fromPod(family === 'IPv4' ? '10.42.0.11' : 'fd00:42::11', vip, 80)),
        /^11 from (?:10\.42\.0\.1|fd00:42::1)$/,
        'a pod meets itself, masqueraded',
      );

      await set(service(family, []));
      t.equal((await fromNode(vip, 80)).kind, 'refused', 'without endpoints');

      await set(service(family, [11, 12, 13], { protocol: 'UDP' }));
      t.same(await counts(9, () => fromNode(vip, 80, 'udp')), even, 'UDP');

      await set(service(family, [11, 12], { affinitySeconds: 60 }));
      const [first = ''] = told(await fromNode(vip, 80)).split(' ');
      t.same(await counts(6, () => fromNode(vip, 80)), { [first]: 6 }, 'affinity holds a client to one endpoint');

      await set(undefined);
      t.not((await fromNode(vip, 80)).kind, 'answered', 'a service that is gone does not answer');

      await set(service(family, [11, 12]));
      const { id, greeting } = await openConnection(request(vip, 80));
      const holder =
        greeting.kind === 'line'
          ? Number(told({ ...greeting, kind: 'answered', status: 200, ms: 0 }).split(' ')[0])
          : 0;
      const other = 23 - holder;
      await set(service(family, [other]));
      t.same(await counts(4, () => fromNode(vip, 80)), { [other]: 4 }, 'an endpoint that goes takes no new connection');
      t.same(
        await sayOver(id, 'still there', 5_000),
        { kind: 'line', text: 'still there' },
        'and keeps the one it has',
      );
      t.match(sh('ipvsadm', '-Ln'), new RegExp(`${holder}\\]?:8080 +Masq +0 +1 `), 'without weight');
      await set(service(family, [11, 12]));
      t.same(await sayOver(id, 'again', 5_000), { kind: 'line', text: 'again' }, 'also when it comes back');
      await set(service(family, []));
      t.same(await sayOver(id, 'last', 5_000), { kind: 'line', text: 'last' }, 'or is the last that goes');
      t.equal((await fromNode(vip, 80)).kind, 'refused');
      closeConnection(id);
      await set(undefined);
    });

    await t.test(`${family}, scheduler sh`, async (t) => {
      const dataplane = await openDataplane(family, 'sh');
      const services = new Map([[KEY, service(family, [11, 12, 13])]]);
      await dataplane.sync({ services, dirty: new Set([KEY]), endpointCount: 0, serviceCIDRs: [] }, { full: false });
      const seen = await counts(6, () => fromOutside(vip, 80));
      t.same(Object.values(seen), [6], 'a client meets one endpoint');
    });
  }
  for (const { child } of [pods, outside]) child.disconnect();
}

if (isInsideUml()) await inside();
else await runInUml(t, import.meta.url);
