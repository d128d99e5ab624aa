/**
 * Every recorded scenario of nftables mode, each step applied to a real kernel by the real command and listed by `nft`, equals what
 * kube-proxy programmed, in normal form. The states are run in sequence, as changes; nothing emptied stays behind.
 */

import t from 'tap';
import { liveThrough } from '../lib/reference-live.ts';
import { scenariosOf } from '../lib/reference-scenarios.ts';

/** All of it takes a minute or two on two cores; this is for what hangs. */
t.setTimeout(900_000);

const scenarios = scenariosOf('nftables');
t.equal(scenarios.length, 53, 'all recorded scenarios are here');

await liveThrough(t, 'nftables', scenarios, 1);
