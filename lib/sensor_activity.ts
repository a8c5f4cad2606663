/**
 * The sensors that publish: what each of them last said, and how often it says something.
 *
 * It is called for every reading that was stored, so that `note` does no more than it must; what is
 * shown is made when somebody asks.
 */

import type { Buffer } from "node:buffer";
import type { InsertResult } from "./database.ts";
import { hyphenate, type Reading } from "./reading.ts";
import type { SensorChange, SensorStatus } from "./status.ts";
import type { Decoded } from "./store_readings.ts";

/** Sensors known at most, so that a flood of invented ones does not fill the memory. */
export const MAX_SENSORS = 5_000;

/** Values kept of each sensor, and the shortest time between two of them. */
const MAX_RECENT = 60;
const RECENT_MS = 1_000;

/** Times between readings of which the usual one is the median. */
const INTERVALS = 9;

/** Time after which the unit is read from a payload again. */
const UNIT_MS = 10 * 60_000;

const MAX_TEXT = 60;

/** A sensor, its last reading in the form in which it came. */
interface Sensor {
  readonly uuid: string;
  readonly sid: number;
  readonly index: number;
  label: string | null;
  unit: string;
  unitMs: number;
  state: SensorStatus["state"];
  value: Reading["value"];
  timeMs: number;
  seenMs: number;
  readonly recent: (number | null)[];
  recentMs: number;
  readonly intervalsMs: number[];
  count: number;
  /** What has changed since the last `takeChanges`. */
  isChanged: boolean;
  isNew: boolean;
}

/** A message that was stored or is of no sensor that is. */
type Noted = Decoded<{ readonly payload: Buffer }>;

/** By uuid with hyphens and sid. */
export type LabelOf = (uuid: string, sid: number) => string | undefined;

/** All sensors since the start of the program, in the order in which they were first seen. */
export class SensorActivity {
  readonly #byUuid = new Map<string, Map<number, Sensor>>();
  readonly #sensors: Sensor[] = [];
  readonly #leftOut = new Set<string>();
  readonly #labelOf: LabelOf;

  /** `labelOf` tells the label of a sensor, as far as it is known. */
  constructor(labelOf: LabelOf = () => undefined) {
    this.#labelOf = labelOf;
  }

  /** Sensors that were seen after there were too many; counted up to as many again. */
  get leftOut(): number {
    return this.#leftOut.size;
  }

  /** Sensors that are known. */
  get size(): number {
    return this.#sensors.length;
  }

  /** Takes note of readings that the database has dealt with just now, and of their times in ms. */
  note(
    batch: readonly Noted[],
    { unknown, disabled }: InsertResult,
    timesMs: ArrayLike<number>,
  ): void {
    const nowMs = Date.now();
    for (const [index, { reading, message }] of batch.entries()) {
      const sensor = this.#byUuid.get(reading.uuid)?.get(reading.sid) ??
        this.#add(reading, nowMs);
      if (sensor === undefined) continue;
      const timeMs = timesMs[index] as number;
      sensor.isChanged = true;
      sensor.seenMs = nowMs;
      sensor.state = "stored";
      if (nowMs - sensor.unitMs >= UNIT_MS) readUnit(sensor, message.payload, nowMs);
      // One from the spool may be older than what has been seen.
      if (timeMs < sensor.timeMs) continue;
      if (sensor.count++ > 0 && timeMs > sensor.timeMs) {
        sensor.intervalsMs[sensor.count % INTERVALS] = timeMs - sensor.timeMs;
      }
      sensor.timeMs = timeMs;
      sensor.value = reading.value;
      if (nowMs - sensor.recentMs >= RECENT_MS) addRecent(sensor, nowMs);
    }
    for (const index of unknown) this.#mark(batch[index], "unknown");
    for (const index of disabled) this.#mark(batch[index], "disabled");
  }

  /** Takes the labels over, which have been read again. */
  label(): void {
    for (const sensor of this.#sensors) {
      const label = this.#findLabel(sensor);
      if (label === sensor.label) continue;
      sensor.label = label;
      sensor.isNew = true;
    }
  }

