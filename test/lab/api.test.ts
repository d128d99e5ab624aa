/** The embedded API server over HTTP: storage, lists, watches, patches, Services as the real server makes them, chaos. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { formatAge } from '../../src/lab/api/columns.ts';
import { asJson, isJsonObject, type Json, type JsonObject } from '../../src/lab/api/object.ts';
import { type ApiServer, type ApiServerOptions, createApiServer } from '../../src/lab/api/server.ts';
import { FakeClock } from '../../src/sys/fake-clock.ts';

interface Answer {
  readonly code: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  readonly body: JsonObject;
}

interface Ask {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly ca?: string;
}

/** Starts a request; resolves with the head of its answer. */
async function open(url: string, { method = 'GET', body, headers = {}, ca }: Ask = {}): Promise<IncomingMessage> {
  const request = url.startsWith('https:')
    ? httpsRequest(url, { method, headers, agent: false, ...(ca && { ca }) })
    : httpRequest(url, { method, headers, agent: false });
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  // Said by hand: Node would send the body of a DELETE without its length.
  request.setHeader('Content-Length', Buffer.byteLength(text));
  request.end(text);
  const [response]: IncomingMessage[] = await once(request, 'response');
  if (response === undefined) throw new Error('Cannot read the answer: there is none');
  return response;
}

/** Does a whole request. `text` is decompressed. */
async function ask(url: string, options: Ask = {}): Promise<Answer> {
  const response = await open(url, options);
  const chunks: Buffer[] = [];
  for await (const chunk of response) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  const text = (response.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString();
  const body: Json = text.startsWith('{') ? JSON.parse(text) : {};
  return { code: response.statusCode ?? 0, headers: response.headers, text, body: isJsonObject(body) ? body : {} };
}

/** Field at a dotted path of an answer, list indexes as numbers: `items.0.metadata.name`. */
function at(value: Json | undefined, path: string): Json | undefined {
  let here = value;
  for (const step of path.split('.')) {
    if (Array.isArray(here)) here = here[Number(step)];
    else here = isJsonObject(here) ? here[step] : undefined;
  }
  return here;
}

function names(list: Answer): string[] {
  const items = list.body['items'];
  return Array.isArray(items) ? items.map((item) => String(at(item, 'metadata.name'))) : [];
}

interface Watch {
  readonly response: IncomingMessage;
  /** The next event as `TYPE name`, or `TYPE reason` for errors; what it carries is in `last`. */
  next(): Promise<string>;
  last(): JsonObject;
  /** How it ended: `end` in good order, `cut` otherwise. */
  readonly ended: Promise<'end' | 'cut'>;
}

async function watch(t: Test, url: string, options: Ask = {}): Promise<Watch> {
  const response = await open(url, options);
  t.teardown(() => response.destroy());
  const ended = new Promise<'end' | 'cut'>((resolve) => {
    response.on('end', () => resolve('end')).on('error', () => resolve('cut'));
  });
  const lines: Interface = createInterface({ input: response });
  // The interface passes errors of its input on; `ended` has told already.
  lines.on('error', () => {});
  const events = lines[Symbol.asyncIterator]();
  let last: JsonObject = {};
  return {
    response,
    ended,
    last: () => last,
    next: async () => {
      const { value, done } = await events.next();
      if (done) return 'end';
      const event: Json = JSON.parse(String(value));
      last = isJsonObject(event) ? event : {};
      const what = last['type'] === 'ERROR' ? 'object.reason' : 'object.metadata.name';
      return `${last['type']} ${at(last, what) ?? ''}`.trim();
    },
  };
}

async function start(t: Test, options: ApiServerOptions = {}): Promise<ApiServer> {
  const server = await createApiServer({ clock: new FakeClock(), ...options });
  t.teardown(() => server.close());
  return server;
}

function service(name: string, spec: object = {}, metadata: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, ...metadata },
    spec: { ports: [{ port: 80 }], ...spec },
  };
}

function slice(name: string, fields: object = {}): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name },
    addressType: 'IPv4',
    endpoints: [{ addresses: ['10.42.0.11'] }],
    ...fields,
  };
}

const SERVICES = '/api/v1/namespaces/default/services';
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices';
const STRATEGIC = { 'Content-Type': 'application/strategic-merge-patch+json' };
const MERGE = { 'Content-Type': 'application/merge-patch+json' };
const JSON_PATCH = { 'Content-Type': 'application/json-patch+json' };

