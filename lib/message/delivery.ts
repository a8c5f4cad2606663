/** One message on its way from the broker to the database, and how safe it is. */

import type { Buffer } from "node:buffer";

/** Quality of service (MQTT 5.0 section 4.3). */
export type QoS = 0 | 1 | 2;

/**
 * Messages that the broker may have unacknowledged at a time: the receive maximum of MQTT 5
 * (section 3.1.2.11.3). Two full batches are being stored while as many gather.
 */
export const RECEIVE_MAXIMUM = 8_000;

/**
 * `in flight`: in memory only, so that the broker must keep it. `safe`: on disk in the spool, so
 * that the broker may forget it. `done`: stored, rejected or not to be stored; nothing is left to
 * do. A state never goes back.
 */
export type DeliveryState = "in flight" | "safe" | "done";

/**
 * A message that the broker has delivered. It is acknowledged when it leaves `in flight`, never
 * before.
 */
export class Delivery {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: QoS;
  #state: DeliveryState = "in flight";
  #onSafe: (() => void) | undefined;

  constructor(topic: string, payload: Buffer, options: { readonly qos: QoS }) {
    this.topic = topic;
    this.payload = payload;
    this.qos = options.qos;
  }

  get state(): DeliveryState {
    return this.#state;
  }

  /** Whether the broker may forget the message: it is in the spool, or done. */
  get isSafe(): boolean {
    return this.#state !== "in flight";
  }

  /** Whether the message has its outcome. */
  get isDone(): boolean {
    return this.#state === "done";
  }

  /**
   * The one listener that is called when the message leaves `in flight`, once. Replaces the
   * listener before it: after a reconnect, another connection acknowledges the message.
   */
  set onSafe(listener: () => void) {
    this.#onSafe = listener;
  }

  /** Call when the message has been committed to the spool. */
  markSafe(): void {
    if (this.#state === "in flight") this.#leaveFlight("safe");
  }

  /** Call after the commit that stored the reading, or after its rejection was recorded. */
  finish(): void {
    if (this.#state === "in flight") this.#leaveFlight("done");
    this.#state = "done";
  }

  #leaveFlight(state: DeliveryState): void {
    this.#state = state;
    const listener = this.#onSafe;
    this.#onSafe = undefined;
    listener?.();
  }
}
