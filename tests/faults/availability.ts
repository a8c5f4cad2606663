/**
 * Availability as it was reported for the Python logger: the share of the minutes of a period in
 * which a sensor with one reading a second has at least one reading in the table.
 */
import type { TestDatabase } from "../support/postgres_database.ts";

/** The sensor and its period. */
export interface AvailabilityQuery {
  readonly uuid: string;
  readonly sid: number;
  /** Times of the first and last reading, in microseconds since 1970-01-01 00:00 UTC. */
  readonly fromUs: bigint;
  readonly toUs: bigint;
}

/** Minutes of an hour, or of all hours. */
export interface AvailabilityRow {
  /** `2023-11-14 22:00 UTC`; null for all hours. */
  readonly hour: string | null;
  readonly minutes: number;
  /** Minutes without any reading. */
  readonly missed: number;
  /** In percent. */
  readonly availability: number;
}

/** Queries the table by hour; the last row is the total. */
export async function queryAvailability(
  database: TestDatabase,
  { uuid, sid, fromUs, toUs }: AvailabilityQuery,
): Promise<AvailabilityRow[]> {
  return await database.query<AvailabilityRow & Record<string, unknown>>(
    `WITH period AS (
       SELECT generate_series(
         date_bin('1 minute', to_timestamp($3::float8), 'epoch'), to_timestamp($4), '1 minute'
       ) AS minute
     ), stored AS (
       SELECT DISTINCT date_bin('1 minute', time, 'epoch') AS minute
       FROM sensor_data JOIN sensors ON sensors.id = sensor_id WHERE uuid = $1 AND sensor_sid = $2
     ), bin AS (
       SELECT date_bin('1 hour', minute, 'epoch') AT TIME ZONE 'UTC' AS hour,
              stored.minute IS NULL AS missed
       FROM period LEFT JOIN stored USING (minute)
     )
     SELECT to_char(hour, 'YYYY-MM-DD HH24:MI "UTC"') AS hour,
            count(*)::int AS minutes,
            count(*) FILTER (WHERE missed)::int AS missed,
            100 * avg((NOT missed)::int)::float8 AS availability
     FROM bin GROUP BY ROLLUP (bin.hour) ORDER BY bin.hour NULLS LAST`,
    [uuid, sid, Number(fromUs) / 1e6, Number(toUs) / 1e6],
  );
}

/** Formats the rows in columns. */
export function formatAvailability(rows: readonly AvailabilityRow[]): string {
  const lines = rows.map(({ hour, minutes, missed, availability }) =>
    [
      (hour === null ? "total" : `hour from ${hour}`).padEnd(30),
      String(minutes).padStart(8),
      String(missed).padStart(8),
      `${availability.toFixed(3)} %`.padStart(13),
    ].join(" ")
  );
  return [
    "One reading a second, in bins of a minute; the Python logger's availability was 99.97 %",
    `${"period".padEnd(30)}  minutes   missed  availability`,
    ...lines,
  ].join("\n");
}
