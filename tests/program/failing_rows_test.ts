/**
 * Valid rows that the database does not store: they are kept and retried, and no other row waits for
 * them, unless the cause is the whole table.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  linesOf,
  onlyLine,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

/** Refuses rows before 2020, as older versions of TimescaleDB do in compressed chunks. */
const REFUSE_OLD = `
  CREATE FUNCTION refuse_old() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.time < '2020-01-01' THEN RAISE 'not in this chunk' USING ERRCODE = '0A000'; END IF;
      RETURN NEW;
    END $$;
  CREATE TRIGGER refuse_old BEFORE INSERT ON sensor_data
    FOR EACH ROW EXECUTE FUNCTION refuse_old()`;

const OLD = makeReadings({ count: 3, startTimeUs: 1_500_000_000_000_000n });
const RECENT = makeReadings({ count: 300 });

Deno.test("a failing row delays no other row, and is stored when that is possible", async () => {
  const database = await postgres.createDatabase();
  await database.query(REFUSE_OLD);
  await using broker = await startBroker();
  await createSession(broker);
  await publishReadings(broker, [...OLD, ...RECENT], { qos: 1 });
  await using logger = startLogger(
    loggerEnv({ database, broker }, tune({ postponedRetryMs: 500 })),
  );
  await waitForRows(database, RECENT.length);
  await expectStored(database, RECENT);
  await logger.waitForLine(/A message on '.*' cannot be stored at present: not in this chunk/);
  await database.query("DROP TRIGGER refuse_old ON sensor_data");
  await waitForRows(database, OLD.length + RECENT.length);
  await expectStored(database, [...OLD, ...RECENT]);
  const { stored, rejected } = await stopCleanly(logger);
  assert.deepEqual([stored, rejected], [OLD.length + RECENT.length, 0]);
  assert.deepEqual(linesOf(logger, "ERROR"), []);
  // One line for each, however often it was retried.
  assert.equal(linesOf(logger, "WARNING").length, OLD.length);
});

Deno.test("a failing row is in the spool when the logger ends, and is stored after the next start", async () => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await database.query(REFUSE_OLD);
  await using broker = await startBroker();
  await createSession(broker);
  await publishReadings(broker, [...OLD, ...RECENT], { qos: 1 });
  const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
  {
    await using logger = startLogger(env);
    await waitForRows(database, RECENT.length);
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.stored, counts.spooled], [RECENT.length, OLD.length]);
  }
  await database.query("DROP TRIGGER refuse_old ON sensor_data");
  await using logger = startLogger(env);
  await waitForRows(database, OLD.length + RECENT.length);
  await expectStored(database, [...OLD, ...RECENT]);
  await stopCleanly(logger);
});

Deno.test("readings wait for a missing partition, and none is rejected", async () => {
  const database = await postgres.createDatabase();
  await database.query(`
    ALTER TABLE sensor_data RENAME TO sensor_data_old;
    CREATE TABLE sensor_data (LIKE sensor_data_old INCLUDING ALL) PARTITION BY RANGE (time);
    CREATE TABLE sensor_data_2022 PARTITION OF sensor_data
      FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
    GRANT SELECT, INSERT ON sensor_data TO PUBLIC`);
  await using broker = await startBroker();
  await createSession(broker);
  await publishReadings(broker, RECENT, { qos: 1 });
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine(/Database .* is not available: no partition of relation "sensor_data"/);
  await database.query(`
    CREATE TABLE sensor_data_2023 PARTITION OF sensor_data
      FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')`);
  await waitForRows(database, RECENT.length);
  await expectStored(database, RECENT);
  const { stored, rejected } = await stopCleanly(logger);
  assert.deepEqual([stored, rejected], [RECENT.length, 0]);
  onlyLine(logger, "ERROR", /no partition/);
});

Deno.test("a mandatory column that the logger does not fill counts as a problem of the table", async () => {
  const database = await postgres.createDatabase();
  await database.query(`
    ALTER TABLE sensor_data ADD COLUMN room text;
    ALTER TABLE sensor_data ADD CHECK (value < 1e300);
    ALTER TABLE sensor_data ALTER COLUMN room SET NOT NULL`);
  await using broker = await startBroker();
  await createSession(broker);
  const [first, ...others] = RECENT;
  assert.ok(first);
  // This error counts as a problem of the row.
  await publishReadings(broker, [{ ...first, value: 1e301 }, ...others], { qos: 1 });
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine(/Database .* is not available: null value in column "room"/);
  await database.query("ALTER TABLE sensor_data ALTER COLUMN room DROP NOT NULL");
  await waitForRows(database, others.length);
  await expectStored(database, others);
  const { stored, rejected } = await stopCleanly(logger);
  assert.deepEqual([stored, rejected], [others.length, 1]);
});
