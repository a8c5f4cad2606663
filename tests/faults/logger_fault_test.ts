/**
 * Faults of the logger itself and of what it runs on: killed and stopped at random moments while
 * the database comes and goes, a clock that is set, little memory.
 *
 * `KRAKEN_TEST_SEED` gives the moments of an earlier run again. `KRAKEN_TEST_BACKLOG` is the number
 * of messages that wait for a logger with little memory; a million of them take one or two minutes.
 */
import assert from "node:assert/strict";
import type { LoggerProcess } from "../services/logger_process.ts";
import { delay } from "../services/poll.ts";
import { publishReadings } from "../services/publisher.ts";
import { publishReadingsFast } from "../services/publisher_process.ts";
import { createRandom, expectStored, makeReadings, type Reading } from "../services/readings.ts";
import {
  type Counts,
  createSession,
  expectNothingLeft,
  stopCleanly,
  stopWhenDrained,
  usePostgres,
  waitForRows,
  withoutMosquitto,
} from "../program/harness.ts";
import { createFakeClock, withoutFakeClock } from "./fake_clock.ts";
import { limitMemory, readPeakBytes } from "./memory_limit.ts";
import { countSpooled, isTransactionOpen, waitForSpooled } from "./spool_file.ts";
import { type Scene, setScene } from "./spool_scene.ts";

const SEED = Number(Deno.env.get("KRAKEN_TEST_SEED") ?? Math.floor(Math.random() * 1e9));

const BACKLOG = Number(Deno.env.get("KRAKEN_TEST_BACKLOG") ?? 300_000);

const postgres = usePostgres();

/** Numbers from 0 to below 1, the same for the same seed. */
type Random = () => number;

/** A storm; see {@linkcode Storm}. */
interface StormOptions {
  readonly random: Random;
  /** Readings a second. */
  readonly rate: number;
}

/**
 * Publishes readings of QoS 1 and 2 steadily, while the database is away for half of the time:
 * connections are refused, or carry nothing.
 */
class Storm implements AsyncDisposable {
  readonly #scene: Scene;
  readonly #random: Random;
  readonly #over = new AbortController();
  readonly #publishers: readonly Promise<readonly Reading[]>[];
  readonly #weather: Promise<void>;

