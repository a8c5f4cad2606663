/**
 * The spool: what the database does not take waits on disk, and is acknowledged. What ends the
 * logger, fills the disk or damages the file loses nothing of it that can be kept.
 */
import assert from "node:assert/strict";
import { waitUntil } from "../services/poll.ts";
import type { TestDatabase } from "../services/postgres_database.ts";
import { runSuccessfully } from "../services/process.ts";
import { publishReadings } from "../services/publisher.ts";
import { publishReadingsFast } from "../services/publisher_process.ts";
import {
  createRandom,
  expectStored,
  makeReadings,
  type Reading,
  toPayload,
} from "../services/readings.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import { breakSources, withoutSources } from "../program/broken_sources.ts";
import {
  CLIENT_ID,
  linesOf,
  onlyLine,
  slowInserts,
  stopCleanly,
  usePostgres,
  waitForRows,
  withoutMosquitto,
} from "../program/harness.ts";
import { mountSmallDisk, withoutMount } from "./small_disk.ts";
import {
  countFreePages,
  countSpooled,
  readSpool,
  SPOOL_FILE,
  waitForSpooled,
} from "./spool_file.ts";
import { setScene } from "./spool_scene.ts";

const postgres = usePostgres();

const SPOOL_FULL = /ERROR {4}The spool takes no more messages: .* is full/;
const SPOOL_RECOVERED = /INFO {5}The spool takes messages again/;

/** Bytes of a page of the file. */
const PAGE = 4096;

/** A damaged file, and how many of its messages are in it at least and at most. */
interface DamageCase {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly expected: readonly [least: number, most: number];
}

Deno.test(
  "run keeps in the spool what comes while the database is away, whatever ends it, and drains it oldest first",
  {
    ignore: withoutMosquitto,
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
      onlyLine(logger, "INFO", /^10000 messages are in the spool from before\.$/);
      await publishReadings(broker, readings.slice(10_000, 12_000), { qos: 2 });
      await publishReadings(broker, readings.slice(12_000, 13_999), { qos: 0 });
      await waitForSpooled(directory, 13_999);
      // The acknowledgements of the others have left when this one is there.
      await publishReadings(broker, readings.slice(13_999, 14_000), { qos: 1 });
      await waitForSpooled(directory, 14_000);
      await logger.kill();
      assert.deepEqual(readSpool(directory).toSorted(), payloadsOf(readings.slice(0, 14_000)));
    });

    await t.step("and the next start, while others keep coming", async () => {
      await scene.bringDatabaseBack();
      await slowInserts(database, 0.1);
      // One connection, so that the order of the transactions is that of the batches.
      await using logger = scene.startLogger({ DATABASE_CONNECTIONS: "1" });
      await logger.waitForLine("Connected to MQTT broker");
      onlyLine(logger, "INFO", /^14000 messages are in the spool from before\.$/);
      await publishReadings(broker, readings.slice(14_000), { qos: 1, rate: 3000 });
      assert.ok(await database.countReadings() < readings.length, "the spool was empty too soon");
      await waitForRows(database, readings.length);
      await expectStored(database, readings);
      const { received, redelivered, found, stored, spooled } = await stopCleanly(logger);
      // The last one before SIGKILL may not have been acknowledged any more.
      assert.ok(received === 3000 || received === 3001, `${received} received`);
      assert.deepEqual([found, stored, redelivered, spooled], [14_000, 17_000, 0, 0]);
      await expectOldestFirst(database, readings.slice(0, 14_000));
    });
  },
);

Deno.test("run without a spool drops what it cannot hold of QoS 0, and says how many", {
  ignore: withoutMosquitto || withoutSources,
}, async () => {
  using sources = breakSources([
    {
      file: "lib/inbox.ts",
      find: "_UNACKNOWLEDGED = 100_000;",
      replace: "_UNACKNOWLEDGED = 1000;",
    },
  ]);
  await using scene = await setScene(postgres, { spool: false });
  const { database, broker } = scene;
  const readings = makeReadings({ count: 1500 });
  await scene.takeDatabaseAway();
  await using logger = scene.startLogger({}, { sources: sources.path });
  await logger.waitForLine("Connected to MQTT broker");
  await publishReadings(broker, readings, { qos: 0 });
  await logger.waitForLine(/WARNING {2}Dropped a QoS 0 message on 'sensors\/test\/.*: neither/);
  // Those of QoS 1 wait behind them.
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
    /^490 more QoS 0 messages that were dropped were left out of the log/,
  );
});

