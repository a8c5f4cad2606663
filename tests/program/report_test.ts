/** The report on availability: the same numbers as counting them one by one, and by the index alone. */
import assert from "node:assert/strict";
import { type LoggerEnv, runLogger } from "../services/logger_process.ts";
import type { TestDatabase } from "../services/postgres_database.ts";
import { waitUntil } from "../services/poll.ts";
import { createRandom, makeSensors } from "../services/readings.ts";
import { usePostgres } from "./harness.ts";

const postgres = usePostgres();
const SEED = Number(Deno.env.get("KRAKEN_TEST_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const MINUTE = 60_000;

function databaseEnv({ logger }: TestDatabase): LoggerEnv {
  const { host, port, user, password, database } = logger;
  return {
    DATABASE_HOST: `${host}:${port}`,
    DATABASE_USER: user,
    DATABASE_PASSWORD: password,
    DATABASE_NAME: database,
  };
}

async function insert(
  database: TestDatabase,
  { uuid, sid }: { uuid: string; sid: number },
  timesMs: readonly number[],
): Promise<void> {
  await database.query(
    `INSERT INTO sensor_data (time, sensor_id, value)
     SELECT to_timestamp(ms / 1000), id, 1 FROM sensors, unnest($3::float8[]) AS ms
     WHERE uuid = $1 AND sensor_sid = $2`,
    [uuid, sid, timesMs],
  );
}

interface Period {
  readonly period: string;
  readonly bins: number;
  readonly missed: number;
}

interface Report {
  readonly total: Omit<Period, "period">;
  readonly periods: readonly Period[];
  readonly sensors: readonly {
    readonly uuid: string;
    readonly sid: number;
    readonly label: string;
    readonly periods: readonly Period[];
    readonly gaps: readonly {
      readonly from: string;
      readonly to: string;
      readonly seconds: number;
    }[];
  }[];
}

async function reportJson(database: TestDatabase, ...args: readonly string[]): Promise<Report> {
  const { code, stdout, stderr } = await runLogger(
    ["report", "--json", ...args],
    databaseEnv(database),
  );
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Report;
}

/** The same by looking at every bin. */
function count(
  timesMs: readonly number[],
  { sinceMs, untilMs, binMs, digits }: {
    readonly sinceMs: number;
    readonly untilMs: number;
    readonly binMs: number;
    /** Of a period's name. */
    readonly digits: number;
  },
): { periods: Period[]; gaps: [number, number][] } {
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

Deno.test("report counts bins and finds the gaps as counting them one by one does", async () => {
  // deno-lint-ignore no-console
  console.log(`KRAKEN_TEST_SEED=${SEED}`);
  const random = createRandom(SEED);
  const database = await postgres.createDatabase();
  const [sensor] = makeSensors(1);
  assert.ok(sensor);
  const times = makeTimes(random, Date.UTC(2025, 10, 3, 7, 13, 5), Date.UTC(2026, 1, 8, 9, 1, 2));
  await insert(database, sensor, times);
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

Deno.test("report adds the sensors up, and leaves those out that are disabled or have no data", async () => {
  const database = await postgres.createDatabase();
  const [first, second, third] = makeSensors(4);
  assert.ok(first && second && third);
  await database.registerSensors([
    { ...first, label: 'Oven, "big"' },
    { ...third, enabled: false },
  ]);
  const startMs = Date.UTC(2026, 0, 1);
  const minutes = (...numbers: number[]): number[] =>
    numbers.map((minute) => startMs + minute * MINUTE);
  await insert(database, first, minutes(0, 1, 2, 3, 9));
  await insert(database, second, minutes(5, 6, 7, 8, 9));
  await insert(database, third, minutes(0));
  const range = ["--since", "2026-01-01T00:00:00Z", "--until", "2026-01-01T00:10:30Z"];
  const env = { ...databaseEnv(database), TZ: "Asia/Kolkata" };
  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runLogger(["report", ...range, ...args], env);
    assert.deepEqual([code, stderr], [0, ""]);
    return stdout;
  };
  const text = await run();
  assert.match(
    text,
    /^Data in bins of 1 min, from 2026-01-01 00:00:00 to 2026-01-01 00:10:30 UTC, 2 sensors$/m,
  );
  assert.match(text, /^2026-01 +15 +5 +66\.667 %$/m);
  assert.match(text, /^total +15 +5 +66\.667 %$/m);
  assert.match(
    text,
    new RegExp(
      `^2026-01-01 00:04:00  2026-01-01 00:09:00 +5 min  ${first.uuid} ${first.sid}  Oven`,
      "m",
    ),
  );
  assert.deepEqual((await run("--csv", "--by", "day")).split("\r\n"), [
    "period,bins,missed,availability_percent",
    "2026-01-01,15,5,66.666667",
    "",
  ]);
  const lines = (await run("--csv", "--per-sensor")).split("\r\n");
  assert.ok(lines.includes(`${first.uuid},${first.sid},"Oven, ""big""",2026-01,10,5,50.000000`));
  assert.ok(lines.includes(`${second.uuid},${second.sid},,2026-01,5,0,100.000000`));
  assert.equal(lines.length, 4);
  assert.match(await run("--per-sensor"), new RegExp(`^${second.uuid} ${second.sid}\nperiod`, "m"));
  assert.match(
    await run("--sensor", second.uuid, "--sensor", first.uuid),
    /^No gaps|Longest gaps/m,
  );
  assert.match(await run("--sensor", `${third.uuid}:${third.sid}`), /^2026-01 +10 +9 +10\.000 %$/m);
  const [, , , fourth] = makeSensors(4);
  assert.equal(await run("--sensor", fourth?.uuid ?? ""), "No sensor has data in this time.\n");
});

Deno.test("report says what is wrong with its options, and with the database", async () => {
  const database = await postgres.createDatabase();
  const env = databaseEnv(database);
  const nobody = crypto.randomUUID();
  const unknown = await runLogger(["report", "--sensor", nobody], env);
  assert.deepEqual([unknown.code, unknown.stderr], [1, `There is no sensor ${nobody}.\n`]);
  const wrong: readonly (readonly [string[], RegExp])[] = [
    [["--since", "2026-02-01", "--until", "2026-01-01"], /--since must be before --until/],
    [["--bin", "0s"], /--bin must be a time such as/],
    [["--by", "week"], /--by must be day, month or year, received 'week'/],
    [["--sensor", "oven"], /--sensor must be UUID or UUID:SID/],
    [["--gaps", "-1"], /--gaps/],
    [["--json", "--csv"], /--json and --csv do not go together/],
    [["--until", "soon"], /--until must be a date/],
  ];
  for (const [args, says] of wrong) {
    const { code, stderr } = await runLogger(["report", ...args], env);
    assert.equal(code, 1, args.join(" "));
    assert.match(stderr, says);
  }
  const away = await runLogger(["report"], { ...env, DATABASE_HOST: "127.0.0.1:1" });
  assert.equal(away.code, 1);
  assert.match(away.stderr, /^Database 'sensors \d+' at '127\.0\.0\.1:1': connection refused/);
  assert.equal((await runLogger(["report"], { ...env, DATABASE_USER: "" })).code, 78);
});

Deno.test("report reads nothing of the table but what the index leads to", async () => {
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

/** What has been read of `sensor_data` since the beginning. */
async function statistics(database: TestDatabase): Promise<TableStatistics[]> {
  return await database.query<TableStatistics>(
    `SELECT seq_scan, t.idx_scan, i.idx_tup_read
     FROM pg_stat_user_tables AS t JOIN pg_stat_user_indexes AS i USING (relid)
     WHERE t.relname = 'sensor_data'`,
  );
}

/** A session hands its numbers in when it ends, a little later. */
async function waitForStatistics(
  database: TestDatabase,
  scans: number,
): Promise<TableStatistics[]> {
  return await waitUntil(async () => {
    const rows = await statistics(database);
    return Number(rows[0]?.idx_scan) > scans + 1_000 ? rows : null;
  }, { what: "the statistics of the table" });
}
