/**
 * Databases that stop, crash, refuse and recover: all readings wait, and are stored once.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import { delay } from "../support/poll.ts";
import { LOGGER_PASSWORD, LOGGER_ROLE } from "../support/postgres_database.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  createSession,
  linesOf,
  onlyLine,
  stopCleanly,
  usePostgres,
  waitForBlockedInsert,
  waitForRows,
} from "../support/harness.ts";

const postgres = usePostgres();

/** Asserts that an outage of the database was logged in two lines, however many attempts failed. */
function expectOneOutage(logger: LoggerProcess): void {
  onlyLine(logger, "ERROR", /^Database '.*' at '127.0.0.1:\d+' is not available: .*Retrying/);
  onlyLine(
    logger,
    "INFO",
    /^Database '.*' is available again after \d+\.\d s\. [1-9]\d* messages waited\.$/,
  );
}

Deno.test("run keeps every reading while PostgreSQL is stopped and started under load", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  const readings = makeReadings({ count: 60_000 });
  const enough = new AbortController();
  const publishing = publishReadings(broker, readings, { rate: 1000, signal: enough.signal });
  let published;
  try {
    await waitForRows(database, 500);
    await postgres.server.stop();
    try {
      await logger.waitForLine(/Database .* is not available/);
      // Several attempts fail during this time; the log must mention none of them.
      await delay(1000);
    } finally {
      await postgres.server.start();
    }
    await waitForRows(database, await database.countReadings() + 500);
  } finally {
    enough.abort();
    published = await publishing;
  }
  assert.ok(published < readings.length, "the outage was not under load to its end");
  await waitForRows(database, published);
  await expectStored(database, readings.slice(0, published));
  const counts = await stopCleanly(logger);
  assert.equal(counts.stored + counts.duplicates, counts.received);
  expectOneOutage(logger);
});

Deno.test("run keeps every reading when PostgreSQL crashes in the middle of an insert", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  const readings = makeReadings({ count: 4000 });
  for (const end of [2000, 4000]) {
    {
      // No insert can end before the crash, on a slow or a fast machine.
      await using lock = await database.connect();
      await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
      await publishReadingsFast(broker, readings.slice(end - 2000, end), { qos: 1 });
      await waitForBlockedInsert(database);
      assert.equal(await database.countReadings(), end - 2000);
      await postgres.server.stop("immediate");
    }
    await postgres.server.start();
    await waitForRows(database, end);
  }
  await expectStored(database, readings);
  await stopCleanly(logger);
  const outages = linesOf(logger, "ERROR").length;
  assert.ok(outages === 1 || outages === 2, `${outages} outages`);
});

Deno.test("run logs that a database is read-only, and stores when it no longer is", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const name = `"${database.name}"`;
  await database.query(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine("Connected to database");
  const readings = makeReadings({ count: 50 });
  await publishReadings(broker, readings);
  await logger.waitForLine(/is not available: .*read-only transaction \(.*read-only\)/);
  await postgres.server.query(`ALTER DATABASE ${name} RESET default_transaction_read_only`);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  expectOneOutage(logger);
});

Deno.test("run logs that the password is wrong, and stores when it is corrected", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 50 });
  await publishReadings(broker, readings);
  await using logger = startLogger(
    loggerEnv({ database, broker }, { DATABASE_PASSWORD: "another one" }),
  );
  const setPassword = async (password: string): Promise<void> => {
    const literal = password.replaceAll("'", "''");
    await database.query(`ALTER ROLE ${LOGGER_ROLE} PASSWORD '${literal}'`);
  };
  try {
    await logger.waitForLine(/is not available: .*authentication failed.*DATABASE_PASSWORD/);
    await setPassword("another one");
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    await stopCleanly(logger);
    expectOneOutage(logger);
  } finally {
    await setPassword(LOGGER_PASSWORD);
  }
});

Deno.test("run needs SELECT and INSERT on sensor_data and SELECT on sensors, and nothing more", async () => {
  const database = await postgres.createDatabase();
  const privileges = await database.query(
    `SELECT table_name, privilege_type FROM information_schema.role_table_grants
     WHERE grantee = '${LOGGER_ROLE}' ORDER BY 1, 2`,
  );
  assert.deepEqual(privileges.map((row) => Object.values(row).join(" ")), [
    "sensor_data INSERT",
    "sensor_data SELECT",
    "sensors SELECT",
  ]);
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 100 });
  await publishReadings(broker, readings);
  await database.query(`REVOKE INSERT ON sensor_data FROM ${LOGGER_ROLE}`);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine(/permission denied for table sensor_data \(grant SELECT, INSERT/);
  assert.equal(await database.countReadings(), 0);
  await database.query(`GRANT INSERT ON sensor_data TO ${LOGGER_ROLE}`);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  expectOneOutage(logger);
});

for (const table of ["sensor_data", "sensors"]) {
  Deno.test(`run waits for a missing table '${table}' to be created`, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startBroker();
    await createSession(broker);
    await database.query(`ALTER TABLE ${table} RENAME TO elsewhere`);
    await using logger = startLogger(loggerEnv({ database, broker }));
    const readings = makeReadings({ count: 50 });
    await publishReadings(broker, readings);
    await logger.waitForLine(`the table '${table}' does not exist`);
    await logger.waitForLine("Connected to MQTT broker");
    await database.query(`ALTER TABLE elsewhere RENAME TO ${table}`);
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    await stopCleanly(logger);
    assert.equal(linesOf(logger, "ERROR").length, 1);
  });
}

Deno.test("run stores the readings that waited while a table was locked", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(
    loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "DEBUG" }),
  );
  const readings = makeReadings({ count: 20 });
  await using lock = await database.connect();
  await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
  await publishReadings(broker, readings, { maxInflight: 1 });
  await logger.waitForLine(`Received on 'sensors/test/${readings.at(-1)?.uuid}`);
  await lock.query("ROLLBACK");
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await stopCleanly(logger);
  const batches = linesOf(logger, "DEBUG").filter((line) => line.startsWith("Committed"));
  // One batch for each of the two connections, and the readings that gathered after them.
  assert.ok(batches.length <= 4, batches.join("\n"));
});
