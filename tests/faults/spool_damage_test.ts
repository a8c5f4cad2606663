/**
 * A damaged spool file: it is kept under another name, its readable messages are stored, and no
 * in-flight message is lost.
 */
import assert from "node:assert/strict";
import { waitUntil } from "../support/poll.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import {
  createRandom,
  expectStored,
  makeReadings,
  type Reading,
  toPayload,
} from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { linesOf, onlyLine, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { lacksMount, mountSmallDisk } from "./small_disk.ts";
import { expectSpooled, SPOOL_FILE, waitForSpooled } from "./spool_file.ts";
import { setScene, SPOOL_DISK_FULL } from "./spool_scene.ts";
import { lacks } from "../support/programs.ts";
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

/** Size of a page of the file. */
const PAGE = 4096;

/** A damaged file, and the minimum and maximum number of its readable messages. */
interface DamageCase {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly expected: readonly [least: number, most: number];
}

Deno.test("run replaces a damaged spool, stores its readable messages and continues", {
  ignore: lacks("mosquitto"),
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
      const said = onlyLine(
        logger,
        "ERROR",
        /^The spool '.*' is damaged \(.*\)\. The damaged file is kept as '/,
      );
      assert.ok(said.includes(` Recovered ${survivors.length} messages `), said);
      const aside = /is kept as '([^']+)'/.exec(said)?.[1] ?? "";
      const kept = Deno.readFileSync(aside);
      assert.equal(kept.length, bytes.length);
      assert.deepEqual(readingsIn(kept, readings), survivors);
    });
  }

  await t.step("an empty file becomes a new spool", async () => {
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
  "run detects damage to its spool in use, and continues with the readable messages",
  {
    ignore: lacks("mosquitto"),
  },
  async () => {
    await using scene = await setScene(postgres);
    const { database, broker, directory } = scene;
    // Several times the cache of SQLite, which has 2 MB.
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
    onlyLine(logger, "ERROR", new RegExp(`^Could not read ${lost} spooled messages? from`));
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.stored, counts.unreadable, counts.spooled], [30_500 - lost, lost, 0]);
  },
);

Deno.test("run spools its in-flight messages again when its spool is damaged", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, directory } = scene;
  const readings = makeReadings({ count: 400 });
  const [before, after] = [readings.slice(0, 200), readings.slice(200)];
  let kept: Reading[];
  {
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
    await publishReadings(broker, before, { qos: 1 });
    await using logger = scene.startLogger();
    await waitForSpooled(directory, before.length);
    Deno.writeFileSync(`${directory}/${SPOOL_FILE}`, randomBytes(20 * PAGE));
    await publishReadings(broker, after, { qos: 1 });
    await logger.waitForLine(/The spool '.*' is damaged .* Recovered 0 messages /);
    await scene.takeDatabaseAway();
    // Otherwise the server would store them when the lock is released.
    await database.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    );
    const { spooled, unreadable } = await stopCleanly(logger);
    // The connections have taken the oldest messages; the others were only in the file.
    kept = [...before.slice(0, before.length - unreadable), ...after];
    assert.ok(kept.length > after.length, "no message was in flight");
    assert.equal(spooled, kept.length);
    expectSpooled(directory, kept);
  }
  assert.equal(await database.countReadings(), 0);
  await scene.bringDatabaseBack();
  await using logger = scene.startLogger();
  await waitForRows(database, kept.length);
  await expectStored(database, kept);
  const { found, stored } = await stopCleanly(logger);
  assert.deepEqual([found, stored], [kept.length, kept.length]);
});

Deno.test(
  "run keeps a damaged spool while the disk has no space for a new one",
  {
    ignore: lacks("mosquitto") || lacksMount(),
  },
  async (t) => {
    await using disk = await mountSmallDisk({ ownerOf: "/" });
    await using scene = await setScene(postgres, { directory: disk.path });
    const { database, broker, directory } = scene;
    const file = `${directory}/${SPOOL_FILE}`;
    const readings = makeReadings({ count: 3000 });
    await scene.takeDatabaseAway();

    await t.step("damage detected at the start", async () => {
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
        // It may exit or continue without a spool; both must be logged.
        await waitUntil(() =>
          !logger.isRunning ||
          logger.lines.some((line) => line.includes("Connected to MQTT broker"))
        );
        await logger.kill();
        assert.match(logger.lines.join("\n"), /(ERROR {3}|CRITICAL) .* is full/);
      }
      disk.empty();
      await scene.bringDatabaseBack();
      await using logger = scene.startLogger();
      await waitForRows(database, survivors.length, { timeoutMs: 15_000 });
      await expectStored(database, survivors);
      await stopCleanly(logger);
      onlyLine(logger, "ERROR", /^The spool '.*' is damaged .* is kept as '/);
    });

    await t.step("damage detected while it runs", async () => {
      await database.query("TRUNCATE sensor_data");
      for (const { name } of Deno.readDirSync(directory)) Deno.removeSync(`${directory}/${name}`);
      await scene.takeDatabaseAway();
      const env = { APPLICATION_LOG_LEVEL: "DEBUG", ...tune({ rescueRetryMs: 500 }) };
      await using logger = scene.startLogger(env);
      await logger.waitForLine("Connected to MQTT broker");
      await publishReadings(broker, readings, { qos: 1 });
      await waitForSpooled(directory, readings.length);
      Deno.truncateSync(file, Deno.statSync(file).size - 40 * PAGE);
      const survivors = readingsIn(Deno.readFileSync(file), readings);
      disk.fill();
      const others = makeReadings({ count: 100, startTimeUs: 0n });
      await publishReadings(broker, others, { qos: 1 });
      await logger.waitForLine(SPOOL_DISK_FULL);
      await scene.bringDatabaseBack();
      await waitForRows(database, others.length);
      // It has detected the damage by reading, but has no space for a new file.
      await logger.waitForLine(/DEBUG {4}Cannot read the spool: .*\bdisk is full/);
      const damaged = /^The spool '.*' is damaged .* is kept as '/;
      assert.deepEqual(linesOf(logger, "ERROR").filter((line) => damaged.test(line)), []);
      disk.empty();
      await waitForRows(database, survivors.length + others.length, { timeoutMs: 15_000 });
      await expectStored(database, [...survivors, ...others]);
      const { stored, unreadable, spooled } = await stopCleanly(logger);
      const lost = readings.length - survivors.length;
      assert.ok(lost > 0);
      assert.deepEqual([stored, unreadable, spooled], [survivors.length + 100, lost, 0]);
      onlyLine(logger, "ERROR", damaged);
    });
  },
);

/** The readings whose payload is anywhere in the bytes. */
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