Deno.test("run writes to the spool only what a slow database does not take in time", {
  ignore: withoutMosquitto,
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
  // What the connections have in hand is copied there, too.
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

Deno.test("run leaves with the broker what a full spool does not take", {
  ignore: withoutMosquitto,
}, async () => {
  await using scene = await setScene(postgres, {
    env: { SPOOL_MAX_BYTES: "1M" },
    broker: { config: ["log_type debug"] },
  });
  const { database, broker, directory } = scene;
  // More than spool and in-flight window hold.
  const readings = makeReadings({ count: 14_000 });
  await scene.takeDatabaseAway();
  let kept: number;
  {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadingsFast(broker, readings, { qos: 1 });
    await logger.waitForLine(SPOOL_FULL);
    const acknowledged = (): number =>
      broker.logLines.filter((line) => line.startsWith(`Received PUBACK from ${CLIENT_ID}`)).length;
    kept = await waitUntil(() => {
      const spooled = countSpooled(directory);
      return acknowledged() === spooled ? spooled : null;
    }, { what: "the acknowledgement of what is in the spool" });
    await logger.kill();
    assert.equal(acknowledged(), kept);
  }
  assert.ok(kept > 0 && kept < readings.length);
  assert.ok(Deno.statSync(`${directory}/${SPOOL_FILE}`).size <= 2 ** 20);

  await using logger = scene.startLogger();
  await logger.waitForLine(SPOOL_FULL);
  await scene.bringDatabaseBack();
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  await logger.waitForLine(SPOOL_RECOVERED);
  onlyLine(logger, "ERROR", /^The spool takes no more messages: .* is full/);
  onlyLine(logger, "INFO", /^The spool takes messages again after \d+\.\d s\.$/);
  const { received, found, stored, spooled } = await stopCleanly(logger);
  assert.deepEqual([received, found, stored, spooled], [14_000 - kept, kept, 14_000, 0]);
});

Deno.test("run fills a disk, goes on without, and empties the spool while the disk is full", {
  ignore: withoutMosquitto || withoutMount,
}, async () => {
  await using disk = await mountSmallDisk({ ownerOf: "/" });
  await using scene = await setScene(postgres, { directory: disk.path });
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 5000 });
  await scene.takeDatabaseAway();
  {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadings(broker, readings.slice(0, 3000), { qos: 1 });
    await waitForSpooled(directory, 3000);
    disk.fill();
    await publishReadings(broker, readings.slice(3000, 4000), { qos: 1 });
    await logger.waitForLine(SPOOL_FULL);
    disk.empty();
    await logger.waitForLine(SPOOL_RECOVERED);
    await waitForSpooled(directory, 4000);
    await stopCleanly(logger);
  }
  disk.fill();
  await using logger = scene.startLogger();
  await logger.waitForLine("4000 messages are in the spool from before.");
  await publishReadings(broker, readings.slice(4000), { qos: 1 });
  await logger.waitForLine(SPOOL_FULL);
  await scene.bringDatabaseBack();
  await waitForRows(database, readings.length);
  await waitForSpooled(directory, 0);
  await expectStored(database, readings);
  const { stored, spooled } = await stopCleanly(logger);
  assert.deepEqual([stored, spooled], [5000, 0]);
});

Deno.test("run does not start with a spool directory that cannot be used", {
  ignore: withoutMosquitto || withoutMount,
}, async (t) => {
  using directory = withTemporaryDirectory();
  const { path } = directory;
  Deno.mkdirSync(`${path}/empty`);
  Deno.writeTextFileSync(`${path}/file`, "");
  await using _mount = await mountReadOnly(`${path}/empty`);
  await using scene = await setScene(postgres, { spool: false });
  const cases = [
    { name: "read-only", directory: `${path}/empty` },
    { name: "not there, where none can be made", directory: `${path}/empty/spool` },
    { name: "a file", directory: `${path}/file` },
  ];
  for (const { name, directory } of cases) {
    await t.step(name, async () => {
      await using logger = scene.startLogger({ SPOOL_DIRECTORY: directory });
      await logger.waitForLine("Cannot use the spool");
      assert.equal((await logger.exited).code, 1);
      const said = onlyLine(logger, "CRITICAL", /./);
      assert.ok(said.startsWith(`Cannot use the spool in '${directory}': `), said);
    });
  }
});

