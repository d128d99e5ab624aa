import t from 'tap';
import { endpointsByPort } from '../../src/proxier/endpoints.ts';
import type { EndpointSliceObject, Family, SliceEndpoint } from '../../src/proxier/types.ts';
import { makeSlice, makeSliceEndpoint, makeSlicePort, NODE_NAME } from '../lib/make.ts';

/** `a:1`: endpoint 10.180.0.1 of port name a. Flags behind it say what it is not or is: see `print`. */
type Printed = readonly string[];

/** Endpoint 10.180.0.n. */
function e(n: number, overrides: Partial<SliceEndpoint> = {}): SliceEndpoint {
  return makeSliceEndpoint(`10.180.0.${n}`, overrides);
}

const UNREADY = { ready: false, serving: false };
const TERMINATING = { ready: false, serving: true, terminating: true };
const GONE = { ready: false, serving: false, terminating: true };
const LOCAL = { nodeName: NODE_NAME };

/** Slice `svc1-<name>` with a port p80. */
function slice(
  name: string,
  endpoints: readonly SliceEndpoint[],
  overrides: Partial<Omit<EndpointSliceObject, 'kind' | 'key'>> = {},
) {
  return makeSlice({ name: `svc1-${name}`, ports: [makeSlicePort({ name: 'p80' })], endpoints, ...overrides });
}

const TWO_PORTS = { ports: [makeSlicePort({ name: 'p80' }), makeSlicePort({ name: 'p443', port: 443 })] };

function print(slices: readonly EndpointSliceObject[], family: Family, nodeName: string, bad: string[]): Printed {
  const options = { family, nodeName, onUnparsable: (text: string) => bad.push(text) };
  return endpointsByPort(slices, options).map(({ portName, protocol, endpoints }) => {
    const texts = endpoints.map((e) => {
      const flags = `${e.isLocal ? ' local' : ''}${e.ready ? '' : ' unready'}${e.serving ? '' : ' down'}${e.terminating ? ' going' : ''}`;
      return `${e.text}${flags}`;
    });
    return `${portName}/${protocol} ${texts.join(', ')}`;
  });
}

interface Row {
  readonly name: string;
  readonly slices: readonly EndpointSliceObject[];
  readonly family?: Family;
  readonly nodeName?: string;
  readonly want: Printed;
  readonly unparsable?: readonly string[];
}