  /** All of them, as they are shown. */
  list(): SensorStatus[] {
    return this.#sensors.map(toStatus);
  }

  /** What has changed since the last call: sensors that are new, or otherwise, and values. */
  takeChanges(): {
    readonly sensors: (SensorStatus & { readonly index: number })[];
    readonly changes: SensorChange[];
  } {
    const sensors = [];
    const changes: SensorChange[] = [];
    for (const sensor of this.#sensors) {
      if (sensor.isNew) sensors.push({ index: sensor.index, ...toStatus(sensor) });
      else if (sensor.isChanged) changes.push(toChange(sensor));
      sensor.isNew = sensor.isChanged = false;
    }
    return { sensors, changes };
  }

  #add({ uuid, sid }: Reading, nowMs: number): Sensor | undefined {
    if (this.#sensors.length >= MAX_SENSORS) {
      if (this.#leftOut.size < MAX_SENSORS) this.#leftOut.add(`${uuid} ${sid}`);
      return undefined;
    }
    const sensor: Sensor = {
      uuid,
      sid,
      index: this.#sensors.length,
      label: this.#findLabel({ uuid, sid }),
      unit: "",
      unitMs: -Infinity,
      state: "stored",
      value: NaN,
      timeMs: -Infinity,
      seenMs: nowMs,
      recent: [],
      recentMs: -Infinity,
      intervalsMs: [],
      count: 0,
      isChanged: true,
      isNew: true,
    };
    this.#sensors.push(sensor);
    const bySid = this.#byUuid.get(uuid) ?? new Map<number, Sensor>();
    this.#byUuid.set(uuid, bySid.set(sid, sensor));
    return sensor;
  }

  #findLabel({ uuid, sid }: Pick<Sensor, "uuid" | "sid">): string | null {
    return this.#labelOf(hyphenate(uuid), sid)?.slice(0, 3 * MAX_TEXT) ?? null;
  }

  #mark(noted: Noted | undefined, state: SensorStatus["state"]): void {
    if (noted === undefined) return;
    const sensor = this.#byUuid.get(noted.reading.uuid)?.get(noted.reading.sid);
    if (sensor !== undefined) sensor.state = state;
  }
}

function addRecent(sensor: Sensor, nowMs: number): void {
  const value = Number(sensor.value);
  sensor.recent.push(Number.isFinite(value) ? value : null);
  if (sensor.recent.length > MAX_RECENT) sensor.recent.shift();
  sensor.recentMs = nowMs;
}

/** What is not standard JSON, such as NaN, has been accepted all the same, and has no unit here. */
function readUnit(sensor: Sensor, payload: Buffer, nowMs: number): void {
  sensor.unitMs = nowMs;
  try {
    const { unit } = JSON.parse(payload.toString()) as { unit?: unknown };
    const text = typeof unit === "string" ? unit.slice(0, MAX_TEXT) : "";
    sensor.isNew ||= text !== sensor.unit;
    sensor.unit = text;
  } catch {
    // The unit is for a human to look at; without it the sensor is shown all the same.
  }
}

function toStatus(sensor: Sensor): SensorStatus {
  const [, state, value, timeMs, seenMs, intervalMs] = toChange(sensor);
  const { uuid, sid, label, unit, recent } = sensor;
  return {
    uuid: hyphenate(uuid),
    ...{ sid, label, unit, state, value, timeMs, seenMs, intervalMs, recent },
  };
}

function toChange(sensor: Sensor): SensorChange {
  const { index, state, value, timeMs, seenMs, intervalsMs } = sensor;
  return [index, state, String(value).slice(0, MAX_TEXT), timeMs, seenMs, median(intervalsMs)];
}

/** Of at least three values, else null. */
function median(values: readonly number[]): number | null {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  return sorted.length < 3 ? null : sorted[sorted.length >> 1] ?? null;
}
