/**
 * A hundred thousand messages, most of them invalid: the logger keeps running, stores the readings,
 * rejects the others, and fills neither the log nor the memory.
 *
 * `KRAKEN_TEST_SEED` repeats the messages of an earlier run.
 */
import assert from "node:assert/strict";
import { loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { startMosquitto } from "../support/mosquitto.ts";
import { publishPayloadsFast } from "../support/payload_publisher.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { waitUntil } from "../support/poll.ts";
import { expectStored, printSeed, type Reading, readSeed } from "../support/readings.ts";
import { withTemporaryDirectory } from "../support/temporary_directory.ts";
import {
  type Counts,
  createSession,
  linesOf,
  SENSORS,
  stopCleanly,
  usePostgres,
} from "../support/harness.ts";
import { peakMemoryBytes } from "../../bench/usage.ts";
import { judge, type Verdict } from "./fuzz_oracle.ts";
import { type FuzzMessage, makeFuzz, makeTargets } from "./fuzz_payloads.ts";
import { lacks } from "../support/programs.ts";

const SEED = readSeed();
const MESSAGES = 100_000;
const MAX_MEMORY_BYTES = 512 * 2 ** 20;

/** Ten lines per minute and a line about suppressed ones, for rejected messages and for sensors. */
const MAX_WARNINGS_A_MINUTE = 2 * 11;

const postgres = usePostgres();
const targets = makeTargets(10, SEED);

/** The expected outcome of the messages. */
class Expectation {
  readonly valid: Reading[] = [];
  /** Readings of messages that are valid by chance. */
  readonly accidental: Verdict[] = [];
  unknown = 0;
  rejected = 0;

  add({ payload, reading }: FuzzMessage): void {
    const verdict = judge(payload);
    if (reading !== undefined) {
      const { uuid, sid, timeUs, value } = reading;
      assert.deepEqual(verdict, { uuid, sid, timeUs, value });
      this.valid.push(reading);
    } else if (verdict === undefined) {
      this.rejected++;
    } else if (targets.some((target) => isSameSensor(target, verdict))) {
      this.accidental.push(verdict);
    } else {
      assert.ok(!SENSORS.some((sensor) => isSameSensor(sensor, verdict)), "hits a valid sensor");
      this.unknown++;
    }
  }
}

interface Sensor {
  readonly uuid: string;
  readonly sid: number;
}

function isSameSensor(first: Sensor, second: Sensor): boolean {
  return first.uuid === second.uuid && first.sid === second.sid;
}

/** Deletes the rows of the target sensors and compares them. Returns their number. */
async function takeAccidental(
  database: TestDatabase,
  expected: readonly Verdict[],
): Promise<number> {
  const rows = await database.query<{ sensor: string; time: string; value: number }>(
    `WITH deleted AS (
       DELETE FROM sensor_data USING sensors
       WHERE sensors.id = sensor_id AND uuid = ANY ($1::uuid[])
       RETURNING concat_ws(' ', uuid, sensor_sid) AS sensor,
                 (extract(epoch FROM time) * 1000000)::bigint::text AS time, value
     ) SELECT * FROM deleted`,
    [targets.map(({ uuid }) => uuid)],
  );
  const key = (sensor: string, timeUs: bigint): string => `${sensor} ${timeUs}`;
  const stored = new Map(rows.map(({ sensor, time, value }) => [
    key(sensor, BigInt(time)),
    { value, isExplained: false },
  ]));
  for (const { uuid, sid, timeUs, value } of expected) {
    const row = stored.get(key(`${uuid} ${sid}`, timeUs));
    assert.ok(row, `not stored: ${uuid} ${sid} ${timeUs} ${value}`);
    // Two messages may have the same time: the first one to arrive is stored.
    row.isExplained ||= Object.is(row.value, value);
  }
  const unexplained = [...stored].filter(([, { isExplained }]) => !isExplained);
  assert.deepEqual(unexplained, [], "stored, but never sent");
  return rows.length;
}

async function waitForReading(
  database: TestDatabase,
  reading: Reading | undefined,
): Promise<void> {
  assert.ok(reading);
  await waitUntil(async () => {
    const rows = await database.query(
      `SELECT FROM sensor_data JOIN sensors ON sensors.id = sensor_id
       WHERE uuid = $1 AND extract(epoch FROM time) * 1000000 = $2::bigint`,
      [reading.uuid, reading.timeUs],
    );
    return rows.length > 0;
  }, { timeoutMs: 180_000, intervalMs: 50, what: "the last reading" });
}

Deno.test(
  `run stores every reading among ${MESSAGES} messages of all kinds, and survives the others`,
  { ignore: lacks("mosquitto") },
  async (t) => {
    printSeed(t, SEED);
    const startMs = performance.now();
    using directory = withTemporaryDirectory();
    const database = await postgres.createDatabase();
    await database.registerSensors(targets);
    await using broker = await startMosquitto({ maxInflightMessages: 1000 });
    await createSession(broker);
    const env = loggerEnv({ database, broker }, { SPOOL_DIRECTORY: directory.path });
    await using logger = startLogger(env);
    await logger.waitForLine("Connected to MQTT broker");

    const expectation = new Expectation();
    const fuzz = makeFuzz({ count: MESSAGES, seed: SEED, sensors: SENSORS, targets });
    const messages = fuzz.map((message) => {
      expectation.add(message);
      return message;
    });
    assert.equal(await publishPayloadsFast(broker, messages, { qos: 1 }), MESSAGES);
    // The last message is valid; the end of the run completes messages still in flight.
    await waitForReading(database, expectation.valid.at(-1));
    const memoryBytes = peakMemoryBytes(logger.pid);
    const counts = await stopCleanly(logger);

    const { valid, accidental, unknown, rejected } = expectation;
    assert.ok(Math.min(accidental.length, unknown, rejected) > MESSAGES / 1000);
    const accidentalRows = await takeAccidental(database, accidental);
    await expectStored(database, valid);
    const stored = valid.length + accidentalRows;
    const expected: Partial<Counts> = {
      received: MESSAGES,
      stored,
      duplicates: valid.length + accidental.length - stored,
      unknown,
      rejected,
      waiting: 0,
      spooled: 0,
    };
    for (const [name, count] of Object.entries(expected)) {
      assert.equal(counts[name as keyof Counts], count, `${name} in ${JSON.stringify(counts)}`);
    }
    const { stdout } = await runLogger(["rejected"], env);
    assert.match(stdout, new RegExp(`\\n${rejected} rejected messages\\.\\n$`));

    const minutes = Math.ceil((performance.now() - startMs) / 60_000);
    const warnings = linesOf(logger, "WARNING");
    assert.ok(warnings.length <= MAX_WARNINGS_A_MINUTE * minutes, warnings.join("\n"));
    assert.deepEqual(linesOf(logger, "ERROR"), []);
    assert.ok(logger.lines.every((line) => /^20\d\d-\S+ \S+ [A-Z]+ /.test(line)), "a broken line");
    const suppressed = warnings
      .map((line) => /^Suppressed (\d+) more warnings? about rejected/.exec(line)?.[1] ?? "0")
      .reduce((sum, count) => sum + Number(count), 0);
    const shown = warnings.filter((line) => line.startsWith("Rejected a message")).length;
    assert.equal(suppressed + shown, rejected);
    assert.ok(memoryBytes < MAX_MEMORY_BYTES, `${memoryBytes} bytes of memory`);
  },
);
