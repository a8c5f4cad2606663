/**
 * The sensors that publish and are not registered: collected in memory, and written to the spool's
 * file now and then, so that it is not written to for every reading that nobody wants.
 */

import type { Buffer } from "node:buffer";
import type { SpoolFile } from "./file.ts";

/** Sensors remembered at most; those seen last stay. */
const MAX_SENSORS = 10_000;

/** Longest text of value or unit that is kept. */
const MAX_TEXT = 60;

/** A sensor that is not registered, by its readings since it was first seen. */
export interface UnknownSensor {
  /** With hyphens. */
  readonly uuid: string;
  readonly sid: number;
  /** Topic, value and unit of the last reading, as published; the unit may be empty. */
  readonly topic: string;
  readonly value: string;
  readonly unit: string;
  /** Readings that were not stored. */
  readonly count: number;
  /** When its readings came in, in ms since 1970-01-01 00:00 UTC. */
  readonly firstMs: number;
  readonly lastMs: number;
}

/** What a reading of an unknown sensor says of it. */
export interface Sighting {
  readonly uuid: string;
  readonly sid: number;
  readonly topic: string;
  /** A valid one. */
  readonly payload: Buffer;
}

/** The unknown sensors in an open spool. */
export class UnknownSensors {
  readonly #file: SpoolFile;
  readonly #collected = new Map<string, UnknownSensor>();

  /** `file` stays the caller's own. */
  constructor(file: SpoolFile) {
    this.#file = file;
  }

  /** Notes a reading; it is written with the next `flush`. */
  add({ uuid, sid, topic, payload }: Sighting): void {
    const key = `${uuid} ${sid}`;
    const nowMs = Date.now();
    const known = this.#collected.get(key);
    if (known === undefined && this.#collected.size >= MAX_SENSORS) return;
    this.#collected.set(key, {
      uuid,
      sid,
      topic,
      ...describePayload(payload),
      count: (known?.count ?? 0) + 1,
      firstMs: known?.firstMs ?? nowMs,
      lastMs: nowMs,
    });
  }

  /**
   * Writes what was noted since the last time.
   *
   * @throws {SpoolError} when nothing of it was written; it is kept for the next time.
   */
  flush(): void {
    if (this.#collected.size === 0) return;
    this.#file.transaction(() => {
      for (const sensor of this.#collected.values()) {
        const { uuid, sid, topic, value, unit, count, firstMs, lastMs } = sensor;
        this.#file.run(
          `INSERT INTO unknown_sensor (uuid, sid, topic, value, unit, count, first_ms, last_ms)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (uuid, sid) DO UPDATE SET
             topic = excluded.topic, value = excluded.value, unit = excluded.unit,
             count = count + excluded.count, last_ms = excluded.last_ms`,
          ...[uuid, sid, topic, value, unit, count, firstMs, lastMs],
        );
      }
      this.#file.run(
        `DELETE FROM unknown_sensor WHERE id IN (
           SELECT id FROM unknown_sensor ORDER BY last_ms DESC LIMIT -1 OFFSET ${MAX_SENSORS})`,
      );
    });
    this.#collected.clear();
  }

  /**
   * All that are in the file, those seen last first.
   *
   * @throws {SpoolError}
   */
  list(): UnknownSensor[] {
    const rows = this.#file.all(
      `SELECT uuid, sid, topic, value, unit, count, first_ms AS "firstMs", last_ms AS "lastMs"
       FROM unknown_sensor ORDER BY last_ms DESC, uuid, sid`,
    );
    return rows as unknown as UnknownSensor[];
  }

  /**
   * Forgets sensors, which are registered by now.
   *
   * @throws {SpoolError}
   */
  delete(sensors: readonly Pick<UnknownSensor, "uuid" | "sid">[]): void {
    this.#file.transaction(() => {
      for (const { uuid, sid } of sensors) {
        this.#file.run("DELETE FROM unknown_sensor WHERE uuid = ? AND sid = ?", uuid, sid);
      }
    });
  }
}

/** Value and unit as texts. What is not standard JSON, such as NaN, has been accepted all the same. */
function describePayload(payload: Buffer): { value: string; unit: string } {
  let message: Record<string, unknown> = {};
  try {
    message = JSON.parse(payload.toString().replace(/(:\s*)(-?Infinity|NaN)\b/g, '$1"$2"'));
  } catch {
    // The value is for a human to look at; without it the sensor is still told of.
  }
  const toText = (value: unknown): string =>
    (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? ""))
      .slice(0, MAX_TEXT);
  return { value: toText(message["value"]), unit: toText(message["unit"]) };
}
