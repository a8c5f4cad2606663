/** The texts of the report on availability: as text, JSON and CSV, and its errors. */
import assert from "node:assert/strict";
import { runLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { makeSensors } from "../support/readings.ts";
import { SENSORS, usePostgres } from "../support/harness.ts";
import { databaseEnv, insertAt, type Report, reportJson, withoutProgress } from "./report_scene.ts";

const postgres = usePostgres();
const MINUTE = 60_000;
const START_MS = Date.UTC(2026, 0, 1);

/** Ten and a half minutes, so that the last bin of one minute is incomplete. */
const RANGE = ["--since", "2026-01-01", "--until", "2026-01-01T00:10:30"];

function minutes(...numbers: readonly number[]): number[] {
  return numbers.map((minute) => START_MS + minute * MINUTE);
}

/** The first sensor has a gap of 5 min from 00:04 on, the second has no gap from 00:05 on. */
async function createTwoSensors(): Promise<
  { database: TestDatabase; sensors: { uuid: string; sid: number }[] }
> {
  const database = await postgres.createDatabase();
  const sensors = makeSensors(4);
  const [first, second, third] = sensors;
  assert.ok(first && second && third);
  await database.registerSensors([
    { ...first, label: 'Oven, "big"' },
    { ...third, enabled: false },
  ]);
  await insertAt(database, first, minutes(0, 1, 2, 3, 9));
  await insertAt(database, second, minutes(5, 6, 7, 8, 9));
  await insertAt(database, third, minutes(0));
  return { database, sensors };
}

/** Runs `report` for {@linkcode RANGE} on a host that is not in UTC; returns what it prints. */
async function run(
  database: TestDatabase,
  ...args: readonly string[]
): Promise<{ stdout: string; stderr: string }> {
  const env = { ...databaseEnv(database), TZ: "Asia/Kolkata" };
  const { code, stdout, stderr } = await runLogger(["report", ...RANGE, ...args], env);
  assert.equal(code, 0, stderr);
  return { stdout, stderr: withoutProgress(stderr) };
}

/** As {@linkcode run}, with nothing on standard error. */
async function runText(database: TestDatabase, ...args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await run(database, ...args);
  assert.equal(stderr, "");
  return stdout;
}

Deno.test("report adds up the enabled sensors, with all times in UTC", async () => {
  const { database, sensors: [first, second, third] } = await createTwoSensors();
  assert.ok(first && second && third);
  const text = await runText(database);
  assert.match(
    text,
    /^Availability in bins of 1 min, from 2026-01-01 00:00:00 to 2026-01-01 00:10:30 UTC, 2 sensors$/m,
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
  assert.match(
    await runText(database, "--sensor", `${third.uuid}:${third.sid}`),
    /^2026-01 +10 +9 +10\.000 %$/m,
  );
  const { since, until } = JSON.parse(await runText(database, "--json")) as Report;
  assert.deepEqual([since, until], ["2026-01-01T00:00:00.000Z", "2026-01-01T00:10:30.000Z"]);
});

Deno.test("report lists the gaps of each sensor with --per-sensor, and as many as --gaps says", async () => {
  const { database, sensors: [first, second, third] } = await createTwoSensors();
  assert.ok(first && second && third);
  await insertAt(database, second, minutes(3));
  const gapLine = /^2026-01-01 00:\d\d:00 {2}2026-01-01 00:\d\d:00 +\d+ (?:s|min)(?= {2}|$)/gm;
  const linesOf = (text: string): string[] => text.match(gapLine) ?? [];
  const together = await runText(database, "--gaps", "1");
  assert.deepEqual(linesOf(together), ["2026-01-01 00:04:00  2026-01-01 00:09:00      5 min"]);
  const each = await runText(database, "--gaps", "1", "--per-sensor");
  const [, ofSecond = ""] = each.split(`\n${second.uuid} ${second.sid}\nperiod`);
  assert.ok(ofSecond.includes("2026-01-01 00:04:00  2026-01-01 00:05:00      1 min\n"), each);
  const [, ofFirst = ""] = each.split(`\n${first.uuid} ${first.sid}  Oven, "big"\nperiod`);
  assert.ok(ofFirst.includes("2026-01-01 00:04:00  2026-01-01 00:09:00      5 min\n"), each);
  assert.equal(linesOf(each).length, 2, each);
  for (const args of [[], ["--per-sensor"]]) {
    const none = await runText(database, "--gaps", "0", ...args);
    assert.doesNotMatch(none, /gaps/i);
    assert.deepEqual(linesOf(none), []);
  }
  const without = await runText(database, "--sensor", second.uuid, "--since", "2026-01-01T00:05");
  assert.match(without, /^No gaps\.$/m);
});

Deno.test("report prints the periods or the gaps as CSV", async () => {
  const { database, sensors: [first, second] } = await createTwoSensors();
  assert.ok(first && second);
  await insertAt(database, second, minutes(3));
  const csv = async (...args: readonly string[]): Promise<string[]> =>
    (await run(database, "--csv", ...args)).stdout.split("\r\n");
  assert.deepEqual(await csv("--by", "day"), [
    "period,bins,missed,availability_percent",
    "2026-01-01,17,6,64.705882",
    "",
  ]);
  const oven = `${first.uuid},${first.sid},"Oven, ""big"""`;
  const other = `${second.uuid},${second.sid},`;
  const lines = await csv("--per-sensor");
  assert.equal(lines[0], "uuid,sid,label,period,bins,missed,availability_percent");
  assert.deepEqual(
    lines.slice(1).toSorted(),
    [
      "",
      `${oven},2026-01,10,5,50.000000`,
      `${other},2026-01,7,1,85.714286`,
    ].toSorted(),
  );
  const head = "uuid,sid,label,from,to,seconds";
  const long = `${oven},2026-01-01T00:04:00.000Z,2026-01-01T00:09:00.000Z,300`;
  const short = `${other},2026-01-01T00:04:00.000Z,2026-01-01T00:05:00.000Z,60`;
  assert.deepEqual(await csv("--table", "gaps"), [head, long, short, ""]);
  assert.deepEqual(await csv("--table", "gaps", "--gaps", "1"), [head, long, ""]);
  const each = await csv("--table", "gaps", "--gaps", "1", "--per-sensor");
  assert.deepEqual(each.toSorted(), [head, long, short, ""].toSorted());
  assert.deepEqual(await csv("--table", "gaps", "--gaps", "0"), [head, ""]);
});

Deno.test("report names the sensors without readings in every format", async () => {
  const { database, sensors: [first, second, third, fourth] } = await createTwoSensors();
  assert.ok(first && second && third && fourth);
  const enabled = SENSORS.filter(({ uuid }) =>
    ![first, second, third].some((sensor) => sensor.uuid === uuid)
  );
  assert.equal(enabled.length, 7);
  const text = await runText(database);
  const [, block] = text.split("7 sensors have no reading before 2026-01-01 00:10:30 UTC:\n");
  const names = enabled.map(({ uuid, sid }) => `  ${uuid} ${sid}`).toSorted();
  assert.deepEqual(block?.trimEnd().split("\n"), names);
  const csv = await run(database, "--csv");
  assert.equal(csv.stderr, text.slice(text.indexOf("7 sensors have no reading")));
  assert.ok(!csv.stdout.includes("no reading"));
  const json = JSON.parse(await runText(database, "--json")) as Report;
  assert.deepEqual(
    json.sensorsWithoutReadings.map(({ uuid, sid }) => `  ${uuid} ${sid}`),
    names,
  );
  assert.equal(
    await runText(database, "--sensor", fourth.uuid),
    "No sensor has readings in this period.\n\n" +
      `1 sensor has no reading before 2026-01-01 00:10:30 UTC:\n  ${fourth.uuid} ${fourth.sid}\n`,
  );
  await database.query(
    "INSERT INTO sensors (uuid) SELECT gen_random_uuid() FROM generate_series(1, 30)",
  );
  assert.match(
    await runText(database),
    /^37 sensors have no reading [^]*^ {2}and 17 more \(--json lists all of them\)$/m,
  );
});

Deno.test("report prints no availability if no bin is complete", async () => {
  const { database, sensors: [first] } = await createTwoSensors();
  assert.ok(first);
  for (const args of [[], ["--per-sensor"]]) {
    const text = await runText(database, "--bin", "1h", ...args);
    assert.match(text, /^total +0 +0 +–$/m);
    assert.match(text, /^No bin of 1\.0 h is complete\.$/m);
    assert.doesNotMatch(text, /100|gaps/);
  }
  const { total, sensors } = await reportJson(database, ...RANGE, "--bin", "1h");
  assert.deepEqual(total, { bins: 0, missed: 0, availabilityPercent: null });
  assert.deepEqual(sensors.map(({ periods }) => periods), [[], []]);
});

Deno.test("report prints 100 % only if no bin was missed", async () => {
  const { database, sensors: [, , , sensor] } = await createTwoSensors();
  assert.ok(sensor);
  // 300,000 bins of a second, less one: 99.99967 %.
  const seconds = Array.from({ length: 300_000 }, (_, second) => second)
    .filter((second) => second !== 1_234);
  await insertAt(database, sensor, seconds.map((second) => START_MS + second * 1_000));
  const args = ["report", "--sensor", sensor.uuid, "--bin", "1s", "--since", "2026-01-01"];
  const until = new Date(START_MS + 300_000_000).toISOString();
  const env = databaseEnv(database);
  const { stdout } = await runLogger([...args, "--until", until], env);
  assert.match(stdout, /^total +300000 +1 +99\.999 %$/m);
  const whole = await runLogger([...args, "--until", "2026-01-01T00:20"], env);
  assert.match(whole.stdout, /^total +1200 +0 +100\.000 %$/m);
});

Deno.test("report names problems of its options and of the database", async () => {
  const database = await postgres.createDatabase();
  const env = databaseEnv(database);
  const nobody = crypto.randomUUID();
  const unknown = await runLogger(["report", "--sensor", nobody], env);
  assert.deepEqual([unknown.code, unknown.stderr], [1, `Sensor ${nobody} is not registered.\n`]);
  const wrong: readonly (readonly [string[], RegExp])[] = [
    [["--since", "2026-02-01", "--until", "2026-01-01"], /--since must be before --until/],
    [["--bin", "0s"], /--bin must be a length of time such as/],
    [["--by", "week"], /--by must be day, month or year, received 'week'/],
    [["--sensor", "oven"], /--sensor must be UUID or UUID:SID/],
    [["--gaps", "-1"], /--gaps/],
    [["--json", "--csv"], /--json and --csv cannot be combined/],
    [["--until", "soon"], /--until must be a date/],
    [["--since", "999999999d"], /--since must not be before the year 1/],
    [["--since", "2025-02-30"], /--since must be a date/],
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