t.test('storage', async (t) => {
  const { url } = await start(t);
  const post = (body: object, path = SERVICES) => ask(url + path, { method: 'POST', body });
  const created = await post(service('web'));
  t.equal(created.code, 201);
  t.match(created.body, {
    kind: 'Service',
    metadata: { namespace: 'default', creationTimestamp: '2026-01-02T03:04:05Z' },
  });
  const { body } = await ask(`${url}${SERVICES}/web`);
  t.same(body, created.body, 'is what was stored');

  const failures: readonly { name: string; path: string; ask: Ask; code: number; reason: string; says: string }[] = [
    {
      name: 'exists',
      path: SERVICES,
      ask: { method: 'POST', body: service('web') },
      code: 409,
      reason: 'AlreadyExists',
      says: 'services "web" already exists',
    },
    {
      name: 'is not there',
      path: `${SERVICES}/no`,
      ask: {},
      code: 404,
      reason: 'NotFound',
      says: 'services "no" not found',
    },
    {
      name: 'group in the text',
      path: `${SLICES}/no`,
      ask: {},
      code: 404,
      reason: 'NotFound',
      says: 'endpointslices.discovery.k8s.io "no" not found',
    },
    {
      name: 'no namespace',
      path: '/api/v1/namespaces/no/services',
      ask: { method: 'POST', body: service('a') },
      code: 404,
      reason: 'NotFound',
      says: 'namespaces "no" not found',
    },
    {
      name: 'other namespace',
      path: SERVICES,
      ask: { method: 'POST', body: service('a', {}, { namespace: 'kube-system' }) },
      code: 400,
      reason: 'BadRequest',
      says: 'does not match the namespace',
    },
    {
      name: 'other kind',
      path: SERVICES,
      ask: { method: 'POST', body: slice('a') },
      code: 400,
      reason: 'BadRequest',
      says: 'Kind=EndpointSlice',
    },
    {
      name: 'no JSON',
      path: SERVICES,
      ask: { method: 'POST', body: '{' },
      code: 400,
      reason: 'BadRequest',
      says: 'it is no JSON',
    },
    {
      name: 'other media type',
      path: SERVICES,
      ask: { method: 'POST', body: '', headers: { 'Content-Type': 'application/vnd.kubernetes.protobuf' } },
      code: 415,
      reason: 'UnsupportedMediaType',
      says: 'application/json',
    },
    {
      name: 'stale version',
      path: `${SERVICES}/web`,
      ask: { method: 'PUT', body: service('web', {}, { resourceVersion: '1' }) },
      code: 409,
      reason: 'Conflict',
      says: 'the object has been modified',
    },
    {
      name: 'other uid',
      path: `${SERVICES}/web`,
      ask: { method: 'PUT', body: service('web', {}, { uid: 'x' }) },
      code: 409,
      reason: 'Conflict',
      says: 'UID in precondition: x',
    },
    {
      name: 'delete of another version',
      path: `${SERVICES}/web`,
      ask: { method: 'DELETE', body: { preconditions: { resourceVersion: '1' } } },
      code: 409,
      reason: 'Conflict',
      says: 'Precondition failed',
    },
    {
      name: 'other name',
      path: `${SERVICES}/web`,
      ask: { method: 'PUT', body: service('wob') },
      code: 400,
      reason: 'BadRequest',
      says: 'does not match the name on the URL',
    },
    {
      name: 'wrong type',
      path: SERVICES,
      ask: { method: 'POST', body: service('a', { ports: [{ port: '80' }] }) },
      code: 400,
      reason: 'BadRequest',
      says: 'cannot unmarshal string into Go struct field Service.spec.ports.port of type int32',
    },
    {
      name: 'unknown field, strict',
      path: `${SERVICES}?fieldValidation=Strict`,
      ask: { method: 'POST', body: service('a', { colour: 'red' }) },
      code: 400,
      reason: 'BadRequest',
      says: 'strict decoding error: unknown field "spec.colour"',
    },
    {
      name: 'method',
      path: `${SERVICES}/web`,
      ask: { method: 'POST', body: {} },
      code: 405,
      reason: 'MethodNotAllowed',
      says: 'does not allow this method',
    },
    {
      name: 'path',
      path: '/apis/apps/v1/deployments',
      ask: {},
      code: 404,
      reason: 'NotFound',
      says: 'could not find the requested resource',
    },
    {
      name: 'form',
      path: SERVICES,
      ask: { headers: { Accept: 'application/vnd.kubernetes.protobuf' } },
      code: 406,
      reason: 'NotAcceptable',
      says: 'application/json',
    },
    {
      name: 'apply patch',
      path: `${SERVICES}/web`,
      ask: { method: 'PATCH', body: {}, headers: { 'Content-Type': 'application/apply-patch+yaml' } },
      code: 415,
      reason: 'UnsupportedMediaType',
      says: 'strategic-merge-patch',
    },
    { name: 'bad path escape', path: '/api/v1/nodes/%zz', ask: {}, code: 400, reason: 'BadRequest', says: 'URI' },
  ];
  for (const c of failures) {
    t.test(`fails: ${c.name}`, async (t) => {
      const answer = await ask(url + c.path, c.ask);
      t.match(answer.body, { kind: 'Status', apiVersion: 'v1', status: 'Failure', code: c.code, reason: c.reason });
      t.equal(answer.code, c.code);
      t.match(String(answer.body['message']), c.says);
    });
  }

  t.test('counts versions, and none for a write that changes nothing', async (t) => {
    const before = await post(service('counted'));
    const same = await ask(`${url}${SERVICES}/counted`, { method: 'PUT', body: before.body });
    t.same(same.body, before.body);
    const changed = { ...before.body, spec: { ...Object(before.body['spec']), selector: { app: 'x' } } };
    const after = await ask(`${url}${SERVICES}/counted`, { method: 'PUT', body: changed });
    t.ok(Number(at(after.body, 'metadata.resourceVersion')) > Number(at(before.body, 'metadata.resourceVersion')));
    t.equal(
      (await ask(`${url}${SERVICES}/counted`, { method: 'PUT', body: changed })).code,
      409,
      'the first is stale now',
    );
  });

  t.test('unknown fields are dropped with a warning', async (t) => {
    const answer = await post(service('warned', { colour: 'red' }));
    t.equal(answer.headers['warning'], '299 - "unknown field \\"spec.colour\\""');
    t.equal(at(answer.body, 'spec.colour'), undefined);
  });

  t.test('a dry run stores nothing and holds nothing', async (t) => {
    const body = service('dry', { type: 'NodePort', ports: [{ port: 80, nodePort: 32000 }] });
    const dry = await ask(`${url}${SERVICES}?dryRun=All`, { method: 'POST', body });
    t.equal(dry.code, 201);
    t.equal((await ask(`${url}${SERVICES}/dry`)).code, 404);
    t.equal((await post(service('wet', { type: 'NodePort', ports: [{ port: 80, nodePort: 32000 }] }))).code, 201);
  });

  t.test('/status is apart from the rest', async (t) => {
    const loadBalancer = { ingress: [{ ip: '192.168.1.100', ipMode: 'VIP' }] };
    const made = await post({ ...service('stat'), status: { loadBalancer } });
    t.same(made.body['status'], { loadBalancer: {} }, 'a new Service loses its status');
    const set = await ask(`${url}${SERVICES}/stat/status`, {
      method: 'PUT',
      body: { ...service('stat', { ports: [{ port: 99 }] }), status: { loadBalancer } },
    });
    t.same(set.body['status'], { loadBalancer });
    t.equal(at(set.body, 'spec.ports.0.port'), 80);
    const spec = await ask(`${url}${SERVICES}/stat`, {
      method: 'PATCH',
      headers: MERGE,
      body: { status: null, spec: { selector: { a: 'b' } } },
    });
    t.same(spec.body['status'], { loadBalancer });
  });

  t.test('finalizers hold an object until they are gone', async (t) => {
    await post(service('held', {}, { finalizers: ['example.com/x'] }));
    const deleted = await ask(`${url}${SERVICES}/held`, { method: 'DELETE' });
    t.equal(at(deleted.body, 'metadata.deletionTimestamp'), '2026-01-02T03:04:05Z');
    await ask(`${url}${SERVICES}/held`, { method: 'PATCH', headers: MERGE, body: { metadata: { finalizers: null } } });
    t.equal((await ask(`${url}${SERVICES}/held`)).code, 404);
  });

  t.test('generateName; deletecollection by selector', async (t) => {
    const body = { ...slice(''), metadata: { generateName: 'gen-', labels: { gen: 'yes' } } };
    t.match(String(at((await post(body, SLICES)).body, 'metadata.name')), /^gen-[0-9a-f]{5}$/);
    await post(slice('stays'), SLICES);
    t.equal(names(await ask(`${url}${SLICES}?labelSelector=gen`, { method: 'DELETE' })).length, 1);
    t.same(names(await ask(url + SLICES)), ['stays']);
  });

  t.test('generation of a slice counts changes of its endpoints, not of its labels', async (t) => {
    const patch = (body: object) => ask(`${url}${SLICES}/stays`, { method: 'PATCH', headers: MERGE, body });
    t.equal(at((await patch({ metadata: { labels: { a: 'b' } } })).body, 'metadata.generation'), 1);
    t.equal(at((await patch({ endpoints: [] })).body, 'metadata.generation'), 2);
  });
});

t.test('a namespace ends with what is in it, after a grace', async (t) => {
  const clock = new FakeClock();
  const { url } = await start(t, { clock });
  const home = '/api/v1/namespaces/demo';
  await ask(`${url}/api/v1/namespaces`, {
    method: 'POST',
    body: { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'demo' } },
  });
  await ask(`${url}${home}/services`, { method: 'POST', body: service('web') });
  const deleted = await ask(url + home, { method: 'DELETE' });
  t.equal(at(deleted.body, 'status.phase'), 'Terminating');
  const late = await ask(`${url}${home}/services`, { method: 'POST', body: service('late') });
  t.equal(late.code, 403, 'takes nothing new');
  t.equal((await ask(`${url}${home}/services/web`)).code, 200);
  await clock.advance(1000);
  t.equal((await ask(`${url}${home}/services/web`)).code, 404);
  t.equal((await ask(url + home)).code, 404);
});

