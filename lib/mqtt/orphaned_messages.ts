/**
 * Messages in flight whose connection has ended, so that no connection can acknowledge them.
 *
 * They are kept, because a broker that has lost its sessions will not send them again. When the
 * broker does send one again, it is recognized by its content, so that reconnections during an
 * outage of the database do not add up in memory.
 */

import type { Delivery } from "../message/delivery.ts";

export class OrphanedMessages {
  /** By topic and payload. */
  readonly #deliveries = new Map<string, Delivery>();
  readonly #onSafe: () => void;
  #bytes = 0;

  /** `onSafe` is called whenever one of them has become safe. */
  constructor(onSafe: () => void) {
    this.#onSafe = onSafe;
  }

  get count(): number {
    return this.#deliveries.size;
  }

  /** Bytes of their payloads. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds the messages in flight of a connection that has ended. */
  add(deliveries: readonly Delivery[]): void {
    for (const delivery of deliveries) {
      const key = keyOf(delivery);
      // A delivery of the same content is in flight already, and stays so.
      if (this.#deliveries.has(key)) continue;
      this.#deliveries.set(key, delivery);
      this.#bytes += delivery.payload.length;
      delivery.onSafe = () => {
        this.#remove(delivery);
        this.#onSafe();
      };
    }
  }

  /** Takes out the delivery that a message repeats; undefined if there is none. */
  take(message: Delivery): Delivery | undefined {
    if (this.count === 0 || message.qos === 0) return undefined;
    const delivery = this.#deliveries.get(keyOf(message));
    if (delivery?.qos !== message.qos) return undefined;
    this.#remove(delivery);
    return delivery;
  }

  #remove(delivery: Delivery): void {
    if (this.#deliveries.delete(keyOf(delivery))) this.#bytes -= delivery.payload.length;
  }
}

function keyOf({ topic, payload }: Delivery): string {
  return `${topic}\0${payload.toString("latin1")}`;
}
