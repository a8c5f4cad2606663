/** Keeps one kind of line from flooding the log. */

import { log } from "./log.ts";

/** Lines that are written in one interval. */
const FLOOD_BURST = 10;

/** Writes ten lines a minute, and at its end how many were left out. Call `flush` at the end. */
export class FloodGuard {
  readonly #subject: string;
  readonly #intervalMs: number;
  #written = 0;
  #leftOut = 0;
  #interval: ReturnType<typeof setTimeout> | undefined;

  /** `subject` completes the sentence "12 more … were left out of the log". */
  constructor(subject: string, { floodIntervalMs = 60_000 } = {}) {
    this.#subject = subject;
    this.#intervalMs = floodIntervalMs;
  }

  /** Whether lines are left out at the moment. */
  get isFull(): boolean {
    return this.#written >= FLOOD_BURST;
  }

  /** Writes the line that `text` returns as a WARNING, or counts it. Returns whether it wrote. */
  warning(text: () => string): boolean {
    this.#interval ??= setTimeout(() => this.flush(), this.#intervalMs);
    if (this.isFull) {
      this.#leftOut++;
      return false;
    }
    this.#written++;
    log.warning(text());
    return true;
  }

  /** Ends the interval: logs how many lines were left out, if any were. */
  flush(): void {
    clearTimeout(this.#interval);
    this.#interval = undefined;
    this.#written = 0;
    if (this.#leftOut > 0) {
      log.warning(`${this.#leftOut} more ${this.#subject} were left out of the log.`);
    }
    this.#leftOut = 0;
  }
}
