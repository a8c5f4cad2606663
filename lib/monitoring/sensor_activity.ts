/**
 * The sensors: what each of them last said, and how often it says something; and those of which
 * something is expected, since they are registered and enabled.
 *
 * `note` is called for every reading that is stored, and so does next to nothing: it keeps the
 * newest value of each sensor. The rest is done once a second for all sensors, by `digest`.
 */

import type { Buffer } from "node:buffer";
import type { InsertResult } from "../database/connection.ts";
import { hyphenate, type Reading } from "../message/reading.ts";
import type { SensorChange, SensorEntry, SensorState, SensorStatus } from "./status.ts";
import type { Decoded } from "../database/storing.ts";

/** Sensors known at most, so that a flood of invented ones does not fill the memory. */
export const MAX_SENSORS = 5_000;

/** How many of them at most are in a state when they come: none takes all places from the stored. */
export const MAX_IN_STATE: Readonly<Record<SensorState, number>> = {
  stored: MAX_SENSORS,
  unknown: 1_000,
  disabled: 1_000,
  silent: 2_000,
};

/** A reading further in the future does not keep those after it from being the newest. */
const MAX_AHEAD_MS = 60_000;

/** Values kept of each sensor, one of each `digest` at most. */
const MAX_RECENT = 60;

/** Digits of them: as many as the status page shows of a value. */
const RECENT_DIGITS = 7;

/** Times between readings of which the usual one is the median. */
const INTERVALS = 9;

/** Time after which the unit is read from a payload again. */
const UNIT_MS = 10 * 60_000;

const MAX_TEXT = 60;

interface Sensor {
  /** 32 hexadecimal digits. */
  readonly uuid: string;
  readonly sid: number;
  readonly index: number;
  /** Another sensor of the same device. */
  readonly next: Sensor | undefined;
  /** The one whose reading followed last time, which is looked at first this time. */
  follower: Sensor | undefined;
  label: string | null;
  unit: string;
  unitMs: number;
  state: SensorState;
  /** Of the newest reading. */
  value: Reading["value"];
  timeMs: number;
  /** When there was a reading last, whichever; -Infinity before the first one. */
  seenMs: number;
  /** Readings since the last `digest`, each of them newer than the one before, … */
  newCount: number;
  /** … and the time of the newest one then. */
  digestedMs: number;
  readonly recent: (number | null)[];
  readonly intervalsMs: number[];
  intervals: number;
  /** What has changed since the last `takeChanges`. */
  isChanged: boolean;
  isNew: boolean;
}

/** A message that was stored or is of no sensor that is. */
type Noted = Decoded<{ readonly payload: Buffer }>;

/** When the database has dealt with readings, and the times of these, in ms since 1970. */
export interface NotedTimes {
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

/** All sensors since the start of the program, in the order in which they came to be known. */
export class SensorActivity {
  /** The first sensor of each device; `next` leads to its others. */
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

  /** Sensors that were seen after there were too many; counted up to as many again. */
  get leftOut(): number {
    return this.#leftOut.size;
  }

  /** Sensors that have published, and are known. */
  get size(): number {
    return this.#sensors.length - this.#sensors.filter(({ seenMs }) => seenMs < 0).length;
  }

  /** Sensors whose last reading was stored, those included that are left out. */
  get storedCount(): number {
    const leftOut = [...this.#leftOut.values()].filter((state) => state === "stored");
    return this.#inState.stored + leftOut.length;
  }

  /** Takes note of readings that the database has dealt with just now. */
  note(batch: readonly Noted[], result: InsertResult, { nowMs, timesMs }: NotedTimes): void {
    const notStored = statesOf(result);
    for (let index = 0; index < batch.length; index++) {
      const { reading, message } = batch[index] as Noted;
      const state = notStored?.get(index) ?? "stored";
      const sensor = this.#find(reading) ?? this.#add(reading, state);
      if (sensor === undefined) continue;
      if (sensor.state !== state) this.#setState(sensor, state);
      sensor.seenMs = nowMs;
      sensor.isChanged = true;
      const timeMs = timesMs[index] as number;
      // One from the spool may be older than what has been seen.
      if (timeMs <= sensor.timeMs && sensor.timeMs <= nowMs + MAX_AHEAD_MS) continue;
      sensor.timeMs = timeMs;
      sensor.value = reading.value;
      sensor.newCount++;
      if (nowMs - sensor.unitMs >= UNIT_MS) readUnit(sensor, message.payload, nowMs);
    }
  }

  /** Makes of what was noted what is shown over time. To be called once a second. */
  digest(): void {
    for (const sensor of this.#sensors) if (sensor.newCount > 0) digest(sensor);
  }

  /** Takes over what the table `sensors` has, which was read again. */
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

  /** All of them, as they are shown. */
  list(): SensorStatus[] {
    return this.#sensors.map(toStatus);
  }

  /** What has changed since the last call: sensors that are new, or otherwise, and values. */
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
    // Comparing with one is much faster than looking one up among thousands.
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
    if (this.#sensors.length >= MAX_SENSORS || this.#inState[state] >= MAX_IN_STATE[state]) {
      const isSeen = state !== "silent";
      if (isSeen && this.#leftOut.size < MAX_SENSORS) this.#leftOut.set(`${uuid} ${sid}`, state);
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

/** Of those that are not stored, by their index; undefined where all are. */
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

function toChange({ index, state, value, timeMs, seenMs, intervalsMs }: Sensor): SensorChange {
  const text = String(value).slice(0, MAX_TEXT);
  return [index, state, text, toTime(timeMs), toTime(seenMs), usual(intervalsMs)];
}

/** Without the fraction of a millisecond, which only makes longer what is sent every second. */
function toTime(ms: number): number | null {
  return Number.isFinite(ms) ? Math.round(ms) : null;
}

/** The median of at least three intervals, to four digits; else null. */
function usual(intervalsMs: readonly number[]): number | null {
  const sorted = [...intervalsMs].sort((a, b) => a - b);
  const median = sorted.length < 3 ? undefined : sorted[sorted.length >> 1];
  return median === undefined ? null : Number(median.toPrecision(4));
}
