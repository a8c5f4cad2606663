/**
 * Tables of different laboratories: values that their columns hold, and values that they refuse.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
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

const DIGITS = "0.1000000000000000055511151231257827";
const LARGE = "123456789012345678901234567890";

/** By type: published values with their text in the column, and values that it cannot hold. */
const COLUMNS: Readonly<Record<string, { stored: Record<string, string>; rejected: string[] }>> = {
  "numeric": {
    stored: {
      [DIGITS]: DIGITS,
      [LARGE]: LARGE,
      "1.50": "1.50",
      "-1e-20": "-0.00000000000000000001",
      "1E+3": "1000",
      "NaN": "NaN",
      "true": "1",
    },
    rejected: ["1e200000", "null"],
  },
  "numeric(6,2)": {
    stored: { "1234.567": "1234.57", "-0.004": "0.00" },
    rejected: ["12345.6", "1e4", "Infinity"],
  },
  "double precision": {
    stored: {
      [DIGITS]: "0.1",
      "5e-324": "5e-324",
      "1.7976931348623157e308": "1.7976931348623157e+308",
      "-0.0": "-0",
      "-Infinity": "-Infinity",
      "NaN": "NaN",
      "false": "0",
    },
    rejected: ["1e309"],
  },
  "real": {
    stored: { "0.1": "0.1", "16777217": "1.6777216e+07", "NaN": "NaN", "Infinity": "Infinity" },
    rejected: ["1e39", "-3.5e38"],
  },
  "integer": {
    stored: { "2147483647": "2147483647", "-2147483648": "-2147483648", "1e3": "1000", "7.0": "7" },
    rejected: ["2147483648", "0.5", "NaN", "Infinity", LARGE],
  },
  "bigint": {
    stored: {
      "9223372036854775807": "9223372036854775807",
      "9007199254740993": "9007199254740993",
      "-9223372036854775808": "-9223372036854775808",
    },
    rejected: ["9223372036854775808", "1e19", "NaN"],
  },
  "smallint": {
    stored: { "32767": "32767", "-32768": "-32768", "true": "1" },
    rejected: ["32768", "1e5"],
  },
};

for (const [type, { stored, rejected }] of Object.entries(COLUMNS)) {
  Deno.test(`a ${type} column gets every digit that it can hold, and rejects other values`, async () => {
    const database = await postgres.createDatabase({ valueType: type });
    await using broker = await startBroker();
    await createSession(broker);
    await using logger = startLogger(loggerEnv({ database, broker }));
    const values = [...Object.keys(stored), ...rejected];
    await publishPayloads(broker, values.map((value, index) => payload(index, value)));
    for (const value of rejected) {
      await logger.waitForLine(new RegExp(`Rejected a message .*"value": ${escape(value)}}`));
    }
    await waitForRows(database, Object.keys(stored).length);
    assert.deepEqual(await readValues(database), Object.values(stored));
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.stored, counts.rejected], [
      Object.keys(stored).length,
      rejected.length,
    ]);
    assert.deepEqual(linesOf(logger, "ERROR"), []);
  });
}

Deno.test("only the rows that the database refuses are rejected, the rest of the batch is stored", async (t) => {
  const refusals = {
    "too large for the column": {
      valueType: "numeric(6,2)",
      sql: "SELECT 1",
      reason: /the database rejected the reading: numeric field overflow/,
    },
    "against a CHECK constraint": {
      valueType: "double precision",
      sql: "ALTER TABLE sensor_data ADD CONSTRAINT plausible CHECK (value < 10000)",
      reason: /the database rejected the reading: .*violates check constraint "plausible"/,
    },
    "refused by a trigger": {
      valueType: "double precision",
      sql: `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'the value is implausible'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON sensor_data FOR EACH ROW
          WHEN (NEW.value >= 10000) EXECUTE FUNCTION refuse()`,
      reason: /the database rejected the reading: the value is implausible/,
    },
  };
  for (const [name, { valueType, sql, reason }] of Object.entries(refusals)) {
    await t.step(name, async () => {
      const database = await postgres.createDatabase({ valueType });
      await database.query(sql);
      await using broker = await startBroker();
      await createSession(broker);
      const bad = [50, 51, 170];
      const readings = makeReadings({ count: 200 }).map((reading, index) => ({
        ...reading,
        value: bad.includes(index) ? 54321 : index / 4,
      }));
      await publishReadings(broker, readings);
      const from = postgres.server.logLines.length;
      await using logger = startLogger(loggerEnv({ database, broker }));
      const good = readings.filter(({ value }) => value !== 54321);
      await waitForRows(database, good.length);
      await logger.waitForLine(reason);
      await expectStored(database, good);
      const counts = await stopCleanly(logger);
      assert.deepEqual([counts.stored, counts.rejected], [good.length, bad.length]);
      assert.equal(linesOf(logger, "WARNING").filter((line) => reason.test(line)).length, 3);
      assert.deepEqual(linesOf(logger, "ERROR"), []);
      // More refusals than bad rows: the bad rows were in batches with others.
      const refused = postgres.server.logLines.slice(from).filter((line) =>
        line.includes("ERROR:")
      );
      assert.ok(refused.length > bad.length, `${refused.length} statements were refused`);
    });
  }
});

Deno.test("a repeated reading is counted as a duplicate and not stored again", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 100 });
  const changed = readings.map((reading) => ({ ...reading, value: 1 }));
  await using logger = startLogger(loggerEnv({ database, broker }));
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  // Twice in one batch, and once more later.
  const last = makeReadings({ count: 101 }).slice(100);
  await publishReadings(broker, [...changed, ...readings, ...last]);
  await waitForRows(database, readings.length + 1);
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.duplicates], [101, 200]);
  await expectStored(database, [...readings, ...last]);
  assert.deepEqual(linesOf(logger, "WARNING"), []);
});

Deno.test("run warns once of a table without the unique key, and stores readings in it", async () => {
  const database = await postgres.createDatabase({ uniqueKey: false });
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 100 });
  await publishReadings(broker, readings);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.ok(await database.terminateLogger() > 0);
  await publishReadings(broker, readings);
  await waitForRows(database, 2 * readings.length);
  await stopCleanly(logger);
  assert.match(
    onlyLine(logger, "WARNING", /./),
    /no unique key .*ALTER TABLE sensor_data ADD UNIQUE/,
  );
});

function payload(index: number, value: string): string {
  const { uuid, sid } = SENSORS[0] ?? { uuid: "", sid: 0 };
  return `{"timestamp": ${
    1_700_000_000 + index
  }, "uuid": "${uuid}", "sid": ${sid}, "value": ${value}}`;
}

async function readValues(database: TestDatabase): Promise<string[]> {
  const rows = await database.query<{ value: string }>(
    "SELECT value::text FROM sensor_data ORDER BY time",
  );
  return rows.map(({ value }) => value);
}

function escape(text: string): string {
  return text.replaceAll(/[.+]/g, "\\$&");
}
