/**
 * Opens mode iptables: finds its programs and makes dataplanes of them.
 *
 * @module
 */

import { waitForPredecessor } from '../../iptables/predecessor.ts';
import { probeIptables } from '../../iptables/probe.ts';
import { FAMILIES, type Family } from '../../proxier/types.ts';
import { ensureSysctl } from '../../sys/proc.ts';
import type { ModeDeps, ModeSettings, OpenMode } from '../open-mode.ts';
import { createIptablesDataplane } from './apply.ts';
import { CT_STATE_INVALID_COUNTER, LOCALHOST_NODEPORTS_COUNTER } from './names.ts';

/**
 * Looks at the programs and at both families.
 *
 * @param signal - Ends the wait for restores that a daemon before this one left running.
 * @throws {ExecError} If a program hangs or dies, or the tables stay locked.
 */
export async function openIptables(settings: ModeSettings, deps: ModeDeps, signal?: AbortSignal): Promise<OpenMode> {
  const { sysctl, nfacct } = deps;
  await waitForPredecessor(deps, signal);
  const { flavour, families } = await probeIptables(settings.iptablesFlavour, deps);
  const packets = async (name: string) => {
    const counter = nfacct.get(name);
    return counter === undefined ? undefined : Number(counter.packets);
  };
  const errorOf = (family: Family) => {
    const found = families[family];
    return found.kind === 'absent' ? found.error : undefined;
  };
  const version = FAMILIES.map((f) => families[f]).find((found) => found.kind === 'present')?.tools.version;
  return {
    mode: 'iptables',
    flavour,
    description: `iptables ${version ?? 'of unknown version'} (${flavour ?? 'not installed'})`,
    support: { IPv4: errorOf('IPv4'), IPv6: errorOf('IPv6') },
    createDataplane({ family, localTraffic, nodePortAddresses, nodeIP, localhostNodePorts }) {
      const found = families[family];
      if (found.kind === 'absent') throw found.error;
      // Packets for 127.0.0.1 that come back translated would be dropped as martians without it.
      if (localhostNodePorts) ensureSysctl(sysctl, 'net/ipv4/conf/all/route_localnet', 1);
      return createIptablesDataplane(
        {
          tools: found.tools,
          clock: deps.clock,
          nfacct,
          nodeAddresses: deps.nodeAddresses,
          metrics: deps.metrics(family),
          log: deps.log,
        },
        {
          family,
          masqueradeBit: settings.masqueradeBit,
          masqueradeAll: settings.masqueradeAll,
          localhostNodePorts,
          localTraffic,
          nodePortAddresses,
          nodeIP,
          features: { randomFully: found.tools.features.randomFully },
          tcpBeLiberal: (sysctl.get('net/netfilter/nf_conntrack_tcp_be_liberal') ?? 0) !== 0,
          syncPeriodMs: settings.syncPeriodMs,
        },
      );
    },
    packets: {
      ctStateInvalidDropped: () => packets(CT_STATE_INVALID_COUNTER),
      localhostNodePortsAccepted: () => packets(LOCALHOST_NODEPORTS_COUNTER),
    },
  };
}
