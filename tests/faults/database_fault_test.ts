/**
 * Faults of PostgreSQL under load, with the default queue limit of Mosquitto: messages that the
 * database does not accept are spooled, and finally every reading is stored once.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { LOGGER_ROLE, type TestDatabase } from "../support/postgres_database.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  linesOf,
  onlyLine,
  slowInserts,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForBlockedInsert,
  waitForRows,
} from "../support/harness.ts";
import {
  countDrops,
  MORE_THAN_NARROW_HOLDS,
  NARROW,
  SHORT_TIMEOUTS,
  startLoad,
  waitForTimeouts,
} from "./database_load.ts";
import { lacksMount, mountSmallDisk } from "./small_disk.ts";
import { lacks } from "../support/programs.ts";

// Few connections, so that all of them are quickly in use.
const postgres = usePostgres({ settings: { max_connections: "12" } });

/** Waits until the server is executing an insert of the logger. */
async function waitForInsert(database: TestDatabase): Promise<void> {
  await using connection = await database.connect();
  await waitUntil(async () => {
    const rows = await connection.query(
      `SELECT FROM pg_stat_activity WHERE usename = '${LOGGER_ROLE}' AND state = 'active'
       AND datname = current_database() AND query LIKE '%INSERT INTO sensor_data%'`,
    );
    return rows.length > 0;
  }, { what: "an insert of the logger", intervalMs: 1 });
}

/** Terminates the connections of the logger, at least one. Returns their number. */
async function terminateLogger(database: TestDatabase): Promise<number> {
  return await waitUntil(async () => await database.terminateLogger() || null, {
    what: "a connection of the logger",
  });
}

for (const spool of [true, false]) {
  const name = spool
    ? "run keeps more than it and the broker can hold while PostgreSQL is stopped"
    // The counter-test: shows that the other test can fail.
    : "run without a spool leaves to the broker, and to its limits, what it cannot hold";
  Deno.test(name, { ignore: lacks("mosquitto") }, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startTellingMosquitto({ maxQueuedMessages: 1000 });
    await createSession(broker);
    using directory = withTemporaryDirectory();
    const env = spool ? { SPOOL_DIRECTORY: directory.path } : {};
    await using logger = startLogger(loggerEnv({ database, broker }, env));
    await logger.waitForLine("Connected to MQTT broker");
    await logger.waitForLine("Connected to database");
    // The in-flight window holds 8,000, and the queue a thousand.
    const readings = makeReadings({ count: 15_000 });
    await postgres.server.stop();
    try {
      await logger.waitForLine(/Database .* is not available/);
      // The load of more than a second fits, so that the spool may be used that late.
      await publishReadingsFast(broker, readings, { qos: 1, ...(spool && { rate: 5000 }) });
      assert.equal(countDrops(broker), spool ? 0 : 1);
    } finally {
      await postgres.server.start();
    }
    if (!spool) return;
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    const { received, stored, spooled } = await stopCleanly(logger);
    assert.deepEqual([received, stored, spooled], [readings.length, readings.length, 0]);
    onlyLine(logger, "ERROR", /./);
  });
}

Deno.test("run keeps every reading when PostgreSQL is killed in the middle of inserts", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await slowInserts(database, 0.1);
  await using load = await startLoad(database);
  for (let kill = 0; kill < 2; kill++) {
    await load.waitForStored();
    await waitForInsert(database);
    await postgres.server.kill();
    await load.waitForPublished(200);
    await postgres.server.start();
  }
  await load.finish();
  load.expectOutages(/closed|reset|refused|terminated|starting up|recovery/);
});

for (const spool of [true, false]) {
  const variant = spool ? "" : " without a spool";
  Deno.test(`run${variant} keeps every reading when its connections are terminated repeatedly`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    const database = await postgres.createDatabase();
    await slowInserts(database, 0.02);
    await using load = await startLoad(database, { spool });
    let terminated = 0;
    for (let round = 0; round < 20; round++) {
      // Without a success in between, the backoff of the logger would grow.
      await load.waitForStored();
      if (round % 2 === 0) await waitForInsert(database);
      terminated += await terminateLogger(database);
    }
    assert.ok(terminated >= 20);
    await load.finish();
    load.expectOutages(/administrator command|closed|terminated/);
  });
}

Deno.test("run keeps every reading when PostgreSQL is restarted three times in a row", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using load = await startLoad(database);
  for (const mode of ["fast", "immediate", "fast"] as const) {
    await postgres.server.restart(mode);
    assert.ok(await terminateLogger(database) > 0);
  }
  await load.finish();
  load.expectOutages(
    /administrator command|crash of another|closed|reset|refused|starting up|shutting down/,
  );
});

Deno.test(
  "run keeps every reading while PostgreSQL is frozen for longer than its timeouts",
  {
    ignore: lacks("mosquitto"),
  },
  async () => {
    const database = await postgres.createDatabase();
    await using load = await startLoad(database, {
      ...NARROW,
      env: { ...NARROW.env, ...SHORT_TIMEOUTS, APPLICATION_LOG_LEVEL: "DEBUG" },
    });
    await postgres.server.kill("SIGSTOP");
    try {
      await Promise.all([
        waitForTimeouts(load.logger),
        load.waitForPublished(MORE_THAN_NARROW_HOLDS),
      ]);
    } finally {
      await postgres.server.kill("SIGCONT");
    }
    await load.finish();
    load.expectOutages(/timeout|no answer in time/);
  },
);

