import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  MAX_IN_STATE,
  MAX_KNOWN_SENSORS,
  SensorActivity,
} from "../../../lib/monitoring/sensor_activity.ts";
import type { SensorStatus } from "../../../lib/monitoring/status.ts";

const UUID = "c4ca4238a0b9438282dcc509a6f75849";
const HYPHENATED = "c4ca4238-a0b9-4382-82dc-c509a6f75849";
/** Later than all timestamps of the sensors. */
const NOW_MS = 1_000_000_000;

const NONE = { unknown: [], disabled: [], duplicates: 0, durationMs: 1 };

interface Said {
  readonly uuid?: string;
  readonly sid?: number;
  readonly value?: number | string | bigint;
  readonly timeMs: number;
  readonly payload?: string;
}

function record(
  activity: SensorActivity,
  said: readonly Said[],
  { nowMs = NOW_MS, ...result }: Partial<Record<"unknown" | "disabled", number[]>> & {
    readonly nowMs?: number;
  } = {},
): void {
  const batch = said.map(({ uuid = UUID, sid = 0, value = 1, timeMs, payload = "{}" }) => ({
    message: { payload: Buffer.from(payload) },
    reading: { uuid, sid, value, timeMicros: BigInt(timeMs) * 1000n },
  }));
  const timesMs = Float64Array.from(said, ({ timeMs }) => timeMs);
  activity.record(batch, { ...NONE, stored: said.length, ...result }, { nowMs, timesMs });
}

function only(activity: SensorActivity): SensorStatus {
  const [sensor, ...others] = activity.list();
  assert.ok(sensor);
  assert.equal(others.length, 0);
  return sensor;
}

Deno.test("the newest reading counts, in any order of arrival", () => {
  const activity = new SensorActivity();
  record(activity, [{ timeMs: 2_000, value: 2 }, { timeMs: 1_000, value: 1 }]);
  assert.deepEqual([only(activity).value, only(activity).timeMs], ["2", 2_000]);
  record(activity, [{ timeMs: 500, value: 0.5 }]);
  assert.deepEqual([only(activity).value, only(activity).timeMs], ["2", 2_000]);
  record(activity, [{ timeMs: 3_000, value: 12345678901234567890n }]);
  assert.equal(only(activity).value, "12345678901234567890");
});

Deno.test("the usual interval is known after three intervals, and survives a pause", () => {
  const activity = new SensorActivity();
  const intervals = [];
  for (const timeMs of [0, 1_000, 2_000, 3_000, 63_000, 64_000]) {
    record(activity, [{ timeMs }]);
    activity.digest();
    intervals.push(only(activity).intervalMs);
  }
  assert.deepEqual(intervals, [null, null, null, 1_000, 1_000, 1_000]);
});

Deno.test("many readings between two digests yield their mean interval and one recent value", () => {
  const activity = new SensorActivity();
  for (let second = 0; second < 5; second++) {
    record(
      activity,
      Array.from({ length: 10 }, (_, index) => ({
        timeMs: second * 1_000 + index * 100,
        value: second + index / 10,
      })),
    );
    activity.digest();
  }
  assert.equal(only(activity).intervalMs, 100);
  assert.deepEqual(only(activity).recent, [0.9, 1.9, 2.9, 3.9, 4.9]);
});

Deno.test("sixty recent values are kept, with null for NaN", () => {
  const activity = new SensorActivity();
  for (let index = 0; index < 70; index++) {
    record(activity, [{ timeMs: index, value: index === 69 ? NaN : index }]);
    activity.digest();
  }
  const { recent, value } = only(activity);
  assert.equal(recent.length, 60);
  assert.deepEqual([recent[0], recent.at(-2), recent.at(-1), value], [10, 68, null, "NaN"]);
});

Deno.test("sensors with the same uuid are separate, each with its state", () => {
  const activity = new SensorActivity();
  const said = [0, 1, 2].map((sid) => ({ sid, timeMs: 1, value: sid }));
  record(activity, said, { unknown: [1], disabled: [2] });
  assert.deepEqual(
    activity.list().map(({ sid, state, value }) => [sid, state, value]),
    [[0, "stored", "0"], [1, "unknown", "1"], [2, "disabled", "2"]],
  );
  record(activity, said);
  assert.ok(activity.list().every(({ state }) => state === "stored"));
});

Deno.test("changes are reported once, new sensors and new labels in full", () => {
  const activity = new SensorActivity();
  record(activity, [{ timeMs: 1 }]);
  const first = activity.takeChanges();
  assert.deepEqual([first.sensors.length, first.changes.length], [1, 0]);
  assert.deepEqual(activity.takeChanges(), { sensors: [], changes: [] });
  record(activity, [{ timeMs: 2, value: 7 }]);
  const { changes: [change] } = activity.takeChanges();
  assert.deepEqual(change?.slice(0, 4), [0, "stored", "7", 2]);
  activity.register([{ uuid: HYPHENATED, sid: 0, label: "Oven", enabled: true }]);
  assert.equal(activity.takeChanges().sensors[0]?.label, "Oven");
  activity.register([{ uuid: HYPHENATED, sid: 0, label: "Oven", enabled: true }]);
  assert.deepEqual(activity.takeChanges(), { sensors: [], changes: [] });
});

Deno.test("the unit is read from the first payload, and again after ten minutes", () => {
  const activity = new SensorActivity();
  const say = (unit: string, timeMs: number): void => {
    record(activity, [{ timeMs, payload: JSON.stringify({ unit }) }], { nowMs: timeMs });
  };
  say("°C", 0);
  say("K", 599_000);
  assert.equal(only(activity).unit, "°C");
  say("K", 600_000);
  assert.equal(only(activity).unit, "K");
  record(activity, [{ timeMs: 1, payload: '{"value": NaN}', sid: 1 }]);
  assert.equal(activity.list()[1]?.unit, "");
});

