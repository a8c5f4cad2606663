/**
 * The program with a real TimescaleDB: the printed schema, readings for compressed chunks with the
 * privileges of the logger, and the output of `check` and `report`.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, runLogger, startLogger } from "../support/logger_process.ts";
import { waitUntil } from "../support/poll.ts";
import { LOGGER_ROLE } from "../support/postgres_database.ts";
import { publishReadings } from "../support/publisher.ts";
import { expectStored, makeReadings, type Reading } from "../support/readings.ts";
import { startTimescale, type TimescaleDatabase } from "../support/timescale.ts";
import { createSession, SENSORS, stopCleanly } from "../support/harness.ts";
import { databaseEnv, withoutProgress } from "./report_scene.ts";

/** The version of the package, which docs/scaling.md names. */
const VERSION = "2.23.0-dev";

const DAY_US = 86_400_000_000n;
/** Noon of the first of ten days in the past. */
const START_US = BigInt(Date.UTC(2025, 4, 10, 12)) * 1000n;
const DAYS = 10;

/** Runs `schema`, asserts that it succeeds, and returns its output. */
async function printSchema(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runLogger(["schema", ...args]);
  assert.deepEqual([code, stderr], [0, ""]);
  return stdout;
}

/** Some readings of each day, of all sensors. */
function makeDays(seed: number, perDay: number): Reading[] {
  return Array.from({ length: DAYS }, (_, day) =>
    makeReadings({
      ...{ count: perDay, seed: seed + day, sensors: SENSORS },
      startTimeUs: START_US + BigInt(day) * DAY_US + BigInt(seed),
    })).flat();
}

/** A hypertable by the printed schema, with registered sensors and these readings in it. */
async function createHypertable(readings: readonly Reading[]): Promise<TimescaleDatabase> {
  const database = await startTimescale();
  try {
    await database.execute(`CREATE ROLE ${LOGGER_ROLE}`);
    await database.execute(await printSchema());
    await register(database);
    await insert(database, readings);
    await database.execute(await printSchema("--timescale", "--grant", LOGGER_ROLE));
    return database;
  } catch (error) {
    await database[Symbol.asyncDispose]();
    throw error;
  }
}

async function register(database: TimescaleDatabase): Promise<void> {
  const rows = SENSORS.map(({ uuid, sid }) => `('${uuid}', ${sid})`);
  await database.execute(`INSERT INTO sensors (uuid, sensor_sid) VALUES ${rows.join()}`);
}

async function insert(database: TimescaleDatabase, readings: readonly Reading[]): Promise<void> {
  const rows = readings.map(({ timeUs, uuid, sid, value }) =>
    `(${timeUs}, '${uuid}'::uuid, ${sid}, ${value}::float8)`
  );
  await database.execute(
    `INSERT INTO sensor_data
     SELECT 'epoch'::timestamptz + us * interval '1 us', id, value
     FROM (VALUES ${rows.join()}) AS sent (us, uuid, sid, value)
     JOIN sensors ON sensors.uuid = sent.uuid AND sensor_sid = sid
     ON CONFLICT DO NOTHING`,
  );
}

/** Runs the compression policy of the printed schema, which runs once a day by itself. */
async function runPolicy(database: TimescaleDatabase): Promise<void> {
  const jobs = await database.query<{ id: number }>(
    `SELECT job_id AS id FROM timescaledb_information.jobs
     WHERE hypertable_name = 'sensor_data' AND proc_name = 'policy_compression'`,
  );
  assert.equal(jobs.length, 1, "not one policy");
  await database.execute(`CALL run_job(${jobs[0]?.id})`);
}

async function countChunks(
  database: TimescaleDatabase,
): Promise<{ compressed: number; others: number }> {
  const [row] = await database.query<{ compressed: number; others: number }>(
    `SELECT count(*) FILTER (WHERE is_compressed)::int AS compressed,
            count(*) FILTER (WHERE NOT is_compressed)::int AS others
     FROM timescaledb_information.chunks WHERE hypertable_name = 'sensor_data'`,
  );
  assert.ok(row);
  return row;
}

