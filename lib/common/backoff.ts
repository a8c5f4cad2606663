/**
 * Waiting before the next attempt: exponential backoff with jitter, and a sleep that an
 * `AbortSignal` ends early.
 */

/** The default maximum delay of a `Backoff`. */
const MAX_DELAY_MS = 15_000;

/**
 * Capped exponential backoff with jitter. By default the delays are 50–100 ms, 100–200, 200–400, …,
 * and 7.5–15 s from then on. The jitter keeps several loggers from reconnecting at the same moment
 * after a common outage.
 */
export class Backoff {
  readonly #firstDelayMs: number;
  readonly #maxDelayMs: number;
  #attempts = 0;

  constructor({ firstDelayMs = 100, maxDelayMs = MAX_DELAY_MS } = {}) {
    this.#firstDelayMs = firstDelayMs;
    this.#maxDelayMs = maxDelayMs;
  }

  /** The time to wait before the next attempt, in ms. Each call counts as one failed attempt. */
  nextDelayMs(random: () => number = Math.random): number {
    const exponential = this.#firstDelayMs * 2 ** Math.min(this.#attempts++, 20);
    const ceiling = Math.min(this.#maxDelayMs, exponential);
    return ceiling * (0.5 + 0.5 * random());
  }

  /** Call after a success: the next delay is the first one again. */
  reset(): void {
    this.#attempts = 0;
  }
}

/** Resolves after `ms`, or as soon as `signal` is aborted. Never rejects. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish);
  });
}
