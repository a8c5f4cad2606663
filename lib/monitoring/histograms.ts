/**
 * Histograms of the stored readings, with the buckets of the metrics. They are counted here, because
 * the metrics library takes some hundred times longer for each reading.
 */

/** Counts values in buckets; the last bucket has no upper bound. */
export class Histogram {
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;
  #last = 0;

  /** `bounds` are the inclusive upper bounds of the buckets, in ascending order. */
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = Array(bounds.length + 1).fill(0);
  }

  add(value: number): void {
    const { bounds, counts } = this;
    // Most values are in the same bucket as the one before.
    let index = this.#last;
    while (index < bounds.length && value > (bounds[index] as number)) index++;
    while (index > 0 && value <= (bounds[index - 1] as number)) index--;
    this.#last = index;
    counts[index] = (counts[index] as number) + 1;
    this.sum += value;
  }
}

/** Histograms of readings and batches since the start of the program. Times are in seconds. */
export class StoreHistograms {
  /** Time from the timestamp of a reading to its commit. */
  readonly latencies = new Histogram([
    ...[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600, 3600, 86400],
  ]);
  readonly batchRows = new Histogram([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]);
  readonly batchDurations = new Histogram([
    ...[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
  ]);

  /** Records the latencies of stored readings, in ms. */
  record(latenciesMs: Float64Array): void {
    for (let index = 0; index < latenciesMs.length; index++) {
      this.latencies.add((latenciesMs[index] as number) / 1000);
    }
  }

  /** Records an insert: its rows, stored or not, and its duration in ms. */
  recordBatch(rows: number, durationMs: number): void {
    this.batchRows.add(rows);
    this.batchDurations.add(durationMs / 1000);
  }
}
