/**
 * What is not stored is recorded, and can be looked at and sent again while the logger runs.
 */
import assert from "node:assert/strict";
import { startBroker } from "../services/broker.ts";
import { loggerEnv, runLogger, startLogger } from "../services/logger_process.ts";
import { publishPayloads, publishReadings } from "../services/publisher.ts";
import { expectStored, makeReadings, makeSensors, toPayload } from "../services/readings.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "./harness.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";

const postgres = usePostgres();

Deno.test("rejected lists what was rejected, and sends it again", async (t) => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase({ valueType: "smallint" });
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
  const readings = makeReadings({ count: 6 }).map((reading, index) => ({
    ...reading,
    // The third and the fifth do not fit.
    value: [2, 4].includes(index) ? 70_000 + index : index,
  }));
  const fitting = readings.filter(({ value }) => value < 70_000);
  const binary = new Uint8Array([0xff, 0x00, 0x1b]);
  await using logger = startLogger(env);
  await logger.waitForLine("Connected to MQTT broker");
  await publishPayloads(broker, ["hello\u001b[31m", binary], { topic: "sensors/other" });
  await publishReadings(broker, readings, { topic: "sensors/lab/1" });
  await waitForRows(database, fitting.length);

  await t.step("in text, without control characters", async () => {
    const { code, stdout } = await runLogger(["rejected"], env);
    assert.equal(code, 0);
    const lines = stdout.split("\n");
    assert.match(lines[0] ?? "", /^20\d\d-\d\d-\d\d \d\d:\d\d:\d\d sensors\/other: .*not JSON/);
    assert.match(lines[1] ?? "", /^ {4}hello\\u001b\[31m$/);
    assert.match(lines[2] ?? "", /sensors\/other: the payload is not UTF-8$/);
    assert.match(lines[3] ?? "", /^ {4}0xff001b$/);
    assert.match(lines[4] ?? "", /sensors\/lab\/1: value is '70002', outside the range/);
    assert.deepEqual(lines.slice(-2), ["4 rejected messages.", ""]);
  });

  await t.step("as JSON, with every byte of the payload", async () => {
    const { stdout } = await runLogger(["rejected", "--json"], env);
    const messages = stdout.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(messages.map(({ payload }) => payload), [
      "hello\u001b[31m",
      undefined,
      toPayload(readings[2] as typeof readings[0]),
      toPayload(readings[4] as typeof readings[0]),
    ]);
    assert.equal(messages[1].payloadBase64, "/wAb");
    for (const { time, topic, reason } of messages) {
      assert.ok(Math.abs(Date.parse(time) - Date.now()) < 600_000, time);
      assert.ok(topic.startsWith("sensors/") && reason.length > 0);
    }
  });

  await t.step("by topic and time", async () => {
    const count = async (...args: string[]): Promise<number> => {
      const { stdout } = await runLogger(["rejected", "--json", ...args], env);
      return stdout.split("\n").length - 1;
    };
    assert.equal(await count("--topic", "sensors/lab/#"), 2);
    assert.equal(await count("--topic", "sensors/+"), 2);
    assert.equal(await count("--since", "1h"), 4);
    assert.equal(await count("--since", "2100-01-01"), 0);
  });

  await t.step("with --retry nothing changes as long as the cause is there", async () => {
    const { code, stdout } = await runLogger(["rejected", "--retry"], env);
    assert.equal(code, 0);
    assert.equal(stdout.match(/^rejected /gm)?.length, 4);
    assert.match(stdout, /\n0 of 4 rejected messages stored\.\n$/);
    await expectStored(database, fitting);
  });

  await t.step("with --retry what can be stored now is stored, and leaves the record", async () => {
    await database.query("ALTER TABLE sensor_data ALTER COLUMN value TYPE integer");
    const { code, stdout } = await runLogger(["rejected", "--retry", "--topic", "sensors/#"], env);
    assert.equal(code, 0);
    assert.equal(stdout.match(/^stored +\d{4}-.* sensors\/lab\/1$/gm)?.length, 2);
    assert.match(stdout, /\n2 of 4 rejected messages stored\.\n$/);
    await expectStored(database, readings);
    assert.match((await runLogger(["rejected"], env)).stdout, /\n2 rejected messages\.\n$/);
  });

  await t.step("with --retry while the database is away nothing is lost", async () => {
    const elsewhere = { ...env, DATABASE_PASSWORD: "wrong" };
    const { code, stdout } = await runLogger(["rejected", "--retry"], elsewhere);
    assert.equal(code, 1);
    assert.match(stdout, /PROBLEM .*authentication failed.* still recorded\.\n$/);
    assert.match((await runLogger(["rejected"], env)).stdout, /\n2 rejected messages\.\n$/);
  });

  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.rejected], [4, 4]);
});

