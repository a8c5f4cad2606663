/** Keeps one kind of line from flooding the log. */

import { log } from "./log.ts";
import { formatCount } from "./text.ts";

/** Lines that are written in one interval. */
const FLOOD_BURST = 10;

/**
 * Writes ten lines a minute, and after that minute how many it has suppressed. Call `flush` at the
 * end.
 */
export class FloodGuard {
  readonly #subject: string;
  readonly #intervalMs: number;
  #written = 0;
  #suppressed = 0;
  #interval: ReturnType<typeof setTimeout> | undefined;

  /** `subject` completes the sentence "Suppressed 12 more warnings about …". */
  constructor(subject: string, { floodIntervalMs = 60_000 } = {}) {
    this.#subject = subject;
    this.#intervalMs = floodIntervalMs;
  }

  /** Whether lines are suppressed at the moment. */
  get isFull(): boolean {
    return this.#written >= FLOOD_BURST;
  }

  /** Writes the line that `text` returns as a WARNING, or counts it. Returns whether it wrote. */
  warning(text: () => string): boolean {
    this.#interval ??= setTimeout(() => this.flush(), this.#intervalMs);
    if (this.isFull) {
      this.#suppressed++;
      return false;
    }
    this.#written++;
    log.warning(text());
    return true;
  }

  /** Ends the interval: logs how many lines were suppressed, if any were. */
  flush(): void {
    clearTimeout(this.#interval);
    this.#interval = undefined;
    this.#written = 0;
    if (this.#suppressed > 0) {
      const lines = formatCount(this.#suppressed, "more warning");
      log.warning(`Suppressed ${lines} about ${this.#subject}.`);
    }
    this.#suppressed = 0;
  }
}
