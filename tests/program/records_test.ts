/**
 * Messages that are not stored are recorded; they can be listed and retried while the logger runs.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import {
  type LoggerEnv,
  loggerEnv,
  type LoggerServices,
  runLogger,
  startLogger,
} from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import {
  expectStored,
  makeReadings,
  makeSensors,
  type Reading,
  toPayload,
} from "../support/readings.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { type TemporaryDirectory, withTemporaryDirectory } from "../support/temporary_directory.ts";

const postgres = usePostgres();

/**
 * One connection, so that messages are processed in their order, and times in UTC, so that the test
 * does not depend on the time zone of the host.
 */
function orderlyEnv(
  { directory, ...services }: LoggerServices & { readonly directory: TemporaryDirectory },
): LoggerEnv {
  const settings = { DATABASE_CONNECTIONS: "1", TZ: "UTC" };
  return loggerEnv(services, { SPOOL_DIRECTORY: directory.path, ...settings });
}

/** Waits for the next second, so that later times differ from earlier ones. */
async function nextSecond(): Promise<number> {
  const now = (): number => Math.floor(Date.now() / 1000);
  const before = now();
  await waitUntil(() => now() > before, { what: "the next second" });
  return Date.now();
}

function expectAscending(timesMs: readonly (number | undefined)[]): void {
  for (const [index, timeMs = NaN] of timesMs.entries()) {
    assert.ok((timesMs[index - 1] ?? -Infinity) <= timeMs, `number ${index} of ${timesMs}`);
  }
}

Deno.test("rejected lists the rejected messages, and retries them", async (t) => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase({ valueType: "smallint" });
  await using broker = await startBroker();
  await createSession(broker);
  const env = orderlyEnv({ database, broker, directory });
  const readings = makeReadings({ count: 6 }).map((reading, index) => ({
    ...reading,
    // The third and the fifth do not fit.
    value: [2, 4].includes(index) ? 70_000 + index : index,
  }));
  const fitting = readings.filter(({ value }) => value < 70_000);
  const binary = new Uint8Array([0xff, 0x00, 0x1b]);
  await using logger = startLogger(env);
  await logger.waitForLine("Connected to MQTT broker");
  const startMs = Date.now();
  await publishPayloads(broker, ["hello\u001b[31m", binary], { topic: "sensors/other" });
  await logger.waitForLine("Rejected a message on 'sensors/other': the payload is not UTF-8");
  const betweenMs = await nextSecond();
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
    assert.deepEqual(messages.map(({ topic }) => topic), [
      ...["sensors/other", "sensors/other"],
      ...["sensors/lab/1", "sensors/lab/1"],
    ]);
    for (const { reason } of messages) assert.ok(reason.length > 0);
    const times = messages.map(({ time }) => Date.parse(time));
    expectAscending([startMs, ...times.slice(0, 2), betweenMs, ...times.slice(2), Date.now()]);
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
    const between = new Date(betweenMs).toISOString();
    assert.equal(await count("--since", between), 2);
    assert.equal(await count("--since", between, "--topic", "sensors/lab/#"), 2);
    assert.equal(await count("--since", between, "--topic", "sensors/other"), 0);
  });

  await t.step("with --retry nothing changes while the cause persists", async () => {
    const { code, stdout } = await runLogger(["rejected", "--retry"], env);
    assert.equal(code, 0);
    assert.equal(stdout.match(/^rejected /gm)?.length, 4);
    assert.match(stdout, /\nStored 0 of 4 rejected messages\.\n$/);
    await expectStored(database, fitting);
  });

  await t.step("with --retry messages that can be stored now leave the record", async () => {
    await database.query("ALTER TABLE sensor_data ALTER COLUMN value TYPE integer");
    const { code, stdout } = await runLogger(["rejected", "--retry", "--topic", "sensors/#"], env);
    assert.equal(code, 0);
    assert.equal(stdout.match(/^stored +\d{4}-.* sensors\/lab\/1$/gm)?.length, 2);
    assert.match(stdout, /\nStored 2 of 4 rejected messages\.\n$/);
    await expectStored(database, readings);
    assert.match((await runLogger(["rejected"], env)).stdout, /\n2 rejected messages\.\n$/);
  });

  await t.step("with --retry while the database refuses the login nothing is lost", async () => {
    const elsewhere = { ...env, DATABASE_PASSWORD: "wrong" };
    const { code, stdout } = await runLogger(["rejected", "--retry"], elsewhere);
    assert.equal(code, 1);
    assert.match(stdout, /PROBLEM .*authentication failed.* still recorded\.\n$/);
    assert.match((await runLogger(["rejected"], env)).stdout, /\n2 rejected messages\.\n$/);
  });

  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.rejected], [4, 4]);
});

