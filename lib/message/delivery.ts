/**
 * Deliveries: messages that the broker has handed over and that are owed an acknowledgement.
 *
 * A delivery is settled once it is safe, in the database or on disk, or rejected, never before;
 * only then does the connection that brought it acknowledge it.
 */

import { Buffer } from "node:buffer";
import type { QoS } from "../config/config.ts";
import { Fifo } from "../common/fifo.ts";

/** One message on its way from the broker to the database. */
export class Delivery {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: QoS;
  #settled = false;
  #finished = false;
  #onSettled: (() => void) | undefined;

  constructor(topic: string, payload: Buffer, options: { readonly qos: QoS }) {
    this.topic = topic;
    this.payload = payload;
    this.qos = options.qos;
  }

  get settled(): boolean {
    return this.#settled;
  }

  /** Who is told that the delivery is settled; replaces whoever was to be told before. */
  set onSettled(callback: () => void) {
    this.#onSettled = callback;
  }

  /** Whether it has its outcome, and nothing is to be done about it any more. */
  get finished(): boolean {
    return this.#finished;
  }

  /** To be called after the commit that stored the reading, or after its rejection was reported. */
  finish(): void {
    this.#finished = true;
    this.settle();
  }

  /** To be called when the message is safe: finished, or on disk in the spool. */
  settle(): void {
    this.#settled = true;
    this.#onSettled?.();
    this.#onSettled = undefined;
  }
}

/** First byte of the acknowledging packets (MQTT 5.0 section 2.1.2). */
const PUBACK = 0x40;
const PUBREC = 0x50;
const PUBCOMP = 0x70;

/**
 * Encodes acknowledgements of two bytes each, the packet id. Reason code 0 and an empty property
 * list may be left out (MQTT 5.0 section 3.4.2), which makes them the same for 3.1.1 and 5.
 */
class AcknowledgementBuffer {
  #bytes = Buffer.allocUnsafe(4096);
  #length = 0;

  add(type: number, packetId: number): void {
    if (this.#length + 4 > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(this.#bytes.length * 2);
      this.#bytes.copy(larger);
      this.#bytes = larger;
    }
    const bytes = this.#bytes;
    bytes[this.#length++] = type;
    bytes[this.#length++] = 2;
    bytes[this.#length++] = packetId >> 8;
    bytes[this.#length++] = packetId & 0xff;
  }

  /** The bytes added since the last call, in memory of their own; undefined where there are none. */
  take(): Buffer | undefined {
    if (this.#length === 0) return undefined;
    const bytes = Buffer.from(this.#bytes.subarray(0, this.#length));
    this.#length = 0;
    return bytes;
  }
}

/**
 * QoS 2 handovers that may be half done: PUBREC sent, PUBREL not seen. Mosquitto searches them one
 * by one at each PUBREC, so that a whole backlog half done slows it to a crawl. A broker that is
 * some milliseconds away is still kept busy by so many.
 */
const MAX_HALF_DONE = 250;

/** What is owed for one message. */
interface Owed {
  readonly type: typeof PUBACK | typeof PUBREC;
  readonly packetId: number;
  settled: boolean;
}

/**
 * What one connection owes its broker. Acknowledgements leave in the order in which the messages
 * came ([MQTT-4.6.0-2] and [MQTT-4.6.0-3]), all that are due at the same time in one write.
 *
 * A packet id is acknowledged again only when its last handover is done. Mosquitto 2.0 sends a
 * whole backlog at once, using packet ids a second time while they are still in use, and closes
 * the connection with a protocol error where their handovers overlap.
 */
export class AcknowledgementQueue {
  readonly #send: (bytes: Buffer) => void;
  readonly #onSettled: () => void;
  readonly #buffer = new AcknowledgementBuffer();
  readonly #unsettled = new Set<Delivery>();
  #unsettledBytes = 0;
  /** In order of arrival. */
  readonly #owed = new Fifo<Owed>();
  /** Acknowledgements due that wait for handovers to be done: `type << 16 | packetId`. */
  readonly #due = new Fifo<number>();
  /** Packet ids whose PUBREC is sent and whose PUBREL is not there yet. */
  readonly #halfDone = new Set<number>();
  #flushScheduled = false;
  #closed = false;

  /** `send` writes to the connection; `onSettled` is told whenever fewer deliveries are in hand. */
  constructor(send: (bytes: Buffer) => void, onSettled: () => void) {
    this.#send = send;
    this.#onSettled = onSettled;
  }

  /** Deliveries in hand: neither committed nor rejected. */
  get unsettled(): number {
    return this.#unsettled.size;
  }

  /** Bytes of their payloads. */
  get unsettledBytes(): number {
    return this.#unsettledBytes;
  }

  /** Whether everything that is settled is acknowledged, and every handover done. */
  get idle(): boolean {
    return this.#due.length === 0 && this.#halfDone.size === 0 && !this.#flushScheduled;
  }

  /** Acknowledges the delivery to this connection's broker once it is settled. QoS 1 and 2 only. */
  add(delivery: Delivery, packetId: number): void {
    const owed = { type: delivery.qos === 1 ? PUBACK : PUBREC, packetId, settled: false } as const;
    this.#owed.push(owed);
    this.#unsettled.add(delivery);
    this.#unsettledBytes += delivery.payload.length;
    delivery.onSettled = () => this.#settle(delivery, owed);
  }

  /** Answers a PUBREL. It ends a QoS 2 handover; whether its message was ever seen does not matter. */
  complete(packetId: number): void {
    this.#halfDone.delete(packetId);
    this.#buffer.add(PUBCOMP, packetId);
    this.#schedule();
  }

  /** Forgets the packet ids, which end with the connection, and returns what is not settled. */
  close(): Delivery[] {
    this.#closed = true;
    return [...this.#unsettled];
  }

  /** Sends what is due now rather than after the current task. */
  readonly flush = (): void => {
    this.#flushScheduled = false;
    if (this.#closed) return;
    while (this.#owed.first?.settled) {
      const { type, packetId } = this.#owed.shift() as Owed;
      this.#due.push(type << 16 | packetId);
    }
    for (let due; (due = this.#due.first) !== undefined; this.#due.shift()) {
      const [type, packetId] = [due >> 16, due & 0xffff];
      if (type === PUBREC) {
        if (this.#halfDone.size >= MAX_HALF_DONE || this.#halfDone.has(packetId)) break;
        this.#halfDone.add(packetId);
      }
      this.#buffer.add(type, packetId);
    }
    const bytes = this.#buffer.take();
    if (bytes) this.#send(bytes);
    this.#onSettled();
  };

  #settle(delivery: Delivery, owed: Owed): void {
    this.#unsettled.delete(delivery);
    this.#unsettledBytes -= delivery.payload.length;
    owed.settled = true;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#flushScheduled || this.#closed) return;
    this.#flushScheduled = true;
    queueMicrotask(this.flush);
  }
}
