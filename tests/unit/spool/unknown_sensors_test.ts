/** Unregistered sensors that publish: counted in memory, written at intervals. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { SpoolError } from "../../../lib/spool/errors.ts";
import { SpoolFile } from "../../../lib/spool/file.ts";
import { type Sighting, UnknownSensors } from "../../../lib/spool/unknown_sensors.ts";
import { refuseWrites, TemporarySpool } from "../../support/temporary_spool.ts";

const MAX_SENSORS = 10_000;

function sighting(uuid: string, { sid = 0, topic = "t", payload = "{}" } = {}): Sighting {
  return { uuid, sid, topic, payload: Buffer.from(payload) };
}

/** The listed sensors, each as `uuid sid count topic value unit`. */
function list(sensors: UnknownSensors): string[] {
  return sensors.list().map(({ uuid, sid, count, topic, value, unit }) =>
    [uuid, sid, count, topic, value, unit].join(" ").trim()
  ).toSorted();
}

Deno.test("readings are counted by sensor, and the last one is kept", () => {
  using temporary = new TemporarySpool();
  const sensors = new UnknownSensors(temporary.open());
  sensors.add(sighting("a", { payload: '{"value": 1, "unit": "K"}' }));
  sensors.add(sighting("a", { sid: 1, payload: '{"value": 7}' }));
  sensors.add(sighting("b"));
  sensors.add(sighting("a", { topic: "u", payload: '{"unit": "°C", "value": 21.5}' }));
  assert.deepEqual(list(sensors), []);
  sensors.flush();
  assert.deepEqual(list(sensors), ["a 0 2 u 21.5 °C", "a 1 1 t 7", "b 0 1 t"]);
});

Deno.test("later readings add to the counts in the file, across starts", () => {
  using temporary = new TemporarySpool();
  const before = Date.now();
  for (let start = 0; start < 3; start++) {
    const spoolFile = temporary.open();
    const sensors = new UnknownSensors(spoolFile);
    for (let count = 0; count < 5; count++) sensors.add(sighting("a"));
    sensors.flush();
    sensors.flush();
    if (start === 0) spoolFile.run("UPDATE unknown_sensor SET first_ms = 5, last_ms = 6");
  }
  const [sensor, ...more] = new UnknownSensors(temporary.open()).list();
  assert.deepEqual(more, []);
  assert.deepEqual([sensor?.count, sensor?.firstMs], [15, 5]);
  assert.ok((sensor?.lastMs ?? 0) >= before);
});

Deno.test("sensors seen last are listed first", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const sensors = new UnknownSensors(spoolFile);
  for (const uuid of ["c", "a", "b", "d"]) sensors.add(sighting(uuid));
  sensors.flush();
  spoolFile.run("UPDATE unknown_sensor SET last_ms = 1");
  spoolFile.run("UPDATE unknown_sensor SET last_ms = 2 WHERE uuid = 'd'");
  assert.deepEqual(sensors.list().map(({ uuid }) => uuid).join(""), "dabc");
});

Deno.test("any valid reading can be listed", () => {
  const payloads: [string, string][] = [
    ['{"value": NaN, "unit": "V"}', "NaN V"],
    ['{"value":-Infinity}', "-Infinity"],
    ['{"value": true}', "true"],
    ['{"value": "1"}', "1"],
    ['{"value": 1, "unit": null}', "1"],
    ['{"value": 1, "unit": 5}', "1 5"],
    [`{"value": 1, "unit": "${"x".repeat(1_000)}"}`, `1 ${"x".repeat(60)}`],
    ["not JSON", ""],
  ];
  for (const [payload, shown] of payloads) {
    using temporary = new TemporarySpool();
    const sensors = new UnknownSensors(temporary.open());
    sensors.add(sighting("a", { payload }));
    sensors.flush();
    assert.deepEqual(list(sensors), [`a 0 1 t ${shown}`.trim()]);
  }
});

Deno.test("sensors with any unit can be written", () => {
  const units = [
    '{"toString": 1}',
    '{"toString": 1, "valueOf": 2}',
    "[[{}]]",
    '{"__proto__": null}',
  ];
  for (const unit of units) {
    using temporary = new TemporarySpool();
    const sensors = new UnknownSensors(temporary.open());
    sensors.add(sighting("a", { payload: `{"value": 1, "unit": ${unit}}` }));
    sensors.add(sighting("b", { payload: '{"value": 2}' }));
    sensors.flush();
    assert.deepEqual(sensors.list().map(({ uuid }) => uuid).toSorted(), ["a", "b"], unit);
  }
});

Deno.test("the payload may change after it was recorded", () => {
  using temporary = new TemporarySpool();
  const sensors = new UnknownSensors(temporary.open());
  const noted = sighting("a", { payload: '{"value": 1}' });
  sensors.add(noted);
  noted.payload.fill(0);
  sensors.flush();
  assert.deepEqual(list(sensors), ["a 0 1 t 1"]);
});

Deno.test("a failed flush is repeated by the next one, and counted once", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const sensors = new UnknownSensors(spoolFile);
  sensors.add(sighting("a"));
  refuseWrites(spoolFile, true);
  assert.throws(() => sensors.flush(), SpoolError);
  sensors.add(sighting("a"));
  refuseWrites(spoolFile, false);
  sensors.flush();
  assert.deepEqual(list(sensors), ["a 0 2 t"]);
});

Deno.test("the 10,000 sensors seen last are kept", () => {
  using temporary = new TemporarySpool();
  const spoolFile = temporary.open();
  const sensors = new UnknownSensors(spoolFile);
  for (let sid = 0; sid <= MAX_SENSORS; sid++) sensors.add(sighting("a", { sid }));
  sensors.flush();
  assert.equal(sensors.list().length, MAX_SENSORS);
  spoolFile.run("UPDATE unknown_sensor SET last_ms = sid");
  sensors.add(sighting("b"));
  sensors.flush();
  const { length } = sensors.list();
  assert.equal(length, MAX_SENSORS);
  assert.equal(sensors.list()[0]?.uuid, "b");
  assert.equal(sensors.list().at(-1)?.sid, 1);
});

Deno.test("registered sensors can be deleted, also while a logger runs", () => {
  using temporary = new TemporarySpool();
  const sensors = new UnknownSensors(temporary.open());
  for (const uuid of ["a", "b", "c"]) sensors.add(sighting(uuid));
  sensors.flush();
  using spoolFile = SpoolFile.attach(temporary.config);
  const beside = new UnknownSensors(spoolFile);
  assert.equal(beside.list().length, 3);
  beside.delete([{ uuid: "a", sid: 0 }, { uuid: "b", sid: 1 }]);
  assert.deepEqual(list(sensors), ["b 0 1 t", "c 0 1 t"]);
});
