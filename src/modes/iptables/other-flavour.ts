/**
 * Who on this node writes rules in the flavour of iptables that we do not use. Packets meet both, and neither sees the other's
 * rules: kubelet and CNI plug-ins beside us in another flavour are usually a mistake.
 *
 * @module
 */

import type { AnyTable, Flavour } from '../../iptables/tools.ts';
import type { Nftables } from '../../netlink/nftables/nftables.ts';
import { FAMILIES, type Family } from '../../proxier/types.ts';
import { type Exec, ExecError } from '../../sys/exec.ts';
import type { LegacyTables } from '../../sys/legacy-tables.ts';

/** Chains that tell who has been there. */
const MARKS: readonly { readonly owner: string; readonly table: AnyTable; readonly chain: string }[] = [
  { owner: 'kubelet', table: 'mangle', chain: 'KUBE-IPTABLES-HINT' },
  { owner: 'kubelet', table: 'mangle', chain: 'KUBE-KUBELET-CANARY' },
  { owner: 'CNI portmap', table: 'nat', chain: 'CNI-HOSTPORT-DNAT' },
  { owner: 'flannel', table: 'nat', chain: 'FLANNEL-POSTRTG' },
  { owner: 'flannel', table: 'filter', chain: 'FLANNEL-FWD' },
  { owner: 'kube-router', table: 'filter', chain: 'KUBE-ROUTER-INPUT' },
  { owner: 'calico', table: 'filter', chain: 'cali-FORWARD' },
];

export interface OtherFlavourDeps {
  readonly exec: Exec;
  readonly nft: Pick<Nftables, 'hasChain'>;
  readonly legacyTables: LegacyTables;
}

const SAVE: Readonly<Record<Family, string>> = { IPv4: 'iptables-legacy-save', IPv6: 'ip6tables-legacy-save' };
const TIMEOUT_MS = 10_000;

/**
 * Looks without making tables: the program of the legacy flavour is started only where the kernel has tables of it.
 *
 * @param own - The flavour in use.
 * @returns Owners of rules in the other one, each once, as in `kubelet`; what cannot be seen is left out.
 * @throws {NetlinkError} If the kernel does not let us look.
 */
export async function usersOfOtherFlavour(own: Flavour, deps: OtherFlavourDeps): Promise<readonly string[]> {
  const { exec, nft, legacyTables } = deps;
  const owners = new Set<string>();
  for (const family of FAMILIES) {
    if (own === 'legacy') {
      const inFamily = family === 'IPv4' ? 'ip' : 'ip6';
      for (const { owner, table, chain } of MARKS) if (nft.hasChain(inFamily, table, chain)) owners.add(owner);
    } else if ((legacyTables.names(family) ?? []).length > 0) {
      const saved = await exec.run({ argv: [SAVE[family]], timeoutMs: TIMEOUT_MS }).catch((error: unknown) => {
        // No such program, or it says no: there is no telling.
        if (error instanceof ExecError) return '';
        throw error;
      });
      for (const { owner, chain } of MARKS) if (saved.includes(`\n:${chain} `)) owners.add(owner);
    }
  }
  return [...owners];
}
