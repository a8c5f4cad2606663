/** The samples of the last 15 minutes, one per second. */

import type { Sample } from "./status.ts";

const MAX_SAMPLES = 15 * 60;

/** Maximum number of latencies per second that the median is taken of. */
const MAX_LATENCIES = 1_000;

/** Maximum number of these from one batch, evenly spread over it. */
const LATENCIES_PER_BATCH = 50;

/** Numbers at the end of a second; `received` and `stored` are counted from the start of the program. */
export interface Counts {
  readonly received: number;
  readonly stored: number;
  readonly waiting: number;
  readonly spooled: number;
}

/** Keeps the samples, and the latencies of the current second. */
export class History {
  readonly #samples: Sample[] = [];
  #latenciesMs: number[] = [];
  #latencyMaxMs = -Infinity;
  #received = 0;
  #stored = 0;

  /** The samples, oldest first. */
  get samples(): readonly Sample[] {
    return this.#samples;
  }

  /** Records the latencies of a batch, in ms. */
  record(latenciesMs: Float64Array): void {
    const step = Math.ceil(latenciesMs.length / LATENCIES_PER_BATCH);
    for (let index = 0; index < latenciesMs.length; index += step) {
      if (this.#latenciesMs.length >= MAX_LATENCIES) break;
      this.#latenciesMs.push(latenciesMs[index] as number);
    }
    for (let index = 0; index < latenciesMs.length; index++) {
      const latencyMs = latenciesMs[index] as number;
      if (latencyMs > this.#latencyMaxMs) this.#latencyMaxMs = latencyMs;
    }
  }

  /** Ends the current second and returns its sample. */
  sample({ received, stored, waiting, spooled }: Counts): Sample {
    const sorted = this.#latenciesMs.sort((a, b) => a - b);
    const median = sorted[sorted.length >> 1];
    const sample = {
      timeMs: Date.now(),
      received: received - this.#received,
      stored: stored - this.#stored,
      latencyMs: median === undefined ? null : round(median),
      latencyMaxMs: median === undefined ? null : round(this.#latencyMaxMs),
      waiting,
      spooled,
    };
    this.#latenciesMs = [];
    this.#latencyMaxMs = -Infinity;
    this.#received = received;
    this.#stored = stored;
    this.#samples.push(sample);
    if (this.#samples.length > MAX_SAMPLES) this.#samples.shift();
    return sample;
  }
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