  constructor(scene: Scene, { random, rate }: StormOptions) {
    this.#scene = scene;
    this.#random = random;
    this.#publishers = ([1, 2] as const).map((qos) => this.#publish(qos, rate / 2));
    this.#weather = this.#letDatabaseComeAndGo();
    // Held until `end`, which throws what went wrong.
    for (const task of [...this.#publishers, this.#weather]) task.catch(() => {});
  }

  /** Lets the database stay; returns what has been published. */
  async end(): Promise<Reading[]> {
    this.#over.abort();
    await this.#weather;
    return (await Promise.all(this.#publishers)).flat();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    await Promise.allSettled([...this.#publishers, this.#weather]);
  }

  async #publish(qos: 1 | 2, rate: number): Promise<readonly Reading[]> {
    // Years apart.
    const startTimeUs = BigInt(qos) * 1_000_000_000_000_000n;
    const readings = makeReadings({ count: rate * 300, startTimeUs, seed: qos });
    const { signal } = this.#over;
    const count = await publishReadings(this.#scene.broker, readings, { qos, rate, signal });
    assert.ok(count < readings.length, "the publisher had nothing left to publish");
    return readings.slice(0, count);
  }

  async #letDatabaseComeAndGo(): Promise<void> {
    const { proxy } = this.#scene;
    while (!this.#over.signal.aborted) {
      await delay(100 + this.#random() * 500);
      if (this.#random() < 0.7) {
        await this.#scene.takeDatabaseAway();
      } else {
        proxy.pause();
      }
      await delay(100 + this.#random() * 500);
      proxy.resume();
      await this.#scene.bringDatabaseBack();
    }
  }
}

/** What was seen of runs that were killed. */
interface KilledRuns {
  kills: number;
  /** Those that found messages in the spool. */
  found: number;
  /** Those that were killed while they wrote to the spool. */
  interrupted: number;
}

/** Time after which no further run is started. */
const MAX_KILLING_MS = 45_000;

/** Starts a logger and kills it at a random moment, again and again. */
async function killRepeatedly(scene: Scene, kills: number, random: Random): Promise<KilledRuns> {
  const runs = { kills: 0, found: 0, interrupted: 0 };
  const endMs = performance.now() + MAX_KILLING_MS;
  while (runs.kills < kills && performance.now() < endMs) {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await delay(random() * 300);
    if (runs.kills % 2 === 0) {
      // The moment of a write, which is rarely hit otherwise, if there is one soon.
      const latestMs = performance.now() + 100;
      while (!isTransactionOpen(scene.directory) && performance.now() < latestMs) await delay(0);
    }
    await logger.kill();
    assert.equal((await logger.exited).signal, "SIGKILL");
    expectNoDefect(logger);
    runs.kills++;
    runs.found += Number(logger.lines.some((line) => line.includes("in the spool from before")));
    runs.interrupted += Number(isTransactionOpen(scene.directory));
  }
  return runs;
}

/** Asserts that the logger found neither its spool nor its counts to be wrong. */
function expectNoDefect(logger: LoggerProcess): void {
  assert.deepEqual(logger.lines.filter((line) => /CRITICAL|damaged|defect/.test(line)), []);
}

Deno.test(
  "run keeps every reading when it is killed a hundred times while the database comes and goes",
  {
    ignore: withoutMosquitto,
  },
  async () => {
    // deno-lint-ignore no-console
    console.log(`KRAKEN_TEST_SEED=${SEED}`);
    // Two at the same time, each with services of its own, for they mostly wait.
    const all = await Promise.all([1, 2].map(async (part) => {
      const random = createRandom(SEED + part);
      await using scene = await setScene(postgres);
      await using storm = new Storm(scene, { random: createRandom(SEED - part), rate: 300 });
      const runs = await killRepeatedly(scene, 50, random);
      const readings = await storm.end();
      {
        await using logger = scene.startLogger();
        await waitForRows(scene.database, readings.length);
        await expectStored(scene.database, readings);
        // Some of it the killed ones may have stored: then there is more at the broker.
        const { spooled, waiting } = await stopWhenDrained(logger, scene.broker);
        assert.deepEqual([spooled, waiting], [0, 0]);
        expectNoDefect(logger);
      }
      await expectStored(scene.database, readings);
      await using again = scene.startLogger();
      await expectNothingLeft(again, scene.broker);
      return runs;
    }));
    const [kills, found, interrupted] = (["kills", "found", "interrupted"] as const)
      .map((name) => all.reduce((sum, runs) => sum + runs[name], 0)) as [number, number, number];
    assert.ok(kills >= 40, `only ${kills} kills in ${MAX_KILLING_MS} ms`);
    assert.ok(found >= kills / 5, `only ${found} of ${kills} left something in the spool`);
    assert.ok(interrupted > 0, "no kill came while the spool was written to");
  },
);

Deno.test("run accounts for every reading when it is stopped while the database comes and goes", {
  ignore: withoutMosquitto,
}, async () => {
  // deno-lint-ignore no-console
  console.log(`KRAKEN_TEST_SEED=${SEED}`);
  const random = createRandom(SEED);
  await using scene = await setScene(postgres);
  await using storm = new Storm(scene, { random: createRandom(SEED + 1), rate: 300 });
  const runs: Counts[] = [];
  const run = async (use: () => Promise<unknown>): Promise<void> => {
    await using logger = scene.startLogger();
    await logger.waitForLine("Connected to MQTT broker");
    await use();
    const counts = await stopCleanly(logger);
    expectNoDefect(logger);
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

Deno.test("run goes on when the clock is set back and forward", {
  ignore: withoutMosquitto || withoutFakeClock,
}, async () => {
  using clock = createFakeClock();
  await using scene = await setScene(postgres, { env: clock.env });
  const { database, broker, directory } = scene;
  const daySeconds = 24 * 3600;
  // To 1972 and back again among them.
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
    // The clock that the logger sees, to a day for the sake of time zones.
    const offsetOfLine = (Date.parse(`${line.slice(0, 10)}T12:00Z`) - Date.now()) / 1000;
    assert.ok(Math.abs(offsetOfLine - offset) < 2 * daySeconds, `${offset} s are not in: ${line}`);
    // What it measures is something else.
    const seconds = Number(/after (\d+\.\d) s/.exec(line)?.[1]);
    assert.ok(seconds < daySeconds, line);
  }
  await expectStored(database, parts.flat(2));
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.stored, counts.duplicates], [stored, 0]);
});

Deno.test(`run takes a backlog of ${BACKLOG} messages in 256 MB of memory`, {
  ignore: withoutMosquitto,
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
      await using logger = scene.startLogger({
        DATABASE_NAME: database.name,
        ...(!spool && { SPOOL_DIRECTORY: "", MQTT_CLIENT_ID: clientId }),
      });
      limit?.add(logger.pid);
      if (spool) {
        await waitForSpooled(directory, BACKLOG);
        await scene.bringDatabaseBack();
      }
      await waitForRows(database, BACKLOG, { timeoutMs: 300_000 });
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
