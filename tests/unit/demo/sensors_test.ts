/** The sensors of the demo. */
import assert from "node:assert/strict";
import { createSensors, topicOf } from "../../../demo/sensors.ts";

Deno.test("demo's sensors have distinct topics and finite values that fit into the table", () => {
  const sensors = [...createSensors(), ...createSensors()];
  assert.equal(new Set(sensors.map(topicOf)).size, sensors.length);
  for (const { measure, format, label } of sensors) {
    for (let second = 0; second < 1_000; second++) {
      const value = measure(1_700_000_000 + second);
      assert.ok(Number.isFinite(value) && format(value).length <= 12, `${label}: ${value}`);
    }
  }
});