const rows: readonly Row[] = [
  { name: 'no slices', slices: [], want: [] },
  { name: 'no endpoints', slices: [slice('1', [])], want: [] },
  { name: 'no ports', slices: [slice('1', [e(1)], { ports: [] })], want: [] },
  {
    name: 'one slice, two ports',
    slices: [slice('1', [e(1), e(2), e(3)], TWO_PORTS)],
    want: [
      'p80/TCP 10.180.0.1:80, 10.180.0.2:80, 10.180.0.3:80',
      'p443/TCP 10.180.0.1:443, 10.180.0.2:443, 10.180.0.3:443',
    ],
  },
  {
    name: 'two slices, one port: the union',
    slices: [slice('1', [e(1), e(2)]), slice('2', [e(3)])],
    want: ['p80/TCP 10.180.0.1:80, 10.180.0.2:80, 10.180.0.3:80'],
  },
  {
    name: 'four slices with the same addresses, two ports',
    slices: ['1', '2', '3', '4'].map((n) => slice(n, [e(2), e(1)], TWO_PORTS)),
    want: ['p80/TCP 10.180.0.1:80, 10.180.0.2:80', 'p443/TCP 10.180.0.1:443, 10.180.0.2:443'],
  },
  {
    name: 'one protocol is not another',
    slices: [
      slice('1', [e(1)], { ports: [makeSlicePort({ name: 'dns' }), makeSlicePort({ name: 'dns', protocol: 'UDP' })] }),
    ],
    want: ['dns/TCP 10.180.0.1:80', 'dns/UDP 10.180.0.1:80'],
  },
  {
    name: 'overlap, one copy unready: the ready one',
    slices: [slice('1', [e(1), e(2, UNREADY)]), slice('2', [e(1, UNREADY), e(2)])],
    want: ['p80/TCP 10.180.0.1:80, 10.180.0.2:80'],
  },
  {
    name: 'overlap, one copy terminating: the other one, even unready',
    slices: [slice('1', [e(1, TERMINATING), e(2, UNREADY)]), slice('2', [e(1, UNREADY), e(2, TERMINATING)])],
    want: ['p80/TCP 10.180.0.1:80 unready down, 10.180.0.2:80 unready down'],
  },
  {
    name: 'overlap, both terminating: the first by name',
    slices: [slice('1', [e(1, TERMINATING)]), slice('2', [e(1, GONE)])],
    want: ['p80/TCP 10.180.0.1:80 unready going'],
  },
  {
    name: 'overlap, one unready copy serving: that one',
    slices: [slice('1', [e(1, { ready: false })]), slice('2', [e(1, UNREADY)])],
    want: ['p80/TCP 10.180.0.1:80 unready'],
  },
  {
    name: 'overlap, one copy serving but not ready: the ready one',
    slices: [slice('1', [e(1), e(2, { ready: false })]), slice('2', [e(1, { ready: false }), e(2)])],
    want: ['p80/TCP 10.180.0.1:80, 10.180.0.2:80'],
  },
  {
    name: 'overlap, equal conditions: the last by name',
    slices: [slice('1', [e(1)]), slice('2', [e(1, LOCAL)])],
    want: ['p80/TCP 10.180.0.1:80 local'],
  },
  {
    name: 'overlap of three with every condition',
    slices: [slice('1', [e(1, TERMINATING)]), slice('2', [e(1)]), slice('3', [e(1, UNREADY)])],
    want: ['p80/TCP 10.180.0.1:80'],
  },
  {
    name: 'twice in one slice: the later one, unless it terminates',
    slices: [slice('1', [e(1), e(1, UNREADY), e(2), e(2, TERMINATING)])],
    want: ['p80/TCP 10.180.0.1:80 unready down, 10.180.0.2:80'],
  },
  {
    name: 'all unready: listed',
    slices: [slice('1', [e(1, UNREADY), e(2, UNREADY)])],
    want: ['p80/TCP 10.180.0.1:80 unready down, 10.180.0.2:80 unready down'],
  },
  {
    name: 'ready and terminating, of a Service that publishes addresses that are not ready',
    slices: [slice('1', [e(1, { terminating: true })])],
    want: ['p80/TCP 10.180.0.1:80 going'],
  },
  {
    name: 'a port without number, one with 0, one without a name',
    slices: [
      slice('1', [e(1)], {
        ports: [
          makeSlicePort({ name: 'all', port: null }),
          makeSlicePort({ name: 'zero', port: 0 }),
          makeSlicePort({ name: null }),
        ],
      }),
    ],
    want: [],
  },
  { name: 'an unnamed port', slices: [slice('1', [e(1)], { ports: [makeSlicePort()] })], want: ['/TCP 10.180.0.1:80'] },
  {
    name: 'one address, two numbers under one port name: both',
    slices: [slice('1', [e(1)]), slice('2', [e(1)], { ports: [makeSlicePort({ name: 'p80', port: 8080 })] })],
    want: ['p80/TCP 10.180.0.1:80, 10.180.0.1:8080'],
  },
  {
    name: 'the order is that of bytes: 10 before 1, 443 before 80',
    slices: [
      slice('1', [e(1), e(10), e(9)]),
      slice('2', [e(1)], { ports: [makeSlicePort({ name: 'p80', port: 443 })] }),
    ],
    want: ['p80/TCP 10.180.0.10:80, 10.180.0.1:443, 10.180.0.1:80, 10.180.0.9:80'],
  },
  {
    name: 'local',
    slices: [slice('1', [e(1, LOCAL), e(2, { nodeName: 'other' }), e(3)])],
    want: ['p80/TCP 10.180.0.1:80 local, 10.180.0.2:80, 10.180.0.3:80'],
  },
  {
    name: 'nothing is local to a node without a name',
    slices: [slice('1', [e(1, LOCAL), e(2)])],
    nodeName: '',
    want: ['p80/TCP 10.180.0.1:80, 10.180.0.2:80'],
  },
  {
    name: 'IPv6',
    slices: [slice('1', [makeSliceEndpoint('FD00:0::1')], { addressType: 'IPv6' })],
    family: 'IPv6',
    want: ['p80/TCP [fd00::1]:80'],
  },
  {
    name: 'addresses that are none of the family, and none at all',
    slices: [
      slice('1', [
        makeSliceEndpoint('fd00::1'),
        makeSliceEndpoint('example.org'),
        makeSliceEndpoint(''),
        makeSliceEndpoint('010.180.000.007'),
        makeSliceEndpoint('127.0.0.1'),
      ]),
    ],
    want: ['p80/TCP 10.180.0.7:80, 127.0.0.1:80'],
    unparsable: ['fd00::1', 'example.org'],
  },
];

t.test('endpointsByPort()', async (t) => {
  for (const { name, slices, family = 'IPv4', nodeName = NODE_NAME, want, unparsable = [] } of rows) {
    const bad: string[] = [];
    t.strictSame(print(slices, family, nodeName, bad), want, name);
    t.strictSame(bad, unparsable, `${name}: reports`);
  }
});

t.test('endpointsByPort() keeps hints', async (t) => {
  const [port] = endpointsByPort([slice('1', [e(1, { zoneHints: ['a', 'b'], nodeHints: ['n'] })])], {
    family: 'IPv4',
    nodeName: '',
  });
  t.match(port?.endpoints[0], { ip: '10.180.0.1', port: 80, zoneHints: ['a', 'b'], nodeHints: ['n'] });
});