t.test('patches', async (t) => {
  const spec = {
    type: 'NodePort',
    selector: { app: 'web', tier: 'front' },
    externalIPs: ['192.0.2.1', '192.0.2.2'],
    ports: [
      { name: 'http', port: 80, nodePort: 30080 },
      { name: 'dns', port: 53, protocol: 'TCP', nodePort: 30053 },
      { name: 'dns-udp', port: 53, protocol: 'UDP', nodePort: 30053 },
    ],
  };
  const ports = (body: JsonObject) => {
    const list = at(body, 'spec.ports');
    return Array.isArray(list) ? list.map((p) => ['name', 'port', 'nodePort'].map((f) => at(p, f)).join(' ')) : [];
  };
  const rows: readonly {
    name: string;
    headers: Ask['headers'];
    patch: unknown;
    code?: number;
    ports?: string[];
    field?: string;
    is?: Json | undefined;
  }[] = [
    {
      name: 'strategic: an entry is merged by port',
      headers: STRATEGIC,
      patch: { spec: { ports: [{ port: 80, name: 'www' }] } },
      ports: ['www 80 30080', 'dns 53 30053', 'dns-udp 53 30053'],
    },
    {
      name: 'strategic: a new entry is added',
      headers: STRATEGIC,
      patch: { spec: { ports: [{ port: 81, name: 'new', nodePort: 30081 }] } },
      ports: ['http 80 30080', 'dns 53 30053', 'dns-udp 53 30053', 'new 81 30081'],
    },
    {
      name: 'strategic: an entry is deleted',
      headers: STRATEGIC,
      patch: { spec: { ports: [{ $patch: 'delete', port: 80 }] } },
      ports: ['dns 53 30053', 'dns-udp 53 30053'],
    },
    {
      name: 'strategic: of two with one port, the one with the protocol',
      headers: STRATEGIC,
      patch: { spec: { ports: [{ port: 53, protocol: 'UDP', name: 'u' }] } },
      ports: ['http 80 30080', 'dns 53 30053', 'u 53 30053'],
    },
    {
      name: 'strategic: the list is replaced',
      headers: STRATEGIC,
      patch: { spec: { ports: [{ $patch: 'replace' }, { port: 9, nodePort: 30009 }] } },
      ports: [' 9 30009'],
    },
    {
      name: 'strategic: the order is set',
      headers: STRATEGIC,
      patch: {
        spec: {
          '$setElementOrder/ports': [{ port: 53 }, { port: 53 }, { port: 80 }],
          ports: [{ port: 80, name: 'last' }],
        },
      },
      ports: ['dns 53 30053', 'dns-udp 53 30053', 'last 80 30080'],
    },
    {
      name: 'strategic: an entry without the merge key',
      headers: STRATEGIC,
      patch: { spec: { ports: [{ name: 'x' }] } },
      code: 400,
    },
    {
      name: 'strategic: null removes',
      headers: STRATEGIC,
      patch: { spec: { selector: { tier: null } } },
      field: 'spec.selector',
      is: { app: 'web' },
    },
    {
      name: 'strategic: a map is deleted',
      headers: STRATEGIC,
      patch: { spec: { selector: { $patch: 'delete' } } },
      field: 'spec.selector',
      is: undefined,
    },
    {
      name: 'strategic: a map is replaced',
      headers: STRATEGIC,
      patch: { spec: { selector: { $patch: 'replace', a: 'b' } } },
      field: 'spec.selector',
      is: { a: 'b' },
    },
    {
      name: 'strategic: a list without merge key is replaced',
      headers: STRATEGIC,
      patch: { spec: { externalIPs: ['192.0.2.9'] } },
      field: 'spec.externalIPs',
      is: ['192.0.2.9'],
    },
    {
      name: 'strategic: a set grows',
      headers: STRATEGIC,
      patch: { metadata: { finalizers: ['a.b/c', 'a.b/d'] } },
      field: 'metadata.finalizers',
      is: ['a.b/c', 'a.b/d'],
    },
    {
      name: 'strategic: $retainKeys',
      headers: STRATEGIC,
      patch: {
        spec: {
          sessionAffinityConfig: { $retainKeys: ['clientIP'], clientIP: { timeoutSeconds: 9 } },
          sessionAffinity: 'ClientIP',
        },
      },
      field: 'spec.sessionAffinityConfig',
      is: { clientIP: { timeoutSeconds: 9 } },
    },
    {
      name: 'merge: a list is replaced',
      headers: MERGE,
      patch: { spec: { ports: [{ port: 9, nodePort: 30009 }] } },
      ports: [' 9 30009'],
    },
    {
      name: 'merge: null removes',
      headers: MERGE,
      patch: { spec: { selector: { tier: null } } },
      field: 'spec.selector',
      is: { app: 'web' },
    },
    { name: 'merge: stale version', headers: MERGE, patch: { metadata: { resourceVersion: '1' } }, code: 409 },
    {
      name: 'json: add, replace, remove, test',
      headers: JSON_PATCH,
      patch: [
        { op: 'test', path: '/spec/ports/0/port', value: 80 },
        { op: 'replace', path: '/spec/ports/0/name', value: 'z' },
        { op: 'remove', path: '/spec/ports/2' },
        { op: 'add', path: '/spec/ports/1', value: { name: 'i', port: 7, nodePort: 30007 } },
      ],
      ports: ['z 80 30080', 'i 7 30007', 'dns 53 30053'],
    },
    {
      name: 'json: move, copy, escaped pointer, end of list',
      headers: JSON_PATCH,
      patch: [
        { op: 'add', path: '/metadata/annotations', value: { 'a/b': '1' } },
        { op: 'copy', from: '/metadata/annotations/a~1b', path: '/metadata/annotations/c' },
        { op: 'move', from: '/spec/externalIPs/0', path: '/spec/externalIPs/-' },
      ],
      field: 'spec.externalIPs',
      is: ['192.0.2.2', '192.0.2.1'],
    },
    {
      name: 'json: failed test',
      headers: JSON_PATCH,
      patch: [{ op: 'test', path: '/spec/type', value: 'ClusterIP' }],
      code: 422,
    },
    { name: 'json: no such field', headers: JSON_PATCH, patch: [{ op: 'remove', path: '/spec/nothing' }], code: 422 },
    { name: 'json: no list', headers: JSON_PATCH, patch: {}, code: 400 },
    { name: 'json: unknown op', headers: JSON_PATCH, patch: [{ op: 'sing', path: '/spec' }], code: 400 },
    { name: 'no JSON', headers: MERGE, patch: '{', code: 400 },
    { name: 'another name', headers: MERGE, patch: { metadata: { name: 'wob' } }, code: 400 },
  ];
  const server = await start(t);
  for (const row of rows) {
    t.test(row.name, async (t) => {
      server.replaceAll([service('web', spec)], 'admit');
      const path = `${server.url}${SERVICES}/web`;
      const before = await ask(path);
      const { code, body } = await ask(path, {
        method: 'PATCH',
        ...(row.headers && { headers: row.headers }),
        body: row.patch,
      });
      t.equal(code, row.code ?? 200, JSON.stringify(body['message']));
      if (row.ports) t.same(ports(body), row.ports);
      if (row.field) t.same(at(body, row.field), row.is);
      if (row.code) t.same((await ask(path)).body, before.body, 'a refused patch changes nothing');
    });
  }
});

