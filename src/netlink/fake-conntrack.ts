/**
 * Flows in memory.
 *
 * @module
 */

import type { Conntrack, Deletion, FlowList, FlowQuestion, UdpFlow } from './conntrack.ts';
import { NetlinkError } from './error.ts';

/** An entry of the table. */
export interface FakeFlow {
  readonly family: FlowQuestion['family'];
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly source: string;
  readonly sourcePort: number;
  readonly toAddress: string;
  readonly toPort: number;
  readonly fromAddress: string;
  readonly fromPort: number;
}

/** A flow is told from others by all it has. */
function identityOf(flow: FakeFlow): string {
  const { family, protocol, source, sourcePort, toAddress, toPort, fromAddress, fromPort } = flow;
  return JSON.stringify([family, protocol, source, sourcePort, toAddress, toPort, fromAddress, fromPort]);
}

export class FakeConntrack implements Conntrack {
  /** The table. A test changes it, and compares it afterwards. */
  flows: FakeFlow[] = [];
  /** Dumps so far. */
  dumps = 0;
  /** Listing fails with this, on a kernel without connection tracking with EINVAL. */
  failure: NetlinkError | undefined;
  /** Every list lacks something. */
  incomplete = false;
  /** Flows the kernel refuses to delete. */
  refuses: (flow: FakeFlow) => boolean = () => false;

  async listUdp({ family, toPorts, isWanted }: FlowQuestion): Promise<FlowList> {
    this.dumps++;
    if (this.failure !== undefined) throw this.failure;
    const flows = this.flows
      .filter((f) => f.family === family && f.protocol === 'UDP' && toPorts.has(f.toPort) && isWanted(f))
      .map((flow): UdpFlow => {
        const { toAddress, toPort, fromAddress, fromPort } = flow;
        return { toAddress, toPort, fromAddress, fromPort, identity: Buffer.from(identityOf(flow)) };
      });
    return { flows, complete: !this.incomplete };
  }

  async delete(flows: readonly UdpFlow[]): Promise<Deletion> {
    const table = new Map(this.flows.map((flow) => [identityOf(flow), flow]));
    const errors: NetlinkError[] = [];
    let deleted = 0;
    for (const { identity } of flows) {
      const found = table.get(identity.toString());
      if (found === undefined) continue;
      if (this.refuses(found)) {
        errors.push(new NetlinkError('delete a UDP flow', { code: 'KERNEL', errno: 16, name: 'EBUSY' }));
        continue;
      }
      table.delete(identity.toString());
      deleted++;
    }
    this.flows = [...table.values()];
    return { deleted, errors };
  }
}