Deno.test("run keeps every reading while a table is locked", {
  ignore: lacks("mosquitto"),
}, async () => {
  const database = await postgres.createDatabase();
  await using load = await startLoad(database, NARROW);
  await using lock = await database.connect();
  await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
  await waitForBlockedInsert(database);
  const rows = await database.countReadings();
  await load.waitForPublished(MORE_THAN_NARROW_HOLDS);
  assert.equal(await database.countReadings(), rows);
  await lock.query("ROLLBACK");
  await load.finish();
  assert.deepEqual(linesOf(load.logger, "ERROR"), []);
});

/** A state in which a healthy database does not serve the logger. */
interface Refusal {
  /** Completes "run keeps every reading while …". */
  readonly name: string;
  /** The server's message. */
  readonly reason: RegExp;
  /** Causes it; the result ends it. */
  readonly begin: (database: TestDatabase) => Promise<() => Promise<void>>;
}

const REFUSALS: readonly Refusal[] = [{
  name: "the database is read-only",
  reason: /read-only transaction \(the server is a standby, or the database is set to read-only\)/,
  begin: async (database) => {
    const alter = `ALTER DATABASE "${database.name}"`;
    await database.query(`${alter} SET default_transaction_read_only = on`);
    await terminateLogger(database);
    return async () => {
      await postgres.server.query(`${alter} RESET default_transaction_read_only`);
    };
  },
}, {
  name: "the password has changed",
  reason: /authentication failed .*\(check DATABASE_USER and DATABASE_PASSWORD\)/,
  begin: async (database) => {
    await database.setLoggerPassword("another one");
    await terminateLogger(database);
    return async () => await database.setLoggerPassword();
  },
}, {
  name: "other clients use all connections",
  reason: /(too many clients|connection slots are reserved).*\(raise max_connections/,
  begin: async (database) => {
    const others = database.takeConnections();
    // A connection that the logger is just opening is found in the next round.
    for (let round = 0; round < 4; round++) {
      await others.takeAll();
      await delay(250);
    }
    return async () => await others[Symbol.asyncDispose]();
  },
}];

for (const { name, reason, begin } of REFUSALS) {
  Deno.test(`run keeps every reading while ${name}, under load`, {
    ignore: lacks("mosquitto"),
  }, async () => {
    const database = await postgres.createDatabase();
    const env = { APPLICATION_LOG_LEVEL: "DEBUG" };
    await using load = await startLoad(database, { env });
    const end = await begin(database);
    try {
      // The ERROR line has the end of the connections; later attempts have this reason.
      await load.logger.waitForLine(reason);
      // More than the load of one second, which may wait in memory.
      await load.waitForSpooled(600);
    } finally {
      await end();
    }
    await load.finish();
    load.expectOutages(/./);
  });
}

Deno.test("run keeps every reading while the disk of the database is full", {
  ignore: lacks("mosquitto") || lacksMount(),
}, async () => {
  const database = await postgres.createDatabase();
  await using disk = await mountSmallDisk({ ownerOf: postgres.server.dataDirectory });
  await postgres.server.query(`CREATE TABLESPACE small LOCATION '${disk.path}'`);
  try {
    await database.query("ALTER TABLE sensor_data SET TABLESPACE small");
    await using load = await startLoad(database);
    disk.fill();
    const reason = /No space left on device \(free space on the disk of the database server\)/;
    await load.logger.waitForLine(reason);
    await load.waitForSpooled(600);
    disk.empty();
    await load.finish();
    assert.equal(load.expectOutages(reason), 1);
  } finally {
    await postgres.server.query(`DROP DATABASE "${database.name}" WITH (FORCE)`);
    await postgres.server.query("DROP TABLESPACE small");
  }
});

Deno.test("run logs the end of an outage when another connection has stored the waiting messages", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine("Connected to database");
  await logger.waitForLine("Connected to MQTT broker");
  await using lock = await database.connect();
  await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
  const readings = makeReadings({ count: 1 });
  await publishReadings(broker, readings);
  await waitForBlockedInsert(database);
  const idle = `usename = '${LOGGER_ROLE}' AND datname = current_database() AND state = 'idle'`;
  await waitUntil(async () => {
    const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${idle}`;
    return (await database.query(terminate)).length > 0;
  }, { what: "the other connection" });
  await logger.waitForLine(/Database '.*' is not available/);
  await waitUntil(async () => {
    // The catalog is read last before a connection is ready.
    const ready = await database.query(
      `SELECT FROM pg_stat_activity WHERE ${idle} AND query LIKE '%pg_attribute%'`,
    );
    return ready.length > 0;
  }, { what: "the connection to be ready again" });
  await lock.query("ROLLBACK");
  await waitForRows(database, readings.length);
  await logger.waitForLine(
    /Database '.*' is available again after \d+\.\d s\. 1 message waited\.$/,
  );
  await stopCleanly(logger);
});
