/** Tells whoever waits for a report how far it is, where that takes longer than a few seconds. */

import { formatUtc } from "./format.ts";

/** A report that is there after so long is not worth a line. */
const QUIET_MS = 5_000;

/** Time between two lines: it doubles with each, up to a minute. */
const FIRST_INTERVAL_MS = 5_000;
const MAX_INTERVAL_MS = 60_000;

/** How far a report is. */
export interface ReportPosition {
  /** Of the sensor, from 1. */
  readonly ordinal: number;
  /** Up to where that sensor has been looked at, in ms since 1970; missing before it begins. */
  readonly reachedMs?: number | undefined;
  /** That of `performance.now()`. */
  readonly nowMs: number;
}

/** Looks how far it is, and has a line when it is time for one. */
export class ReportProgress {
  readonly #sensors: number;
  readonly #startMs: number;
  #dueMs: number;
  #intervalMs = FIRST_INTERVAL_MS;

  /** `startMs` is that of `performance.now()`. */
  constructor(sensors: number, startMs: number) {
    this.#sensors = sensors;
    this.#startMs = startMs;
    this.#dueMs = startMs + QUIET_MS;
  }

  /** To be called every now and then; undefined where there is nothing to tell. */
  look({ ordinal, reachedMs, nowMs }: ReportPosition): string | undefined {
    if (nowMs < this.#dueMs) return undefined;
    this.#dueMs = nowMs + this.#intervalMs;
    this.#intervalMs = Math.min(2 * this.#intervalMs, MAX_INTERVAL_MS);
    const at = reachedMs === undefined ? "" : ` at ${formatUtc(reachedMs)} UTC`;
    const seconds = Math.round((nowMs - this.#startMs) / 1000);
    return `After ${seconds} s: sensor ${ordinal} of ${this.#sensors}${at}.`;
  }
}