Deno.test("run goes on when its spool becomes read-only", {
  ignore: withoutMosquitto || withoutMount,
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 1500 });
  await scene.takeDatabaseAway();
  await using logger = scene.startLogger();
  await logger.waitForLine("Connected to MQTT broker");
  await publishReadings(broker, readings.slice(0, 500), { qos: 1 });
  await waitForSpooled(directory, 500);
  {
    await using _mount = await mountReadOnly(directory);
    await publishReadings(broker, readings.slice(500, 1000), { qos: 1 });
    await logger.waitForLine(/ERROR {4}The spool takes no more messages: /);
    await scene.bringDatabaseBack();
    await waitForRows(database, 1000);
    await publishReadings(broker, readings.slice(1000), { qos: 1 });
    await waitForRows(database, 1500);
    assert.equal(countSpooled(directory), 500);
  }
  await waitForSpooled(directory, 0);
  await expectStored(database, readings);
  const { stored, duplicates, spooled } = await stopCleanly(logger);
  assert.deepEqual([stored, duplicates, spooled], [1500, 0, 0]);
});

Deno.test("a second logger does not use the spool of another one, until that one is gone", {
  ignore: withoutMosquitto,
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
    const reason = "another logger is using it; each needs a directory of its own";
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

Deno.test("run moves a damaged spool aside, stores what can be read of it and runs on", {
  ignore: withoutMosquitto,
}, async (t) => {
  await using scene = await setScene(postgres);
  const { database, broker } = scene;
  const readings = makeReadings({ count: 4000 });
  await scene.takeDatabaseAway();
  {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadingsFast(broker, readings, { qos: 1 });
    await waitForSpooled(scene.directory, readings.length);
    await stopCleanly(logger);
  }
  await scene.bringDatabaseBack();
  const intact = Deno.readFileSync(`${scene.directory}/${SPOOL_FILE}`);
  const withGarbage = (from: number, count: number): Uint8Array => {
    const bytes = intact.slice();
    bytes.set(randomBytes(count), from);
    return bytes;
  };
  const half = Math.floor(intact.length / 2 / PAGE) * PAGE;
  const cases: readonly DamageCase[] = [
    { name: "garbage", bytes: randomBytes(intact.length), expected: [0, 0] },
    {
      name: "some pages in the middle",
      bytes: withGarbage(half, 8 * PAGE),
      expected: [3500, 3999],
    },
    { name: "the first page", bytes: withGarbage(0, PAGE), expected: [4000, 4000] },
    { name: "cut in half", bytes: intact.slice(0, half), expected: [500, 3999] },
  ];
  for (const { name, bytes, expected } of cases) {
    await t.step(name, async () => {
      const survivors = readingsIn(bytes, readings);
      const [least, most] = expected;
      assert.ok(survivors.length >= least && survivors.length <= most, `${survivors.length} left`);
      using directory = withTemporaryDirectory();
      Deno.writeFileSync(`${directory.path}/${SPOOL_FILE}`, bytes);
      await database.query("TRUNCATE sensor_data");
      await using logger = scene.startLogger({ SPOOL_DIRECTORY: directory.path });
      await logger.waitForLine("Connected to MQTT broker");
      const others = makeReadings({ count: 10, startTimeUs: 0n });
      await publishReadings(broker, others);
      await waitForRows(database, survivors.length + others.length);
      await expectStored(database, [...survivors, ...others]);
      const { received, found, stored, spooled } = await stopCleanly(logger);
      assert.deepEqual(
        [received, found, stored, spooled],
        [10, survivors.length, survivors.length + 10, 0],
      );
      const said = onlyLine(logger, "ERROR", /^The spool '.*' is damaged \(.*\)\. It is kept as '/);
      assert.ok(said.includes(` ${survivors.length} messages could be read`), said);
      const aside = /It is kept as '([^']+)'/.exec(said)?.[1] ?? "";
      const kept = Deno.readFileSync(aside);
      assert.equal(kept.length, bytes.length);
      assert.deepEqual(readingsIn(kept, readings), survivors);
    });
  }

  await t.step("a file that is empty is a new one", async () => {
    using directory = withTemporaryDirectory();
    Deno.writeFileSync(`${directory.path}/${SPOOL_FILE}`, new Uint8Array());
    await database.query("TRUNCATE sensor_data");
    await using logger = scene.startLogger({ SPOOL_DIRECTORY: directory.path });
    await publishReadings(broker, readings.slice(0, 10));
    await waitForRows(database, 10);
    await stopCleanly(logger);
    assert.deepEqual(linesOf(logger, "ERROR"), []);
  });
});

Deno.test(
  "run notices that its spool is damaged while it runs, and goes on with what can be read",
  {
    ignore: withoutMosquitto,
  },
  async () => {
    await using scene = await setScene(postgres);
    const { database, broker, directory } = scene;
    // Several times what SQLite keeps in memory, which is 2 MB.
    const readings = makeReadings({ count: 30_000 });
    const others = makeReadings({ count: 500, startTimeUs: 0n });
    await scene.takeDatabaseAway();
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadingsFast(broker, readings, { qos: 1 });
    await waitForSpooled(directory, readings.length);
    const file = `${directory}/${SPOOL_FILE}`;
    const eighth = Math.floor(Deno.statSync(file).size / 8 / PAGE) * PAGE;
    overwrite(file, { at: eighth, pages: 20 });
    const survivors = readingsIn(Deno.readFileSync(file), readings);
    const lost = readings.length - survivors.length;
    assert.ok(lost > 100, `${lost} lost`);
    await publishReadings(broker, others, { qos: 1 });
    await scene.bringDatabaseBack();
    await waitForRows(database, survivors.length + others.length);
    await expectStored(database, [...survivors, ...others]);
    onlyLine(logger, "ERROR", /^The spool '.*' is damaged .* is kept as '/);
    onlyLine(logger, "ERROR", new RegExp(`^${lost} messages of the spool could not be read`));
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.stored, counts.unreadable, counts.spooled], [30_500 - lost, lost, 0]);
  },
);

