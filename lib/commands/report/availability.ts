/**
 * The availability of a sensor: how many bins of a period have at least one reading, and the longest
 * gaps between bins with readings.
 *
 * The query jumps from one occupied bin to the next along the unique key of `sensor_data`, so that a
 * bin costs one index scan, however many readings it has. One statement covers a limited number of
 * bins, because the server cancels a statement that takes too long.
 */

import type { DatabaseConnection } from "../../database/connection.ts";

/** Length of the periods of a report: calendar days, months or years in UTC. */
export type PeriodUnit = "day" | "month" | "year";

/** A gap: the time from the end of a bin with readings to the start of the next such bin. */
export interface Gap {
  /** In ms since 1970-01-01 00:00 UTC. */
  readonly fromMs: number;
  readonly toMs: number;
}

/** The bins of one period, from the first reading of the sensor on. */
export interface PeriodResult {
  /** `2026`, `2026-11` or `2026-11-24`. */
  readonly period: string;
  /** Complete bins of the period. */
  readonly bins: number;
  /** Those of them without a reading. */
  readonly missed: number;
}

/** The availability of a sensor that has readings. */
export interface SensorResult {
  /** With hyphens. */
  readonly uuid: string;
  readonly sid: number;
  /** Empty if the sensor has no label. */
  readonly label: string;
  readonly periods: readonly PeriodResult[];
  /** The longest gaps, the longest first. */
  readonly gaps: readonly Gap[];
}

/** What to measure. Times are in ms since 1970-01-01 00:00 UTC. */
export interface AvailabilityQuery {
  /** Start; the time before the first reading of a sensor does not count. */
  readonly sinceMs: number;
  /** End; an incomplete bin at the end does not count. */
  readonly untilMs: number;
  readonly binMs: number;
  readonly by: PeriodUnit;
  /** Maximum number of gaps of each sensor. */
  readonly maxGaps: number;
}

/** A row of the table `sensors`. */
export interface SensorRow {
  /** As text, because the column may be a bigint. */
  readonly id: string;
  /** With hyphens. */
  readonly uuid: string;
  readonly sid: number;
  /** Empty if the sensor has no label, or the table no such column. */
  readonly label: string;
  readonly enabled: boolean;
}

/**
 * Reads all registered sensors, in the order of label, uuid and sid.
 *
 * @throws {DatabaseError} when the query fails.
 */
export async function listSensors(connection: DatabaseConnection): Promise<SensorRow[]> {
  // The label is read by way of JSON, because the column may be missing. A double holds every sid
  // that the logger accepts.
  return await connection.query(
    `SELECT id::text AS id, uuid::text AS uuid, sensor_sid::float8 AS sid,
            coalesce(to_jsonb(sensors) ->> 'label', '') AS label, coalesce(enabled, false) AS enabled
     FROM sensors ORDER BY 4, 2, 3`,
  );
}

/** Bins of the first statement, and the maximum of a statement. */
const FIRST_PART_BINS = 500;
const MAX_PART_BINS = 20_000;

/** Target duration of a statement, far below the time after which the server cancels it. */
const PART_DURATION_MS = 500;

/**
 * How many bins one statement covers. A bin costs some microseconds in an ordinary table, and a
 * thousand times as much in a hypertable if the statement touches many chunks.
 */
export class PartSize {
  #bins = FIRST_PART_BINS;

  get bins(): number {
    return this.#bins;
  }

  /** Adapts the size to the duration of a statement that covered so many bins. */
  adapt({ bins, durationMs }: { readonly bins: number; readonly durationMs: number }): void {
    const fitting = Math.floor(bins * PART_DURATION_MS / durationMs);
    if (durationMs > PART_DURATION_MS) {
      this.#bins = Math.max(1, Math.min(this.#bins, fitting));
    } else if (bins === this.#bins) {
      // A statement cut short by the end of its period says nothing about the cost of a full one.
      this.#bins = Math.min(2 * bins, fitting, MAX_PART_BINS);
    }
  }
}

/** Collects gaps and keeps the longest ones. */
class LongestGaps {
  readonly #max: number;
  #gaps: Gap[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  add(fromMs: number, toMs: number): void {
    if (toMs <= fromMs) return;
    this.#gaps.push({ fromMs, toMs });
    if (this.#gaps.length > 2 * this.#max + 100) this.#gaps = this.list();
  }

  /** The longest first; of the same length, the earliest first. */
  list(): Gap[] {
    return sortGaps(this.#gaps).slice(0, this.#max);
  }
}

/** Sorts the longest first; gaps of the same length keep their order. */
export function sortGaps<One extends Gap>(gaps: readonly One[]): One[] {
  return gaps.toSorted((a, b) => (b.toMs - b.fromMs) - (a.toMs - a.fromMs));
}

/** Measures sensors, one after the other. The caller owns and closes the connection. */
export class AvailabilityMeter {
  readonly #connection: DatabaseConnection;
  readonly #query: AvailabilityQuery;
  readonly #size = new PartSize();

