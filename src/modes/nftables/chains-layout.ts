/**
 * Layout `chains`, kube-proxy's own: a chain per service port and policy, a map of endpoints written in its rule, elements of
 * shared maps for the frontends. Pure.
 *
 * @module
 */

import type { SetElement, SetObject } from '../../netlink/nftables/transaction.ts';
import type { ServicePlan } from '../../proxier/types.ts';
import type { ChainContent, Layout, Objects } from './layout.ts';
import type { NftablesOptions } from './options.ts';
import { renderServicePort, type ServiceSink } from './service-port.ts';
import { renderStatic } from './static.ts';

export const CHAINS_LAYOUT: Layout = { name: 'chains', renderStatic, renderService };

function renderService(plan: ServicePlan, options: NftablesOptions): Objects {
  const collected = new Collected();
  for (const port of plan.ports) renderServicePort(port, options, collected);
  return collected.objects();
}

/** What the ports of one service add up to. */
class Collected implements ServiceSink {
  readonly #chains: ChainContent[] = [];
  readonly #sets: SetObject[] = [];
  readonly #elements = new Map<SetObject, Map<string, SetElement>>();

  addChain(content: ChainContent): void {
    this.#chains.push(content);
  }

  addSet(set: SetObject): void {
    this.#sets.push(set);
  }

  addElement(set: SetObject, element: SetElement): void {
    let elements = this.#elements.get(set);
    if (elements === undefined) {
      elements = new Map();
      this.#elements.set(set, elements);
    }
    elements.set(element.key.join(' . '), element);
  }

  objects(): Objects {
    return {
      chains: this.#chains,
      sets: this.#sets,
      elements: [...this.#elements].map(([set, elements]) => ({ set, elements: [...elements.values()] })),
    };
  }
}
