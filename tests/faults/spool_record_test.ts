/**
 * Messages that are rejected while a full spool drains are recorded with their payloads, and a
 * retry reports the outcome of each.
 */
import assert from "node:assert/strict";
import { runLogger } from "../support/logger_process.ts";
import { publishPayloads } from "../support/publisher.ts";
import { expectStored, makeReadings, toPayload } from "../support/readings.ts";
import { stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { setScene } from "./spool_scene.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

Deno.test("run records all rejected messages while it drains a full spool", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres, { env: { SPOOL_MAX_BYTES: "2M" } });
  const { database, broker, env } = scene;
  const readings = makeReadings({ count: 12_000 });
  // Fewer than the record can hold in a spool of this size.
  const bad = Array.from({ length: 500 }, (_, index) => `bad ${index}`);
  const payloads = readings.flatMap((reading, index) =>
    index % 24 === 0 ? [bad[index / 24] as string, toPayload(reading)] : [toPayload(reading)]
  );
  await scene.takeDatabaseAway();
  await using logger = scene.startLogger();
  await logger.waitForLine("Connected to MQTT broker");
  await publishPayloads(broker, payloads, { topic: "sensors/a/b" });
  await logger.waitForLine("The spool is not accepting messages: it has reached the size");
  await scene.bringDatabaseBack();
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.rejected, counts.spooled], [bad.length, 0]);
  assert.deepEqual(logger.lines.filter((line) => line.includes("Cannot record")), []);
  const { stdout } = await runLogger(["rejected", "--json"], env);
  const recorded = stdout.trim().split("\n").map((line) => JSON.parse(line).payload as string);
  assert.deepEqual(recorded.sort(), bad.sort());
});

Deno.test("a retry reports a reading that is already stored, and keeps it in the record", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres);
  const { database, broker, env } = scene;
  await database.query("ALTER TABLE sensor_data ALTER COLUMN value TYPE smallint");
  const [first, second] = makeReadings({ count: 2 }).map((reading, _, [same]) => ({
    ...reading,
    ...{ uuid: same?.uuid ?? reading.uuid, sid: same?.sid ?? reading.sid },
    timeUs: same?.timeUs ?? reading.timeUs,
  }));
  assert.ok(first && second);
  const payloads = [{ ...first, value: 70_000 }, { ...second, value: 80_000 }].map(toPayload);
  {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await publishPayloads(broker, payloads, { topic: "sensors/a/b" });
    await logger.waitForLine(/value is '80000'/);
    await stopCleanly(logger);
  }
  await database.query("ALTER TABLE sensor_data ALTER COLUMN value TYPE integer");
  const { code, stdout } = await runLogger(["rejected", "--retry"], env);
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^duplicate 20.* sensors\/a\/b: the table already has a reading of this sensor/m,
  );
  assert.match(stdout, /^stored {4}20.* sensors\/a\/b$/m);
  assert.match(stdout, /\nStored 1 of 2 rejected messages\.\n$/);
  const rows = await database.query<{ value: number }>("SELECT value FROM sensor_data");
  assert.deepEqual(rows.map(({ value }) => value), [70_000]);
  const { stdout: left } = await runLogger(["rejected", "--json"], env);
  assert.deepEqual(left.trim().split("\n").map((line) => JSON.parse(line).payload), [payloads[1]]);
});
