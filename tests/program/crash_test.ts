/**
 * The logger is killed at random moments: no reading is lost or stored twice.
 *
 * `KRAKEN_TEST_SEED` repeats the moments of an earlier run.
 */
import assert from "node:assert/strict";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { publishReadingsFast } from "../support/publisher_process.ts";
import {
  createRandom,
  expectStored,
  makeReadings,
  printSeed,
  readSeed,
} from "../support/readings.ts";
import {
  createSession,
  expectNothingLeft,
  slowInserts,
  startTellingMosquitto,
  stopWhenDrained,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();

const postgres = usePostgres();

const BACKLOG = 20_000;
const KILLS = 5;

Deno.test(`run keeps ${BACKLOG} readings without a spool when it is killed ${KILLS} times`, {
  ignore: lacks("mosquitto"),
}, async (t) => {
  printSeed(t, SEED);
  const random = createRandom(SEED);
  const database = await postgres.createDatabase();
  await slowInserts(database, 0.02);
  await using rows = await database.connect();
  const count = async (): Promise<number> => {
    const [row] = await rows.query<{ count: number }>("SELECT count(*)::int FROM sensor_data");
    return row?.count ?? 0;
  };
  await using broker = await startTellingMosquitto();
  await createSession(broker);
  const readings = makeReadings({ count: BACKLOG, seed: SEED });
  await publishReadingsFast(broker, readings);

  const env = loggerEnv({ database, broker });
  let progressed = 0;
  // A moment is a number of rows plus some milliseconds; the last kills leave rows to be stored.
  const moments = Array.from({ length: KILLS }, () => random() * 0.8 * BACKLOG)
    .sort((first, second) => first - second);
  for (const moment of moments) {
    await using logger = startLogger(env);
    const before = await count();
    await logger.waitForLine("Connected to MQTT broker");
    await waitUntil(async () => await count() >= moment, {
      timeoutMs: 180_000,
      intervalMs: 1,
      what: `${Math.ceil(moment)} rows`,
    });
    await delay(random() * 10);
    await logger.kill();
    assert.equal((await logger.exited).signal, "SIGKILL");
    const after = await count();
    assert.ok(after < BACKLOG, `the kill at ${moment} rows came too late: ${after} rows`);
    progressed += Number(after > before);
  }
  assert.ok(progressed > 0, "no run stored anything before it was killed");

  await using logger = startLogger(env);
  await waitForRows(database, BACKLOG);
  await expectStored(database, readings);
  // The broker may redeliver messages that a killed logger has stored.
  const counts = await stopWhenDrained(logger, broker);
  assert.equal(counts.stored + counts.duplicates + counts.unknown, counts.received);
  await expectStored(database, readings);
  await using again = startLogger(env);
  await expectNothingLeft(again, broker);
});
