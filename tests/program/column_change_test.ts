/** Columns whose type is changed while the logger runs. */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { delay } from "../support/poll.ts";
import { publishPayloads } from "../support/publisher.ts";
import { makeReadings, toPayload } from "../support/readings.ts";
import { createSession, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";

const postgres = usePostgres();

const READINGS = makeReadings({ count: 20 });

/** The payload of the reading with this index, with the value as given. */
function payload(index: number, value: string): string {
  const reading = READINGS[index];
  assert.ok(reading);
  return toPayload(reading).replace(/"value": [^,]*/, `"value": ${value}`);
}

Deno.test("after a change of its type, a column at once gets the values that it can hold", async () => {
  const database = await postgres.createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  const publish = (index: number, value: string): Promise<unknown> =>
    publishPayloads(broker, [payload(index, value)], { topic: "sensors/a", qos: 1 });
  const values = async (): Promise<string[]> => {
    const rows = await database.query<{ value: string }>(
      "SELECT value::text AS value FROM sensor_data ORDER BY time",
    );
    return rows.map(({ value }) => value);
  };
  const alter = async (type: string): Promise<void> => {
    await database.query(`ALTER TABLE sensor_data ALTER COLUMN value TYPE ${type}`);
  };
  await publish(0, "1.5");
  await waitForRows(database, 1);
  await alter("numeric");
  await publish(1, "0.1000000000000000055511151231257827");
  await waitForRows(database, 2);
  await publish(2, "123456789012345678901234567890");
  await waitForRows(database, 3);
  assert.deepEqual((await values()).slice(1), [
    "0.1000000000000000055511151231257827",
    "123456789012345678901234567890",
  ]);
  await database.query("DELETE FROM sensor_data");
  await alter("smallint");
  await publish(3, "21.5");
  await logger.waitForLine(/Rejected a message .* smallint/);
  await publish(4, "21");
  await waitForRows(database, 1);
  await publish(5, "40000");
  await logger.waitForLine(/'40000', outside the range of the smallint column/);
  await alter("integer");
  // A rejection makes the logger read the catalog again, at most once a second.
  await delay(1_100);
  await publish(6, "40000");
  await waitForRows(database, 2);
  assert.deepEqual(await values(), ["21", "40000"]);
  await logger.waitForLine("The column sensor_data.value is of type integer now.");
  const { stored, rejected } = await stopCleanly(logger);
  assert.deepEqual([stored, rejected], [5, 2]);
});