Deno.test("run writes down again what it has in hand when its spool is damaged", {
  ignore: withoutMosquitto,
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 400 });
  let spooled: number;
  {
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
    await publishReadings(broker, readings.slice(0, 200), { qos: 1 });
    await using logger = scene.startLogger();
    await waitForSpooled(directory, 200);
    Deno.writeFileSync(`${directory}/${SPOOL_FILE}`, randomBytes(20 * PAGE));
    await publishReadings(broker, readings.slice(200), { qos: 1 });
    await logger.waitForLine(/The spool '.*' is damaged .* 0 messages could be read/);
    await scene.takeDatabaseAway();
    // Or the server would store them once the lock is gone.
    await database.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    );
    const counts = await stopCleanly(logger);
    spooled = counts.spooled;
    assert.ok(spooled > 200, "nothing was in hand");
    assert.equal(spooled, readings.length - counts.unreadable);
    assert.equal(countSpooled(directory), spooled);
  }
  assert.equal(await database.countReadings(), 0);
  await scene.bringDatabaseBack();
  await using logger = scene.startLogger();
  await waitForRows(database, spooled);
  const { found, stored } = await stopCleanly(logger);
  assert.deepEqual([found, stored], [spooled, spooled]);
});

Deno.test("run loses nothing of a damaged spool for want of room for another one", {
  ignore: withoutMosquitto || withoutMount || withoutSources,
}, async (t) => {
  using sources = breakSources([{
    file: "lib/spool_database.ts",
    find: "RESCUE_RETRY_MS = 60_000;",
    replace: "RESCUE_RETRY_MS = 500;",
  }]);
  await using disk = await mountSmallDisk({ ownerOf: "/" });
  await using scene = await setScene(postgres, { directory: disk.path });
  const { database, broker, directory } = scene;
  const file = `${directory}/${SPOOL_FILE}`;
  const readings = makeReadings({ count: 3000 });
  await scene.takeDatabaseAway();

  await t.step("that it finds at the start", async () => {
    {
      await using logger = scene.startLogger();
      await logger.waitForLine("Connected to MQTT broker");
      await publishReadings(broker, readings, { qos: 1 });
      await waitForSpooled(directory, readings.length);
      await stopCleanly(logger);
    }
    const { size } = Deno.statSync(file);
    overwrite(file, { at: size - 40 * PAGE, pages: 3 });
    const survivors = readingsIn(Deno.readFileSync(file), readings);
    assert.ok(survivors.length < readings.length);
    disk.fill();
    {
      await using logger = scene.startLogger();
      // It may end, or go on without a spool; either way it has to tell.
      await waitUntil(() =>
        !logger.isRunning || logger.lines.some((line) => line.includes("Connected to MQTT broker"))
      );
      assert.match(logger.lines.join("\n"), /(ERROR {3}|CRITICAL) .* is full/);
      await logger.kill();
    }
    disk.empty();
    await scene.bringDatabaseBack();
    await using logger = scene.startLogger();
    await waitForRows(database, survivors.length, { timeoutMs: 15_000 });
    await expectStored(database, survivors);
    await stopCleanly(logger);
    onlyLine(logger, "ERROR", /^The spool '.*' is damaged .* is kept as '/);
  });

  await t.step("that it comes upon while it runs", async () => {
    await database.query("TRUNCATE sensor_data");
    for (const { name } of Deno.readDirSync(directory)) Deno.removeSync(`${directory}/${name}`);
    await scene.takeDatabaseAway();
    await using logger = scene.startLogger({}, { sources: sources.path });
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadings(broker, readings, { qos: 1 });
    await waitForSpooled(directory, readings.length);
    Deno.truncateSync(file, Deno.statSync(file).size - 40 * PAGE);
    const survivors = readingsIn(Deno.readFileSync(file), readings);
    disk.fill();
    const others = makeReadings({ count: 100, startTimeUs: 0n });
    await publishReadings(broker, others, { qos: 1 });
    await logger.waitForLine(SPOOL_FULL);
    await scene.bringDatabaseBack();
    await waitForRows(database, others.length);
    disk.empty();
    await waitForRows(database, survivors.length + others.length, { timeoutMs: 15_000 });
    await expectStored(database, [...survivors, ...others]);
    const { stored, unreadable, spooled } = await stopCleanly(logger);
    const lost = readings.length - survivors.length;
    assert.ok(lost > 0);
    assert.deepEqual([stored, unreadable, spooled], [survivors.length + 100, lost, 0]);
  });
});

Deno.test("run tells how the spool empties, where that takes long", {
  ignore: withoutMosquitto || withoutSources,
}, async () => {
  const file = "lib/spool_progress.ts";
  using sources = breakSources([
    { file, find: "QUIET_MS = 5_000;", replace: "QUIET_MS = 300;" },
    { file, find: "REPORT_MS = 10_000;", replace: "REPORT_MS = 600;" },
  ]);
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 8000 });
  await slowInserts(database, 0.4);
  await scene.takeDatabaseAway();
  await using logger = scene.startLogger({ DATABASE_CONNECTIONS: "1" }, { sources: sources.path });
  await logger.waitForLine("Connected to MQTT broker");
  await publishReadingsFast(broker, readings, { qos: 1 });
  await waitForSpooled(directory, readings.length);
  await logger.waitForLine(
    /INFO {5}\d+ messages are in the spool until the database takes them\.$/,
  );
  await scene.bringDatabaseBack();
  const emptying =
    /INFO {5}Emptying the spool: (\d+) messages left, (\d+) stored a second, \d+ s left\./;
  const line = await logger.waitForLine(emptying);
  const [left, rate] = emptying.exec(line)?.slice(1).map(Number) ?? [];
  assert.ok(left !== undefined && left < readings.length && (rate ?? 0) > 0, line);
  await logger.waitForLine(
    /INFO {5}The spool is empty again: 8000 messages went through it in \d+\.\d s/,
  );
  await expectStored(database, readings);
  await stopCleanly(logger);
});

