/**
 * The activity of the sensors: the last value of each and its usual interval. Sensors that are
 * registered and enabled but have not published yet are listed as silent.
 *
 * `record` runs for every stored reading, so it only keeps the newest value of each sensor. `digest`
 * does the rest, once a second for all sensors.
 */

import type { Buffer } from "node:buffer";
import type { InsertResult } from "../database/connection.ts";
import { hyphenate } from "../message/payload_text.ts";
import { describeValue, type Reading } from "../message/reading.ts";
import type { SensorChange, SensorEntry, SensorState, SensorStatus } from "./status.ts";
import type { Decoded } from "../database/storing.ts";

/** Maximum number of sensors, so that a flood of invented ones does not fill the memory. */
export const MAX_KNOWN_SENSORS = 5_000;

/** Maximum number of sensors that are added in each state, so that stored ones always find room. */
export const MAX_IN_STATE: Readonly<Record<SensorState, number>> = {
  stored: MAX_KNOWN_SENSORS,
  unknown: 1_000,
  disabled: 1_000,
  silent: 2_000,
};

/** A reading that is further in the future is replaced by the next one, although that is older. */
const MAX_AHEAD_MS = 60_000;

/** Maximum number of recent values of each sensor, at most one per `digest`. */
const MAX_RECENT = 60;

/** Significant digits of the recent values: as many as the status page shows. */
const RECENT_DIGITS = 7;

/** Number of intervals that the usual interval is the median of. */
const INTERVALS = 9;

/** Time until the unit of a sensor is read from a payload again. */
const UNIT_MS = 10 * 60_000;

/** Maximum length of a value and of a unit; a label may have three times as many characters. */
const MAX_TEXT = 60;

/** The state of one sensor. Times are in ms since 1970; -Infinity: not yet. */
interface Sensor {
  /** 32 hexadecimal digits. */
  readonly uuid: string;
  readonly sid: number;
  readonly index: number;
  /** Another sensor with the same uuid. */
  readonly next: Sensor | undefined;
  /** The sensor whose reading followed last time, which is compared first this time. */
  follower: Sensor | undefined;
  label: string | null;
  unit: string;
  unitMs: number;
  state: SensorState;
  /** Value and timestamp of the newest reading. */
  value: Reading["value"];
  timeMs: number;
  /** When a reading was last stored or refused, by the clock of the host. */
  seenMs: number;
  /** Readings since the last `digest` that were newer than the one before. */
  newCount: number;
  /** The value of `timeMs` at the last `digest`. */
  digestedMs: number;
  readonly recent: (number | null)[];
  readonly intervalsMs: number[];
  intervals: number;
  /** Whether the sensor has changed, or is new, since the last `takeChanges`. */
  isChanged: boolean;
  isNew: boolean;
}

/** A message that was stored, or refused because its sensor is unknown or disabled. */
type Recorded = Decoded<{ readonly payload: Buffer }>;

/** When the insert was committed, and the timestamps of its readings, in ms since 1970. */
export interface RecordedTimes {
  readonly nowMs: number;
  readonly timesMs: Float64Array;
}

/** A row of the table `sensors`. */
export interface RegisteredSensor {
  /** With hyphens. */
  readonly uuid: string;
  readonly sid: number;
  readonly label: string | null;
  readonly enabled: boolean;
}

