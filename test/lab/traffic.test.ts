/** Real packets through `switchyard run`: the flow tables, a lab for each configuration of the proxy. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { NFTABLES_LAYOUTS } from '../../src/config/types.ts';
import type { JsonObject, KubeObject } from '../../src/lab/api/object.ts';
import { endpointSlices } from '../../src/lab/tutorial.ts';
import { createFlowLab, type FlowRun } from '../contract/flow-lab.ts';
import {
  AFFINITY_TIMEOUT,
  CORE,
  LOCALHOST_NODE_PORTS,
  MAIN,
  MASQUERADE_ALL,
  NO_LOCAL_DETECTION,
  NODE_PORT_ADDRESSES,
  NODE_PORTS_EVERYWHERE,
  NOT_SERVED,
  SCTP,
} from '../contract/flows.ts';
import { runSuite } from '../contract/run-flows.ts';

if (process.getuid?.() !== 0) {
  t.fail('Cannot test traffic as an ordinary user: run it as root');
  process.exit(1);
}

// Run alone, a file of tap has 30 s.
t.setTimeout(600_000);

const SWITCHYARD = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));

function service(name: string, spec: JsonObject): KubeObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' }, spec };
}

/** For every mode. */
const SUITES = [
  MAIN,
  NODE_PORT_ADDRESSES,
  NODE_PORTS_EVERYWHERE,
  MASQUERADE_ALL,
  NO_LOCAL_DETECTION,
  AFFINITY_TIMEOUT,
  SCTP,
];

t.test('iptables', async (t) => {
  for (const suite of [...SUITES, LOCALHOST_NODE_PORTS]) await runSuite(t, suite, { mode: 'iptables' });

  t.test('Services without an address of their own add no rule', async (t) => {
    await using lab = await createFlowLab({ config: {} }, { mode: 'iptables' });
    const allRules = async () => (await Promise.all(lab.topology.families.map(lab.rules))).join('');
    await lab.settled();
    const before = await allRules();
    const slices = endpointSlices(lab.topology, 'headless', lab.topology.pods);
    lab.apply([service('headless', { clusterIP: 'None', ports: [{ port: 80 }] }), ...slices]);
    lab.apply([service('elsewhere', { type: 'ExternalName', externalName: 'example.com', ports: [{ port: 80 }] })]);
    await lab.settled();
    t.equal(await allRules(), before);
    // The comparison can fail: the same pods behind an address add rules.
    lab.apply([
      service('headed', { ports: [{ port: 80 }] }),
      ...endpointSlices(lab.topology, 'headed', lab.topology.pods),
    ]);
    await lab.settled();
    t.match(await allRules(), /default\/headed/);
  });
});

t.test('iptables, legacy', async (t) => {
  await runSuite(t, CORE, { mode: 'iptables', program: [SWITCHYARD, 'run', '--iptables-flavour', 'legacy'] });
});

for (const layout of NFTABLES_LAYOUTS) {
  t.test(`nftables, layout ${layout}`, async (t) => {
    const run: FlowRun = { mode: 'nftables', config: { nftables: { layout } } };
    for (const suite of [...SUITES, NOT_SERVED]) await runSuite(t, suite, run);

    t.test('is the layout asked for', async (t) => {
      await using lab = await createFlowLab({ config: {} }, run);
      lab.apply([
        service('some', { ports: [{ port: 80 }] }),
        ...endpointSlices(lab.topology, 'some', lab.topology.pods),
      ]);
      await lab.settled();
      const rules = await lab.node.exec.run({ argv: ['nft', 'list', 'ruleset'], timeoutMs: 10_000 });
      t.equal(
        /chain service-[A-Z2-7]{8}-/.test(rules),
        layout === 'chains',
        'only one of them has a chain for a Service',
      );
    });
  });
}
