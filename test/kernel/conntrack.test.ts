/** The kernel and the fake answer alike, and conntrack(8) sees what we see. */
import t, { type Test } from 'tap';
import { type Conntrack, createConntrack, type FlowQuestion } from '../../src/netlink/conntrack.ts';
import { FakeConntrack, type FakeFlow } from '../../src/netlink/fake-conntrack.ts';
import { caseInside, runInside, sh } from '../lib/namespace.ts';

const V4 = { family: 'IPv4', source: '10.0.0.9', toAddress: '10.96.0.10', fromAddress: '10.244.0.2' } as const;
const V6 = {
  family: 'IPv6',
  source: 'fd00:0:0:0:0:0:0:9',
  toAddress: 'fd00:96:0:0:0:0:0:10',
  fromAddress: 'fd00:244:0:0:0:0:0:2',
} as const;

/** A flow from one port of the client to port 53, answered from 5353. */
function flow(base: typeof V4 | typeof V6, sourcePort: number, overrides: Partial<FakeFlow> = {}): FakeFlow {
  return { ...base, protocol: 'UDP', sourcePort, toPort: 53, fromPort: 5353, ...overrides };
}

/** A table, and a hand that changes it. */
interface Table {
  readonly conntrack: Conntrack;
  insert(flows: readonly FakeFlow[]): void;
  flush(): void;
  /** Client ports and protocols of what is there, in order. */
  left(): readonly string[];
}

const print = ({ protocol, sourcePort }: FakeFlow) => `${protocol} ${sourcePort}`;

function fakeTable(): Table {
  const conntrack = new FakeConntrack();
  return {
    conntrack,
    insert: (flows) => conntrack.flows.push(...flows),
    flush: () => conntrack.flows.splice(0),
    left: () => conntrack.flows.map(print).sort(),
  };
}

function kernelTable(t: Test): Table {
  return {
    conntrack: createConntrack(),
    insert(flows) {
      const lines = flows.map(
        (f) =>
          `-I -p ${f.protocol.toLowerCase()} -s ${f.source} -d ${f.toAddress} --sport ${f.sourcePort} --dport ${f.toPort}` +
          ` -r ${f.fromAddress} -q ${f.source} --reply-port-src ${f.fromPort} --reply-port-dst ${f.sourcePort} -t 600` +
          (f.protocol === 'TCP' ? ' --state ESTABLISHED' : ''),
      );
      sh('conntrack', '-R', `${t.testdir({ lines: `${lines.join('\n')}\n` })}/lines`);
    },
    flush: () => void sh('conntrack', '-F'),
    left: () =>
      [
        ...['ipv4', 'ipv6']
          .map((family) => sh('conntrack', '-L', '-f', family))
          .join('')
          .matchAll(/^(\w+) .*? sport=(\d+)/gm),
      ]
        .map(([, protocol = '', port]) => `${protocol.toUpperCase()} ${port}`)
        .sort(),
  };
}

const all = (family: FlowQuestion['family']): FlowQuestion => ({
  family,
  toPorts: new Set([53]),
  isWanted: () => true,
});
const sorted = (flows: readonly { readonly identity: Buffer }[]) =>
  flows.map(({ identity, ...ends }) => JSON.stringify(ends)).sort();
const ends = ({ toAddress, toPort, fromAddress, fromPort }: FakeFlow) =>
  JSON.stringify({ toAddress, toPort, fromAddress, fromPort });

async function behaves(t: Test, { conntrack, insert, flush, left }: Table): Promise<void> {
  const other = flow(V4, 1002, { fromAddress: '10.244.0.3' });
  const flows = [
    flow(V4, 1001),
    other,
    flow(V4, 1003, { toPort: 54 }),
    flow(V4, 1004, { protocol: 'TCP' }),
    flow(V6, 1005),
    flow(V6, 1006, { toAddress: 'fd00:96:0:0:0:0:0:11', fromAddress: 'fd00:96:0:0:0:0:0:11', fromPort: 53 }),
  ];
  insert(flows);
  const everything = flows.map(print).sort();
  t.same(left(), everything, 'the table is as it was made');

  const v4 = await conntrack.listUdp(all('IPv4'));
  t.equal(v4.complete, true);
  t.same(sorted(v4.flows), flows.slice(0, 2).map(ends).sort(), 'UDP to port 53, IPv4');
  t.same(sorted((await conntrack.listUdp(all('IPv6'))).flows), flows.slice(4).map(ends).sort(), 'IPv6');
  const picked = await conntrack.listUdp({ ...all('IPv4'), isWanted: (f) => f.fromAddress === '10.244.0.3' });
  t.same(sorted(picked.flows), [ends(other)], 'what is wanted');
  t.same(left(), everything, 'listing changes nothing');

  t.same(await conntrack.delete(picked.flows), { deleted: 1, errors: [] });
  t.same(
    left(),
    everything.filter((text) => text !== 'UDP 1002'),
    'only that one is gone',
  );
  t.same(await conntrack.delete(picked.flows), { deleted: 0, errors: [] }, 'and cannot be deleted twice');

  insert([flow(V4, 1002, { fromAddress: '10.244.0.4' })]);
  t.same(await conntrack.delete(picked.flows), { deleted: 0, errors: [] }, 'one made anew is another');
  t.same(left(), everything, 'and stays');

  const v6 = await conntrack.listUdp(all('IPv6'));
  t.same(await conntrack.delete([...v6.flows, ...picked.flows, ...v4.flows]), { deleted: 3, errors: [] });
  t.same(left(), ['TCP 1004', 'UDP 1002', 'UDP 1003'], 'what is gone or another is passed over');

  flush();
  t.same(await conntrack.listUdp(all('IPv4')), { flows: [], complete: true }, 'an empty table');

  const many = Array.from({ length: 5_000 }, (_, i) => flow(V4, 2_000 + i, { fromPort: 5353 + (i % 2) }));
  insert(many);
  const odd = await conntrack.listUdp({ ...all('IPv4'), isWanted: (f) => f.fromPort === 5354 });
  t.equal(odd.flows.length, 2_500, 'a list of many datagrams');
  t.same(await conntrack.delete(odd.flows), { deleted: 2_500, errors: [] });
  t.equal((await conntrack.listUdp(all('IPv4'))).flows.length, 2_500);
}

async function inside() {
  sh('ip', 'link', 'set', 'lo', 'up');
  t.test('in the kernel', (t) => behaves(t, kernelTable(t)));
  t.test('in the fake', (t) => behaves(t, fakeTable()));
}

if (caseInside() === undefined) await runInside(t, import.meta.url, 'conntrack');
else await inside();
