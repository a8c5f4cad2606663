/** The last 15 minutes, second by second. */

import type { Sample } from "./status.ts";

const MAX_SAMPLES = 15 * 60;

/** Latencies kept of a second, of which the median is taken. */
const MAX_LATENCIES = 1_000;

/** Latencies kept of a batch, evenly spread over it. */
const LATENCIES_PER_BATCH = 50;

/** Numbers at the end of a second; the first two have been counted since the start. */
export interface Counts {
  readonly received: number;
  readonly stored: number;
  readonly waiting: number;
  readonly spooled: number;
}

/** Samples, and what the next one is made of. */
export class History {
  readonly #samples: Sample[] = [];
  #latenciesMs: number[] = [];
  #latencyMaxMs = -Infinity;
  #received = 0;
  #stored = 0;

  /** Oldest first. */
  get samples(): readonly Sample[] {
    return this.#samples;
  }

  /** Takes note of the latencies of a batch, in ms. */
  note(latenciesMs: Float64Array): void {
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

  /** Ends a second and returns its sample. */
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
