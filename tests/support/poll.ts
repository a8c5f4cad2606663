/**
 * Waits for an event that a test cannot subscribe to: a number of rows, an open port. The condition
 * is polled; no test sleeps for a fixed time instead.
 */

/** How {@linkcode waitUntil} polls. */
export interface WaitOptions {
  /** Gives up after this time; 60,000 by default. */
  readonly timeoutMs?: number;
  /** Pause between two checks; 20 by default. */
  readonly intervalMs?: number;
  /** The awaited event, for the error message: `the 100 readings`. */
  readonly what?: string;
}

/**
 * Polls until the condition returns neither `false`, `null` nor `undefined`, and returns that value.
 *
 * An error thrown by the condition counts as "not yet", because the service may be down. The last
 * one becomes the `cause` of the error that is thrown at the deadline.
 *
 * @throws {Error} when the deadline passes; the message names `what`.
 */
export async function waitUntil<T>(
  condition: () => T | Promise<T>,
  options: WaitOptions = {},
): Promise<Exclude<T, false | null | undefined>> {
  const { timeoutMs = 60_000, intervalMs = 20, what = "the condition" } = options;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  while (true) {
    try {
      const answer = await condition();
      if (answer !== false && answer !== null && answer !== undefined) {
        return answer as Exclude<T, false | null | undefined>;
      }
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() >= deadline) {
      const reason = cause instanceof Error ? `, last error: ${cause.message}` : "";
      throw new Error(`Waiting for ${what}: not there after ${timeoutMs} ms${reason}`, { cause });
    }
    await delay(intervalMs);
  }
}

/** Resolves after the given time. */
export function delay(durationMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}

/**
 * Waits for a promise, but not longer than the given time.
 *
 * @returns the value of the promise, or `undefined` after the time limit; the promise continues.
 */
export async function within<T>(promise: Promise<T>, durationMs: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), durationMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
