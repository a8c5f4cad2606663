/**
 * The sensors that publish: what each of them last said, and how often it says something.
 *
 * `note` is called for every reading that is stored, and so does next to nothing: it keeps the
 * newest reading of each sensor. The rest is done once a second for all sensors, by `digest`.
 */

import type { Buffer } from "node:buffer";
import type { InsertResult } from "./database.ts";
import { hyphenate, type Reading } from "./reading.ts";
import type { SensorChange, SensorStatus } from "./status.ts";
import type { Decoded } from "./store_readings.ts";

/** Sensors known at most, so that a flood of invented ones does not fill the memory. */
export const MAX_SENSORS = 5_000;

/** Values kept of each sensor, one of each `digest` at most. */
const MAX_RECENT = 60;

/** Times between readings of which the usual one is the median. */
const INTERVALS = 9;

/** Time after which the unit is read from a payload again. */
const UNIT_MS = 10 * 60_000;

const MAX_TEXT = 60;

/** A sensor. What begins with `new` has come since the last `digest`. */
interface Sensor {
  readonly uuid: string;
  readonly sid: number;
  readonly index: number;
  /** Another sensor of the same device. */
  readonly next: Sensor | undefined;
  newest: Noted | undefined;
  newestMs: number;
  newCount: number;
  label: string | null;
  unit: string;
  unitMs: number;
  state: SensorStatus["state"];
  value: Reading["value"];
  timeMs: number;
  seenMs: number;
  readonly recent: (number | null)[];
  readonly intervalsMs: number[];
  intervals: number;
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
  /** The first sensor of each device; `next` leads to its others. */
  readonly #byUuid = new Map<string, Sensor>();
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
    timesMs: Float64Array,
  ): void {
    for (let index = 0; index < batch.length; index++) {
      const noted = batch[index] as Noted;
      const sensor = this.#find(noted.reading) ?? this.#add(noted.reading);
      if (sensor === undefined) continue;
      sensor.newCount++;
      sensor.state = "stored";
      // One from the spool may be older than what has been seen.
      const timeMs = timesMs[index] as number;
      if (timeMs < sensor.newestMs) continue;
      sensor.newestMs = timeMs;
      sensor.newest = noted;
    }
    for (const index of unknown) this.#mark(batch[index], "unknown");
    for (const index of disabled) this.#mark(batch[index], "disabled");
  }

  /** Makes of what was noted what is shown. To be called once a second, and before it is shown. */
  digest(nowMs: number = Date.now()): void {
    for (const sensor of this.#sensors) if (sensor.newCount > 0) digest(sensor, nowMs);
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
    this.digest();
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

  #find({ uuid, sid }: Reading): Sensor | undefined {
    let sensor = this.#byUuid.get(uuid);
    while (sensor !== undefined && sensor.sid !== sid) sensor = sensor.next;
    return sensor;
  }

  #add({ uuid, sid }: Reading): Sensor | undefined {
    if (this.#sensors.length >= MAX_SENSORS) {
      if (this.#leftOut.size < MAX_SENSORS) this.#leftOut.add(`${uuid} ${sid}`);
      return undefined;
    }
    const sensor: Sensor = {
      uuid,
      sid,
      index: this.#sensors.length,
      next: this.#byUuid.get(uuid),
      newest: undefined,
      newestMs: -Infinity,
      newCount: 0,
      label: this.#findLabel({ uuid, sid }),
      unit: "",
      unitMs: -Infinity,
      state: "stored",
      value: NaN,
      timeMs: -Infinity,
      seenMs: 0,
      recent: [],
      intervalsMs: [],
      intervals: 0,
      isChanged: true,
      isNew: true,
    };
    this.#sensors.push(sensor);
    this.#byUuid.set(uuid, sensor);
    return sensor;
  }

  #findLabel({ uuid, sid }: Pick<Sensor, "uuid" | "sid">): string | null {
    return this.#labelOf(hyphenate(uuid), sid)?.slice(0, 3 * MAX_TEXT) ?? null;
  }

  #mark(noted: Noted | undefined, state: SensorStatus["state"]): void {
    if (noted === undefined) return;
    const sensor = this.#find(noted.reading);
    if (sensor !== undefined) sensor.state = state;
  }
}

function digest(sensor: Sensor, nowMs: number): void {
  const { newest, newCount, newestMs } = sensor;
  sensor.newCount = 0;
  sensor.isChanged = true;
  sensor.seenMs = nowMs;
  if (newest === undefined) return;
  // The payload is part of a larger piece of memory, which is not to be kept for it.
  sensor.newest = undefined;
  if (nowMs - sensor.unitMs >= UNIT_MS) readUnit(sensor, newest.message.payload, nowMs);
  const intervalMs = (newestMs - sensor.timeMs) / newCount;
  if (intervalMs > 0 && Number.isFinite(intervalMs)) {
    sensor.intervalsMs[sensor.intervals++ % INTERVALS] = intervalMs;
  }
  sensor.timeMs = newestMs;
  sensor.value = newest.reading.value;
  const value = Number(sensor.value);
  sensor.recent.push(Number.isFinite(value) ? value : null);
  if (sensor.recent.length > MAX_RECENT) sensor.recent.shift();
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
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length < 3 ? null : sorted[sorted.length >> 1] ?? null;
}
