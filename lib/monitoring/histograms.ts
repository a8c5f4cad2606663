/**
 * Counters of what is stored, in the classes of the metrics. They are counted here, and not by the
 * metrics library, because that takes some hundred times longer for each reading.
 */

/** Numbers in classes, the last of which has no upper bound. */
export class Histogram {
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;
  #last = 0;

  /** `bounds` are the upper ends of the classes, in ascending order. */
  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = Array(bounds.length + 1).fill(0);
  }

  add(value: number): void {
    const { bounds, counts } = this;
    // Most values are in the same class as the one before.
    let index = this.#last;
    while (index < bounds.length && value > (bounds[index] as number)) index++;
    while (index > 0 && value <= (bounds[index - 1] as number)) index--;
    this.#last = index;
    counts[index] = (counts[index] as number) + 1;
    this.sum += value;
  }
}

/** Of readings and batches since the start of the program. Times are in seconds. */
export class StoreHistograms {
  /** From the timestamp of a reading to its commit. */
  readonly latencies = new Histogram([
    ...[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600, 3600, 86400],
  ]);
  readonly batchRows = new Histogram([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]);
  readonly batchDurations = new Histogram([
    ...[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
  ]);

  note(latenciesMs: Float64Array): void {
    for (let index = 0; index < latenciesMs.length; index++) {
      this.latencies.add((latenciesMs[index] as number) / 1000);
    }
  }

  noteBatch(rows: number, durationMs: number): void {
    this.batchRows.add(rows);
    this.batchDurations.add(durationMs / 1000);
  }
}
