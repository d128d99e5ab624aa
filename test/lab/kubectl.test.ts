/** A real kubectl against the embedded API server: get, apply, edit by re-apply, watch, delete. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { kubectlPath, unzipFile } from '../../scripts/kubectl.ts';
import { createApiServer } from '../../src/lab/api/server.ts';
import { ExecError, realExec } from '../../src/sys/exec.ts';

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata:
  name: demo
---
apiVersion: v1
kind: Node
metadata:
  name: k3s-node
  labels: { node-role.kubernetes.io/control-plane: "true", topology.kubernetes.io/zone: zone-a }
spec: { podCIDR: 10.42.0.0/24, podCIDRs: [10.42.0.0/24, "fd00:10:42::/64"] }
status:
  addresses: [{ type: InternalIP, address: 192.168.1.100 }, { type: Hostname, address: k3s-node }]
  conditions: [{ type: Ready, status: "True" }]
  nodeInfo: { kubeletVersion: v1.36.2 }
---
apiVersion: v1
kind: Service
metadata: { name: plain, namespace: demo }
spec:
  selector: { app: web }
  ports: [{ name: http, port: 80, targetPort: 8080 }, { name: dns, port: 53, protocol: UDP }]
---
apiVersion: v1
kind: Service
metadata: { name: node, namespace: demo }
spec: { type: NodePort, ports: [{ port: 80, nodePort: 30080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: balanced, namespace: demo }
spec: { type: LoadBalancer, clusterIP: 10.43.0.50, externalTrafficPolicy: Local, ports: [{ port: 443, nodePort: 30443 }] }
---
apiVersion: v1
kind: Service
metadata: { name: dual, namespace: demo }
spec: { ipFamilyPolicy: RequireDualStack, externalIPs: [192.0.2.1], ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: headless, namespace: demo }
spec: { clusterIP: None, selector: { app: web }, ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: outside, namespace: demo }
spec: { type: ExternalName, externalName: example.com }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: plain-1, namespace: demo, labels: { kubernetes.io/service-name: plain } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints:
  - { addresses: [10.42.0.11], nodeName: k3s-node, conditions: { ready: true } }
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: { name: more }
spec: { cidrs: [10.99.0.0/24] }
`;

t.test('unzipFile() refuses what it cannot read', async (t) => {
  t.throws(() => unzipFile(Buffer.from('no zip at all, though long enough'), 'x'), /must be a zip file/);
  t.throws(() => unzipFile(Buffer.from(`PK\x05\x06${'\0'.repeat(18)}`, 'latin1'), 'x'), /must be one of its files/);
});

t.test('kubectl', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'lab-kubectl-'));
  const server = await createApiServer();
  t.teardown(async () => {
    await server.close();
    rmSync(dir, { recursive: true });
  });
  const config = join(dir, 'config');
  writeFileSync(config, server.kubeconfig());
  const argv = [
    'env',
    `HOME=${dir}`,
    `KUBECONFIG=${config}`,
    kubectlPath(),
    `--cache-dir=${join(dir, 'cache')}`,
  ] as const;
  const kubectl = (line: string, stdin = '') => {
    const command = { argv: [...argv, ...line.split(' ')] as [string, ...string[]], stdin, timeoutMs: 60_000 };
    return realExec.run(command);
  };
  /** Cells of a table, without the header and the column AGE. */
  const table = async (line: string) => {
    const [header = '', ...rows] = (await kubectl(line)).trimEnd().split('\n');
    const columns = [...header.matchAll(/\S+\s*/g)].map(({ index, 0: text }) => ({ index, name: text.trim() }));
    return rows.map((row) =>
      columns
        .flatMap(({ index, name }, i) => (name === 'AGE' ? [] : [row.slice(index, columns[i + 1]?.index).trim()]))
        .join(' '),
    );
  };
  const failure = async (line: string, stdin = ''): Promise<string> => {
    const error: unknown = await kubectl(line, stdin).then(
      () => undefined,
      (e: unknown) => e,
    );
    return error instanceof ExecError ? error.stderr : `did not fail: ${String(error)}`;
  };

  await t.test('version and api-resources', async (t) => {
    t.match(await kubectl('version'), /Server Version: v1\.36\.\d+/);
    t.match(
      (await kubectl('api-resources --no-headers'))
        .trim()
        .split('\n')
        .map((l) => l.split(/ +/).at(-1)),
      ['Event', 'Namespace', 'Node', 'Service', 'EndpointSlice', 'Event', 'ServiceCIDR'],
    );
  });

  await t.test('apply creates every kind, and again changes nothing', async (t) => {
    const created = await kubectl('apply -f -', MANIFEST);
    t.same(
      created
        .trim()
        .split('\n')
        .map((line) => line.replace(/.*\//, '')),
      [
        'demo created',
        'k3s-node created',
        'plain created',
        'node created',
        'balanced created',
        'dual created',
        'headless created',
        'outside created',
        'plain-1 created',
        'more created',
      ],
    );
    const version = server.stats().resourceVersion;
    const again = await kubectl('apply -f -', MANIFEST);
    t.equal(again.match(/service\/\S+ unchanged/g)?.length, 6, again);
    t.equal(server.stats().resourceVersion, version, 'nothing was stored');
  });

  await t.test('get shows tables', async (t) => {
    t.same(await table('get svc -n demo'), [
      'balanced LoadBalancer 10.43.0.50 <pending> 443:30443/TCP',
      'dual ClusterIP 10.43.1.3 192.0.2.1 80/TCP',
      'headless ClusterIP None <none> 80/TCP',
      'node NodePort 10.43.1.2 <none> 80:30080/TCP',
      'outside ExternalName <none> example.com <none>',
      'plain ClusterIP 10.43.1.1 <none> 80/TCP,53/UDP',
    ]);
    t.same(await table('get svc -A -o wide -l !x --field-selector metadata.name=plain'), [
      'demo plain ClusterIP 10.43.1.1 <none> 80/TCP,53/UDP app=web',
    ]);
    t.same(await table('get nodes -o wide'), [
      'k3s-node Ready control-plane v1.36.2 192.168.1.100 <none> <unknown> <unknown> <unknown>',
    ]);
    t.same(await table('get endpointslices -n demo'), ['plain-1 IPv4 8080 10.42.0.11']);
    t.same(await table('get ns demo'), ['demo Active']);
    t.same(await table('get servicecidr'), ['more 10.99.0.0/24']);
    t.match(await kubectl('get svc -n demo --chunk-size=2 -o name'), 'service/outside\nservice/plain\n');
  });

  await t.test('get -o json and yaml, describe, explain', async (t) => {
    t.match(JSON.parse(await kubectl('get svc -n demo dual -o json')), {
      apiVersion: 'v1',
      kind: 'Service',
      spec: {
        ipFamilies: ['IPv4', 'IPv6'],
        clusterIPs: [/^10\.43\./, /^fd00:10:43::/],
        externalTrafficPolicy: 'Cluster',
      },
    });
    t.match(JSON.parse(await kubectl('get svc -n demo -o json')), { kind: 'List', items: [{ kind: 'Service' }] });
    t.match(await kubectl('get svc -n demo balanced -o yaml'), /healthCheckNodePort: 3\d{4}\n/);
    t.match(await kubectl('describe svc -n demo plain'), /TargetPort: +8080\/TCP\nEndpoints: +10\.42\.0\.11:8080\n/);
    t.match(await kubectl('explain svc.spec.ports'), /nodePort\s+<integer>/);
  });

  await t.test('watch, while ports are edited, endpoints are scaled, an address comes, a Service goes', async (t) => {
    const [program, ...args] = [...argv, 'get', 'svc', '-n', 'demo', '-w', '--no-headers', '--output-watch-events'];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => child.kill());
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async () =>
      String((await lines.next()).value)
        .split(/ +/)
        .slice(0, 6)
        .join(' ');
    for (let i = 0; i < 6; i++) t.match(await next(), /^ADDED /);

    const edited = MANIFEST.replace('name: http, port: 80, targetPort: 8080', 'name: web, port: 80, targetPort: 9090')
      .replace('{ name: dns, port: 53, protocol: UDP }', '{ name: tls, port: 443 }')
      .replace('addresses: [10.42.0.11], nodeName', 'addresses: [10.42.0.12], nodeName')
      .replace('conditions: { ready: true } }', 'conditions: { ready: true } }\n  - { addresses: [10.42.0.11] }');
    t.match(await kubectl('apply -f -', edited), 'service/plain configured');
    t.equal(await next(), 'MODIFIED plain ClusterIP 10.43.1.1 <none> 80/TCP,443/TCP');
    const [plain] = server.list('Service').filter((o) => o.metadata.name === 'plain');
    t.match(plain?.spec, {
      ports: [
        { name: 'web', port: 80, targetPort: 9090, protocol: 'TCP' },
        { name: 'tls', port: 443, targetPort: 443, protocol: 'TCP' },
      ],
    });
    t.same(await table('get endpointslices -n demo'), ['plain-1 IPv4 8080 10.42.0.12,10.42.0.11']);

    const ingress = '{"status":{"loadBalancer":{"ingress":[{"ip":"192.168.1.100"}]}}}';
    await kubectl(`patch svc -n demo balanced --subresource=status --type=merge -p ${ingress}`);
    t.equal(await next(), 'MODIFIED balanced LoadBalancer 10.43.0.50 192.168.1.100 443:30443/TCP');
    await kubectl('patch svc -n demo node -p {"spec":{"type":"ClusterIP"}}');
    t.equal(await next(), 'MODIFIED node ClusterIP 10.43.1.2 <none> 80/TCP');
    await kubectl('label svc -n demo node a=b');
    t.equal(await next(), 'MODIFIED node ClusterIP 10.43.1.2 <none> 80/TCP');
    await kubectl('delete svc -n demo node');
    t.equal(await next(), 'DELETED node ClusterIP 10.43.1.2 <none> 80/TCP');
  });

  await t.test('what is not acceptable is told with its fields', async (t) => {
    const bad = (spec: string) => `{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: ${spec}}`;
    const rows: readonly [spec: string, says: RegExp][] = [
      [
        '{ports: [{port: 70000, targetPort: 80}]}',
        /The Service "bad" is invalid: spec\.ports\[0\]\.port: Invalid value: 70000/,
      ],
      [
        '{type: NodePort, ports: [{port: 80, nodePort: 30443}]}',
        /spec\.ports\[0\]\.nodePort: Invalid value: 30443: provided port is already allocated/,
      ],
      [
        '{ports: [{port: 80}, {port: 81}]}',
        /\* spec\.ports\[0\]\.name: Required value\n\* spec\.ports\[1\]\.name: Required value/,
      ],
      ['{ports: [{port: 80, colour: red}]}', /unknown field "spec\.ports\[0\]\.colour"/],
    ];
    for (const [spec, says] of rows) t.match(await failure('apply -f -', bad(spec)), says);
    t.match(await failure('get svc nothing'), 'services "nothing" not found');
    t.match(await failure('replace -f -', bad('{ports: [{port: 80}]}')), 'services "bad" not found');
    t.match(await failure('apply --server-side -f -', bad('{ports: [{port: 80}]}')), 'Server-side apply not available');
    const [unheard] = server.list('Service').filter((o) => o.metadata.name === 'bad');
    t.equal(unheard, undefined);
  });

  await t.test('dry run, replace, delete of everything', async (t) => {
    const good = '{apiVersion: v1, kind: Service, metadata: {name: good}, spec: {ports: [{port: 80}]}}';
    t.match(await kubectl('apply --dry-run=server -f -', good), 'service/good created (server dry run)');
    t.equal(
      server.list('Service').some((o) => o.metadata.name === 'good'),
      false,
    );
    await kubectl('create -f -', good);
    t.match(await kubectl('replace -f -', good.replace('80', '81')), 'service/good replaced');
    t.same(await table('get svc good'), ['good ClusterIP 10.43.1.4 <none> 81/TCP']);
    await kubectl('delete svc --all');
    await kubectl('delete --ignore-not-found -f -', MANIFEST);
    t.same(server.list('Service'), []);
    t.same(server.list('EndpointSlice'), []);
    t.equal(
      server.list('Namespace').some((o) => o.metadata.name === 'demo'),
      false,
    );
  });
});
