/**
 * Time that passes only when a test says so, in place of `setTimeout`, `clearTimeout` and
 * `performance.now`.
 */

interface Timer {
  readonly id: number;
  readonly atMs: number;
  readonly callback: () => void;
}

/** Replaces the timers of the process until it is disposed. */
export class FakeTime implements Disposable {
  readonly #real = {
    setTimeout: globalThis.setTimeout,
    clearTimeout: globalThis.clearTimeout,
    now: performance.now,
  };
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
    performance.now = () => this.#nowMs;
  }

  /** Timers that are set and have not gone off. */
  get pending(): number {
    return this.#timers.length;
  }

  /** Lets time pass: timers go off in their order, and what they resolve goes on. */
  async pass(durationMs: number): Promise<void> {
    const endMs = this.#nowMs + durationMs;
    while (true) {
      const [next] = this.#timers.toSorted((one, other) => one.atMs - other.atMs);
      if (next === undefined || next.atMs > endMs) break;
      this.#nowMs = next.atMs;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      next.callback();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#real.setTimeout;
    globalThis.clearTimeout = this.#real.clearTimeout;
    performance.now = this.#real.now;
  }
}

/** Lets everything go on that needs no timer. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}
