/** Tells the log how a spool fills and empties, where that takes longer than a few seconds. */

import { log } from "../common/log.ts";
import type { Spool } from "./spool.ts";

/** A spool that is empty again after so long is not worth a line. */
const QUIET_MS = 5_000;

/** Time between two lines about a spool that empties: it doubles with each, up to five minutes. */
const FIRST_REPORT_MS = 10_000;
const MAX_REPORT_MS = 300_000;

/** Looks at the spool, and writes a line when there is something to say. */
export class SpoolProgress {
  readonly #spool: Spool;
  #startMs: number | undefined;
  #told = false;
  #intervalMs = FIRST_REPORT_MS;
  #reportMs = 0;
  #reportedCount = 0;
  #removedAtReport = 0;
  #removedAtStart = 0;

  constructor(spool: Spool) {
    this.#spool = spool;
  }

  /** To be called every now and then; `nowMs` is that of `performance.now()`. */
  look(nowMs: number): void {
    const { count, removedCount } = this.#spool;
    if (this.#startMs === undefined) {
      if (count === 0) return;
      this.#startMs = this.#reportMs = nowMs;
      this.#removedAtStart = this.#removedAtReport = removedCount;
      this.#told = false;
    } else if (count === 0) {
      const seconds = ((nowMs - this.#startMs) / 1000).toFixed(1);
      const text = `The spool is empty again: ${removedCount - this.#removedAtStart} messages ` +
        `went through it in ${seconds} s.`;
      if (this.#told) log.info(text);
      else log.debug(text);
      this.#startMs = undefined;
    } else if (!this.#told && nowMs - this.#startMs >= QUIET_MS) {
      this.#told = true;
      this.#intervalMs = FIRST_REPORT_MS;
      this.#report(nowMs, `${count} messages are in the spool until the database takes them.`);
    } else if (this.#told && nowMs - this.#reportMs >= this.#intervalMs) {
      const rate = (removedCount - this.#removedAtReport) * 1000 / (nowMs - this.#reportMs);
      const shrinks = count < this.#reportedCount;
      const perSecond = Math.round((this.#reportedCount - count) * 1000 / (nowMs - this.#reportMs));
      // A spool that only fills is waited for in silence: the outage has its own lines.
      if (rate > 0) {
        this.#intervalMs = Math.min(2 * this.#intervalMs, MAX_REPORT_MS);
        const left = shrinks
          ? `, ${formatDuration(count / perSecond)} left`
          : ", and it still grows";
        this.#report(
          nowMs,
          `Emptying the spool: ${count} messages left, ${Math.round(rate)} stored a second${left}.`,
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