t.test('Services get what the real server gives them', async (t) => {
  const V4 = { clusterIP: '10.43.1.1', clusterIPs: ['10.43.1.1'], ipFamilies: ['IPv4'], ipFamilyPolicy: 'SingleStack' };
  const rows: readonly {
    name: string;
    spec: object;
    wants: Readonly<Record<string, Json | undefined>>;
    options?: ApiServerOptions;
  }[] = [
    {
      name: 'ClusterIP',
      spec: {},
      wants: {
        ...V4,
        type: 'ClusterIP',
        sessionAffinity: 'None',
        internalTrafficPolicy: 'Cluster',
        externalTrafficPolicy: undefined,
        ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }],
      },
    },
    {
      name: 'address asked for',
      spec: { clusterIP: '10.43.0.10' },
      wants: { clusterIP: '10.43.0.10', clusterIPs: ['10.43.0.10'] },
    },
    {
      name: 'IPv6 asked for',
      spec: { ipFamilies: ['IPv6'] },
      wants: { clusterIP: 'fd00:10:43::101', ipFamilies: ['IPv6'], ipFamilyPolicy: 'SingleStack' },
    },
    {
      name: 'IPv6 address asked for',
      spec: { clusterIP: 'fd00:10:43::a' },
      wants: { clusterIPs: ['fd00:10:43::a'], ipFamilies: ['IPv6'] },
    },
    {
      name: 'prefers two families',
      spec: { ipFamilyPolicy: 'PreferDualStack' },
      wants: { clusterIPs: ['10.43.1.1', 'fd00:10:43::101'], ipFamilies: ['IPv4', 'IPv6'] },
    },
    {
      name: 'requires two, IPv6 first',
      spec: { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6'] },
      wants: {
        clusterIP: 'fd00:10:43::101',
        clusterIPs: ['fd00:10:43::101', '10.43.1.1'],
        ipFamilies: ['IPv6', 'IPv4'],
      },
    },
    {
      name: 'prefers two families on a cluster with one',
      spec: { ipFamilyPolicy: 'PreferDualStack' },
      options: { serviceCIDRs: ['10.43.0.0/16'] },
      wants: { clusterIPs: ['10.43.1.1'], ipFamilies: ['IPv4'], ipFamilyPolicy: 'PreferDualStack' },
    },
    {
      name: 'NodePort',
      spec: { type: 'NodePort' },
      wants: {
        ...V4,
        externalTrafficPolicy: 'Cluster',
        ports: [{ port: 80, protocol: 'TCP', targetPort: 80, nodePort: 30000 }],
      },
    },
    {
      name: 'LoadBalancer',
      spec: { type: 'LoadBalancer' },
      wants: { allocateLoadBalancerNodePorts: true, externalTrafficPolicy: 'Cluster', healthCheckNodePort: undefined },
    },
    {
      name: 'LoadBalancer, Local',
      spec: { type: 'LoadBalancer', externalTrafficPolicy: 'Local' },
      wants: { healthCheckNodePort: 30001, 'ports.0.nodePort': 30000 },
    },
    {
      name: 'LoadBalancer without node ports',
      spec: { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false },
      wants: { 'ports.0.nodePort': undefined },
    },
    { name: 'external addresses', spec: { externalIPs: ['192.0.2.1'] }, wants: { externalTrafficPolicy: 'Cluster' } },
    {
      name: 'ClientIP',
      spec: { sessionAffinity: 'ClientIP' },
      wants: { sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } } },
    },
    {
      name: 'headless',
      spec: { clusterIP: 'None', selector: { a: 'b' } },
      wants: { clusterIP: 'None', clusterIPs: ['None'], ipFamilies: ['IPv4'], ipFamilyPolicy: 'SingleStack' },
    },
    {
      name: 'headless without selector',
      spec: { clusterIP: 'None' },
      wants: { clusterIPs: ['None'], ipFamilies: ['IPv4', 'IPv6'], ipFamilyPolicy: 'RequireDualStack' },
    },
    { name: 'headless without ports', spec: { clusterIP: 'None', ports: [] }, wants: { clusterIP: 'None' } },
    {
      name: 'ExternalName',
      spec: { type: 'ExternalName', externalName: 'example.com' },
      wants: { clusterIP: undefined, clusterIPs: undefined, ipFamilies: undefined, internalTrafficPolicy: undefined },
    },
    {
      name: 'named target',
      spec: { ports: [{ port: 80, targetPort: 'web' }] },
      wants: { 'ports.0.targetPort': 'web' },
    },
    {
      name: 'one node port for two protocols',
      spec: {
        type: 'NodePort',
        ports: [
          { name: 'a', port: 53, nodePort: 30053 },
          { name: 'b', port: 53, protocol: 'UDP', nodePort: 30053 },
        ],
      },
      wants: { 'ports.1.nodePort': 30053 },
    },
    {
      name: 'range with blanks',
      spec: { type: 'LoadBalancer', loadBalancerSourceRanges: [' 10.0.0.0/8'] },
      wants: { loadBalancerSourceRanges: [' 10.0.0.0/8'] },
    },
  ];
  for (const row of rows) {
    t.test(row.name, async (t) => {
      const { url } = await start(t, row.options);
      const { code, body } = await ask(url + SERVICES, { method: 'POST', body: service('web', row.spec) });
      t.equal(code, 201, JSON.stringify(body['message']));
      for (const [field, want] of Object.entries(row.wants)) t.same(at(body['spec'], field), want, field);
    });
  }

  t.test('an update keeps what was given and drops what has no use any more', async (t) => {
    const { url } = await start(t);
    const path = `${url}${SERVICES}/web`;
    const put = async (spec: object) => (await ask(path, { method: 'PUT', body: service('web', spec) })).body['spec'];
    await ask(url + SERVICES, { method: 'POST', body: service('web') });
    t.match(await put({ type: 'NodePort', ports: [{ port: 80 }] }), {
      clusterIP: '10.43.1.1',
      ports: [{ nodePort: 30000 }],
    });
    t.match(await put({ type: 'NodePort', ports: [{ port: 80, targetPort: 8080 }] }), { ports: [{ nodePort: 30000 }] });
    const local = { type: 'LoadBalancer', externalTrafficPolicy: 'Local' };
    t.match(await put(local), { ports: [{ nodePort: 30000 }], healthCheckNodePort: 30001 });
    t.match(await put({ ...local, ipFamilyPolicy: 'PreferDualStack' }), {
      clusterIPs: ['10.43.1.1', 'fd00:10:43::101'],
      healthCheckNodePort: 30001,
    });
    const patch = async (spec: object) =>
      (await ask(path, { method: 'PATCH', headers: STRATEGIC, body: { spec } })).body['spec'];
    t.equal(at(await patch({ externalTrafficPolicy: 'Cluster' }), 'healthCheckNodePort'), undefined);
    const plain = await patch({ type: 'ClusterIP' });
    t.same(at(plain, 'ports'), [{ port: 80, protocol: 'TCP', targetPort: 80 }]);
    t.equal(at(plain, 'externalTrafficPolicy'), undefined);
    t.equal(at(plain, 'allocateLoadBalancerNodePorts'), undefined);
    t.same(at(await patch({ ipFamilyPolicy: 'SingleStack' }), 'clusterIPs'), ['10.43.1.1']);
    t.equal(at(await patch({ type: 'ExternalName', externalName: 'example.com' }), 'clusterIP'), undefined);
    const held = { type: 'NodePort', clusterIP: '10.43.1.1', ports: [{ port: 80, nodePort: 30000 }] };
    const other = await ask(url + SERVICES, { method: 'POST', body: service('other', held) });
    t.equal(other.code, 201, 'the address and the node port are free again');
  });

  t.test('a deleted Service gives back what it held', async (t) => {
    const { url } = await start(t);
    const held = service('web', { type: 'NodePort', clusterIP: '10.43.0.10', ports: [{ port: 80, nodePort: 30080 }] });
    await ask(url + SERVICES, { method: 'POST', body: held });
    await ask(`${url}${SERVICES}/web`, { method: 'DELETE' });
    t.equal((await ask(url + SERVICES, { method: 'POST', body: held })).code, 201);
  });

  t.test('a range that is full says so, and a ServiceCIDR adds another', async (t) => {
    const { url } = await start(t, { serviceCIDRs: ['10.43.0.0/30'], nodePorts: { from: 30000, to: 30000 } });
    for (const name of ['a', 'b']) await ask(url + SERVICES, { method: 'POST', body: service(name) });
    const full = await ask(url + SERVICES, { method: 'POST', body: service('c') });
    t.match(String(full.body['message']), /range is full/);
    const cidr = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name: 'more' },
      spec: { cidrs: ['10.99.0.0/24'] },
    };
    t.equal((await ask(`${url}/apis/networking.k8s.io/v1/servicecidrs`, { method: 'POST', body: cidr })).code, 201);
    const more = await ask(url + SERVICES, { method: 'POST', body: service('c', { type: 'NodePort' }) });
    t.equal(at(more.body, 'spec.clusterIP'), '10.99.0.17');
    const ports = await ask(url + SERVICES, { method: 'POST', body: service('d', { type: 'NodePort' }) });
    t.match(String(ports.body['message']), 'spec.ports[0].nodePort: Invalid value: 0: failed to allocate');
  });
});

