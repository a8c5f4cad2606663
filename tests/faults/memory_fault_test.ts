/**
 * A logger with a memory limit, and a large backlog.
 *
 * `KRAKEN_TEST_BACKLOG` is the number of messages: so many that they would not fit into the memory.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { LoggerProcess } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import { expectStored, makeReadings } from "../support/readings.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { limitMemory, readPeakBytes } from "./memory_limit.ts";
import { countSpooled, SPOOL_FILE } from "./spool_file.ts";
import { setScene } from "./spool_scene.ts";
import { lacks } from "../support/programs.ts";

const BACKLOG = Number(Deno.env.get("KRAKEN_TEST_BACKLOG") ?? 500_000);

/** Timeout of each operation on the whole backlog. */
const TIMEOUT_MS = 300_000;

/** Outside of CI, without control groups, the peak memory of the logger is checked instead. */
const WITHOUT_LIMIT = "the memory of a process cannot be limited here: that needs root, and " +
  "permission to create control groups for memory";

const postgres = usePostgres();

/**
 * Waits until the messages are in a new spool. Repeated counting meanwhile would block the logger.
 */
async function waitForBacklog(directory: string): Promise<void> {
  await waitUntil(() => readLastId(directory) >= BACKLOG, {
    what: `${BACKLOG} messages in the spool`,
    timeoutMs: TIMEOUT_MS,
    intervalMs: 100,
  });
  assert.equal(countSpooled(directory), BACKLOG);
}

function readLastId(directory: string): number {
  const spool = new DatabaseSync(`${directory}/${SPOOL_FILE}`, { readOnly: true });
  try {
    return Number(spool.prepare("SELECT max(id) AS last FROM message").get()?.["last"]);
  } finally {
    spool.close();
  }
}

/** Waits for the logger; fails if the system has killed it because of the memory limit. */
async function unlessEnded(logger: LoggerProcess, work: Promise<unknown>): Promise<void> {
  const ended = logger.exited.then(({ signal, code }) => {
    throw new Error(`The logger has ended with ${signal ?? code}`);
  });
  await Promise.race([work, ended]);
}

Deno.test(`run takes a backlog of ${BACKLOG} messages in 256 MB of memory`, {
  ignore: lacks("mosquitto"),
}, async (t) => {
  const limitBytes = 256 * 2 ** 20;
  await using scene = await setScene(postgres, { broker: { maxInflightMessages: 0 } });
  const { broker, directory } = scene;
  const readings = makeReadings({ count: BACKLOG });
  const clientId = "has-no-spool";
  await createSession(broker, { clientId });
  await publishReadingsFast(broker, readings, { qos: 1 });

  for (const spool of [true, false]) {
    await t.step(spool ? "with a spool" : "without a spool", async () => {
      const database = spool ? scene.database : await postgres.createDatabase();
      if (spool) await scene.takeDatabaseAway();
      using limit = limitMemory(limitBytes);
      assert.ok(limit !== null || Deno.env.get("CI") !== "true", WITHOUT_LIMIT);
      await using logger = scene.startLogger({
        DATABASE_NAME: database.name,
        ...(!spool && { SPOOL_DIRECTORY: "", MQTT_CLIENT_ID: clientId }),
      });
      limit?.add(logger.pid);
      if (spool) {
        await unlessEnded(logger, waitForBacklog(directory));
        await scene.bringDatabaseBack();
      }
      await unlessEnded(logger, waitForRows(database, BACKLOG, { timeoutMs: TIMEOUT_MS }));
      const peakBytes = readPeakBytes(logger.pid);
      assert.ok(peakBytes <= limitBytes, `${peakBytes} bytes`);
      const { stored, spooled } = await stopCleanly(logger);
      assert.deepEqual([stored, spooled], [BACKLOG, 0]);
      if (limit !== null) {
        assert.ok(limit.peakBytes() > 0 && limit.peakBytes() <= limitBytes);
        assert.equal(limit.countKills(), 0);
      }
      await expectStored(database, readings);
    });
  }
});
