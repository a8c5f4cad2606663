/**
 * A clock that the test advances. It replaces the timers, `performance.now` and `Date.now`.
 */

interface Timer {
  readonly id: number;
  readonly atMs: number;
  readonly callback: () => void;
  /** Of an interval: the time until it goes off again. */
  readonly everyMs?: number;
}

/** Replaces the timers of the process until it is disposed. */
export class FakeTime implements Disposable {
  readonly #real = {
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    setInterval: globalThis.setInterval,
    clearInterval: globalThis.clearInterval,
    now: performance.now,
    dateNow: Date.now,
  };
  readonly #startMs = Date.now();
  #timers: Timer[] = [];
  #nowMs = 0;
  #nextId = 1;

  constructor() {
    globalThis.setTimeout = ((callback: () => void, delayMs = 0): number => {
      const id = this.#nextId++;
      this.#timers.push({ id, atMs: this.#nowMs + delayMs, callback });
      return id;
    }) as unknown as typeof setTimeout;
    globalThis.clearTimeout = ((id: number | undefined): void => {
      this.#timers = this.#timers.filter((timer) => timer.id !== id);
    }) as unknown as typeof clearTimeout;
    globalThis.setInterval = ((callback: () => void, everyMs: number): number => {
      const id = this.#nextId++;
      this.#timers.push({ id, atMs: this.#nowMs + everyMs, callback, everyMs });
      return id;
    }) as unknown as typeof setInterval;
    globalThis.clearInterval = globalThis.clearTimeout;
    performance.now = () => this.#nowMs;
    Date.now = () => this.#startMs + this.#nowMs;
  }

  /** Number of timers that are set and have not fired. */
  get pending(): number {
    return this.#timers.length;
  }

  /** Advances the time. Timers fire in their order, and the promises they resolve are awaited. */
  async pass(durationMs: number): Promise<void> {
    await settle();
    const endMs = this.#nowMs + durationMs;
    while (true) {
      const [next] = this.#timers.toSorted((one, other) => one.atMs - other.atMs);
      if (next === undefined || next.atMs > endMs) break;
      this.#nowMs = next.atMs;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      const { everyMs } = next;
      if (everyMs !== undefined) this.#timers.push({ ...next, atMs: this.#nowMs + everyMs });
      next.callback();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#real.setTimeout;
    globalThis.clearTimeout = this.#real.clearTimeout;
    globalThis.setInterval = this.#real.setInterval;
    globalThis.clearInterval = this.#real.clearInterval;
    performance.now = this.#real.now;
    Date.now = this.#real.dateNow;
  }
}

/** Runs all pending microtasks. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}