/** All sensors since the start of the program, in the order of their first reading or registration. */
export class SensorActivity {
  /** The last added sensor of each uuid; `next` leads to the others. */
  readonly #byUuid = new Map<string, Sensor>();
  readonly #sensors: Sensor[] = [];
  readonly #inState: Record<SensorState, number> = {
    stored: 0,
    unknown: 0,
    disabled: 0,
    silent: 0,
  };
  readonly #leftOut = new Map<string, SensorState>();
  #last: Sensor | undefined;

  /** Number of sensors that published but are not kept, up to `MAX_KNOWN_SENSORS`. */
  get leftOut(): number {
    return this.#leftOut.size;
  }

  /** Number of kept sensors that have published. */
  get size(): number {
    return this.#sensors.length - this.#sensors.filter(({ seenMs }) => seenMs < 0).length;
  }

  /** Number of sensors whose last reading was stored, including those that are not kept. */
  get storedCount(): number {
    const leftOut = [...this.#leftOut.values()].filter((state) => state === "stored");
    return this.#inState.stored + leftOut.length;
  }

  /** Records the readings of an insert that was committed just now. */
  record(
    batch: readonly Recorded[],
    result: InsertResult,
    { nowMs, timesMs }: RecordedTimes,
  ): void {
    const notStored = statesOf(result);
    for (let index = 0; index < batch.length; index++) {
      const { reading, message } = batch[index] as Recorded;
      const state = notStored?.get(index) ?? "stored";
      const sensor = this.#find(reading) ?? this.#add(reading, state);
      if (sensor === undefined) continue;
      if (sensor.state !== state) this.#setState(sensor, state);
      sensor.seenMs = nowMs;
      sensor.isChanged = true;
      const timeMs = timesMs[index] as number;
      // A reading from the spool may be older than the newest one.
      if (timeMs <= sensor.timeMs && sensor.timeMs <= nowMs + MAX_AHEAD_MS) continue;
      sensor.timeMs = timeMs;
      sensor.value = reading.value;
      sensor.newCount++;
      if (nowMs - sensor.unitMs >= UNIT_MS) readUnit(sensor, message.payload, nowMs);
    }
  }

  /** Updates intervals and recent values from the recorded readings. Call it once a second. */
  digest(): void {
    for (const sensor of this.#sensors) if (sensor.newCount > 0) digest(sensor);
  }

  /** Adopts labels and states from the rows of the table `sensors`. */
  register(rows: Iterable<RegisteredSensor>): void {
    for (const { uuid, sid, label, enabled } of rows) {
      const key = { uuid: uuid.replaceAll("-", ""), sid };
      const sensor = this.#find(key) ?? (enabled ? this.#add(key, "silent") : undefined);
      if (sensor === undefined) continue;
      const shown = label?.slice(0, 3 * MAX_TEXT) ?? null;
      const state = sensor.seenMs >= 0 ? sensor.state : enabled ? "silent" : "disabled";
      if (shown === sensor.label && state === sensor.state) continue;
      sensor.label = shown;
      this.#setState(sensor, state);
      sensor.isNew = true;
    }
  }

  /** All kept sensors, by index. */
  list(): SensorStatus[] {
    return this.#sensors.map(toStatus);
  }

  /**
   * What has changed since the last call: in full the sensors that are new or have another label,
   * unit or registration, and of the others the new values.
   */
  takeChanges(): { readonly sensors: SensorEntry[]; readonly changes: SensorChange[] } {
    const sensors = [];
    const changes: SensorChange[] = [];
    for (const sensor of this.#sensors) {
      if (sensor.isNew) sensors.push({ index: sensor.index, ...toStatus(sensor) });
      else if (sensor.isChanged) changes.push(toChange(sensor));
      sensor.isNew = sensor.isChanged = false;
    }
    return { sensors, changes };
  }

  #find({ uuid, sid }: Pick<Reading, "uuid" | "sid">): Sensor | undefined {
    const last = this.#last;
    // Comparing with one sensor is much faster than a look-up among thousands.
    let sensor = last?.follower;
    if (sensor === undefined || sensor.sid !== sid || sensor.uuid !== uuid) {
      sensor = this.#byUuid.get(uuid);
      while (sensor !== undefined && sensor.sid !== sid) sensor = sensor.next;
      if (last !== undefined) last.follower = sensor;
    }
    this.#last = sensor;
    return sensor;
  }

  #add({ uuid, sid }: Pick<Reading, "uuid" | "sid">, state: SensorState): Sensor | undefined {
    if (this.#sensors.length >= MAX_KNOWN_SENSORS || this.#inState[state] >= MAX_IN_STATE[state]) {
      const isSeen = state !== "silent";
      if (isSeen && this.#leftOut.size < MAX_KNOWN_SENSORS) {
        this.#leftOut.set(`${uuid} ${sid}`, state);
      }
      return undefined;
    }
    const sensor: Sensor = {
      uuid,
      sid,
      index: this.#sensors.length,
      next: this.#byUuid.get(uuid),
      follower: undefined,
      label: null,
      unit: "",
      unitMs: -Infinity,
      state,
      value: "",
      timeMs: -Infinity,
      seenMs: -Infinity,
      newCount: 0,
      digestedMs: -Infinity,
      recent: [],
      intervalsMs: [],
      intervals: 0,
      isChanged: true,
      isNew: true,
    };
    this.#inState[state]++;
    this.#leftOut.delete(`${uuid} ${sid}`);
    this.#sensors.push(sensor);
    this.#byUuid.set(uuid, sensor);
    return sensor;
  }

  #setState(sensor: Sensor, state: SensorState): void {
    this.#inState[sensor.state]--;
    this.#inState[state]++;
    sensor.state = state;
  }
}

