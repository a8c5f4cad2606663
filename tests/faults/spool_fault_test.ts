/**
 * The spool: messages that the database does not accept wait on disk and are acknowledged. No end
 * of the logger loses any of them. Other files test a full disk and a damaged file.
 */
import assert from "node:assert/strict";
import { waitUntil } from "../support/poll.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings, type Reading } from "../support/readings.ts";
import {
  linesOf,
  onlyLine,
  slowInserts,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import { countFreePages, countSpooled, expectSpooled, waitForSpooled } from "./spool_file.ts";
import { setScene } from "./spool_scene.ts";
import { lacks } from "../support/programs.ts";
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

Deno.test(
  "run spools new messages during an outage of the database, keeps them across any exit, and drains them oldest first",
  {
    ignore: lacks("mosquitto"),
  },
  async (t) => {
    await using scene = await setScene(postgres, { broker: { maxQueuedMessages: 1000 } });
    const { database, broker, directory } = scene;
    const readings = makeReadings({ count: 17_000 });
    await scene.takeDatabaseAway();

    await t.step("more than window and queue hold, and SIGTERM", async () => {
      await using logger = scene.startLogger();
      await logger.waitForLine("Connected to MQTT broker");
      await publishReadingsFast(broker, readings.slice(0, 10_000), { qos: 1, rate: 5000 });
      await waitForSpooled(directory, 10_000);
      const { received, spooled, stored } = await stopCleanly(logger);
      assert.deepEqual([received, spooled, stored], [10_000, 10_000, 0]);
      onlyLine(logger, "ERROR", /^Database .* is not available: connection refused/);
    });

    await t.step("QoS 2 and QoS 0, and SIGKILL", async () => {
      await using logger = scene.startLogger();
      await logger.waitForLine("Connected to MQTT broker");
      onlyLine(logger, "INFO", /^Found 10000 messages of an earlier run in the spool\.$/);
      await publishReadings(broker, readings.slice(10_000, 12_000), { qos: 2 });
      await publishReadings(broker, readings.slice(12_000, 13_999), { qos: 0 });
      await waitForSpooled(directory, 13_999);
      // When this acknowledgement has arrived, the others have been sent.
      await publishReadings(broker, readings.slice(13_999, 14_000), { qos: 1 });
      await waitForSpooled(directory, 14_000);
      await logger.kill();
      expectSpooled(directory, readings.slice(0, 14_000));
    });

    await t.step("and the next start, while others keep coming", async () => {
      await scene.bringDatabaseBack();
      await slowInserts(database, 0.1);
      // One connection, so that transactions and batches have the same order.
      await using logger = scene.startLogger({ DATABASE_CONNECTIONS: "1" });
      await logger.waitForLine("Connected to MQTT broker");
      onlyLine(logger, "INFO", /^Found 14000 messages of an earlier run in the spool\.$/);
      await publishReadings(broker, readings.slice(14_000), { qos: 1, rate: 3000 });
      assert.ok(await database.countReadings() < readings.length, "the spool was empty too soon");
      await waitForRows(database, readings.length);
      await expectStored(database, readings);
      const { received, redelivered, found, stored, spooled } = await stopCleanly(logger);
      // The last message before SIGKILL may not have been acknowledged.
      assert.ok(received === 3000 || received === 3001, `${received} received`);
      assert.deepEqual([found, stored, redelivered, spooled], [14_000, 17_000, 0, 0]);
      await expectOldestFirst(database, readings.slice(0, 14_000));
    });
  },
);

Deno.test(
  "run without a spool drops QoS 0 messages beyond its limit, and logs their number",
  {
    ignore: lacks("mosquitto"),
  },
  async () => {
    await using scene = await setScene(postgres, { spool: false });
    const { database, broker } = scene;
    const readings = makeReadings({ count: 1500 });
    await scene.takeDatabaseAway();
    await using logger = scene.startLogger(tune({ maxQos0Messages: 1_000 }));
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadings(broker, readings, { qos: 0 });
    await logger.waitForLine(/WARNING {2}Dropped a QoS 0 message on 'sensors\/test\/.*: neither/);
    // The QoS 1 messages wait behind them.
    const others = makeReadings({ count: 10, seed: 2, startTimeUs: 0n });
    await publishReadings(broker, others, { qos: 1 });
    await scene.bringDatabaseBack();
    await waitForRows(database, 1010);
    await expectStored(database, [...readings.slice(0, 1000), ...others]);
    const { received, stored, dropped } = await stopCleanly(logger);
    assert.deepEqual([received, stored, dropped], [1510, 1010, 500]);
    onlyLine(
      logger,
      "WARNING",
      /^Suppressed 490 more warnings about dropped QoS 0 messages\.$/,
    );
  },
);

Deno.test("run spools only the messages that a slow database does not accept in time", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 3000 });
  await using logger = scene.startLogger();
  await logger.waitForLine("Connected to MQTT broker");
  await logger.waitForLine("Connected to database");
  const publish = async (from: number, to: number): Promise<void> => {
    await publishReadings(broker, readings.slice(from, to), { qos: 1, rate: 1000 });
    await waitForRows(database, to);
  };

  const untouched = describeFiles(directory);
  await publish(0, 1000);
  assert.deepEqual(describeFiles(directory), untouched);

  await slowInserts(database, 1.5);
  const published = publish(1000, 2000);
  // The messages of the connections are copied to the spool, too.
  await waitUntil(() => countSpooled(directory) >= 500, { what: "messages in the spool" });
  assert.notDeepEqual(describeFiles(directory), untouched);
  await database.query("DROP TRIGGER linger ON sensor_data");
  await published;
  await waitForSpooled(directory, 0);
  await waitUntil(() => countFreePages(directory) === 0, { what: "the file to shrink" });

  const again = describeFiles(directory);
  await publish(2000, 3000);
  assert.deepEqual(describeFiles(directory), again);
  await expectStored(database, readings);
  assert.deepEqual(linesOf(logger, "ERROR"), []);
  const { stored, duplicates, spooled } = await stopCleanly(logger);
  assert.deepEqual([stored, duplicates, spooled], [3000, 0, 0]);
});

