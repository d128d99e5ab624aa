/** Real packets through `switchyard run`: the flow tables, a lab for each configuration of the proxy. */
import { fileURLToPath } from 'node:url';
import t from 'tap';
import {
  CORE,
  LOCALHOST_NODE_PORTS,
  MAIN,
  MASQUERADE_ALL,
  NO_LOCAL_DETECTION,
  NODE_PORT_ADDRESSES,
  SCTP,
} from '../contract/flows.ts';
import { runSuite } from '../contract/run-flows.ts';

if (process.getuid?.() !== 0) {
  t.fail('Cannot test traffic as an ordinary user: run it as root');
  process.exit(1);
}

// Run alone, a file of tap has 30 s.
t.setTimeout(300_000);

const SWITCHYARD = fileURLToPath(new URL('../../bin/switchyard', import.meta.url));

t.test('iptables', async (t) => {
  for (const suite of [MAIN, LOCALHOST_NODE_PORTS, NODE_PORT_ADDRESSES, MASQUERADE_ALL, NO_LOCAL_DETECTION, SCTP]) {
    await runSuite(t, suite, { mode: 'iptables' });
  }
});

t.test('iptables, legacy', async (t) => {
  await runSuite(t, CORE, { mode: 'iptables', program: [SWITCHYARD, 'run', '--iptables-flavour', 'legacy'] });
});
