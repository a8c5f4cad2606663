/**
 * The spool on a full or read-only disk: messages that it does not accept stay with the broker, and
 * its content can still be drained.
 */
import assert from "node:assert/strict";
import { waitUntil } from "../support/poll.ts";
import { runSuccessfully } from "../support/process.ts";
import { publishReadings } from "../support/publisher.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import { CLIENT_ID, onlyLine, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { lacksMount, mountSmallDisk } from "./small_disk.ts";
import { countSpooled, SPOOL_FILE, waitForSpooled } from "./spool_file.ts";
import { setScene, SPOOL_DISK_FULL } from "./spool_scene.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

const SPOOL_FULL = /ERROR {4}The spool is not accepting messages: .* SPOOL_MAX_BYTES /;
const SPOOL_RECOVERED = /INFO {5}The spool is accepting messages again/;

Deno.test("run leaves messages with the broker that a full spool does not accept", {
  ignore: lacks("mosquitto"),
}, async () => {
  await using scene = await setScene(postgres, {
    env: { SPOOL_MAX_BYTES: "1M" },
    broker: { config: ["log_type debug"] },
  });
  const { database, broker, directory } = scene;
  // More messages than spool and in-flight window hold.
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
    }, { what: "the acknowledgement of the spooled messages" });
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
  onlyLine(logger, "ERROR", /^The spool is not accepting messages: /);
  onlyLine(logger, "INFO", /^The spool is accepting messages again after \d+\.\d s\.$/);
  const { received, found, stored, spooled } = await stopCleanly(logger);
  assert.deepEqual([received, found, stored, spooled], [14_000 - kept, kept, 14_000, 0]);
});

Deno.test("run continues on a full disk, and drains the spool while the disk is full", {
  ignore: lacks("mosquitto") || lacksMount(),
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
    await logger.waitForLine(SPOOL_DISK_FULL);
    assert.ok(countSpooled(directory) < 4000, "the disk had space for all of them");
    disk.empty();
    await logger.waitForLine(SPOOL_RECOVERED);
    await waitForSpooled(directory, 4000);
    await stopCleanly(logger);
  }
  disk.fill();
  await using logger = scene.startLogger();
  await logger.waitForLine("Found 4000 messages of an earlier run in the spool.");
  await publishReadings(broker, readings.slice(4000), { qos: 1 });
  await logger.waitForLine(SPOOL_DISK_FULL);
  await scene.bringDatabaseBack();
  await waitForRows(database, readings.length);
  await waitForSpooled(directory, 0);
  await expectStored(database, readings);
  const { stored, spooled } = await stopCleanly(logger);
  assert.deepEqual([stored, spooled], [5000, 0]);
});

Deno.test("run does not start with a spool directory that cannot be used", {
  ignore: lacks("mosquitto") || lacksMount(),
}, async (t) => {
  using directory = withTemporaryDirectory();
  const { path } = directory;
  Deno.mkdirSync(`${path}/empty`);
  Deno.writeTextFileSync(`${path}/file`, "");
  await using _mount = await mountReadOnly(`${path}/empty`);
  await using scene = await setScene(postgres, { spool: false });
  const cases = [
    { name: "read-only", directory: `${path}/empty` },
    { name: "missing, in a read-only directory", directory: `${path}/empty/spool` },
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

Deno.test("run continues when its spool becomes read-only", {
  ignore: lacks("mosquitto") || lacksMount(),
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
    await logger.waitForLine(/ERROR {4}The spool is not accepting messages: /);
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

/** Makes a directory read-only for newly opened files, until disposal. */
async function mountReadOnly(path: string): Promise<AsyncDisposable> {
  await runSuccessfully("mount", { args: ["--bind", path, path] });
  await runSuccessfully("mount", { args: ["-o", "remount,bind,ro", path] });
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await runSuccessfully("umount", { args: ["--lazy", path] });
    },
  };
}
