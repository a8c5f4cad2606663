/**
 * How much of the time a sensor has data: in how many bins of a period there is at least one
 * reading, and which stretches without any are the longest.
 *
 * A sensor is looked at by jumping from one occupied bin to the next along the unique key of
 * `sensor_data`, so that it costs one step in the index for each bin, however many readings it has.
 */

import type { DatabaseConnection } from "./database.ts";

/** Periods that are reported on; in UTC. */
export type PeriodUnit = "day" | "month" | "year";

/** A stretch without data, from the end of a bin with data to the beginning of the next one. */
export interface Gap {
  /** In ms since 1970-01-01 00:00 UTC. */
  readonly fromMs: number;
  readonly toMs: number;
}

/** A period, as far as the sensor was there. */
export interface PeriodResult {
  /** `2026`, `2026-11` or `2026-11-24`. */
  readonly period: string;
  readonly bins: number;
  /** Bins without any reading. */
  readonly missed: number;
}

/** A sensor that has data. */
export interface SensorResult {
  readonly uuid: string;
  readonly sid: number;
  /** Empty where there is none. */
  readonly label: string;
  readonly periods: readonly PeriodResult[];
  /** The longest ones, the longest first. */
  readonly gaps: readonly Gap[];
}

/** What is asked. */
export interface AvailabilityQuery {
  /** In ms since 1970; what comes before the first reading of a sensor does not count. */
  readonly sinceMs: number;
  /** A bin that is not over then does not count. */
  readonly untilMs: number;
  readonly binMs: number;
  readonly by: PeriodUnit;
  /** Gaps of each sensor at most. */
  readonly maxGaps: number;
}

/** A registered sensor. */
export interface RegisteredSensor {
  readonly id: number;
  readonly uuid: string;
  readonly sid: number;
  readonly label: string;
  readonly enabled: boolean;
}

/**
 * The sensors in the order of their labels.
 *
 * @throws {DatabaseError}
 */
export async function listSensors(connection: DatabaseConnection): Promise<RegisteredSensor[]> {
  // The label by way of JSON, since there need not be such a column.
  return await connection.query(
    `SELECT id::int, uuid::text AS uuid, sensor_sid::int AS sid,
            coalesce(to_jsonb(sensors) ->> 'label', '') AS label, coalesce(enabled, false) AS enabled
     FROM sensors ORDER BY 4, 2, 3`,
  );
}

/**
 * Undefined where the sensor has no reading before the end.
 *
 * @throws {DatabaseError}
 */
export async function measureSensor(
  connection: DatabaseConnection,
  { id, uuid, sid, label }: RegisteredSensor,
  { sinceMs, untilMs, binMs, by, maxGaps }: AvailabilityQuery,
): Promise<SensorResult | undefined> {
  const [first] = await connection.query<{ ms: number | null }>(
    "SELECT extract(epoch FROM min(time))::float8 * 1000 AS ms FROM sensor_data WHERE sensor_id = $1",
    [id],
  );
  if (typeof first?.ms !== "number" || first.ms >= untilMs) return undefined;
  const down = (ms: number): number => Math.floor(ms / binMs) * binMs;
  const up = (ms: number): number => Math.ceil(ms / binMs) * binMs;
  const beginMs = Math.max(up(sinceMs), down(first.ms));
  const endMs = down(untilMs);
  const periods: PeriodResult[] = [];
  const gaps: Gap[] = [];
  const addGap = (fromMs: number, toMs: number): void => {
    if (toMs <= fromMs) return;
    gaps.push({ fromMs, toMs });
    gaps.sort((a, b) => (b.toMs - b.fromMs) - (a.toMs - a.fromMs));
    gaps.length = Math.min(gaps.length, maxGaps);
  };
  let lastMs = beginMs;
  for (const { name, startMs, stopMs } of splitPeriods(beginMs, endMs, by)) {
    // A bin belongs to the period in which it begins.
    const fromMs = up(startMs);
    const toMs = Math.min(up(stopMs), endMs);
    const bins = (toMs - fromMs) / binMs;
    if (bins <= 0) continue;
    const part = await measurePart(connection, { id, fromMs, toMs, binMs, maxGaps });
    periods.push({ period: name, bins, missed: bins - part.occupied });
    if (part.firstMs === null || part.lastMs === null) continue;
    addGap(lastMs, part.firstMs);
    for (const [gapFromMs, gapToMs] of part.gaps ?? []) addGap(gapFromMs, gapToMs);
    lastMs = part.lastMs + binMs;
  }
  addGap(lastMs, endMs);
  return { uuid, sid, label, periods, gaps };
}

interface Part {
  readonly occupied: number;
  /** Beginnings of the first and of the last bin with data. */
  readonly firstMs: number | null;
  readonly lastMs: number | null;
  readonly gaps: readonly (readonly [number, number])[] | null;
}

const PART_SQL = `
  WITH RECURSIVE jump AS (
    (SELECT time FROM sensor_data
     WHERE sensor_id = $1 AND time >= to_timestamp($2) AND time < to_timestamp($3)
     ORDER BY time LIMIT 1)
    UNION ALL
    SELECT (SELECT next.time FROM sensor_data AS next
            WHERE next.sensor_id = $1 AND next.time < to_timestamp($3)
              AND next.time >= date_bin($4::interval, jump.time, 'epoch') + $4::interval
            ORDER BY next.time LIMIT 1)
    FROM jump WHERE jump.time IS NOT NULL
  ), bin AS (
    SELECT extract(epoch FROM date_bin($4::interval, time, 'epoch'))::float8 * 1000 AS ms
    FROM jump WHERE time IS NOT NULL
  ), gap AS (
    SELECT lag(ms) OVER (ORDER BY ms) + $5 AS from_ms, ms AS to_ms FROM bin
  ), longest AS (
    SELECT from_ms, to_ms FROM gap WHERE to_ms > from_ms ORDER BY to_ms - from_ms DESC LIMIT $6
  )
  SELECT count(*)::int AS occupied, min(ms) AS "firstMs", max(ms) AS "lastMs",
         (SELECT json_agg(json_build_array(from_ms, to_ms)) FROM longest) AS gaps
  FROM bin`;

async function measurePart(
  connection: DatabaseConnection,
  { id, fromMs, toMs, binMs, maxGaps }: {
    readonly id: number;
    readonly fromMs: number;
    readonly toMs: number;
    readonly binMs: number;
    readonly maxGaps: number;
  },
): Promise<Part> {
  const [part] = await connection.query<Part & Record<string, unknown>>(PART_SQL, [
    ...[id, fromMs / 1000, toMs / 1000, `${binMs / 1000} seconds`, binMs, maxGaps],
  ]);
  return part as Part;
}

interface Period {
  readonly name: string;
  readonly startMs: number;
  readonly stopMs: number;
}

/** The periods from a time to another one; the first and the last are as long as they are. */
export function splitPeriods(fromMs: number, toMs: number, by: PeriodUnit): Period[] {
  const periods: Period[] = [];
  for (let startMs = fromMs; startMs < toMs;) {
    const [year, month, day] = new Date(startMs).toISOString().slice(0, 10).split("-").map(
      Number,
    ) as [number, number, number];
    const next = {
      day: Date.UTC(year, month - 1, day + 1),
      month: Date.UTC(year, month, 1),
      year: Date.UTC(year + 1, 0, 1),
    }[by];
    const name = new Date(startMs).toISOString().slice(0, { day: 10, month: 7, year: 4 }[by]);
    periods.push({ name, startMs, stopMs: Math.min(next, toMs) });
    startMs = next;
  }
  return periods;
}