Deno.test("a second logger does not use a spool until the first logger has ended", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 300 });
  await using first = scene.startLogger();
  await first.waitForLine("Connected to MQTT broker");
  {
    await using second = scene.startLogger();
    await second.waitForLine("Cannot use the spool");
    assert.equal((await second.exited).code, 1);
    const reason = "another logger is using it; each logger needs its own SPOOL_DIRECTORY";
    assert.deepEqual(linesOf(second, "CRITICAL"), [
      `Cannot use the spool in '${directory}': ${reason}.`,
    ]);
    assert.equal(second.lines.length, 1);
  }
  await publishReadings(broker, readings.slice(0, 100));
  await waitForRows(database, 100);
  await scene.takeDatabaseAway();
  await publishReadings(broker, readings.slice(100, 200));
  await waitForSpooled(directory, 100);
  await first.kill();
  assert.deepEqual(linesOf(first, "CRITICAL"), []);

  await scene.bringDatabaseBack();
  await using third = scene.startLogger();
  await publishReadings(broker, readings.slice(200));
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  const { found, stored } = await stopCleanly(third);
  assert.deepEqual([found, stored], [100, 200]);
});

Deno.test("run logs the progress of a spool that is drained for long", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 8000 });
  await slowInserts(database, 0.4);
  await scene.takeDatabaseAway();
  await using logger = scene.startLogger({
    DATABASE_CONNECTIONS: "1",
    ...tune({ spoolQuietMs: 300, spoolReportMs: 600 }),
  });
  await logger.waitForLine("Connected to MQTT broker");
  await publishReadingsFast(broker, readings, { qos: 1 });
  await waitForSpooled(directory, readings.length);
  await logger.waitForLine(
    /INFO {5}Waiting for the database, with \d+ messages in the spool\.$/,
  );
  await scene.bringDatabaseBack();
  const emptying =
    /INFO {5}Draining the spool: (\d+) messages left, (\d+) stored per second, \d+ s left\./;
  const line = await logger.waitForLine(emptying);
  const [left, rate] = emptying.exec(line)?.slice(1).map(Number) ?? [];
  assert.ok(left !== undefined && left < readings.length && (rate ?? 0) > 0, line);
  await logger.waitForLine(
    /INFO {5}The spool is empty again: 8000 messages passed through it in \d+\.\d s/,
  );
  await expectStored(database, readings);
  await stopCleanly(logger);
});

/** Asserts that each transaction stored older readings than the next one. */
async function expectOldestFirst(
  database: TestDatabase,
  readings: readonly Reading[],
): Promise<void> {
  const micros = "(extract(epoch FROM time) * 1000000)::bigint";
  const transactions = await database.query<{ first: string; last: string; count: number }>(
    `SELECT min(${micros}) AS first, max(${micros}) AS last, count(*)::int AS count
     FROM sensor_data WHERE ${micros} <= ${readings.at(-1)?.timeUs}
     GROUP BY xmin ORDER BY xmin::text::bigint`,
  );
  assert.equal(transactions.reduce((sum, { count }) => sum + count, 0), readings.length);
  assert.ok(transactions.length > 3, `only ${transactions.length} transactions`);
  const times = transactions.flatMap(({ first, last }) => [BigInt(first), BigInt(last)]);
  assert.deepEqual(times, times.toSorted((first, second) => Number(first - second)));
}

/** Sizes and modification times of the files in a directory. */
function describeFiles(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => {
    const { size, mtime } = Deno.statSync(`${directory}/${name}`);
    return `${name}: ${size} bytes, ${mtime?.getTime()}`;
  }).toSorted();
}
