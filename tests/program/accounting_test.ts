/**
 * The totals of all messages, which the logger logs every hour and at its end.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { publishPayloads, publishReadings } from "../support/publisher.ts";
import { makeReadings } from "../support/readings.ts";
import {
  createSession,
  linesOf,
  stopCleanly,
  usePostgres,
  waitForBlockedInsert,
  waitForRows,
} from "../support/harness.ts";
import { tune } from "../support/tuning.ts";

const postgres = usePostgres();

Deno.test("run logs the totals of all messages every hour", async () => {
  const database = await postgres.createDatabase();
  const [enabled, disabled, unknown] = [1, 2, 3].map(() => ({ uuid: crypto.randomUUID() }));
  assert.ok(enabled && disabled && unknown);
  await database.registerSensors([enabled, { ...disabled, enabled: false }]);
  await using broker = await startBroker();
  await createSession(broker);
  // An hour takes 300 ms.
  const env = loggerEnv({ database, broker }, tune({ totalsIntervalMs: 300 }));
  await using logger = startLogger(env);
  const account = async (counts: string): Promise<void> => {
    const from = logger.lines.length;
    await logger.waitForLine(` INFO     Totals since start: ${counts}.`, { from });
  };
  await logger.waitForLine("Connected to MQTT broker");
  await account(
    "0 messages received, 0 stored, 0 duplicates, 0 of unknown sensors, 0 of disabled sensors, " +
      "0 rejected, 0 waiting",
  );

  const readings = makeReadings({ count: 20, sensors: [enabled] });
  const [first, rest] = [readings.slice(0, 11), readings.slice(11)];
  await publishReadings(broker, first);
  await waitForRows(database, first.length);
  await publishReadings(broker, first.slice(0, 5));
  await publishReadings(broker, makeReadings({ count: 4, sensors: [unknown] }));
  await publishReadings(broker, makeReadings({ count: 3, sensors: [disabled] }));
  await publishPayloads(broker, ["one", "two"]);
  const others = "5 duplicates, 4 of unknown sensors, 3 of disabled sensors, 2 rejected";
  await account(`25 messages received, 11 stored, ${others}, 0 waiting`);
  // Without new messages, the line is the same: the totals are those of the run, not of the hour.
  await account(`25 messages received, 11 stored, ${others}, 0 waiting`);

  {
    await using lock = await database.connect();
    await lock.query("BEGIN; LOCK TABLE sensor_data IN EXCLUSIVE MODE");
    await publishReadings(broker, rest);
    await waitForBlockedInsert(database);
    await account(`34 messages received, 11 stored, ${others}, 9 waiting`);
    await lock.query("ROLLBACK");
  }
  const last = `34 messages received, 20 stored, ${others}, 0 waiting`;
  await account(last);
  await stopCleanly(logger);
  assert.equal(linesOf(logger, "INFO").at(-1), `Stopped: ${last}.`);
});
