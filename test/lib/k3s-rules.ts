/**
 * What else programs the kernel of a K3s node, as it stands there beside the rules for Services: rules of flannel, of the network policy
 * controller (kube-router's), the portmap plugin itself, and what a ServiceLB pod does inside. IPv4, in the flavour of `iptables` on PATH.
 *
 * @module
 */

import type { Lab } from '../../src/lab/lab.ts';
import { type Namespace, namespacePath } from '../../src/lab/namespace.ts';
import { addressOf } from '../../src/lab/topology.ts';

/** Where Debian's containernetworking-plugins has them. */
const CNI_PATH = '/usr/lib/cni';

const TIMEOUT_MS = 10_000;

async function restore(namespace: Namespace, stdin: string): Promise<void> {
  await namespace.exec.run({ argv: ['iptables-restore', '--noflush'], stdin, timeoutMs: TIMEOUT_MS });
}

/** As flannel writes it for a node with the pods 10.42.0.0/24 of the cluster's 10.42.0.0/16. */
export function addFlannel(lab: Lab): Promise<void> {
  const { podCIDR, clusterCIDR } = lab.topology;
  const [pods, all] = [podCIDR.IPv4, clusterCIDR.IPv4];
  const comment = '-m comment --comment "flanneld masq"';
  return restore(
    lab.node,
    `*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING ${comment} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${comment} -j RETURN
-A FLANNEL-POSTRTG -s ${pods} -d ${all} ${comment} -j RETURN
-A FLANNEL-POSTRTG -s ${all} -d ${pods} ${comment} -j RETURN
-A FLANNEL-POSTRTG ! -s ${all} -d ${pods} ${comment} -j RETURN
-A FLANNEL-POSTRTG -s ${all} ! -d 224.0.0.0/4 ${comment} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s ${all} -d ${all} ${comment} -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s ${all} -j ACCEPT
-A FLANNEL-FWD -d ${all} -j ACCEPT
COMMIT
`,
  );
}

const POLICY_HOOKS = ['INPUT', 'FORWARD', 'OUTPUT'] as const;
const policyJump = (hook: string) => ['-m', 'comment', '--comment', 'kube-router netpol', '-j', `KUBE-ROUTER-${hook}`];

/** As kube-router writes a policy that lets nobody but `allowed` and the node itself reach the pod at `guarded`. */
export async function addNetworkPolicy(lab: Lab, guarded: string, allowed: string): Promise<void> {
  const [pod, policy] = ['KUBE-POD-FW-GUARDEDGUARDED0', 'KUBE-NWPLCY-ONLYALLOWED0000'];
  const serviceCIDR = lab.topology.serviceCIDR.IPv4;
  const own = POLICY_HOOKS.map((hook) => `:KUBE-ROUTER-${hook} - [0:0]`).join('\n');
  await restore(
    lab.node,
    `*filter
${own}
:${pod} - [0:0]
:${policy} - [0:0]
-A KUBE-ROUTER-INPUT -d ${serviceCIDR} -j RETURN
-A KUBE-ROUTER-INPUT -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 30000:32767 -j RETURN
-A KUBE-ROUTER-FORWARD -d ${guarded} -j ${pod}
-A KUBE-ROUTER-OUTPUT -d ${guarded} -j ${pod}
-A KUBE-ROUTER-FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT
-A ${pod} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ${pod} -m addrtype --src-type LOCAL -d ${guarded} -j ACCEPT
-A ${pod} -d ${guarded} -j ${policy}
-A ${pod} -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A ${pod} -j MARK --set-xmark 0x0/0x10000
-A ${pod} -j MARK --set-xmark 0x20000/0x20000
-A ${policy} -s ${allowed} -d ${guarded} -j MARK --set-xmark 0x10000/0x10000
COMMIT
`,
  );
  await moveNetworkPolicyUp(lab);
}

/** What the controller does every few minutes: its jumps stand first. */
export async function moveNetworkPolicyUp(lab: Lab): Promise<void> {
  const run = (...argv: [string, ...string[]]) => lab.node.exec.run({ argv, timeoutMs: TIMEOUT_MS });
  for (const hook of POLICY_HOOKS) {
    const jump = policyJump(hook);
    await run('iptables', '-D', hook, ...jump).catch(() => 'it was not there');
    await run('iptables', '-I', hook, '1', ...jump);
  }
}

/** Runs the portmap plugin for a host port of a pod, as K3s's containerd does it. */
export async function addHostPort(lab: Lab, index: number, hostPort: number, containerPort: number): Promise<void> {
  const [host, namespace] = [lab.topology.pods[index], lab.pods[index]];
  if (host === undefined || namespace === undefined) throw new RangeError(`Cannot add a host port: no pod ${index}`);
  const gateway = lab.topology.node.gateways.IPv4.split('/')[0];
  const sandbox = namespacePath(namespace);
  const stdin = JSON.stringify({
    cniVersion: '0.4.0',
    name: 'cbr0',
    type: 'portmap',
    runtimeConfig: { portMappings: [{ hostPort, containerPort, protocol: 'tcp' }] },
    prevResult: {
      cniVersion: '0.4.0',
      interfaces: [{ name: lab.topology.node.bridge }, { name: `veth${index + 1}` }, { name: 'eth0', sandbox }],
      ips: [{ version: '4', interface: 2, address: `${addressOf(host, 'IPv4')}/24`, gateway }],
    },
  });
  const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: host.name, CNI_NETNS: sandbox, CNI_IFNAME: 'eth0', CNI_PATH };
  const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  await lab.node.exec.run({ argv: ['env', ...settings, `${CNI_PATH}/portmap`], stdin, timeoutMs: TIMEOUT_MS });
}

/** Makes a pod do what klipper-lb does in a pod of ServiceLB: everything for its port goes on to a Service, from its own address. */
export async function becomeServiceLB(pod: Namespace, port: number, clusterIP: string): Promise<void> {
  await pod.ask('sysctl', [{ path: 'net/ipv4/ip_forward', value: '1', optional: false }]);
  await restore(
    pod,
    `*nat
-A PREROUTING -p tcp -m tcp --dport ${port} -j DNAT --to-destination ${clusterIP}:${port}
-A POSTROUTING -d ${clusterIP}/32 -p tcp -j MASQUERADE
COMMIT
`,
  );
}
