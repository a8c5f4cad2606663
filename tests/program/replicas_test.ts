/** Several loggers that share one stream: each reading is stored once, whoever of them is killed. */
import assert from "node:assert/strict";
import { loggerEnv, type LoggerProcess, startLogger } from "../services/logger_process.ts";
import { waitUntil } from "../services/poll.ts";
import type { TestDatabase } from "../services/postgres_database.ts";
import { publishReadings } from "../services/publisher.ts";
import { expectStored, makeReadings, type Reading } from "../services/readings.ts";
import type { MosquittoBroker } from "../services/mosquitto.ts";
import { withTemporaryDirectory } from "../services/temporary_directory.ts";
import {
  slowInserts,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForRows,
  waitForSubscription,
  withoutMosquitto,
} from "./harness.ts";

const postgres = usePostgres();
const GROUP = "$share/lab/sensors/#";

/** Starts a member of the group with a name and a spool of its own. */
async function startMember(
  { database, broker, spool }: {
    readonly database: TestDatabase;
    readonly broker: MosquittoBroker;
    readonly spool: string;
  },
  number: number,
  times = 1,
): Promise<LoggerProcess> {
  const clientId = `replica-${number}`;
  const logger = startLogger(loggerEnv({ database, broker }, {
    MQTT_CLIENT_ID: clientId,
    MQTT_SHARED_GROUP: "lab",
    SPOOL_DIRECTORY: `${spool}/${number}`,
  }));
  await waitForSubscription(broker, { clientId, filter: GROUP, times });
  await logger.waitForLine("Connected to database");
  return logger;
}

for (const count of [2, 4]) {
  Deno.test(`${count} loggers share a stream, and one that is killed loses nothing of it`, {
    ignore: withoutMosquitto,
  }, async () => {
    using spool = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    // So that the one that is killed has something in hand.
    await slowInserts(database, 0.05);
    await using broker = await startTellingMosquitto({ maxInflightMessages: 100 });
    const scene = { database, broker, spool: spool.path };
    await using stack = new AsyncDisposableStack();
    const members: LoggerProcess[] = [];
    for (let number = 0; number < count; number++) {
      members.push(stack.use(await startMember(scene, number)));
    }
    const readings = makeReadings({ count: 4_000 });
    const publishing = publishReadings(broker, readings, { rate: 1_000 });
    try {
      await waitForRows(database, 500);
      const [victim] = members;
      assert.ok(victim);
      await victim.kill();
      assert.ok(await database.countReadings() < readings.length, "it was killed too late");
    } finally {
      await publishing;
    }
    // What the broker has assigned to the absent one waits for it, and for nobody else.
    await waitForSettled(database);
    const without = await database.countReadings();
    members[0] = stack.use(await startMember(scene, 0, 2));
    await waitForRows(database, readings.length);
    assert.ok(without < readings.length, "nothing had to wait for the one that was killed");
    await expectStored(database, readings);
    const counts = [];
    for (const member of members) counts.push(await stopCleanly(member));
    // Each has had its part.
    for (const { stored } of counts) assert.ok(stored > 0);
    assert.ok(counts.reduce((sum, { stored }) => sum + stored, 0) <= readings.length);
  });
}

/** Waits until no more rows come for a second. */
async function waitForSettled(database: TestDatabase): Promise<void> {
  let rows = -1;
  let sinceMs = performance.now();
  await waitUntil(async () => {
    const now = await database.countReadings();
    if (now !== rows) sinceMs = performance.now();
    rows = now;
    return performance.now() - sinceMs > 1_000;
  }, { what: "the rows to settle" });
}

Deno.test("what is assigned to a member of the group that has ended waits for it", {
  ignore: withoutMosquitto,
}, async () => {
  using spool = withTemporaryDirectory();
  const database = await postgres.createDatabase();
  await using broker = await startTellingMosquitto({ maxInflightMessages: 100 });
  const scene = { database, broker, spool: spool.path };
  await using first = await startMember(scene, 0);
  await using second = await startMember(scene, 1);
  const readings: Reading[] = makeReadings({ count: 600 });
  await publishReadings(broker, readings.slice(0, 300));
  await waitForRows(database, 300);
  const { stored } = await stopCleanly(first);
  assert.ok(stored > 0);
  await publishReadings(broker, readings.slice(300));
  await waitForSettled(database);
  const taken = await database.countReadings() - 300;
  // Mosquitto 2.0 goes on assigning messages to a member whose session it keeps.
  await using again = await startMember(scene, 0, 2);
  await waitForRows(database, readings.length);
  await expectStored(database, readings);
  assert.ok(taken > 0 && taken < 300, `${taken} of 300 went to the member that was there`);
  await stopCleanly(again);
  await stopCleanly(second);
});
