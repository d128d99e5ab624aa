/**
 * Every recorded scenario, each step applied to a real kernel by the real command and read back, equals what kube-proxy
 * programmed, in normal form. The states are run in sequence, as changes. Both iptables flavours.
 */

import t from 'tap';
import { liveThrough } from '../lib/reference-live.ts';
import { scenariosOf } from '../lib/reference-scenarios.ts';

/** All of it takes a minute or two on two cores; this is for what hangs. */
t.setTimeout(900_000);

const scenarios = scenariosOf('iptables');
t.equal(scenarios.length, 54, 'all recorded scenarios are here');

/** The legacy flavour prints the same lines; scenarios whose rules cover every kind of rule are enough there. */
const LEGACY = [
  'everything-at-once',
  'lifecycle',
  'random-3-04',
  'session-affinity',
  'sctp',
  'source-ranges',
  'terminating',
];

await liveThrough(t, 'iptables-nft', scenarios, 2);
await liveThrough(t, 'iptables-legacy', LEGACY, 2);
