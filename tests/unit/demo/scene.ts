/** A view of the demo for the tests of its output. */
import type { SensorView, View } from "../../../demo/layout.ts";
import { createSensors } from "../../../demo/sensors.ts";

/** A view of the demo's sensors after some time, with other labels if given. */
export function makeView(labels?: readonly string[]): View {
  const sensors = createSensors().map((sensor): SensorView => ({
    label: sensor.label,
    value: sensor.format(sensor.measure(1_700_000_000)),
    unit: sensor.unit,
    ageSeconds: 12.3,
    rows: 1234,
  }));
  const [first] = sensors;
  const relabelled = labels?.map((label) => ({ ...first as SensorView, label }));
  const outcomes = { stored: 11106, duplicate: 0, unknown: 0, disabled: 0, rejected: 0 };
  return {
    elapsedSeconds: 1234.5,
    sensors: relabelled ?? sensors,
    published: 11106,
    // The screen reads nothing else of the statistics.
    statistics: { received: 11106, outcomes, waiting: 0 } as unknown as View["statistics"],
  };
}

/** An introduction like the one of the demo. */
export const INTRODUCTION = [
  "A simulated LabKraken node publishes, the Kraken logger stores. Ctrl-C ends it.",
  "Status page  http://127.0.0.1:38487/",
  "MQTT broker  127.0.0.1:40727  (embedded, MQTT 3.1.1)",
  '             mosquitto_sub -h 127.0.0.1 -p 40727 -v -t "sensors/#"',
  "Database     127.0.0.1:45811  (embedded, PostgreSQL 18.6, in memory)",
  "             psql -h 127.0.0.1 -p 45811 -U postgres postgres",
];
