/** Logs the progress of filling and draining the spool, if it takes more than a few seconds. */

import { log } from "../common/log.ts";
import { formatCount } from "../common/text.ts";
import { DEFAULT_TUNING, type Tuning } from "../config/tuning.ts";
import type { Spool } from "./spool.ts";

/** The interval between two lines about a spool that is being drained doubles up to this. */
const MAX_REPORT_MS = 300_000;

/** Checks the spool at each tick, and logs a line when a report is due. */
export class SpoolProgress {
  readonly #spool: Spool;
  readonly #tuning: Pick<Tuning, "spoolQuietMs" | "spoolReportMs">;
  #startMs: number | undefined;
  #logged = false;
  #intervalMs = 0;
  #reportMs = 0;
  #reportedCount = 0;
  #removedAtReport = 0;
  #removedAtStart = 0;

  constructor(
    spool: Spool,
    tuning: Pick<Tuning, "spoolQuietMs" | "spoolReportMs"> = DEFAULT_TUNING,
  ) {
    this.#spool = spool;
    this.#tuning = tuning;
  }

  /** Call it a few times a second; `nowMs` is that of `performance.now()`. */
  tick(nowMs: number): void {
    const { count, removedCount } = this.#spool;
    if (this.#startMs === undefined) {
      if (count === 0) return;
      this.#startMs = this.#reportMs = nowMs;
      this.#removedAtStart = this.#removedAtReport = removedCount;
      this.#logged = false;
    } else if (count === 0) {
      const seconds = ((nowMs - this.#startMs) / 1000).toFixed(1);
      const text = `The spool is empty again: ${
        formatCount(removedCount - this.#removedAtStart, "message")
      } passed through it in ${seconds} s.`;
      if (this.#logged) log.info(text);
      else log.debug(text);
      this.#startMs = undefined;
    } else if (!this.#logged && nowMs - this.#startMs >= this.#tuning.spoolQuietMs) {
      this.#logged = true;
      this.#intervalMs = this.#tuning.spoolReportMs;
      this.#report(
        nowMs,
        `Waiting for the database, with ${formatCount(count, "message")} in the spool.`,
      );
    } else if (this.#logged && nowMs - this.#reportMs >= this.#intervalMs) {
      const rate = (removedCount - this.#removedAtReport) * 1000 / (nowMs - this.#reportMs);
      const shrinks = count < this.#reportedCount;
      const perSecond = Math.round((this.#reportedCount - count) * 1000 / (nowMs - this.#reportMs));
      // A spool that only fills needs no line: the outage has its own lines.
      if (rate > 0) {
        this.#intervalMs = Math.min(2 * this.#intervalMs, MAX_REPORT_MS);
        const left = shrinks
          ? `, ${formatDuration(count / perSecond)} left`
          : ", and the spool still grows";
        this.#report(
          nowMs,
          `Draining the spool: ${formatCount(count, "message")} left, ${
            Math.round(rate)
          } stored per second${left}.`,
        );
      } else {
        this.#mark(nowMs);
      }
    }
  }

  #report(nowMs: number, text: string): void {
    log.info(text);
    this.#mark(nowMs);
  }

  #mark(nowMs: number): void {
    this.#reportMs = nowMs;
    this.#reportedCount = this.#spool.count;
    this.#removedAtReport = this.#spool.removedCount;
  }
}

/** `12 s`, `3 min`, `1.5 h`. */
function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "a long time";
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  return seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
