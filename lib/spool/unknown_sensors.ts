/**
 * The sensors that publish but are not registered. They are collected in memory and written to the
 * spool file at intervals, so that unwanted readings do not cause one write each.
 */

import type { Buffer } from "node:buffer";
import { describeValue } from "../message/reading.ts";
import type { SpoolFile } from "./file.ts";

/** Maximum number of sensors in the file; those seen last are kept. */
const MAX_SENSORS = 10_000;

/** Maximum length of the kept value and unit. */
const MAX_TEXT = 60;

/** A sensor that is not registered, and its readings since it was first seen. */
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
  /** Arrival of its first and last reading, in ms since 1970-01-01 00:00 UTC. */
  readonly firstMs: number;
  readonly lastMs: number;
}

/** A reading of an unknown sensor. */
export interface Sighting {
  readonly uuid: string;
  readonly sid: number;
  readonly topic: string;
  /** A payload that was decoded to a reading. */
  readonly payload: Buffer;
}

/** The unknown sensors in an open spool file. */
export class UnknownSensors {
  readonly #file: SpoolFile;
  readonly #collected = new Map<string, UnknownSensor>();

  /** The caller keeps ownership of `file` and closes it. */
  constructor(file: SpoolFile) {
    this.#file = file;
  }

  /** Records a reading in memory; the next `flush` writes it. */
  add({ uuid, sid, topic, payload }: Sighting): void {
    const key = `${uuid} ${sid}`;
    const nowMs = Date.now();
    const known = this.#collected.get(key);
    if (known === undefined && this.#collected.size >= MAX_SENSORS) return;
    const { value, unit } = describeValue(payload);
    this.#collected.set(key, {
      uuid,
      sid,
      topic,
      value: value.slice(0, MAX_TEXT),
      unit: unit.slice(0, MAX_TEXT),
      count: (known?.count ?? 0) + 1,
      firstMs: known?.firstMs ?? nowMs,
      lastMs: nowMs,
    });
  }

  /**
   * Writes the readings recorded since the last flush.
   *
   * @throws {SpoolError} when none was written; they are kept for the next flush.
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
   * Returns all sensors in the file, those seen last first.
   *
   * @throws {SpoolError} when the file cannot be read.
   */
  list(): UnknownSensor[] {
    const rows = this.#file.all(
      `SELECT uuid, sid, topic, value, unit, count, first_ms AS "firstMs", last_ms AS "lastMs"
       FROM unknown_sensor ORDER BY last_ms DESC, uuid, sid`,
    );
    return rows as unknown as UnknownSensor[];
  }

  /**
   * Deletes sensors from the file, after they have been registered.
   *
   * @throws {SpoolError} when none was deleted.
   */
  delete(sensors: readonly Pick<UnknownSensor, "uuid" | "sid">[]): void {
    this.#file.transaction(() => {
      for (const { uuid, sid } of sensors) {
        this.#file.run("DELETE FROM unknown_sensor WHERE uuid = ? AND sid = ?", uuid, sid);
      }
    });
  }
}
