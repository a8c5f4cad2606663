/**
 * Waiting before another attempt: exponential backoff with jitter, and a sleep that ends with its
 * signal.
 */

/** The longest delay of a `Backoff`, unless another one is asked for. */
export const MAX_DELAY_MS = 15_000;

/**
 * Capped exponential backoff with jitter: 50–100 ms, 100–200, 200–400, … 7.5–15 s, the same for
 * ever after. Jitter keeps several loggers from knocking in step after a common outage.
 */
export class Backoff {
  readonly #firstDelayMs: number;
  readonly #maxDelayMs: number;
  #attempts = 0;

  constructor({ firstDelayMs = 100, maxDelayMs = MAX_DELAY_MS } = {}) {
    this.#firstDelayMs = firstDelayMs;
    this.#maxDelayMs = maxDelayMs;
  }

  /** The time to wait before the next attempt, in ms. */
  nextDelayMs(random: () => number = Math.random): number {
    const exponential = this.#firstDelayMs * 2 ** Math.min(this.#attempts++, 20);
    const ceiling = Math.min(this.#maxDelayMs, exponential);
    return ceiling * (0.5 + 0.5 * random());
  }

  reset(): void {
    this.#attempts = 0;
  }
}

/** Resolves after `ms`, or at once when `signal` is aborted; it never rejects. */
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