/** Number of rows of compressed chunks that wait uncompressed for the policy. */
async function countUncompressedRows(database: TimescaleDatabase): Promise<number> {
  const chunks = await database.query<{ name: string }>(
    `SELECT format('%I.%I', chunk_schema, chunk_name) AS name FROM timescaledb_information.chunks
     WHERE hypertable_name = 'sensor_data' AND is_compressed`,
  );
  let rows = 0;
  for (const { name } of chunks) {
    const [row] = await database.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM ONLY ${name}`,
    );
    rows += row?.count ?? 0;
  }
  return rows;
}

/** Recent readings, in a chunk that the policy does not compress. */
function makeRecent(count: number): Reading[] {
  const startTimeUs = (BigInt(Date.now()) - 3_600_000n) * 1000n;
  return makeReadings({ count, sensors: SENSORS, startTimeUs });
}

Deno.test("the SQL of schema --timescale turns a table with rows into a compressed hypertable", async () => {
  const readings = [...makeDays(1, 20), ...makeRecent(20)];
  await using database = await createHypertable(readings);
  const [extension] = await database.query<{ version: string }>(
    "SELECT extversion AS version FROM pg_extension WHERE extname = 'timescaledb'",
  );
  assert.equal(extension?.version, VERSION);
  await expectStored(database, readings);
  assert.equal((await countChunks(database)).compressed, 0);

  await runPolicy(database);
  const chunks = await countChunks(database);
  assert.equal(chunks.compressed, DAYS);
  assert.ok(chunks.others >= 1, "what is recent was compressed, too");
  await expectStored(database, readings);
  const settings = await database.query(
    `SELECT segmentby, orderby FROM timescaledb_information.hypertable_compression_settings`,
  );
  assert.deepEqual(settings, [{ segmentby: "sensor_id", orderby: '"time" DESC' }]);
  const jobs = await database.query(
    `SELECT config ->> 'compress_after' AS after FROM timescaledb_information.jobs
     WHERE proc_name = 'policy_compression'`,
  );
  assert.deepEqual(jobs, [{ after: "7 days" }]);

  // Once more, on the existing hypertable.
  await database.execute(await printSchema("--timescale", "--grant", LOGGER_ROLE));
  assert.deepEqual(await countChunks(database), chunks);
  await expectStored(database, readings);
});

Deno.test("init and check recognize the hypertable and its compression", async () => {
  await using database = await startTimescale();
  await using broker = await startBroker();
  await database.execute(`CREATE ROLE ${LOGGER_ROLE}`);
  const init = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout } = await runLogger(["init", ...args], databaseEnv(database));
    assert.equal(code, 0, stdout);
    return stdout;
  };
  assert.match(
    await init("--grant", LOGGER_ROLE),
    /^ok +The table sensor_data is an ordinary table\.\nnote +TimescaleDB is available on the server\. To use it, run 'init --timescale'\.$/m,
  );
  const made =
    /^ok +The table sensor_data is a hypertable in chunks of 1 day, with compression\.$/m;
  assert.match(await init("--timescale"), made);
  assert.match(await init(), made);
  await register(database);
  await database.restrictTo(LOGGER_ROLE);
  const { code, stdout } = await runLogger(["check"], loggerEnv({ database, broker }));
  assert.match(stdout, /^ok +Table: sensor_data is a hypertable in chunks of 1 day, with compr/m);
  assert.match(stdout, /^ok +Privileges/m);
  assert.doesNotMatch(stdout, /PROBLEM/);
  assert.equal(code, 0, stdout);
});

for (const decompresses of [false, true]) {
  const how = decompresses ? "which it decompresses" : "which stay compressed";
  Deno.test(`run stores late readings in compressed chunks, ${how}, with the privileges of the logger`, async () => {
    const early = [...makeDays(1, 20), ...makeRecent(20)];
    const late = makeDays(500, 20);
    await using database = await createHypertable(early);
    await runPolicy(database);
    assert.equal((await countChunks(database)).compressed, DAYS);
    if (decompresses) await makeDecompress(database, early);
    await database.restrictTo(LOGGER_ROLE);
    await using broker = await startBroker();
    await createSession(broker);
    // Readings that were stored before the compression are sent again, between the new ones.
    const sent = early.flatMap((reading, index) => [reading, ...late.slice(index, index + 1)]);
    await publishReadings(broker, sent);
    const env = { ...loggerEnv({ database, broker }), DATABASE_CONNECTIONS: "1" };
    await using logger = startLogger(env);
    await waitForRows(database, early.length + late.length);
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.stored, counts.duplicates], [late.length, early.length]);
    const beside = await countUncompressedRows(database);
    assert.equal(beside > late.length, decompresses, `${beside} rows are not compressed`);
    assert.ok(beside >= late.length, "no compressed chunk took a late reading");
    await expectStored(database, [...early, ...late]);
    await runPolicy(database);
    assert.equal(await countUncompressedRows(database), 0);
    await expectStored(database, [...early, ...late]);
  });
}

/**
 * Makes TimescaleDB decompress the rows that an insert might duplicate, as older versions always do,
 * and refuse to do so for more than one row by default.
 */
async function makeDecompress(
  database: TimescaleDatabase,
  stored: readonly Reading[],
): Promise<void> {
  await database.execute(`
    SET timescaledb.enable_dml_decompression_tuple_filtering = off;
    SET timescaledb.max_tuples_decompressed_per_dml_transaction = 1`);
  await assert.rejects(insert(database, stored), /tuple decompression limit exceeded/);
}

async function waitForRows(database: TimescaleDatabase, count: number): Promise<void> {
  await waitUntil(async () => {
    const [row] = await database.query<{ rows: number }>(
      "SELECT count(*)::int AS rows FROM sensor_data",
    );
    return Number(row?.rows) >= count;
  }, { what: `${count} rows in the table`, timeoutMs: 180_000, intervalMs: 250 });
}

Deno.test("report prints the same for compressed chunks as for others", async () => {
  const readings = makeDays(1, 1_000);
  await using database = await createHypertable(readings);
  await database.restrictTo(LOGGER_ROLE);
  const report = async (): Promise<string> => {
    const { code, stdout, stderr } = await runLogger([
      ...["report", "--json", "--by", "day", "--bin", "3s", "--gaps", "20"],
      ...["--since", "2025-05-10", "--until", "2025-05-21"],
    ], databaseEnv(database));
    assert.deepEqual([code, withoutProgress(stderr)], [0, ""]);
    return stdout;
  };
  const before = await report();
  const { total, sensors } = JSON.parse(before) as {
    total: { bins: number; missed: number };
    sensors: { gaps: unknown[] }[];
  };
  const bins = new Set(readings.map(({ uuid, timeUs }) => `${uuid} ${timeUs / 3_000_000n}`));
  assert.equal(total.bins - total.missed, bins.size);
  assert.deepEqual(sensors.map(({ gaps }) => gaps.length), SENSORS.map(() => 20));

  await runPolicy(database);
  assert.deepEqual(await countChunks(database), { compressed: DAYS, others: 0 });
  assert.equal(await report(), before);
  // Some compressed rows and some others in the same chunks.
  const late = makeDays(700, 10).filter(({ uuid, timeUs }) =>
    bins.has(`${uuid} ${timeUs / 3_000_000n}`)
  );
  assert.ok(late.length > 0);
  await insert(database, late);
  assert.equal(await countUncompressedRows(database), late.length);
  assert.equal(await report(), before);
});
