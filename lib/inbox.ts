/**
 * The inbox: deliveries that wait for a database connection.
 *
 * Batches form by themselves here: while an insert is under way the next batch gathers, and a
 * connection that is free takes a single delivery at once. No timer is involved.
 */

import type { Delivery } from "./delivery.ts";
import { Fifo } from "./fifo.ts";

/** Deliveries of QoS 0 kept at most: nothing bounds those at the broker's side. */
const MAX_UNACKNOWLEDGED = 100_000;

/** A queue with waiting consumers. */
export class Inbox {
  readonly #deliveries = new Fifo<Delivery>();
  #withoutAcknowledgement = 0;
  #closed = false;
  readonly #wakeUps = new Set<() => void>();

  /** Deliveries that no connection has taken yet. */
  get length(): number {
    return this.#deliveries.length;
  }

  /**
   * Appends a delivery and returns whether it was taken in. QoS 1 and 2 always are, since the
   * in-flight window bounds them; QoS 0 is not when 100,000 of its kind wait already.
   */
  push(delivery: Delivery): boolean {
    if (delivery.qos === 0) {
      if (this.#withoutAcknowledgement >= MAX_UNACKNOWLEDGED) return false;
      this.#withoutAcknowledgement++;
    }
    this.#deliveries.push(delivery);
    this.#wakeOne();
    return true;
  }

  /**
   * Waits for at least one delivery and takes up to `max`, oldest first. Resolves to none when
   * `signal` is aborted.
   */
  async take(max: number, signal: AbortSignal): Promise<Delivery[]> {
    while (this.length === 0 && !signal.aborted) await this.#arrival(signal);
    if (signal.aborted) {
      // The delivery that woke this consumer up is another's now.
      if (this.length > 0) this.#wakeOne();
      return [];
    }
    const batch = this.#deliveries.take(max);
    for (const { qos } of batch) if (qos === 0) this.#withoutAcknowledgement--;
    return batch;
  }

  /** Whether nothing more comes in. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Declares that nothing more comes in. */
  close(): void {
    this.#closed = true;
  }

  #wakeOne(): void {
    const [first] = this.#wakeUps;
    first?.();
  }

  #arrival(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wakeUp = (): void => {
        this.#wakeUps.delete(wakeUp);
        signal.removeEventListener("abort", wakeUp);
        resolve();
      };
      this.#wakeUps.add(wakeUp);
      signal.addEventListener("abort", wakeUp);
    });
  }
}
