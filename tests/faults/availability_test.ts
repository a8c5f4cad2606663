/**
 * The availability of the reference installation under faults: a sensor with one reading per
 * second, whose time runs fast, while logger, database and broker are killed in turn.
 */
import assert from "node:assert/strict";
import { type Daemon, startDaemon } from "../support/daemon.ts";
import { loggerEnv, type LoggerProcess, startLogger } from "../support/logger_process.ts";
import type { MosquittoBroker } from "../support/mosquitto.ts";
import { waitUntil } from "../support/poll.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { expectStored, type Reading, toPayload } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  createSession,
  SENSORS,
  startTellingMosquitto,
  stopCleanly,
  usePostgres,
  waitForRows,
} from "../support/harness.ts";
import { type AvailabilityRow, formatAvailability, queryAvailability } from "./availability.ts";
import { lacks } from "../support/programs.ts";

/** Seconds of sensor time per second of the test: three hours take about twenty seconds. */
const SPEED = 500;
const MIN_READINGS = 3 * 3600;

/** How often each of the three is killed, … */
const ROUNDS = 3;

/** … and the sensor time between two kills, if recovery does not take longer. */
const READINGS_BETWEEN = MIN_READINGS / (3 * ROUNDS + 1);

/** A killed process stays down for at least this many readings: two minutes if they were lost. */
const READINGS_AWAY = 180;

/** 2023-11-14 22:00 UTC. */
const START_US = 1_699_999_200_000_000n;

/**
 * Mosquitto saves its store at short intervals, so that it loses little when it is killed. If it
 * saved after every change, it could not keep up with the accelerated time.
 */
const SAVE_OFTEN = ["autosave_on_changes true", "autosave_interval 100"];

const postgres = usePostgres();

const [SENSOR] = SENSORS;

function readingOf(index: number): Reading {
  assert.ok(SENSOR);
  return { ...SENSOR, timeUs: START_US + BigInt(index) * 1_000_000n, value: Math.sin(index) };
}

/** The minutes of the period in the table, by hour; the last row is the total. */
async function readAvailability(
  database: TestDatabase,
  readings: readonly Reading[],
): Promise<{ readonly rows: AvailabilityRow[]; readonly total: AvailabilityRow }> {
  const [first, last] = [readings.at(0), readings.at(-1)];
  assert.ok(first && last);
  const rows = await queryAvailability(database, {
    ...first,
    fromUs: first.timeUs,
    toUs: last.timeUs,
  });
  const total = rows.at(-1);
  assert.ok(total);
  return { rows, total };
}

/** Readings that are in the table more than once. */
async function countRepeated(database: TestDatabase): Promise<number> {
  const [row] = await database.query<{ repeated: number }>(
    "SELECT (count(*) - count(DISTINCT (sensor_id, time)))::int AS repeated FROM sensor_data",
  );
  return row?.repeated ?? NaN;
}

Deno.test(
  "run misses no minute of a sensor while logger, database and broker are killed in turn",
  { ignore: lacks("mosquitto") },
  async () => {
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await using broker = await startTellingMosquitto({
      maxInflightMessages: 1000,
      config: SAVE_OFTEN,
    });
    await createSession(broker);
    const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
    await using loggers = new AsyncDisposableStack();
    let logger = loggers.use(startLogger(env));
    await waitForSubscribed(logger);
    await using daemon = startDaemon(broker, {
      qos: 2,
      rate: SPEED,
      message: (index) => ({ topic: "sensors/test", payload: toPayload(readingOf(index)) }),
    });

    const kills: Readonly<Record<string, () => Promise<void>>> = {
      logger: async () => {
        await logger.kill();
        assert.equal((await logger.exited).signal, "SIGKILL");
        await waitForDue(daemon, READINGS_AWAY);
        logger = loggers.use(startLogger(env));
      },
      database: async () => {
        const from = logger.lines.length;
        await postgres.server.kill();
        await logger.waitForLine(/ERROR .*Database .* is not available/, { from });
        await waitForDue(daemon, READINGS_AWAY);
        await postgres.server.start();
      },
      broker: async () => {
        const from = logger.lines.length;
        await killBroker(broker, { daemon, database });
        await logger.waitForLine(/ERROR .*MQTT broker .* is not available/, { from });
        await waitForDue(daemon, READINGS_AWAY);
        await broker.start();
      },
    };
    let killed = 0;
    for (let round = 0; round < ROUNDS; round++) {
      for (const kill of Object.values(kills)) {
        killed++;
        await waitUntil(() => daemon.due >= killed * READINGS_BETWEEN, { timeoutMs: 180_000 });
        const { connections } = daemon;
        await kill();
        // All three work again. The wait shows that something was killed before.
        await waitForRows(database, daemon.due);
        assert.equal(daemon.connections, connections + Number(kill === kills["broker"]));
      }
    }

    const count = await daemon.finish(Math.max(MIN_READINGS, daemon.due));
    const readings = Array.from({ length: count }, (_, index) => readingOf(index));
    await waitForRows(database, count);
    const { rows, total } = await readAvailability(database, readings);
    // deno-lint-ignore no-console
    console.log(
      `${formatAvailability(rows)}\n${count} readings published, ` +
        `${count - await database.countReadings()} missed, ` +
        `${await countRepeated(database)} stored twice; ` +
        `${Object.keys(kills).join(", ")} killed ${ROUNDS} times each`,
    );
    await expectStored(database, readings);
    assert.deepEqual([total.minutes, total.missed], [Math.ceil(count / 60), 0]);
    assert.equal(total.availability, 100);
    assert.equal(await countRepeated(database), 0);
    assert.ok(daemon.repetitions > 0, "the broker was killed with no message in flight");
    const counts = await stopCleanly(logger);
    assert.equal(counts.rejected + counts.unknown + counts.spooled + counts.waiting, 0);

    // The result of a loss: two minutes without a reading, and one with a single reading.
    await database.query(
      `DELETE FROM sensor_data WHERE time >= to_timestamp($1) AND time < to_timestamp($2)`,
      [Number(START_US) / 1e6 + 3600, Number(START_US) / 1e6 + 3600 + 179],
    );
    const gap = await readAvailability(database, readings);
    assert.deepEqual(gap.rows.map(({ missed }) => missed).slice(0, 2), [0, 2]);
    assert.equal(gap.total.availability, 100 * (1 - 2 / gap.total.minutes));
  },
);

async function waitForSubscribed(logger: LoggerProcess): Promise<void> {
  await logger.waitForLine("Connected to MQTT broker");
}

/** Waits until `count` more readings are due. */
async function waitForDue(daemon: Daemon, count: number): Promise<void> {
  const target = daemon.due + count;
  await waitUntil(() => daemon.due >= target, { what: `${count} readings more` });
}

/**
 * Kills the broker at a moment when the logger has received everything that the broker
 * acknowledged. Mosquitto acknowledges before it saves: a kill loses messages that are acknowledged
 * but neither saved nor delivered, and no logger can prevent that. The broker is stopped until the
 * logger has stored all delivered messages, and then killed.
 */
async function killBroker(
  broker: MosquittoBroker,
  { daemon, database }: { readonly daemon: Daemon; readonly database: TestDatabase },
): Promise<void> {
  broker.signal("SIGSTOP");
  let before = -1;
  await waitUntil(async () => {
    const { acknowledged } = daemon;
    const isSettled = acknowledged === before && await database.countReadings() >= acknowledged;
    before = acknowledged;
    return isSettled;
  }, { what: "the logger to store what the broker has acknowledged" });
  await broker.kill();
}