/** The payloads of readings, in the order of the payloads. */
function payloadsOf(readings: readonly Reading[]): string[] {
  return readings.map(toPayload).toSorted();
}

/** Asserts that one transaction after the other stored older readings than the next. */
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

/** Sizes of the files in a directory, and when they were last written to. */
function describeFiles(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => {
    const { size, mtime } = Deno.statSync(`${directory}/${name}`);
    return `${name}: ${size} bytes, ${mtime?.getTime()}`;
  }).toSorted();
}

/** Those readings whose payload is in the bytes, wherever that is. */
function readingsIn(bytes: Uint8Array, readings: readonly Reading[]): Reading[] {
  const text = new TextDecoder("latin1").decode(bytes);
  const payloads = new Set(text.matchAll(/\{"timestamp"[^}]*\}/g).map(([payload]) => payload));
  return readings.filter((reading) => payloads.has(toPayload(reading)));
}

/** Writes garbage to a file that may be in use. */
function overwrite(path: string, { at, pages }: { at: number; pages: number }): void {
  using file = Deno.openSync(path, { write: true });
  file.seekSync(at, Deno.SeekMode.Start);
  file.writeSync(randomBytes(pages * PAGE));
}

function randomBytes(count: number): Uint8Array<ArrayBuffer> {
  const random = createRandom(1);
  return Uint8Array.from({ length: count }, () => random() * 256);
}

/** Makes a directory read-only for whoever opens something in it from now on, until disposal. */
async function mountReadOnly(path: string): Promise<AsyncDisposable> {
  await runSuccessfully("mount", { args: ["--bind", path, path] });
  await runSuccessfully("mount", { args: ["-o", "remount,bind,ro", path] });
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await runSuccessfully("umount", { args: ["--lazy", path] });
    },
  };
}
