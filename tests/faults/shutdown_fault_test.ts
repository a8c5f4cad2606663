/**
 * A signal while the database hangs: in-flight messages are spooled, or stay with the broker
 * without a spool, before the documented deadline.
 */
import assert from "node:assert/strict";
import { waitUntil } from "../support/poll.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import {
  linesOf,
  readCounts,
  stopWhenDrained,
  usePostgres,
  waitForBlockedInsert,
  waitForRows,
} from "../support/harness.ts";
import { countSpooled, expectSpooled } from "./spool_file.ts";
import { setScene } from "./spool_scene.ts";
import { lacks } from "../support/programs.ts";

const postgres = usePostgres();

/** The documented maximum time from the signal to the exit … */
const DEADLINE_MS = 10_000;

/** … and the time that closing the connections may take on a busy machine. */
const GOODBYE_MS = 2_000;

for (const spool of [true, false]) {
  const name = spool
    ? "in-flight messages are spooled at a signal while the database hangs, before the deadline"
    : "without a spool, in-flight messages stay with the broker at a signal, and the deadline is kept";
  Deno.test(name, { ignore: lacks("mosquitto") }, async () => {
    const env = { APPLICATION_LOG_LEVEL: "DEBUG" };
    await using scene = await setScene(postgres, { spool, env });
    const { database, broker, directory } = scene;
    const readings = makeReadings({ count: 60 });
    {
      await using lock = await database.connect();
      await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
      await using logger = scene.startLogger();
      await logger.waitForLine("Connected to MQTT broker");
      await logger.waitForLine("Connected to database");
      await Promise.all(
        ([1, 2] as const).map((qos) =>
          publishReadings(broker, readings.filter((_, index) => index % 2 === qos - 1), { qos })
        ),
      );
      await waitUntil(
        () => linesOf(logger, "DEBUG").filter((line) => /^Received on /.test(line)).length === 60,
        { what: "all readings to be in flight" },
      );
      // No message may be spooled between this check of the spool and the signal.
      logger.signal("SIGSTOP");
      await waitForBlockedInsert(database);
      if (spool) assert.equal(countSpooled(directory), 0, "the signal came too late");
      logger.signal("SIGTERM");
      const startMs = performance.now();
      const status = await logger.stop("SIGCONT");
      const durationMs = performance.now() - startMs;
      assert.equal(status, spool ? 0 : 1);
      // The database may recover until the deadline.
      const isInTime = durationMs < DEADLINE_MS + GOODBYE_MS;
      assert.ok(isInTime && (spool || durationMs >= DEADLINE_MS), `it took ${durationMs} ms`);
      const { received, stored, spooled, waiting } = readCounts(logger);
      assert.deepEqual(
        [received, stored, spooled, waiting],
        [60, 0, ...(spool ? [60, 0] : [0, 60])],
      );
      const left = "Could not store 60 messages in time. The broker redelivers unacknowledged " +
        "messages, except those of QoS 0.";
      assert.deepEqual(linesOf(logger, "ERROR"), spool ? [] : [left]);
      if (spool) expectSpooled(directory, readings);
      assert.equal(await database.countReadings(), 0);
      await lock.query("ROLLBACK");
    }
    await using again = scene.startLogger();
    await waitForRows(database, readings.length);
    const counts = await stopWhenDrained(again, broker);
    await expectStored(database, readings);
    // In addition to the messages that are sent again, there is the marker.
    assert.deepEqual([counts.found, counts.received], spool ? [60, 1] : [0, 61]);
    // The server may complete the statement of a disconnected client: then these are duplicates.
    assert.equal(counts.stored + counts.duplicates, readings.length);
    assert.deepEqual([counts.spooled, counts.waiting], [0, 0]);
  });
}
