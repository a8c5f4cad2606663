/**
 * Signals: in-flight messages are stored; those that cannot be stored stay with the broker.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { findFreePort, LOOPBACK } from "../support/ports.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  createSession,
  linesOf,
  readCounts,
  slowInserts,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForBlockedInsert,
  waitForRows,
} from "../support/harness.ts";
import { lacks } from "../support/programs.ts";

const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

const postgres = usePostgres();

Deno.test(
  "a signal under load ends the run with 0, and all committed messages are acknowledged",
  {
    ignore: lacks("mosquitto"),
  },
  async (t) => {
    // With MQTT 3.1.1, this is the window: no more than a busy broker can finish within the 10 s
    // that a stop may take.
    await using broker = await startTellingMosquitto({ maxInflightMessages: 1000 });
    for (const signal of SIGNALS) await createSession(broker, { clientId: signal });
    const readings = makeReadings({ count: 20_000 });
    await publishReadingsFast(broker, readings);

    for (const signal of SIGNALS) {
      await t.step(signal, async () => {
        const database = await postgres.createDatabase();
        await slowInserts(database, 0.05);
        const env = loggerEnv({ database, broker }, {
          MQTT_CLIENT_ID: signal,
          MQTT_PROTOCOL_VERSION: "4",
        });
        await using first = startLogger(env);
        await waitForRows(database, 1);
        const { received, stored, ...others } = await stopCleanly(first, signal);
        assert.deepEqual(new Set(Object.values(others)), new Set([0]));
        assert.equal(stored, received);
        assert.equal(await database.countReadings(), stored);
        assert.ok(stored < readings.length, "the signal came too late to be under load");

        await using second = startLogger(env);
        await waitForRows(database, readings.length);
        await expectStored(database, readings);
        const rest = await stopCleanly(second);
        assert.deepEqual([rest.received, rest.duplicates], [readings.length - stored, 0]);
      });
    }
  },
);

Deno.test("a signal during continuous publishing loses no reading", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker });
  const all = makeReadings({ count: 60_000 });
  const enough = new AbortController();
  const published = publishReadings(broker, all, { rate: 1000, signal: enough.signal });
  const counts = [];
  try {
    for (let run = 0; run < 2; run++) {
      await using logger = startLogger(env);
      await logger.waitForLine("Connected to MQTT broker");
      await waitForRows(database, await database.countReadings() + 1);
      counts.push(await stopCleanly(logger));
    }
    // Some readings must arrive after the last signal.
    await delay(50);
  } finally {
    enough.abort();
    await published;
  }
  const readings = all.slice(0, await published);
  assert.ok(await database.countReadings() < readings.length, "the signals came too late");
  await using logger = startLogger(env);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  counts.push(await stopCleanly(logger));
  assert.equal(counts.reduce((sum, { stored }) => sum + stored, 0), readings.length);
});

Deno.test("a signal while database and broker are unavailable ends the run with 0", async (t) => {
  const database = await postgres.createDatabase();
  for (const signal of SIGNALS) {
    await t.step(signal, async () => {
      const env = loggerEnv({ database, broker: { host: LOOPBACK, port: findFreePort() } }, {
        DATABASE_PORT: String(findFreePort()),
      });
      await using logger = startLogger(env);
      await logger.waitForLine(/MQTT broker '.*' is not available: connection refused/);
      await logger.waitForLine(/Database '.*' is not available: connection refused/);
      const counts = await stopCleanly(logger, signal);
      assert.equal(counts.received, 0);
      assert.equal(linesOf(logger, "ERROR").length, 2);
    });
  }
});

Deno.test("a signal while the database is unavailable and no message is in flight ends the run with 0", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine("Connected to MQTT broker");
  const readings = makeReadings({ count: 20 });
  await publishReadings(broker, readings);
  await waitForRows(database, readings.length);
  await postgres.server.stop();
  try {
    await logger.waitForLine(/Database '.*' is not available/);
    assert.equal((await stopCleanly(logger)).stored, readings.length);
  } finally {
    await postgres.server.start();
  }
});

Deno.test("messages that cannot be stored in time are logged and redelivered, and the exit status is 1", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "DEBUG" });
  const readings = makeReadings({ count: 15 });
  await publishReadings(broker, readings);
  await postgres.server.stop();
  try {
    await using logger = startLogger(env);
    await logger.waitForLine(`Received on 'sensors/test/${readings.at(-1)?.uuid}`);
    assert.equal(await logger.stop(), 1);
    const { received, stored, waiting } = readCounts(logger);
    assert.deepEqual([received, stored, waiting], [readings.length, 0, readings.length]);
    const said = linesOf(logger, "ERROR").at(-1) ?? "";
    assert.match(
      said,
      /^Could not store 15 messages in time\. The broker redelivers unacknowledged/,
    );
  } finally {
    await postgres.server.start();
  }
  await using again = startLogger(env);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.equal((await stopCleanly(again)).stored, readings.length);
});

for (const [first, second] of [["SIGTERM", "SIGTERM"], ["SIGHUP", "SIGINT"]] as const) {
  Deno.test(`${second} after ${first} ends the run at once`, async () => {
    const database = await postgres.createDatabase();
    await using broker = await startBroker();
    await createSession(broker);
    const readings = makeReadings({ count: 15 });
    await publishReadings(broker, readings);
    const env = loggerEnv({ database, broker });
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN ACCESS EXCLUSIVE MODE");
    {
      await using logger = startLogger(env);
      await waitForBlockedInsert(database);
      logger.signal(first);
      await logger.waitForLine(`Received ${first}, storing in-flight messages before exit.`);
      // For half a second, the same signal counts as a repetition of the first one.
      await waitUntil(() => {
        if (logger.isRunning) logger.signal(second);
        return !logger.isRunning;
      }, { what: "the end of the logger", intervalMs: 100 });
      assert.equal((await logger.exited).code, 1);
      // Neither the result of a regular shutdown, nor that of the deadline of ten seconds.
      assert.deepEqual(logger.lines.filter((line) => /Stopped|could not be stored/.test(line)), []);
    }
    await lock.query("ROLLBACK");
    // The server may complete the statement of a disconnected client: then these are duplicates.
    await using again = startLogger(env);
    await again.waitForLine("Connected to MQTT broker");
    await waitForRows(database, readings.length);
    await expectStored(database, readings);
    assert.equal((await stopCleanly(again)).waiting, 0);
  });
}

Deno.test("a signal that arrives twice at once counts once", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const readings = makeReadings({ count: 15 });
  await publishReadings(broker, readings);
  await using lock = await database.connect();
  await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
  await using logger = startLogger(
    loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "DEBUG" }),
  );
  await waitForBlockedInsert(database);
  await waitUntil(
    () => logger.lines.filter((line) => line.includes("Received on")).length === readings.length,
    {
      what: "all readings in flight",
    },
  );
  logger.signal("SIGINT");
  logger.signal("SIGINT");
  await logger.waitForLine("Received SIGINT, storing in-flight messages before exit.");
  await lock.query("ROLLBACK");
  assert.equal((await logger.exited).code, 0);
  await expectStored(database, readings);
});
