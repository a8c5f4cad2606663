/** The report on availability: its numbers equal a count bin by bin, and it reads only the index. */
import assert from "node:assert/strict";
import { runLogger, startLogger } from "../support/logger_process.ts";
import { LOGGER_ROLE, type TestDatabase } from "../support/postgres_database.ts";
import { waitUntil } from "../support/poll.ts";
import { createRandom, makeSensors, printSeed, readSeed } from "../support/readings.ts";
import { breakSources, lacksSources } from "../support/broken_sources.ts";
import { usePostgres } from "../support/harness.ts";
import { tune } from "../support/tuning.ts";
import {
  databaseEnv,
  insertAt,
  isProgress,
  type Period,
  reportJson,
  withoutProgress,
} from "./report_scene.ts";

const postgres = usePostgres();
const SEED = readSeed();
const MINUTE = 60_000;

/** The expected result, counted bin by bin. */
function count(
  timesMs: readonly number[],
  { sinceMs, untilMs, binMs, digits }: {
    readonly sinceMs: number;
    readonly untilMs: number;
    readonly binMs: number;
    /** Of a period's name. */
    readonly digits: number;
  },
): { periods: Omit<Period, "availabilityPercent">[]; gaps: [number, number][] } {
  const occupied = new Set(timesMs.map((ms) => Math.floor(ms / binMs)));
  const first = Math.floor(Math.min(...timesMs) / binMs);
  const periods = new Map<string, { bins: number; missed: number }>();
  const gaps: [number, number][] = [];
  const last = Math.floor(untilMs / binMs);
  let gapFrom: number | undefined;
  for (let bin = Math.max(first, Math.ceil(sinceMs / binMs)); bin < last; bin++) {
    const name = new Date(bin * binMs).toISOString().slice(0, digits);
    const period = periods.get(name) ?? { bins: 0, missed: 0 };
    periods.set(name, period);
    period.bins++;
    if (!occupied.has(bin)) {
      period.missed++;
      gapFrom ??= bin;
    } else if (gapFrom !== undefined) {
      gaps.push([gapFrom * binMs, bin * binMs]);
      gapFrom = undefined;
    }
  }
  if (gapFrom !== undefined) gaps.push([gapFrom * binMs, last * binMs]);
  gaps.sort((a, b) => (b[1] - b[0]) - (a[1] - a[0]));
  return { periods: [...periods].map(([period, bins]) => ({ period, ...bins })), gaps };
}

/** Readings with gaps of all sizes. */
function makeTimes(random: () => number, fromMs: number, toMs: number): number[] {
  const times: number[] = [];
  for (let ms = fromMs; ms < toMs;) {
    times.push(ms);
    const step = random() < 0.02 ? random() * 6 * 3_600_000 : random() * 5 * MINUTE;
    ms += Math.max(1, Math.floor(step));
  }
  return times;
}

Deno.test("report counts the same bins and gaps as a count bin by bin", async (t) => {
  printSeed(t, SEED);
  const random = createRandom(SEED);
  const database = await postgres.createDatabase();
  const [sensor] = makeSensors(1);
  assert.ok(sensor);
  const times = makeTimes(random, Date.UTC(2025, 10, 3, 7, 13, 5), Date.UTC(2026, 1, 8, 9, 1, 2));
  await insertAt(database, sensor, times);
  const name = `${sensor.uuid}:${sensor.sid}`;
  const cases = [
    { by: "month", digits: 7, bin: "1m", binMs: MINUTE },
    { by: "day", digits: 10, bin: "7m", binMs: 7 * MINUTE },
    { by: "year", digits: 4, bin: "11h", binMs: 11 * 60 * MINUTE },
  ];
  for (const { by, digits, bin, binMs } of cases) {
    const sinceMs = Date.UTC(2025, 9, 20) + Math.floor(random() * 30 * 86_400_000);
    const untilMs = Date.UTC(2026, 1, 20, 3, 4, 5);
    const expected = count(times, { sinceMs, untilMs, binMs, digits });
    const range = [new Date(sinceMs), new Date(untilMs)].map((time) => time.toISOString());
    const { sensors: [result] } = await reportJson(database, ...[
      ...["--sensor", name, "--by", by, "--bin", bin, "--gaps", "8"],
      ...["--since", range[0] as string, "--until", range[1] as string],
    ]);
    const periods = result?.periods.map(({ period, bins, missed }) => ({ period, bins, missed }));
    assert.deepEqual(periods, expected.periods, by);
    const lengths = result?.gaps.map(({ seconds }) => seconds * 1000);
    assert.deepEqual(lengths, expected.gaps.slice(0, 8).map(([from, to]) => to - from));
    const all = new Set(expected.gaps.map(String));
    for (const { from, to } of result?.gaps ?? []) {
      assert.ok(all.has(`${Date.parse(from)},${Date.parse(to)}`), `${from} to ${to}`);
    }
  }
});