Deno.test("unknown lists the sensors that are not registered, until they are", async (t) => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
  const [first, second] = makeSensors(2, 7);
  assert.ok(first && second);
  const known = makeReadings({ count: 3 });
  const unknown = makeReadings({ count: 5, sensors: [first, second] });
  {
    await using logger = startLogger(env);
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadings(broker, unknown);
    await publishReadings(broker, known);
    await waitForRows(database, known.length);
    await stopCleanly(logger);
  }

  await t.step("as a table", async () => {
    const { code, stdout } = await runLogger(["unknown"], env);
    assert.equal(code, 0);
    const [heading, ...rows] = stdout.trimEnd().split("\n");
    assert.match(heading ?? "", /^uuid +sid +topic +last value +readings +first seen +last seen$/);
    const row = rows.find((line) => line.startsWith(`${first.uuid}  ${first.sid}`));
    // Which one is the last depends on the connection that was faster.
    const published = unknown.filter(({ uuid }) => uuid === first.uuid);
    const cells = row?.split(/ {2,}/) ?? [];
    assert.deepEqual([cells[2], cells[4]], [`sensors/test/${first.uuid}/${first.sid}`, "3"]);
    assert.ok(published.some(({ value }) => cells[3] === `${value} K`), stdout);
    assert.equal(rows.length, 2);
  });

  await t.step("as JSON", async () => {
    const { stdout } = await runLogger(["unknown", "--json"], env);
    const sensors = stdout.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(
      new Set(sensors.map(({ uuid, sid, count, unit }) => [uuid, sid, count, unit].join())),
      new Set([
        [first.uuid, first.sid, 3, "K"].join(),
        [second.uuid, second.sid, 2, "K"].join(),
      ]),
    );
  });

  await t.step("as SQL that registers them, after which their readings are stored", async () => {
    const { stdout } = await runLogger(["unknown", "--sql"], env);
    await database.query(stdout);
    await using logger = startLogger(env);
    await publishReadings(broker, unknown);
    await waitForRows(database, known.length + unknown.length);
    await expectStored(database, [...known, ...unknown]);
    await stopCleanly(logger);
  });

  await t.step("and those that are registered are left out", async () => {
    const { stdout } = await runLogger(["unknown"], env);
    assert.equal(stdout, "No unknown sensors.\n");
  });
});

Deno.test("rejected and unknown say what is missing", async () => {
  using directory = withTemporaryDirectory();
  const env = { DATABASE_HOST: "localhost", DATABASE_USER: "x", DATABASE_PASSWORD: "y" };
  for (const command of ["rejected", "unknown"]) {
    const unset = await runLogger([command], env);
    assert.equal(unset.code, 78);
    assert.match(unset.stderr, /SPOOL_DIRECTORY: must be set/);
    const empty = await runLogger([command], { ...env, SPOOL_DIRECTORY: directory.path });
    assert.equal(empty.code, 1);
    assert.match(empty.stderr, /cannot read the spool: there is no '.*spool.sqlite'/);
  }
});
