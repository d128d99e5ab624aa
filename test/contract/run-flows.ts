/**
 * Sends the packets of a flow suite through a lab and compares what comes of them with the table.
 *
 * @module
 */

import type { Test } from 'tap';
import type { JsonObject, KubeObject } from '../../src/lab/api/object.ts';
import type { Lab, Target } from '../../src/lab/lab.ts';
import type { RequestOutcome } from '../../src/lab/protocol.ts';
import { decodePodAnswer } from '../../src/lab/request.ts';
import { addressOf, withoutPrefix } from '../../src/lab/topology.ts';
import type { ModeName } from '../../src/modes/mode.ts';
import type { Family } from '../../src/proxier/types.ts';
import { realClock } from '../../src/sys/clock.ts';
import { type Endpoints, type Flow, type FlowCase, type FlowSuite, PODS, type Pod, type Source } from './flow.ts';
import {
  askSctp,
  clientAddresses,
  createFlowLab,
  type FlowRun,
  NODE_PROGRAM,
  senderOf,
  serveSctp,
} from './flow-lab.ts';
import { destination, serviceManifest, sliceManifests } from './manifests.ts';

/** An answer on this machine takes a millisecond; this is for a busy one. */
const ANSWER_MS = 5_000;
/**
 * "At once". IPv6: over a link without delay the ICMPv6 error arrives while connect() still holds the socket, and Linux
 * drops it; the second SYN, a second later, is the one that is refused.
 */
const REFUSED_WITHIN_MS: Readonly<Record<Family, number>> = { IPv4: 1_000, IPv6: 2_500 };
/** Long enough to tell it from a refusal. */
const SILENCE_MS: Readonly<Record<Family, number>> = { IPv4: 600, IPv6: 1_600 };

/** A pod that is wanted and not seen for this many connections was left out, but once in ten million rows. */
function enoughFor(pods: number): number {
  return pods <= 1 ? 3 : Math.ceil(Math.log(1e-7 / pods) / Math.log(1 - 1 / pods));
}

/** Enough to tell odds of a third from odds of a half. */
const EVEN_CONNECTIONS = 400;
/** Chi-square that an even split exceeds once in a million runs, by degrees of freedom. */
const CHI_SQUARE = [0, 23.93, 27.63, 30.66];

/** Connections of each client whose affinity is looked at. */
const STICKY_REQUESTS = 4;
/** Requests under way at a time; the rest of them waits. */
const AT_A_TIME = 24;

/** Lets `AT_A_TIME` of the tasks given to it run at once. */
function createGate(): <T>(task: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (task) => {
    if (running >= AT_A_TIME) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  };
}

/** `answered by a`, `refused` …: an outcome in the words of the table. */
function tell(outcome: RequestOutcome, pod: string | undefined): string {
  if (outcome.kind === 'answered') return `answered by ${pod ?? `something that is no pod: ${outcome.text}`}`;
  return outcome.kind === 'failed' ? `failed (${outcome.code})` : outcome.kind;
}

/** How often each text is there: `3 times refused, 1 times answered by a`. */
function count(texts: readonly string[]): string {
  const counts = Map.groupBy(texts, (text) => text);
  return [...counts].map(([text, all]) => `${all.length} times ${text}`).join(', ');
}

/** Tells a flow from all others of its suite, in every stage. */
function flowKey(c: FlowCase, flow: Flow, family: Family): string {
  return [c.id, flow.from, flow.to, flow.over, flow.port, family].join();
}

