/** Records what is inserted: the activity of each sensor, latencies, and sizes of batches. */

import type { InsertResult } from "../database/connection.ts";
import type { Decoded } from "../database/storing.ts";
import type { Delivery } from "../message/delivery.ts";
import { StoreHistograms } from "./histograms.ts";
import { History } from "./history.ts";
import { SensorActivity } from "./sensor_activity.ts";

/** The records are kept in memory since the start of the program. */
export class InsertRecorder {
  readonly activity = new SensorActivity();
  readonly history = new History();
  readonly histograms = new StoreHistograms();

  /** Records a batch that was committed; does not throw. */
  record(batch: readonly Decoded<Delivery>[], result: InsertResult): void {
    const nowMs = Date.now();
    const notStored = result.unknown.length + result.disabled.length === 0
      ? undefined
      : new Set([...result.unknown, ...result.disabled]);
    const timesMs = new Float64Array(batch.length);
    const latenciesMs = new Float64Array(batch.length);
    let count = 0;
    for (let index = 0; index < batch.length; index++) {
      const timeMs = Number((batch[index] as Decoded<Delivery>).reading.timeMicros) / 1000;
      timesMs[index] = timeMs;
      if (!notStored?.has(index)) latenciesMs[count++] = Math.max(0, nowMs - timeMs);
    }
    this.activity.record(batch, result, { nowMs, timesMs });
    this.histograms.recordBatch(batch.length, result.durationMs);
    if (result.stored === 0) return;
    this.history.record(latenciesMs.subarray(0, count));
    this.histograms.record(latenciesMs.subarray(0, count));
  }
}
