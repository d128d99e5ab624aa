/**
 * The demonstration written down: as text for people, or as one JSON document.
 *
 * @module
 */

import { styleText } from 'node:util';
import { assertNever } from '../proxier/types.ts';
import { isJsonObject, type JsonObject, type KubeObject } from './api/object.ts';
import type { DemoEvent, Reporter, ToldRequest } from './demo.ts';
import type { Path } from './path.ts';
import { addressOf, type Topology, withoutPrefix } from './topology.ts';

type Style = Parameters<typeof styleText>[0];
type Paint = (style: Style, text: string) => string;

/** A picture of the network, with its addresses. */
function drawTopology(topology: Topology): string[] {
  const { node, client, pods, families } = topology;
  const ends = families.map(
    (f) => [addressOf(client, f), addressOf(node, f), withoutPrefix(node.gateways[f])] as const,
  );
  const left = Math.max(client.name.length, ...ends.map(([c]) => c.length));
  const right = Math.max(...ends.map(([, n]) => n.length));
  const wire = ' ═══ ';
  const lines = [`${client.name.padEnd(left)}${wire}${`eth0 ${node.name}`.padEnd(right)}  ${node.bridge}`];
  for (const [c, n, gateway] of ends) lines.push(`${c.padEnd(left)}     ${n.padEnd(right)}  ${gateway}`);
  const indent = ' '.repeat(left + wire.length + right + 2);
  for (const [i, pod] of pods.entries()) {
    const corner = i === pods.length - 1 ? '╚' : '╠';
    lines.push(`${indent}${corner}═ ${pod.name}  ${families.map((f) => addressOf(pod, f)).join('  ')}`);
  }
  return lines;
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** Rows of `kubectl get services`, with the first address of each kind. */
function serviceRow(service: KubeObject): string[] {
  const spec: JsonObject = service.spec ?? {};
  const balancer = service.status?.['loadBalancer'];
  const ingress = list(isJsonObject(balancer) ? balancer['ingress'] : undefined);
  const external =
    spec['type'] === 'ExternalName' ? [spec['externalName']] : ingress.map((i) => isJsonObject(i) && i['ip']);
  const ports = list(spec['ports']).map((p) =>
    isJsonObject(p) ? `${p['port']}${p['nodePort'] ? `:${p['nodePort']}` : ''}/${p['protocol']}` : '?',
  );
  const orNone = (texts: readonly unknown[]) => texts.join(',') || '<none>';
  return [
    service.metadata.name,
    String(spec['type']),
    orNone(list(spec['clusterIPs'])),
    orNone(external),
    orNone(ports),
  ];
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = rows.reduce<number[]>((w, row) => row.map((cell, i) => Math.max(w[i] ?? 0, cell.length)), []);
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('   ')
      .trimEnd(),
  );
}

function describeOutcome({ outcome, answer, path }: ToldRequest, paint: Paint): string {
  switch (outcome.kind) {
    case 'answered':
      if (!answer) return paint('yellow', `${outcome.status}, not from a pod`);
      return [
        paint('green', `${outcome.status} from ${answer.pod}`),
        ` (${answer.address}), which saw ${answer.client}`,
        path?.masqueraded ? ' (masqueraded)' : '',
      ].join('');
    case 'refused':
      return paint('yellow', `refused (${outcome.code})`);
    case 'failed':
      return paint('red', `failed (${outcome.code})`);
    case 'timeout':
      return paint('red', 'no answer');
    default:
      return assertNever(outcome, 'an outcome');
  }
}

/** A chain the kernel calls, of iptables or of ours in nftables mode. */
function isHook(chain: string): boolean {
  return /^(?:[A-Z]+|(?:nat|filter)-(?:prerouting|output|input|forward|postrouting).*)$/.test(chain);
}

function describeChains(path: Path, paint: Paint): string {
  const ours = path.chains.map((c) => (isHook(c) ? c : paint('cyan', c)));
  const end = path.verdict ? paint('yellow', path.verdict) : path.destination && paint('green', path.destination);
  return [...ours, ...(end ? [end] : [])].join(' → ');
}

/** The rules of the table that decided, without the jump from the chain of the hook. */
function describeRules(path: Path, paint: Paint): string[] {
  const table = path.verdict === undefined ? 'nat' : 'filter';
  const steps = path.steps.filter((s) => s.table === table && !isHook(s.chain));
  return steps.map((s) => `${paint('cyan', s.chain)} ${paint('dim', s.rule)}`);
}

/**
 * Text, as the demonstration goes.
 *
 * @param colours False: plain text, for a pipe.
 */
export function textReporter(write: (text: string) => void, colours: boolean): Reporter {
  const paint: Paint = (style, text) => (colours ? styleText(style, text, { validateStream: false }) : text);
  const lines = (texts: readonly string[], indent: string) => {
    for (const text of texts) write(`${indent}${text}\n`);
  };
  return (event) => {
    switch (event.kind) {
      case 'lab':
        write(`${paint('bold', 'A node, its pods and a client')}, in namespaces of their own (${event.ms} ms)\n\n`);
        return lines(drawTopology(event.topology), '  ');
      case 'chapter':
        write(`\n${paint('bold', event.title)}\n`);
        return lines(event.about.split('\n'), '  ');
      case 'services':
        write('\n');
        lines(
          table([['NAME', 'TYPE', 'CLUSTER-IP', 'EXTERNAL-IP', 'PORT(S)'], ...event.services.map(serviceRow)]),
          '  ',
        );
        return;
      case 'request': {
        const { from, to, outcome, path } = event.request;
        write(`\n  ${paint('bold', `${from} → ${to}`)}: ${describeOutcome(event.request, paint)}`);
        write(` ${paint('dim', `${outcome.ms} ms`)}\n`);
        if (!path) return;
        if (path.chains.length > 0) lines([describeChains(path, paint)], '    ');
        if (event.rules) lines(describeRules(path, paint), '      ');
        return;
      }
      case 'note':
        return lines(event.text.split('\n'), '  ');
      case 'check':
        write(`  ${event.ok ? paint('green', '✓') : paint('red', '✗')} ${event.name}`);
        return write(event.ok ? '\n' : `: ${paint('red', event.got)}\n`);
      case 'end': {
        const seconds = (event.ms / 1000).toFixed(1);
        const verdict = `${event.passed} checks passed, ${event.failed} failed`;
        return write(
          `\n${paint(event.failed === 0 ? 'green' : 'red', verdict)}, everything cleaned up, ${seconds} s\n`,
        );
      }
      default:
        return assertNever(event, 'an event');
    }
  };
}

/** One JSON document: `{ok, ms, checks, requests}`, written at the end. */
export function jsonReporter(write: (text: string) => void): Reporter {
  const checks: Omit<Extract<DemoEvent, { kind: 'check' }>, 'kind'>[] = [];
  const requests: ToldRequest[] = [];
  return (event) => {
    if (event.kind === 'check') checks.push({ name: event.name, ok: event.ok, got: event.got });
    else if (event.kind === 'request') requests.push(event.request);
    else if (event.kind === 'end') {
      write(`${JSON.stringify({ ok: event.failed === 0, ms: event.ms, checks, requests }, undefined, 2)}\n`);
    }
  };
}