  constructor(connection: DatabaseConnection, query: AvailabilityQuery) {
    this.#connection = connection;
    this.#query = query;
  }

  /**
   * Measures a sensor. Returns undefined if it has no reading before the end. Calls `onPart` after
   * each statement with the time it reached, in ms since 1970.
   *
   * @throws {DatabaseError} when a query fails.
   */
  async measure(
    { id, uuid, sid, label }: SensorRow,
    onPart: (reachedMs: number) => void,
  ): Promise<SensorResult | undefined> {
    const { sinceMs, untilMs, binMs, by, maxGaps } = this.#query;
    const [first] = await this.#connection.query<{ ms: number | null }>(
      "SELECT extract(epoch FROM min(time))::float8 * 1000 AS ms FROM sensor_data WHERE sensor_id = $1",
      [id],
    );
    if (typeof first?.ms !== "number" || first.ms >= untilMs) return undefined;
    const down = (ms: number): number => Math.floor(ms / binMs) * binMs;
    const up = (ms: number): number => Math.ceil(ms / binMs) * binMs;
    const beginMs = Math.max(up(sinceMs), down(first.ms));
    const endMs = down(untilMs);
    const periods: PeriodResult[] = [];
    const gaps = new LongestGaps(maxGaps);
    let lastMs = beginMs;
    for (const { name, startMs, stopMs } of splitPeriods(beginMs, endMs, by)) {
      // A bin belongs to the period in which it begins.
      const fromMs = up(startMs);
      const toMs = Math.min(up(stopMs), endMs);
      const bins = (toMs - fromMs) / binMs;
      if (bins <= 0) continue;
      let occupied = 0;
      for await (const part of this.#measureParts(id, { fromMs, toMs })) {
        onPart(part.stopMs);
        occupied += part.occupied;
        if (part.firstMs === null || part.lastMs === null) continue;
        gaps.add(lastMs, part.firstMs);
        for (const [gapFromMs, gapToMs] of part.gaps ?? []) gaps.add(gapFromMs, gapToMs);
        lastMs = part.lastMs + binMs;
      }
      periods.push({ period: name, bins, missed: bins - occupied });
    }
    gaps.add(lastMs, endMs);
    return { uuid, sid, label, periods, gaps: gaps.list() };
  }

  /** The bins between two times, in parts of one statement each. */
  async *#measureParts(
    id: string,
    { fromMs, toMs }: { readonly fromMs: number; readonly toMs: number },
  ): AsyncGenerator<Part & { readonly stopMs: number }> {
    const { binMs, maxGaps } = this.#query;
    for (let startMs = fromMs; startMs < toMs;) {
      const bins = Math.min(this.#size.bins, (toMs - startMs) / binMs);
      const stopMs = startMs + bins * binMs;
      const sentMs = performance.now();
      const [part] = await this.#connection.query<Part & Record<string, unknown>>(PART_SQL, [
        ...[id, startMs / 1000, stopMs / 1000, `${binMs / 1000} seconds`, binMs, maxGaps],
      ]);
      this.#size.adapt({ bins, durationMs: performance.now() - sentMs });
      yield { ...part as Part, stopMs };
      startMs = stopMs;
    }
  }
}

interface Part {
  readonly occupied: number;
  /** Start of the first and of the last bin with readings; null if there is none. */
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
    SELECT from_ms, to_ms FROM gap WHERE to_ms > from_ms
    ORDER BY to_ms - from_ms DESC, from_ms LIMIT $6
  )
  SELECT count(*)::int AS occupied, min(ms) AS "firstMs", max(ms) AS "lastMs",
         (SELECT json_agg(json_build_array(from_ms, to_ms)) FROM longest) AS gaps
  FROM bin`;

interface Period {
  readonly name: string;
  readonly startMs: number;
  readonly stopMs: number;
}

/**
 * Splits the time between two times of the years 1 to 9999 into calendar periods. The first and the
 * last period may be partial.
 */
export function splitPeriods(fromMs: number, toMs: number, by: PeriodUnit): Period[] {
  const periods: Period[] = [];
  for (let startMs = fromMs; startMs < toMs;) {
    const name = new Date(startMs).toISOString().slice(0, { day: 10, month: 7, year: 4 }[by]);
    const next = new Date(startMs);
    next.setUTCHours(0, 0, 0, 0);
    if (by === "day") next.setUTCDate(next.getUTCDate() + 1);
    else if (by === "month") next.setUTCMonth(next.getUTCMonth() + 1, 1);
    else next.setUTCFullYear(next.getUTCFullYear() + 1, 0, 1);
    periods.push({ name, startMs, stopMs: Math.min(next.getTime(), toMs) });
    startMs = next.getTime();
  }
  return periods;
}
