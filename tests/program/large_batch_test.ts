/**
 * Batches that are too large for the database are stored in parts.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
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
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

/** Runs statements after each insert; in them, `rows` is the number of inserted rows. */
async function afterInserts(database: TestDatabase, statements: string): Promise<void> {
  await database.query(`
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
      DECLARE rows int := (SELECT count(*) FROM inserted);
      BEGIN ${statements} RETURN NULL; END $$;
    CREATE TRIGGER look AFTER INSERT ON sensor_data
      REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION look()`);
}

Deno.test("run stores a batch in parts if it exceeds a limit of the database", async () => {
  const database = await postgres.createDatabase();
  // TimescaleDB does this when an insert would have to read too many rows of compressed chunks.
  await afterInserts(
    database,
    `IF rows > 10 THEN RAISE 'limit exceeded' USING ERRCODE = '53400'; END IF;`,
  );
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 500 });
  await publishReadings(broker, readings, { qos: 1 });
  await using logger = startLogger(loggerEnv({ database, broker }));
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  assert.deepEqual(linesOf(logger, "ERROR"), []);
});

Deno.test("run splits a batch whose insert takes too long", async () => {
  const database = await postgres.createDatabase();
  await afterInserts(database, "PERFORM pg_sleep(rows * 0.005);");
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 500 });
  await publishReadings(broker, readings, { qos: 1 });
  await using logger = startLogger(
    loggerEnv({ database, broker }, tune({ statementTimeoutMs: 1_000 })),
  );
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  const canceled = /canceling statement due to statement timeout/;
  assert.ok(
    linesOf(logger, "ERROR").some((line) => canceled.test(line)),
    "no insert took too long",
  );
});

Deno.test("run stores the readings of a sensor that is registered twice once", async () => {
  const database = await postgres.createDatabase();
  const [sensor] = SENSORS;
  assert.ok(sensor);
  await database.query("ALTER TABLE sensors DROP CONSTRAINT sensors_uuid_sensor_sid_key");
  // The first entry, from `createDatabase`, is enabled as well.
  for (const enabled of [false, true]) {
    await database.query(
      `INSERT INTO sensors (uuid, sensor_sid, enabled)
       VALUES ('${sensor.uuid}', ${sensor.sid}, ${enabled})`,
    );
  }
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 20, sensors: [sensor] });
  await using logger = startLogger(loggerEnv({ database, broker }));
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  const { stored, duplicates, disabled } = await stopCleanly(logger);
  assert.deepEqual([stored, duplicates, disabled], [20, 0, 0]);
  assert.equal(await database.countReadings(), 20);
  const rows = await database.query<{ sensors: number }>(
    "SELECT count(DISTINCT sensor_id)::int AS sensors FROM sensor_data",
  );
  assert.equal(rows[0]?.sensors, 1);
});

Deno.test("run logs every unknown sensor once, ten per interval", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(
    loggerEnv({ database, broker }, tune({ floodIntervalMs: 500 })),
  );
  const sensors = Array.from({ length: 25 }, () => ({ uuid: crypto.randomUUID(), sid: 0 }));
  const logged = (): string[] =>
    linesOf(logger, "WARNING").flatMap((line) => /^Sensor (\S+) sid 0/.exec(line)?.[1] ?? []);
  for (let round = 0n; new Set(logged()).size < sensors.length; round++) {
    assert.ok(round < 300n, `${logged().length} sensors were logged`);
    const startTimeUs = 1_700_000_000_000_000n + round * 1_000_000_000n;
    const readings = makeReadings({ count: sensors.length, sensors, startTimeUs });
    await publishReadings(broker, readings, { qos: 1 });
  }
  await stopCleanly(logger);
  assert.deepEqual(logged().sort(), sensors.map(({ uuid }) => uuid).sort());
  onlyLine(logger, "WARNING", new RegExp(`INSERT INTO sensors .*'${sensors[7]?.uuid}'`));
});