/** Maximum number of bins of a statement. */
const MAX_PART_BINS = 20_000;

/**
 * Makes the server cancel a statement that reads many rows, as it cancels one that takes too long.
 */
async function limitRows(database: TestDatabase, maxRows: number): Promise<void> {
  await database.query(`
    CREATE FUNCTION is_within_limit() RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
      statement text := statement_timestamp()::text;
      rows int := 1;
    BEGIN
      IF current_setting('test.statement', true) = statement THEN
        rows := current_setting('test.rows')::int + 1;
      END IF;
      PERFORM set_config('test.statement', statement, false),
              set_config('test.rows', rows::text, false);
      IF rows > ${maxRows} THEN
        RAISE query_canceled USING MESSAGE = 'canceling statement due to its rows';
      END IF;
      RETURN true;
    END $$;
    ALTER TABLE sensor_data RENAME TO stored;
    CREATE VIEW sensor_data AS SELECT * FROM stored WHERE is_within_limit();
    GRANT SELECT ON sensor_data TO ${LOGGER_ROLE}`);
}

/** A sensor with a reading in each of 100,000 bins of 5 s, less gaps of all lengths. */
const FINE = {
  binMs: 5_000,
  sinceMs: Date.UTC(2025, 11, 29),
  bins: 100_000,
  // The longest gap contains whole statements, however many bins they cover.
  gaps: [[10, 11], [25_000, 26_000], [31_000, 76_000], [90_000, 90_003]],
} as const;

async function createFineDatabase(): Promise<
  { database: TestDatabase; times: number[]; args: string[] }
> {
  const { binMs, sinceMs, bins, gaps } = FINE;
  const database = await postgres.createDatabase();
  const [sensor] = makeSensors(1);
  assert.ok(sensor);
  const times = Array.from({ length: bins }, (_, bin) => sinceMs + bin * binMs + bin % 5_000)
    .filter((_, bin) => !gaps.some(([from, to]) => bin >= from && bin < to));
  await insertAt(database, sensor, times);
  await database.query("VACUUM ANALYZE sensor_data");
  // A statement may read a row or two beyond its bins.
  await limitRows(database, MAX_PART_BINS + 100);
  const range = [sinceMs, sinceMs + bins * binMs].map((ms) => new Date(ms).toISOString());
  return {
    database,
    times,
    args: [
      ...["--sensor", `${sensor.uuid}:${sensor.sid}`, "--by", "year", "--bin", "5s"],
      ...["--since", range[0] as string, "--until", range[1] as string],
    ],
  };
}

Deno.test("report splits many bins into statements that the server does not cancel", async () => {
  const { database, times, args } = await createFineDatabase();
  const { sensors: [result] } = await reportJson(database, ...args);
  const { sinceMs, binMs, bins } = FINE;
  const untilMs = sinceMs + bins * binMs;
  const expected = count(times, { sinceMs, untilMs, binMs, digits: 4 });
  assert.deepEqual(expected.periods.map(({ period }) => period), ["2025", "2026"]);
  const periods = result?.periods.map(({ period, bins, missed }) => ({ period, bins, missed }));
  assert.deepEqual(periods, expected.periods);
  const gaps = result?.gaps.map(({ from, to }) => [Date.parse(from), Date.parse(to)]);
  assert.deepEqual(gaps, expected.gaps);
  assert.equal(gaps?.length, 4);
});

Deno.test({
  name: "the test of many bins fails if one statement covers all of them (patched sources)",
  ignore: lacksSources(),
}, async () => {
  const { database, args } = await createFineDatabase();
  using sources = breakSources([
    ["FIRST_PART_BINS", "500"],
    ["MAX_PART_BINS", "20_000"],
  ].map(([name, value]) => ({
    file: "lib/commands/report/availability.ts",
    find: `const ${name} = ${value};`,
    replace: `const ${name} = 1e9;`,
  })));
  await using process = startLogger(databaseEnv(database), {
    args: ["report", ...args],
    sources: sources.path,
  });
  await process.waitForLine("canceling statement due to its rows");
  assert.equal((await process.exited).code, 1);
});