t.test('objects that are not acceptable: the causes name the field', async (t) => {
  const server = await start(t);
  const { url } = server;
  server.apply([
    service('taken', { type: 'NodePort', clusterIP: '10.43.0.10', ports: [{ port: 80, nodePort: 30080 }] }),
  ]);
  server.apply([slice('old'), service('old')]);
  const port = (fields: object) => ({ ports: [{ port: 80, ...fields }] });
  const services: readonly [spec: object, ...fields: string[]][] = [
    [{ ports: [] }, 'spec.ports'],
    [port({ port: 70000, targetPort: 80 }), 'spec.ports[0].port'],
    [{ ports: [{}] }, 'spec.ports[0].port'],
    [port({ protocol: 'ICMP' }), 'spec.ports[0].protocol'],
    [port({ targetPort: 'no_such' }), 'spec.ports[0].targetPort'],
    [port({ targetPort: 99999 }), 'spec.ports[0].targetPort'],
    [port({ name: 'Http' }), 'spec.ports[0].name'],
    [port({ name: 'a"\nb' }), 'spec.ports[0].name'],
    [port({ nodePort: 30001 }), 'spec.ports[0].nodePort'],
    [{ ports: [{ port: 80 }, { port: 81 }] }, 'spec.ports[0].name', 'spec.ports[1].name'],
    [
      {
        ports: [
          { name: 'a', port: 80 },
          { name: 'a', port: 81 },
        ],
      },
      'spec.ports[1].name',
    ],
    [
      {
        ports: [
          { name: 'a', port: 80 },
          { name: 'b', port: 80 },
        ],
      },
      'spec.ports[1]',
    ],
    [{ type: 'NodePort', ...port({ nodePort: 80 }) }, 'spec.ports[0].nodePort'],
    [{ type: 'NodePort', ...port({ nodePort: 30080 }) }, 'spec.ports[0].nodePort'],
    [{ type: 'Sideways' }, 'spec.type'],
    [{ clusterIP: '10.43.0.10' }, 'spec.clusterIPs'],
    [{ clusterIP: '10.99.0.10' }, 'spec.clusterIPs'],
    [{ clusterIP: '10.43.0.300' }, 'spec.clusterIPs[0]'],
    [{ clusterIP: '10.43.0.9', clusterIPs: ['10.43.0.8'] }, 'spec.clusterIPs[0]'],
    [{ clusterIP: '10.43.0.9', ipFamilies: ['IPv6'] }, 'spec.clusterIPs[0]'],
    [{ ipFamilies: ['IPv5'] }, 'spec.ipFamilies[0]'],
    [{ sessionAffinity: 'Cookie' }, 'spec.sessionAffinity'],
    [
      { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 0 } } },
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
    ],
    [{ externalTrafficPolicy: 'Local' }, 'spec.externalTrafficPolicy'],
    [{ internalTrafficPolicy: 'Maybe' }, 'spec.internalTrafficPolicy'],
    [{ trafficDistribution: 'PreferFar' }, 'spec.trafficDistribution'],
    [{ externalIPs: ['x'] }, 'spec.externalIPs[0]'],
    [{ loadBalancerSourceRanges: ['10.0.0.0/8'] }, 'spec.loadBalancerSourceRanges'],
    [{ type: 'LoadBalancer', loadBalancerSourceRanges: ['10.0.0.0/33'] }, 'spec.loadBalancerSourceRanges[0]'],
    [{ type: 'LoadBalancer', healthCheckNodePort: 30100 }, 'spec.healthCheckNodePort'],
    [{ type: 'NodePort', clusterIP: 'None' }, 'spec.clusterIPs[0]'],
    [{ type: 'ExternalName' }, 'spec.externalName'],
    [{ type: 'ExternalName', externalName: 'a', clusterIP: '10.43.0.9' }, 'spec.clusterIPs'],
  ];
  const nodes = '/api/v1/nodes';
  const node = (spec: object) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' }, spec });
  const cidrs = '/apis/networking.k8s.io/v1/servicecidrs';
  const cidr = (list: string[]) => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'c' },
    spec: { cidrs: list },
  });
  const rows: readonly { path: string; method?: string; body: object; fields: readonly string[] }[] = [
    ...services.map(([spec, ...fields]) => ({ path: SERVICES, body: service('bad', spec), fields })),
    {
      path: `${SERVICES}/old`,
      method: 'PUT',
      body: service('old', { clusterIP: '10.43.0.77' }),
      fields: ['spec.clusterIPs[0]'],
    },
    { path: SERVICES, body: service('1bad'), fields: ['metadata.name'] },
    { path: SERVICES, body: service('b'.repeat(64)), fields: ['metadata.name'] },
    { path: SERVICES, body: service(''), fields: ['metadata.name'] },
    { path: SERVICES, body: service('bad', {}, { labels: { 'a b': 'c' } }), fields: ['metadata.labels'] },
    { path: SERVICES, body: service('bad', {}, { labels: { a: '-' } }), fields: ['metadata.labels'] },
    { path: SERVICES, body: service('bad', {}, { annotations: { 'a/b/c': 'd' } }), fields: ['metadata.annotations'] },
    { path: SLICES, body: slice('bad', { addressType: undefined }), fields: ['addressType'] },
    { path: SLICES, body: slice('bad', { addressType: 'IPX' }), fields: ['addressType', 'endpoints[0].addresses[0]'] },
    { path: SLICES, body: slice('bad', { endpoints: [{ addresses: [] }] }), fields: ['endpoints[0].addresses'] },
    {
      path: SLICES,
      body: slice('bad', { endpoints: [{ addresses: ['fd00::1'] }] }),
      fields: ['endpoints[0].addresses[0]'],
    },
    {
      path: SLICES,
      body: slice('bad', { endpoints: [{ addresses: ['10.42.0.256'] }] }),
      fields: ['endpoints[0].addresses[0]'],
    },
    { path: SLICES, body: slice('bad', { ports: [{ name: 'a' }, { name: 'a' }] }), fields: ['ports[1].name'] },
    { path: SLICES, body: slice('bad', { ports: [{ port: 0 }] }), fields: ['ports[0].port'] },
    { path: SLICES, body: slice('bad', { ports: [{ protocol: 'tcp' }] }), fields: ['ports[0].protocol'] },
    {
      path: SLICES,
      body: slice('bad', { endpoints: Array.from({ length: 1001 }, () => ({ addresses: ['10.0.0.1'] })) }),
      fields: ['endpoints'],
    },
    { path: `${SLICES}/old`, method: 'PUT', body: slice('old', { addressType: 'FQDN' }), fields: ['addressType'] },
    { path: nodes, body: node({ podCIDR: '10.42.0.0' }), fields: ['spec.podCIDRs[0]'] },
    { path: nodes, body: node({ podCIDR: '10.42.0.0/24', podCIDRs: ['10.42.1.0/24'] }), fields: ['spec.podCIDRs[0]'] },
    {
      path: nodes,
      body: node({ taints: [{ key: '', effect: 'Never' }] }),
      fields: ['spec.taints[0].key', 'spec.taints[0].effect'],
    },
    { path: cidrs, body: cidr([]), fields: ['spec.cidrs'] },
    { path: cidrs, body: cidr(['10.0.0.0']), fields: ['spec.cidrs[0]'] },
    { path: cidrs, body: cidr(['10.0.0.0/8', '10.1.0.0/16']), fields: ['spec.cidrs'] },
  ];
  for (const { path, method = 'POST', body, fields } of rows) {
    const { code, body: status } = await ask(url + path, { method, body });
    const causes = at(status, 'details.causes');
    const named = Array.isArray(causes) ? causes.map((cause) => at(cause, 'field')) : [];
    t.same(
      { code, reason: status['reason'], named },
      { code: 422, reason: 'Invalid', named: fields },
      JSON.stringify(body).slice(0, 150),
    );
  }
  t.same(
    server.list('Service').map((o) => o.metadata.name),
    ['old', 'taken'],
    'nothing of it is stored',
  );
});

t.test('selectors', async (t) => {
  const server = await start(t);
  server.apply([
    service('a', { clusterIP: 'None' }, { labels: { app: 'a', tier: 'front' } }),
    service('b', { type: 'NodePort' }, { labels: { app: 'b' } }),
    service('c', {}, { labels: { 'service.kubernetes.io/service-proxy-name': 'other' } }),
    service('d', {}, { namespace: 'demo' }),
  ]);
  const rows: readonly [query: string, matches: string | number][] = [
    ['', 'a b c d'],
    ['labelSelector=app', 'a b'],
    ['labelSelector=!app', 'c d'],
    ['labelSelector=app=a', 'a'],
    ['labelSelector=app==a', 'a'],
    ['labelSelector=app!=a', 'b c d'],
    ['labelSelector=app in (a,b)', 'a b'],
    ['labelSelector=app in (a, x),tier=front', 'a'],
    ['labelSelector=app notin (a)', 'b c d'],
    ['labelSelector=app,!tier', 'b'],
    ['labelSelector=!service.kubernetes.io/service-proxy-name', 'a b d'],
    ['labelSelector=a b', 400],
    ['labelSelector=app in a', 400],
    ['fieldSelector=metadata.name=b', 'b'],
    ['fieldSelector=metadata.name!=b', 'a c d'],
    ['fieldSelector=metadata.namespace=demo', 'd'],
    ['fieldSelector=spec.clusterIP!=None', 'b c d'],
    ['fieldSelector=spec.type=NodePort', 'b'],
    ['fieldSelector=spec.type==ClusterIP,metadata.namespace!=demo', 'a c'],
    ['fieldSelector=spec.selector=x', 400],
    ['fieldSelector=nonsense', 400],
    ['labelSelector=!service.kubernetes.io/service-proxy-name&fieldSelector=spec.clusterIP!=None', 'b d'],
  ];
  for (const [query, want] of rows) {
    const list = await ask(encodeURI(`${server.url}/api/v1/services?${query}`));
    t.equal(list.code === 200 ? names(list).join(' ') : list.code, want, query);
  }
  t.same(names(await ask(server.url + SERVICES)), ['a', 'b', 'c'], 'one namespace');
});

