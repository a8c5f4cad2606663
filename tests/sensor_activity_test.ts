import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { MAX_SENSORS, SensorActivity } from "../lib/sensor_activity.ts";
import type { SensorStatus } from "../lib/status.ts";

const UUID = "c4ca4238a0b9438282dcc509a6f75849".slice(0, 32);
const NONE = { unknown: [], disabled: [], duplicates: 0, durationMs: 1 };

interface Said {
  readonly uuid?: string;
  readonly sid?: number;
  readonly value?: number | string | bigint;
  readonly timeMs: number;
  readonly payload?: string;
}

function note(
  activity: SensorActivity,
  said: readonly Said[],
  result: Partial<Record<"unknown" | "disabled", number[]>> = {},
): void {
  const batch = said.map(({ uuid = UUID, sid = 0, value = 1, timeMs, payload = "{}" }) => ({
    message: { payload: Buffer.from(payload) },
    reading: { uuid, sid, value, timeMicros: BigInt(timeMs) * 1000n },
  }));
  const timesMs = Float64Array.from(said, ({ timeMs }) => timeMs);
  activity.note(batch, { ...NONE, stored: said.length, ...result }, timesMs);
}

function only(activity: SensorActivity): SensorStatus {
  const [sensor, ...others] = activity.list();
  assert.ok(sensor);
  assert.equal(others.length, 0);
  return sensor;
}

Deno.test("the newest reading counts, in whatever order they come", () => {
  const activity = new SensorActivity();
  note(activity, [{ timeMs: 2_000, value: 2 }, { timeMs: 1_000, value: 1 }]);
  assert.deepEqual([only(activity).value, only(activity).timeMs], ["2", 2_000]);
  note(activity, [{ timeMs: 500, value: 0.5 }]);
  assert.deepEqual([only(activity).value, only(activity).timeMs], ["2", 2_000]);
  note(activity, [{ timeMs: 3_000, value: 12345678901234567890n }]);
  assert.equal(only(activity).value, "12345678901234567890");
});

Deno.test("the usual interval is known from the third one on, and outlives a pause", () => {
  const activity = new SensorActivity();
  const intervals = [];
  for (const timeMs of [0, 1_000, 2_000, 3_000, 63_000, 64_000]) {
    note(activity, [{ timeMs }]);
    intervals.push(only(activity).intervalMs);
  }
  assert.deepEqual(intervals, [null, null, null, 1_000, 1_000, 1_000]);
});

Deno.test("many readings between two looks give their mean interval and one recent value", () => {
  const activity = new SensorActivity();
  for (let second = 0; second < 5; second++) {
    note(
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

Deno.test("sixty recent values are kept, those that are no numbers as gaps", () => {
  const activity = new SensorActivity();
  for (let index = 0; index < 70; index++) {
    note(activity, [{ timeMs: index, value: index === 69 ? NaN : index }]);
    activity.digest();
  }
  const { recent, value } = only(activity);
  assert.equal(recent.length, 60);
  assert.deepEqual([recent[0], recent.at(-2), recent.at(-1), value], [10, 68, null, "NaN"]);
});

Deno.test("sensors of one device are told apart, and whether they are stored", () => {
  const activity = new SensorActivity();
  const said = [0, 1, 2].map((sid) => ({ sid, timeMs: 1, value: sid }));
  note(activity, said, { unknown: [1], disabled: [2] });
  assert.deepEqual(
    activity.list().map(({ sid, state, value }) => [sid, state, value]),
    [[0, "stored", "0"], [1, "unknown", "1"], [2, "disabled", "2"]],
  );
  note(activity, said);
  assert.ok(activity.list().every(({ state }) => state === "stored"));
});

Deno.test("changes are told once, new sensors and new labels in full", () => {
  const labels = new Map<number, string>();
  const activity = new SensorActivity((_uuid, sid) => labels.get(sid));
  note(activity, [{ timeMs: 1 }]);
  activity.digest();
  const first = activity.takeChanges();
  assert.deepEqual([first.sensors.length, first.changes.length], [1, 0]);
  assert.deepEqual(activity.takeChanges(), { sensors: [], changes: [] });
  note(activity, [{ timeMs: 2, value: 7 }]);
  activity.digest();
  const { changes: [change] } = activity.takeChanges();
  assert.deepEqual(change?.slice(0, 4), [0, "stored", "7", 2]);
  labels.set(0, "Oven");
  activity.label();
  assert.equal(activity.takeChanges().sensors[0]?.label, "Oven");
});

Deno.test("the unit is read from the first payload, and again after ten minutes", () => {
  const activity = new SensorActivity();
  const say = (unit: string, timeMs: number): void => {
    note(activity, [{ timeMs, payload: JSON.stringify({ unit }) }]);
    activity.digest(timeMs);
  };
  say("°C", 0);
  say("K", 599_000);
  assert.equal(only(activity).unit, "°C");
  say("K", 600_000);
  assert.equal(only(activity).unit, "K");
  note(activity, [{ timeMs: 1, payload: '{"value": NaN}', sid: 1 }]);
  assert.equal(activity.list()[1]?.unit, "");
});

Deno.test("a flood of invented sensors is counted and not kept", () => {
  const activity = new SensorActivity();
  note(activity, Array.from({ length: MAX_SENSORS + 20 }, (_, sid) => ({ sid, timeMs: 1 })));
  note(activity, [{ sid: MAX_SENSORS + 1, timeMs: 2 }]);
  assert.deepEqual([activity.size, activity.leftOut], [MAX_SENSORS, 20]);
});