Deno.test("report prints its progress on standard error, and the same result", async () => {
  const { database, args } = await createFineDatabase();
  await using process = startLogger({
    ...databaseEnv(database),
    ...tune({ reportQuietMs: 0 }),
  }, { args: ["report", ...args] });
  const { stdout, stderr } = await runLogger(["report", ...args], databaseEnv(database));
  assert.equal(withoutProgress(stderr), "");
  const lines = stdout.trimEnd().split("\n");
  // The last lines on standard error and on standard output.
  await process.waitForLine("sensor 1 of 1 at 2026-01-03 18:53:20 UTC.");
  await process.waitForLine(lines.at(-1) as string);
  assert.equal((await process.exited).code, 0);
  assert.ok(process.lines.filter(isProgress).length > 5, process.lines.join("\n"));
  assert.deepEqual(process.lines.filter((line) => !isProgress(line)), lines);
});

Deno.test("report accepts sensors whose id and sid exceed 32 bits", async () => {
  const database = await postgres.createDatabase();
  const [sensor] = makeSensors(1);
  assert.ok(sensor);
  const id = "9007199254740993";
  const sid = 5_000_000_000;
  await database.query(`
    ALTER TABLE sensors ALTER COLUMN id TYPE bigint, ALTER COLUMN sensor_sid TYPE bigint;
    ALTER TABLE sensor_data ALTER COLUMN sensor_id TYPE bigint;
    INSERT INTO sensors (id, uuid, sensor_sid) VALUES (${id}, '${sensor.uuid}', ${sid}),
      (9007199254740992, '${sensor.uuid}', -1)`);
  const sinceMs = Date.UTC(2026, 0, 1);
  await insertAt(database, { uuid: sensor.uuid, sid }, [sinceMs, sinceMs + 2 * MINUTE]);
  const range = ["--since", "2026-01-01", "--until", "2026-01-01T00:03"];
  const { sensors } = await reportJson(database, ...range);
  assert.deepEqual(sensors.map(({ sid, periods }) => [sid, periods[0]?.missed]), [[sid, 1]]);
  const one = await reportJson(database, ...range, "--sensor", `${sensor.uuid}:${sid}`);
  assert.deepEqual(one.sensors, sensors);
  const other = await reportJson(database, ...range, "--sensor", `${sensor.uuid}:-1`);
  assert.deepEqual(other.sensorsWithoutReadings.map(({ sid }) => sid), [-1]);
});

Deno.test("report reads only the rows that the index leads to", async () => {
  const database = await postgres.createDatabase();
  const sensors = makeSensors(10);
  // A week of ten sensors with a reading every six seconds: a million rows.
  await database.query(
    `INSERT INTO sensor_data (time, sensor_id, value)
     SELECT '2026-01-01Z'::timestamptz + n * interval '6 s', id, n
     FROM generate_series(0, 100799) AS n, sensors`,
  );
  await database.query("VACUUM ANALYZE sensor_data");
  const [before] = await statistics(database);
  const range = ["--since", "2026-01-02T00:00:00Z", "--until", "2026-01-07T00:00:00Z"];
  const report = await reportJson(database, ...range);
  assert.equal(report.sensors.length, sensors.length);
  assert.deepEqual([report.total.bins, report.total.missed], [10 * 5 * 1440, 0]);
  const [after] = await waitForStatistics(database, Number(before?.idx_scan ?? 0));
  assert.equal(after?.seq_scan, before?.seq_scan, "the whole table was read");
  const read = Number(after?.idx_tup_read) - Number(before?.idx_tup_read);
  // One row for each bin and some more, of the 72,000 in each sensor's part.
  assert.ok(read < 2 * report.total.bins, `${read} rows were read`);
});

type TableStatistics = Record<"seq_scan" | "idx_scan" | "idx_tup_read", string>;

/** Statistics of all reads of `sensor_data` so far. */
async function statistics(database: TestDatabase): Promise<TableStatistics[]> {
  return await database.query<TableStatistics>(
    `SELECT seq_scan, t.idx_scan, i.idx_tup_read
     FROM pg_stat_user_tables AS t JOIN pg_stat_user_indexes AS i USING (relid)
     WHERE t.relname = 'sensor_data'`,
  );
}

/** A session reports its statistics a little after its end. */
async function waitForStatistics(
  database: TestDatabase,
  scans: number,
): Promise<TableStatistics[]> {
  return await waitUntil(async () => {
    const rows = await statistics(database);
    return Number(rows[0]?.idx_scan) > scans + 1_000 ? rows : null;
  }, { what: "the statistics of the table" });
}
