/**
 * Faults of the logger and of its host: stops at random moments while the database comes and goes,
 * and changes of the system clock.
 *
 * `KRAKEN_TEST_SEED` repeats the moments of an earlier run.
 */
import assert from "node:assert/strict";
import { delay } from "../support/poll.ts";
import { publishReadings } from "../support/publisher.ts";
import {
  createRandom,
  expectStored,
  makeReadings,
  printSeed,
  readSeed,
} from "../support/readings.ts";
import { type Counts, stopCleanly, usePostgres, waitForRows } from "../support/harness.ts";
import { createFakeClock } from "../support/fake_clock.ts";
import { expectNothingBroken } from "./killing.ts";
import { countSpooled, waitForSpooled } from "./spool_file.ts";
import { setScene } from "./spool_scene.ts";
import { Storm } from "./storm.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();

const postgres = usePostgres();

Deno.test("run accounts for every reading when it is stopped while the database comes and goes", {
  ignore: lacks("mosquitto"),
}, async (t) => {
  printSeed(t, SEED);
  const random = createRandom(SEED);
  await using scene = await setScene(postgres);
  await using storm = new Storm(scene, { random: createRandom(SEED + 1), rate: 300 });
  const runs: Counts[] = [];
  const run = async (use: () => Promise<unknown>): Promise<void> => {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await use();
    const counts = await stopCleanly(logger);
    expectNothingBroken(logger);
    assert.equal(counts.waiting, 0);
    assert.equal(counts.spooled, countSpooled(scene.directory));
    assert.equal(counts.found, runs.at(-1)?.spooled ?? 0);
    runs.push(counts);
  };
  for (let stop = 0; stop < 10; stop++) await run(() => delay(random() * 400));
  const readings = await storm.end();
  await run(() => waitForRows(scene.database, readings.length));
  await expectStored(scene.database, readings);
  const sum = (name: keyof Counts): number => runs.reduce((sum, counts) => sum + counts[name], 0);
  assert.equal(sum("received"), readings.length);
  assert.equal(sum("stored") + sum("duplicates"), readings.length);
  assert.ok(sum("found") > 0, "no run left anything in the spool");
});

Deno.test("run keeps every reading when the clock is set back and forward", {
  ignore: lacks("mosquitto", "libfaketime.so.1"),
}, async () => {
  using clock = createFakeClock();
  await using scene = await setScene(postgres, { env: clock.env });
  const { database, broker, directory } = scene;
  const daySeconds = 24 * 3600;
  // One change is to 1972, and another one back.
  const offsets = [-10, 400, -20_000, 0].map((days) => days * daySeconds);
  const parts = offsets.map((_, part) => [
    makeReadings({ count: 100, startTimeUs: BigInt(part) * 1_000_000_000_000n }),
    makeReadings({ count: 100, startTimeUs: BigInt(part) * 1_000_000_000_000n + 1n }),
  ]);
  await using logger = scene.startLogger();
  await logger.waitForLine("Connected to MQTT broker");
  let stored = 0;
  for (const [index, [before = [], after = []]] of parts.entries()) {
    const offset = offsets[index] ?? 0;
    await scene.takeDatabaseAway();
    await publishReadings(broker, before);
    await waitForSpooled(directory, before.length);
    const from = logger.lines.length;
    clock.set(offset);
    await publishReadings(broker, after);
    await waitForSpooled(directory, before.length + after.length);
    await scene.bringDatabaseBack();
    const line = await logger.waitForLine(/Database .* is available again after \d+\.\d s/, {
      from,
    });
    await waitForRows(database, stored += before.length + after.length);
    // The clock of the logger; it may differ by a day because of time zones.
    const offsetOfLine = (Date.parse(`${line.slice(0, 10)}T12:00Z`) - Date.now()) / 1000;
    assert.ok(Math.abs(offsetOfLine - offset) < 2 * daySeconds, `${offset} s are not in: ${line}`);
    // Durations use another clock.
    const seconds = Number(/after (\d+\.\d) s/.exec(line)?.[1]);
    assert.ok(seconds < daySeconds, line);
  }
  await expectStored(database, parts.flat(2));
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.duplicates], [stored, 0]);
});
