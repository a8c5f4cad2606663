/** Shared by the tests of `kraken-logger report`: readings, and the report about them. */
import assert from "node:assert/strict";
import { type LoggerEnv, runLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";

/** The settings that the report needs. */
export function databaseEnv({ logger }: Pick<TestDatabase, "logger">): LoggerEnv {
  const { host, port, user, password, database } = logger;
  return {
    DATABASE_HOST: `${host}:${port}`,
    DATABASE_USER: user,
    DATABASE_PASSWORD: password,
    DATABASE_NAME: database,
  };
}

/** Stores a reading of a registered sensor at each of the times. */
export async function insertAt(
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

/** As in JSON. */
export interface Period {
  readonly period: string;
  readonly bins: number;
  readonly missed: number;
  readonly availabilityPercent: number | null;
}

/** As in JSON. */
export interface Report {
  readonly since: string;
  readonly until: string;
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
  readonly sensorsWithoutReadings: readonly {
    readonly uuid: string;
    readonly sid: number;
    readonly label: string;
  }[];
}

/** Runs `report --json` with the arguments and asserts that it succeeds. */
export async function reportJson(
  database: TestDatabase,
  ...args: readonly string[]
): Promise<Report> {
  const { code, stdout, stderr } = await runLogger(
    ["report", "--json", ...args],
    databaseEnv(database),
  );
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Report;
}

/** Whether a line is a progress line; a slow machine may print some at any time. */
export function isProgress(line: string): boolean {
  const time = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d";
  return new RegExp(`^After \\d+ s: sensor \\d+ of \\d+( at ${time} UTC)?\\.$`).test(line);
}

/** Standard error without progress lines. */
export function withoutProgress(stderr: string): string {
  return stderr.split("\n").filter((line) => !isProgress(line)).join("\n");
}
