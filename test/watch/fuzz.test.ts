/**
 * Ten thousand broken Services and EndpointSlices through everything that reads them: each is refused by name or becomes
 * rules that the tool would read as they are meant. Nothing else may be thrown, and no text of theirs may become a rule.
 */
import t from 'tap';
import { FakeRuleset } from '../../src/iptables/fake.ts';
import { renderAll } from '../../src/modes/iptables/render.ts';
import { Model } from '../../src/proxier/model.ts';
import { FAMILIES, type InvalidObject, type WatchEvent } from '../../src/proxier/types.ts';
import { Decoder } from '../../src/watch/decode.ts';
import { Deliveries } from '../../src/watch/deliveries.ts';
import { makeFacts, makeOptions } from '../lib/iptables-world.ts';
import { type Fields, liveService, liveSlice, NODE } from '../lib/live-objects.ts';
import { mutated } from '../lib/mutate.ts';
import { Seeded, seedOfRun } from '../lib/seeded.ts';

const OBJECTS = 10_000;

/** One line of what iptables-restore is given. Of what an object says, only names, addresses and numbers are in it. */
const LINE =
  /^(?:\*(?:filter|nat)|:[A-Z0-9-]+ - \[0:0\]|COMMIT|-[AI] [A-Z]+[A-Z0-9-]*(?: (?:[\w./:,!=-]+|\[[0-9a-f:.]+\]:\d+|"[\w ./:;()>[\]-]*"))+)$/;

function versioned(object: Fields, version: number, fields: Fields = {}): Fields {
  const metadata = { ...(object['metadata'] as Fields), uid: `uid-${version}`, resourceVersion: String(version) };
  return { ...object, ...fields, metadata };
}

t.test('broken objects', async (t) => {
  const seed = seedOfRun();
  t.comment(`SWITCHYARD_SEED=${seed}`);
  const chance = new Seeded(seed);
  let decoded = 0;
  let wrong = 0;
  const rules: string[] = [];
  const invalid: InvalidObject[] = [];
  const models = FAMILIES.map(
    (family) => new Model({ family, nodeName: NODE, externalIPsAllowed: true, startMs: 0, onUnparsable: () => {} }),
  );
  const deliver = (event: WatchEvent) => {
    for (const model of models) {
      if (event.type === 'upsert' && event.object.kind === 'Service') model.upsertService(event.object);
      if (event.type === 'upsert' && event.object.kind === 'EndpointSlice') model.upsertSlice(event.object);
      if (event.type === 'delete' && event.kind === 'Service') model.deleteService(event.key);
      if (event.type === 'delete' && event.kind === 'EndpointSlice') model.deleteSlice(event.key);
    }
    if (event.type === 'upsert') decoded++;
  };
  const decoder = new Decoder();
  const handlers = { onEvent: deliver, onInvalid: (report: InvalidObject) => void invalid.push(report) };
  const services = new Deliveries('Service', decoder, handlers);
  const slices = new Deliveries('EndpointSlice', decoder, handlers);
  for (let i = 1; i <= OBJECTS; i++) {
    const service = versioned(liveService(i % 1000, i % 4), i);
    const slice = versioned(liveSlice(i % 1000, 2), i);
    // A broken one beside a good partner: two broken ones would hardly ever lead to a rule.
    services.upsert(i % 2 === 0 ? mutated(service, chance) : service);
    slices.upsert(i % 2 === 0 ? slice : mutated(slice, chance));
    for (const [at, family] of FAMILIES.entries()) {
      const model = models[at];
      const changed = model?.takeChanges().changedServices ?? [];
      const plans = [...changed].flatMap((key) => model?.services.get(key) ?? []);
      if (plans.length === 0) continue;
      const text = renderAll(plans, makeOptions({ family }), makeFacts(), { comments: true, jumps: true });
      for (const line of text.trimEnd().split('\n')) {
        if (LINE.test(line)) continue;
        if (++wrong < 5) t.fail(`no line to be given to a tool: ${JSON.stringify(line)}`);
      }
      if (i % 10 === 0) rules.push(text);
      if (i % 10 === 0) new FakeRuleset(family).restore(text);
    }
  }
  t.equal(wrong, 0, 'every line has the form of a line');
  t.ok(decoded - OBJECTS > OBJECTS / 20, `many are only unusual: ${decoded - OBJECTS}`);
  t.ok(invalid.length > OBJECTS / 10, `many are refused: ${invalid.length}`);
  t.ok(rules.length > 100, 'rules were tried');
  t.ok(
    invalid.every(({ message }) => message.length < 500),
    'no report is longer than a line',
  );
  t.notOk(
    invalid.some(({ key, field, message }) => /[\p{Cc}\p{Cf}\p{Cs}]/u.test(`${key} ${field} ${message}`)),
    'nor has it what a terminal would obey or hide',
  );
});
