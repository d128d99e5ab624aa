/**
 * Opens mode nftables: one question to the kernel, no program.
 *
 * @module
 */

import { release } from 'node:os';
import { createNftables } from '../../netlink/nftables/kernel-nftables.ts';
import type { ModeDeps, ModeSettings, OpenMode } from '../open-mode.ts';
import { createNftablesDataplane } from './apply.ts';
import { layoutOf } from './layouts.ts';
import { probeNftables, SKIP_VERSION_CHECK } from './probe.ts';
import { TableWatch } from './table-watch.ts';

/** Opens what both families share. */
export async function openNftables(settings: ModeSettings, deps: ModeDeps): Promise<OpenMode> {
  const layout = layoutOf(settings.nftablesLayout ?? 'chains');
  const nftables = deps.openNftables?.() ?? createNftables();
  const kernel = { release: release(), skipVersionCheck: (process.env[SKIP_VERSION_CHECK] ?? '') !== '' };
  const problem = probeNftables(nftables, kernel);
  // Families share it: what one of them commits is no news to the other.
  const watch = new TableWatch(nftables, deps.clock);
  const none = () => Promise.resolve(undefined);
  return {
    mode: 'nftables',
    description: `nftables, layout ${layout.name} (Linux ${kernel.release})`,
    support: { IPv4: problem, IPv6: problem },
    createDataplane({ family, localTraffic, nodePortAddresses, nodeIP }) {
      if (problem !== undefined) throw problem;
      const { masqueradeBit, masqueradeAll } = settings;
      return createNftablesDataplane(
        { watch, nodeAddresses: deps.nodeAddresses, metrics: deps.metrics(family), log: deps.log },
        { layout, family, masqueradeBit, masqueradeAll, localTraffic, nodePortAddresses, nodeIP },
      );
    },
    packets: { ctStateInvalidDropped: none, localhostNodePortsAccepted: none },
  };
}
