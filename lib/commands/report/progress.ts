/** The progress of a report that takes longer than a few seconds. */

import { DEFAULT_TUNING, type Tuning } from "../../config/tuning.ts";
import { formatUtc } from "./format.ts";

/** The time between two lines doubles with each line, up to this. */
const MAX_INTERVAL_MS = 60_000;

/** How far a report has come. */
export interface ReportPosition {
  /** Number of the current sensor, from 1. */
  readonly ordinal: number;
  /** Time up to which that sensor is measured, in ms since 1970; missing before its first part. */
  readonly reachedMs?: number | undefined;
  /** The value of `performance.now()`, in ms. */
  readonly nowMs: number;
}

/** Produces a progress line whenever one is due. */
export class ReportProgress {
  readonly #sensors: number;
  readonly #startMs: number;
  #dueMs: number;
  #intervalMs: number;

  /** `startMs` is the value of `performance.now()` at the start of the report. */
  constructor(
    sensors: number,
    startMs: number,
    { reportQuietMs }: Pick<Tuning, "reportQuietMs"> = DEFAULT_TUNING,
  ) {
    this.#sensors = sensors;
    this.#startMs = startMs;
    this.#dueMs = startMs + reportQuietMs;
    this.#intervalMs = reportQuietMs;
  }

  /** Returns a line if one is due, else undefined. Call it at each step of the report. */
  tick({ ordinal, reachedMs, nowMs }: ReportPosition): string | undefined {
    if (nowMs < this.#dueMs) return undefined;
    this.#dueMs = nowMs + this.#intervalMs;
    this.#intervalMs = Math.min(2 * this.#intervalMs, MAX_INTERVAL_MS);
    const at = reachedMs === undefined ? "" : ` at ${formatUtc(reachedMs)} UTC`;
    const seconds = Math.round((nowMs - this.#startMs) / 1000);
    return `After ${seconds} s: sensor ${ordinal} of ${this.#sensors}${at}.`;
  }
}
