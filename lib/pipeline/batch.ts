/** Deliveries that are stored together. */

import type { Delivery } from "../message/delivery.ts";
import type { Spool } from "../spool/spool.ts";

/** Rows of one insert at most. Larger batches are not faster and keep more messages in flight. */
export const MAX_BATCH_ROWS = 2_000;

/** The deliveries stay together until each of them has its outcome. */
export class Batch {
  /** When a connection took the batch, by `performance.now()`. */
  readonly takenMs: number = performance.now();
  #deliveries: readonly Delivery[];
  #ids: readonly number[] | undefined;

  /** `ids` are the rows of the spool that the deliveries were read from, in the same order. */
  constructor(deliveries: readonly Delivery[], ids?: readonly number[]) {
    this.#deliveries = deliveries;
    this.#ids = ids;
  }

  /** The deliveries without an outcome. */
  get unfinished(): readonly Delivery[] {
    return this.#deliveries.filter(({ isDone }) => !isDone);
  }

  /** Whether all of the batch is in the spool, too. */
  get spooled(): boolean {
    return this.#ids !== undefined;
  }

  /** Two batches with half of the deliveries each; the batch itself if it has only one. */
  halve(): Batch[] {
    if (this.#deliveries.length < 2) return [this];
    const middle = Math.ceil(this.#deliveries.length / 2);
    return [[0, middle], [middle]].map((bounds) =>
      new Batch(this.#deliveries.slice(...bounds), this.#ids?.slice(...bounds))
    );
  }

  /** Drops the deliveries that have an outcome; returns their rows in the spool. */
  releaseDone(): number[] {
    const ids = this.#ids?.filter((_, index) => this.#deliveries[index]?.isDone) ?? [];
    this.#ids = this.#ids?.filter((_, index) => !this.#deliveries[index]?.isDone);
    this.#deliveries = this.unfinished;
    return ids;
  }

  /**
   * Writes the unfinished deliveries to the spool and marks them safe. Those that were in the spool
   * already are written again.
   *
   * @throws {SpoolError} when the spool does not accept them.
   */
  copyTo(spool: Spool): void {
    spool.remove(this.releaseDone());
    const before = this.#ids;
    this.#ids = spool.append(this.#deliveries, { taken: true });
    if (before !== undefined) spool.remove(before);
    for (const delivery of this.#deliveries) delivery.markSafe();
  }
}