Deno.test("unknown lists unregistered sensors until they are registered", async (t) => {
  using directory = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = orderlyEnv({ database, broker, directory });
  const [first, second] = makeSensors(2, 7);
  assert.ok(first && second);
  const known = makeReadings({ count: 3 });
  const unknown = makeReadings({ count: 5, sensors: [first, second] });
  const last = unknown[4] as Reading;
  // Each of three parts is published between two of these times.
  const timesMs = [Date.now()];
  {
    await using logger = startLogger(env);
    await logger.waitForLine("Connected to MQTT broker");
    await publishReadings(broker, unknown.slice(0, 2), { topic: "sensors/attic" });
    for (const { uuid } of [first, second]) await logger.waitForLine(`Sensor ${uuid} sid `);
    timesMs.push(await nextSecond());
    await publishReadings(broker, unknown.slice(2, 4), { topic: "sensors/cellar" });
    await publishReadings(broker, known);
    await waitForRows(database, known.length);
    await stopCleanly(logger);
  }
  timesMs.push(await nextSecond());
  {
    await using logger = startLogger(env);
    const payload = toPayload(last).replace('"K"', '"°C"');
    await publishPayloads(broker, [payload], { topic: "sensors/garden" });
    await logger.waitForLine(`Sensor ${first.uuid} sid `);
    await stopCleanly(logger);
  }
  timesMs.push(Date.now());

  const expected = [
    { ...first, topic: "sensors/garden", value: String(last.value), unit: "°C", count: 3 },
    { ...second, topic: "sensors/cellar", value: String(unknown[3]?.value), unit: "K", count: 2 },
  ];
  const seen: { readonly first: string; readonly last: string }[] = [];

  await t.step("as JSON", async () => {
    const { stdout } = await runLogger(["unknown", "--json"], env);
    const sensors = stdout.trim().split("\n").map((line) => JSON.parse(line));
    seen.push(...sensors.map(({ firstSeen, lastSeen }) => ({ first: firstSeen, last: lastSeen })));
    assert.deepEqual(sensors.map(({ firstSeen: _, lastSeen: __, ...others }) => others), expected);
    const [one, other] = seen.map((times) => [times.first, times.last].map(Date.parse));
    const [start = NaN, afterFirst = NaN, afterSecond = NaN, end = NaN] = timesMs;
    expectAscending([start, one?.[0], afterFirst, afterSecond, one?.[1], end]);
    expectAscending([start, other?.[0], afterFirst, other?.[1], afterSecond]);
  });

  const formatTime = (time = ""): string => time.slice(0, 19).replace("T", " ");

  await t.step("as a table", async () => {
    const { code, stdout } = await runLogger(["unknown"], env);
    assert.equal(code, 0);
    const [heading, ...rows] = stdout.trimEnd().split("\n");
    assert.match(heading ?? "", /^uuid +sid +topic +last value +readings +first seen +last seen$/);
    assert.deepEqual(
      rows.map((row) => row.split(/ {2,}/)),
      expected.map(({ uuid, sid, topic, value, unit, count }, index) => [
        ...[uuid, String(sid), topic, `${value} ${unit}`, String(count)],
        ...[formatTime(seen[index]?.first), formatTime(seen[index]?.last)],
      ]),
    );
  });

  await t.step("as SQL that registers them, after which their readings are stored", async () => {
    const { stdout } = await runLogger(["unknown", "--sql"], env);
    assert.deepEqual(
      stdout.split("\n").filter((line) => line.startsWith("--")),
      expected.map(({ topic, value, unit, count }, index) =>
        `-- ${topic}, last value ${value} ${unit}, ${count} readings, ` +
        `last seen ${formatTime(seen[index]?.last)}`
      ),
    );
    await database.query(stdout);
    await using logger = startLogger(env);
    await publishReadings(broker, unknown);
    await waitForRows(database, known.length + unknown.length);
    await expectStored(database, [...known, ...unknown]);
    await stopCleanly(logger);
  });

  await t.step("registered sensors are no longer listed", async () => {
    const { stdout } = await runLogger(["unknown"], env);
    assert.equal(stdout, "No unknown sensors.\n");
  });
});

Deno.test("rejected and unknown name a missing setting and a missing spool", async () => {
  using directory = withTemporaryDirectory();
  const env = { DATABASE_HOST: "localhost", DATABASE_USER: "x", DATABASE_PASSWORD: "y" };
  for (const command of ["rejected", "unknown"]) {
    const unset = await runLogger([command], env);
    assert.equal(unset.code, 78);
    assert.match(unset.stderr, /SPOOL_DIRECTORY: must be set/);
    const empty = await runLogger([command], { ...env, SPOOL_DIRECTORY: directory.path });
    assert.equal(empty.code, 1);
    assert.match(
      empty.stderr,
      /cannot read the spool: there is no '.*spool.sqlite'; the logger creates it when/,
    );
  }
});