Deno.test("a flood of invented sensors is counted but not kept", () => {
  const activity = new SensorActivity();
  record(
    activity,
    Array.from({ length: MAX_KNOWN_SENSORS + 20 }, (_, sid) => ({ sid, timeMs: 1 })),
  );
  record(activity, [{ sid: MAX_KNOWN_SENSORS + 1, timeMs: 2 }]);
  assert.deepEqual([activity.size, activity.leftOut], [MAX_KNOWN_SENSORS, 20]);
  assert.equal(activity.storedCount, MAX_KNOWN_SENSORS + 20);
});

Deno.test("a reading from the future hides neither later readings nor the interval", () => {
  const activity = new SensorActivity();
  const say = (timeMs: number, value: number): void => {
    record(activity, [{ timeMs, value }], { nowMs: 10_000 });
    activity.digest();
  };
  for (const second of [1, 2, 3, 4]) say(second * 1_000, second);
  say(10_000_000, 5);
  assert.equal(only(activity).seenMs, 10_000);
  say(5_000, 6);
  assert.deepEqual([only(activity).value, only(activity).timeMs], ["6", 5_000]);
  say(4_500, 7);
  assert.equal(only(activity).value, "6");
  assert.equal(only(activity).intervalMs, 1_000);
});

Deno.test("old readings and duplicates do not shorten the usual interval", () => {
  const activity = new SensorActivity();
  for (let second = 1; second <= 20; second++) {
    const old = Array.from({ length: 500 }, (_, index) => ({ timeMs: -index * 1_000 }));
    record(activity, [...old, { timeMs: second * 1_000 }, { timeMs: second * 1_000 }]);
    activity.digest();
  }
  assert.equal(only(activity).intervalMs, 1_000);
});

Deno.test("of two readings with the same time the first counts, as in the table", () => {
  const activity = new SensorActivity();
  record(activity, [{ timeMs: 1, value: 1 }, { timeMs: 1, value: 2 }]);
  assert.equal(only(activity).value, "1");
});

Deno.test("sensors are separate in any order of publishing", () => {
  const activity = new SensorActivity();
  const order = [0, 1, 2, 0, 2, 1, 1, 3, 0, 3, 2, 1, 0];
  const last = new Map<string, string>();
  order.forEach((number, index) => {
    const uuid = `${number % 2}`.repeat(32);
    const sid = number >> 1;
    record(activity, [{ uuid, sid, timeMs: index + 1, value: index }]);
    last.set(`${uuid} ${sid}`, `${index}`);
  });
  assert.deepEqual(
    activity.list().map(({ uuid, sid, value }) => [`${uuid.replaceAll("-", "")} ${sid}`, value]),
    [...last],
  );
});

Deno.test("invented sensors leave room for registered ones", () => {
  const activity = new SensorActivity();
  const invented = Array.from({ length: MAX_KNOWN_SENSORS + 20 }, (_, sid) => ({ sid, timeMs: 1 }));
  record(activity, invented, { unknown: invented.map((_, index) => index) });
  const { unknown } = MAX_IN_STATE;
  assert.deepEqual([activity.size, activity.storedCount], [unknown, 0]);
  assert.equal(activity.leftOut, MAX_KNOWN_SENSORS + 20 - unknown);
  const stored = Array.from({ length: MAX_KNOWN_SENSORS - unknown }, (_, sid) => ({
    uuid: "0".repeat(32),
    sid,
    timeMs: 1,
  }));
  record(activity, stored);
  assert.equal(activity.storedCount, stored.length);
  assert.equal(activity.size, MAX_KNOWN_SENSORS);
  // Sensors that are registered later make room for other unknown ones.
  const other = new SensorActivity();
  record(other, invented.slice(0, unknown), { unknown: [...invented.slice(0, unknown).keys()] });
  record(other, invented.slice(0, 10));
  record(other, invented.slice(unknown, unknown + 20), { unknown: [...Array(20).keys()] });
  assert.deepEqual([other.size, other.leftOut], [unknown + 10, 10]);
});

Deno.test("an enabled sensor is silent until it publishes", () => {
  const activity = new SensorActivity();
  const row = { uuid: HYPHENATED, sid: 0, label: "Oven", enabled: true };
  activity.register([row, { ...row, sid: 1, enabled: false }]);
  const { state, value, timeMs, seenMs, label } = only(activity);
  assert.deepEqual([state, value, timeMs, seenMs, label], ["silent", "", null, null, "Oven"]);
  assert.deepEqual([activity.size, activity.storedCount], [0, 0]);
  activity.register([{ ...row, enabled: false }]);
  assert.equal(only(activity).state, "disabled");
  activity.register([row]);
  record(activity, [{ timeMs: 1 }]);
  assert.deepEqual([only(activity).state, only(activity).timeMs], ["stored", 1]);
  activity.register([{ ...row, enabled: false }]);
  assert.equal(only(activity).state, "stored", "until a reading of the sensor is refused");
  assert.equal(activity.size, 1);
});

Deno.test("the numbers of an update are rounded", () => {
  const activity = new SensorActivity();
  for (let second = 0; second < 5; second++) {
    const thirds = [0, 333, 667].map((ms) => ({ timeMs: second * 1_000 + ms, value: Math.PI }));
    record(activity, thirds);
    activity.digest();
  }
  const { recent, intervalMs } = only(activity);
  assert.deepEqual([recent[0], intervalMs], [3.141593, 333.3]);
});
