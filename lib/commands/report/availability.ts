/**
 * How much of the time a sensor has data: in how many bins of a period there is at least one
 * reading, and which stretches without any are the longest.
 *
 * A sensor is looked at by jumping from one occupied bin to the next along the unique key of
 * `sensor_data`, so that it costs one step in the index for each bin, however many readings it has.
 * A statement goes through a limited number of bins, since the server gives up what takes long.
 */

import type { DatabaseConnection } from "../../database/connection.ts";

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
  /** As text, since the column may be a bigint. */
  readonly id: string;
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
  // The label by way of JSON, since there need not be such a column. A double holds every sid that
  // the logger stores.
  return await connection.query(
    `SELECT id::text AS id, uuid::text AS uuid, sensor_sid::float8 AS sid,
            coalesce(to_jsonb(sensors) ->> 'label', '') AS label, coalesce(enabled, false) AS enabled
     FROM sensors ORDER BY 4, 2, 3`,
  );
}

/** Bins that the first statement goes through, and a statement at most. */
const FIRST_PART_BINS = 500;
const MAX_PART_BINS = 20_000;

/** What a statement is to take: little of the time after which the server gives it up. */
const PART_DURATION_MS = 500;

/**
 * How many bins one statement goes through. A bin costs some microseconds in an ordinary table, and
 * a thousand times as much in a hypertable of which the statement concerns many chunks.
 */
export class PartSize {
  #bins = FIRST_PART_BINS;

  get bins(): number {
    return this.#bins;
  }

  /** To be told how long a part of so many bins took. */
  adapt({ bins, durationMs }: { readonly bins: number; readonly durationMs: number }): void {
    const fitting = Math.floor(bins * PART_DURATION_MS / durationMs);
    if (durationMs > PART_DURATION_MS) {
      this.#bins = Math.max(1, Math.min(this.#bins, fitting));
    } else if (bins === this.#bins) {
      // One that the end of its period has cut short says nothing about a full one.
      this.#bins = Math.min(2 * bins, fitting, MAX_PART_BINS);
    }
  }
}

/** The gaps that are worth keeping: the longest ones. */
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

/** The longest first; of the same length, in the order in which they were. */
export function sortGaps<One extends Gap>(gaps: readonly One[]): One[] {
  return gaps.toSorted((a, b) => (b.toMs - b.fromMs) - (a.toMs - a.fromMs));
}

/** Measures sensors, one after the other. The connection is its owner's. */
export class AvailabilityMeter {
  readonly #connection: DatabaseConnection;
  readonly #query: AvailabilityQuery;
  readonly #size = new PartSize();

  constructor(connection: DatabaseConnection, query: AvailabilityQuery) {
    this.#connection = connection;
    this.#query = query;
  }

  /**
   * Undefined where the sensor has no reading before the end. `onPart` is told after each statement
   * up to where the sensor has been looked at.
   *
   * @throws {DatabaseError}
   */
  async measure(
    { id, uuid, sid, label }: RegisteredSensor,
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

  /** The bins between two times in parts, each in a statement of its own. */
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
 * The periods between two times of the years 1 to 9999; the first and the last are as long as they
 * are.
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
