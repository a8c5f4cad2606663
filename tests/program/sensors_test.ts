/**
 * Sensors that are not registered or not enabled, and become so while the logger runs.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  createSession,
  linesOf,
  onlyLine,
  SENSORS,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";

const postgres = usePostgres();

for (const state of ["registered", "enabled"] as const) {
  Deno.test(`a sensor that is not ${state} is logged once with the SQL that fixes it, which takes effect at once`, async () => {
    const database = await postgres.createDatabase();
    const sensor = { uuid: crypto.randomUUID(), sid: 7 };
    if (state === "enabled") await database.registerSensors([{ ...sensor, enabled: false }]);
    await using broker = await startBroker();
    await createSession(broker);
    await using logger = startLogger(loggerEnv({ database, broker }));
    const [before, known] = [
      makeReadings({ count: 50, sensors: [sensor] }),
      makeReadings({ count: 50 }),
    ];
    await publishReadings(
      broker,
      before.flatMap((reading, index) => [reading, ...known.slice(index, index + 1)]),
    );
    const line = await logger.waitForLine(`Sensor ${sensor.uuid} sid 7`);
    await waitForRows(database, known.length);
    await expectStored(database, known);

    const sql = /(INSERT INTO|UPDATE) .*;/.exec(line)?.[0];
    assert.ok(sql, line);
    assert.match(line, new RegExp(`topic 'sensors/test/${sensor.uuid}/7'.* not ${state}`));
    await database.query(sql);
    const after = makeReadings({ count: 50, sensors: [sensor], startTimeUs: 42n });
    await publishReadings(broker, after);
    await waitForRows(database, known.length + after.length);
    await expectStored(database, [...known, ...after]);

    const counts = await stopCleanly(logger);
    assert.equal(counts[state === "enabled" ? "disabled" : "unknown"], before.length);
    onlyLine(logger, "WARNING", new RegExp(sensor.uuid));
  });
}

Deno.test("a sensor disabled while running is no longer stored", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  const sensors = SENSORS.slice(0, 2);
  const readings = makeReadings({ count: 200, sensors });
  await publishReadings(broker, readings.slice(0, 100));
  await waitForRows(database, 100);
  await database.registerSensors(
    sensors.slice(0, 1).map((sensor) => ({ ...sensor, enabled: false })),
  );
  await publishReadings(broker, readings.slice(100));
  await waitForRows(database, 150);
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.disabled], [150, 50]);
  await expectStored(
    database,
    readings.filter((reading, index) => index < 100 || reading.uuid !== sensors[0]?.uuid),
  );
});

Deno.test("the same uuid with another sid is another sensor", async () => {
  const database = await postgres.createDatabase();
  const uuid = crypto.randomUUID();
  await database.registerSensors([{ uuid, sid: 1 }]);
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  const readings = makeReadings({ count: 20, sensors: [{ uuid, sid: 0 }, { uuid, sid: 1 }] });
  await publishReadings(broker, readings);
  await waitForRows(database, 10);
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.unknown], [10, 10]);
  await expectStored(database, readings.filter(({ sid }) => sid === 1));
});

Deno.test("hundreds of unknown sensors do not flood the log, and the known ones are stored", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const unknown = Array.from({ length: 300 }, () => ({ uuid: crypto.randomUUID(), sid: 0 }));
  await publishReadings(broker, makeReadings({ count: 900, sensors: unknown }), { qos: 1 });
  const known = makeReadings({ count: 100 });
  await publishReadings(broker, known);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await waitForRows(database, known.length);
  await expectStored(database, known);
  assert.equal((await stopCleanly(logger)).unknown, 900);
  const warnings = linesOf(logger, "WARNING");
  assert.ok(warnings.length <= 20, `${warnings.length} warnings`);
  const written = warnings.filter((line) => line.startsWith("Sensor ")).length;
  const suppressed = warnings.map((line) =>
    /^Suppressed (\d+) more warnings? about sensors/.exec(line)?.[1] ?? "0"
  );
  assert.equal(suppressed.reduce((sum, count) => sum + Number(count), written), unknown.length);
});