t.test('lists', async (t) => {
  const server = await start(t);
  const { url } = server;
  server.apply(Array.from({ length: 7 }, (_, i) => service(`s${i}`)));
  const list = (query: string) => ask(`${url}/api/v1/services?${query}`);

  t.test('items leave out kind and apiVersion, single objects do not', async (t) => {
    const { body } = await list('');
    t.match(body, { kind: 'ServiceList', apiVersion: 'v1' });
    t.same([at(body, 'items.0.kind'), at(body, 'items.0.apiVersion')], [undefined, undefined]);
    t.same(
      body['items'],
      server
        .list('Service')
        .map((o) => ({ ...asJson(o), kind: undefined, apiVersion: undefined }))
        .map((o) => JSON.parse(JSON.stringify(o))),
    );
  });

  t.test('pages show the moment of the first', async (t) => {
    const first = await list('limit=3');
    t.same(names(first), ['s0', 's1', 's2']);
    t.equal(at(first.body, 'metadata.remainingItemCount'), 4);
    const moment = at(first.body, 'metadata.resourceVersion');
    server.delete([service('s3')]);
    server.apply([service('s33')]);
    const second = await list(`limit=3&continue=${at(first.body, 'metadata.continue')}`);
    t.same(names(second), ['s3', 's4', 's5'], 'deleted meanwhile, and there');
    const third = await list(`limit=3&continue=${at(second.body, 'metadata.continue')}`);
    t.same(names(third), ['s6']);
    t.equal(at(third.body, 'metadata.continue'), undefined);
    t.same(
      [second, third].map((p) => at(p.body, 'metadata.resourceVersion')),
      [moment, moment],
    );
    t.same(
      names(await list(`limit=9&continue=${at(first.body, 'metadata.continue')}`)),
      ['s3', 's4', 's5', 's6'],
      'again',
    );
  });

  t.test('an expired token is 410, with a token to go on in what there is now', async (t) => {
    const first = await list('limit=3');
    server.chaos.expire();
    const gone = await list(`limit=3&continue=${at(first.body, 'metadata.continue')}`);
    t.match(gone.body, { kind: 'Status', code: 410, reason: 'Expired' });
    t.same(names(await list(`limit=9&continue=${at(gone.body, 'metadata.continue')}`)), ['s33', 's4', 's5', 's6']);
  });

  const rows: readonly [query: string, code: number, count: number][] = [
    ['limit=2&labelSelector=!x', 200, 2],
    ['limit=2&resourceVersion=0', 200, 7],
    ['resourceVersion=0&resourceVersionMatch=NotOlderThan', 200, 7],
    ['resourceVersion=1&resourceVersionMatch=Exact', 410, 0],
    ['resourceVersionMatch=Exact', 422, 0],
    ['resourceVersion=999999', 504, 0],
    ['resourceVersion=x', 400, 0],
    ['continue=nonsense', 400, 0],
    ['limit=x', 400, 0],
  ];
  for (const [query, code, count] of rows) {
    const answer = await list(query);
    t.same([answer.code, names(answer).length], [code, count], query);
  }

  t.test('gzip when asked', async (t) => {
    const zipped = await ask(`${url}/api/v1/services`, { headers: { 'Accept-Encoding': 'gzip, deflate' } });
    t.equal(zipped.headers['content-encoding'], 'gzip');
    t.same(zipped.body, (await list('')).body);
    t.equal((await list('')).headers['content-encoding'], undefined);
    const refused = await ask(`${url}/api/v1/services`, { headers: { 'Accept-Encoding': 'gzip;q=0' } });
    t.equal(refused.headers['content-encoding'], undefined);
  });

  t.test('tables', async (t) => {
    const headers = { Accept: 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json' };
    const { body } = await ask(`${url}/api/v1/services?limit=1`, { headers });
    t.match(body, { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata: { remainingItemCount: 6 } });
    t.same(at(body, 'rows.0.cells'), ['s0', 'ClusterIP', '10.43.1.1', '<none>', '80/TCP', '0s', '<none>']);
    t.match(at(body, 'rows.0.object'), { kind: 'PartialObjectMetadata', metadata: { name: 's0' } });
    const whole = await ask(`${url}/api/v1/services?limit=1&includeObject=Object`, { headers });
    t.equal(at(whole.body, 'rows.0.object.kind'), 'Service');
    server.replaceAll([{ ...service('broken'), spec: { ports: 7, externalIPs: 'x' } }]);
    const broken = await ask(`${url}/api/v1/services`, { headers });
    t.equal(at(broken.body, 'rows.0.cells.4'), '<invalid>', 'a cell that cannot be made is told as that');
  });
});

t.test('formatAge()', async (t) => {
  const rows: readonly [seconds: number, text: string][] = [
    [0, '0s'],
    [119, '119s'],
    [120, '2m'],
    [330, '5m30s'],
    [600, '10m'],
    [3 * 3600 - 1, '179m'],
    [3 * 3600, '3h'],
    [3 * 3600 + 90 * 60, '4h30m'],
    [47 * 3600, '47h'],
    [50 * 3600, '2d2h'],
    [8 * 86400, '8d'],
    [800 * 86400, '2y70d'],
  ];
  for (const [seconds, text] of rows) t.equal(formatAge(seconds * 1000), text, `${seconds} s`);
});

t.test('watches', async (t) => {
  t.test('from a version on', async (t) => {
    const server = await start(t);
    const since = server.apply([service('a')]);
    server.apply([service('b')]);
    const w = await watch(t, `${server.url}/api/v1/services?watch=1&resourceVersion=${since}`);
    t.equal(await w.next(), 'ADDED b');
    t.equal(at(w.last(), 'object.kind'), 'Service', 'events carry whole objects');
    server.apply([service('b', { selector: { x: 'y' } })]);
    t.equal(await w.next(), 'MODIFIED b');
    const version = server.delete([service('b')]);
    t.equal(await w.next(), 'DELETED b');
    t.same(
      [at(w.last(), 'object.metadata.resourceVersion'), at(w.last(), 'object.spec.selector')],
      [version, { x: 'y' }],
    );
  });

  t.test('without a version, and with 0, everything there is comes first', async (t) => {
    const server = await start(t);
    server.apply([service('b'), service('a')]);
    for (const query of ['', '&resourceVersion=0']) {
      const w = await watch(t, `${server.url}${SERVICES}?watch=true${query}`);
      t.same([await w.next(), await w.next()], ['ADDED a', 'ADDED b']);
    }
    t.same(server.stats().openWatches, { services: 2 });
  });

  t.test('an object that begins or ceases to match comes and goes', async (t) => {
    const server = await start(t);
    const since = server.apply([service('a'), service('b')]);
    const w = await watch(t, `${server.url}/api/v1/services?watch=1&labelSelector=on&resourceVersion=${since}`);
    const label = (name: string, labels: object) => server.apply([service(name, {}, { labels })]);
    label('a', { x: 'y' });
    label('a', { on: '1' });
    label('b', { x: 'y' });
    label('a', { on: '2' });
    label('a', { x: 'z' });
    server.delete([service('b')]);
    label('c', { on: '1' });
    server.delete([service('c')]);
    const events: string[] = [];
    for (let i = 0; i < 5; i++) events.push(await w.next());
    t.same(events, ['ADDED a', 'MODIFIED a', 'DELETED a', 'ADDED c', 'DELETED c']);
    const replay = await watch(t, `${server.url}/api/v1/services?watch=1&labelSelector=on&resourceVersion=${since}`);
    const again: string[] = [];
    for (let i = 0; i < 5; i++) again.push(await replay.next());
    t.same(again, events, 'history tells the same');
  });

  t.test('one object, one namespace, field selectors', async (t) => {
    const server = await start(t);
    const one = await watch(t, `${server.url}${SERVICES}?watch=1&fieldSelector=metadata.name%3Dx`);
    const here = await watch(t, `${server.url}${SERVICES}?watch=1`);
    server.apply([service('x', {}, { namespace: 'demo' }), service('y'), service('x')]);
    t.same([await one.next(), await here.next(), await here.next()], ['ADDED x', 'ADDED y', 'ADDED x']);
    t.equal(at(one.last(), 'object.metadata.namespace'), 'default');
  });

  t.test('bookmarks: only to who asks, with the version of everything', async (t) => {
    const clock = new FakeClock();
    const server = await start(t, { clock, bookmarkMs: 3000 });
    const silent = await watch(t, `${server.url}${SERVICES}?watch=1`);
    const w = await watch(t, `${server.url}${SERVICES}?watch=1&allowWatchBookmarks=true`);
    const version = server.apply([slice('other')]);
    await clock.advance(3000);
    t.equal(await w.next(), 'BOOKMARK');
    t.same(w.last(), {
      type: 'BOOKMARK',
      object: { kind: 'Service', apiVersion: 'v1', metadata: { resourceVersion: version } },
    });
    server.apply([service('a')]);
    t.same([await silent.next(), await w.next()], ['ADDED a', 'ADDED a']);
  });

  t.test('timeoutSeconds ends it in good order', async (t) => {
    const clock = new FakeClock();
    const server = await start(t, { clock });
    const w = await watch(t, `${server.url}${SERVICES}?watch=1&timeoutSeconds=7`);
    server.apply([service('a')]);
    t.equal(await w.next(), 'ADDED a');
    await clock.advance(7000);
    t.equal(await w.next(), 'end');
    t.equal(await w.ended, 'end');
    t.same(server.stats().openWatches, {});
  });

  t.test('history that is gone is 410: by its length, by compaction, as event and as status', async (t) => {
    const server = await start(t, { historyLimit: 3 });
    const since = server.apply([service('a')]);
    for (let i = 0; i < 7; i++) server.apply([service('a', { selector: { i: String(i) } })]);
    const url = `${server.url}${SERVICES}?watch=1&resourceVersion=`;
    const w = await watch(t, url + since);
    t.equal(w.response.statusCode, 200);
    t.equal(await w.next(), 'ERROR Expired');
    t.match(w.last()['object'], { kind: 'Status', code: 410, message: /too old resource version/ });
    t.equal(await w.next(), 'end');

    const now = server.stats().resourceVersion;
    server.chaos.expire('status');
    const status = await ask(url + now);
    t.match(status.body, { kind: 'Status', code: 410, reason: 'Expired' });
    const resumed = await watch(t, url + server.stats().resourceVersion);
    server.apply([service('b')]);
    t.equal(await resumed.next(), 'ADDED b', 'what is listed now can be resumed');
  });

  t.test('streaming lists', async (t) => {
    const query = 'watch=1&sendInitialEvents=true&allowWatchBookmarks=true';
    const server = await start(t);
    server.apply([service('a')]);
    const w = await watch(t, `${server.url}${SERVICES}?${query}&resourceVersionMatch=NotOlderThan`);
    t.same([await w.next(), await w.next()], ['ADDED a', 'BOOKMARK']);
    t.equal(
      at(w.last(), 'object.metadata.annotations')?.toString(),
      { 'k8s.io/initial-events-end': 'true' }.toString(),
    );
    server.apply([service('b')]);
    t.equal(await w.next(), 'ADDED b');
    t.equal((await ask(`${server.url}${SERVICES}?${query}`)).code, 422, 'must say NotOlderThan');
    const old = await start(t, { streamingLists: false });
    const refused = await ask(`${old.url}${SERVICES}?${query}&resourceVersionMatch=NotOlderThan`);
    t.match(refused.body, { code: 422, reason: 'Invalid', message: /sendInitialEvents is forbidden/ });
  });

  t.test('tables and events of the other group are made for the watch', async (t) => {
    const server = await start(t);
    const headers = { Accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' };
    const w = await watch(t, `${server.url}${SERVICES}?watch=1`, { headers });
    server.apply([service('a')]);
    await w.next();
    t.match(w.last(), { type: 'ADDED', object: { kind: 'Table', rows: [{ cells: ['a', 'ClusterIP'] }] } });
    server.apply([service('b')]);
    await w.next();
    t.same(at(w.last(), 'object.columnDefinitions'), [], 'columns come once');
  });

  t.test('compressed, on a server that does that', async (t) => {
    const server = await start(t, { gzipWatches: true });
    const response = await open(`${server.url}${SERVICES}?watch=1`, { headers: { 'Accept-Encoding': 'gzip' } });
    t.equal(response.headers['content-encoding'], 'gzip');
    server.apply([service('a')]);
    server.chaos.finish();
    const chunks: Buffer[] = [];
    for await (const chunk of response) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
    t.match(gunzipSync(Buffer.concat(chunks)).toString(), '"name":"a"');
  });
});

t.test('events are one thing in two groups', async (t) => {
  const { url } = await start(t);
  const event = {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: 'e', namespace: 'default' },
    regarding: { kind: 'Node', name: 'k3s-node' },
    reason: 'Starting',
    note: 'hello',
    type: 'Normal',
    eventTime: '2026-01-02T03:04:05.000000Z',
    reportingController: 'kube-proxy',
    reportingInstance: 'k3s-node',
    action: 'StartKubeProxy',
  };
  const made = await ask(`${url}/apis/events.k8s.io/v1/namespaces/default/events`, { method: 'POST', body: event });
  t.match(made.body, event);
  const core = await ask(
    `${url}/api/v1/events?fieldSelector=involvedObject.name%3Dk3s-node,reportingComponent%3Dkube-proxy`,
  );
  t.match(at(core.body, 'items.0'), {
    involvedObject: event.regarding,
    message: 'hello',
    reportingComponent: 'kube-proxy',
  });
  const series = { series: { count: 2, lastObservedTime: '2026-01-02T03:04:06.000000Z' } };
  const patched = await ask(`${url}/apis/events.k8s.io/v1/namespaces/default/events/e`, {
    method: 'PATCH',
    headers: STRATEGIC,
    body: series,
  });
  t.match(patched.body, { note: 'hello', ...series });
  t.equal(at((await ask(`${url}/apis/events.k8s.io/v1/events`)).body, 'items.0.note'), 'hello');
});

t.test('chaos', async (t) => {
  const clock = new FakeClock();
  const server = await start(t, { clock });
  const { url } = server;
  server.apply(Array.from({ length: 20 }, (_, i) => service(`s${i}`)));
  const post = (body: object) => ask(`${url}/lab/chaos`, { method: 'POST', body });
  /** The only open watch: those of earlier tests are closed on their side, and soon on this. */
  const begin = async (t: Test, query = '') => {
    while (Object.keys(server.stats().openWatches).length > 0) await new Promise(setImmediate);
    return await watch(t, `${url}${SERVICES}?watch=1&resourceVersion=${server.stats().resourceVersion}${query}`);
  };

  t.test('drop and halfClose cut watches', async (t) => {
    for (const how of ['drop', 'halfClose'] as const) {
      const w = await begin(t);
      t.same((await post({ [how]: true })).body, { [how]: 1 });
      t.equal(await w.ended, 'cut', how);
    }
  });

  t.test('finish ends them in good order', async (t) => {
    const w = await begin(t);
    server.chaos.finish();
    t.equal(await w.ended, 'end');
  });

  t.test('silence keeps them open and mute', async (t) => {
    const w = await begin(t, '&allowWatchBookmarks=true');
    server.chaos.silence();
    server.apply([service('unheard')]);
    server.bookmark();
    await ask(`${url}/version`);
    t.same(server.stats().openWatches, { services: 1 });
    server.chaos.drop();
    await t.rejects(w.next(), { code: 'ECONNRESET' }, 'nothing came');
    t.equal(await w.ended, 'cut');
  });

  t.test('delay holds answers and events back', async (t) => {
    await post({ delay: { answersMs: 500, eventsMs: 300 } });
    let answered = false;
    const answer = ask(`${url}${SERVICES}/s0`).then(() => {
      answered = true;
    });
    while (clock.sleeping < 2) await clock.advance(0);
    t.equal(answered, false);
    await clock.advance(500);
    await answer;
    await post({ delay: { answersMs: 0 } });
    const w = await begin(t);
    let came = 0;
    w.response.on('data', () => came++);
    server.apply([service('late')]);
    await clock.advance(299);
    await ask(`${url}/version`);
    t.equal(came, 0);
    server.apply([service('later')]);
    const first = w.next();
    await clock.advance(1);
    t.same([await first, await w.next()], ['ADDED late', 'ADDED later'], 'in their order');
    await post({ reset: true });
  });

  t.test('garble breaks lines, types and compressed lists', async (t) => {
    server.chaos.garble('line');
    const w = await begin(t);
    server.apply([service('g1')]);
    await t.rejects(w.next(), { name: 'SyntaxError' });
    server.chaos.garble('types');
    server.apply([service('g2')]);
    t.equal(await w.next(), 'ADDED g2');
    t.match(w.last()['object'], { spec: 'garbled', metadata: { labels: ['not', 'a', 'map'] } });
    server.apply([service('g3')]);
    t.equal(await w.next(), 'ADDED g3');
    t.equal(at(w.last(), 'object.spec.type'), 'ClusterIP', 'once is once');
    server.chaos.garble('gzip');
    await t.rejects(ask(url + SERVICES, { headers: { 'Accept-Encoding': 'gzip' } }), { code: 'ECONNRESET' });
    t.equal((await ask(url + SERVICES, { headers: { 'Accept-Encoding': 'gzip' } })).code, 200);
  });

  t.test('refuse answers the next requests of a path', async (t) => {
    await post({ refuse: { status: 429, count: 2, retryAfterSeconds: 7, path: '/services' } });
    const refused = await ask(url + SERVICES);
    t.match(refused.body, { kind: 'Status', code: 429, reason: 'TooManyRequests' });
    t.equal(refused.headers['retry-after'], '7');
    t.equal((await ask(`${url}/api/v1/nodes`)).code, 200);
    t.equal((await ask(url + SERVICES)).code, 429);
    t.equal((await ask(url + SERVICES)).code, 200);
    await post({ refuse: { status: 503, count: 9 } });
    await post({ reset: true });
    t.equal((await ask(url + SERVICES)).code, 200);
  });

  for (const bad of [{ dance: true }, { garble: { what: 'x' } }, { delay: { answersMs: 'x' } }]) {
    t.equal((await post(bad)).code, 400, JSON.stringify(bad));
  }
});

t.test('from inside and over /lab/', async (t) => {
  const server = await start(t);
  const { url } = server;
  const post = (path: string, body: unknown) => ask(`${url}/lab/${path}`, { method: 'POST', body });

  const status = { loadBalancer: { ingress: [{ ip: '192.168.1.100' }] } };
  server.apply([{ ...service('lb', { type: 'LoadBalancer' }, { namespace: 'new' }), status }]);
  t.match(server.list('Service')[0], { status, spec: { clusterIP: '10.43.1.1' } }, 'takes the status too');
  t.match(
    server.list('Namespace').map((o) => o.metadata.name),
    ['default', 'kube-node-lease', 'kube-public', 'kube-system', 'new'],
  );
  t.throws(() => server.apply([service('bad', { ports: [] })]), {
    name: 'ApiError',
    message: /spec.ports: Required value/,
  });
  t.throws(() => server.apply([{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' } }]), /does not know the kind/);
  t.throws(() => server.apply([{ kind: 'Service' }]), /apiVersion/);

  t.test('replaceAll makes a set the whole, as it is, and touches only what differs', async (t) => {
    const odd = { ...service('odd', { clusterIP: 'nonsense' }), extra: { kept: true } };
    server.replaceAll([odd, slice('one'), { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' } }]);
    t.match(server.list('Service'), [
      { metadata: { name: 'odd' }, spec: { clusterIP: 'nonsense' }, extra: { kept: true } },
    ]);
    const since = server.stats().resourceVersion;
    server.replaceAll([odd, slice('two'), { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' } }]);
    const w = await watch(t, `${url}${SLICES}?watch=1&resourceVersion=${since}`);
    t.same([await w.next(), await w.next()], ['ADDED two', 'DELETED one']);
    t.equal(server.stats().resourceVersion, since + 2, 'the others are untouched');
  });

  t.test('the same for other processes', async (t) => {
    await post('replace', [service('a')]);
    t.equal(at(asJson(server.list('Service')[0] ?? Object()), 'spec.clusterIP'), undefined);
    await post('apply', [service('b')]);
    t.same(
      server.list('Service').map((o) => o.metadata.name),
      ['a', 'b'],
    );
    await post('delete', [service('a'), service('not-there')]);
    t.same(
      server.list('Service').map((o) => o.metadata.name),
      ['b'],
    );
    t.equal((await post('apply', [service('bad', { ports: [] })])).code, 422);
    t.equal((await post('nothing', [])).code, 404);
    t.match((await ask(`${url}/lab/stats`)).body, { resourceVersion: server.stats().resourceVersion });
  });

  t.test('requests are counted and remembered', async (t) => {
    const fresh = await start(t);
    await ask(`${fresh.url}/api/v1/nodes?limit=5`, { headers: { 'User-Agent': 'me/1' } });
    await watch(t, `${fresh.url}/api/v1/nodes?watch=1`);
    t.same(fresh.stats().byPath, { 'GET /api/v1/nodes': 1, 'WATCH /api/v1/nodes': 1 });
    t.match(fresh.requests()[0], { method: 'GET', url: '/api/v1/nodes?limit=5', userAgent: 'me/1', code: 200 });
  });
});

t.test('discovery', async (t) => {
  const { url } = await start(t);
  t.match((await ask(`${url}/version`)).body, { major: '1', gitVersion: /^v1\.\d+\.\d+$/ });
  t.same((await ask(`${url}/api`)).body['versions'], ['v1']);
  const groups = (await ask(`${url}/apis`)).body['groups'];
  t.same(Array.isArray(groups) && groups.map((g) => at(g, 'name')), [
    'events.k8s.io',
    'discovery.k8s.io',
    'networking.k8s.io',
  ]);
  const core = (await ask(`${url}/api/v1`)).body['resources'];
  t.same(Array.isArray(core) && core.map((r) => at(r, 'name')), [
    'namespaces',
    'namespaces/status',
    'nodes',
    'nodes/status',
    'services',
    'services/status',
    'events',
  ]);
  t.equal((await ask(`${url}/apis/discovery.k8s.io/v1`)).body['groupVersion'], 'discovery.k8s.io/v1');
  t.equal((await ask(`${url}/apis/apps/v1`)).code, 404);
  const index = (await ask(`${url}/openapi/v3`)).body['paths'];
  const document = await ask(url + String(at(isJsonObject(index) ? index['api/v1'] : undefined, 'serverRelativeURL')));
  const path = document.body['paths'];
  t.match(isJsonObject(path) ? Object.keys(path) : [], ['/api/v1/namespaces', '/api/v1/namespaces/{name}']);
  t.equal((await ask(`${url}/readyz`)).text, 'ok');
});

t.test('TLS, token, IPv6, kubeconfig', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'lab-api-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const files = { key: join(dir, 'key.pem'), cert: join(dir, 'cert.pem') };
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-subj',
      '/CN=lab',
      '-addext',
      'subjectAltName=IP:::1',
      '-keyout',
      files.key,
      '-out',
      files.cert,
    ],
    { stdio: 'ignore' },
  );
  const [key, cert] = [readFileSync(files.key, 'utf8'), readFileSync(files.cert, 'utf8')];
  const server = await start(t, { host: '::1', tls: { key, cert }, token: 'secret' });
  t.match(server.url, /^https:\/\/\[::1\]:\d+$/);
  t.equal((await ask(`${server.url}/version`, { ca: cert })).code, 401);
  t.equal((await ask(`${server.url}/version`, { ca: cert, headers: { Authorization: 'Bearer secret' } })).code, 200);
  const config = parse(server.kubeconfig());
  t.match(config, { clusters: [{ cluster: { server: server.url } }], users: [{ user: { token: 'secret' } }] });
  t.equal(Buffer.from(config.clusters[0].cluster['certificate-authority-data'], 'base64').toString(), cert);
});

t.test('10,000 Services and slices', async (t) => {
  const server = await start(t);
  const begin = performance.now();
  server.apply(Array.from({ length: 10_000 }, (_, i) => service(`s${i}`)));
  server.apply(Array.from({ length: 10_000 }, (_, i) => slice(`s${i}`)));
  const loaded = performance.now();
  const list = await ask(`${server.url}/api/v1/services`);
  const listed = performance.now();
  t.equal(names(list).length, 10_000);
  t.equal(
    new Set(server.list('Service').map((o) => at(asJson(o), 'spec.clusterIP'))).size,
    10_000,
    'all addresses differ',
  );
  t.comment(`loaded in ${Math.round(loaded - begin)} ms, listed in ${Math.round(listed - loaded)} ms`);
  // Ten times what an idle machine takes: a scan of everything per object would take minutes.
  t.ok(loaded - begin < 20_000 && listed - loaded < 5000);
});