/** The suite under way: one lab and what is remembered between stages. */
class FlowRunner {
  readonly #lab: Lab;
  readonly #gate = createGate();
  readonly #held = new Map<string, number>();
  /** Flow → what each client was answered, in the order of `clientAddresses`. */
  readonly #chosen = new Map<string, readonly (string | undefined)[]>();

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  /** Sends a flow in one family. @returns What is wrong, in words; nothing when all is as the table says. */
  async send(c: FlowCase, flow: Flow, family: Family): Promise<string[]> {
    const { want } = flow;
    switch (want.kind) {
      case 'answered':
        return await this.#expectAnswers(c, flow, family, want);
      case 'not captured': {
        const outcomes = await this.#ask(c, flow, family, 3, ANSWER_MS);
        const others = outcomes.filter((o) => decodePodAnswer(o)?.pod !== NODE_PROGRAM.name);
        return others.length === 0 ? [] : [count(others.map((o) => tell(o, this.#podOf(o))))];
      }
      case 'refused': {
        const limitMs = REFUSED_WITHIN_MS[family];
        const outcomes = await this.#ask(c, flow, family, 2, limitMs + 500);
        const bad = outcomes.filter((o) => o.kind !== 'refused' || o.ms > limitMs);
        return bad.map((o) => `${tell(o, this.#podOf(o))} after ${o.ms} ms`);
      }
      case 'silent': {
        const outcomes = await this.#ask(c, flow, family, 2, SILENCE_MS[family]);
        return outcomes.filter((o) => o.kind !== 'timeout').map((o) => tell(o, this.#podOf(o)));
      }
      case 'sticky':
        return await this.#expectSticky(c, flow, family, want);
      case 'held':
        return await this.#expectHeld(c, flow, family, want.by);
      case 'health':
        return await this.#expectHealth(c, flow, family, want);
    }
  }

  async #ask(
    c: FlowCase,
    flow: Flow,
    family: Family,
    connections: number,
    timeoutMs: number,
    from?: string,
  ): Promise<RequestOutcome[]> {
    const to = destination(c, flow, family, this.#lab.topology);
    const sender = senderOf(this.#lab, flow.from, family);
    const kind = flow.over ?? 'tcp';
    if (kind === 'sctp') {
      return await this.#gate(() => askSctp(sender.namespace, { ...to, timeoutMs }, connections));
    }
    const one = () => {
      const target: Target = { ...to, kind, timeoutMs };
      const source = from ?? sender.from;
      return this.#lab.request(sender.namespace, source === undefined ? target : { ...target, from: source });
    };
    return await Promise.all(Array.from({ length: connections }, () => this.#gate(one)));
  }

  #podOf(outcome: RequestOutcome): Pod | undefined {
    const name = decodePodAnswer(outcome)?.pod;
    return PODS[this.#lab.topology.pods.findIndex((host) => host.name === name)];
  }

  async #expectAnswers(
    c: FlowCase,
    flow: Flow,
    family: Family,
    want: Flow['want'] & { kind: 'answered' },
  ): Promise<string[]> {
    const connections = want.even ? EVEN_CONNECTIONS : enoughFor(want.by.length);
    // Where the first one gets no answer, the others would only wait, too.
    const first = await this.#ask(c, flow, family, 1, ANSWER_MS);
    if (first[0]?.kind === 'timeout') return ['timeout'];
    const outcomes = [...first, ...(await this.#ask(c, flow, family, connections - 1, ANSWER_MS))];
    const problems: string[] = [];
    const wrong = outcomes.filter((o) => !want.by.some((pod) => pod === this.#podOf(o)));
    if (wrong.length > 0) problems.push(count(wrong.map((o) => tell(o, this.#podOf(o)))));
    const counts = want.by.map((pod) => outcomes.filter((o) => this.#podOf(o) === pod).length);
    if (counts.includes(0)) problems.push(`answers of ${want.by.join(', ')}: ${counts.join(', ')}`);
    if (want.even) {
      const mean = connections / counts.length;
      const chiSquare = counts.reduce((sum, n) => sum + (n - mean) ** 2 / mean, 0);
      if (chiSquare > (CHI_SQUARE[counts.length - 1] ?? 0)) problems.push(`uneven: ${counts.join(', ')}`);
    }
    const answers = outcomes.flatMap((o) => decodePodAnswer(o) ?? []);
    if (flow.over !== 'sctp') {
      const port = want.port ?? 8080;
      const elsewhere = answers.filter((answer) => answer.port !== port);
      if (elsewhere.length > 0) problems.push(count(elsewhere.map((answer) => `at port ${answer.port}`)));
    }
    if (want.seen !== undefined) {
      const seen = this.#seenAs(want.seen, flow.from, family);
      const strange = answers.filter((answer) => answer.client !== seen);
      if (strange.length > 0) problems.push(`${count(strange.map((a) => `seen as ${a.client}`))}, not ${seen}`);
    }
    return problems;
  }

  /** The address a pod must see. */
  #seenAs(seen: 'itself' | 'node', source: Source, family: Family): string {
    const { topology } = this.#lab;
    if (seen === 'node') return withoutPrefix(topology.node.gateways[family]);
    const sender = senderOf(this.#lab, source, family);
    const host = topology.pods.find(({ name }) => name === sender.namespace.name) ?? topology.node;
    return sender.from ?? addressOf(host, family);
  }

  async #expectSticky(
    c: FlowCase,
    flow: Flow,
    family: Family,
    { by, asBefore, asAt }: Flow['want'] & { kind: 'sticky' },
  ): Promise<string[]> {
    const problems: string[] = [];
    const chosen = await Promise.all(
      clientAddresses(family).map(async (from) => {
        // One after the other: two first requests at the same moment are two clients that nobody knows.
        const [first] = await this.#ask(c, flow, family, 1, ANSWER_MS, from);
        if (first?.kind === 'timeout') return 'timeout';
        const rest = await this.#ask(c, flow, family, STICKY_REQUESTS - 1, ANSWER_MS, from);
        const all = [first, ...rest].flatMap((o) => (o ? tell(o, this.#podOf(o)) : []));
        if (new Set(all).size > 1) problems.push(`${from}: ${all.join(', ')}`);
        return all[0];
      }),
    );
    const key = flowKey(c, flow, family);
    const before = this.#chosen.get(key) ?? [];
    this.#chosen.set(key, chosen);
    // Chosen anew, every client has its old pod again once in sixteen million runs.
    if (asBefore !== undefined && chosen.every((text, i) => text === before[i]) !== asBefore) {
      problems.push(`before: ${before.join(', ')}; now: ${chosen.join(', ')}`);
    }
    if (asAt !== undefined) {
      const there = this.#chosen.get(flowKey(c, { ...flow, to: asAt }, family)) ?? [];
      if (chosen.some((text, i) => text !== there[i])) {
        problems.push(`at ${asAt}: ${there.join(', ')}; here: ${chosen.join(', ')}`);
      }
    }
    const want = by.map((pod) => `answered by ${pod}`);
    if (
      want.some((text) => !chosen.includes(text)) ||
      chosen.some((text) => text === undefined || !want.includes(text))
    ) {
      problems.push(`first: ${count(chosen.map((text) => text ?? 'nothing'))}; must be ${want.join(' and ')}`);
    }
    return problems;
  }

  async #expectHeld(c: FlowCase, flow: Flow, family: Family, by: Pod): Promise<string[]> {
    const { namespace, from } = senderOf(this.#lab, flow.from, family);
    const key = flowKey(c, flow, family);
    const id = this.#held.get(key);
    if (id !== undefined) {
      const said = await namespace.ask('say', { id, text: 'still there', timeoutMs: ANSWER_MS });
      return said.kind === 'line' && said.text === 'still there' ? [] : [JSON.stringify(said)];
    }
    const to = destination(c, flow, family, this.#lab.topology);
    const spec = { kind: 'tcp' as const, ...to, path: '/', timeoutMs: ANSWER_MS, from, fromPort: 0 };
    const opened = await namespace.ask('open', spec);
    this.#held.set(key, opened.id);
    const { greeting } = opened;
    const pod =
      greeting.kind === 'line' ? this.#podOf({ kind: 'answered', status: 200, text: greeting.text, ms: 0 }) : '';
    return pod === by ? [] : [JSON.stringify(greeting)];
  }

  async #expectHealth(
    c: FlowCase,
    flow: Flow,
    family: Family,
    want: Flow['want'] & { kind: 'health' },
  ): Promise<string[]> {
    const to = destination(c, flow, family, this.#lab.topology);
    const outcome = await this.#lab.request(this.#lab.client, { ...to, timeoutMs: ANSWER_MS });
    if (outcome.kind !== 'answered') return [tell(outcome, undefined)];
    const body: { localEndpoints?: number; service?: { name?: string } } = JSON.parse(outcome.text);
    const got = {
      status: outcome.status,
      localEndpoints: body.localEndpoints,
      weight: outcome.headers?.['x-load-balancing-endpoint-weight'],
      service: body.service?.name,
    };
    const must = {
      status: want.status,
      localEndpoints: want.localEndpoints,
      weight: String(want.localEndpoints),
      service: `flow-${c.id}`,
    };
    return JSON.stringify(got) === JSON.stringify(must) ? [] : [`${JSON.stringify(got)}, not ${JSON.stringify(must)}`];
  }
}

/** The objects of a case from one stage on: as the stage says, and where it says nothing as before. */
function objectsOf(lab: Lab, c: FlowCase, stage: number): KubeObject[] {
  let endpoints: Endpoints = {};
  let spec: JsonObject = {};
  for (const told of c.stages.slice(0, stage + 1)) {
    endpoints = told.endpoints ?? endpoints;
    spec = { ...spec, ...told.spec };
  }
  return [serviceManifest(c, spec, lab.topology), ...sliceManifests(c, endpoints, lab.topology)];
}

/** The flows of a stage, each with what must come of it in a mode. */
function flowsOf(c: FlowCase, stage: number, mode: ModeName): readonly Flow[] {
  const flows = c.stages[stage]?.flows ?? [];
  return flows.map((flow) => ({ ...flow, want: flow.otherwise?.[mode] ?? flow.want }));
}

/** Runs a suite in a lab of its own: each stage of all cases at once. */
export async function runSuite(t: Test, suite: FlowSuite, run: FlowRun): Promise<void> {
  await t.test(suite.name, async (t) => {
    await using lab = await createFlowLab(suite, run);
    const sctp = new Set(
      suite.cases.flatMap((c) => c.ports ?? []).flatMap((p) => (p.protocol === 'SCTP' ? p.targetPort : [])),
    );
    if (suite.cases.some((c) => c.stages.some((s) => s.flows.some((f) => f.over === 'sctp')))) {
      for (const port of sctp) await serveSctp(lab, port);
    }
    const runner = new FlowRunner(lab);
    const stages = Math.max(...suite.cases.map((c) => c.stages.length));
    for (let stage = 0; stage < stages; stage++) {
      const cases = suite.cases.filter((c) => stage < c.stages.length);
      lab.apply(cases.flatMap((c) => objectsOf(lab, c, stage)));
      await lab.settled(30_000);
      await realClock.sleep(Math.max(...cases.map((c) => c.stages[stage]?.afterMs ?? 0)));
      // All packets of the stage are on their way before the first result is looked at.
      const results = cases.map((c) => ({
        c,
        flows: flowsOf(c, stage, run.mode).flatMap((flow) =>
          lab.topology.families
            .filter((family) => (flow.family ?? family) === family)
            .map((family) => ({ flow, family, problems: runner.send(c, flow, family) })),
        ),
      }));
      for (const { c, flows } of results) {
        await t.test(`${c.name}, stage ${stage + 1}`, async (t) => {
          for (const { flow, family, problems } of flows) {
            const over = flow.port === undefined ? (flow.over ?? 'tcp') : `tcp port ${flow.port}`;
            const by = 'by' in flow.want ? ` by ${[flow.want.by].flat().join(', ')}` : '';
            const seen = flow.want.kind === 'answered' && flow.want.seen ? `, seen as ${flow.want.seen}` : '';
            const what = `${family}: ${flow.from} → ${flow.to} over ${over}: ${flow.want.kind}${by}${seen}`;
            t.same(await problems, [], what);
          }
        });
      }
    }
    t.ok(lab.proxy.running, 'the proxy still runs');
  });
}