/** States of the readings that were not stored, by index; undefined if all were stored. */
function statesOf({ unknown, disabled }: InsertResult): Map<number, SensorState> | undefined {
  if (unknown.length + disabled.length === 0) return undefined;
  const states = new Map<number, SensorState>();
  for (const index of unknown) states.set(index, "unknown");
  for (const index of disabled) states.set(index, "disabled");
  return states;
}

function digest(sensor: Sensor): void {
  const intervalMs = (sensor.timeMs - sensor.digestedMs) / sensor.newCount;
  if (intervalMs > 0 && Number.isFinite(intervalMs)) {
    sensor.intervalsMs[sensor.intervals++ % INTERVALS] = intervalMs;
  }
  sensor.digestedMs = sensor.timeMs;
  sensor.newCount = 0;
  const value = Number(sensor.value);
  sensor.recent.push(Number.isFinite(value) ? Number(value.toPrecision(RECENT_DIGITS)) : null);
  if (sensor.recent.length > MAX_RECENT) sensor.recent.shift();
}

/** Reads the unit from a payload that was decoded to a reading. */
function readUnit(sensor: Sensor, payload: Buffer, nowMs: number): void {
  sensor.unitMs = nowMs;
  const unit = describeValue(payload).unit.slice(0, MAX_TEXT);
  sensor.isNew ||= unit !== sensor.unit;
  sensor.unit = unit;
}

function toStatus(sensor: Sensor): SensorStatus {
  const [, state, value, timeMs, seenMs, intervalMs] = toChange(sensor);
  const { uuid, sid, label, unit, recent } = sensor;
  return {
    uuid: hyphenate(uuid),
    ...{ sid, label, unit, state, value, timeMs, seenMs, intervalMs, recent },
  };
}

function toChange({ index, state, value, timeMs, seenMs, intervalsMs }: Sensor): SensorChange {
  const text = String(value).slice(0, MAX_TEXT);
  return [index, state, text, toTime(timeMs), toTime(seenMs), usual(intervalsMs)];
}

/** Rounds to whole ms, because fractions only make the updates longer; null for -Infinity. */
function toTime(ms: number): number | null {
  return Number.isFinite(ms) ? Math.round(ms) : null;
}

/** The median of the intervals, to four digits; null if there are fewer than three. */
function usual(intervalsMs: readonly number[]): number | null {
  const sorted = [...intervalsMs].sort((a, b) => a - b);
  const median = sorted.length < 3 ? undefined : sorted[sorted.length >> 1];
  return median === undefined ? null : Number(median.toPrecision(4));
}
